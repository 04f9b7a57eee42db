"""What is said of saved outputs: every metric, baselines, mixed tasks; counts that agree with the engines' own."""

import json
import math
import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from sftdemo import files, runs
from sftdemo.evaluation import answer_metrics, metrics, row_statistics
from sftdemo.evaluation.scorecard import likeliest, score_outputs
from sftdemo.verbs import evaluation_rows
from sftdemo.verbs.evaluate import rescore

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat,",
    "3.5",
    "(well)",
    "我",
    "喜欢猫",
    "e-mail",
    "No.",
    "-\n",
    "&amp;",
    "naïve",
]


def texts(draw: random.Random, count: int, longest: int = 12) -> list[str]:
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, longest))) for _ in range(count)]


def output(row: int, base: str, tuned: str, reference: str, label: str | None = None, **more: object) -> dict:
    asked = [{"role": "user", "content": f"Say: {reference}"}]
    return {
        "row": row,
        "messages": asked,
        "references": [reference],
        "label": label,
        "base": base,
        "tuned": tuned,
    } | more


def moods(count: int = 40) -> list[dict]:
    draw = random.Random(4)
    rows = []
    for row in range(count):
        label = draw.choice(["good", "bad", "bad"])
        tuned = label if draw.random() < 0.9 else "good"
        nats = {"base_nll": draw.uniform(5, 9), "tuned_nll": draw.uniform(0, 2), "answer_tokens": 2, "answer_bytes": 4}
        found = {
            f"{side}_{kind}": "bad" for side in ("base", "tuned") for kind in ("likelihood", "likelihood_per_byte")
        }
        rows.append(output(row, draw.choice(["good", "Hm."]), tuned, label, label, **nats, **found))
    return rows


# Counting for the whole corpus at once


@pytest.mark.parametrize("language", ["en", "zh"])
def test_counts_are_the_engines_own(language: str) -> None:
    draw = random.Random(8)
    predictions, references = texts(draw, 300), [[text] for text in texts(draw, 300)]
    bleu = metrics.bleu_engine(references, language)
    for engine, rows in (
        (bleu, row_statistics.bleu_rows),
        (CHRF(), row_statistics.chrf_rows),
        (CHRF(word_order=2), row_statistics.chrf_rows),
    ):
        assert np.array_equal(
            rows(engine, predictions, references), row_statistics.plain_rows(engine, predictions, references)
        )


def test_counts_hold_where_codes_outgrow_a_number() -> None:
    """Thousands of unlike characters: six of them and a row don't fit 62 bits, so the codes are packed anew."""
    draw = random.Random(1)
    predictions, references = (
        ["".join(chr(draw.randrange(0x4E00, 0x9FA0)) for _ in range(draw.randint(0, 40))) for _ in range(300)]
        for _ in range(2)
    )
    mixed = [[one[:20] + other[5:]] for one, other in zip(predictions, references, strict=True)]
    found = row_statistics.chrf_rows(CHRF(), predictions, mixed)
    assert np.array_equal(found, row_statistics.plain_rows(CHRF(), predictions, mixed)) and found[:, 17].sum() > 1000


def test_ter_of_sums_is_sacrebleus() -> None:
    references = [["a b c d e f g h"], [""], ["x y"]]
    predictions = ["d e f g h a b c", "word", "x y"]
    rows = row_statistics.plain_rows(TER(), predictions, references)
    expected = TER().corpus_score(predictions, [[one[0] for one in references]]).score
    assert row_statistics.ter_scores(rows.sum(axis=0, keepdims=True))[0] == pytest.approx(expected)


def test_chinese_bleu_by_hand() -> None:
    """我爱猫 against 我爱狗: 2 of 3 characters, 1 of 2 pairs, no triple (exp smoothing: half of 1): (2/3 · 1/2 · 1/2)^(1/3)."""
    found = metrics.bleu(predictions=["我爱猫"], references=[["我爱狗"]])
    assert found["bleu"] == pytest.approx(100 * (2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3)) and "tok:zh" in found["signature"]
    assert found["bleu"] == pytest.approx(
        BLEU(tokenize="zh", max_ngram_order=3).corpus_score(["我爱猫"], [["我爱狗"]]).score
    )


def test_chinese_rouge_by_hand() -> None:
    """今天下雨了 (5 characters) against 今天没下雨 (5): 4 in common; pairs 今天 and 下雨 of 4; in order 今天下雨: 4."""
    found = metrics.rouge_rows(["今天下雨了。"], [["今天没下雨。"]], metrics.ALL_ROUGE)[0]
    assert [found[kind].f for kind in metrics.ALL_ROUGE] == pytest.approx([80, 50, 80, 80])


# Answers


def test_answers_are_compared_as_squad_does() -> None:
    pairs = [("The Cat!", "cat"), ("ＡＢＣ。", "abc"), ("A", "a"), ("是的，", "是的"), ("!", "?"), ("cats", "cat")]
    found = answer_metrics.normal_match_rows([one for one, _ in pairs], [[other] for _, other in pairs])
    assert found == [1, 1, 1, 1, 0, 0]
    assert answer_metrics.token_f1_rows(["a red cat"], [["the cat is red", "dog"]]) == [pytest.approx(2 * 2 / (2 + 3))]
    assert answer_metrics.token_f1_rows(["我爱猫"], [["我爱狗"]]) == [pytest.approx(2 / 3)]


def test_variety_length_and_repetition() -> None:
    found = answer_metrics.answer_scores(predictions=["a b a b a b", "c"], references=[["x y z"], ["c c", "c c c c"]])
    assert found["distinct_1"] == pytest.approx(3 / 7) and found["distinct_2"] == pytest.approx(2 / 5)
    assert found["length_ratio"] == pytest.approx(7 / (3 + 3)) and found["repetition"] == pytest.approx(1 / 3)
    nothing = answer_metrics.answer_scores(predictions=[""], references=[["a"]])
    assert [nothing[name] for name in ("distinct_1", "distinct_2", "length_ratio", "repetition")] == [0, 0, 0, 0]


def test_micro_and_macro() -> None:
    found = metrics.classification(predictions=list("021001"), references=list("012012"))
    assert [found[f"micro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx([1 / 3] * 3)
    assert found["macro_recall"] == pytest.approx(1 / 3)
    unparsed = metrics.classification(predictions=["a", "?"], references=["a", "a"])
    assert (unparsed["micro_precision"], unparsed["micro_recall"]) == (1.0, 0.5)


def test_long_unlike_texts_have_no_ter() -> None:
    """sacrebleu's search would take minutes; the key is left out for both sides, not filled with something else."""
    rows = [output(k, "word " * 80, "x y z", "x y z w") for k in range(3)]
    found = score_outputs(rows, [], 1)
    assert not any("ter" in found[part] for part in ("base", "tuned", "difference"))
    assert found["tuned"]["length_ratio"] == 0.75 and found["base"]["repetition"] > 0.9


# The whole card


def test_a_card_of_labels() -> None:
    rows = moods()
    found = score_outputs(rows, ["bad", "good"], 42, {"bad": 60, "good": 30})
    nats = [sum(row[f"{side}_nll"] for row in rows) for side in ("base", "tuned")]
    assert found["base"]["perplexity"] == pytest.approx(math.exp(nats[0] / 80))
    assert found["tuned"]["bits_per_byte"] == pytest.approx(nats[1] / math.log(2) / 160)
    assert found["difference"]["perplexity"]["delta"] < 0 and found["difference"]["perplexity"]["high"] < 0
    truth = sum(row["label"] == "bad" for row in rows) / 40
    majority = found["baselines"]["majority"]
    assert majority["answer"] == "bad" and majority["accuracy"] == pytest.approx(truth)
    assert found["base"]["likelihood_accuracy_per_byte"] == pytest.approx(truth)
    assert found["leading"] == "accuracy" and "Better: right on" in found["summary"]["en"]
    assert set(found["classes"]["tuned"]) >= {"macro_recall", "micro_f1", "per_class", "unparsed"}
    assert found["difference"].keys() <= found["base"].keys() & found["tuned"].keys()
    for one in found["difference"].values():
        assert one["p"] <= one["p_holm"] <= 1
    assert json.loads(json.dumps(found)) == found == score_outputs(rows, ["bad", "good"], 42, {"bad": 60, "good": 30})


def test_rows_of_a_group_are_resampled_together() -> None:
    rows = [row | {"group": f"text {k // 5}"} for k, row in enumerate(moods(200))]
    alone, grouped = (score_outputs(chosen, ["bad", "good"], 1) for chosen in (moods(200), rows))
    assert "groups" not in alone and grouped["groups"] == 40 and "counts 40 groups" in grouped["summary"]["en"]
    assert grouped["difference"]["accuracy"]["delta"] == pytest.approx(alone["difference"]["accuracy"]["delta"])
    assert grouped["difference"]["accuracy"]["p"] >= 1 / 2001, "McNemar's test is of rows that stand alone"
    few = score_outputs([row | {"group": f"text {k // 10}"} for k, row in enumerate(moods(200))], ["bad", "good"], 1)
    assert "in 20 groups are too few" in few["summary"]["en"]
    single = score_outputs([row | {"group": str(k)} for k, row in enumerate(moods(40))], ["bad", "good"], 1)
    assert single == score_outputs(moods(40), ["bad", "good"], 1), "groups of one row each are rows"
    example = {"messages": [{"role": "assistant", "content": "x"}], "meta": {"line": 1, "group": "a"}}
    assert evaluation_rows.rows_of([example])[0]["group"] == "a"  # type: ignore[list-item]


def formed(base: list[str], tuned: list[str]) -> dict:
    """The card of 40 rows, all of the label good, whose answers are these in turn."""
    rows = [output(k, base[k % len(base)], tuned[k % len(tuned)], "good", "good") for k in range(40)]
    return score_outputs(rows, ["bad", "good"], 1)


def test_a_gain_of_form_alone_is_not_called_better() -> None:
    found = formed(["The mood is **good**."], ["good"])
    assert (found["base"]["accuracy"], found["base"]["lenient_accuracy"]) == (0, 1)
    assert found["leading"] == "accuracy" and found["difference"]["accuracy"]["delta"] == 1
    assert found["difference"]["lenient_accuracy"]["delta"] == 0 and found["difference"]["lenient_accuracy"]["p"] == 1
    english, chinese = found["summary"]["en"], found["summary"]["zh"]
    assert (
        "Different only in form: right on 40 of 40 rows, the base on none (+100 points" in english
        and "better" not in english
    )
    assert (
        "Most of the gain is the form of the answer: the right label named on 40 of 40 rows, the base on 40" in english
    )
    assert "大部分提升来自答案的形式：40 行中说对标签 40 行，基础模型 40 行" in chinese and "更好" not in chinese
    assert found["classes"]["base"]["lenient_unparsed"] == 0 and found["classes"]["base"]["unparsed"] == 40


def test_a_gain_that_is_partly_form_says_how_much() -> None:
    found = formed(["It is good.", "It is good.", "It is good.", "bad"], ["good"])
    assert found["difference"]["lenient_accuracy"]["delta"] == 0.25
    # 10 rows got better by the lenient reading, none worse: McNemar's exact p is 2 · (1/2)^10
    assert found["difference"]["lenient_accuracy"]["p"] == pytest.approx(2 / 1024)
    english = found["summary"]["en"]
    assert "Better: right on 40 of 40 rows" in english
    assert (
        "Most of the gain is the form of the answer: the right label named on 40 of 40 rows, the base on 30 (+25 points"
        in english
    )
    assert "form" not in formed(["bad"], ["good"])["summary"]["en"]


def test_a_better_form_of_worse_answers() -> None:
    found = formed(["It is good."], ["good", "bad"])
    assert "Better in form but worse in content" in found["summary"]["en"]
    lost = formed(["good"], ["It is good."])["summary"]
    assert (
        "Most of the loss is the form of the answer: the right label named on 40 of 40 rows" in lost["en"]
        and "worse" not in lost["en"].lower()
    )


def test_short_texts_have_their_form_too() -> None:
    rows = [output(k, "The Paris.", "Paris", "Paris") for k in range(40)]
    found = score_outputs(rows, [], 1)
    assert found["leading"] == "exact_match" and "only in form" in found["summary"]["en"]


def test_copying_the_prompt_is_a_baseline_of_texts() -> None:
    found = score_outputs([output(k, "nothing", "the cat sat", "the cat sat") for k in range(4)], [], 1)
    assert found["baselines"]["copy"]["token_f1"] == pytest.approx(2 * 2 / (2 + 3))
    assert found["baselines"]["lead"]["words"] == 3 and found["tuned"]["exact_match"] == 1


def test_each_task_of_a_mixed_run_has_its_own_scores() -> None:
    rows = [row | {"task": "moods"} for row in moods(30)]
    rows += [output(k, "no", "the cat sat", "the cat sat", task="texts") for k in range(30)]
    found = score_outputs(rows, [], 1)
    assert found["by_task"].keys() == {"moods", "texts"} and found["by_task"]["moods"]["n"] == 30
    assert found["by_task"]["moods"]["leading"] == "accuracy" and "accuracy" not in found["tuned"]
    assert found["by_task"]["texts"]["tuned"]["exact_match"] == 1
    assert "by_task" not in score_outputs(rows[:30], [], 1)


def test_the_likeliest_label_by_sum_and_by_byte() -> None:
    assert likeliest(["no", "certainly"], [-4.0, -9.0]) == {"likelihood": "no", "likelihood_per_byte": "certainly"}


def test_saved_outputs_are_scored_again_without_a_model() -> None:
    run = runs.create("r", "r", {"settings": {}, "data": {}})
    folder = run.path / "evaluations" / "one"
    files.write_jsonl(folder / "outputs.jsonl", moods())
    kept = score_outputs(moods(3), ["bad", "good"], 1) | {"settings": {"seed": 42}, "seconds": 3.0, "outputs": ""}
    files.write_json(folder / "scores.json", kept)
    found = rescore(run, "one")
    assert found["n"] == 40 and found["seconds"] == 3.0 and run.scores("one") == found
    assert found["difference"] == score_outputs(moods(), ["bad", "good"], 42)["difference"]
    with pytest.raises(Exception, match="no evaluation 'two'; there are: one"):
        rescore(run, "two")
