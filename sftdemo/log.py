"""The log `sftdemo`: what every report goes to, whatever else a caller does with it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

LOG = logging.getLogger("sftdemo")
PLAIN = "%(message)s"  # for a person at the command line
FOR_OPERATORS = "%(asctime)s %(levelname)s %(message)s"


def to_log(text: str) -> None:
    """A report as a line of the log; shown only where somebody listens."""
    LOG.info(text)


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
