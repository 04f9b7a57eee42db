"""How many threads work in steps is given: as many as make it fastest beside what else runs on the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SLOW = 1.4  # times the best mean of like steps: something else uses the processors
CROWDED = 0.25  # of a core that others use: one thread less may be faster, since all wait for the one that is held up
BETTER = 0.95  # of the mean with another number of threads
PATIENCE, LONGEST = 8, 64  # means between two trials; twice as many after each in vain, up to the second


class Others:
    """How many of the cores that we may use other processes, or a virtual machine's host, have used since the last look."""

    def __init__(self) -> None:
        self._last = self._look()

    def __call__(self) -> float:
        (began, idle, own, _), self._last = self._last, self._look()
        now, idle_now, own_now, cores = self._last
        seconds = now - began
        return cores - (idle_now - idle + own_now - own) / seconds if seconds else 0.0

    @staticmethod
    def _look() -> tuple[float, float, float, int]:
        """The time, idle seconds of all cores and our own seconds until now, and how many cores that are."""
        import psutil

        times = psutil.cpu_times(percpu=True)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
        ours = [core for index, core in enumerate(times) if index in allowed] or times
        idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in ours)
        return time.perf_counter(), idle, time.process_time(), len(ours)


class ThreadCount:
    """One thread less where another process holds one up, since all wait for that; one more when that is faster again.

    Nothing is tried while steps take about what they took at best and nobody else is at work.
    """

    def __init__(self, most: int, steps: int, seconds: float = 0.0, others: Callable[[], float] | None = None) -> None:
        """Means over so many steps and seconds, at least, are compared; `others` tells how many cores are others'."""
        self.most = self.chosen = self.now = most
        self._least, self._others = (steps, seconds), others
        self._kind = 0
        self._steps, self._seconds, self._amount = 0, 0.0, 0.0
        self._wait, self._rest = 0, PATIENCE
        self._best: dict[int, float] = {}  # by kind
        self._mean = 0.0  # with the chosen number
        self._change = 1

    def took(self, kind: int, seconds: float, amount: float = 1.0) -> None:
        """What a step with `now` threads took for so much work; means of one kind alone are compared."""
        if kind != self._kind:
            self._begin(self.chosen)
            self._kind = kind
        self._steps, self._seconds, self._amount = self._steps + 1, self._seconds + seconds, self._amount + amount
        steps, least = self._least
        if self._steps >= steps and self._seconds >= least and self._amount:
            self._begin(self._choose(self._seconds / self._amount))

    def _begin(self, threads: int) -> None:
        self.now = threads
        self._steps, self._seconds, self._amount = 0, 0.0, 0.0

    def _choose(self, mean: float) -> int:
        """How many threads the next steps are given."""
        others = self._others() if self._others else None
        if self.now != self.chosen:
            better = mean < BETTER * self._mean
            if better:
                self.chosen, self._mean = self.now, mean
            self._wait = self._rest = PATIENCE if better else min(2 * self._rest, LONGEST)
            return self.chosen
        self._mean, self._wait = mean, self._wait - 1
        best = self._best[self._kind] = min(mean, self._best.get(self._kind, mean))
        fewer = self.chosen < self.most
        if fewer and others is not None and others < CROWDED:
            return self.most  # the cores are free again
        crowded = mean > SLOW * best or (others is not None and others >= CROWDED)
        return self._other(others or 0.0) if self._wait <= 0 and (fewer or crowded) else self.chosen

    def _other(self, others: float) -> int:
        """As many as others leave; where it has these, one less or one more, in turns where there are both."""
        left = max(1, self.most - round(others))
        if others and left != self.chosen:
            return left
        self._change = -self._change
        counts = (self.chosen + self._change, self.chosen - self._change)
        return next((count for count in counts if 1 <= count <= self.most), self.chosen)
