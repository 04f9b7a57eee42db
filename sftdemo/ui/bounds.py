"""Gradio kept within bounds: its threads, the events in its line, and what it keeps of each session and event."""

from __future__ import annotations

import asyncio
import sys
from collections import ChainMap
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import anyio
import fastapi.dependencies.utils
import gradio as gr
import gradio.blocks
import gradio.queueing
import gradio.route_utils
import gradio.routes
import gradio.utils
from gradio import state_holder
from gradio.blocks import Block
from gradio.data_classes import GradioModel, GradioRootModel
from gradio.utils import LRUCache
from starlette.exceptions import HTTPException
from starlette.requests import Request

WORKERS = 40  # threads that run handlers; what waits for the models holds none
EVENTS = 400  # that are handled at once, streams included
WAITING = 400  # that wait until they are handled
SESSIONS = 1000  # whose state is kept; the longest unused go first
SWITCH_S = 0.0005  # how often threads that compute let the web server in; with 5 ms it waits a third longer
UNREAD, ALL_UNREAD = 8_000_000, 128_000_000  # bytes, about, of what a session and all have been sent and not read
MESSAGE_BYTES = 1_000  # of a message beside its texts
WITH_FILES = (gr.File, gr.DownloadButton)  # components that read or copy them
# What of an update says nothing of how a component reads what it is sent.
LOOKS = {"__type__", "visible", "interactive", "label", "value", "active"}
POLL_S = 0.005  # between two looks for events; Gradio's 1 ms wakes an idle process a thousand times a second


class SessionState(state_holder.SessionState):  # type: ignore[misc]
    """A session's own values alone.

    Gradio's copies the whole page's config for every session (0.5 MB, and 0.3 s of the web server's loop on a busy machine),
    for links into a page's state, of which there are none here.
    """

    def __init__(self, blocks: Any) -> None:
        config = type(blocks.default_config)(blocks)
        shared = blocks.default_config
        config.blocks = ChainMap({}, shared.blocks)  # type: ignore[assignment]
        config.fns, config.fn_id, config.renderables = shared.fns, shared.fn_id, shared.renderables
        config.config_for_block = _nothing  # type: ignore[method-assign]
        self.blocks_config = config
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 3600


def _nothing(*_: Any, **__: Any) -> dict[str, Any]:
    return {}


def without_unchanged(postprocess: Callable[..., Any]) -> Callable[..., Any]:
    """Gradio's work on what a handler returns, for the components that the handler names alone.

    Of all its other outputs it would make a new component each, for every update of an answer, and keep it in the session; and
    so it would of those that are shown, hidden or named anew, which are still read as they were.
    """

    async def shown(function: Any, updates: Any, state: Any) -> list[Any]:
        named = {part._id for part in updates if isinstance(part, Block)} if isinstance(updates, dict) else set()
        changed = [part for part in function.outputs if part._id in named]
        if len(changed) < len(updates or ()) or not changed:
            return await postprocess(function, updates, state)  # type: ignore[no-any-return]
        quick = {part._id: update_sent(part, updates[part], state) for part in changed if is_look(part, updates[part])}
        part_of_it = copy(function)
        part_of_it.outputs = [part for part in changed if part._id not in quick]
        if len(part_of_it.outputs) == len(function.outputs):
            return await postprocess(function, updates, state)  # type: ignore[no-any-return]
        rest = {part: updates[part] for part in part_of_it.outputs}
        values = iter(await postprocess(part_of_it, rest, state) if rest else [])
        same = {"__type__": "update"}
        return [
            quick[part._id]
            if part._id in quick
            else next(values)
            if part._id in named
            else None
            if part.stateful
            else same
            for part in function.outputs
        ]

    return shown


def is_look(part: Any, update: Any) -> bool:
    """Whether an update changes only how a component looks, or its value."""
    if not (isinstance(update, dict) and update.get("__type__") == "update" and update.keys() <= LOOKS):
        return False
    return not (part.stateful or isinstance(part, (*WITH_FILES, gr.HTML)))  # HTML has properties of its own


def update_sent(part: Any, update: dict[str, Any], state: Any) -> dict[str, Any]:
    """The update as it is sent, made by the session's component where there is one."""
    own = state[part._id] if state is not None and part._id in state else part
    sent = {
        name: value for name, value in update.items() if name == "value" or (value is not None and hasattr(own, name))
    }
    if "value" in sent:
        value = own.postprocess(sent["value"])
        sent["value"] = value.model_dump() if isinstance(value, GradioModel | GradioRootModel) else value
    return sent | {"__type__": "update"}


async def in_thread_if_long(work: Callable[..., Any], *arguments: Any, limiter: Any = None, **named: Any) -> Any:
    """Run a handler in a thread, and here what a component makes of its value, or Gradio's look at who asks: each takes less
    time than a thread takes to begin, and a click has dozens of them."""
    component = getattr(work, "__self__", None)
    is_short = isinstance(component, Block) and not isinstance(component, WITH_FILES)
    if is_short or getattr(work, "__module__", "") == "gradio.routes":
        return work(*arguments, **named)
    return await anyio.to_thread.run_sync(partial(work, **named), *arguments, limiter=limiter)


async def has_left(request: Any, ask: Callable[..., Any] = Request.is_disconnected) -> bool:
    """Whether who asked has gone, for Gradio's streams, which ask before each message.

    Starlette listens for that beside each stream and ends it then, so that there is nothing to ask for where a stream is all that
    is sent; its question costs a cancelled scope with a text about its task.
    """
    version = str(request.scope.get("asgi", {}).get("spec_version", "2.0"))
    listens = tuple(map(int, version.split("."))) < (2, 4)
    return bool(request._is_disconnected if listens else await ask(request))


async def at_once(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def save_threads() -> None:
    gradio.blocks.anyio = SimpleNamespace(to_thread=SimpleNamespace(run_sync=in_thread_if_long))  # type: ignore[assignment]
    fastapi.dependencies.utils.run_in_threadpool = in_thread_if_long  # type: ignore[assignment,attr-defined]
    Request.is_disconnected = has_left  # type: ignore[assignment,method-assign]
    gradio.queueing.run_sync = at_once  # the figures of a dashboard that isn't shown


class Messages(asyncio.Queue[Any]):
    """What a session hasn't read yet, and about how many bytes that is; Gradio keeps it without limits."""

    unread = 0

    def _put(self, item: Any) -> None:
        size = message_bytes(item)
        self.unread += size
        super()._put((size, item))

    def _get(self) -> Any:
        size, item = super()._get()
        self.unread -= size
        return item


def message_bytes(message: Any) -> int:
    inside, size = [getattr(message, "output", None)], MESSAGE_BYTES
    while inside:
        part = inside.pop()
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, dict | list | tuple):
            inside += part.values() if isinstance(part, dict) else part
    return size


class Signals(LRUCache[str, asyncio.Event]):  # type: ignore[misc]
    """The uploads whose progress is asked for, by their ids; Gradio keeps each that anybody makes up."""

    def __missing__(self, upload: str) -> asyncio.Event:
        event = self[upload] = asyncio.Event()
        return event


def for_readers(queue: Any) -> Callable[..., Any]:
    """The queue's function that takes an event, and takes none of who doesn't read what came of those before."""
    push, sessions = queue.push, queue.pending_messages_per_session

    async def push_for_reader(body: Any, *arguments: Any, **named: Any) -> Any:
        by_session = {session: messages.unread for session, messages in sessions.items() if messages.unread}
        if by_session.get(body.session_hash, 0) > UNREAD:
            raise HTTPException(429, "What came of earlier events of this session hasn't been read; read it first.")
        total = sum(by_session.values())
        for session in sorted(by_session, key=lambda session: -by_session[session]):
            if total <= ALL_UNREAD:
                break
            sessions.pop(session, None)
            total -= by_session[session]
        return await push(body, *arguments, **named)

    return push_for_reader


def find_function(blocks: Any, api_name: str | None, body: Any) -> Any:
    """The function that is asked for by number or name, for Gradio's own, which begins a session for whoever asks and breaks
    where there is none."""
    if body.fn_index is not None:
        function = blocks.fns.get(body.fn_index)
    else:
        function = next((each for each in blocks.fns.values() if api_name and each.api_name == api_name), None)
    if function is None:
        raise HTTPException(404, "There is no such endpoint here.")
    return function


def keep(blocks: Any) -> dict[str, Any]:
    """Put bounds around Gradio's queue and sessions; what launch() must be given for the others."""
    from anyio import CapacityLimiter

    def create_limiter() -> None:
        blocks.limiter = CapacityLimiter(WORKERS)

    # Its own has as many threads as events may be handled at once.
    blocks.create_limiter = create_limiter
    blocks.postprocess_data = without_unchanged(blocks.postprocess_data)
    for module in (state_holder, gradio.blocks, gradio.route_utils):
        module.SessionState = SessionState
    if not hasattr(gradio.utils.get_type_hints, "cache_info"):
        # Asked at each update of each stream; ours are strings, which are compiled each time.
        gradio.utils.get_type_hints = lru_cache(maxsize=1024)(gradio.utils.get_type_hints)
    save_threads()
    gradio.utils.MatplotlibBackendMananger = (
        nullcontext  # looks for matplotlib twice an update; nothing here draws by it
    )
    sys.setswitchinterval(SWITCH_S)
    queue = blocks._queue
    queue.max_size = WAITING
    queue.sleep_when_free = queue.progress_update_sleep_when_free = POLL_S
    gradio.queueing.AsyncQueue = Messages
    queue.pending_messages_per_session = LRUCache(SESSIONS)
    queue.pending_event_ids_session = LRUCache(SESSIONS)
    gradio.routes.file_upload_statuses._signals = Signals(SESSIONS)  # type: ignore[assignment]
    queue.push = for_readers(queue)
    return {"max_threads": EVENTS, "state_session_capacity": SESSIONS}
