"""What the machine gives: its arithmetic, the memory that is free within every limit, and what was used so far."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
MAPPED = 2**25  # bytes; larger blocks are mapped and given back alone
KEPT = 2**28  # bytes free at the heap's end that aren't given back
MOST_KEPT = 2**31 - 1  # in training; more glibc can't be told
BUILT = 256  # products that oneDNN keeps built; a training step of 8 rows asks for less than half of them
PIECE = 2**24  # bytes of the heap touched at once
CGROUPS = Path("/sys/fs/cgroup")


def on_gpu() -> bool:
    """Whether models live on a CUDA device; torch is loaded for the answer only where there may be one."""
    if "torch" not in sys.modules and not Path("/proc/driver/nvidia").exists():
        return False
    import torch

    return torch.cuda.is_available()


def size_of(precision: str) -> int:
    """Bytes of a number in training, torch not loaded: as `models.training_precision` will decide."""
    if precision != "auto":
        return 2 if precision == "bfloat16" else 4
    if "torch" in sys.modules or on_gpu():
        from sftdemo import models

        return models.training_precision("auto")[0].itemsize
    flags = Path("/proc/cpuinfo")
    words = set(flags.read_text(encoding="utf-8").split()) if flags.exists() else set()
    return 2 if "amx_bf16" in words else 4  # AVX512-BF16 alone is slow on some; what isn't known counts as the larger


def shortest(ways: dict[str, Callable[[], object]], trials: int) -> dict[str, float]:
    """The least time of each way, in seconds; they take turns, so that what else goes on here slows all."""
    found = dict.fromkeys(ways, math.inf)
    for _ in range(trials):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            found[name] = min(found[name], time.perf_counter() - began)
    return found


def free() -> int:
    """Bytes that are free now: of the GPU, or of the host within the limits of this process's control groups."""
    if on_gpu():
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(min(psutil.virtual_memory().available, group_room()))


def group_room(groups: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> float:
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


def keep_freed_memory(kept: int = KEPT) -> None:
    """Let glibc keep what tensors free for the next ones, where it is: fetched anew from the system, each page costs a fault.

    The first passes over prompts took 1.8 s instead of 1.2 s, and training steps 3 % more.
    """
    if mallopt := _libc("mallopt"):
        mallopt(M_MMAP_THRESHOLD, MAPPED)
        mallopt(M_TRIM_THRESHOLD, kept)


def keep_few_products() -> None:
    """Let oneDNN keep fewer of the bfloat16 products that it builds, one for each length of a batch or row.

    36 batches of as many lengths took 0.2 GB more with its 1,024. The environment overrules it; without effect once
    anything was built.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(BUILT))


def warm_heap(size: int) -> Future[None] | None:
    """Let one heap serve all threads and keep what is freed, and fetch it in the background until `size` bytes are free.

    Pages that a virtual machine never touched cost 6 to 14 microseconds each: a training's first forward pass took 3.5 s
    where the next took 1.5. Until `give_back`, up to 2 GiB of what is freed stays with the process.
    """
    mallopt, malloc, release = map(_libc, ("mallopt", "malloc", "free"))
    if not mallopt:
        return None
    malloc.restype = ctypes.c_void_p
    mallopt(M_ARENA_MAX, 1)
    keep_freed_memory(MOST_KEPT)

    def touch() -> None:
        pieces = []
        for _ in range(min(size, MOST_KEPT - PIECE) // PIECE):
            if not (piece := malloc(ctypes.c_size_t(PIECE))):
                break
            ask_for_huge_pages(piece, PIECE)
            ctypes.memset(piece, 0, PIECE)
            pieces.append(piece)
        for piece in pieces:
            release(ctypes.c_void_p(piece))

    return _toucher().submit(touch)


@cache
def _toucher() -> ThreadPoolExecutor:
    """Always the same thread: another one might be given another heap."""
    return ThreadPoolExecutor(1)


def give_back() -> None:
    """Return what the heap keeps to the system."""
    if trim := _libc("malloc_trim"):
        trim(ctypes.c_size_t(0))


def _libc(name: str) -> Any:
    """A function of Linux's C library, if it is there; musl has no mallopt."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def ask_for_huge_pages(address: int, size: int) -> None:
    """Ask Linux to back memory that is written next with pages of 2 MiB: weights are read in order, and with small pages
    each 4 KiB of them costs a look into the page table (21.2 against 20.3 ms for two rows through all weights of 135M).
    """
    if madvise := _libc("madvise"):
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        if (whole := address + size - first) > 0:
            madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), mmap.MADV_HUGEPAGE)


def resident() -> int:
    """Bytes of this process that lie in memory now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def used_peak() -> int:
    """The most bytes this process has held so far: on a GPU in tensors, else resident."""
    if on_gpu():
        import torch

        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
