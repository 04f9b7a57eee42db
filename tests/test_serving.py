"""Many at once: who shares a batch answers as if alone, takes turns, leaves within a step, and stays within bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sftdemo.config import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.inference import engine as engines
from sftdemo.inference.batch import Batch
from sftdemo.inference.decoding import Chunk
from sftdemo.inference.engine import Engine
from sftdemo.inference.server import ServedRuns
from tests.test_generate import CHATS, adapter, pair  # noqa: F401 (fixtures)

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
    asked = [(chat, configs[number % len(configs)], f"v{number}") for number, chat in enumerate(chats)]
    monkeypatch.setattr(engines, "PREFILL_TOKENS", 64)
    alone = [texts_of(served.pair.stream(chat, config)) for chat, config, _ in asked]
    rows = widest(monkeypatch)
    together = at_once([lambda call=call: texts_of(served.stream(*call)) for call in asked])
    assert together == alone
    assert max(rows) >= 2 * 4, "several were answered in one batch"
    assert served.engine.idle
