"""Gradio's page as it is sent: our script at its start, compressed, and made once for all who open it."""

from __future__ import annotations

import asyncio
import gzip
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders

from sftdemo.ui.access import guard, hosts

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Reply = tuple[Message, bytes]  # its start, and its whole body

MOST_KEPT = 16
# The headers by which Gradio writes the app's own address into the page.
ADDRESS = ("host", "x-forwarded-host", "x-forwarded-proto")
CONFIG = "/config"


class ServedPage:
    """ASGI middleware: the page, which Gradio would copy, write out and leave uncompressed for everybody anew, and its config.

    HTML gets the script right after <head>. Everything else passes untouched.
    """

    def __init__(self, app: Any, script: str) -> None:
        self.app = app
        self.script = script.encode()
        self.kept: OrderedDict[tuple[str, ...], Reply] = OrderedDict()
        self.making = asyncio.Lock()  # thirty who come at once have it made once

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not self.is_ours(scope):
            await self.app(scope, receive, send)
            return
        scope = {**scope, "query_string": self.query(scope).encode()}
        key = self.key(scope)
        if key is None:
            start, body = await self.made(scope, receive)
        else:
            async with self.making:
                if key not in self.kept:
                    reply = await self.made(scope, receive)
                    if reply[0]["status"] == 200 and "set-cookie" not in Headers(raw=reply[0]["headers"]):
                        self.kept[key] = reply
                        while len(self.kept) > MOST_KEPT:
                            self.kept.popitem(last=False)
                else:
                    self.kept.move_to_end(key)
                    reply = self.kept[key]
            start, body = reply
        await send({**start, "headers": list(start["headers"])})  # whoever passes it on adds to them
        await send({"type": "http.response.body", "body": body})

    @staticmethod
    def is_ours(scope: Message) -> bool:
        """Whether Gradio's page is asked for; others, as that of a shared chat, have no script."""
        return _route(scope) in guard.PAGES

    @staticmethod
    def query(scope: Message) -> str:
        """What Gradio may read of the query: which page's config is asked for. By the rest, which it takes for other things
        than the page does, one who asks first would make it another page for all."""
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("page", [""])[-1]
        return f"page={asked}" if _route(scope) == CONFIG and f"/{asked}" in guard.PAGES and asked else ""

    @staticmethod
    def key(scope: Message) -> tuple[str, ...] | None:
        """All that the reply depends on; None where it is for this request alone."""
        if scope.get("session"):
            return None
        headers = hosts.headers(scope)
        asked, compressed = scope["query_string"].decode(), str(_is_compressed(scope))
        where = (scope["path"], asked, scope.get("root_path", ""), scope.get("scheme", ""), compressed)
        return (*where, *(headers.get(name, "") for name in ADDRESS))

    async def made(self, scope: Message, receive: Any) -> Reply:
        """Gradio's reply with the script, compressed for browsers that can read it."""
        start: Message = {}
        body = b""

        async def collect(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")

        await self.app(scope, receive, collect)
        headers = MutableHeaders(raw=list(start["headers"]))
        if headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
            body = body.replace(b"<head>", b"<head>" + self.script, 1)
            headers.add_vary_header("Accept-Encoding")
            if _is_compressed(scope):
                body = gzip.compress(body, compresslevel=6)
                headers["content-encoding"] = "gzip"
        headers["content-length"] = str(len(body))
        return {**start, "headers": headers.raw}, body


def _route(scope: Message) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", "")).rstrip("/") or "/"


def _is_compressed(scope: Message) -> bool:
    return "gzip" in Headers(scope=scope).get("accept-encoding", "")
