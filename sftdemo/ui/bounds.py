"""Gradio kept within bounds: its threads, the events in its line, and what it keeps of each session and event."""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Any

import gradio.blocks
import gradio.route_utils
import gradio.utils
from gradio import state_holder
from gradio.blocks import Block
from gradio.utils import LRUCache

WORKERS = 40  # threads that run handlers; what waits for the models holds none
EVENTS = 400  # that are handled at once, streams included
WAITING = 400  # that wait until they are handled
SESSIONS = 1000  # whose state is kept; the longest unused go first
SWITCH_S = 0.0005  # how often threads that compute let the web server in; with 5 ms it waits a third longer
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

    Of all its other outputs it would make a new component each, for every update of an answer, and keep it in the session.
    """

    async def shown(function: Any, updates: Any, state: Any) -> list[Any]:
        named = {part._id for part in updates if isinstance(part, Block)} if isinstance(updates, dict) else set()
        changed = [part for part in function.outputs if part._id in named]
        if len(changed) < len(updates or ()) or len(changed) in (0, len(function.outputs)):
            return await postprocess(function, updates, state)  # type: ignore[no-any-return]
        part_of_it = copy(function)
        part_of_it.outputs = changed
        values = iter(await postprocess(part_of_it, updates, state))
        same = {"__type__": "update"}
        return [next(values) if part._id in named else None if part.stateful else same for part in function.outputs]

    return shown


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
    sys.setswitchinterval(SWITCH_S)
    queue = blocks._queue
    queue.max_size = WAITING
    queue.sleep_when_free = queue.progress_update_sleep_when_free = POLL_S
    queue.pending_messages_per_session = LRUCache(SESSIONS)
    queue.pending_event_ids_session = LRUCache(SESSIONS)
    # It sums up its last 10,000 events with pandas after each event, for a dashboard that isn't shown.
    queue.ANALYTICS_MAX_EVENTS, queue.ANAYLTICS_CACHE_FREQUENCY = 1, sys.maxsize
    return {"max_threads": EVENTS, "state_session_capacity": SESSIONS}
