"""Runs against each other: paired on what both were asked, by the statistics that compare base and tuned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.runs import Run
from sftdemo.verbs.compare_runs import compare_runs

LABELS = ("ham", "spam")


def row(number: int, right: bool, asked: str | None = None, **measured: Any) -> dict[str, Any]:
    """One test row of an evaluation whose tuned model is right, or isn't; its base is always wrong."""
    label, other = LABELS[number % 2], LABELS[1 - number % 2]
    messages = [{"role": "user", "content": asked or f"message {number}"}]
    answers = {"base": other, "tuned": label if right else other}
    return {"row": number, "messages": messages, "references": [label], "label": label, **answers, **measured}


def evaluated(name: str, rows: Sequence[dict[str, Any]], seed: int = 1) -> Run:
    run = runs.create(name, "", {"settings": {"seed": seed}})
    folder = run.path / "evaluations" / "E"
    files.write_jsonl(folder / "outputs.jsonl", rows)
    files.write_json(folder / "scores.json", score_outputs(rows, list(LABELS), 0))
    return run


def test_each_two_runs_are_paired_on_what_both_were_asked() -> None:
    good = evaluated("good", [row(k, right=True) for k in range(40)])
    poor = evaluated(
        "poor", [row(k, right=k % 4 == 0) for k in reversed(range(8, 48))], seed=2
    )  # another order and cut
    bare = runs.create("bare", "", {"settings": {"seed": 1}})
    compared = compare_runs([good, poor, bare])
    assert compared["settings"]["seed"] == {"good": 1, "poor": 2, "bare": 1} and compared["scores"]["bare"] is None
    (pair,) = compared["between"]  # one that wasn't evaluated is in no pair
    accuracy = pair["difference"]["accuracy"]
    assert (pair["first"], pair["second"], pair["n"], pair["leading"]) == ("good", "poor", 32, "accuracy")
    assert accuracy["delta"] == pytest.approx(8 / 32 - 1) and accuracy["high"] < 0 and accuracy["p_holm"] < 0.001
    (back,) = compare_runs([poor, good])["between"]
    assert back["difference"]["accuracy"]["delta"] == -accuracy["delta"]


def test_the_same_answers_do_not_differ_and_other_questions_are_not_compared() -> None:
    rows = [row(k, right=k % 3 > 0, asked=f"asked twice {k // 2}") for k in range(30)]
    first, same = evaluated("first", rows), evaluated("same", rows)
    elsewhere = evaluated("elsewhere", [row(k, right=True, asked=f"other {k}") for k in range(30)])
    between = {(pair["first"], pair["second"]): pair for pair in compare_runs([first, same, elsewhere])["between"]}
    assert len(between) == 3
    assert between["first", "same"]["n"] == 30
    assert {change["delta"] for change in between["first", "same"]["difference"].values()} == {0}
    assert between["first", "elsewhere"] == {
        "first": "first", "second": "elsewhere", "n": 0, "leading": None, "difference": {}
    }  # fmt: skip


def learning(run: Run, numbers: Sequence[int], **words: str) -> None:
    """Have the run trained on these rows, in words of its own perhaps."""
    examples = [
        {"messages": [*row(k, right=True, **words)["messages"], {"role": "assistant", "content": LABELS[k % 2]}]}
        for k in numbers
    ]
    files.write_jsonl(run.path / "data" / "train.jsonl", examples)


def test_rows_that_one_of_both_alone_has_learned_are_left_out_and_told() -> None:
    """Evaluated on other data than its own held-out rows, a run may have seen them."""
    first = evaluated("first", [row(k, right=k % 2 == 0) for k in range(60)])
    second = evaluated("second", [row(k, right=k < 25) for k in range(60)])
    learning(first, [20, 21, 22, 23, 24, 100, 101])
    learning(second, range(25))
    (pair,) = compare_runs([first, second])["between"]
    assert (pair["n"], pair["left_out"]) == (40, 20), "rows that both have learned favour neither"
    assert pair["difference"]["accuracy"]["delta"] == pytest.approx(5 / 40 - 20 / 40)
    learning(first, range(100, 110))
    learning(second, range(60))
    (pair,) = compare_runs([first, second])["between"]
    assert (pair["n"], pair["left_out"], pair["difference"]) == (0, 60, {})
    learning(first, range(60))
    (pair,) = compare_runs([first, second])["between"]
    assert pair["n"] == 60 and "left_out" not in pair


def test_settings_and_data_that_differ_are_told_whichever_run_comes_first() -> None:
    old = runs.create("old", "", {"settings": {"data": "d.csv", "seed": 1}, "data": {"sha256": "a" * 64}})
    new = runs.create("new", "", {"settings": {"data": "d.csv", "seed": 1, "dora": True}, "data": {"sha256": "b" * 64}})
    for both in ([old, new], [new, old]):
        assert runs.differences(both)["settings"] == {
            "data": {"old": "d.csv (aaaaaaaa)", "new": "d.csv (bbbbbbbb)"},
            "dora": {"old": False, "new": True},
        }
    bare = runs.create("bare", "", {})
    assert set(runs.differences([bare, old, new])["settings"]) == {"data", "dora"}


@pytest.mark.parametrize(("tokens", "told"), [(4, True), (5, False)])
def test_losses_are_compared_only_of_answers_cut_into_the_same_tokens(tokens: int, told: bool) -> None:
    def rows(count: int, nll: float) -> list[dict[str, Any]]:
        measured = {"base_nll": 9.0, "tuned_nll": nll, "answer_tokens": count, "answer_bytes": 4}
        return [row(k, right=True, **measured) for k in range(30)]

    first, second = evaluated("first", rows(4, 2.0)), evaluated("second", rows(tokens, 1.0))
    (pair,) = compare_runs([first, second])["between"]
    assert ("perplexity" in pair["difference"]) is told
    assert not told or pair["difference"]["perplexity"]["delta"] < 0


def test_the_command_tells_the_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        evaluated(name, [row(k, right=name != "c") for k in range(30)])
    assert main(["runs", "compare", "a", "b", "c", "--json"]) == 0
    between = json.loads(capsys.readouterr().out)["between"]
    assert [(pair["first"], pair["second"]) for pair in between] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert main(["runs", "compare", "a", "a", "--json"]) == 2 and "two runs or more" in capsys.readouterr().err
