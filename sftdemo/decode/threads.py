"""The threads that take part in steps."""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import Any

from sftdemo.decode import program


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
