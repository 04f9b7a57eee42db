"""Gradio's page as it is sent: our script at its start, compressed, and made once for all who open it."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlencode

from gradio.route_utils import get_request_origin
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from sftdemo.ui.access import guard

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Reply = tuple[Message, bytes]  # its start, and its whole body

MOST_KEPT = 16  # replies as they are sent; of hosts and ports there may be any number
ANYWHERE = "http://address.invalid"  # stands for the app's own address in a page until it is sent
CONFIG, INFO = "/config", guard.API + "info"
SCRIPT = ("text/javascript", "application/javascript")  # the system's list of types says which
# Gradio 6.31 puts a page together, and then a second time: its effect for reloads doesn't wait for one. It is half of the
# script that runs until the page is there. Where the effect reads otherwise, in another Gradio, it stays as it is.
BLOCKS = re.compile(r"/assets/Blocks-[\w-]+\.js")
RELOADS = re.compile(rb"([\w$]+)\(\(\)=>\{([\w$]+)\(\),([\w$]+)\(\(\)=>\{(?=[\w$]+\.reload\()")
RELOADS_WHEN_ASKED = rb"\1(()=>{if(!\2())return;\3(()=>{"


class ServedPage:
    """ASGI middleware: the page, which Gradio would copy, write out and leave uncompressed for everybody anew, its config, and
    the description of its endpoints, in which Gradio would keep the address of who asks first for all.

    HTML gets the script right after <head>, and Gradio's own doesn't make the page twice. Everything else passes untouched.
    """

    def __init__(self, app: Any, script: str) -> None:
        self.app = app
        self.script = script.encode()
        self.pages: dict[tuple[str, str], Reply] = {}
        self.kept: OrderedDict[tuple[str, str, str, bool], Reply] = OrderedDict()
        self.making = asyncio.Lock()  # thirty who come at once have it made once

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        path = _route(scope)
        if scope["type"] == "http" and path.startswith(guard.BY_PARAMETERS):  # Gradio looks its description up for it
            async with self.making:
                await self.page(INFO, "", scope, receive)
        # Others than Gradio's pages, as that of a shared chat, have no script.
        changed = path in (*guard.PAGES, INFO) or BLOCKS.fullmatch(path)
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not changed:
            await self.app(scope, receive, send)
            return
        query = self.query(scope)
        if scope.get("session"):  # made for one account
            start, body = self.sent(await self.made(path, query, scope, receive), scope)
        else:
            async with self.making:
                start, body = await self.reply(path, query, scope, receive)
        await send({**start, "headers": list(start["headers"])})  # whoever passes it on adds to them
        await send({"type": "http.response.body", "body": body})

    @staticmethod
    def query(scope: Message) -> str:
        """What Gradio may read of the query: which page's config is asked for, and whether all endpoints are. By the rest, which it
        takes for other things than the page does, one who asks first would make it another page for all."""
        asked, path = parse_qs(scope.get("query_string", b"").decode("latin-1")), _route(scope)
        page = asked.get("page", [""])[-1]
        kept = {"page": page} if path in (CONFIG, INFO) and page and f"/{page}" in guard.PAGES else {}
        return urlencode(kept | ({"all_endpoints": "1"} if path == INFO and "all_endpoints" in asked else {}))

    async def reply(self, path: str, query: str, scope: Message, receive: Any) -> Reply:
        """What is sent to all who ask under this address."""
        key = (path, query, _origin(scope), _is_compressed(scope))
        if key not in self.kept:
            made = await self.page(path, query, scope, receive)
            if (path, query) not in self.pages:
                return self.sent(made, scope)
            self.kept[key] = self.sent(made, scope)
            while len(self.kept) > MOST_KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    async def page(self, path: str, query: str, scope: Message, receive: Any) -> Reply:
        """What Gradio replies to everybody, made once."""
        if (path, query) in self.pages:
            return self.pages[path, query]
        made = await self.made(path, query, {**scope, "headers": []}, receive)
        if made[0]["status"] == 200 and "set-cookie" not in Headers(raw=made[0]["headers"]):
            self.pages[path, query] = made
        return made

    def sent(self, made: Reply, scope: Message) -> Reply:
        """A reply with the address that it is asked under and the script, compressed for browsers that can read it."""
        start, body = made
        headers = MutableHeaders(raw=list(start["headers"]))
        body = body.replace(ANYWHERE.encode(), _origin(scope).encode())
        kind = headers.get("content-type", "").partition(";")[0]
        if kind in (*SCRIPT, "text/html") and "content-encoding" not in headers:
            if kind in SCRIPT:
                body = RELOADS.sub(RELOADS_WHEN_ASKED, body)
            else:
                body = body.replace(b"<head>", b"<head>" + self.script, 1)
            headers.add_vary_header("Accept-Encoding")
            if _is_compressed(scope):
                body = gzip.compress(body, compresslevel=6)
                headers["content-encoding"] = "gzip"
        headers["content-length"] = str(len(body))
        return {**start, "headers": headers.raw}, body

    async def made(self, path: str, query: str, scope: Message, receive: Any) -> Reply:
        """Gradio's reply, with ANYWHERE for the address that it is asked under."""
        cookies = [pair for pair in scope["headers"] if pair[0] == b"cookie"]
        host = (b"host", ANYWHERE.removeprefix("http://").encode())
        asked = {
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "scheme": "http",
            "headers": [host, *cookies],
        }
        start: Message = {}
        body = b""

        async def collect(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")

        await self.app({**scope, **asked}, receive, collect)
        return start, body


def _route(scope: Message) -> str:
    return str(scope.get("path", "")).removeprefix(scope.get("root_path", "")).rstrip("/") or "/"


def _origin(scope: Message) -> str:
    """The app's address as Gradio tells it from the request: host and scheme, the proxy's where it names them."""
    return str(get_request_origin(Request({**scope, "path": "/", "root_path": "", "query_string": b""}), "/"))


def _is_compressed(scope: Message) -> bool:
    return "gzip" in Headers(scope=scope).get("accept-encoding", "")
