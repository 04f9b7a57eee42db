"""How long saved answers may be: a run that was brought along holds up nobody with what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.errors import UserError
from sftdemo.evaluation.system_answers import saved_texts
from sftdemo.runs.row_limits import MOST_ANSWER, MOST_ASKED, MOST_OUTPUTS, MOST_ROW
from sftdemo.verbs.evaluation_rows import rows_of
from tests.test_compare_runs import evaluated, row

LONG = "x" * (MOST_ANSWER + 1)


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ({"tuned": LONG}, "row 2: tuned has more than 1,048,576 characters"),
        ({"base": LONG}, "row 2: base has more than"),
        ({"references": ["a", LONG]}, "row 2: references has more than"),
        ({"messages": [{"role": "user", "content": "x" * MOST_ROW}]}, "has a line of more than 16,777,216 bytes"),
    ],
)
def test_a_row_longer_than_any_models_is_damage(
    capsys: pytest.CaptureFixture[str], planted: dict[str, Any], told: str
) -> None:
    """An answer of 20 MB was compared for 99 seconds, whoever looked at it."""
    good, rows = evaluated("good", [row(k, right=True) for k in range(3)]), [row(k, right=True) for k in range(3)]
    bad = evaluated("bad", rows)
    files.write_jsonl(bad.path / "evaluations" / "E" / "outputs.jsonl", [rows[0], rows[1] | planted, rows[2]])
    assert main(["runs", "compare", good.name, bad.name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Run bad is damaged: evaluations/E/outputs.jsonl" in line and told in line


def test_what_a_model_can_have_answered_is_read() -> None:
    rows = [row(0, right=True) | {"tuned": LONG[1:], "base": "好" * MOST_ANSWER}]
    run = evaluated("r", [row(0, right=True)])
    files.write_jsonl(run.path / "evaluations" / "E" / "outputs.jsonl", rows)
    assert run.outputs("E") == rows


def test_another_systems_answers_and_the_whole_file_have_limits() -> None:
    run = evaluated("r", [row(0, right=True)])
    folder = run.path / "evaluations" / "E"
    files.write_jsonl(folder / "systems" / "x.jsonl", [{"row": 0, "answer": LONG}])
    with pytest.raises(runs.DamagedRun, match="answer has more than 1,048,576 characters"):
        saved_texts(run, "E/systems/x.jsonl")
    os.truncate(folder / "outputs.jsonl", MOST_OUTPUTS + 1)  # no byte of it is on the disk
    with pytest.raises(runs.DamagedRun, match="has more than 1,073,741,824 bytes"):
        run.outputs("E")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda asked, answer: answer.update(content=LONG), "references has more than"),
        (lambda asked, answer: asked.update(content="x" * MOST_ASKED), "has more than 8,388,608 bytes"),
    ],
)
def test_what_no_page_would_read_is_not_evaluated(change: Callable[..., None], told: str) -> None:
    asked, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    examples: list[Any] = [{"messages": [dict(asked), dict(answer)]}, {"messages": [asked, answer]}]
    assert len(rows_of(examples)) == 2
    change(asked, answer)
    with pytest.raises(UserError, match=f"Held-out row 2 can't be evaluated: {told}"):
        rows_of(examples)
