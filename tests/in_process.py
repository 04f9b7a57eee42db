"""The app and its engine within the test's own process."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from sftdemo.config import GenerateConfig
from sftdemo.inference.decoding import Chunk
from sftdemo.inference.server import ServedRuns, checked


def owners_request(
    session: str | None = None, headers: dict[str, str] | None = None, lang: str = "", **query: str
) -> SimpleNamespace:
    """A request that the door knows as the owner's, as handlers are given it; `lang` is the page's, where it was chosen."""
    from sftdemo.ui.access import rights

    return SimpleNamespace(
        scope={rights.IN_SCOPE: rights.LOCAL},
        headers=headers or {},
        cookies={"sftdemo_lang": lang} if lang else {},
        session_hash=session,
        query_params=query,
        username=None,
    )


@contextmanager
def serving(blocks: Any) -> Iterator[tuple[Any, str]]:
    """The app that serves a page on a free port of this machine, and its address."""
    from sftdemo.ui import bounds, server

    blocks.api_open = False
    app, url, _ = blocks.launch(
        server_name="127.0.0.1",
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        app_kwargs=server.app_options(blocks),
        **bounds.keep(blocks),
    )
    yield app, url.rstrip("/")
    blocks.close()


def ask(
    served: ServedRuns,
    messages: Any,
    config: GenerateConfig,
    asker: tuple[str, str],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Chunk]:
    """The chunks of a question as they come, for the thread that asks; closed, it leaves the batch."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    question = served.question(events.put, messages, config, asker, should_stop)
    with served.engine.asked(question):
        left = len(question.rows)
        while left:
            event = checked(events.get())
            if isinstance(event, Chunk):
                left -= event.finish_reason is not None
                yield event
