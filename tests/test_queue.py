"""Runs take turns across processes: in order, past whoever is killed or cancelled, and never two at once."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from sftdemo import files, runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.log import TO_LOG
from sftdemo.runs import Run
from sftdemo.training import lock, turns
from sftdemo.training.signals import Interruption
from sftdemo.training.train import train
from sftdemo.verbs import jobs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def trainer(name: str, resumed: bool = False) -> None:
    """A training as far as others see it: waits for its turn, trains until it is asked to stop."""
    interruption = Interruption()
    run = Run(runs.home() / "runs" / name) if resumed else None
    with contextlib.suppress(KeyboardInterrupt), interruption.caught(), contextlib.ExitStack() as held:
        config = TrainConfig(data="d", name=name)
        run = turns.take(config, run, held, interruption, TO_LOG) or turns.new_run(config)
        others = [other.name for other in runs.training() if other != run]
        run.write_status("running", step=1, total=9, error=None)
        while not run.stop_asked:
            time.sleep(0.01)
        run.clear_words()
        run.write_status("finished" if not others else "failed", step=9, total=9)


@pytest.fixture
def begin(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BaseProcess]]:
    """Starts a trainer in a process of its own, and returns it once its run is in the list."""
    monkeypatch.setattr(turns, "POLL_S", 0.02)
    begun: list[BaseProcess] = []

    def begin(name: str, resumed: bool = False) -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=trainer, args=(name, resumed))
        process.start()
        begun.append(process)
        run = Run(home / "runs" / name)
        wait_for(lambda: run.path.exists() and run.status().get("pid") == process.pid, f"{name} to begin")
        return process

    yield begin
    for process in begun:
        process.kill()
        process.join()


def run_of(name: str) -> Run:
    return Run(runs.home() / "runs" / name)


def wait_for_state(name: str, state: str) -> None:
    wait_for(lambda: run_of(name).state == state, f"{name} to be {state}")


def line() -> list[tuple[str, int | None]]:
    return [(run.name, runs.place(run)) for run in runs.waiting()]


def test_turns_come_in_order_past_the_killed_and_the_cancelled(begin):
    """One is killed as it trains, one as it waits, one is told by a signal, one through its folder."""
    first = begin("first")
    wait_for_state("first", "running")
    begin("second")
    killed, told = begin("killed"), begin("told")
    begin("asked")
    begin("last")
    assert line() == [("second", 1), ("killed", 2), ("told", 3), ("asked", 4), ("last", 5)]
    assert [run.name for run in runs.ahead(run_of("killed"))] == ["first", "second"]
    killed.kill()
    wait_for(lambda: run_of("killed").status().get("cut_off"), "the kill")
    assert line() == [("second", 1), ("told", 2), ("asked", 3), ("last", 4)]
    os.kill(told.pid, signal.SIGINT)
    jobs.stop(run_of("asked"))
    wait_for(lambda: not run_of("told").path.exists() and not run_of("asked").path.exists(), "both to leave")
    assert line() == [("second", 1), ("last", 2)]
    first.kill()
    wait_for_state("second", "running")
    assert line() == [("last", 1)] and run_of("first").status()["cut_off"]
    run_of("second").ask_to_stop()
    wait_for_state("last", "running")
    assert run_of("second").state == "finished"
    begin("told")  # its name is free again
    begin("killed")
    assert line() == [("told", 1), ("killed", 2)]


def test_a_machine_that_went_down_goes_on_in_the_same_order(begin, monkeypatch):
    """The one that trained, then those that waited."""
    processes = [begin(name) for name in ("zebra", "second", "third", "fourth")]
    wait_for_state("zebra", "running")
    os.kill(processes[2].pid, signal.SIGTERM)  # told to end, as a container is
    wait_for_state("third", "failed")
    for process in (*processes[:2], processes[3]):
        process.kill()
        process.join()
    assert run_of("third").status()["error"] == "It was ended while it waited for its turn."
    assert [run.name for run in runs.cut_off()] == ["zebra", "second", "third", "fourth"]
    spawned: list[str] = []

    def spawn(run: Run, *rest: object) -> None:
        turns.join(run)
        spawned.append(run.name)

    monkeypatch.setattr(jobs, "_spawn_training", spawn)
    jobs.resume_cut_off()
    jobs.resume_cut_off()  # a second server on the same home
    assert spawned == ["zebra", "second", "third", "fourth"]
    assert [name for name, _ in line()] == spawned and runs.cut_off() == []


def test_a_run_to_be_resumed_is_as_it_was_where_its_wait_is_cancelled(begin):
    begin("first")
    wait_for_state("first", "running")
    resumed = runs.create("resumed", "", {"settings": TrainConfig(data="d").to_json()})
    resumed.write_status("stopped", step=3, total=9, train_loss=0.5, cut_off=True)
    before = files.read_json(resumed.path / "status.json")
    begin("resumed", True)
    assert line() == [("resumed", 1)] and resumed.status()["step"] == 3
    for start in (turns.join, jobs.resume, lambda run: train(TrainConfig(resume=run.name))):
        with pytest.raises(UserError, match="waits for its turn already"):
            start(resumed)
    jobs.stop(resumed)
    wait_for(lambda: not line(), "the wait to end")
    before.pop("cut_off")  # by hand alone from now on
    assert files.read_json(resumed.path / "status.json") == before and not resumed.stop_asked
    assert runs.cut_off() == []


def killed(run: Run) -> None:
    """The process that the run waits or trains in is gone."""
    status = files.read_json(run.path / "status.json")
    files.write_json(run.path / "status.json", status | {"process_start": 0.0})


def test_what_was_cut_off_and_then_cancelled_comes_back_by_hand_alone(home):
    new, begun = (runs.create(name, "", {"settings": {}}) for name in ("new", "begun"))
    turns.join(new)
    begun.write_status("running", step=3, total=9)
    killed(begun)
    for _ in range(3):  # the server is restarted
        turns.join(begun)
        before = begun.written_status()["before"]
        assert "before" not in before and before["state"] == "failed" and "was killed" in before["error"]
        killed(begun)
        killed(new)
        turns.join(new)
        assert "before" not in new.written_status()
    turns.join(begun)
    for run in (new, begun):
        turns.leave(run)
    assert not new.path.exists() and runs.cut_off() == [] and runs.waiting() == []
    assert (begun.status()["state"], begun.status()["step"]) == ("failed", 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_that_is_cancelled_leaves_the_training_of_the_same_run_alone(home, monkeypatch, number):
    """Two resume it at once; the one that was first says that it trains while the other waits."""
    monkeypatch.setattr(turns, "POLL_S", 0.0)
    run = runs.create("both", "", {"settings": {}})
    others = {"pid": os.getppid(), "state": "running", "step": 4}

    def begins(*_: object) -> bool:
        if run.written_status()["state"] == "queued":
            run.write_status("running", os.getppid(), step=4)
        return False

    interruption = Interruption()
    interruption.signals, interruption.terminated = 1, number == signal.SIGTERM
    monkeypatch.setattr(turns, "_has_turn", begins)
    with lock.alone(), pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as held:
        turns.take(TrainConfig(data="d"), run, held, interruption, TO_LOG)
    assert run.written_status().items() >= others.items()
    turns.leave(run)
    assert run.written_status().items() >= others.items()


def test_who_resumes_a_run_first_is_seen_before_it_trains(home):
    run = runs.create("both", "", {"settings": {}})
    run.write_status("stopped", step=3, total=9)
    before = files.read_json(run.path / "status.json")
    with pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as held:
        assert turns.take(TrainConfig(data="d"), run, held, Interruption(), TO_LOG) == run
        with pytest.raises(UserError, match="waits for its turn already"):
            turns.join(run)
        raise KeyboardInterrupt  # as it looks where it goes on
    assert files.read_json(run.path / "status.json") == before


def test_a_wait_ends_where_another_has_taken_the_run_up(home, monkeypatch):
    run = runs.create("both", "", {"settings": {}})
    turns.join(run)
    run.write_status("running", os.getppid())
    with contextlib.ExitStack() as held, pytest.raises(UserError, match="another process has taken it up"):
        turns.wait(run, held, Interruption(), TO_LOG)
    assert run.state == "running"


def test_when_a_turn_is_expected_is_said_only_where_it_is_known(begin):
    for place, (name, expected) in enumerate((("first", 60.0), ("second", None), ("third", 5.0)), 1):
        run = runs.create(name, "", {"settings": {}})
        turns.join(run, expected)
        assert runs.place(run) == place
    busy = runs.create("busy", "", {"settings": {}})
    busy.write_status("running", step=1, total=2)
    assert [seconds for _, seconds in runs.expected()] == [None, None, None]
    busy.write_status("running", step=1, total=2, eta_s=30)
    assert [(run.name, seconds) for run, seconds in runs.expected()] == [("first", 30), ("second", 90), ("third", None)]


def test_how_long_a_training_takes_is_told_by_what_the_same_data_took(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}")
    before = TrainConfig(data="rows.jsonl", model="m", epochs=2.0)
    for name, seconds, state in (("older", 10.0, "finished"), ("newer", 40.0, "finished"), ("cut", 99.0, "stopped")):
        known = {"settings": before.to_json(), "data": {"sizes": {"train": 80}}}
        runs.create(name, "", known).write_status(state, step=20, total=20, steps=20, seconds=seconds)
        os.utime(run_of(name).path / "config.json", (seconds, seconds))
    asked = dataclasses.replace(before, data=str(tmp_path / "rows.jsonl"), epochs=3.0, learning_rate=1e-3)
    assert turns.usual_seconds(asked) == 60.0
    assert turns.usual_seconds(dataclasses.replace(asked, max_steps=5)) == 40.0 * 5 * 8 / 160
    assert turns.usual_seconds(dataclasses.replace(asked, max_minutes=3.0)) == 180.0
    for other in ({"data": "others.jsonl"}, {"model": "n"}, {"method": "full"}, {"max_examples": 8}):
        assert turns.usual_seconds(dataclasses.replace(asked, **other)) is None
    (home / "runs" / "newer" / "config.json").write_text("{")
    assert turns.usual_seconds(asked) == 15.0


def test_a_run_that_waits_trains_on_what_was_named_wherever_it_goes_on(home, tmp_path, monkeypatch):
    for name in ("a.csv", "b*2.csv", "model/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for number, (data, kept) in enumerate(
        [
            ("a.csv", f"{tmp_path}/a.csv"),
            (
                "a.csv*2 + support_tickets*0.5 + b*2.csv",
                f"{tmp_path}/a.csv*2 + support_tickets*0.5 + {tmp_path}/b*2.csv",
            ),
            ("owner/name:subset:train", "owner/name:subset:train"),
        ]
    ):
        run = turns.new_run(TrainConfig(data=data, name=f"r{number}", model="model"))
        settings = run.config()["settings"]
        assert (settings["data"], settings["model"]) == (kept, f"{tmp_path}/model")
    assert turns.new_run(TrainConfig(data="a.csv")).config()["settings"]["model"] == TrainConfig(data="a").model


def test_an_export_and_a_training_that_reads_its_data_are_waited_for(begin, monkeypatch):
    """They hold the lock and have no folder."""
    monkeypatch.setattr(lock, "STARTING_S", 0.05)
    with lock.alone():
        begin("waits")
        with pytest.raises(UserError, match="Another process is getting a training ready"):
            train(TrainConfig(data="d"), wait=False)
        assert line() == [("waits", 1)] and runs.training() == []
    wait_for_state("waits", "running")


def test_the_command_line_waits_and_ctrl_c_leaves_nothing(begin, home):
    begin("first")
    wait_for_state("first", "running")
    words = ["--data", "nothing", "--name", "mine", "--json"]
    command = [sys.executable, "-m", "sftdemo", "train", *words]
    refused = subprocess.run([*command, "--no-wait"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1 and "Run first is still training" in refused.stderr and refused.stdout == ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr
        place = waiting.stderr.readline()
        assert "Run mine waits for its turn: place 1 in the queue, behind first." in place
        libraries = Path(f"/proc/{waiting.pid}/maps")
        assert not libraries.exists() or "torch" not in libraries.read_text()
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, err.strip()) == (130, "", "sftdemo: stopped.")
    assert [path.name for path in (home / "runs").iterdir()] == ["first"]
