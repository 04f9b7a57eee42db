"""Puts our script at the very start of the page: Gradio adds its `head` too late to choose language and brightness."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class EarlyScript:
    """ASGI middleware: HTML pages get the script right after <head>; everything else passes untouched."""

    def __init__(self, app: Any, script: str) -> None:
        self.app = app
        self.script = script.encode()

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        held: Message | None = None

        async def pass_on(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_page(message):
                held = message  # its length isn't known before its body
                return
            if held is not None and message["type"] == "http.response.body":
                start, held = held, None
                body = message.get("body", b"").replace(b"<head>", b"<head>" + self.script, 1)
                added = len(body) - len(message.get("body", b""))
                start["headers"] = [_longer(header, added) for header in start["headers"]]
                await send(start)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, pass_on)


def _is_page(start: Message) -> bool:
    headers = dict(start["headers"])
    return headers.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in headers


def _longer(header: tuple[bytes, bytes], added: int) -> tuple[bytes, bytes]:
    name, value = header
    return (name, str(int(value) + added).encode()) if name.lower() == b"content-length" else (name, value)
