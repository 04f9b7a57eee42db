"""One measurement in a fresh process with a time limit: what it found, or in one line why it found nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARK = "RESULT "
SECONDS = 900


def environment(home: Path) -> dict[str, str]:
    """Offline (the model lies in a folder), silent, and with a home of its own."""
    quiet = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "DISABLE_VERSION_CHECK": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": str(ROOT), "SFTDEMO_HOME": str(home)}


def measure(
    task: str, spec: dict[str, Any], work: Path, python: str | Path = sys.executable, seconds: float = SECONDS
) -> dict[str, Any]:
    """Run benchmarks/tasks/<task>.py and return its JSON, or {"failed": reason}. Its log is work/<task>.log."""
    command = [str(python), "-m", f"benchmarks.tasks.{task}", json.dumps(spec)]
    log = work / f"{task}.log"
    with log.open("a", encoding="utf-8") as stderr:
        begin = stderr.tell()
        try:
            done = subprocess.run(
                command,
                cwd=work,
                env=environment(work / "home"),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {seconds:g} s"}
        except OSError as error:
            return {"failed": str(error)}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))  # type: ignore[no-any-return]
    said = log.read_text(encoding="utf-8", errors="replace")[begin:].strip().splitlines() or ["it said nothing"]
    return {"failed": f"exit status {done.returncode}: {said[-1].strip()[:200]}"}
