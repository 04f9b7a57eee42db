"""kill -9 and SIGTERM where a run is more than one training: rehearsed rows, a student, a sweep, an evaluation."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import home_at, label_rows
from safetensors.torch import load_file

from sftdemo import runs
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.config.sweep import SweepConfig
from sftdemo.runs import Run, sweep_record
from sftdemo.training import halving, sweep_trials
from sftdemo.training.callback import RunCallback
from sftdemo.training.signals import Interruption
from sftdemo.training.train import train
from sftdemo.verbs.evaluate import evaluate
from sftdemo.verbs.sweep import sweep
from tests.interrupting import at_step, curve, forked, signal_self
from tests.listener import Listener

pytestmark = pytest.mark.slow
KILL, TERM = signal.SIGKILL, signal.SIGTERM


def written(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("moods") / "moods.jsonl", label_rows(60))


def cut_off_at(step: int, number: int, work: Callable[[Listener], object]) -> None:
    assert forked(lambda: work(at_step(step, signal_self(number)))) == (-number if number == KILL else 0)


def resumed(name: str = "r") -> Run:
    """The run once it was resumed, which never says that it begins anew."""
    heard = Listener()
    assert train(TrainConfig(resume=name), reporter=heard)["status"] == "finished"
    assert not [note for note in heard.notes if "step 0" in note]
    return runs.find(name)


def assert_same(run: Run, whole: Run) -> None:
    """The same curve to the last digit, the same weights, and as much left behind."""
    assert curve(run) == curve(whole)
    weights, expected = (load_file(next(each.model_path.glob("*.safetensors"))) for each in (run, whole))
    assert weights.keys() == expected.keys() and all(torch.equal(weights[key], expected[key]) for key in weights)
    assert {path.name for path in run.path.iterdir()} == {path.name for path in whole.path.iterdir()}


def test_a_signal_between_two_looks_cuts_off(home: Path) -> None:
    """Whatever is asked for before a step when SIGTERM comes: a training that stops for it goes on by itself later."""
    interruption, run = Interruption(), runs.create("told", "unused", {"settings": {}})
    config = TrainConfig(data="support_tickets")

    def told(*_: object) -> bool:
        interruption.handle(signal.SIGTERM, None)
        return False

    for asked in ("is_over", "should_stop"):
        interruption.signals, interruption.terminated, interruption.phase = 0, False, "training"
        callback = RunCallback(run, interruption, SimpleNamespace(should_stop=lambda: False), None, config)
        callback.trainer = SimpleNamespace(state=SimpleNamespace(global_step=3))
        setattr(callback if asked == "is_over" else callback.progress, asked, told)
        stop, hurry, _ = callback.words()
        assert stop and hurry, asked


@pytest.mark.parametrize(("method", "number"), [("lora", KILL), ("full", TERM)])
def test_rehearsed_rows_are_the_same_where_the_earlier_run_and_the_file_are_gone(moods, tiny, tmp_path, method, number):
    train(TrainConfig(data=moods, model=tiny, precision="float32", name="first", max_steps=3))
    rows = [row | {"text": f"well {row['text']} indeed"} for row in label_rows(100)[50:]]
    other = written(tmp_path / "other.jsonl", rows)
    asked: dict[str, Any] = {"data": other, "from_run": "first", "rehearsal": 0.3, "method": method, "epochs": 2.0}
    asked |= {"precision": "float32", "checkpoint_every": 2}
    train(TrainConfig(**asked, name="whole"))
    assert runs.find("whole").examples("rehearsal")
    cut_off_at(5, number, lambda heard: train(TrainConfig(**asked, name="r"), reporter=heard))
    Path(other).unlink()
    runs.find("first").delete()
    assert_same(resumed(), runs.find("whole"))


@pytest.mark.parametrize(("kind", "number"), [("dropped layers", KILL), ("lora", TERM)])
def test_a_student_learns_on_from_its_teacher(moods, tiny, kind, number):
    train(TrainConfig(data=moods, model=tiny, precision="float32", name="t", max_steps=3))
    asked: dict[str, Any] = {"teacher": "t", "precision": "float32", "checkpoint_every": 2, "epochs": 2.0}
    asked |= {"drop_layers": 1, "method": "full"} if kind == "dropped layers" else {"model": tiny, "lora_dropout": 0.2}
    train(TrainConfig(**asked, name="whole"))
    cut_off_at(5, number, lambda heard: train(TrainConfig(**asked, name="r"), reporter=heard))
    run, whole = resumed(), runs.find("whole")
    assert run.config()["student"] == whole.config()["student"]
    assert_same(run, whole)


def sweeping(moods: str, tiny: str, name: str, heard: Listener) -> None:
    """Two trials of 24 steps, the better of which goes on from the twelfth."""
    settings = {"data": moods, "model": tiny, "precision": "float32", "name": name, "max_examples": 64}
    config = TrainConfig.from_json({**settings, "checkpoint_every": 3, "lora_dropout": 0.2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halving, "SHARES", (0.5,))
        sweep(config, SweepConfig(100, "1e-5,5e-3", "4", "4"), heard)


@pytest.fixture(scope="module")
def swept(moods: str, tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with home_at(tmp_path_factory.mktemp("swept") / "home"):
        sweeping(moods, tiny, "whole", Listener())
        return runs.find("whole")


def ending(owner: Any, name: str, number: int, where: Callable[..., bool] = lambda *_: True) -> None:
    """Have a function send the signal once it has done its work."""
    work = getattr(owner, name)

    def last(*arguments: Any, **named: Any) -> Any:
        value = work(*arguments, **named)
        if where(*arguments):
            signal_self(number)()
        return value

    setattr(owner, name, last)


def is_of_a_trial(path: Path, to: Path) -> bool:
    return path.name == "checkpoints" and "trials" in path.parts


MOMENTS: dict[str, Callable[[int], object]] = {
    "amid a trial": lambda number: ending(sweep_trials._Stretch, "trained", number, lambda _, row: row["step"] == 5),
    "between two trials": lambda number: ending(sweep_trials.Search, "_measure", number),
    "once it has chosen": lambda number: ending(sweep_trials.Search, "choose", number),
    "amid taking over": lambda number: ending(Path, "rename", number, is_of_a_trial),
    "in the last stretch": lambda number: None,
}


CASES = [*((moment, KILL) for moment in MOMENTS), ("between two trials", TERM), ("in the last stretch", TERM)]


@pytest.mark.parametrize(("moment", "number"), CASES)
def test_a_sweep_comes_to_the_same_wherever_it_was_cut_off(moods, tiny, swept, moment, number):
    def work() -> None:
        MOMENTS[moment](number)
        heard = at_step(15, signal_self(number)) if moment == "in the last stretch" else Listener()
        with contextlib.suppress(KeyboardInterrupt):
            sweeping(moods, tiny, "r", heard)

    assert forked(work) == (-number if number == KILL else 0)
    assert runs.find("r").state in ("failed", "stopped") and runs.find("r").status().get("cut_off")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halving, "SHARES", (0.5,))
        run = resumed()
    records = [sweep_record.read(each) for each in (run, swept)]
    assert records[0] and records[1] and records[0]["chosen"] == records[1]["chosen"]
    trials = [[(t["measured"], t["curve"], t["ended"]) for t in record["trials"]] for record in records if record]
    assert trials[0] == trials[1]
    assert_same(run, swept)


def test_a_killed_evaluation_asks_no_row_again(moods, tiny, home):
    train(TrainConfig(data=moods, model=tiny, precision="float32", name="r", max_steps=3))
    asked = EvaluateConfig(batch_size=2)

    class Killed(Listener):
        def answered(self, rows: int, total: int) -> None:
            if rows >= 5:
                signal_self(KILL)()

    assert forked(lambda: evaluate("r", asked, reporter=Killed())) == -KILL
    run, heard = runs.find("r"), Listener()
    assert run.evaluations() == []
    outputs = run.outputs(evaluate("r", asked, reporter=heard)["evaluation"])
    assert heard.rows[0] >= 5 and heard.rows[-1] == 12 == len(outputs)
    evaluations = run.path / "evaluations"
    assert [path.name for path in evaluations.iterdir()] == run.evaluations()
    (evaluations / run.evaluations()[0]).rename(run.path / "first")
    whole = run.outputs(evaluate("r", asked)["evaluation"])
    assert [(row["base"], row["tuned"]) for row in outputs] == [(row["base"], row["tuned"]) for row in whole]
