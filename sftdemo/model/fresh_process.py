"""Asks an exported model in a process of its own, by the runtime that it is for."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.system import hub

SECONDS = 1800  # for the new process, which has the whole model to read
POLL_S = 0.3


def ask(
    question: dict[str, Any],
    path: Path,
    runtime: str,
    base: Path | None = None,
    quantization: str = "none",
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """The reply of an export (see `fresh_answers`); raises UserError with its last line where it can't be opened, and
    KeyboardInterrupt where it is told to stop."""
    asked = question | {
        "runtime": runtime,
        "path": str(path.resolve()),
        "base": str(base or ""),
        "quantization": quantization,
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "sftdemo.model.fresh_answers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=hub.environment(HF_HUB_OFFLINE="1"),
        cwd=Path(__file__).parents[2],
    )
    end, written = time.monotonic() + SECONDS, json.dumps(asked)
    with child:
        try:
            while True:
                try:
                    reply, errors = child.communicate(written or None, timeout=POLL_S)
                    break
                except subprocess.TimeoutExpired as error:
                    written = ""
                    if should_stop():
                        raise KeyboardInterrupt from error
                    if time.monotonic() > end:
                        raise UserError(
                            "The export did not answer within {minutes} minutes; nothing was kept.",
                            minutes=SECONDS // 60,
                        ) from error
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        lines = errors.strip().splitlines() or ["no reason given"]
        raise UserError(
            "The export can't be opened by {runtime}, so nothing was kept: {reason}",
            runtime=runtime,
            reason=lines[-1][:300],
        )
    result: dict[str, Any] = json.loads(reply)
    return result


def runtime_for(form: str) -> str:
    """Who opens an export of this format: for GGUF llama.cpp, where its Python package is there."""
    return "llama.cpp" if form.startswith("gguf") and importlib.util.find_spec("xllamacpp") else "transformers"
