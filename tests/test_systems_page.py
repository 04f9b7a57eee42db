"""Other systems on the page: their table and picture, the one that others are compared with, and the rows that one gets right."""

from __future__ import annotations

import csv
import io
import re
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import files, runs
from sftdemo.errors import UserError
from sftdemo.runs import Run, voting
from sftdemo.ui.access import rights
from sftdemo.ui.parts import systems
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import ballot, outputs
from sftdemo.ui.tabs.outputs import OutputsView
from sftdemo.ui.tabs.systems_view import SystemsView
from sftdemo.ui.tabs.vote_results import VoteResults
from sftdemo.verbs import other_systems
from sftdemo.votes.pairing import open_contest
from tests.test_compare_runs import evaluated, row
from tests.test_tabs import pick, request

pytestmark = pytest.mark.slow

ENDPOINT = "api:m@http://10.0.0.9:8000/v1"


def run_with_systems(name: str = "r", rows: int = 40) -> Run:
    """A run whose tuned model has 30 rows right; beside it a linear model with 20, an endpoint with all, and a file."""
    run = evaluated(name, [row(k, right=k < 30) for k in range(rows)])
    run.write_status("finished", seconds=12.5)
    evaluation = run.evaluations()[0]
    right = [each["references"][0] for each in run.outputs(evaluation)]
    costs: dict[str, dict[str, Any]] = {
        "linear": {"ms_per_answer": 0.2, "training_seconds": 0.5, "bytes": 2_000_000},
        ENDPOINT: {
            "ms_per_answer": 900.0,
            "tokens": {"prompt_tokens": 70, "completion_tokens": 9},
            "about": {"model": "m-1"},
        },
        "file:/home/me/answers.jsonl": {},
    }
    scores = {**run.scores(evaluation), "ms_per_answer": 50.0}
    for place, (system, facts) in enumerate(costs.items()):
        texts = [text if system == ENDPOINT or k >= 20 else "no" for k, text in enumerate(right)]
        path = f"{evaluation}/systems/{place}.jsonl"
        (run.path / "evaluations" / path).parent.mkdir(exist_ok=True)
        files.write_jsonl(run.path / "evaluations" / path, [{"row": k, "answer": text} for k, text in enumerate(texts)])
        scores = other_systems.compared(run, evaluation, scores, {system: {"key": "k", "answers": path, **facts}})  # type: ignore[arg-type, typeddict-item]
    files.write_json(run.path / "evaluations" / evaluation / "scores.json", scores)
    return run


def test_the_table_and_the_picture_of_systems() -> None:
    run = run_with_systems()
    scores = run.scores(run.evaluations()[0])
    shown = systems.systems(scores, "en", owner=True, run=run.name)
    assert (
        "On 40 rows the tuned model loses to m at 10.0.0.9:8000" in shown
        and "the other costs 18 times the time per answer" in shown
    )
    assert shown.count("<circle") == 4 and shown.count('class="whisker"') == 4, "the file has no time"
    assert "Without a time: answers.jsonl" in shown and ">m at 10.0.0.9:8000</span>" in shown
    assert ">10.0.0.9:8000 上的 m</span>" in systems.systems(scores, "zh", owner=True)
    assert f'title="{ENDPOINT}"' in shown and "70 prompt tokens, 9 answer tokens" in shown
    svg, figures = (unquote(text) for text in re.findall('href="data:[^,]*,([^"]*)"', shown))
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    ticks = re.findall('<text x="([0-9.]+)" y="226"[^>]*>([^<]*)<', svg)
    assert [text for _, text in ticks] == ["0.1", "1", "10", "100", "1000 ms"], "nothing else stands in their line"
    table = list(csv.DictReader(io.StringIO(figures.removeprefix("\ufeff"))))
    assert table[0]["system"] == ENDPOINT and len(table) == 5
    assert {line["ms_per_answer"] for line in table} == {"900.0", "0.2", "50.0", ""}
    for entry in systems.entries(scores, "en", True):
        assert entry.interval and entry.interval[0] <= entry.score <= entry.interval[1]


def test_another_run_is_called_by_its_title() -> None:
    run, other = run_with_systems(), evaluated("other-1128-1", [row(k, right=True) for k in range(40)])
    runs.rename(other, "Best of May")
    evaluation, name = run.evaluations()[0], f"run:{other.name}"
    facts = {"key": "k", "answers": f"{evaluation}/systems/0.jsonl"}
    scores = other_systems.compared(run, evaluation, run.scores(evaluation), {name: facts})  # type: ignore[arg-type, typeddict-item]
    shown = systems.systems(scores, "en", owner=True, run=run.name)
    assert "the run Best of May" in shown and ">Best of May<" in shown and name not in unquote(shown)
    assert "Best of May" not in systems.systems(scores, "en", owner=False, run=run.name)


def test_letters_of_points_in_one_place_stand_side_by_side() -> None:
    points = [(100.0, 50.0), (100.0, 50.0), (300.0, 50.0), (104.0, 52.0)]
    assert [systems.letter_x(points, place) - points[place][0] for place in range(4)] == [10, 26, 10, 42]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_visitors_see_no_address_and_no_path(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with_systems()
    scores = run.scores(run.evaluations()[0])
    shown = systems.systems(scores, lang, owner=False, run=run.name)
    offered = systems.choices(list(scores["systems"]), lang, owner=False)
    monkeypatch.setattr(rights, "current", lambda: rights.Visitor("visitor", "v"))
    view, rows, asked = outputs_view(run)
    drawn = [rows[view.beside], view.open_row(request(), pick("3"), **asked | {"beside": "3"}, at=0)]
    texts = (shown, str(offered), str(drawn))
    assert not any(secret in unquote(text) for text in texts for secret in ("10.0.0.9", "/home", "m-1"))


def test_differences_to_a_chosen_system() -> None:
    run = run_with_systems()
    with gr.Blocks() as blocks:
        view = SystemsView(Page(blocks, run=gr.State(None)), gr.HTML())
    scores = run.scores(run.evaluations()[0])
    shown = view.show(run, run.evaluations()[0], scores, "en")
    assert shown[view.to]["visible"] and [value for _, value in shown[view.to]["choices"]] == list("01234")
    redrawn = view.compare(run.name, "2", request())[view.view]
    assert (
        "Linear model of words minus it" in redrawn
        and "clear difference between the linear model and the tuned model" in redrawn
    )
    for place in ("5", "-1", "x", None):
        with pytest.raises(UserError, match="isn't in this evaluation"):
            view.compare(run.name, place, request())  # type: ignore[arg-type]


def outputs_view(run: Run) -> tuple[OutputsView, dict[Any, Any], dict[str, Any]]:
    """The rows of a run's evaluation, what they show first, and what a handler is asked with."""
    with gr.Blocks() as blocks:
        view = OutputsView(Page(blocks, run=gr.State(None)), gr.HTML())
    asked = {"run_name": run.name, "metric": "accuracy", "sort": "row", "label": "", "filter": "all", "search": ""}
    return view, view.show(run, run.evaluations()[0], "en"), asked


def numbers(shown: dict[Any, Any], view: OutputsView) -> list[int]:
    return [int(number) for number in re.findall('data-pick="([0-9]+)"', shown[view.table])]


def test_rows_that_one_system_alone_has_right_and_its_regressions() -> None:
    """Of 40 rows tuned has the first 30 right, a file the last 20, base none."""
    run = evaluated("only", [row(k, right=k < 30) for k in range(40)])
    evaluation, rows = run.evaluations()[0], run.outputs(run.evaluations()[0])
    path = f"{evaluation}/systems/0.jsonl"
    answers = [{"row": k, "answer": rows[k]["references"][0] if k >= 20 else "no"} for k in range(40)]
    (run.path / "evaluations" / path).parent.mkdir()
    files.write_jsonl(run.path / "evaluations" / path, answers)
    name = "file:/home/me/answers.jsonl"
    scores = other_systems.compared(run, evaluation, run.scores(evaluation), {name: {"key": "k", "answers": path}})  # type: ignore[arg-type, typeddict-item]
    files.write_json(run.path / "evaluations" / evaluation / "scores.json", scores)
    view, shown, asked = outputs_view(run)
    shown_name = "answers.jsonl"
    assert shown[view.beside]["choices"] == [("base", "0"), (shown_name, "2")] and shown[view.beside]["visible"]
    only = [choice for choice in shown[view.filter]["choices"] if choice[1].startswith("only")]
    assert only == [("Only base is right", "only_base"), ("Only tuned is right", "only_tuned")]
    listed = view.list_rows(request(), **asked | {"filter": "only_tuned"})
    assert numbers(listed, view) == list(range(20)), "the rows that the file has right, too, are left out"
    assert numbers(view.list_rows(request(), **asked | {"filter": "only_base"}), view) == []
    listed = view.list_rows(request(), **asked | {"filter": "only_base", "beside": "2"})
    assert numbers(listed, view) == list(range(30, 40)) and f"<th>{shown_name}</th>" in listed[view.table]
    assert (f"Only {shown_name} is right", "only_base") in listed[view.filter]["choices"]
    lost = numbers(view.list_rows(request(), **asked | {"sort": "lost", "beside": "2"}), view)
    assert lost == [*range(30, 40), *range(20, 30), *range(20)], "lost to the file, the same, won"
    opened = view.open_row(request(), pick("35"), **asked | {"beside": "2"}, at=0)
    assert "Other systems" in opened[view.opened] and shown_name in opened[view.opened]
    assert not opened[view.why["base"]]["visible"], "a file says nothing of why"
    for place in ("1", "3", "x", None):
        with pytest.raises(
            UserError, match="other than the tuned model" if place == "1" else "isn't in this evaluation"
        ):
            view.list_rows(request(), **asked | {"beside": place})


def test_regressions_by_a_graded_metric_are_sorted_by_how_much() -> None:
    run = run_with_systems()
    view, _, asked = outputs_view(run)
    shown = view.list_rows(
        request(), **asked | {"metric": "chrf", "sort": "lost", "beside": "2", "filter": "only_base"}
    )
    rows = outputs.judged_rows(run.name, "chrf", "2")
    gains = [next(row["gain"] for row in rows if row["row"] == number) for number in numbers(shown, view)]
    assert gains == sorted(gains) and gains[0] < 0, "all rows: of shares of characters none is simply right"


def test_nothing_is_shown_of_systems_that_were_not_asked() -> None:
    run = evaluated("plain", [row(k, right=True) for k in range(5)])
    with gr.Blocks() as blocks:
        view = SystemsView(Page(blocks, run=gr.State(None)), gr.HTML())
    shown = view.show(run, run.evaluations()[0], run.scores(run.evaluations()[0]), "en")
    assert shown[view.view] == "" and not shown[view.to]["visible"]
    rows, shown, _ = outputs_view(run)
    assert not shown[rows.beside]["visible"] and "Only" not in str(shown[rows.filter]["choices"])


def test_raters_are_told_who_was_who_of_any_two_systems() -> None:
    run = run_with_systems()
    open_contest(run, "linear", "tuned")
    key = voting.open_contest(run)
    names = ballot.names_of(run, key, "en", owner=False)
    assert names == {"base": "Linear model of words", "tuned": "tuned"}
    revealed = {"base_side": "a", "choice": "a", "winner": "base"}
    assert "You chose Linear model of words." in ballot.verdict(revealed, "en", names)
    pair = {"answer_a": "x", "answer_b": "y", "position": 1, "total": 2, "prompt": [{"role": "user", "content": "q"}]}
    assert "Linear model of words" in ballot.cards(pair, {}, "en", revealed, names)
    assert "Linear" not in ballot.cards(pair, {}, "en"), "blind before"
    open_contest(run, ENDPOINT, "tuned")
    assert "10.0.0.9" not in str(ballot.names_of(run, voting.open_contest(run), "zh", owner=False))


def test_the_owner_chooses_whom_raters_are_asked_about() -> None:
    run = run_with_systems()
    with gr.Blocks() as blocks:
        results = VoteResults(Page(blocks, run=gr.State(None)), gr.Tab())
    shown = results.show(run.name, "rows", request())
    assert [shown[menu]["value"] for menu in results.parts] == ["base", "tuned"]
    shown = results.choose_systems(run.name, "linear", "tuned", "rows", request())
    assert [shown[menu]["value"] for menu in results.parts] == ["linear", "tuned"]
    assert "“base” stands for Linear model of words" in shown[results.head]
    plain = evaluated("plain", [row(k, right=True) for k in range(5)])
    assert not any(results.show(plain.name, "rows", request())[menu]["visible"] for menu in results.parts)
