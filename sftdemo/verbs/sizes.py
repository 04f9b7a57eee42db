"""How long rows are: the usual quantiles, and a histogram."""

from __future__ import annotations

from math import ceil
from typing import Any


def spread(sizes: list[int]) -> dict[str, int] | None:
    """The median, the 95th percentile and the largest of sorted sizes."""
    if not sizes:
        return None
    return {"p50": sizes[len(sizes) // 2], "p95": sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))], "max": sizes[-1]}


def histogram(sizes: list[int], limit: int | None = None, bins: int = 24) -> dict[str, Any] | None:
    """{"low", "width", "counts", "limit"}: how many sizes are in each bin, from `low` in steps of `width`."""
    if not sizes:
        return None
    low = min(sizes)
    width = max(1, ceil((max(sizes) - low + 1) / bins))
    counts = [0] * ((max(sizes) - low) // width + 1)
    for size in sizes:
        counts[(size - low) // width] += 1
    return {"low": low, "width": width, "counts": counts, "limit": limit}
