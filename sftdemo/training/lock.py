"""One training at a time in a home, whichever process asks: the command line, the page of another server, a notebook."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from sftdemo import runs
from sftdemo.errors import Text, UserError
from sftdemo.runs import Run
from sftdemo.runs.queue import QUEUE_NAME

NAME = "training.lock"
STARTING_S = 5.0  # an export waits so long for whoever looks whether it is its turn
CHILD_S = 30.0


class Busy(UserError):
    """Another process trains, or is about to."""


@contextmanager
def alone(run: Run | None = None) -> Iterator[None]:
    """Hold the home's lock, which the system takes back however this process ends.

    `run` is the run that this process was started for, if any. Raises Busy that names who trains.
    """
    if _others(run):
        raise _busy(run)
    with attempt(run, CHILD_S if run else STARTING_S):
        yield


@contextmanager
def attempt(run: Run | None = None, seconds: float = 0.0) -> Iterator[None]:
    """The same, where nobody is asked before the lock is there, at the latest after so many seconds."""
    from filelock import FileLock, Timeout

    folder = runs.home()
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / NAME, timeout=seconds, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise _busy(run) from None
    try:
        if _others(run):
            raise _busy(run)
        yield
    finally:
        lock.release()
        if new and {path.name for path in folder.iterdir()} <= {
            NAME,
            QUEUE_NAME,
        }:  # refused before anything was written
            shutil.rmtree(folder)


def _others(run: Run | None) -> list[Run]:
    """The runs that train, but for this one."""
    return [other for other in runs.training() if run is None or other.path.resolve() != run.path.resolve()]


def _busy(run: Run | None) -> Busy:
    """Who trains. A training whose data are still being read has no folder yet."""
    if others := _others(run):
        sentence = Text(
            "Run {name} is still training (process {pid}); wait until it ends, or stop it first.",
            name=others[0].name,
            pid=others[0].status().get("pid"),
        )
        return Busy(sentence)
    return Busy(Text("Another process is getting a training ready, or a model is being exported; wait until it ends."))
