"""Two sides' statistics for tests: of plain values, or of texts by every metric that applies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sftdemo.evaluation import registry, row_statistics
from sftdemo.evaluation.sides import Side, Targets
from sftdemo.evaluation.significance import Difference, PairedStatistics, corrected, paired_differences


def means(
    base: Sequence[float], tuned: Sequence[float], limit: float = 100.0, binary: bool = False
) -> PairedStatistics:
    """The mean of one value a row."""
    columns = (row_statistics.with_count(np.asarray(side, np.float64)[:, None]) for side in (base, tuned))
    return PairedStatistics(*columns, row_statistics.mean_scores, limit, binary)


def paired_difference(base: Sequence[float], tuned: Sequence[float], **options: Any) -> Difference:
    """The Difference of two means; values of only 0 and 1 are tested as rates."""
    binary = set(base) | set(tuned) <= {0, 1}
    return paired_differences({"": means(base, tuned, 1.0 if binary else 100.0, binary)}, **options)[""]


def of_texts(
    base_outputs: Sequence[str],
    tuned_outputs: Sequence[str],
    base_likelihood: Sequence[str | None] = (),
    tuned_likelihood: Sequence[str | None] = (),
    **targets: Any,
) -> dict[str, PairedStatistics]:
    """Every metric's statistics of two sides' answers to the same targets."""
    wanted = Targets(**targets)
    pairs = ((base_outputs, base_likelihood), (tuned_outputs, tuned_likelihood))
    sides = [Side(wanted, texts, likeliest={"likelihood": held} if held else {}) for texts, held in pairs]  # type: ignore[dict-item]
    return registry.paired(*map(registry.statistics, sides))


def differences(seed: int = 42, **texts: Any) -> dict[str, dict[str, float]]:
    """What scores.json says of these answers under "difference"."""
    return corrected(paired_differences(of_texts(**texts), seed))
