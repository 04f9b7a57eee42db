"""The log `sftdemo`, and the `Reporter` by which long work tells how it is going."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from sftdemo import stages
from sftdemo.stages import Stage

LOG = logging.getLogger("sftdemo")
PLAIN = "%(message)s"  # for a person at the command line
FOR_OPERATORS = "%(asctime)s %(levelname)s %(message)s"


class Reporter:
    """What long work tells its caller and asks of it. A subclass shows what it cares for; by itself, what is said goes to
    the log (seen only where somebody listens), and nothing stops."""

    def info(self, text: str) -> None:
        """One line on what is being done or was found."""
        LOG.info(text)

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        """Long work entered a stage, or is so far in it: `done` of `total` bytes, batches, steps or questions, or 0 where
        that isn't known. By itself the beginning of a stage goes to the log."""
        if not done:
            LOG.info("%s …", stages.sentence(name, done, total))

    def prefilled(self, prompts: int) -> None:
        """So many prompts of an evaluation have been read: a big model reads for minutes before it answers."""

    def answered(self, rows: int, total: int) -> None:
        """So many of an evaluation's rows have their answers; once at the beginning, too."""

    def asking(self, system: str) -> None:
        """From here on another system answers an evaluation's rows, from the first one again."""

    def trained(self, row: Mapping[str, Any]) -> None:
        """A training has logged a step: the row of metrics.jsonl, with `total` steps and `eta_s`."""

    def should_stop(self) -> bool:
        """Asked at every step: whether to end early and keep what there is."""
        return False

    def raise_if_stopped(self) -> None:
        """Raise KeyboardInterrupt where the work should end: asked between stages of what keeps nothing."""
        if self.should_stop():
            raise KeyboardInterrupt


class Quiet(Reporter):
    """Says nothing, and stops where another would."""

    def __init__(self, other: Reporter) -> None:
        self.other = other

    def info(self, text: str) -> None:
        """Nothing."""

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        """Nothing."""

    def should_stop(self) -> bool:
        return self.other.should_stop()


TO_LOG = Reporter()


class JsonLines(logging.Formatter):
    """A record as one JSON object a line: time (UTC), level, message, and `traceback` where something broke."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{moment}.{record.msecs:03.0f}Z", "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Stderr(logging.Handler):
    """Writes to whatever stderr is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):  # the terminal is gone; the work goes on
            self.handleError(record)


_stderr = _Stderr()


def show(style: str = PLAIN) -> None:
    """From now on this process shows the log on stderr, in that style, or as JSON lines with SFTDEMO_LOG=json."""
    _stderr.setFormatter(JsonLines() if os.environ.get("SFTDEMO_LOG") == "json" else logging.Formatter(style))
    LOG.addHandler(_stderr)  # the same one is added once
    LOG.setLevel(logging.INFO)
    LOG.propagate = False  # a library that configures the root logger would show each line again
