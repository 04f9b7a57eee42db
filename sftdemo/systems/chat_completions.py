"""A client of OpenAI's chat completions: a reply to a conversation, within limits of time and size, after as many tries as it takes."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from sftdemo.encoding import calls
from sftdemo.errors import Text, UserError
from sftdemo.systems.system import Row

if TYPE_CHECKING:
    import httpx

KEY = "SFTDEMO_ENDPOINT_KEY"  # of the environment; the key is never saved or shown
CONNECT_S = 10.0
ANSWER_S = 120.0  # until a reply is whole
SILENT_TRIES = 2  # where none came in that time
TRIES = 4
PAUSE_S = 1.0  # before the second try; doubled before each further one
MOST_PAUSE_S = 30.0  # that a service may ask for
MOST_BYTES = 8 * 2**20  # of a reply
TOKEN_CHARACTERS = 16  # no more than so many a token are taken of an answer
SHORT = 200  # characters of what a service says of itself
TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}


@dataclass(frozen=True)
class Reply:
    """One answer, the tokens that it cost, and what the service says of itself with it."""

    text: str
    tokens: dict[str, int]
    about: dict[str, str]


@dataclass(frozen=True)
class Service:
    """The model `model` at `url`, such as http://127.0.0.1:8000/v1; `name` is what faults call it."""

    name: str
    model: str
    url: str

    def client(self) -> httpx.AsyncClient:
        import httpx

        key = _key()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S))

    async def listed(self, client: httpx.AsyncClient) -> dict[str, str]:
        """What the service's list of models says of this one; nothing where it has no such list."""
        import httpx

        with contextlib.suppress(
            httpx.HTTPError, TimeoutError, ValueError, TypeError, KeyError, AttributeError, UserError
        ):
            with anyio.fail_after(CONNECT_S):
                _, _, content = await self._sent(client, "GET", "models")
            entry: dict[str, Any] = next(
                (each for each in _parsed(content)["data"] if each.get("id") == self.model), {}
            )
            return {key: _shown(str(entry[key])) for key in ("created", "owned_by") if entry.get(key)}
        return {}

    async def ask(self, client: httpx.AsyncClient, row: Row, longest: int) -> Reply:
        """The answer to a row's conversation, at temperature 0; UserError where none comes."""
        import httpx

        body: dict[str, Any] = {"model": self.model, "max_tokens": longest, "temperature": 0}
        body["messages"] = [_with_written_arguments(message) for message in row["messages"]]
        if row.get("tools"):
            body["tools"] = row["tools"]
        pause = PAUSE_S
        for attempt in range(1, TRIES + 1):
            wait = pause
            try:
                with anyio.fail_after(ANSWER_S):
                    status, headers, content = await self._sent(client, "POST", "chat/completions", body)
            except (TimeoutError, httpx.ReadTimeout):
                problem = Text("no whole answer came within {seconds} seconds", seconds=round(ANSWER_S))
                if attempt >= SILENT_TRIES:
                    break
            except (httpx.RequestError, httpx.InvalidURL) as error:
                problem = Text("it can't be reached ({error})", error=type(error).__name__)
            else:
                if status == 200:
                    return self._read(content, longest)
                problem = Text("it answered {status}: {text}", status=status, text=_said(headers, content))
                if status not in TRY_AGAIN:
                    break
                wait = _asked_pause(headers) or pause
            if attempt < TRIES:
                await anyio.sleep(wait)
                pause *= 2
        raise UserError(
            "{name} doesn't answer: {problem}. Look at its address, its model and {key}; the evaluation itself is saved.",
            name=self.name,
            problem=problem,
            key=KEY,
        )

    async def _sent(
        self, client: httpx.AsyncClient, method: str, path: str, body: Any = None
    ) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and content of a response; redirects, which might lead the key elsewhere, aren't followed."""
        content = bytearray()
        async with client.stream(method, f"{self.url.rstrip('/')}/{path}", json=body) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MOST_BYTES:
                    raise UserError("{name} sends over {n} MB for one answer.", name=self.name, n=MOST_BYTES // 2**20)
            return response.status_code, response.headers, bytes(content)

    def _read(self, content: bytes, longest: int) -> Reply:
        try:
            value = _parsed(content)
            choice = value["choices"][0]
            text = _answer(choice["message"])
            about = {key: _shown(str(value[key])) for key in ("model", "system_fingerprint") if value.get(key)}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(
                "{name} answers in another form than OpenAI's chat completions: {text}",
                name=self.name,
                text=_shown(content.decode("utf-8", "replace")),
            ) from error
        tokens = _counts(value.get("usage"))
        if choice.get("finish_reason") == "length" or len(text) > TOKEN_CHARACTERS * longest:
            tokens["cut"] = 1
        return Reply(text[: TOKEN_CHARACTERS * longest], tokens, about)


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError("{key} has characters that can't be sent as a key; set it anew.", key=KEY)
    return key


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _answer(message: Any) -> str:
    """What a message says, or the calls that it makes, as references have them; half a character is replaced."""
    text = message.get("content") or ""
    if not isinstance(text, str):  # as parts
        text = "".join(part.get("text") or "" for part in text)
    tool_calls = [call["function"] for call in message.get("tool_calls") or []]
    return calls.written(text, tool_calls).encode("utf-8", "replace").decode()


def _counts(used: Any) -> dict[str, int]:
    """The tokens that a service counted, as far as it did."""
    used = used if isinstance(used, dict) else {}
    counts = {name: used.get(name) for name in ("prompt_tokens", "completion_tokens")}
    return {name: n for name, n in counts.items() if isinstance(n, int) and n >= 0 and not isinstance(n, bool)}


def _said(headers: httpx.Headers, content: bytes) -> str:
    """What stands in a response that is no answer; of a redirect, where it leads."""
    return _shown(headers.get("location") or content.decode("utf-8", "replace"))


def _shown(text: str) -> str:
    """The start of what a service says, in one line; some say the key again."""
    key = _key()
    line = " ".join(text.split())
    return (line.replace(key, "…") if key else line)[:SHORT].encode("utf-8", "replace").decode()


def _with_written_arguments(message: Row) -> Row:
    """A turn with its calls' arguments as text, as OpenAI has them."""
    if not message.get("tool_calls"):
        return message
    calls = [
        call | {"function": call["function"] | {"arguments": _written(call["function"].get("arguments"))}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)


def _asked_pause(headers: httpx.Headers) -> float | None:
    """Seconds that the service asks to wait, within bounds."""
    asked = headers.get("retry-after", "")
    return min(float(asked), MOST_PAUSE_S) if asked.isdecimal() else None
