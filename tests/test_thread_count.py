"""The number of threads follows what steps take, by made-up clocks; a training goes by it and learns the same."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from conftest import label_rows

from sftdemo import files, runs
from sftdemo.config import TrainConfig
from sftdemo.system.thread_count import LONGEST, PATIENCE, Others, ThreadCount
from sftdemo.training import step_threads
from sftdemo.training.train import train

QUIET, BUSY = {1: 12.0, 2: 6.0}, {1: 12.0, 2: 20.0}


class Machine:
    """Steps that take so many seconds with each number of threads, and how many cores others use."""

    def __init__(self, threads: int, means_of: int = 10, told: bool = True) -> None:
        self.others = 0.0
        self.count = ThreadCount(threads, means_of, others=(lambda: self.others) if told else None)
        self.means_of = means_of

    def steps(self, means: int, seconds: dict[int, float], kind: int = 2, amount: float = 1.0) -> list[int]:
        """The numbers of threads that the steps of so many means had."""
        used = []
        for _ in range(means * self.means_of):
            used.append(self.count.now)
            self.count.took(kind, seconds[self.count.now] * amount, amount)
        return used


def test_steps_have_fewer_threads_while_another_process_holds_one_up():
    machine = Machine(2, told=False)
    assert set(machine.steps(3 * PATIENCE, QUIET)) == {2}, "nothing is tried while all is well"
    assert machine.count.chosen == 2 and machine.steps(2, BUSY)[-1] == 1 and machine.count.chosen == 1
    used = machine.steps(4 * PATIENCE, BUSY)
    assert 0 < used.count(2) * PATIENCE <= len(used), "and now and then all are tried again"
    machine.steps(4 * PATIENCE, QUIET)
    assert machine.count.chosen == 2
    assert set(machine.steps(PATIENCE, {1: 90.0, 2: 60.0}, kind=16)) == {2}, "more rows aren't a slower machine"
    assert ThreadCount(1, 1)._other(0.0) == 1


def test_who_was_there_from_the_start_is_noticed_too():
    machine = Machine(2, means_of=2)
    machine.others = 0.7
    assert machine.steps(6, BUSY) == [2, 2, 1, 1] + [1] * 8


def test_a_free_core_is_used_at_once():
    machine = Machine(2, means_of=2)
    machine.others = 0.7
    machine.steps(40, BUSY)
    assert machine.count.chosen == 1
    machine.others = 0.0
    machine.steps(3, QUIET)
    assert machine.count.chosen == 2 and set(machine.steps(100, QUIET)) == {2}


def test_trials_in_vain_become_rare():
    """Others take what one thread less doesn't bring back: the loss stays under 2 %."""
    machine = Machine(2, means_of=2)
    machine.others = 0.5
    machine.steps(4 * LONGEST, QUIET)
    used = machine.steps(4 * LONGEST, QUIET)
    assert 0 < used.count(1) / len(used) <= 1 / LONGEST


@pytest.mark.parametrize("busy", [1, 3])
def test_many_cores_give_up_as_many_threads_as_are_held_up(busy):
    def seconds(threads: int) -> float:
        return (1.0 if threads <= 8 - busy else 2.0) / threads  # whoever shares a core with another takes twice as long

    machine = Machine(8, means_of=2)
    machine.others = float(busy)
    machine.steps(20 * PATIENCE, {n: seconds(n) for n in range(1, 9)})
    assert machine.count.chosen == 8 - busy


def test_steps_of_unlike_length_are_compared_by_token():
    machine = Machine(2, means_of=1)
    for amount in (500.0, 80.0, 900.0):
        assert set(machine.steps(5, QUIET, amount=amount)) == {2}


def test_others_are_told_from_ourselves():
    """What a process beside this one uses counts, what this one uses doesn't: its own work is a small part of the other's."""
    others, own = Others(), time.process_time()
    began = time.perf_counter()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while time.perf_counter() - began < 0.5:
            sum(range(10_000))
    finally:
        busy.kill()
        busy.wait()
    seconds, used = time.perf_counter() - began, time.process_time() - own
    cores = others._last[3]
    assert 0.2 < others() <= cores - used / seconds + 0.1


@pytest.mark.slow
def test_a_training_goes_by_what_its_steps_take(tiny, home, tmp_path, monkeypatch):
    """Threads change between its steps, its losses don't but for rounding, and what was set before is set again."""
    data = tmp_path / "moods.jsonl"
    files.write_jsonl(data, label_rows(60))
    used: list[int] = []

    class Alternating(ThreadCount):
        def took(self, kind: int, seconds: float, amount: float = 1.0) -> None:
            assert torch.get_num_threads() == self.now and seconds > 0 and amount > 0
            used.append(self.now)
            self.now = self.chosen = 3 - self.now

    def losses(name: str) -> list[float]:
        train(TrainConfig(data=str(data), model=tiny, name=name, precision="float32"))
        return [row["loss"] for row in runs.find(name).metrics() if "loss" in row]

    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(step_threads, "ThreadCount", Alternating)
        torch.set_num_threads(2)
        fixed = losses("fixed")
        assert not used, "OMP_NUM_THREADS is set in tests"
        monkeypatch.delenv("OMP_NUM_THREADS")
        followed = losses("followed")
        assert used == [2, 1] * (len(fixed) // 2) + [2] * (len(fixed) % 2) and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert followed == pytest.approx(fixed, rel=1e-5)


def test_only_what_shares_cores_is_followed(monkeypatch):
    """Processes of one training wait for each other at every step: none has a number of its own."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with step_threads.follow_steps(None):
        pass  # without a trainer nothing can be added
