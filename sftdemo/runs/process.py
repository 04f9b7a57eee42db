"""Processes told apart: by pid, start and boot, whatever the clock of the wall does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def process_start(pid: int) -> float | None:
    """When the process began, in seconds since the machine did, or None if it is gone; tells a reused pid apart.

    The clock of the wall is no part of it, so a step of that clock changes nothing.
    """
    try:
        # After the name, which may hold anything: the state, and as the 20th field the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _process_start_elsewhere(pid)


def _process_start_elsewhere(pid: int) -> float | None:
    """The same where there is no /proc."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(round(process.create_time() - psutil.boot_time(), 2))
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return 0.0  # somebody else's process: not one of ours


def boot_id() -> str:
    """What the system calls this boot; after a restart pids and start times may come again. "" where it has no name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether the process of that `pid`, `process_start` and `boot_id` still runs."""
    began = process_start(process["pid"]) if process.get("pid") else None
    return began is not None and began == process.get("process_start") and process.get("boot_id", "") in ("", boot_id())


def identity(pid: int) -> dict[str, Any]:
    """What tells the process from any other, now and after a restart of the machine."""
    return {"pid": pid, "process_start": process_start(pid), "boot_id": boot_id()}
