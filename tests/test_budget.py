"""How long a training is: by a budget of minutes, and by steps."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import label_rows
from listener import Listener

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.log import Reporter
from sftdemo.training import budget, callback, signals, trainer
from sftdemo.training.prepare import Prepared
from sftdemo.training.train import train
from tests.interrupting import at_step, curve, forked, signal_self


class Clock:
    """Stands still but for the steps of the training, which take ten seconds each."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (budget, callback, signals, trainer):
        monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(time), "monotonic": clock.monotonic, "perf_counter": clock.monotonic}))  # fmt: skip
    before = callback.RunCallback.on_step_end

    def on_step_end(self: Any, *arguments: Any, **keywords: Any) -> Any:
        clock.now += 10
        return before(self, *arguments, **keywords)

    monkeypatch.setattr(callback.RunCallback, "on_step_end", on_step_end)
    return clock


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)), encoding="utf-8")
    return {"data": str(path), "model": tiny, "name": "r", "precision": "float32"}


def rates(run: runs.Run) -> list[float]:
    return [row["learning_rate"] for row in run.metrics() if "loss" in row]


def test_a_budget_ends_finished_in_time_with_the_rate_at_its_end(settings, clock):
    began = clock.now
    summary = train(TrainConfig(**settings, max_minutes=3, epochs=0.1, warmup_ratio=0.2))
    run = runs.find("r")
    assert summary["status"] == run.status()["state"] == "finished"
    assert abs(clock.now - began - 180) <= 10
    assert summary["steps"] == run.status()["total"] == len(rates(run)) == 18
    assert list(run.model_path.glob("*.safetensors"))
    peak = rates(run).index(max(rates(run)))
    assert 2 <= peak <= 4 and rates(run)[peak:] == sorted(rates(run)[peak:], reverse=True)
    assert 0 <= rates(run)[-1] < 0.1 * max(rates(run))


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_what_is_left_of_its_budget(settings, clock):
    run_path = Path(runs.home()) / "runs" / "r"

    class Stop(Reporter):
        def trained(self, row: Any) -> None:
            assert row["eta_s"] <= 180
            if row["step"] == 6 and "loss" in row:
                runs.Run(run_path).ask_to_stop()

    began = clock.now
    assert train(TrainConfig(**settings, max_minutes=3), reporter=Stop())["status"] == "stopped"
    assert runs.find("r").status()["total"] == 18
    clock.now += 5000  # between the two
    summary = train(TrainConfig(resume="r"))
    run = runs.find("r")
    assert summary["status"] == "finished" and summary["resumed"] == [6] and summary["steps"] == 18
    assert abs(clock.now - began - 5000 - 180) <= 10
    falling = rates(run)[2:]
    assert falling == sorted(falling, reverse=True) and falling[-1] < 0.1 * falling[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_killed_goes_on_in_its_schedule_as_if_it_had_not_been(settings, clock, number):
    """The first step counts as much as any: the rate doesn't stand still for it, and it has its point of the curve."""
    asked = {**settings, "max_minutes": 3, "warmup_ratio": 0.2, "checkpoint_every": 4}
    train(TrainConfig(**asked | {"name": "whole"}))
    cut_off = forked(lambda: train(TrainConfig(**asked), reporter=at_step(10, signal_self(number))))
    assert cut_off == (-number if number == signal.SIGKILL else 0)
    clock.now += 5000
    summary = train(TrainConfig(resume="r"))
    assert summary["resumed"] == [8 if number == signal.SIGKILL else 10] and summary["status"] == "finished"
    assert curve(runs.find("r")) == curve(runs.find("whole"))


@pytest.mark.slow
def test_a_budget_that_loading_used_up_leaves_the_model_of_its_last_step(settings, clock, monkeypatch):
    stop = at_step(17, lambda: runs.find("r").ask_to_stop())
    assert train(TrainConfig(**settings, max_minutes=3), reporter=stop)["status"] == "stopped"
    load = trainer._trainer

    def slowly(*arguments: Any) -> Any:
        clock.now += 300
        return load(*arguments)

    monkeypatch.setattr(trainer, "_trainer", slowly)
    summary = train(TrainConfig(resume="r"))
    assert (summary["status"], summary["steps"], summary["resumed"]) == ("finished", 17, [17])
    assert list(runs.find("r").model_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"max_minutes": 3, "warmup_steps": 500}, "warmup_steps is 500: where fewer steps fit into 3 min, the warm-up"),
        ({"max_minutes": 3, "warmup_ratio": 1.0}, "warmup_ratio is 1: the learning rate rises until the training ends"),
        ({"warmup_ratio": 1.0, "warmup_steps": 2}, ""),
        ({"max_minutes": 3, "warmup_steps": 0}, ""),
    ],
)
def test_a_warm_up_that_may_never_end_is_told_before(settings, changes, note):
    listener = Listener()
    Prepared(TrainConfig(**settings, **changes), listener)
    said = [line for line in listener.notes if "warm" in line]
    assert len(said) == bool(note) and all(line.startswith(note) for line in said)


@pytest.mark.parametrize(("changes", "steps"), [({"max_steps": 3}, 3), ({"max_steps": 4, "max_minutes": 3}, 4)])
def test_steps_end_it(settings, clock, changes, steps):
    summary = train(TrainConfig(**settings, **changes))
    run = runs.find("r")
    assert summary["status"] == "finished" and summary["steps"] == run.status()["total"] == steps
    assert len(rates(run)) == steps and rates(run)[-1] < 0.5 * max(rates(run))
