"""SIGTERM, as at a restart of the container, and Ctrl-C: trainings save and end, evaluations keep their rows, then the app ends."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from sftdemo.log import LOG
from sftdemo.ui import work
from sftdemo.verbs import jobs

GRACE_SECONDS = 8.0  # containers are killed ten seconds after they were told
POLL_SECONDS = 0.1
STATUS = 128 + signal.SIGTERM


@contextlib.contextmanager
def saving(last: Callable[[float], None] = lambda seconds: None) -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C end the app once its work is saved; `last` is called then, with the seconds that are left."""

    def save() -> None:
        LOG.info("Told to end; saving what runs.")
        deadline = time.monotonic() + GRACE_SECONDS
        stop_work(GRACE_SECONDS)
        last(max(0.0, deadline - time.monotonic()))

    def end(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whoever can't wait says it twice
        save()
        LOG.info("The app has ended.")
        os._exit(STATUS)  # threads that still answer would be waited for

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        save()
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # begun in the background by a shell
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_work(seconds: float) -> None:
    """Have trainings and the evaluation save and stop, and wait for them so long."""
    deadline = time.monotonic() + seconds
    evaluation = work.evaluation()
    if evaluation:
        evaluation.stop.set()
    jobs.end_trainings()  # within a time of its own
    while evaluation and evaluation.active and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
