"""Simulated evaluations: what isn't there is claimed in at most 5 %, what is there is found; and sacrebleu's own tests agree."""

import random
from dataclasses import replace

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from scipy.stats import binom

from sftdemo.evaluation import row_statistics, significance
from sftdemo.evaluation.significance import PairedStatistics, holm, paired_differences
from tests.paired import differences, means

pytestmark = pytest.mark.slow

SIZES = (50, 200)
FEW, MANY = 300, 1000  # simulated evaluations: in every run of the tests, and in the slow one


def most(evaluations: int) -> int:
    """What so many evaluations may claim if each has a chance of exactly 5 %: one test in a thousand says more."""
    return int(binom.ppf(0.999, evaluations, 0.05))


def answers_right(
    rng: np.random.Generator, evaluations: int, n: int, base: float, tuned: float
) -> list[PairedStatistics]:
    """Two systems of these accuracies on rows of unlike difficulty, errors independent given the row."""
    ease = rng.normal(0, 0.2, (evaluations, n))
    right = [(rng.random((evaluations, n)) < np.clip(rate + ease, 0, 1)).astype(float) for rate in (base, tuned)]
    return [means(*one, limit=1.0, binary=True) for one in zip(*right, strict=True)]


@pytest.fixture(scope="module")
def pool() -> PairedStatistics:
    """Rows of two systems that get 6 words in 10 right each, as BLEU's and chrF's sums."""
    draw = random.Random(2)
    vocabulary = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 7))) for _ in range(80)]
    texts = [draw.choices(vocabulary, k=draw.randint(3, 14)) for _ in range(4000)]

    def noisy(keep: float) -> list[str]:
        return [" ".join(w if draw.random() < keep else draw.choice(vocabulary) for w in words) for words in texts]

    references = [[" ".join(words)] for words in texts]
    base, tuned = noisy(0.6), noisy(0.6)
    return PairedStatistics(
        *(row_statistics.chrf_rows(CHRF(), side, references) for side in (base, tuned)),
        score=row_statistics.chrf_scores,
    )


def corpus_scores(pool: PairedStatistics, rng: np.random.Generator, evaluations: int, n: int) -> list[PairedStatistics]:
    rows = [rng.choice(len(pool.base), n, replace=False) for _ in range(evaluations)]
    return [PairedStatistics(pool.base[some], pool.tuned[some], pool.score) for some in rows]


def claims(measures: list[PairedStatistics], resamples: int = significance.RESAMPLES) -> int:
    """In how many of these evaluations a difference is claimed. All see the same resamples: one matrix serves them all."""
    found = paired_differences({str(k): measure for k, measure in enumerate(measures)}, 7, resamples)
    return sum(one.clear for one in found.values())


@pytest.mark.parametrize("n", SIZES)
def test_exchangeable_systems_are_rarely_told_apart(pool: PairedStatistics, n: int) -> None:
    rng = np.random.default_rng(n)
    assert claims(answers_right(rng, FEW, n, 0.6, 0.6), 500) <= most(FEW)
    assert claims(corpus_scores(pool, rng, FEW // 3, n), 500) <= most(FEW // 3)


@pytest.mark.parametrize("n", SIZES)
def test_exchangeable_systems_are_told_apart_in_one_of_twenty_evaluations_at_most(
    pool: PairedStatistics, n: int
) -> None:
    rng = np.random.default_rng(n + 1)
    for rate in (0.5, 0.6, 0.9):
        assert claims(answers_right(rng, MANY, n, rate, rate)) <= most(MANY)
    assert claims(corpus_scores(pool, rng, MANY, n)) <= most(MANY)


@pytest.mark.parametrize("base", [0.2, 0.425, 0.6, 0.8])
def test_a_difference_of_15_points_on_200_rows_is_found(base: float) -> None:
    measures = answers_right(np.random.default_rng(3), FEW, 200, base, base + 0.15)
    assert claims(measures, 500) >= 0.8 * FEW


def of_groups(rng: np.random.Generator, evaluations: int, sizes: list[int]) -> list[PairedStatistics]:
    """Two systems as good as each other; the rows of a group share their fate."""
    measures = answers_right(rng, evaluations, len(sizes), 0.6, 0.6)
    return [replace(one, base=np.repeat(one.base, sizes, 0), tuned=np.repeat(one.tuned, sizes, 0)) for one in measures]


@pytest.mark.parametrize("sizes", [[5] * 40, [1, 2, 3, 14] * 10], ids=["equal", "unequal"])
def test_groups_that_share_their_fate_are_no_evidence_by_the_row(sizes: list[int]) -> None:
    groups = np.repeat(range(len(sizes)), sizes).tolist()
    measures = {str(k): one for k, one in enumerate(of_groups(np.random.default_rng(1), MANY, sizes))}

    def clear(**options: object) -> int:
        return sum(one.clear for one in paired_differences(measures, 7, 300, **options).values())  # type: ignore[arg-type]

    assert clear(groups=groups) <= MANY // 20 < clear(), "5 % at most, and far more where groups are ignored"


def test_groups_of_one_row_are_rows() -> None:
    measures = {"": answers_right(np.random.default_rng(2), 1, 60, 0.4, 0.7)[0]}
    alone, grouped = paired_differences(measures)[""], paired_differences(measures, groups=range(60))[""]
    assert (alone.low, alone.high) == (grouped.low, grouped.high), "McNemar's p aside"


def test_a_mean_over_groups_of_unlike_size_counts_rows() -> None:
    """By hand: groups drawn whole, and the mean over the rows that came with them."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 9, 40)
    base, tuned = (np.repeat(rng.uniform(0, 100, 40), sizes) for _ in range(2))
    groups = np.repeat(range(40), sizes)
    found = paired_differences({"": means(base, tuned)}, groups=groups.tolist())[""]
    draws = (np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 40, 40)]) for _ in range(1000))
    low, high = np.quantile([(tuned[rows] - base[rows]).mean() for rows in draws], [0.025, 0.975])
    assert found.delta == pytest.approx((tuned - base).mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


# Several metrics at once


def test_holm() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({"only": 0.04}) == {"only": 0.04} and holm({}) == {}


def test_holm_keeps_a_family_honest() -> None:
    """A dozen metrics of nothing: any clear one before correction is likely, after it rare."""
    rng = np.random.default_rng(5)
    raw = corrected = 0
    for k in range(40):
        found = paired_differences({str(i): m for i, m in enumerate(answers_right(rng, 12, 60, 0.5, 0.5))}, k, 20)
        ps = {name: one.p for name, one in found.items()}
        raw += min(ps.values()) < 0.05
        corrected += min(holm(ps).values()) < 0.05
    assert raw > 8 and corrected <= binom.ppf(0.999, 40, 0.05)


# Against sacrebleu's own paired tests


def translations(draw: random.Random, keep: float, texts: list[list[str]]) -> list[str]:
    words = [word for text in texts for word in text]
    return [" ".join(w if draw.random() < keep else draw.choice(words) for w in text) for text in texts]


@pytest.mark.parametrize("better", [0.62, 0.7])
def test_sacrebleus_paired_tests_agree(better: float) -> None:
    draw = random.Random(9)
    words = ["".join(draw.choices("abcdefgh", k=3)) for _ in range(60)]
    texts = [draw.choices(words, k=draw.randint(4, 18)) for _ in range(120)]
    base, tuned = translations(draw, 0.6, texts), translations(draw, better, texts)
    references = [" ".join(text) for text in texts]
    ours = differences(base_outputs=base, tuned_outputs=tuned, references=[[text] for text in references])
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        named = [("base", base), ("tuned", tuned)]
        test = PairedTest(named, {name: metric}, references=[references], test_type="ar", n_samples=2000)
        first, result = list(test()[1].values())[1]
        assert ours[name]["delta"] == pytest.approx(result.score - first.score, abs=1e-9)
        # Both are a share of some 2,000 random swaps: their difference has a spread of √2 · √(p (1-p) / 2000).
        noise = 4 * (2 * max(result.p_value * (1 - result.p_value), 1e-3) / 2000) ** 0.5
        assert ours[name]["p"] == pytest.approx(result.p_value, abs=noise)
