"""One training at a time in a home, whichever process asks: the command line, the page of another server, a notebook."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.runs import Run

NAME = "training.lock"
STARTING_S = 5.0  # a start from the page holds the lock for a moment, until its process has it
CHILD_S = 30.0


@contextmanager
def alone(run: Run | None = None) -> Iterator[None]:
    """Hold the home's lock, which the system takes back however this process ends.

    `run` is the run that this process was started for, if any. Raises UserError that names who trains.
    """
    from filelock import FileLock, Timeout

    if _others(run):
        raise _busy(run)
    folder = runs.home()
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / NAME, timeout=CHILD_S if run else STARTING_S, thread_local=False)
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
        if new and [path.name for path in folder.iterdir()] in ([], [NAME]):  # refused before anything was written
            shutil.rmtree(folder)


def _others(run: Run | None) -> list[Run]:
    """The runs that train, but for this one."""
    return [other for other in runs.active() if run is None or other.path.resolve() != run.path.resolve()]


def _busy(run: Run | None) -> UserError:
    """Who trains. A training whose data are still being read has no folder yet."""
    if others := _others(run):
        return UserError(
            "Run {name} is still training (process {pid}); wait until it ends, or stop it first.",
            name=others[0].name,
            pid=others[0].status().get("pid"),
        )
    return UserError("Another process is getting a training ready, or a model is being exported; wait until it ends.")
