"""How a training that runs is told to stop: SIGINT, SIGTERM, the file `stop` in its folder, the end of its time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sftdemo.log import LOG
from sftdemo.system import distributed

PATIENCE = 3  # as many signals end a step in its middle
POLL_S = 0.2


def interrupt_main() -> None:
    """SIGINT to the main thread itself, so that what it waits for ends too."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


class Interruption:
    """What a training was told from outside, and what it does about it by the phase it is in.

    While it prepares a word interrupts it at once. While it trains it is asked, and stops after its step; so many signals
    as PATIENCE end that step. While it saves it isn't interrupted: what it saves is what was asked for. Among several
    processes every one asks: the launcher may pass on what the terminal has sent already.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        """`time_limit` is in seconds from `begin`."""
        self.signals = 0
        self.terminated = False  # by SIGTERM, after which little time is left
        self.phase = "preparing"  # then "training", "saving"
        self.time_limit = time_limit
        self.begin()

    def begin(self) -> None:
        """It is this training's turn: its time counts from now on."""
        self.began = time.monotonic()
        self.ends = None if self.time_limit is None else self.began + self.time_limit

    @property
    def asked(self) -> bool:
        return self.signals > 0

    def out_of_time(self, needed: float = 0.0) -> bool:
        """Whether there are no `needed` seconds left."""
        return self.ends is not None and time.monotonic() + needed >= self.ends

    def handle(self, number: int, frame: Any) -> None:
        self.signals += 1
        self.terminated = self.terminated or number == signal.SIGTERM
        impatient = self.phase == "training" and self.signals >= PATIENCE and distributed.count() == 1
        if self.phase == "preparing" or impatient:
            raise KeyboardInterrupt
        if self.phase == "training" and self.signals == 2:
            LOG.info(
                "Stopping after this step; once more ends it at once, and what came after the last checkpoint is lost."
            )

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Signals go to `handle`, where this is the thread that gets them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def hears(self, stop: Path) -> Iterator[None]:
        """While it prepares, the file `stop` interrupts as a signal does; loading a model asks nobody in between."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        over = threading.Event()

        def watch() -> None:
            while not over.wait(POLL_S):
                if self.phase == "preparing" and stop.exists():
                    interrupt_main()
                    return

        watcher = threading.Thread(target=watch, name="stop", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
