"""Compiling the step's functions for this processor, once, by a child process behind the page; from then on they are on disk."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from sftdemo.log import LOG
from sftdemo.runs import home
from sftdemo.system import hub

SWITCH = "SFTDEMO_COMPILED"  # 0 leaves the step to torch
SECONDS = 600  # after which compiling is given up
REMEMBERED_SECONDS = 86_400  # of a failure, which memory that was short may have caused
_modules: dict[str, Any] = {}
_starting = threading.Lock()
_thread: threading.Thread | None = None


def begin() -> threading.Thread | None:
    """Compile or load, once, in the thread that is returned at once; None where that is switched off."""
    global _thread
    if os.environ.get(SWITCH) == "0":
        return None
    with _starting:
        if _thread is None:
            _thread = threading.Thread(target=_prepare, name="compile", daemon=True)
            _thread.start()
    return _thread


def ready() -> Any:
    """The module `step`, once it is there; None before, and where it can't be compiled."""
    return _modules.get("step")


def wait(seconds: float | None = None) -> bool:
    """Whether it is there, after waiting for it."""
    if thread := begin():
        thread.join(seconds)
    return ready() is not None


def _prepare() -> None:
    folder = home() / "kernels" / _version()
    try:
        if not (folder / "done").exists():
            _compile(folder)
        _modules["step"] = load(folder)
    except Exception as error:  # noqa: BLE001 (whatever a compiler meets, torch answers as it did)
        LOG.warning("The decode step isn't compiled: %s", " ".join(str(error).split())[-300:])


def _compile(folder: Path) -> None:
    """In a child, which may die of it; one at a time, and a failure isn't tried again by every process."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=SECONDS):
        if (folder / "done").exists():
            return
        failed = folder / "failed"
        if failed.exists() and time.time() - failed.stat().st_mtime < REMEMBERED_SECONDS:
            raise RuntimeError(failed.read_text("utf-8"))
        child = subprocess.run(
            [sys.executable, "-m", "sftdemo.decode", str(folder.resolve())],
            cwd=Path(__file__).parents[2],
            timeout=SECONDS,
            env=hub.without_secrets(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if child.returncode:
            reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
            failed.write_text(reason, "utf-8")
            raise RuntimeError(reason)


def load(folder: Path) -> Any:
    """The module `step`, whose functions numba keeps in a folder and compiles where they aren't there."""
    from numba.core import config as module

    config: Any = module

    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        return importlib.import_module("sftdemo.decode.step")
    finally:
        config.CACHE_DIR = before


def _version() -> str:
    """Of all that numba's files depend on: it looks for changes in the outermost function's file alone, by path and time."""
    from importlib.metadata import version

    import llvmlite.binding  # type: ignore[import-untyped]

    facts = [sys.version, version("numba"), llvmlite.binding.get_host_cpu_name()]
    facts += [llvmlite.binding.get_host_cpu_features().flatten()]
    facts += [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")]
    digest = hashlib.sha256("\n".join(facts).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        facts_of_file = path.stat()
        digest.update(f"{path} {facts_of_file.st_mtime_ns} {facts_of_file.st_size}".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
