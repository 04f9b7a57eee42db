"""Gradio kept within bounds: its threads, the events in its line, and what it keeps of each session and event."""

from __future__ import annotations

import sys
from collections import ChainMap
from typing import Any

from gradio import state_holder
from gradio.utils import LRUCache

WORKERS = 40  # threads that run handlers; what waits for the models holds none
EVENTS = 400  # that are handled at once, streams included
WAITING = 400  # that wait until they are handled
SESSIONS = 1000  # whose state is kept; the longest unused go first
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


def keep(blocks: Any) -> dict[str, Any]:
    """Put bounds around Gradio's queue and sessions; what launch() must be given for the others."""
    from anyio import CapacityLimiter

    def create_limiter() -> None:
        blocks.limiter = CapacityLimiter(WORKERS)

    # Its own has as many threads as events may be handled at once.
    blocks.create_limiter = create_limiter
    state_holder.SessionState = SessionState  # type: ignore[misc]
    queue = blocks._queue
    queue.max_size = WAITING
    queue.sleep_when_free = queue.progress_update_sleep_when_free = POLL_S
    queue.pending_messages_per_session = LRUCache(SESSIONS)
    queue.pending_event_ids_session = LRUCache(SESSIONS)
    # It sums up its last 10,000 events with pandas after each event, for a dashboard that isn't shown.
    queue.ANALYTICS_MAX_EVENTS, queue.ANAYLTICS_CACHE_FREQUENCY = 1, sys.maxsize
    return {"max_threads": EVENTS, "state_session_capacity": SESSIONS}
