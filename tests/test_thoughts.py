"""Thoughts are cut before anything is scored, and kept in what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftdemo.encoding.thoughts import MARKS, answer_of, split_thoughts
from sftdemo.evaluation import outputs_table
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.evaluation.scoring import score
from sftdemo.ui.tabs import outputs as outputs_view
from sftdemo.verbs import forgetting


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("good", "", "good"),
        ("  good\n", "", "  good\n"),
        ("<think>\nlovely?\n</think>\n\ngood", "lovely?", "good"),
        ("lovely?\n</think>\n\ngood", "lovely?", "good"),  # the prompt has opened them
        ("<think>\n\n</think>\n\ngood", "", "good"),
        ("<think>bad? good?", "bad? good?", ""),
        (" \n<think>", "", ""),
        ("<think>a</think><think>b</think>good", "ab", "good"),
        ("<think>a</think> <think>good", "agood", ""),
        ("Well.<think>hm</think>good", "Well.hm", "good"),
        ("Write <think> before thoughts.", "", "Write <think> before thoughts."),
        ("[THINK]hm[/THINK]good", "hm", "good"),
        ("<|START_THINKING|>hm<|END_THINKING|>good", "hm", "good"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>good", None, "good"),
        ("<|channel>thought\nhm<channel|>good", "hm", "good"),
    ],
)
def test_thoughts_end_where_the_answer_begins(text: str, thoughts: str | None, answer: str) -> None:
    found = split_thoughts(text)
    assert found[1] == answer
    assert thoughts is None or found[0].replace("\n", "") == thoughts


@given(st.sampled_from([*MARKS.items()]), st.lists(st.integers(0, 5)))
def test_cutting_twice_is_cutting_once(marks: tuple[str, str], places: list[int]) -> None:
    """Rows are cut on their way to more than one score."""
    text = "".join((*marks, "a", " ", "\n", "good")[place] for place in places)
    first = answer_of(text)
    assert first in text and answer_of(first) == first


THOUGHT = "<think>\nIs it bad? No.\n</think>\n\ngood"


def test_scores_are_of_what_follows_the_thoughts() -> None:
    row = {"row": 0, "messages": [{"role": "user", "content": "?"}], "label": "good", "references": ["good"]}
    rows = [row | {"base": "<think>good", "tuned": THOUGHT}] * 3
    found = score_outputs(rows, ["bad", "good"], 1)
    assert (found["base"]["accuracy"], found["tuned"]["accuracy"]) == (0, 1)
    assert found["tuned"]["exact_match"] == 1 and found["tuned"]["rouge1"] == 100
    assert [one["mark"] for one in outputs_table.judged(rows, "accuracy")] == ["better"] * 3
    assert outputs_table.judged(rows, "accuracy")[0]["tuned"] == THOUGHT
    assert score([{"prediction": THOUGHT, "label": "good"}])["accuracy"] == 1
    assert score([{"prediction": "good", "references": [THOUGHT]}])["exact_match"] == 1
    asked = {"references": ["Paris"], "answer_tokens": 1, "kind": "facts", "base_nll": 1.0, "tuned_nll": 1.0}
    answers = {"base": "<think>Rome? No.</think>Paris", "tuned": "<think>Paris? No.</think>Rome"}
    judged = forgetting.judge([asked | answers] * 3)
    assert (judged["base"]["answered"], judged["tuned"]["answered"]) == (1, 0)


def test_the_table_shows_answers_and_an_opened_row_the_thoughts() -> None:
    row = {"row": 0, "messages": [{"role": "user", "content": "?"}], "label": None, "references": ["good"]}
    rows = outputs_table.judged([row | {"base": "<think>no end", "tuned": THOUGHT}], "exact_match")
    table = outputs_view.outputs_table(outputs_table.outputs_page(rows), "en", None)
    assert "Is it bad?" not in table and "no end" not in table and "(no answer)" in table and "good" in table
    opened = outputs_view.opened(rows[0], "zh")
    assert "思考过程" in opened and "Is it bad? No." in opened and "no end" in opened and "&lt;think&gt;" not in opened
    assert "思考过程" not in outputs_view.opened(rows[0] | {"base": "bad", "tuned": "good"}, "zh")
