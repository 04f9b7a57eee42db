"""Accuracy and F1 of labels, by hand."""

import json

import pytest

from sftdemo.errors import UserError
from sftdemo.evaluation import metrics


def labels(*places):
    return [str(place) for place in places]


def test_accuracy_and_confusion():
    found = metrics.classification(predictions=labels(0, 1, 1, 2, 1, 0), references=labels(0, 1, 2, 0, 1, 2))
    assert found["accuracy"] == 0.5
    assert found["confusion"] == [[1, 0, 1, 0], [0, 2, 0, 0], [1, 1, 0, 0]]


def test_f1():
    found = metrics.classification(predictions=labels(0, 2, 1, 0, 0, 1), references=labels(0, 1, 2, 0, 1, 2))
    assert found["macro_f1"] == pytest.approx(0.8 / 3)
    assert [scores["f1"] for scores in found["per_class"].values()] == pytest.approx([0.8, 0, 0])
    assert sum(scores["recall"] for scores in found["per_class"].values()) / 3 == pytest.approx(1 / 3)


def test_a_label_is_the_whole_answer():
    answers = [" Positive\n", "positive.", "It is positive", "", "neg"]
    found = metrics.classification(predictions=answers, references=["positive"] * 5, labels=["negative", "positive"])
    assert found["accuracy"] == 0.2 and found["unparsed"] == 4
    assert found["confusion"] == [[0, 0, 0], [0, 1, 4]]
    assert found["macro_f1"] == pytest.approx(2 * 0.2 / 1.2)
    json.dumps(found)


def test_case_decides_where_labels_differ_in_case_alone():
    assert metrics.parse_labels(["may", "May", "MAY", "JUNE"], ["May", "may", "June"]) == [1, 0, 3, 2]


def test_chinese_labels():
    found = metrics.classification(predictions=["积极", "消极"], references=["积极", "积极"], labels=["积极", "消极"])
    assert found["accuracy"] == 0.5


def test_a_perfect_model_has_macro_f1_of_1_without_some_class():
    found = metrics.classification(predictions=["a", "b"], references=["a", "b"], labels=["a", "b", "c"])
    assert found["macro_f1"] == 1.0


def test_an_undeclared_label_is_named():
    with pytest.raises(UserError, match=r"Row 2: the label 'd' is not among: a, b"):
        metrics.classification(predictions=["a", "a"], references=["a", "d"], labels=["a", "b"])


def test_thousands_of_labels_make_no_matrix():
    """Its cells would be millions, and the run's file too large to be read."""
    names = [f"code {number}" for number in range(3000)]
    answers = [*names[:2990], *(["none of them"] * 10)]
    found = metrics.classification(predictions=answers, references=names)
    assert "confusion" not in found and found["unparsed"] == 10 and found["accuracy"] == 2990 / 3000
    assert found["per_class"]["code 2989"]["f1"] == 1 and found["per_class"]["code 2990"]["recall"] == 0
