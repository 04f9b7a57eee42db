"""The door of the app: refuses what comes from elsewhere, asks who may use a route, and sets the headers of security."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse

from sftdemo.errors import Text, UserError, unexpected
from sftdemo.log import LOG
from sftdemo.ui.access import allowance, cookies, hosts, payload, rights, sessions, sources, uploads
from sftdemo.ui.openai_request import ApiError
from sftdemo.ui.texts import language
from sftdemo.ui.texts.faults import in_words

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

API = "/gradio_api/"
FILE = API + "file="
BY_PARAMETERS = API + "call/v2/"  # where Gradio takes an unknown endpoint or parameter for a fault of its own
OPENAI = "/v1/"
# What a visitor may do decides which routes are open; a route that ends with / stands for all below it, and one that isn't
# listed is the owner's: files of the server, the proxy, monitoring, and whatever Gradio adds.
ROUTES: dict[str, rights.Action] = {
    **dict.fromkeys(("/", "/rate", "/config", "/login", "/logout", "/login/huggingface", "/login/callback"), "look"),
    **dict.fromkeys(("/static/", "/assets/", "/svelte/"), "look"),
    **dict.fromkeys(("/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json", "/healthz"), "look"),
    **dict.fromkeys((API + "info", API + "startup-events", API + "theme.css", API + "app_id"), "look"),
    # Each event asks for itself.
    **dict.fromkeys((API + "call/", API + "run/", API + "api/", API + "queue/join", API + "queue/data"), "look"),
    **dict.fromkeys((API + "queue/status", API + "cancel", API + "reset", API + "heartbeat/"), "look"),
    OPENAI: "look",  # asks for its key itself
    "/shared/": "look",  # whoever has the link of a chat
    API + "upload": "own_data",
    API + "upload_progress": "own_data",
}
MOST_BYTES = (
    4 * 2**20
)  # of what is sent to an event: a long conversation has a tenth of it; files have limits of their own
SENDING_S, SLOWEST = 60.0, 10_000  # seconds that a body may take, and the bytes of it that give it a second more
MOST_TO_CANCEL = 4 * 2**10  # bytes: the ids of an event and of its session
PAGES = ("/", "/rate", "/config")  # where a browser gets its cookie
LONGEST_PATH, LONGEST_NAME = 2_000, 255  # bytes that a disk takes
TOO_SLOW = Text("What was sent came too slowly; try again.")
NOWHERE = Text("There is nothing under this address.")


def needs(path: str) -> rights.Action:
    """What one must be allowed to do to use a route."""
    path = path.rstrip("/") or "/"
    if path in ROUTES:
        return ROUTES[path]
    return next(
        (action for route, action in ROUTES.items() if route[1:].endswith("/") and path.startswith(route)), "manage"
    )


def leads_nowhere(path: str) -> bool:
    """Whether no file and no route can have this path: Gradio asks the disk for it, or writes it into an address, and breaks."""
    name = max(map(len, path.encode().split(b"/")))
    is_long = name > LONGEST_NAME or len(path.encode()) > LONGEST_PATH
    return is_long or any(character < " " or character == "\x7f" for character in path)


def content_policy() -> str:
    """What a page may load: only from here. Gradio's own page is made of inline scripts, and its handlers are compiled."""
    frames = "'self' https://huggingface.co https://*.hf.space" if os.environ.get("SPACE_ID") else "'self'"
    return "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "media-src 'self' blob: data:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            f"frame-ancestors {frames}",
        )
    )


def too_long(most: int) -> Text:
    size = f"{most >> 20} MB" if most >> 20 else f"{most >> 10} kB"
    return Text("What was sent has more than {most}; send less at once.", most=size)


def within(most: float, receive: Any, lang: str, begins_without_body: bool = False) -> Any:
    """Receive no more than so many bytes of a request's body, also where its length isn't told ahead, and all in good time.

    A reply that begins without it ends where it doesn't come; else that is a fault."""
    received, begun, ended = 0, time.monotonic(), False

    async def bounded() -> Message:
        nonlocal received, ended
        if ended:
            return await receive()  # type: ignore[no-any-return]
        left = begun + SENDING_S + received / SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(max(left, 0.0)):
                message: Message = await receive()
        except TimeoutError:
            if begins_without_body:
                return {"type": "http.disconnect"}
            raise HTTPException(408, in_words(TOO_SLOW, lang)) from None
        received += len(message.get("body", b""))
        ended = not message.get("more_body")
        if received > most:
            raise HTTPException(413, in_words(too_long(int(most)), lang))
        return message

    return bounded


def refused(status: int, text: str, scope: Message) -> JSONResponse:
    """One line in the visitor's language, under `error` as clients of OpenAI's API read it where they ask."""
    text = in_words(text, language(Request({**scope, "type": "http"})))
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    error = ApiError(status, text).body["error"] if path.startswith(OPENAI) else text
    return JSONResponse({"detail": text, "error": error}, status)


async def misfit(request: Request, error: Exception) -> JSONResponse:
    """What is said of a request that a route can't take; FastAPI would send back all that it got."""
    return refused(422, payload.MISFIT, request.scope)


class Guard:
    """ASGI middleware around all that Gradio serves."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", content_policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]
        if not os.environ.get("SPACE_ID"):
            self.headers.append((b"x-frame-options", b"SAMEORIGIN"))

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        rights.policy().hosts.drop_made_up(scope)
        # By which a server of pages before Gradio would say where it is; from anybody else it is an address that may be none.
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() != b"x-gradio-server"]
        if refusal := self.refusal(scope, path):
            await self.refuse(*refusal, scope, receive, send)
            return
        if path != "/" and path.endswith("/") and path.rstrip("/") in PAGES:
            # Gradio's own redirect forgets the query, and what a proxy has before the path; a relative one needs neither.
            query = scope.get("query_string", b"").decode("latin-1")
            where = f"..{path.rstrip('/')}{'?' if query else ''}{query}"
            await RedirectResponse(where, 308)(scope, receive, self.with_headers(scope, "", send))
            return
        lang = language(Request({**scope, "type": "http"}))
        most = math.inf if path.rstrip("/") == API + "upload" else MOST_BYTES
        bounded = within(most, receive, lang, scope.get("method") in ("GET", "HEAD"))
        if path.rstrip("/") == sessions.CANCEL and scope.get("method") == "POST":
            try:
                session, bounded = await sessions.cancelled(within(MOST_TO_CANCEL, receive, lang))
            except HTTPException as error:  # here nobody above makes a reply of it
                await self.refuse(error.status_code, error.detail, scope, receive, send)
                return
            if refused := sessions.refusal(session, scope[rights.IN_SCOPE]):
                await self.refuse(*refused, scope, receive, send)
                return
        await self.pass_on(scope, path, receive, bounded, send)

    async def pass_on(self, scope: Message, path: str, receive: Any, bounded: Any, send: Send) -> None:
        """Let the app answer; where it breaks before it has begun to, that is one line, too."""
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, bounded, self.with_headers(scope, path, sent))
        except ClientDisconnect:
            raise
        except HTTPException as error:
            if begun:
                raise
            await self.refuse(error.status_code, error.detail, scope, receive, send)
        except Exception as error:
            if begun and isinstance(error.__cause__, HTTPException):  # Gradio's streams say it, and raise it then
                await send({"type": "http.response.body", "body": b""})
                return
            if begun:
                raise
            if path.startswith(BY_PARAMETERS) and isinstance(error, KeyError | TypeError | ValueError):
                await self.refuse(400, payload.MISFIT, scope, receive, send)
                return
            LOG.error(
                "A request to %s failed.", path[:200].encode("ascii", "backslashreplace").decode(), exc_info=error
            )
            await self.refuse(500, unexpected(error, private=True), scope, receive, send)

    async def refuse(self, status: int, text: str, scope: Message, receive: Any, send: Send) -> None:
        await refused(status, text, scope)(scope, receive, self.with_headers(scope, "", send))

    def refusal(self, scope: Message, path: str) -> tuple[int, str] | None:
        """The status and the reason for which a request isn't passed on, or None."""
        if fault := rights.policy().hosts.fault(scope):
            return 403, fault
        if leads_nowhere(path):
            return 404, NOWHERE
        visitor = rights.visitor(Request({**scope, "type": "http"}))
        scope[rights.IN_SCOPE] = visitor
        length = hosts.headers(scope).get("content-length", "0")
        if path.rstrip("/") != API + "upload" and (not length.isdecimal() or int(length) > MOST_BYTES):
            return 413, too_long(MOST_BYTES)
        action = needs(path)
        if path.startswith(FILE):
            upload = uploads.is_own(path.removeprefix(FILE), visitor)
            if not upload and (not visitor.owner or sources.inside(path.removeprefix(FILE), uploads.folder())):
                return 403, rights.REFUSED["manage"]
            action = "look"
        if not visitor.may(action):
            return 403, rights.REFUSED[action]
        if refused := sessions.refusal(sessions.named_by(path, scope), visitor):
            return refused
        if path.rstrip("/") == API + "upload":
            try:
                allowance.spend(visitor, "uploads", 1)
            except UserError as error:
                return 429, error.text
        return None

    def with_headers(self, scope: Message, path: str, send: Send) -> Send:
        """Pass messages on with the headers of security, and to a browser that has none its cookie."""
        added = list(self.headers)
        if path in PAGES and not cookies.identity(cookies.BROWSER, scope):
            added.append(cookies.set_cookie(cookies.BROWSER, cookies.signed(cookies.BROWSER), scope))

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        return pass_on


class WithoutCors:
    """In the place of Gradio's CORS, which beyond localhost allows every site to read, with the visitor's cookies.

    Without its headers a browser lets only this app's own pages read what it answers.
    """

    def __init__(self, app: Any, **_: Any) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        await self.app(scope, receive, send)
