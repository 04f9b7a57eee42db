"""Intervals and p: known values, agreement with the engines, and honesty where there is no difference."""

import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from sftdemo.errors import UserError
from sftdemo.evaluation import metrics, registry, significance
from sftdemo.evaluation.sides import Targets
from sftdemo.evaluation.significance import Difference, wilson
from sftdemo.evaluation.summary import summary
from tests.paired import differences, of_texts, paired_difference

WORDS = [
    "the",
    "a",
    "dog",
    "cat",
    "man",
    "bit",
    "saw",
    "house",
    "river",
    "green",
    "old",
    "runs",
    "to",
    "of",
    "in",
    "and",
    "yes",
    "no",
    "maybe",
    "5",
]


def noisy(texts, keep, draw):
    return [" ".join(word if draw.random() < keep else draw.choice(WORDS) for word in text.split()) for text in texts]


@pytest.fixture(scope="module")
def corpus():
    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 15))) for _ in range(60)]
    return {
        "base_outputs": noisy(texts, 0.5, draw),
        "tuned_outputs": noisy(texts, 0.8, draw),
        "references": [[text, *noisy([text], 0.8, draw)][: draw.randint(1, 2)] for text in texts],
    }


# Rates


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [(5, 10, (0.2366, 0.7634)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (81, 263, (0.2553, 0.3662))],
)
def test_wilson(successes, n, interval):
    assert wilson(successes, n) == pytest.approx(interval, abs=1e-4)


def test_wilson_of_nothing_and_of_nonsense():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 10, 0.99)[0] < wilson(5, 10)[0]
    with pytest.raises(UserError, match="11 of 10"):
        wilson(11, 10)


def test_rates_are_tested_by_mcnemar():
    base = [0] * 12 + [1] * 3 + [1] * 20 + [0] * 15
    tuned = [1] * 12 + [0] * 3 + [1] * 20 + [0] * 15
    found = paired_difference(base, tuned)
    assert found.delta == pytest.approx(9 / 50)
    assert found.p == pytest.approx(binomtest(3, 15).pvalue)
    assert found.low == pytest.approx(0.04, abs=0.025) and found.high == pytest.approx(0.32, abs=0.025)
    assert paired_difference(tuned, base).delta == -found.delta


# Means


def test_mean_difference_agrees_with_theory():
    rng = np.random.default_rng(0)
    base = rng.normal(50, 20, 200)
    tuned = base + rng.normal(4, 10, 200)
    change = tuned - base
    error = change.std(ddof=1) / 200**0.5
    found = paired_difference(list(base), list(tuned))
    assert found.delta == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - 1.97 * error, abs=0.3 * error)
    assert found.high == pytest.approx(change.mean() + 1.97 * error, abs=0.3 * error)
    assert found.p == pytest.approx(1 / 2001)


def test_randomisation_agrees_with_all_swaps():
    base, tuned = [10.0, 20.0, 30.0, 45.0, 50.0], [12.0, 19.0, 37.0, 50.0, 61.0]
    change = np.subtract(tuned, base)
    signs = np.array([[1 if k >> bit & 1 else -1 for bit in range(5)] for k in range(32)])
    exact = (abs(signs @ change) >= abs(change.sum()) - 1e-9).mean()
    assert paired_difference(base, tuned, resamples=20000).p == pytest.approx(exact, abs=0.01)


def test_the_same_seed_gives_the_same():
    base, tuned = [1.0, 5.0, 3.0, 8.0] * 10, [2.0, 4.0, 6.0, 7.0] * 10
    assert paired_difference(base, tuned, seed=1) == paired_difference(base, tuned, seed=1)
    assert paired_difference(base, tuned, seed=1) != paired_difference(base, tuned, seed=2)


def test_equal_values_are_no_difference():
    assert paired_difference([3.0, 4.0], [3.0, 4.0]) == Difference(0, 0, 0, 1)
    assert paired_difference([0, 1, 1], [0, 1, 1]) == Difference(0, 0, 0, 1)


def test_rows_that_all_agree_do_not_make_certainty():
    one = paired_difference([0], [1])
    assert one.p == 1 and one.low < 0 and one.high == 1
    text = paired_difference([20.0], [60.0])
    assert text.p == 1 and text.low < 0 < text.high <= 100
    many = paired_difference([0] * 40, [1] * 40)
    assert 0.8 < many.low < 1 and many.high == 1 and 0 < many.p < 1e-9


# Corpus scores


@pytest.mark.parametrize("longest", [1, 3, 12])
def test_summed_statistics_give_sacrebleus_scores(longest):
    draw = random.Random(longest)
    for _ in range(40):
        references = [[" ".join(draw.choices(WORDS, k=draw.randint(0, longest)))] for _ in range(draw.randint(1, 4))]
        predictions = noisy([texts[0] + " x" * draw.randint(0, 2) for texts in references], 0.7, draw)
        empty = [""] * len(references)
        pairs = of_texts(empty, predictions, references=references)
        for name, function in (("bleu", metrics.bleu), ("chrf", metrics.chrf)):
            found = pairs[name].score(pairs[name].tuned.sum(axis=0, keepdims=True))[0]
            expected = function(predictions=predictions, references=references)[name]
            assert found == pytest.approx(expected, abs=1e-9), (predictions, references)


def test_every_delta_is_tuned_minus_base(corpus):
    found = differences(**corpus)
    assert list(found) == [name for name in registry.METRICS if name in found] and {"bleu", "chrf", "ter"} <= set(found)
    for function in (metrics.bleu, metrics.chrf, metrics.rouge, metrics.exact_match):
        base, tuned = (
            function(predictions=corpus[side], references=corpus["references"])
            for side in ("base_outputs", "tuned_outputs")
        )
        for name in set(base) - {"signature"}:
            assert found[name]["delta"] == pytest.approx(tuned[name] - base[name], abs=1e-9)
            assert found[name]["low"] <= found[name]["delta"] <= found[name]["high"]
    assert found["bleu"]["p"] < 0.01 and found["bleu"]["low"] > 0
    assert json.loads(json.dumps(found)) == found


def test_bleu_interval_agrees_with_resampling_by_hand(corpus):
    rng = np.random.default_rng(5)
    deltas = []
    for _ in range(100):
        rows = rng.integers(0, 60, 60)
        references = [corpus["references"][k] for k in rows]
        base, tuned = (
            metrics.bleu(predictions=[corpus[side][k] for k in rows], references=references)["bleu"]
            for side in ("base_outputs", "tuned_outputs")
        )
        deltas.append(tuned - base)
    found = differences(**corpus)["bleu"]
    low, high = np.quantile(deltas, [0.025, 0.975])
    assert found["low"] == pytest.approx(low, abs=0.25 * (high - low))
    assert found["high"] == pytest.approx(high, abs=0.25 * (high - low))


def test_identical_outputs_are_no_difference(corpus):
    found = differences(**corpus | {"tuned_outputs": corpus["base_outputs"]})
    assert all(value == {"delta": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1} for value in found.values())


def test_labels():
    draw = random.Random(1)
    names = ["a", "b", "c", "never seen"]
    labels = [draw.choice(names[:3]) for _ in range(80)]
    base = [draw.choice([*names[:3], "what?"]) for _ in labels]
    tuned = [label.upper() if draw.random() < 0.8 else "a" for label in labels]
    found = differences(
        base_outputs=base,
        tuned_outputs=tuned,
        references=[[label] for label in labels],
        labels=labels,
        label_names=names,
        base_likelihood=[None, *base[1:]],
        tuned_likelihood=labels,
    )
    first, second = (
        metrics.classification(predictions=texts, references=labels, labels=names) for texts in (base, tuned)
    )
    for name in ("accuracy", "macro_f1"):
        assert found[name]["delta"] == pytest.approx(second[name] - first[name])
        assert 0 < found[name]["low"] < found[name]["high"] < 1 and found[name]["p"] < 0.001
    assert found["likelihood_accuracy"]["delta"] > 0.5
    with pytest.raises(UserError, match="'z' is not among"):
        differences(
            base_outputs=["a"], tuned_outputs=["z"], references=[["z"]], labels=["z"], label_names=["a"], seed=1
        )


def test_scores_that_are_both_zero_do_not_differ():
    found = differences(base_outputs=["x"] * 40, tuned_outputs=["x x"] * 40, references=[["a b c d"]] * 40)
    assert found["bleu"] == {"delta": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}


def test_lengths_must_agree():
    with pytest.raises(UserError, match="2 predictions but 1 list of references"):
        differences(base_outputs=["a"], tuned_outputs=["a", "b"], references=[["a"]])


# Honesty: two exchangeable systems differ clearly in at most 5 % of evaluations

CHANCE = binom.ppf(0.975, 200, 0.05)  # what 200 evaluations at a true 5 % may show: 16


def draws_of_rates(rng):
    ease = rng.beta(1, 1, 50)
    return [list((rng.random(50) < ease).astype(int)) for _ in range(2)]


def draws_of_scores(rng):
    ease = rng.uniform(0, 100, 50)
    return [list(np.clip(ease + rng.normal(0, 20, 50), 0, 100)) for _ in range(2)]


@pytest.mark.parametrize("draw", [draws_of_rates, draws_of_scores])
def test_no_difference_is_claimed_where_there_is_none(draw):
    rng = np.random.default_rng(11)
    found = [paired_difference(*draw(rng), seed=k, resamples=300) for k in range(200)]
    assert sum(one.clear for one in found) <= CHANCE
    # The interval alone holds 0 in about 95 % too.
    assert sum(not one.low <= 0 <= one.high for one in found) <= CHANCE


def test_no_corpus_score_difference_is_claimed_where_there_is_none():
    draw, rng = random.Random(2), np.random.default_rng(2)
    texts = [" ".join(draw.choices(WORDS, k=8)) for _ in range(1000)]
    base, tuned = (noisy(texts, 0.6, draw) for _ in range(2))
    pool = of_texts(base, tuned, references=[[text] for text in texts])
    claims = {"bleu": 0, "chrf": 0}
    for k in range(200):
        rows = rng.choice(1000, 40, replace=False)
        measures = {
            name: replace(pool[name], base=pool[name].base[rows], tuned=pool[name].tuned[rows]) for name in claims
        }
        for name, found in significance.paired_differences(measures, seed=k, resamples=300).items():
            claims[name] += found.clear
    assert max(claims.values()) <= CHANCE, claims


def test_ten_thousand_rows_take_seconds():
    rng = np.random.default_rng(0)
    base, tuned = (list(rng.uniform(0, 100, 10_000)) for _ in range(2))
    paired_difference(base[:10], tuned[:10])
    began = time.process_time()
    paired_difference(base, tuned)
    assert time.process_time() - began < 10


# The sentence


def told(delta, low, high, p, n=150, metric="accuracy"):
    sides = {metric: 0.2}, {metric: 0.2 + delta}
    return summary({metric: {"delta": delta, "low": low, "high": high, "p": p}}, metric, n, *sides)


def test_summary():
    better = told(0.61, 0.53, 0.69, 1e-9)
    assert better["en"] == "Better: right on 122 of 150 rows, the base on 30 (+61 points, 95 % interval 53 to 69)."
    assert better["zh"] == "更好：150 行中答对 122 行，基础模型 30 行（+61 个百分点，95% 区间 53 至 69）。"
    worse = told(-0.2, -0.3, -0.1, 0.001)["en"]
    assert worse == "Worse: right on none of 150 rows, the base on 30 (−20 points, 95 % interval −30 to −10)."
    close = told(0.012, 0.004, 0.02, 0.001, n=9999)["en"]
    assert "+1.2 points, 95 % interval 0.4 to 2.0" in close, "a narrow interval needs its decimals"
    rate = told(0.3, 0.2, 0.4, 0.001, metric="field_f1")["en"]
    assert rate == "Better: field F1 50.0 % on 150 rows, the base 20.0 % (+30 points, 95 % interval 20 to 40)."
    assert told(-5.0, -7.0, -3.0, 0.001, metric="ter")["en"].startswith("Better: TER"), "fewer edits are better"
    for unclear in (told(0.1, -0.1, 0.3, 0.2), told(0.1, 0.01, 0.2, 0.06), told(0.1, -0.01, 0.2, 0.04)):
        assert (
            unclear["en"].startswith("No clear difference: right on 45 of 150 rows") and "没有明显差别" in unclear["zh"]
        )
    assert told(0.0, 0.0, 0.0, 1.0)["en"].endswith(" (the same on each row)."), (
        "no interval is known of rows that all tie"
    )
    assert told(0.0, 0.0, 0.0, 1.0)["zh"].endswith("（每行都相同）。")


def test_how_many_rows_would_show_it():
    assert told(0.1, -0.05, 0.25, 0.2, n=40)["en"].endswith(
        " If the difference is what it seems, about 180 rows would show it."
    )
    assert "约 180 行" in told(0.1, -0.05, 0.25, 0.2, n=40)["zh"]
    for nothing_to_show in (told(0.0, -0.1, 0.1, 1.0), told(0.0001, -0.2, 0.2, 1.0), told(0.5, 0.4, 0.6, 0.001)):
        assert "would show" not in nothing_to_show["en"]


def test_rows_of_groups_are_said_to_be():
    found = {"accuracy": {"delta": 0.5, "low": 0.4, "high": 0.6, "p": 0.001}}
    sides = {"accuracy": 0.2}, {"accuracy": 0.7}
    text = summary(found, "accuracy", 150, *sides, groups=40)
    assert text["en"].endswith("40 groups of rows, not single rows.") and "40 组" in text["zh"]
    few = summary(found, "accuracy", 150, *sides, groups=12)
    assert "150 test rows in 12 groups are too few" in few["en"] and "12 组" in few["zh"]


def test_few_rows_are_too_few():
    few = told(1.0, 1.0, 1.0, 1e-6, n=29)
    assert "29 test rows are too few to tell" in few["en"] and "29 行" in few["zh"]
    assert "Better" in told(1.0, 0.9, 1.0, 1e-6, n=30)["en"]


def test_the_leading_metric_suits_the_data():
    found = {"delta": 12.345, "low": 3.0, "high": 20.0, "p": 0.001}
    text = summary({"chrf": found}, "chrf", 40, {"chrf": 20.0}, {"chrf": 32.345})["en"]
    assert text == "Better: chrF 32.3 on 40 rows, the base 20.0 (+12.3, 95 % interval 3.0 to 20.0)."
    assert registry.leading(Targets([["a longer answer in words"]])) == "chrf"
    assert registry.leading(Targets([["是"]], "zh")) == "exact_match"
    assert registry.leading(Targets([["turn it on"], ["a b c d e"], ["off"]])) == "exact_match"
    assert registry.leading(Targets([["a b c d e"]], labels=["x"], label_names=["x"])) == "accuracy"
