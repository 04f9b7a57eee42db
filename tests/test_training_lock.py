"""One training at a time in a home, stopped at any moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from listener import Listener

from sftdemo import files, import_run, runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.log import TO_LOG
from sftdemo.training import lock
from sftdemo.training import resume as resumption
from sftdemo.training.prepare import Prepared
from sftdemo.training.train import train
from sftdemo.verbs import jobs
from tests.test_resume import config, forked, moods, run  # noqa: F401 (fixtures)


def test_a_stop_is_heard_while_the_model_loads(moods, tiny, run):  # noqa: F811
    class Loading(Listener):
        def stage(self, name: str, done: int = 0, total: int = 0) -> None:
            if name == "loading":
                run.ask_to_stop()
                time.sleep(30)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train(config(moods, tiny), reporter=Loading())
    assert time.monotonic() - began < 25
    assert run.status()["error"] == "Stopped before the first step; nothing was learned."
    # Its name is free again.
    assert train(config(moods, tiny, epochs=0.1))["status"] == "finished"
    with pytest.raises(UserError, match="There is a run named 'r' already"):
        train(config(moods, tiny, epochs=0.1))


def test_a_name_is_refused_before_anything_is_read(home):
    runs.create("taken", "", {})
    for name, fault in (("a b", "'a b' can't be a run's name"), ("taken", "There is a run named 'taken' already")):
        with pytest.raises(UserError, match=fault):
            train(TrainConfig(data="nowhere.jsonl", name=name))
        with pytest.raises(UserError, match=fault):
            import_run("nobody/nothing", name)


def test_an_interruption_that_a_library_takes_for_an_error_is_one(moods, tiny, monkeypatch):  # noqa: F811
    def importing(*arguments: Any, **named: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("numpy.core failed to import") from None

    monkeypatch.setattr("sftdemo.training.train.kinds.prepare", importing)
    with pytest.raises(KeyboardInterrupt):
        train(config(moods, tiny))


def test_one_training_at_a_time_in_a_home(moods, tiny, home, run):  # noqa: F811
    """A process that trains can't wait for itself, and nobody waits who said that they won't."""
    heard: list[str] = []

    def ask(row: Mapping[str, Any]) -> None:
        if len(heard) < 2:
            for wait in (True, False):
                with pytest.raises(UserError) as caught:
                    train(config(moods, tiny, name="other"), wait=wait)
                heard.append(str(caught.value))

    train(config(moods, tiny, epochs=0.2), reporter=Listener(ask))
    assert heard == [f"Run r is still training (process {os.getpid()}); wait until it ends, or stop it first."] * 2
    assert [path.name for path in (home / "runs").iterdir()] == ["r"]


def test_the_lock_says_who_has_it_and_goes_with_its_process(home, monkeypatch):
    monkeypatch.setattr(lock, "STARTING_S", 0.05)
    home.mkdir()
    with lock.alone(), pytest.raises(UserError, match="Another process is getting a training ready"), lock.alone():
        pass

    def die_with_it() -> None:
        with lock.alone():
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(die_with_it) == -signal.SIGKILL
    with lock.alone():
        pass


VARIANTS: dict[str, dict[str, Any]] = {
    "fixed": {"on_fault": "fix", "clean": "whitespace,leaks"},
    "dropped": {"on_fault": "drop", "max_examples": 40},
    "weighted": {"balance": "weights", "validation_size": 10},
    "repeated": {"balance": "over"},
    "cut": {"max_length": 100, "on_long": "cut"},
    "chunks": {"max_length": 64, "on_long": "chunk", "chunk_overlap": 4, "instruction": "Is this good or bad? {text}"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_data_that_a_run_keeps_give_the_rows_it_was_trained_on(moods, tiny, tmp_path, variant):  # noqa: F811
    lines = Path(moods).read_text().splitlines()
    lines += [json.dumps({"text": f"bad {word} " * 20 + f"number {n}", "label": "bad", "split": "train"}) for n, word in enumerate(["sad", "poor"])]  # fmt: skip
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = config(str(path), tiny, **VARIANTS[variant])
    prepared = Prepared(settings, TO_LOG)
    assert variant not in ("cut", "chunks") or prepared.lengths["train"]["over"] > 0
    run = runs.create("r", "", prepared.run_config())  # noqa: F811
    for split, examples in prepared.dataset.splits.items():
        files.write_jsonl(run.path / "data" / f"{split}.jsonl", examples)
    again = Prepared(settings, TO_LOG, dataset=resumption.start(run).dataset)
    assert again.fingerprint() == prepared.fingerprint()


@pytest.mark.slow
def test_what_trains_saves_when_the_app_is_told_to_end(moods, tiny, run):  # noqa: F811
    """The app has a few seconds then, and its children none."""
    settings = config(moods, tiny, epochs=100.0, checkpoint_every=10**6)
    process = multiprocessing.get_context("fork").Process(target=train, args=(settings,))
    process.start()
    deadline = time.monotonic() + 60
    while not run.path.exists() or run.status().get("step", 0) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    jobs.end_trainings()
    assert process.pid and not run.save_asked
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert run.status()["cut_off"] and resumption.start(run).checkpoint.step >= 3
