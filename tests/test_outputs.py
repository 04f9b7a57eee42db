"""The saved answers as a table: marks, order, filters, pages, and files that a spreadsheet runs nothing of."""

import csv
import io
import json

import pytest

from sftdemo import files
from sftdemo.errors import UsageError
from sftdemo.evaluation import outputs_table


def row(number: int, base: str, tuned: str, reference: str = "le chat noir", label: str | None = None) -> dict:
    asked = [{"role": "user", "content": f"Question {number}"}]
    return {"row": number, "messages": asked, "references": [reference], "label": label, "base": base, "tuned": tuned}


ROWS = [
    row(0, "the black cat", "le chat noir"),
    row(1, "le chat noir", "le chien"),
    row(2, "one ", "one"),
    row(3, "nothing", "something"),
    row(4, "le", "le chat"),
]


def test_marks_follow_the_metric() -> None:
    by_words = outputs_table.judged(ROWS, "token_f1")
    assert [one["mark"] for one in by_words] == ["better", "worse", "same", "differ", "better"]
    assert [one["mark"] for one in outputs_table.judged(ROWS, "exact_match")] == [
        "better",
        "worse",
        "both_wrong",
        "both_wrong",
        "both_wrong",
    ]
    labels = [row(0, "The label is a", "A", "a", "a"), row(1, "a", "b", "a", "a"), row(2, "b", "c", "a", "a")]
    assert [one["mark"] for one in outputs_table.judged(labels, "accuracy")] == ["better", "worse", "both_wrong"]
    assert [one["mark"] for one in outputs_table.judged(labels, "lenient_accuracy")] == [
        "both_right",
        "worse",
        "both_wrong",
    ]
    named = [row(0, "good or bad", "good", "good", "good")]
    assert [one["mark"] for one in outputs_table.judged(named, "lenient_accuracy", ["good", "bad"])] == ["better"]
    assert [one["mark"] for one in outputs_table.judged(named, "lenient_accuracy")] == ["both_right"]
    assert outputs_table.metrics_for(labels)[:2] == ("accuracy", "lenient_accuracy")
    assert "accuracy" not in outputs_table.metrics_for(ROWS)
    with pytest.raises(UsageError, match="'bleurt'; choose one of"):
        outputs_table.judged(ROWS, "bleurt")


def numbers(**asked: object) -> list[int]:
    return [one["row"] for one in outputs_table.outputs_page(outputs_table.judged(ROWS, "token_f1"), **asked).rows]  # type: ignore[arg-type]


def test_order_and_filters() -> None:
    assert numbers(sort="gained") == [0, 4, 2, 3, 1] and numbers(sort="lost") == [1, 2, 3, 4, 0]
    assert numbers(filter="better") == [0, 4] and numbers(filter="differ") == [0, 1, 3, 4]
    assert numbers(text="CHIEN") == [1] and numbers(text="question 3") == [3] and numbers(text="nowhere") == []
    assert numbers(label="a") == []
    with pytest.raises(UsageError, match="sort is 'best'"):
        numbers(sort="best")


def test_both_right_and_both_wrong_are_told_where_an_answer_is_one_or_the_other() -> None:
    judged = outputs_table.judged([*ROWS, row(5, "le chat noir", "le chat noir")], "exact_match")
    shown = {
        name: [row["row"] for row in outputs_table.outputs_page(judged, filter=name).rows]
        for name in outputs_table.FILTERS
    }
    assert shown["both_right"] == [5] and shown["both_wrong"] == [2, 3, 4] and shown["differ"] == [0, 1, 3, 4]
    assert judged[1]["right"] == {"base": True, "tuned": False} and judged[1]["score"] == {"base": 1, "tuned": 0}
    assert outputs_table.offered_filters(judged) == list(outputs_table.FILTERS)
    assert "both_right" not in outputs_table.offered_filters(outputs_table.judged(ROWS, "token_f1"))


def test_pages() -> None:
    judged = outputs_table.judged(ROWS, "token_f1")
    page = outputs_table.outputs_page(judged, page=1, size=2)
    assert [one["row"] for one in page.rows] == [2, 3] and (page.page, page.pages, page.total) == (1, 3, 5)
    assert page.counts == {"better": 2, "worse": 1, "both_right": 0, "both_wrong": 0, "differ": 1, "same": 1}
    assert (
        outputs_table.outputs_page(judged, page=99, size=2).page == 2
        and outputs_table.outputs_page([], page=3).pages == 1
    )


def test_a_spreadsheet_runs_nothing_and_gets_everything() -> None:
    risky = ["=1+1", "+1", "-1", "@a", "\tx", "\n=1", "  =1", "＝1"]
    rows = [row(k, risky[k], 'a,"b"\nc') for k in range(len(risky))]
    text = outputs_table.as_csv(outputs_table.judged(rows, "exact_match"))
    read = list(csv.reader(io.StringIO(text)))
    assert [line[4] for line in read[1:]] == [f"'{one}" for one in risky]
    assert {line[5] for line in read[1:]} == {'a,"b"\nc'}
    assert [json.loads(line) for line in files.jsonl(ROWS).splitlines()] == ROWS
