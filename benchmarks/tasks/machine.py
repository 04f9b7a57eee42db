"""What the machine can do at most: products of large matrices, and reading memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from sftdemo.system import compute

SIZE = 2048  # of the square matrices
READ_BYTES = 2**29
SECONDS = 1.5  # for each figure


def best(work: Callable[[], Any]) -> float:
    """The shortest time of `work` in seconds, over many runs."""
    work()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def gflops(dtype: torch.dtype) -> float:
    a, b = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
    return 2 * SIZE**3 / best(lambda: a @ b) / 1e9


def main() -> dict[str, Any]:
    large = torch.ones(READ_BYTES // 4)
    units = compute.has_bfloat16_units()
    return {
        "bfloat16_units": units,
        "training_dtype": str(compute.training_precision("auto")[0]).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "float32_gflops": gflops(torch.float32),
        "bfloat16_gflops": gflops(torch.bfloat16) if units else None,
        "read_gb_s": READ_BYTES / best(large.sum) / 1e9,
    }


if __name__ == "__main__":
    print("RESULT", json.dumps(main()))
