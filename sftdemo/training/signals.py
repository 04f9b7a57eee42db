"""SIGINT and SIGTERM while a training runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sftdemo.system import distributed


class Interruption:
    """SIGINT and SIGTERM: before training polls `asked` they interrupt at once, from then on the first one only asks.

    Among several processes every one asks: the launcher may pass on what the terminal has sent already.
    """

    def __init__(self) -> None:
        self.asked = False
        self.polled = False

    def handle(self, number: int, frame: Any) -> None:
        if not self.polled or (self.asked and distributed.count() == 1):
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def caught(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
