"""How far a training is: told to whoever listens, and kept in the run's status.json for all other processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sftdemo import runs
from sftdemo.log import Reporter
from sftdemo.schema.run import StageState
from sftdemo.stages import Stage

STATUS_SECONDS = 0.5  # how often status.json is written at most, within a stage


class Progress(Reporter):
    """Passes on what a training tells to another reporter, and writes the status of its run, once it has one."""

    def __init__(self, other: Reporter) -> None:
        self.other = other
        self._run: runs.Run | None = None
        self._state: str = "running"
        self._values: Mapping[str, Any] = {}
        self._stage: StageState | None = None
        self._written = 0.0

    def info(self, text: str) -> None:
        self.other.info(text)

    def trained(self, row: Mapping[str, Any]) -> None:
        self.other.trained(row)

    def should_stop(self) -> bool:
        return self.other.should_stop()

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        self.other.stage(name, done, total)
        self._write(self._enter(name, done, total))

    def begin(self, run: runs.Run, values: Mapping[str, Any]) -> None:
        """From now on write this run's status, with these values; only the first process of a training does."""
        self._run, self._values = run, values
        self._write(now=True)

    def step(self, state: str, values: Mapping[str, Any], now: bool = False) -> None:
        """A step of the training; `values`, with `step` and `total`, replace what the status had before."""
        self._state, self._values = state, values
        if is_new := self._enter("training", values["step"], values["total"]):
            self.other.stage("training", values["step"], values["total"])
        self._write(is_new or now)

    def _enter(self, name: Stage, done: int, total: int) -> bool:
        """Whether it is another stage than before."""
        is_new = self._stage is None or self._stage["name"] != name
        began = time.time() if self._stage is None or is_new else self._stage["began"]
        self._stage = {"name": name, "done": min(done, total) if total else done, "total": total, "began": began}
        return is_new

    def _write(self, now: bool) -> None:
        if self._run and (now or time.monotonic() - self._written > STATUS_SECONDS):
            self._written = time.monotonic()
            stage: dict[str, Any] = {"stage": self._stage} if self._stage else {}
            self._run.write_status(self._state, **self._values, **stage)
