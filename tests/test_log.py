"""The log `sftdemo` holds what is reported, and shows it once, where it was asked for."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sftdemo import log
from sftdemo.config import EvaluateConfig
from sftdemo.runs import create
from sftdemo.ui import work

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lines() -> list[logging.LogRecord]:
    """What is logged during the test."""
    kept: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = kept.append  # type: ignore[method-assign]
    level = log.LOG.level
    log.LOG.addHandler(handler)
    log.LOG.setLevel(logging.INFO)
    yield kept
    log.LOG.removeHandler(handler)
    log.LOG.setLevel(level)


def test_an_evaluation_that_fails_leaves_its_traceback_in_the_log(lines, home) -> None:
    run = create("broken", "", {"settings": {}})
    run.write_status("finished")
    run.model_path.mkdir()
    evaluation = work.Evaluation(run, EvaluateConfig(), 1)
    evaluation.work()
    assert evaluation.error
    assert lines[0].getMessage() == "Evaluating run broken."
    assert lines[-1].levelno >= logging.WARNING and "broken" in lines[-1].getMessage()


def test_python_stays_quiet_and_the_command_line_says_each_line_once() -> None:
    quiet = "from sftdemo.log import Reporter; Reporter().info('a line')"
    root = "import logging; logging.basicConfig(level=20)"
    shown = f"{root}; from sftdemo import log; log.show(); log.show(); log.LOG.info('a line')"
    for code, said in ((quiet, ""), (shown, "a line\n")):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", said)
    listened = f"{root}; {quiet}"
    done = subprocess.run([sys.executable, "-c", listened], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "INFO:sftdemo:a line\n"


def test_work_goes_on_when_the_terminal_is_gone() -> None:
    code = "import os; from sftdemo import log; log.show(); os.close(2); log.LOG.info('a line'); print('done')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_operators_get_json_lines():
    code = "from sftdemo import log; log.show(); log.LOG.info('all\\nwell');\ntry: 1/0\nexcept ZeroDivisionError: log.LOG.exception('not well')"
    environment = {**os.environ, "SFTDEMO_LOG": "json"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    first, second = map(json.loads, done.stderr.splitlines())
    assert first["message"] == "all\nwell" and first["level"] == "INFO" and first["time"].endswith("Z")
    assert second["level"] == "ERROR" and "ZeroDivisionError" in second["traceback"]
