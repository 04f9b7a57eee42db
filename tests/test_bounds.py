"""What Gradio keeps stays bounded: of a thousand sessions, events and questions next to nothing is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Callable
from types import MethodType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from gradio import state_holder
from starlette.exceptions import HTTPException

from sftdemo.ui import bounds, build


@pytest.fixture(scope="module")
def blocks() -> Any:
    usual = state_holder.SessionState
    built = build()
    bounds.keep(built)
    yield built
    state_holder.SessionState = usual


def bytes_each(what: Callable[[int], object], count: int = 300) -> float:
    """What each call leaves in memory, once the first have filled the caches."""
    for number in range(20):
        what(number)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20, 20 + count):
        what(number)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / count


@pytest.mark.slow
def test_a_session_keeps_its_own_values_alone(blocks: Any) -> None:
    """Gradio's has half a megabyte, ten thousand times."""
    holder = state_holder.StateHolder()
    holder.set_blocks(blocks)
    holder.capacity = bounds.SESSIONS
    states = [block for block in blocks.blocks.values() if block.stateful]
    plain = next(block for block in blocks.blocks.values() if not block.stateful)

    def session(number: int) -> None:
        state = holder[f"session {number}"]
        assert state[plain._id] is plain and plain._id in state
        for block in states:
            state[block._id] = {"mine": number}
        state._update_value_in_config(plain._id, "shown")

    assert bytes_each(session) < 30_000
    mine, other = holder["session 25"], holder["session 26"]
    assert [mine[states[0]._id], other[states[0]._id]] == [{"mine": 25}, {"mine": 26}]
    replaced = SimpleNamespace(stateful=False)
    mine[plain._id] = replaced
    assert mine[plain._id] is replaced and other[plain._id] is plain
    for number in range(2 * bounds.SESSIONS):
        holder[f"late {number}"]
    assert len(holder.session_data) <= bounds.SESSIONS + 1


def test_only_what_a_handler_names_is_worked_on() -> None:
    """The others stay as they are, and nothing is made or kept of them."""
    with gr.Blocks() as page:
        name, count, text, note = gr.Textbox(), gr.State(0), gr.Number(), gr.HTML()
        name.submit(lambda: None, None, [name, count, text, note])
    function = next(iter(page.fns.values()))
    plain, quick = page.postprocess_data, bounds.without_unchanged(page.postprocess_data)

    def results(updates: Any) -> list[tuple[list[Any], set[int]]]:
        both = []
        for shown in (plain, quick):
            state = state_holder.SessionState(page)
            both.append((asyncio.run(shown(function, updates, state)), {key for key in state.state_data}))
        return both

    update = {"__type__": "update"}
    assert results({text: 3, count: 5})[1][0] == [update, None, 3, update]
    for updates in ({text: 3, count: 5}, {name: gr.update(visible=False)}, {name: "a", count: 1, text: 2, note: "b"}):
        (wanted, stored), (values, kept) = results(updates)
        assert kept == stored
        named = {part._id for part in updates}
        for part, value, other in zip(function.outputs, values, wanted, strict=True):
            assert value == other or part._id not in named
    for updates in ({}, gr.skip(), ("a", 1, 2, "b")):
        (wanted, _), (values, _) = results(updates) if updates else ((0, 0), (0, 0))
        assert values == wanted
    with gr.Blocks(), pytest.raises(ValueError, match="not specified as output"):
        asyncio.run(quick(function, {gr.Textbox(): "x"}, state_holder.SessionState(page)))


def test_the_queue_forgets_sessions_that_never_listen(blocks: Any) -> None:
    queue = blocks._queue
    for number in range(3 * bounds.SESSIONS):
        queue.pending_messages_per_session[f"s{number}"] = asyncio.Queue()
        queue.pending_event_ids_session[f"s{number}"] = {"event"}
    assert len(queue.pending_messages_per_session) == len(queue.pending_event_ids_session) == bounds.SESSIONS
    queue.event_analytics |= {"a": {"function": "f"}, "b": {"function": "f"}}
    queue.events_recorded += 5000
    assert queue.compute_analytics_summary([{"function": "f"}] * 9) == {"functions": {}}, "nothing is summed up"


def test_who_never_reads_is_kept_no_more_than_a_bound(blocks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are answered whether or not anybody listens, and a report has megabytes."""
    monkeypatch.setattr(bounds, "UNREAD", 3 * bounds.MESSAGE_BYTES)
    monkeypatch.setattr(bounds, "ALL_UNREAD", 10 * bounds.MESSAGE_BYTES)
    page = gr.Blocks()
    bounds.keep(page)
    queue, taken = page._queue, []

    async def take(body: Any) -> None:
        taken.append(body.session_hash)

    queue.push = take
    push = bounds.for_readers(queue)

    async def post(session: str, messages: int, text: str = "") -> None:
        await push(SimpleNamespace(session_hash=session))
        inbox = queue.pending_messages_per_session.setdefault(session, bounds.Messages())
        for _ in range(messages):
            inbox.put_nowait(SimpleNamespace(output={"data": [text, {"value": text}, None]}))

    async def visit() -> None:
        await post("reads", 2)
        queue.pending_messages_per_session["reads"].get_nowait()
        await post("never reads", 2, "x" * bounds.MESSAGE_BYTES)
        assert queue.pending_messages_per_session["never reads"].unread == 6 * bounds.MESSAGE_BYTES
        with pytest.raises(HTTPException):
            await post("never reads", 1)
        await post("nor does", 9)
        await post("reads", 1)
        assert list(queue.pending_messages_per_session) == ["reads", "never reads"], "the largest goes"
        for _ in range(2):
            queue.pending_messages_per_session["never reads"].get_nowait()
        await post("never reads", 0)

    asyncio.run(visit())
    assert taken == ["reads", "never reads", "nor does", "reads", "never reads"]


def test_what_is_short_takes_no_thread_and_a_handler_does() -> None:
    name = gr.Textbox()

    def where() -> int:
        return threading.get_ident()

    async def run(work: Any, *arguments: Any) -> Any:
        return await bounds.in_thread_if_long(work, *arguments, limiter=None)

    assert asyncio.run(run(where)) != threading.get_ident() and asyncio.run(run(name.preprocess, 5)) == "5"
    bound = MethodType(lambda self: threading.get_ident(), name)
    assert asyncio.run(run(bound)) == threading.get_ident()
    assert asyncio.run(run(MethodType(lambda self: threading.get_ident(), gr.File()))) != threading.get_ident()


def test_changes_that_are_events_are_those_that_gradio_finds(blocks: Any) -> None:
    """Asked at each update of an answer; Gradio looks through all events each time."""
    state = bounds.SessionState(blocks)
    tracked = 0
    for function in blocks.fns.values():
        usual, quick = (owner.get_state_ids_to_track(*asked) for owner, asked in ((gr.Blocks, (blocks, function, state)), (blocks, (function, state))))  # fmt: skip
        assert usual == quick
        tracked += len(quick[0])
    assert tracked > 10 and blocks.get_state_ids_to_track(function, None) == ([], [])
