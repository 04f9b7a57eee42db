"""The next token: the likeliest, or one drawn from the nucleus."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sftdemo.config.generate import LEAST_TEMPERATURE
from sftdemo.inference.request import Request

LIKELY = 256  # tokens that nearly always hold the nucleus; sorting all takes a hundred times as long


@torch.inference_mode()
def choose(logits: Tensor, rows: list[Request]) -> list[int]:
    """The next token of each row: the likeliest, or one drawn by the row's own settings and generator."""
    if logits.device.type != "cpu" and not any(row.config.temperature for row in rows):
        return logits.argmax(-1).tolist()  # type: ignore[no-any-return]
    # NumPy has one thread, where torch's would spin for a while after this and hold the next step up.
    numbers = logits.float().cpu().numpy()
    tokens: list[int] = numbers.argmax(-1).tolist()
    for place, row in enumerate(rows):
        if row.config.temperature:
            tokens[place] = _drawn(numbers[place], row)
    return tokens


def _drawn(logits: NDArray[np.float32], row: Request) -> int:
    """A token from the nucleus (Holtzman et al. 2020). Each row is drawn alone and in the vocabulary's order, so that who else
    is in the batch changes nothing: sorted, two tokens nearly alike would change places by rounding."""
    temperature = max(row.config.temperature, LEAST_TEMPERATURE)
    weights = np.exp((logits - logits.max()) / temperature, dtype=np.float64)
    tokens = _nucleus(weights, row.config.top_p) if row.config.top_p < 1 else np.arange(len(weights))
    ends = weights[tokens].cumsum()
    place = float(torch.rand((), dtype=torch.float64, generator=row.generator)) * ends[-1]
    return int(tokens[min(np.searchsorted(ends, place, side="right"), len(ends) - 1)])


def _nucleus(weights: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """The likeliest tokens, by number, that have `top_p` of all weight: each has less than that before it."""
    enough = top_p * weights.sum()
    likely = np.argpartition(-weights, min(LIKELY, len(weights)) - 1)[:LIKELY]
    if weights[likely].sum() < enough:
        likely = np.arange(len(weights))
    likely = likely[np.argsort(-weights[likely], kind="stable")]
    return np.sort(likely[: 1 + np.searchsorted(weights[likely].cumsum(), enough)])
