"""Products of few rows on a CPU: which memory layout and order is fastest, found by trial."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear

from sftdemo.system import compute, malloc

LEAST_GAIN = 1.1  # an order of products is changed where that makes them so much faster
BLOCK = 1024  # outputs of a vocabulary multiplied at once on a CPU, whose cache then holds them


@dataclass(frozen=True)
class GemvStrategy:
    """What is faster in a step of chat: single tokens `apart`, one to a thread; weights stored `by_input`."""

    apart: bool
    by_input: bool


@cache
def gemv_strategy() -> GemvStrategy:
    """By trial, once: a few rows by float32 weights that no cache holds. A processor's instructions don't tell."""
    rows = max(2, torch.get_num_threads())
    weights = torch.ones(12, 576, 1536)
    x = torch.ones(rows, 1, 576)
    with torch.inference_mode():
        best = compute.best_times(
            {
                "together": lambda: [linear(x, weight.t()) for weight in weights],
                "apart": lambda: [_apart(x, weight.t()) for weight in weights],
                "by_output": lambda: [linear(x, weight.view(1536, 576)) for weight in weights],
            },
            trials=3,
        )
    return GemvStrategy(
        apart=LEAST_GAIN * best["apart"] < best["together"],
        by_input=LEAST_GAIN * min(best["apart"], best["together"]) < best["by_output"],
    )


def _apart(x: Tensor, weight: Tensor) -> Tensor:
    return torch.bmm(x, weight.t().expand(x.shape[0], -1, -1))


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """xW + bias. As many single tokens as there are threads go one to a thread where that is faster: a batched GEMV."""
    rows = x.shape[0]
    if not x.is_contiguous():
        x = x.contiguous()  # else one product a row
    one_a_thread = rows > 1 and x.shape[1:-1] == (1,) and x.device.type == "cpu" and rows == torch.get_num_threads()
    if one_a_thread and gemv_strategy().apart:
        y = _apart(x, weight)
        return y if bias is None else y + bias
    if bias is None and x.device.type == "cpu" and len(weight) >= 16 * BLOCK:
        return _in_blocks(x, weight)
    return linear(x, weight, bias)


def _in_blocks(x: Tensor, weight: Tensor) -> Tensor:
    tokens = x.view(-1, x.shape[-1])
    y = x.new_empty(len(tokens), len(weight))
    for part, into in zip(weight.split(BLOCK), y.split(BLOCK, 1), strict=True):  # type: ignore[no-untyped-call]
        torch.mm(tokens, part.t(), out=into)
    return y.view(*x.shape[:-1], -1)


def _empty(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for weights, in huge pages where the system has them."""
    room = torch.empty(count, dtype=dtype, device=device)
    if device.type == "cpu":
        malloc.ask_for_huge_pages(room.data_ptr(), room.nbytes)
    return room
