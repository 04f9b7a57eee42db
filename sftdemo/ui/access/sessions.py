"""Whose a page's session is: the first to name one has it, and nobody else hears, feeds or stops what goes on in it."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from sftdemo.errors import Text, UserError
from sftdemo.ui.access import rights
from sftdemo.ui.access.ledger import Limit
from sftdemo.ui.access.rights import Visitor
from sftdemo.ui.texts import language
from sftdemo.ui.texts.faults import in_words

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MOST_KEPT = 20_000  # sessions; the longest unused go first
MOST_CHARACTERS = 100  # Gradio's have 11, those of its clients 36
PAGES_AN_HOUR = 600  # new sessions from one address; more would push out what is kept of others' pages
TWINS_S = 10.0  # between the cookies that two tabs of a new browser got, of which it keeps the later one
FIRST_VISIT_S = 60.0  # from a browser's first cookie on
FOREIGN = Text("That session isn't yours; reload the page.")
TOO_MANY = Text("Too many pages were opened from your address; try again in a few minutes.")
HEARTBEAT, LISTENING, CANCEL = "/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/cancel"
RESULTS = "/gradio_api/call/"  # of an event; where there is none, Gradio takes its id for a session's

_holders: OrderedDict[str, Visitor] = OrderedDict()  # whose each session is
_guard = threading.Lock()


def refusal(session: object, sender: Visitor) -> tuple[int, Text] | None:
    """Why this visitor, as `rights.classify` tells them, may not use a session, with its status; None where they may.

    A new one is theirs from now on.
    """
    if session is None:
        return None
    if not isinstance(session, str) or not 0 < len(session) <= MOST_CHARACTERS or not session.isprintable():
        return 403, FOREIGN
    with _guard:
        if session not in _holders:
            if not _may_open(sender):
                return 429, TOO_MANY
            _holders[session] = _kept(sender)
        if _is_same_browser(_holders[session], sender):
            _holders[session] = _kept(sender)
        _holders.move_to_end(session)
        while len(_holders) > MOST_KEPT:
            _holders.popitem(last=False)
        return None if _holders[session].key == sender.key else (403, FOREIGN)


def _may_open(sender: Visitor) -> bool:
    """Whether one more page may be opened from the sender's address, which is booked; the owner's may."""
    if sender.owner or not sender.address:
        return True
    try:
        limit = Limit(f"address {sender.address}", PAGES_AN_HOUR)
        rights.ledger().take("pages", [limit], 1, lambda *_: UserError(TOO_MANY))
    except UserError:
        return False
    return True


def _kept(sender: Visitor) -> Visitor:
    """Who uses a session, with `since` where that is the browser's first visit."""
    return sender if time.time() - sender.since < FIRST_VISIT_S else replace(sender, since=0.0)


def _is_same_browser(holder: Visitor, sender: Visitor) -> bool:
    """Whether it is the session's browser with another cookie, from the same address.

    A restart can void the cookie of an open page, for which another tab brings a new one; and two tabs that are opened at
    once on a first visit get one each.
    """
    if not (sender.browser and sender.address) or sender.address != holder.address:
        return False
    twins = holder.since and sender.since and abs(holder.since - sender.since) <= TWINS_S
    return not holder.browser or bool(twins)


def named_by(path: str, scope: Mapping[str, Any]) -> str | None:
    """The session that a route is asked about, by its path or its query; what is posted has it in its body."""
    if path.startswith(HEARTBEAT):
        return path.removeprefix(HEARTBEAT).rstrip("/")
    if path.rstrip("/") == LISTENING:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        return query["session_hash"][-1] if "session_hash" in query else None
    if path.startswith(RESULTS) and scope.get("method") == "GET":
        event = path.rstrip("/").rpartition("/")[2]
        return event if event in _holders else None
    return None


async def cancelled(receive: Receive) -> tuple[object, Receive]:
    """The session in the body of a request to cancel, and the body once more for whoever reads it next."""
    messages, body = [], b""
    while True:
        messages.append(message := await receive())
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None  # Gradio refuses it

    async def again() -> MutableMapping[str, Any]:
        return messages.pop(0) if messages else await receive()

    return value.get("session_hash") if isinstance(value, Mapping) else None, again


def joined(push: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The function that puts an event into Gradio's queue, which takes none into another visitor's session."""
    from starlette.exceptions import HTTPException

    async def push_own(body: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        if refused := refusal(body.session_hash, rights.visitor(request)):
            raise HTTPException(refused[0], in_words(refused[1], language(request)))
        return await push(body, request, *arguments, **named)

    return push_own
