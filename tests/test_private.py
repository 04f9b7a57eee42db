"""What visitors aren't told: paths on the server, others' names; and that texts from outside are drawn as text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import files, runs
from sftdemo.errors import UserError
from sftdemo.ui import api
from sftdemo.ui.access import private, rights
from sftdemo.ui.parts import forms, html
from sftdemo.ui.tabs import evaluate, run_comparison
from tests.test_ui import made_run

VISITOR = rights.Visitor("visitor", "v")


@pytest.fixture
def as_visitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rights, "current", lambda: VISITOR)
    yield


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("There is no file /home/ann/private/list.csv; give one.", "There is no file list.csv; give one."),
        ("'/home/ann b/my list.csv' is empty", "'my list.csv' is empty"),
        ("~/secret/x.csv, line 3", "x.csv, line 3"),
        ("file:/home/ann/x.csv, data:~/b/y.csv file:///srv/z.csv", "file:x.csv, data:y.csv file://z.csv"),
        ("5 tokens/s and/or 3/4 of owner/name", "5 tokens/s and/or 3/4 of owner/name"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("</div> <b>x</b>", "</div> <b>x</b>"),
        ("/", "/"),
    ],
)
def test_a_path_is_its_last_name_to_visitors(text: str, public: str) -> None:
    assert private.without_paths(text) == public


@pytest.mark.parametrize(
    ("name", "value", "public"),
    [
        ("data", "/home/alice/my project/x.csv", "x.csv"),
        ("edits", "private/e.jsonl", "e.jsonl"),
        ("model", "/srv/my models/m", "m"),
        ("system", "as in /srv/a/b.txt", "as in b.txt"),
    ],
)
def test_runs_beside_each_other_tell_visitors_no_folders(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, public: str
) -> None:
    assert run_comparison.shown_value(name, value) == value, "the owner's"
    monkeypatch.setattr(rights, "current", lambda: VISITOR)
    assert run_comparison.shown_value(name, value) == public


def test_the_home_is_named_to_its_owner_alone(as_visitor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{runs.home()}/votes.sqlite: disk full"
    for said in (private.shown(text), html.fault(text), forms.explained(UserError("{text}", text=text))):
        assert str(runs.home()) not in said and "votes.sqlite" in said
    monkeypatch.setattr(rights, "current", lambda: rights.LOCAL)
    assert private.shown(text) == text


def test_the_list_of_runs_tells_no_paths(as_visitor: None) -> None:
    """A run that waits for its training has no more than its settings, and an upload's path in them."""
    runs.create("fresh", "", {"settings": {"data": f"{runs.home()}/tmp/0a1b/my data.csv", "model": "/srv/models/m"}})
    files.write_json(
        runs.named("fresh").path / "status.json", {"state": "failed", "error": f"{runs.home()}/tmp/x: gone"}
    )
    made_run("other")
    lines = api.list_runs()
    assert str(runs.home()) not in str(lines) and "/srv" not in str(lines)
    line = next(line for line in lines if line["name"] == "fresh")
    assert (line["data"], line["model"], line["sha256"]) == ("my data.csv", "m", None)


def test_nobody_is_told_where_an_upload_lies() -> None:
    runs.create("fresh", "", {"settings": {"data": f"{runs.home()}/tmp/0a1b/my data.csv * 2 + support_tickets"}})
    assert api.list_runs()[0]["data"] == "my data.csv * 2 + support_tickets"
    scores = {"outputs": "/a/b/outputs.jsonl", "settings": {"data": "/a/b.csv", "seed": 1}}
    assert evaluate.public_scores(scores) == {"outputs": "outputs.jsonl", "settings": {"data": "b.csv", "seed": 1}}


def test_an_unknown_run_is_told_without_others_names() -> None:
    made_run("others")
    with pytest.raises(UserError) as fault:
        runs.named("nowhere")
    assert "others" not in str(fault.value) and str(runs.home()) not in str(fault.value)
    with pytest.raises(UserError) as fault:
        runs.named("../" * 5000)
    assert len(str(fault.value)) < 300


def test_a_toast_is_text() -> None:
    def handler() -> None:
        raise UserError("There is no run {name!r}.", name="<img src=//host/x.png>&lt;")

    for run in (
        lambda: next(iter(forms.as_error(handler)() or ())),
        lambda: list(forms.shown_errors(handler, "place")()),
    ):
        with pytest.raises(gr.Error) as error:
            run()
        assert "<" not in error.value.message and "&lt;img" in error.value.message
