"""A small service of OpenAI's form: each model's name says how it behaves."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

STATUS = {"down": 503, "unknown": 404, "refused": 401, "moved": 307}
BODIES: dict[str, Any] = {
    "other": {"text": "hello"},
    "nothing": {"choices": [{"message": None}]},
    "list": [],
    "numbers": {"choices": [{"message": {"content": 7}}]},
    "garbage": b"\xff\xfe<html>\n\n<p>busy</p>",
    "nested": b"[" * 200_000,
    "events": b'data: {"choices": [{"delta": {"content": "good"}}]}\n\ndata: [DONE]\n\n',
    "half": b'{"choices": [{"message": {"content": "good \\ud83d"}}]}',
    "uncounted": {"choices": [{"message": {"content": "good"}}], "usage": {"prompt_tokens": None, "completion_tokens": "x"}},
    "parts": {"choices": [{"finish_reason": "length", "message": {"content": [
        {"type": "reasoning"}, {"type": "text", "text": "go"}, {"type": "text", "text": "od"}]}}]},
    "calls": {"choices": [{"message": {"content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}]}}]},
    "wordy": {"choices": [{"message": {"content": "good " * 100_000}}]},
}  # fmt: skip


class ChatService(BaseHTTPRequestHandler):
    asked: ClassVar[list[dict[str, Any]]] = []
    left: ClassVar[int] = 0  # answers that the model "tired" still gives
    counting: ClassVar[threading.Lock] = threading.Lock()
    released = threading.Event()  # what hangs goes on

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model, text = body["model"], body["messages"][-1]["content"]
        tries = sum(text == each["messages"][-1]["content"] for each in self.asked)
        self.asked.append(body | {"authorization": self.headers.get("authorization")})
        if model == "silent":
            self.released.wait(30)
        elif model in ("trickle", "endless"):
            self.send_response(200)
            self.end_headers()
            self.pour(model)
        elif model == "squeezed":
            self.reply(200, b"no gzip at all", {"content-encoding": "gzip"})
        elif model == "bomb":
            self.reply(200, gzip.compress(b" " * 50_000_000), {"content-encoding": "gzip"})
        elif model in STATUS or (model == "busy" and not tries):
            said = {"error": f"no: {self.headers.get('authorization')}\nlater"}
            self.reply(
                STATUS.get(model, 429), said, {"location": "http://127.0.0.1:9/elsewhere"} if model == "moved" else {}
            )
        elif model == "tired" and not self.rests():
            self.reply(404, {"error": "no such model any more"})
        elif model in BODIES:
            self.reply(200, BODIES[model])
        else:
            answer = "good" if any(word in text for word in ("fine", "lovely", "bright")) else "bad"
            usage = {"prompt_tokens": 7, "completion_tokens": 1}
            said = {"model": f"{model}-2026", "system_fingerprint": "fp_7", "usage": usage}
            self.reply(200, {"choices": [{"message": {"role": "assistant", "content": f" {answer} "}}], **said})

    def rests(self) -> bool:
        """Whether the model that is tired still answers."""
        with self.counting:  # each question has a thread of its own
            type(self).left -= 1
            return self.left >= 0

    def pour(self, model: str) -> None:
        """A byte now and then, or all that is taken."""
        try:
            while not self.released.wait(0.02 if model == "trickle" else 0):
                self.wfile.write(b" " if model == "trickle" else b" " * 100_000)
        except OSError:  # the client has gone
            return

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "busy", "created": 1700000000, "owned_by": "us"}, {"id": "other"}]})

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"retry-after": "0", "content-length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@contextmanager
def serving() -> Iterator[str]:
    """The address of a service that has been asked nothing yet."""
    ChatService.asked, ChatService.left = [], 0
    ChatService.released.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), ChatService)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    ChatService.released.set()
    server.shutdown()
    server.server_close()
