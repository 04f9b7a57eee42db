"""What blind votes say: evidence that may be watched, intervals, agreement and ranking, against published values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sftdemo.evaluation.significance import wilson
from sftdemo.votes import preference
from sftdemo.votes.preference import Duel, bradley_terry, krippendorff_alpha, ranking, votes_needed, win_rate_interval


@pytest.mark.parametrize(("rate", "raters", "longest"), [(0.5, 2000, 500), (0.7, 2000, 500)])
def test_watching_after_every_vote_stops_falsely_in_at_most_5_percent(rate: float, raters: int, longest: int) -> None:
    votes = np.random.default_rng(7).random((raters, longest)) < rate
    wins = votes.cumsum(1)
    enough = preference.log_e_value(wins, np.arange(1, longest + 1) - wins) >= math.log(preference.ENOUGH)
    stopped = enough.any(1)
    if rate == 0.5:
        assert stopped.mean() <= 0.05
    else:
        assert np.median(np.where(stopped, enough.argmax(1) + 1, longest + 1)) < 60
        assert stopped.mean() > 0.99


def test_evidence_by_hand() -> None:
    assert preference.e_value(0, 0) == 1
    assert preference.e_value(6, 0) == pytest.approx(64 / 7)  # 2^6 B(7, 1)
    assert preference.e_value(3, 1) == preference.e_value(1, 3) == pytest.approx(16 / 20)  # 2^4 · 3! 1! / 5!
    assert math.isfinite(preference.e_value(100_000, 0))


def test_how_many_more() -> None:
    assert votes_needed(20, 2) == votes_needed(2, 20) == votes_needed(8, 0) == 0
    assert votes_needed(0, 0) is None and votes_needed(5, 5) is None
    more = votes_needed(14, 6)
    assert more and 5 < more < 60
    assert votes_needed(1, 0) and votes_needed(7, 0) == votes_needed(0, 7)
    # Were the lean to stay, that many would do and one less would not.
    share = 15 / 22
    assert preference.log_e_value(14 + share * more, 6 + (1 - share) * more) >= math.log(20)
    assert preference.log_e_value(14 + share * (more - 1), 6 + (1 - share) * (more - 1)) < math.log(20)


def test_the_interval_draws_prompts() -> None:
    assert win_rate_interval([], []) == (0.0, 1.0)
    assert win_rate_interval([1] * 8, [1] * 8) == wilson(8, 8)
    alone = win_rate_interval([1] * 30 + [0] * 10, [1] * 40)
    assert alone == pytest.approx(wilson(30, 40), abs=0.03)
    # Five raters who all agree on each prompt know no more than one.
    assert win_rate_interval([5] * 30 + [0] * 10, [5] * 40) == alone


def test_the_interval_covers_the_true_rate() -> None:
    """Prompts lean differently, with one to four votes each."""
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(120):
        votes = rng.integers(1, 5, 40)
        wins = rng.binomial(votes, rng.beta(3.5, 1.5, 40))
        low, high = win_rate_interval(wins.tolist(), votes.tolist(), seed)
        covered += low <= 0.7 <= high
    assert covered >= 106  # 95 % less three standard deviations


def units(*raters: str) -> list[list[str]]:
    return [
        [value for value in unit if value != "."] for unit in zip(*(rater.split() for rater in raters), strict=True)
    ]


def test_alpha_meets_krippendorffs_own_examples() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), sections A, B and C."""
    assert krippendorff_alpha(units("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")) == pytest.approx(0.095, abs=5e-4)
    ben, gerry = "a a b b d c c c e d d a", "b a b b b c c c e d d d"
    assert krippendorff_alpha(units(ben, gerry)) == pytest.approx(0.692, abs=5e-4)
    four = (
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    )
    assert krippendorff_alpha(units(*four)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_undefined_where_nothing_varies_or_meets() -> None:
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1


def test_bradley_terry_meets_the_published_baseball_fit() -> None:
    """American League 1987 (Agresti, Categorical Data Analysis; fitted in the vignette of R's BradleyTerry2)."""
    wins = np.array(
        [
            [0, 2, 1, 3, 1, 4, 7],  # Baltimore over Baltimore, Milwaukee, Toronto, New York, Boston, Detroit, Cleveland
            [11, 0, 9, 7, 7, 7, 9],
            [12, 4, 0, 7, 7, 6, 8],
            [10, 6, 6, 0, 6, 8, 7],
            [12, 6, 6, 7, 0, 2, 7],
            [9, 6, 7, 5, 11, 0, 9],
            [6, 4, 5, 6, 6, 4, 0],
        ],
        dtype=float,
    )
    found = bradley_terry(wins, prior=0)
    assert found == pytest.approx([0, 1.5814, 1.2945, 1.2476, 1.1077, 1.4364, 0.6839], abs=5e-4)


def test_two_models_are_as_far_apart_as_their_odds() -> None:
    assert bradley_terry(np.array([[0.0, 10], [30, 0]]), prior=0)[1] == pytest.approx(math.log(3))
    assert bradley_terry(np.array([[0.0, 0], [5, 0]]))[1] == pytest.approx(math.log(5.5 / 0.5))  # finite


def test_the_ranking_orders_models_and_lets_equals_share_a_place() -> None:
    rng = np.random.default_rng(1)
    duels = [
        Duel(f"{prompt}", model, 0, float(rng.random() < rate))
        for model, rate in ((1, 0.9), (2, 0.5), (3, 0.1))
        for prompt in range(60)
    ]
    places = ranking(4, duels)
    assert (places[0].model, places[-1].model) == (1, 3)
    assert [place.rank for place in places] == [1, 2, 2, 4]
    base = next(place for place in places if place.model == 0)
    assert (base.rate, base.low, base.high, base.votes) == (0.5, 0.5, 0.5, 180)
    first = places[0]
    assert first.low < first.rate < first.high and first.low > 0.75 and first.votes == 60


def test_a_model_that_one_vote_ties_to_the_rest_is_no_nan_and_no_winner() -> None:
    """Many resamples lack the prompt of that one vote."""
    met = [Duel(f"p{k}", 1, 0, float(k % 4 > 0)) for k in range(40)]
    places = {place.model: place for place in ranking(3, [*met, Duel("once", 2, 1, 1.0)])}
    assert math.isfinite(places[1].low) and places[1].low > 0.5 and (places[1].rank, places[0].rank) == (1, 2)
    assert (places[2].low, places[2].high, places[2].rank, places[2].few_votes) == (0.0, 1.0, 1, True)
    assert not places[0].few_votes and not places[1].few_votes
