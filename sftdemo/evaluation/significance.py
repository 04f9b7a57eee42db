"""Is the difference real? Intervals by bootstrap over rows, p by randomisation or McNemar, corrected by Holm.

Both systems answered the same rows, so rows are resampled in pairs. A score is a function of sums over rows (matches
and lengths for BLEU, the value and 1 for a mean): summing each resample is one matrix product. Rows that share a group
(questions on one text, say) don't vary independently: then whole groups are drawn and swapped (Davison and Hinkley 1997,
section 3.8).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from sftdemo.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """Tuned minus base, its 95 % interval, and how often chance alone would differ as much."""

    delta: float
    low: float
    high: float
    p: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @property
    def clear(self) -> bool:
        """Both the test and the interval speak against no difference."""
        return self.p < 1 - CONFIDENCE and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class PairedStatistics:
    """What a metric compares: each side's statistics, (rows, columns), and the score of their sums, (…, columns) → (…).

    The statistics are arrays or scipy.sparse matrices. `limit` is the highest score. `binary` marks values of 0 and 1,
    tested by McNemar.
    """

    base: Any
    tuned: Any
    score: Callable[[Array], Array]
    limit: float = 100.0
    binary: bool = False


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The Wilson interval of a rate; (0, 1) when nothing was counted."""
    if not n:
        return 0.0, 1.0
    if not 0 <= successes <= n:
        raise UserError("{successes} of {n} is not a rate; give a count from 0 to {n}.", successes=successes, n=n)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    # At 0 and n rounding would leave the rate just outside.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


# Resampling


def _summed(pair: PairedStatistics, groups: Sequence[Hashable]) -> PairedStatistics:
    """The statistics of whole groups, (groups, columns); rates of groups are no longer 0 or 1."""
    import numpy as np
    from scipy.sparse import csr_matrix

    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    entries = [places[group] for group in groups], range(len(groups))
    of_group = csr_matrix((np.ones(len(groups)), entries), shape=(len(places), len(groups)))
    return replace(pair, base=of_group @ pair.base, tuned=of_group @ pair.tuned, binary=False)


def _chunks(total: int, n: int) -> Iterator[int]:
    """Sizes that add up to `total`, each small enough for a (size, n) matrix of 16 MB."""
    size = max(1, 2_000_000 // n)
    while total > 0:
        yield min(size, total)
        total -= size


def _draws(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each of n rows was drawn, (chunk, n)."""
    import numpy as np

    rng = np.random.default_rng([seed, 0])
    for size in _chunks(resamples, n):
        rows = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(rows.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _swaps(n: int, trials: int, seed: int) -> Iterator[Array]:
    """1 where the two systems' answers to a row change places, (chunk, n)."""
    import numpy as np

    rng = np.random.default_rng([seed, 1])
    for size in _chunks(trials, n):
        yield rng.integers(0, 2, (size, n), dtype=np.int8).astype(np.float64)


def _interval(spread: Array, delta: float, n: int, limit: float) -> tuple[float, float]:
    """The middle 95 % of the resampled differences.

    Where all resamples agree on a difference, they know nothing of rows that behave otherwise, which may be as many as
    Wilson's interval leaves.
    """
    import numpy as np

    if not delta and not spread.any():
        return 0.0, 0.0
    if np.ptp(spread) < 1e-9 * limit:
        unseen = 1 - wilson(n, n)[0]
        middle = delta * (1 - unseen)
        return max(middle - unseen * limit, -limit), min(middle + unseen * limit, limit)
    return percentiles(spread, n)


def percentiles(resampled: Array, n: int) -> tuple[float, float]:
    """The middle 95 % of a score's resamples over n > 1 rows, with tails as wide as Student's t asks for (Hesterberg 2015)."""
    import numpy as np
    from scipy.stats import norm, t

    tail = norm.cdf((n / (n - 1)) ** 0.5 * t.ppf((1 - CONFIDENCE) / 2, n - 1))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def _mcnemar(change: Any) -> float:
    """The exact two-sided p of rates: are rows that got better and rows that got worse equally many?"""
    from scipy.stats import binomtest

    better, worse = int((change > 0).sum()), int((change < 0).sum())
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    return max(float(p), sys.float_info.min)  # some thousand rows that all got better give 0, which no chance has


def paired_differences(
    pairs: Mapping[str, PairedStatistics],
    seed: int = 42,
    resamples: int = RESAMPLES,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Difference]:
    """Every metric's Difference; all have the same n ≥ 1 rows, and all see the same resamples.

    `groups` names each row's group where rows don't stand alone. p is (hits + 1) / (resamples + 1) over random swaps of the two systems, a tie being a hit. Metrics that are the
    same row by row have p = 1 and the interval (0, 0).
    """
    import numpy as np

    results = {name: Difference(0.0, 0.0, 0.0, 1.0) for name in pairs}
    moving = {name: pair for name, pair in pairs.items() if abs(pair.tuned - pair.base).sum()}
    if not moving:
        return results
    if groups is not None:
        moving = {name: _summed(pair, groups) for name, pair in moving.items()}
    n = next(iter(moving.values())).base.shape[0]
    every = np.ones((1, n))
    sums = {name: (every @ pair.base, every @ pair.tuned) for name, pair in moving.items()}
    deltas = {
        name: float((moving[name].score(tuned) - moving[name].score(base))[0]) for name, (base, tuned) in sums.items()
    }
    spread: dict[str, list[Array]] = {name: [] for name in moving}
    for draws in _draws(n, resamples, seed):
        for name, pair in moving.items():
            spread[name].append(pair.score(draws @ pair.tuned) - pair.score(draws @ pair.base))
    hits = dict.fromkeys(moving, 0)
    for swaps in _swaps(n, resamples, seed):
        for name, pair in moving.items():
            base, tuned = sums[name]
            moved = swaps @ (pair.tuned - pair.base)
            chance = pair.score(tuned - moved) - pair.score(base + moved)
            hits[name] += int((abs(chance) >= abs(deltas[name]) - 1e-9 * pair.limit).sum())
    for name, pair in moving.items():
        low, high = _interval(np.concatenate(spread[name]), deltas[name], n, pair.limit)
        p = _mcnemar(pair.tuned - pair.base) if pair.binary else (hits[name] + 1) / (resamples + 1)
        results[name] = Difference(deltas[name], low, high, p)
    return results


def score_intervals(
    sides: Mapping[str, PairedStatistics],
    seed: int = 42,
    resamples: int = RESAMPLES,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each metric's own score, of the tuned side; whole groups are drawn where there are some.

    Where all rows score the same, the interval leaves room for as many others as Wilson's does.
    """
    import numpy as np

    summed = {name: _summed(side, groups) if groups is not None else side for name, side in sides.items()}
    if not summed:
        return {}
    n = next(iter(summed.values())).tuned.shape[0]
    spread: dict[str, list[Array]] = {name: [] for name in summed}
    for draws in _draws(n, resamples, seed):
        for name, side in summed.items():
            spread[name].append(side.score(draws @ side.tuned))
    intervals = {}
    for name, side in summed.items():
        resampled = np.concatenate(spread[name])
        if np.ptp(resampled) < 1e-9 * side.limit:
            unseen, value = (1 - wilson(n, n)[0]) * side.limit, float(resampled[0])
            intervals[name] = max(value - unseen, 0.0), min(value + unseen, side.limit)
        else:
            intervals[name] = percentiles(resampled, n)
    return intervals


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """p adjusted for asking as many questions as there are p (Holm 1979), never lower than the one before in order."""
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in ps}


def corrected(uncorrected: Mapping[str, Difference]) -> dict[str, dict[str, float]]:
    """As JSON, with p_holm over all that is there."""
    adjusted = holm({name: difference.p for name, difference in uncorrected.items()})
    return {name: difference.to_json() | {"p_holm": adjusted[name]} for name, difference in uncorrected.items()}
