"""A text for the user: English as it stands, and the template and values that another language is made from."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, dataclass

import pytest

from sftdemo.errors import DataError, Fault, Text, UsageError, UserError, sentences


@dataclass
class Holder:
    note: str


TEXT = Text("Run {name!r} has {n:,} rows: {names}; {why}.", name="a{b}", n=1200, names=["x", "y"], why=Text("so it is"))


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        copy.copy(TEXT),
        copy.deepcopy(TEXT),
        pickle.loads(pickle.dumps(TEXT)),
        asdict(Holder(TEXT))["note"],
        Text(TEXT),
    ],
    ids=["made", "copy", "deepcopy", "pickle", "asdict", "again"],
)
def test_a_text_keeps_its_template_and_values(text):
    assert text == "Run 'a{b}' has 1,200 rows: x, y; so it is."
    assert text.key.startswith("Run {name!r} has") and text.values["n"] == 1200
    assert text.values["why"].key == "so it is"
    assert json.loads(json.dumps({"note": text})) == {"note": str(text)}


def test_without_values_braces_are_plain():
    text = Text('Write {"a": {}}.')
    assert text == text.key == 'Write {"a": {}}.' and text.values == {}


def test_a_list_is_written_with_commas_and_by_repr_as_a_list():
    assert Text("{a}; {a!r}", a=["x", Text("{n} y", n=2)]) == "x, 2 y; ['x', '2 y']"


@pytest.mark.parametrize("kind", [UserError, UsageError])
def test_errors_carry_their_text_across_processes(kind):
    error = pickle.loads(pickle.dumps(kind("There is no run {name!r}.", name="x")))
    assert type(error) is kind and str(error) == "There is no run 'x'."
    assert (error.text.key, error.text.values) == ("There is no run {name!r}.", {"name": "x"})
    assert str(kind("plain {text}")) == "plain {text}"


def test_faults_of_data_are_one_line_each():
    faults = [Fault(n, "label", Text("It is empty."), Text("Give {what}.", what="text"), "a.csv") for n in range(3)]
    error = pickle.loads(pickle.dumps(DataError(faults, shown=2)))
    assert error.faults == faults
    assert str(DataError(faults, shown=2)).splitlines() == [
        "a.csv, field 'label': It is empty. Give text.",
        "a.csv, line 1, field 'label': It is empty. Give text.",
        "… and 1 more; `python -m sftdemo check` lists them all.",
    ]
    assert str(Fault(0, "", Text("It is empty."), Text(""), "a.csv")) == "a.csv: It is empty."


def test_sentences_are_one_text():
    text = sentences([Text("A is {n}.", n=1), Text("B."), Text("C.")])
    assert text == "A is 1. B. C." and text.values["first"].key == "A is {n}."
    assert sentences([]) == ""
