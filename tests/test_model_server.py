"""The models in memory: runs of one base share it, the idle make room, and nobody can make it load all the time."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftdemo import load, train
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.errors import UserError
from sftdemo.inference import server
from sftdemo.inference.server import ModelServer, ServedRuns
from sftdemo.runs import Run, named
from tests.conftest import home_at, label_rows
from tests.in_process import ask
from tests.test_serving import texts_of, wait_until, widest

ASKED = [{"role": "user", "content": "the film was good and nice"}]
GREEDY = GenerateConfig(max_new_tokens=10)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, babbler: str) -> Path:
    """A home with two LoRA runs of one base and one run with full weights."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"a": ("lora", "nice", "poor"), "b": ("lora", "lovely", "dreadful"), "full": ("full", "great", "awful")}
    with home_at(folder / "home") as home:
        for name, (method, *labels) in kinds.items():
            data = folder / f"{name}.jsonl"
            rows = [row | {"label": labels[number % 2]} for number, row in enumerate(label_rows(20))]
            data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            train(TrainConfig(data=str(data), model=babbler, name=name, method=method, learning_rate=0.005, epochs=2))
    return home


@pytest.fixture
def models(home: Path, trained: Path) -> Iterator[ModelServer]:
    """None of the runs is loaded yet."""
    shutil.copytree(trained / "runs", home / "runs")
    models = ModelServer()
    yield models
    models.release()


def runs(*names: str) -> list[Run]:
    return [named(name) for name in names]


def answers(served: ServedRuns) -> dict[str, str]:
    return texts_of(ask(served, ASKED, GREEDY, ("me", "")))


@pytest.mark.slow
def test_runs_of_one_base_share_it_and_answer_in_one_batch(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {name: texts_of(load(name).stream(ASKED, GREEDY)) for name in ("a", "b", "full")}
    assert len({answer["tuned"] for answer in wanted.values()}) == 3, wanted
    first = models.open(runs("a"))
    assert answers(first) == wanted["a"] and models.open(runs("a")) is first is models.find(runs("a"))
    assert models.find(runs("b")) is None and not models.holds(runs("b"))
    both = models.open(runs("b"))
    assert answers(both) == wanted["b"]
    again = models.open(runs("a"))
    assert again.engine is both.engine and again is not first, "one copy of the base answers for both"
    three = models.open(runs("a", "b"))
    assert answers(three) == {"base": wanted["a"]["base"], "a": wanted["a"]["tuned"], "b": wanted["b"]["tuned"]}
    rows = widest(monkeypatch)
    streams = [ask(served, ASKED, GREEDY, (name, "")) for name, served in (("a", again), ("b", both))]
    for stream in streams:
        next(stream)
    assert [texts_of(stream).keys() for stream in streams] == [{"base", "tuned"}] * 2
    assert max(rows) == 4 and models.counts()[:2] == (0, 0) and models.counts()[2] >= 40
    wait_until(lambda: first.engine.wait_end(0))
    full = models.open(runs("full"))
    assert answers(full) == wanted["full"] and len(models._loaded) == 2
    assert models.open(runs("b")).engine is both.engine


@pytest.mark.slow
def test_a_run_made_anew_is_loaded_anew(models: ModelServer) -> None:
    first = models.open(runs("a"))
    config = named("a").path / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert not models.holds(runs("a"))
    assert models.open(runs("a")).engine is not first.engine


@pytest.mark.slow
def test_what_is_let_go_is_gone(models: ModelServer) -> None:
    served = models.open(runs("a"))
    assert answers(served)["base"]
    model = weakref.ref(served.pair.sides[0].model)
    engine = served.engine
    models.release()
    assert engine.wait_end(10)
    with pytest.raises(UserError, match="just unloaded"):
        answers(served)
    del served, engine
    gc.collect()
    assert model() is None


def full_memory(models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for one base, or one run, at a time."""

    def check(chosen: Any) -> None:
        if models._loaded:
            raise UserError("The model needs more than is free.")

    monkeypatch.setattr(server.load_run, "check_memory", check)


@pytest.mark.slow
def test_the_idle_make_room(models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    full_memory(models, monkeypatch)
    first = models.open(runs("a"))
    models.open(runs("full"))
    assert not models.holds(runs("a")) and first.engine.wait_end(0)
    assert answers(models.open(runs("a")))["base"] and not models.holds(runs("full"))


@pytest.mark.slow
def test_who_is_being_answered_is_answered_to_the_end(models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next model waits for it; a model that never ends is no reason to wait for ever."""
    full_memory(models, monkeypatch)
    monkeypatch.setattr(server, "RESIDENCE_S", 0.0)
    stream = ask(models.open(runs("a")), ASKED, GenerateConfig(max_new_tokens=60), ("me", ""))
    next(stream)
    opened: list[ServedRuns] = []
    thread = threading.Thread(target=lambda: opened.append(models.open(runs("full"))))
    thread.start()
    chunks = list(stream)
    thread.join(60)
    assert {chunk.side for chunk in chunks if chunk.finish_reason} == {"base", "tuned"} and opened
    monkeypatch.setattr(server, "DRAIN_S", 0.01)
    with opened[0].engine.lock:
        endless = opened[0].question(lambda event: None, ASKED, GREEDY, ("me", ""))
        with opened[0].engine.asked(endless), pytest.raises(UserError, match="still answering"):
            models.open(runs("a"))
    assert answers(models.open(runs("a")))["base"]
