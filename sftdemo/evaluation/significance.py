"""Is the difference real? Intervals by bootstrap over rows, p by randomisation or McNemar, corrected by Holm.

Both systems answered the same rows, so rows are resampled in pairs. A score is a function of sums over rows (matches
and lengths for BLEU, the value itself for a mean): summing each resample is one matrix product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from sftdemo.errors import UserError
from sftdemo.evaluation import answer_metrics, json_metrics, metrics, row_statistics, words
from sftdemo.evaluation.labels import parse_lenient

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
class Measure:
    """A score to compare: each system's statistics, (rows, columns), and the score of their sums, (…, columns) → (…).

    The statistics are arrays or scipy.sparse matrices. `limit` is the highest score. `rate` marks values of 0 and 1,
    tested by McNemar.
    """

    base: Any
    tuned: Any
    score: Callable[[Array], Array]
    limit: float = 100.0
    rate: bool = False


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

    Plain percentiles are too narrow on few rows; Hesterberg (2015) takes the tails that Student's t asks for. Where all
    resamples agree on a difference, they know nothing of rows that behave otherwise, which may be as many as Wilson's
    interval leaves.
    """
    import numpy as np
    from scipy.stats import norm, t

    if not delta and not spread.any():
        return 0.0, 0.0
    if np.ptp(spread) < 1e-9 * limit:
        unseen = 1 - wilson(n, n)[0]
        middle = delta * (1 - unseen)
        return max(middle - unseen * limit, -limit), min(middle + unseen * limit, limit)
    tail = norm.cdf((n / (n - 1)) ** 0.5 * t.ppf((1 - CONFIDENCE) / 2, n - 1))
    low, high = np.quantile(spread, [tail, 1 - tail])
    return float(low), float(high)


def _mcnemar(change: Any) -> float:
    """The exact two-sided p of rates: are rows that got better and rows that got worse equally many?"""
    from scipy.stats import binomtest

    better, worse = int((change > 0).sum()), int((change < 0).sum())
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    return max(float(p), sys.float_info.min)  # some thousand rows that all got better give 0, which no chance has


def paired_differences(
    measures: Mapping[str, Measure], seed: int = 42, resamples: int = RESAMPLES
) -> dict[str, Difference]:
    """Every measure's Difference; all have the same n ≥ 1 rows, and all see the same resamples.

    p is (hits + 1) / (resamples + 1) over random swaps of the two systems, a tie being a hit. Measures that are the
    same row by row have p = 1 and the interval (0, 0).
    """
    import numpy as np

    results = {name: Difference(0.0, 0.0, 0.0, 1.0) for name in measures}
    moving = {name: measure for name, measure in measures.items() if abs(measure.tuned - measure.base).sum()}
    if not moving:
        return results
    n = next(iter(moving.values())).base.shape[0]
    every = np.ones((1, n))
    sums = {name: (every @ measure.base, every @ measure.tuned) for name, measure in moving.items()}
    deltas = {
        name: float((moving[name].score(tuned) - moving[name].score(base))[0]) for name, (base, tuned) in sums.items()
    }
    spread: dict[str, list[Array]] = {name: [] for name in moving}
    for draws in _draws(n, resamples, seed):
        for name, measure in moving.items():
            spread[name].append(measure.score(draws @ measure.tuned) - measure.score(draws @ measure.base))
    hits = dict.fromkeys(moving, 0)
    for swaps in _swaps(n, resamples, seed):
        for name, measure in moving.items():
            base, tuned = sums[name]
            moved = swaps @ (measure.tuned - measure.base)
            chance = measure.score(tuned - moved) - measure.score(base + moved)
            hits[name] += int((abs(chance) >= abs(deltas[name]) - 1e-9 * measure.limit).sum())
    for name, measure in moving.items():
        low, high = _interval(np.concatenate(spread[name]), deltas[name], n, measure.limit)
        p = _mcnemar(measure.tuned - measure.base) if measure.rate else (hits[name] + 1) / (resamples + 1)
        results[name] = Difference(deltas[name], low, high, p)
    return results


def _pair(statistics: Callable[[Any], Any], base: Any, tuned: Any) -> tuple[Any, Any]:
    return statistics(base), statistics(tuned)


def mean_measure(base: Sequence[float], tuned: Sequence[float], limit: float = 100.0, rate: bool = False) -> Measure:
    """A score that is the mean of one value a row."""
    import numpy as np

    n = len(base)
    columns = _pair(lambda values: np.asarray(values, dtype=np.float64)[:, None], base, tuned)
    return Measure(*columns, score=lambda sums: sums[:, 0] / n, limit=limit, rate=rate)


def paired_difference(
    base: Sequence[float], tuned: Sequence[float], seed: int = 42, resamples: int = RESAMPLES, limit: float = 100.0
) -> Difference:
    """The Difference of two means over the same rows; values of only 0 and 1 are tested as rates."""
    if not base or len(base) != len(tuned):
        raise UserError("{n} base and {m} tuned values; give one each, at least one.", n=len(base), m=len(tuned))
    rate = set(base) | set(tuned) <= {0, 1}
    measure = mean_measure(base, tuned, 1.0 if rate else limit, rate)
    return paired_differences({"": measure}, seed, resamples)[""]


# What is compared


def _text_measures(
    base: Sequence[str], tuned: Sequence[str], references: words.References, language: str
) -> dict[str, Measure]:
    from sacrebleu.metrics import CHRF

    bleu, chrf = metrics.bleu_engine(references, language), CHRF()
    bleu_sums = _pair(lambda texts: row_statistics.bleu_rows(bleu, texts, references), base, tuned)
    chrf_sums = _pair(lambda texts: row_statistics.chrf_rows(chrf, texts, references), base, tuned)
    base_rows, tuned_rows = _pair(lambda texts: metrics.rouge_rows(texts, references, metrics.ALL_ROUGE), base, tuned)

    def rouge(kind: str) -> Measure:
        return mean_measure([row[kind].f for row in base_rows], [row[kind].f for row in tuned_rows])

    def rate(rows: Callable[[Sequence[str], words.References], list[float]], test: bool) -> Measure:
        return mean_measure(*_pair(lambda texts: rows(texts, references), base, tuned), limit=1.0, rate=test)

    measures = {
        "bleu": Measure(*bleu_sums, score=lambda total: row_statistics.bleu_scores(total, bleu.max_ngram_order)),
        "chrf": Measure(*chrf_sums, score=row_statistics.chrf_scores),
        **{kind: rouge(kind) for kind in metrics.ROUGE_KINDS},
        "exact_match": rate(metrics.exact_rows, True),
        "rougeLsum": rouge("rougeLsum"),
        "exact_match_normalized": rate(answer_metrics.normal_match_rows, True),
        "token_f1": rate(answer_metrics.token_f1_rows, False),
    }
    if metrics.ter_is_quick([*base, *tuned, *(text for texts in references for text in texts)], len(base)):
        ter = metrics.ter_engine(references, language)
        edits = _pair(lambda texts: row_statistics.plain_rows(ter, texts, references), base, tuned)
        measures["ter"] = Measure(*edits, score=row_statistics.ter_scores)
    return measures


def _right(answers: Sequence[Any], labels: Sequence[Any]) -> list[float]:
    return [float(answer == label) for answer, label in zip(answers, labels, strict=True)]


def _label_measures(
    base: Sequence[str], tuned: Sequence[str], labels: Sequence[str], names: Sequence[str]
) -> dict[str, Measure]:
    true = metrics.parse_true_labels(labels, names)
    base_places, tuned_places = _pair(lambda texts: metrics.parse_labels(texts, names), base, tuned)
    rows = _pair(lambda side: row_statistics.label_rows(side, true, len(names)), base_places, tuned_places)
    right = _right(base_places, true), _right(tuned_places, true)
    lenient = _pair(lambda texts: _right(parse_lenient(texts, names), true), base, tuned)
    return {
        "accuracy": mean_measure(*right, limit=1.0, rate=True),
        "lenient_accuracy": mean_measure(*lenient, limit=1.0, rate=True),
        "macro_f1": Measure(*rows, score=row_statistics.macro_f1_scores, limit=1.0),
    }


def json_measures(base: Sequence[str], tuned: Sequence[str], references: words.References) -> dict[str, Measure]:
    """The shares of answers that are valid and exact JSON, and F1 of fields and entities, from each row's counts."""
    import numpy as np

    sides = _pair(lambda texts: json_metrics.json_rows(texts, references), base, tuned)

    def rate(value: Callable[[json_metrics.Row], bool]) -> Measure:
        return mean_measure(*_pair(lambda rows: [float(value(row)) for row in rows], *sides), limit=1.0, rate=True)

    def counted(total: Callable[[json_metrics.Row], json_metrics.Counts]) -> Measure:
        columns = _pair(lambda rows: np.array([total(row) for row in rows], np.float64), *sides)
        return Measure(*columns, score=row_statistics.micro_f1_scores, limit=1.0)

    found = {
        "json_valid": rate(lambda row: row.valid),
        "json_valid_lenient": rate(lambda row: row.has_json),
        "json_exact": rate(lambda row: row.exact),
        "field_f1": counted(lambda row: row.total("fields")),
    }
    if json_metrics.has_entities(references):
        found["entity_f1"] = counted(lambda row: row.total("entities"))
    return found


def likelihood_measure(base: Sequence[Any], tuned: Sequence[Any], labels: Sequence[str]) -> Measure:
    """The accuracy of the labels that each model found likeliest."""
    return mean_measure(_right(base, labels), _right(tuned, labels), limit=1.0, rate=True)


def nats_measure(
    base: Sequence[float], tuned: Sequence[float], units: Sequence[float], score: Callable[[Array], Array]
) -> Measure:
    """Nats of the reference answers, a row each, over their tokens or bytes."""
    import numpy as np

    columns = _pair(lambda nats: np.column_stack([nats, units]).astype(np.float64), base, tuned)
    highest = max(float(score(side.sum(axis=0, keepdims=True))[0]) for side in columns)
    return Measure(*columns, score=score, limit=highest)


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """p adjusted for asking as many questions as there are p (Holm 1979), never lower than the one before in order."""
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in ps}


def differences(
    *,
    base_outputs: Sequence[str],
    tuned_outputs: Sequence[str],
    references: words.References,
    labels: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    base_likelihood: Sequence[str | None] | None = None,
    tuned_likelihood: Sequence[str | None] | None = None,
    language: str = "auto",
    seed: int = 42,
    more: Mapping[str, Measure] | None = None,
) -> dict[str, dict[str, float]]:
    """{metric: {"delta", "low", "high", "p", "p_holm"}} for bleu, chrf, the ROUGEs, the exact matches, token_f1 and ter.

    With the rows' true `labels` (of the declared `label_names`) also both accuracies and macro_f1, with the labels that each
    model found likeliest likelihood_accuracy, and whatever measures come in `more`. `p_holm` is corrected for all of them.
    """
    if not references or not len(base_outputs) == len(tuned_outputs) == len(references):
        raise UserError(
            "{base} base outputs, {tuned} tuned outputs, {references} references; give one each, at least one.",
            base=len(base_outputs),
            tuned=len(tuned_outputs),
            references=len(references),
        )
    language = words.resolve_language(language, references)
    measures = _text_measures(base_outputs, tuned_outputs, references, language)
    if labels is not None:
        names = list(label_names) if label_names is not None else sorted(set(labels))
        measures |= _label_measures(base_outputs, tuned_outputs, labels, names)
    if labels is not None and base_likelihood is not None and tuned_likelihood is not None:
        measures["likelihood_accuracy"] = likelihood_measure(base_likelihood, tuned_likelihood, labels)
    return corrected(paired_differences(measures | dict(more or {}), seed))


def corrected(uncorrected: Mapping[str, Difference]) -> dict[str, dict[str, float]]:
    """As JSON, with p_holm over all that is there."""
    adjusted = holm({name: difference.p for name, difference in uncorrected.items()})
    return {name: difference.to_json() | {"p_holm": adjusted[name]} for name, difference in uncorrected.items()}
