"""A stand-in for the package `spaces` as it is on ZeroGPU (0.51), for tests: its rules, without its GPU.

A task runs in a forked process, in a thread of it; arguments, results and items are pickled; the process is kept for the
next call while it lives; an exception comes back as an error of the package's own that hides its text; a call that takes
longer than its duration is killed; a closed generator stops its task at the next item.
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any

FORK = multiprocessing.get_context("fork")
forked = False


class Error(Exception):
    """As gr.Error, which the package raises."""


class Worker:
    def __init__(self, task: Any, generates: bool) -> None:
        self.calls, self.answers = FORK.SimpleQueue(), FORK.SimpleQueue()
        self.stop = FORK.Event()
        self.process = FORK.Process(target=self.run, args=(task, generates), daemon=True)
        self.process.start()

    def run(self, task: Any, generates: bool) -> None:
        global forked
        forked = True
        while True:
            arguments, named = pickle.loads(self.calls.get())
            self.stop.clear()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self.iterate if generates else self.call, task, arguments, named).result()

    def call(self, task: Any, arguments: Any, named: Any) -> None:
        try:
            self.answers.put(pickle.dumps(("ok", task(*arguments, **named))))
        except Exception as error:  # noqa: BLE001
            self.answers.put(pickle.dumps(("error", type(error).__name__)))

    def iterate(self, task: Any, arguments: Any, named: Any) -> None:
        items = task(*arguments, **named)
        try:
            for item in items:
                if self.stop.is_set():
                    items.close()
                    break
                self.answers.put(pickle.dumps(("ok", item)))
        except Exception as error:  # noqa: BLE001
            self.answers.put(pickle.dumps(("error", type(error).__name__)))
        self.answers.put(pickle.dumps(("end", None)))

    def receive(self, deadline: float) -> tuple[str, Any]:
        while self.answers.empty():
            if time.monotonic() > deadline or not self.process.is_alive():
                self.process.kill()
                raise Error("GPU task aborted")
            time.sleep(0.005)
        kind, value = pickle.loads(self.answers.get())
        if kind == "error":
            raise Error(value)
        return kind, value


def GPU(task: Any = None, *, duration: int = 60, size: str | None = None) -> Any:
    if task is None:
        return lambda task: GPU(task, duration=duration, size=size)
    duration = int(os.environ.get("STANDIN_DURATION", duration))
    kept: list[Worker] = []

    def begin(generates: bool, arguments: Any, named: Any) -> tuple[Worker, float]:
        if log := os.environ.get("STANDIN_LOG"):
            with Path(log).open("a") as file:
                file.write(f"{task.__name__}\n")
        if os.environ.get("STANDIN_REFUSES"):
            raise Error("You have exceeded your GPU quota")
        worker = kept.pop() if kept and kept[-1].process.is_alive() else Worker(task, generates)
        worker.calls.put(pickle.dumps((arguments, named)))
        return worker, time.monotonic() + duration

    @wraps(task)
    def call(*arguments: Any, **named: Any) -> Any:
        if forked:
            return task(*arguments, **named)
        worker, deadline = begin(False, arguments, named)
        value = worker.receive(deadline)[1]
        kept.append(worker)
        return value

    @wraps(task)
    def generate(*arguments: Any, **named: Any) -> Any:
        if forked:
            yield from task(*arguments, **named)
            return
        worker, deadline = begin(True, arguments, named)
        while True:
            kind, value = worker.receive(deadline)
            if kind == "end":
                kept.append(worker)
                return
            try:
                yield value
            except GeneratorExit:
                worker.stop.set()
                raise

    return generate if inspect.isgeneratorfunction(task) else call
