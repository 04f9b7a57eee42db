"""Work in a thread of its own, which tells its stages and keeps what went wrong."""

from __future__ import annotations

import contextvars
import threading
import time
from dataclasses import dataclass, field

from sftdemo.errors import UserError, unexpected
from sftdemo.log import LOG, Reporter
from sftdemo.runs import Run
from sftdemo.schema.run import StageState
from sftdemo.stages import Stage


@dataclass
class Staged(Reporter):
    """Keeps the stage that work has told last, as `at`."""

    at: StageState | None = field(default=None, init=False)

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        super().stage(name, done, total)
        began = self.at["began"] if self.at and self.at["name"] == name else time.time()
        self.at = {"name": name, "done": done, "total": total, "began": began}


@dataclass
class Job(Staged):
    """Work on a run's model in a thread of its own, so that a closed page loses nothing."""

    run: Run
    error: str = field(default="", init=False)
    thread: threading.Thread | None = field(default=None, init=False)

    @property
    def active(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def start(self) -> None:
        begun_by = (
            contextvars.copy_context()
        )  # the Hub is asked as whoever began it, and only the owner's token is at hand
        self.thread = threading.Thread(
            target=begun_by.run, args=(self.work,), name=type(self).__name__.lower(), daemon=True
        )
        self.thread.start()

    def work(self) -> None:
        """Work; what goes wrong is kept for the page."""
        name = f"{type(self).__name__} of {self.run.name}"
        try:
            self._work()
        except UserError as error:
            LOG.warning("%s ended: %s", name, error)
            self.error = error.text
        except Exception as error:  # noqa: BLE001 (a thread has nobody above it to tell)
            LOG.exception("%s failed", name)
            self.error = unexpected(error)

    def _work(self) -> None:
        raise NotImplementedError
