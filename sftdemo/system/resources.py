"""Memory and disk: what is free within every limit, and what was used."""

from __future__ import annotations

import math
import re
import shutil
import sys
from pathlib import Path

from sftdemo.errors import Text, UserError
from sftdemo.system import zero_gpu

CGROUPS = Path("/sys/fs/cgroup")


def on_gpu() -> bool:
    """Whether models live on a CUDA device; torch is loaded for the answer only where there may be one."""
    if zero_gpu.without_gpu():
        return False
    if "torch" not in sys.modules and not Path("/proc/driver/nvidia").exists():
        return False
    import torch

    return torch.cuda.is_available()


def free() -> int:
    """Bytes that are free now: of the GPU, or of the host within the limits of this process's control groups."""
    if on_gpu():
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(min(psutil.virtual_memory().available, cgroup_headroom()))


def cgroup_headroom(groups: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> float:
    """Bytes left under the limits of the process's control groups, version 1 or 2; infinite where there are none.

    In a container the host's own figures say nothing, and the path may be the host's, so the root is asked too.
    """
    room = math.inf
    for line in groups.read_text(encoding="utf-8").splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used, cache = (
                root / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top) and (folder / limit).exists():
                most = (folder / limit).read_text().strip()
                if most != "max":
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    taken = int((folder / used).read_text()) - int(stat.get(cache, 0))
                    room = min(room, int(most) - taken)
    return room


def resident() -> int:
    """Bytes of this process that lie in memory now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def used_peak() -> int:
    """The most bytes this process has held so far: on a GPU in tensors, else resident."""
    if on_gpu():
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resident_peak()


def resident_peak() -> int:
    """The most bytes of this process that have lain in memory at once."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    status = Path("/proc/self/status")
    if own := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8") if status.exists() else ""):
        return 1024 * int(own[1])  # Linux lets ru_maxrss begin at the peak of the process that started this one
    import resource

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_disk(folder: Path, needed: int, what: Text) -> None:
    """Refuse before anything is written when the disk can't hold it."""
    while not folder.exists():
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            "{what} needs about {needed} MB under {folder}, and {free} MB are free; make room, or set SFTDEMO_HOME to a "
            "larger disk.",
            what=what,
            needed=math.ceil(needed / 10**6),
            folder=folder,
            free=free // 10**6,
        )
