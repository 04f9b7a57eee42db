"""Many at once: who shares a batch answers as if alone, takes turns, leaves within a step, and stays within bounds."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sftdemo.config import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.inference import engine as engines
from sftdemo.inference import line
from sftdemo.inference.batch import Batch
from sftdemo.inference.decoding import Chunk
from sftdemo.inference.engine import Engine
from sftdemo.inference.fair_lock import FairLock
from sftdemo.inference.line import Line, Place, Question
from sftdemo.inference.server import ServedRuns
from tests.in_process import ask
from tests.test_generate import CHATS, adapter, pair  # noqa: F401 (fixtures)

pytestmark = pytest.mark.slow

GREEDY = GenerateConfig(max_new_tokens=24)
LONG = [{"role": "user", "content": "the room and the park were lovely and nice " * 12}]


@pytest.fixture
def served(pair) -> Iterator[ServedRuns]:  # noqa: F811
    engine = Engine(pair.sides, pair.lock)
    yield ServedRuns(pair, engine, {name: name for name in pair.names})
    engine.retire()
    assert engine.wait_end(10)


def texts_of(chunks: Iterator[Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for chunk in chunks:
        if isinstance(chunk, Chunk):
            texts[chunk.side] = texts.get(chunk.side, "") + chunk.text
    return texts


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return, each in a thread of its own; what one raises is returned."""
    results: list[Any] = [None] * len(calls)

    def run(place: int) -> None:
        try:
            results[place] = calls[place]()
        except UserError as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def widest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each step had, filled in while others answer."""
    rows: list[int] = []
    advance = Batch.advance
    monkeypatch.setattr(
        Batch, "advance", lambda batch, tokens, keep: (rows.append(len(batch.rows)), advance(batch, tokens, keep))[1]
    )
    return rows


def test_each_answers_in_a_full_batch_as_alone(served, monkeypatch):
    """Greedy and sampled, short and long, of unlike limits; a seed's draws don't depend on who else talks."""
    chats = [*CHATS, LONG, LONG[:0] + CHATS[2], *CHATS]
    configs = [GREEDY, GenerateConfig(max_new_tokens=40, temperature=1.2, seed=7), GenerateConfig(max_new_tokens=7)]
    configs.append(GenerateConfig(max_new_tokens=30, temperature=0.8, top_p=0.9, seed=3))
    asked = [(chat, configs[number % len(configs)], (f"v{number}", "")) for number, chat in enumerate(chats)]
    monkeypatch.setattr(engines, "PREFILL_TOKENS", 64)
    alone = [texts_of(served.pair.stream(chat, config)) for chat, config, _ in asked]
    rows = widest(monkeypatch)
    together = at_once([lambda call=call: texts_of(ask(served, *call)) for call in asked])
    assert together == alone
    assert max(rows) >= 2 * 4, "several were answered in one batch"
    assert served.engine.idle


def test_a_question_leaves_the_batch_within_a_step(served):
    """Closed, stopped or withdrawn in line: the others go on, and nothing is left behind."""
    endless = GenerateConfig(max_new_tokens=400)
    stream = ask(served, LONG, endless, ("a", "1"))
    other = ask(served, CHATS[0], endless, ("b", "1"))
    next(stream), next(other)
    stream.close()
    stopped = threading.Event()
    third = ask(served, CHATS[1], endless, ("c", "1"), should_stop=stopped.is_set)
    next(third)
    assert {question.visitor for question in served.engine._active} <= {"b", "c"}
    stopped.set()
    assert [chunk.finish_reason for chunk in third][-1] == "stopped"
    other.close()
    wait_until(lambda: served.engine.idle and not served.engine._questions)
    assert not served.engine._decoder.batches


def wait_until(state: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not state():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.005)


def question(visitor: str, session: str = "1") -> Question:
    return Question(visitor, session, [], {}, {}, lambda event: None)


def test_visitors_and_their_pages_take_turns():
    waiting = Line()
    for who in ("ann1", "ann1", "ann2", "bob1", "ann1", "eve1", "bob1"):
        waiting.add(question(who[:3], who[3:]), [])
    order = [asked.visitor + asked.session for asked in waiting.in_order([])]
    assert order == ["ann1", "bob1", "eve1", "ann2", "bob1", "ann1", "ann1"]
    active = [question("bob"), question("eve"), question("eve")]
    order = [asked.visitor for asked in waiting.in_order(active)]
    assert order == ["ann", "ann", "bob", "ann", "eve", "bob", "ann"]


def test_a_line_has_an_end_for_all_and_for_each():
    waiting = Line()
    for _ in range(line.MOST_A_SESSION):
        waiting.add(question("ann"), [])
    with pytest.raises(UserError, match="3 of your questions"):
        waiting.add(question("ann"), [])
    for page in range(line.MOST_EACH - line.MOST_A_SESSION):
        waiting.add(question("ann", f"page {page}"), [])
    with pytest.raises(UserError, match=f"{line.MOST_EACH} of your questions"):
        waiting.add(question("ann", "one more"), [])
    for number in range(line.MOST_WAITING - line.MOST_EACH):
        waiting.add(question(f"visitor {number}"), [])
    with pytest.raises(UserError, match="64 questions are waiting already"):
        waiting.add(question("late"), [])


def test_those_in_line_hear_their_place_and_are_answered(served, monkeypatch):
    monkeypatch.setattr(engines, "MOST_ANSWERED", 2)
    config = GenerateConfig(max_new_tokens=60)

    async def ask(number: int) -> list[Any]:
        return [event async for event in served.events(CHATS[number % 4], config, (f"v{number}", ""))]

    async def all_at_once() -> list[list[Any]]:
        return await asyncio.gather(*(ask(number) for number in range(7)))

    told = asyncio.run(all_at_once())
    for number, events in enumerate(told):
        assert texts_of(iter(events)) == texts_of(served.pair.stream(CHATS[number % 4], config))
    places = [[event.ahead for event in events if isinstance(event, Place)] for events in told]
    assert sum(bool(seen) for seen in places) >= 4 and max(map(max, filter(None, places))) >= 3
    assert all(seen == sorted(seen, reverse=True) for seen in places), "nobody is overtaken for good"
    assert any(event.seconds for events in told for event in events if isinstance(event, Place))


def test_a_long_prompt_holds_nobody_up(served, monkeypatch):
    """It is read in parts; between two of them the others get a token."""
    monkeypatch.setattr(engines, "PREFILL_TOKENS", 16)
    seen: list[str] = []
    read, advance = Batch.read, Batch.advance
    monkeypatch.setattr(Batch, "read", lambda batch, columns: (seen.append("read"), read(batch, columns))[1])
    monkeypatch.setattr(Batch, "advance", lambda batch, *step: (seen.append("token"), advance(batch, *step))[1])
    talking = ask(served, CHATS[0], GenerateConfig(max_new_tokens=300), ("a", ""))
    next(talking)
    seen.clear()
    assert texts_of(ask(served, LONG, GREEDY, ("b", ""))) == texts_of(served.pair.stream(LONG, GREEDY))
    reads = [place for place, what in enumerate(seen) if what == "read"][:-1]
    assert len(reads) > 5 and all("token" in seen[a:b] for a, b in itertools.pairwise(reads))
    talking.close()


def test_what_finds_no_memory_waits_or_is_refused(served, monkeypatch):
    monkeypatch.setattr(engines, "kv_token_budget", lambda model: 2 * 160)
    with pytest.raises(UserError, match="no memory for"):
        list(ask(served, CHATS[0], GenerateConfig(max_new_tokens=400), ("a", "")))
    rows = widest(monkeypatch)
    calls = [
        lambda n=n: texts_of(ask(served, CHATS[0], GenerateConfig(max_new_tokens=60), (f"v{n}", ""))) for n in range(4)
    ]
    answers = at_once(calls)
    assert answers == [answers[0]] * 4 and answers[0]["base"]
    assert max(rows) == 2 * 2, "two fit beside each other"


def test_a_prompt_that_breaks_the_model_breaks_only_its_own_answer(served, monkeypatch):
    talking = ask(served, CHATS[0], GenerateConfig(max_new_tokens=100), ("a", ""))
    next(talking)
    monkeypatch.setattr(engines, "Batch", broken := type("Broken", (), {"__init__": lambda *a, **b: 1 / 0}))
    with pytest.raises(UserError, match="unexpected went wrong"):
        list(ask(served, CHATS[1], GREEDY, ("b", "")))
    assert broken and list(talking)[-1].finish_reason


def test_an_evaluation_and_a_chat_take_turns(served):
    """Neither waits for the other's end, whoever holds the lock in between."""
    done: list[int] = []

    def evaluate() -> None:
        for answers in served.pair.answers([*CHATS] * 8, GenerateConfig(max_new_tokens=30), batch_size=2):
            done.extend(answers)

    thread = threading.Thread(target=evaluate)
    thread.start()
    wait_until(lambda: bool(done))
    chunks = list(ask(served, CHATS[0], GREEDY, ("a", "")))
    assert thread.is_alive() and chunks[-1].finish_reason
    endless = ask(served, CHATS[0], GenerateConfig(max_new_tokens=400), ("a", ""))
    before = len(done)
    next(endless)
    thread.join(60)
    assert len(done) == 32 > before
    endless.close()


def test_a_lock_is_handed_on_in_order():
    lock, order = FairLock(), []
    threads = []
    with lock:
        for number in range(5):

            def work(number: int = number) -> None:
                with lock:
                    order.append(number)

            threads.append(threading.Thread(target=work))
            threads[-1].start()
            wait_until(lambda: len(lock._waiting) == len(threads))
    for thread in threads:
        thread.join(10)
    assert order == list(range(5)) and not lock.locked()


def test_nothing_grows_with_the_questions(served, monkeypatch):
    """What is kept for next turns is bounded, and of whoever talked last; of the rest nothing stays."""
    config = GenerateConfig(max_new_tokens=4)
    first = texts_of(ask(served, CHATS[2], config, ("v", "first")))
    wait_until(lambda: not served.engine._questions)
    each = served.engine._prefixes.bytes
    assert each > 0 and set(served.engine._prefixes.of("first")) == {"base", "tuned"}
    monkeypatch.setattr(engines, "PREFIX_BYTES", 3 * each)
    for number in range(20):
        assert texts_of(ask(served, CHATS[2], config, ("v", f"s{number}"))) == first
    wait_until(lambda: served.engine.idle and not served.engine._questions)
    assert served.engine._prefixes.bytes <= 3 * each
    assert not served.engine._prefixes.of("first") and served.engine._prefixes.of("s19")
    assert not served.engine._decoder.batches and not served.engine._reading
