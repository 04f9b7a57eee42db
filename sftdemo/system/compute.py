"""Device, threads and compute dtype; torch is imported only where it is asked."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sftdemo.errors import Text
from sftdemo.system import zero_gpu
from sftdemo.system.resources import on_gpu

if TYPE_CHECKING:
    import torch

LEAST_GAIN = 1.2  # bfloat16 is taken where its products are that much faster, since float32 is exact
# Threads that wait for work look for it that long and then sleep: 10,000 rounds are about 0.1 ms, the time between two products.
# By default libgomp's go on for some 3 ms, and LLVM's for 200, on cores that another process would use: one busy process
# slowed a chat down to a sixth. These count where they are set before torch is imported.
YIELDING_THREADS = {"GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
# Sentences without values, so that the page has them in its language from config.json, where they stand as they are.
AS_ASKED = {"bfloat16": Text("bfloat16: as asked"), "float32": Text("float32: as asked")}
TRIALS = 20  # of a product, before its shortest time is believed


def size_of(precision: str) -> int:
    """Bytes of a number in training, torch not loaded: as `models.training_precision` will decide."""
    if precision != "auto":
        return 2 if precision == "bfloat16" else 4
    if "torch" in sys.modules or on_gpu():
        return training_precision("auto")[0].itemsize
    return (
        2 if "amx_bf16" in _processor() else 4
    )  # AVX512-BF16 alone is slow on some; what isn't known counts as the larger


def _processor() -> set[str]:
    """What the processor can do, by the names of Linux."""
    torch = sys.modules.get("torch")
    if torch and hasattr(torch.cpu, "get_capabilities"):  # since torch 2.9
        return {name for name, there in torch.cpu.get_capabilities().items() if there is True}
    flags = Path("/proc/cpuinfo")
    return set(flags.read_text(encoding="utf-8").split()) if flags.exists() else set()


def best_times(ways: dict[str, Callable[[], object]], trials: int) -> dict[str, float]:
    """The least time of each way, in seconds; they take turns, so that what else goes on here slows all."""
    shortest = dict.fromkeys(ways, math.inf)
    for _ in range(trials):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            shortest[name] = min(shortest[name], time.perf_counter() - began)
    return shortest


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    import torch

    if zero_gpu.without_gpu():
        return torch.device("cpu")
    # A build for GPUs names one whether there is one or not.
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def set_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Let torch start no more threads than this process may run at once; OMP_NUM_THREADS overrules. Returns how many.

    torch counts the host's cores, and in a container with a quota threads beyond it wait for each other at every product.
    """
    import torch

    if zero_gpu.in_call():  # forked off a process with threads of its own, whose pool isn't there any more
        torch.set_num_threads(1)
    elif "OMP_NUM_THREADS" not in os.environ:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(min(torch.get_num_threads(), allowed, _quota(cgroup) or allowed))
    return torch.get_num_threads()


def _quota(cgroup: Path) -> int | None:
    """The cores a container may use, rounded up; None without a limit. cgroup v2 has one file, v1 two."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return math.ceil(int(quota) / int(period))
    return None


def has_bfloat16_units() -> bool:
    """Whether bfloat16 products run in hardware; without units they are a hundred times slower than float32."""
    import torch

    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device().type == "cpu":
        return bool(_processor() & {"amx_bf16", "avx512_bf16"})
    return False


@cache
def bfloat16_pays() -> bool:
    """Whether training is faster in bfloat16 here. Units alone don't say: AVX512-BF16 is twice as fast as float32 on some
    processors and half as fast on others (178 against 341 GFLOP/s on a Xeon without AMX), so products of a layer are timed.
    """
    if not has_bfloat16_units():
        return False
    if device().type != "cpu":
        return True
    taken = _product_seconds()
    return LEAST_GAIN * taken["bfloat16"] < taken["float32"]


def _product_seconds() -> dict[str, float]:
    """What a product of a training step takes at best, by precision."""
    import torch

    def product(dtype: torch.dtype) -> Callable[[], object]:
        x, weight = torch.ones(512, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
        return lambda: torch.nn.functional.linear(x, weight)

    return best_times({"bfloat16": product(torch.bfloat16), "float32": product(torch.float32)}, TRIALS)


def training_precision(precision: str) -> tuple[torch.dtype, str]:
    """The compute dtype for training and the reason in words."""
    import torch

    if precision != "auto":
        return getattr(torch, precision), AS_ASKED[precision]
    if bfloat16_pays():
        return torch.bfloat16, Text("bfloat16: the processor is faster in it")
    if has_bfloat16_units():
        return torch.float32, Text("float32: the processor is faster in it than in bfloat16")
    return torch.float32, Text("float32: the processor has no bfloat16 units")


def answering_precision() -> torch.dtype:
    """On a CPU a single token is bound by vector products, where float32 is as fast as bfloat16 and exact."""
    import torch

    return torch.bfloat16 if device().type == "cuda" and has_bfloat16_units() else torch.float32
