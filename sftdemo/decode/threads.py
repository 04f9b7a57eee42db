"""The threads that take part in steps, and how many of them a step is given."""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import Any

from sftdemo.decode import program

STEPS = 10  # whose mean is compared
SLOW = 1.4  # times the best mean of as many rows: something else uses the processors
BETTER = 0.95  # of the mean with another number of threads
PATIENCE = 8  # means between two trials


class ThreadCount:
    """One thread less where another process holds one up, since all wait for that; one more when that is faster again.

    Nothing is tried while steps take about what they took at best.
    """

    def __init__(self, most: int) -> None:
        self.most = self.chosen = self.now = most
        self._rows = self._wait = 0
        self._seconds: list[float] = []
        self._best: dict[int, float] = {}  # by number of rows
        self._mean = 0.0  # with the chosen number
        self._change = 1

    def took(self, rows: int, seconds: float) -> None:
        """What a step of so many rows took with `now` threads."""
        if rows != self._rows:
            self._rows, self._seconds, self.now = rows, [], self.chosen
        self._seconds.append(seconds)
        if len(self._seconds) == STEPS:
            mean, self._seconds = sum(self._seconds) / STEPS, []
            self._choose(mean)

    def _choose(self, mean: float) -> None:
        if self.now != self.chosen:
            if mean < BETTER * self._mean:
                self.chosen, self._mean = self.now, mean
            self.now, self._wait = self.chosen, PATIENCE
            return
        self._mean, self._wait = mean, self._wait - 1
        best = self._best[self._rows] = min(mean, self._best.get(self._rows, mean))
        if self._wait <= 0 and (self.chosen < self.most or mean > SLOW * best):
            self.now = self._other()

    def _other(self) -> int:
        """One less or one more, in turns where there are both."""
        self._change = -self._change
        others = (self.chosen + self._change, self.chosen - self._change)
        return next((count for count in others if 1 <= count <= self.most), self.chosen)


class Workers:
    """Threads that take part in steps; the one that asks for a step is the first of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._wake = [threading.Lock() for _ in range(count - 1)]
        self._job: tuple[Any, ...] = ()
        for index, wake in enumerate(self._wake):
            wake.acquire()
            threading.Thread(target=self._work, args=(index + 1, wake), name="decode", daemon=True).start()

    def run(self, job: tuple[Any, ...], count: int) -> float:
        """Run a step to its end with so many threads; its seconds.

        The job's first entry is what its addresses are of, kept while any thread is at it.
        """
        with self._lock:
            self._job = job
            began = time.perf_counter()
            for wake in self._wake[: count - 1]:
                if wake.locked():
                    wake.release()
            program.run(0, *job[1:])
            self._job = ()
            return time.perf_counter() - began

    def _work(self, index: int, wake: threading.Lock) -> None:
        while True:
            wake.acquire()
            job = self._job
            if job:
                program.run(index, *job[1:])
            del job


@cache
def workers(count: int) -> Workers:
    """All models' threads, so many in all."""
    return Workers(count)
