"""How far a classifier's probabilities can be believed: temperature scaling, and the expected calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BINS = 10
COLDEST, HOTTEST = 0.5, 20.0  # a few validation rows without a fault would have every answer certain


def probabilities(logits: Tensor, texts: Sequence[int], temperature: float, several: bool) -> Tensor:
    """[texts, labels] from [windows, labels]: the mean over a text's windows. `texts` says which text a window is of."""
    scaled = logits.double() / temperature
    own = scaled.sigmoid() if several else scaled.softmax(-1)
    place = torch.tensor(list(texts))
    count = torch.bincount(place, minlength=int(place.max()) + 1)
    total = torch.zeros(len(count), own.shape[1], dtype=own.dtype).index_add_(0, place, own)
    return total / count[:, None]


def temperature(logits: Tensor, texts: Sequence[int], labels: Tensor, several: bool) -> float:
    """The one that makes the true labels likeliest (Guo et al. 2017); `labels` of each text, as numbers or ones and zeros."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        own = probabilities(logits, texts, math.exp(log_temperature), several).clamp(1e-12, 1 - 1e-12)
        if several:
            return float(torch.nn.functional.binary_cross_entropy(own, labels.double()))
        return float(-own.gather(1, labels[:, None]).log().mean())

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def curve(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    """{"ece", "bins": [{"low", "n", "confidence", "accuracy"}]}: answers by how sure they are, in bins of equal width.

    The expected calibration error is the mean distance of a bin's accuracy from its mean confidence, by its answers.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for confidence, hit in zip(confidences, right, strict=True):
        bins[min(int(confidence * BINS), BINS - 1)].append((confidence, hit))
    rows = [
        {
            "low": place / BINS,
            "n": len(part),
            "confidence": sum(confidence for confidence, _ in part) / len(part),
            "accuracy": sum(hit for _, hit in part) / len(part),
        }
        for place, part in enumerate(bins)
        if part
    ]
    total = sum(row["n"] for row in rows)
    ece = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / total if total else 0.0
    return {"ece": ece, "bins": rows}
