"""Base and runs for clients of OpenAI's API: `/v1/models` and `/v1/chat/completions`, answered in the page's own batch."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sftdemo import files, runs
from sftdemo.errors import UserError, unexpected
from sftdemo.log import LOG
from sftdemo.runs.listing import created
from sftdemo.ui import models
from sftdemo.ui.access import rights
from sftdemo.ui.openai_request import ApiError, Wish, read_wish, stop_cut

MOST_BYTES = 4 * 2**20  # of a request
MOST_AT_ONCE = 32  # requests of all who have the key
ASKER = ("openai", "openai")
BASE = "base"  # the base of the newest run; "base:RUN" is that of another


def check_key(request: Request) -> None:
    """Raise ApiError unless the key came along; without a key, the owner is known by where the request comes from."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and rights.is_api_key(value.strip()):
        return
    if rights.policy().config.api_key:
        raise ApiError(401, "The API key is wrong or missing.", code="invalid_api_key")
    if not rights.visitor(request).owner:
        raise ApiError(401, "This app has no SFTDEMO_API_KEY, so only its owner may use it.", code="invalid_api_key")


def ready_runs() -> list[runs.Run]:
    return [run for run in runs.list_runs() if models.is_ready(run)]


def all_models() -> dict[str, tuple[runs.Run, str]]:
    """All that can be asked, with the run and which side of it: each run, its base, and the newest run's base by its short name."""
    ready = ready_runs()
    asked = {BASE: (ready[0], "base")} if ready else {}
    for run in ready:
        asked[run.name] = run, "tuned"
        asked.setdefault(f"{BASE}:{run.name}", (run, "base"))
    return asked


def find_model(name: str) -> tuple[runs.Run, str]:
    """The run that a model's name stands for, and which side of it."""
    asked = all_models()
    if name not in asked:
        names = ", ".join([*asked][:9]) or "none yet"
        raise ApiError(404, f"There is no model {name[:80]!r}; there are: {names}.", "model", "model_not_found")
    return asked[name]


def described(name: str, run: runs.Run) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created(run.path)), "owned_by": "sftdemo"}


async def list_models(request: Request) -> Response:
    data = await models.in_thread(lambda: [described(name, run) for name, (run, _) in all_models().items()])
    return JSONResponse({"object": "list", "data": data})


async def show_model(request: Request) -> Response:
    name = request.path_params["name"]
    return JSONResponse(await models.in_thread(lambda: described(name, find_model(name)[0])))


async def body_of(request: Request) -> Any:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise ApiError(413, f"The request has more than {MOST_BYTES:,} bytes.")
    try:
        return files.parsed(body.decode())
    except ValueError:
        raise ApiError(400, "The request's body isn't JSON.") from None


@dataclass
class Completion:
    """One answer in the making, in pieces of text up to its end or the first stop sequence."""

    wish: Wish
    prompt_tokens: int
    chunks: AsyncGenerator[Any, None]
    tokens: int = 0
    finish_reason: str = "stop"

    def __post_init__(self) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())

    async def pieces(self) -> AsyncGenerator[str, None]:
        """The text as it grows; what may be the beginning of a stop sequence is held back."""
        shown, text = 0, ""
        async with aclosing(self.chunks) as chunks:
            async for chunk in chunks:
                if not hasattr(chunk, "side"):
                    continue  # a place in line
                text, self.tokens = text + chunk.text, chunk.tokens
                end, stopped = stop_cut(text, self.wish.stop, whole=chunk.finish_reason is not None)
                if end > shown:
                    yield text[shown:end]
                    shown = end
                if stopped:
                    return
                if chunk.finish_reason:
                    self.finish_reason = "length" if chunk.finish_reason == "length" else "stop"

    @property
    def usage(self) -> dict[str, int]:
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens}
        return counts | {"total_tokens": self.prompt_tokens + self.tokens}

    def envelope(self, kind: str, **values: Any) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.wish.model, **values}


@asynccontextmanager
async def hung_up(request: Request) -> AsyncGenerator[asyncio.Event, None]:
    """An event that is set when the client goes away."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    task = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        task.cancel()


async def begun(wish: Wish, should_stop: Callable[[], bool]) -> Completion:
    """The question, in line; faults of the prompt and a line that is too long come now, and not in the middle of a stream."""
    run, side = await models.in_thread(lambda: find_model(wish.model))
    served = await models.served(run.name)
    tokens, events = await served.begin(
        wish.messages, wish.config, ASKER, should_stop, sides=(side,), most=MOST_AT_ONCE
    )
    first = await anext(events)

    async def all_of_them() -> AsyncGenerator[Any, None]:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    return Completion(wish, tokens, all_of_them())


async def complete(request: Request) -> Response:
    wish = read_wish(await body_of(request))
    if wish.stream:
        return StreamingResponse(streamed(await begun(wish, lambda: False)), media_type="text/event-stream")
    async with hung_up(request) as gone:
        completion = await begun(wish, gone.is_set)
        text = "".join([piece async for piece in completion.pieces()])
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}
    return JSONResponse(completion.envelope("chat.completion", choices=[choice], usage=completion.usage))


async def streamed(completion: Completion) -> AsyncGenerator[str, None]:
    """Server-sent events; Starlette closes this when the client goes away, and with it the question leaves the batch."""

    def event(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return f"data: {json.dumps(completion.envelope('chat.completion.chunk', choices=[choice]))}\n\n"

    yield event({"role": "assistant", "content": ""})
    try:
        async with aclosing(completion.pieces()) as pieces:
            async for piece in pieces:
                yield event({"content": piece})
    except Exception as error:  # noqa: BLE001 (the answer has begun: all that can be done is to say so)
        yield f"data: {json.dumps(as_api_error(error).body)}\n\n"
        return
    yield event({}, completion.finish_reason)
    if completion.wish.include_usage:
        usage = completion.envelope("chat.completion.chunk", choices=[], usage=completion.usage)
        yield f"data: {json.dumps(usage)}\n\n"
    yield "data: [DONE]\n\n"


def as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):  # the door of the app
        return ApiError(error.status_code, str(error.detail))
    if not isinstance(error, UserError):
        LOG.error("A request to /v1 failed.", exc_info=error)
        return ApiError(500, unexpected(error, private=True), kind="server_error")
    if type(error).__name__ == "BusyError":  # its module is loaded with torch
        return ApiError(429, str(error), code="rate_limit_exceeded", kind="rate_limit_error")
    return ApiError(400, str(error))


def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The handler behind the key, with its faults as OpenAI's clients read them."""

    async def answer(request: Request) -> Response:
        try:
            check_key(request)
            with rights.for_owner():
                return await handler(request)
        except Exception as error:  # noqa: BLE001 (told to the client, and what nobody foresaw in the log)
            fault = as_api_error(error)
            return JSONResponse(fault.body, fault.status)

    return answer


async def unknown(request: Request) -> Response:
    raise ApiError(404, f"There is no {request.method} {request.url.path[:80]} here.", code="unknown_url")


ROUTES = [
    Route("/v1/models", guarded(list_models), methods=["GET"]),
    Route("/v1/models/{name:path}", guarded(show_model), methods=["GET"]),
    Route("/v1/chat/completions", guarded(complete), methods=["POST"]),
    Route("/v1/{rest:path}", guarded(unknown), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
]
