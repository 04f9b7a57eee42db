"""What Gradio keeps stays bounded: of a thousand sessions, events and questions next to nothing is left."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from types import MethodType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
import httpx
from gradio import state_holder
from starlette.exceptions import HTTPException

from sftdemo.ui import bounds, build, models
from tests.in_process import serving

pytestmark = pytest.mark.slow


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


LOOKS: dict[str, list[Any]] = {  # updates of a component, one after the other
    "Button": [{"visible": False}, {"interactive": True, "value": "Go"}, {"visible": None, "value": None}],
    "Number": [{"value": 3}, {"maximum": 2}, {"label": "n", "value": "4"}],
    "Dropdown": [{"value": "a"}, {"choices": ["b", ("C", "c")], "value": "c"}, {"value": "b", "interactive": False}],
    "CheckboxGroup": [{"value": ["a"]}, {"choices": ["b"]}, {"value": ["b"]}],
    "Textbox": [{"value": 7, "placeholder": "p"}, {"value": None, "visible": False}],
    "Timer": [{"active": True}, {"active": False}],
    "Row": [{"visible": True}, {"visible": False}],
    "Accordion": [{"visible": True, "label": "L"}, {"open": True}],
    "File": [{"value": None, "visible": True}],
}


@pytest.mark.parametrize("kind", LOOKS)
def test_updates_of_looks_are_sent_as_gradio_sends_them(kind: str) -> None:
    """Without a new component for each: only those are made by which what a visitor sends is read."""
    with gr.Blocks() as page:
        choices = {"choices": ["a", "b"]} if kind in ("Dropdown", "CheckboxGroup") else {}
        part, other = getattr(gr, kind)(**choices), gr.Button()
        other.click(lambda: None, None, [part, other])
    function = next(iter(page.fns.values()))
    plain, quick = page.postprocess_data, bounds.without_unchanged(page.postprocess_data)
    states, made = [state_holder.SessionState(page) for _ in range(2)], []
    for update in LOOKS[kind]:
        sent = []
        for shown, state in zip((plain, quick), states, strict=True):
            before = state[part._id]
            sent.append(asyncio.run(shown(function, {part: gr.update(**update)}, state))[0])
            made.append(shown is quick and state[part._id] is not before)
        assert sent[0] == sent[1], update
    looks = [update.keys() <= bounds.LOOKS and kind != "File" for update in LOOKS[kind]]
    assert made[1::2] == [not look for look in looks]


def test_no_search_for_garbage_looks_through_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a million objects, and while those are looked at nobody is answered."""
    monkeypatch.setattr(models, "LIBRARIES", ("wave",))
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    lists, before = [[number] for number in range(10_000)], gc.get_freeze_count()
    models.load_libraries(("wave",))
    frozen = gc.get_freeze_count()
    assert frozen > before + len(lists) / 2
    later = [[number] for number in range(10_000)]
    models.load_libraries(("wave", "csv"))
    assert gc.get_freeze_count() <= frozen and later, "what is loaded afterwards, a model, is garbage one day"


def test_a_stream_ends_with_the_visit_of_who_reads_it() -> None:
    """Gradio would ask before each message; Starlette, which serves its streams, listens for it anyway."""
    page = gr.Blocks()
    with page:
        gr.Button().click(lambda: None)
    page.queue()
    with serving(page) as (_, url):
        messages = page._queue.pending_messages_per_session
        body = {"data": [], "fn_index": 0, "session_hash": "left", "trigger_id": None}
        messages["left"] = bounds.Messages()
        with (
            httpx.Client(base_url=url) as client,
            client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "left"}) as stream,
        ):
            joined = httpx.post(f"{url}/gradio_api/queue/join", json=body)
            assert joined.status_code == 200
            assert any("process_completed" in line for line in stream.iter_lines())
        messages["left"] = bounds.Messages()
        with httpx.stream("GET", f"{url}/gradio_api/queue/data", params={"session_hash": "left"}) as stream:
            assert stream.status_code == 200
            assert "left" in messages
        deadline = time.monotonic() + 30
        while "left" in messages and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "left" not in messages, "what it hasn't read is dropped"


def test_the_queue_forgets_sessions_that_never_listen(blocks: Any) -> None:
    queue = blocks._queue
    for number in range(3 * bounds.SESSIONS):
        queue.pending_messages_per_session[f"s{number}"] = asyncio.Queue()
        queue.pending_event_ids_session[f"s{number}"] = {"event"}
    assert len(queue.pending_messages_per_session) == len(queue.pending_event_ids_session) == bounds.SESSIONS
    queue.event_analytics |= {"a": {"function": "f"}, "b": {"function": "f"}}
    queue.events_recorded += 5000
    assert queue.compute_analytics_summary([{"function": "f"}] * 9) == {"functions": {}}, "nothing is summed up"


def test_uploads_that_nobody_sends_are_forgotten(blocks: Any) -> None:
    """Whoever may upload may ask how far any upload is."""
    statuses = gr.routes.file_upload_statuses

    async def ask(upload: str) -> None:
        asked = asyncio.ensure_future(statuses.is_tracked(upload))
        await asyncio.sleep(0)
        asked.cancel()

    async def visit() -> None:
        for number in range(3 * bounds.SESSIONS):
            await ask(f"made up {number}")
        assert len(statuses._signals) == bounds.SESSIONS
        statuses.track("real")
        assert await asyncio.wait_for(statuses.is_tracked("real"), 1)
        statuses.stop_tracking("real")

    asyncio.run(visit())


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
