"""Blind votes between any two systems that answered the same rows: stored with whom they are about, counted apart, ranked together."""

from __future__ import annotations

import csv
import io
import json

import pytest

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.errors import UserError
from sftdemo.runs import Run, voting
from sftdemo.runs.voting import Contest
from sftdemo.votes import Store
from sftdemo.votes.pairing import open_contest, sheet
from tests.test_compare_runs import evaluated, row
from tests.test_systems_page import ENDPOINT, run_with_systems

pytestmark = pytest.mark.slow


def key_of(run: Run, base_is: str, tuned_is: str) -> str:
    open_contest(run, base_is, tuned_is)
    return voting.open_contest(run)


def vote(run: Run, key: str, rater: str, winner: str, count: int) -> None:
    """Blind votes for the one who plays `winner`'s part."""
    store = Store()
    for _ in range(count):
        pair = store.next_pair(run, key, rater)
        assert pair is not None
        rows = {r["messages"][0]["content"]: r for r in sheet(run, key).rows.values()}
        is_a = rows[pair.prompt[0]["content"]][winner] == pair.answer_a
        store.vote(pair.ballot, "a" if is_a else "b", rater)


def test_votes_are_about_the_two_systems_that_were_open() -> None:
    run = run_with_systems()
    key = key_of(run, "linear", "tuned")
    assert Contest.parse(key) == Contest("E", "linear", "tuned") and voting.open_evaluation(run) == "E"
    vote(run, key, "ann", "tuned", 6)
    store = Store()
    totals = store.report(run, key).totals
    assert (totals.n, totals.tuned, totals.base, totals.rows) == (6, 6, 0, 30)
    assert store.report(run).totals.n == 0, "base against tuned is another question"
    (line, *_) = csv.DictReader(io.StringIO(store.export(run, "csv")))
    assert (line["evaluation"], line["base_is"], line["tuned_is"]) == ("E", "linear", "tuned")
    assert len(store.export(run, "dpo").splitlines()) == 6 and store.votes_on_others(run) == 6
    assert key_of(run, "base", "tuned") == "E", "as ever"
    vote(run, "E", "ann", "tuned", 2)
    assert store.report(run).totals.n == 2 and store.report(run, key).totals.n == 6


def test_an_answer_that_two_systems_gave_is_voted_on_once_for_each() -> None:
    run = run_with_systems()
    linear, file = (key_of(run, name, "tuned") for name in ("linear", "file:/home/me/answers.jsonl"))
    assert not sheet(run, linear).rows.keys() & sheet(run, file).rows.keys()


def test_all_systems_are_ranked_over_all_votes() -> None:
    run = run_with_systems()
    api, linear = key_of(run, "tuned", ENDPOINT), key_of(run, "linear", "tuned")
    for rater in ("ann", "bob"):
        vote(run, linear, rater, "tuned", 10)
        vote(run, api, rater, "tuned", 10)
    places = Store().ranking(run)
    assert [place.name for place in places] == [ENDPOINT, "r", "linear"]
    assert [place.raters for place in places] == [2, 2, 2] and [place.votes for place in places] == [20, 40, 20]
    assert [place.is_reference for place in places] == [False, True, False], "nobody met the base"
    vote(run, "E", "ann", "tuned", 10)
    places = Store().ranking(run)
    assert [(place.name, place.is_reference) for place in places if place.is_base] == [("base", True)]
    assert places[0].rate > places[1].rate > 0.5


def test_votes_between_runs() -> None:
    first = evaluated("first", [row(k, right=True) for k in range(30)])
    evaluated("second", [row(k, right=k < 10) for k in reversed(range(5, 40))])
    key = key_of(first, "run:second", "tuned")
    assert len(sheet(first, key).rows) == 25 and len(sheet(first, key).asked) == 20
    vote(first, key, "ann", "tuned", 3)
    assert Store().report(first, key).totals.tuned == 3
    other = runs.find("second")
    latest = other.path / "evaluations" / "F"
    files.write_jsonl(latest / "outputs.jsonl", [row(5, right=True)], parents=True)
    files.write_json(latest / "scores.json", {**other.scores("E"), "n": 1, "by_visitor": True})
    assert other.evaluations()[0] == "F" and Store().report(first, key).totals.tuned == 3, "no visitor takes votes away"
    files.write_jsonl(other.path / "evaluations" / "E" / "outputs.jsonl", [row(k, right=True) for k in range(5, 12)])
    assert Store().report(first, key).totals.n == 0, "the other's answers are new ones"


def test_what_cannot_be_voted_on_is_refused_and_a_system_that_is_gone_is_no_question() -> None:
    run = run_with_systems()
    for systems, problem in (
        (("tuned", "tuned"), "can't be voted on against itself"),
        (("copy", "tuned"), "'copy' has no answers"),
        (("linear", "file:/home/me/answers.jsonl"), "gave no different answers"),
        (("run:nobody", "tuned"), "nobody"),
    ):
        with pytest.raises(UserError, match=problem):
            open_contest(run, *systems)
    assert voting.open_contest(run) == "E"
    open_contest(run, "linear", "tuned")
    scores = run.scores("E")
    answers = run.path / "evaluations" / scores["systems"]["linear"]["answers"]
    text = answers.read_text(encoding="utf-8")
    answers.unlink()
    assert voting.open_contest(run) == "E", "without its answers"
    answers.write_text(text, encoding="utf-8")
    assert voting.open_contest(run) != "E"
    files.write_json(run.path / "evaluations" / "E" / "scores.json", {**scores, "systems": {}})
    assert voting.open_contest(run) == "E"


def test_a_run_that_answered_in_the_evaluation_may_be_deleted() -> None:
    run = run_with_systems()
    scores = run.scores("E")
    systems = {**scores["systems"], "run:gone": scores["systems"]["linear"]}
    files.write_json(run.path / "evaluations" / "E" / "scores.json", {**scores, "systems": systems})
    key = key_of(run, "run:gone", "tuned")
    assert Contest.parse(key).base_is == "run:gone"
    vote(run, key, "ann", "tuned", 2)
    store = Store()
    assert store.report(run, key).totals.n == 2
    store.exclude(run, "ann")
    assert store.excluded(run) == {"ann"} and store.report(run, key).totals.n == 0


def test_a_cut_answer_is_marked_only_where_that_is_known_of_both_systems() -> None:
    run = run_with_systems()
    path = run.path / "evaluations" / "E" / "outputs.jsonl"
    files.write_jsonl(path, [{**row, "tuned_cut": True} for row in run.outputs("E")])
    store = Store()
    pair = store.next_pair(run, "E", "ann")
    assert pair and (hints := store.hints(run, pair.ballot, "ann")).cut_a != hints.cut_b
    pair = store.next_pair(run, key_of(run, "linear", "tuned"), "ann")
    assert pair and not (hints := store.hints(run, pair.ballot, "ann")).cut_a and not hints.cut_b


def test_rows_of_one_group_count_as_one() -> None:
    """Five rows that share their fate are one piece of evidence, and the interval says so."""
    alone = evaluated("alone", [row(k, right=True) for k in range(20)])
    grouped = evaluated("grouped", [row(k, right=True, group=f"g{k // 5}") for k in range(20)])
    for run in (alone, grouped):
        for rater in ("ann", "bob"):
            vote(run, "E", rater, "tuned", 10)
    free, tied = (Store().totals(run) for run in (alone, grouped))
    assert (free.prompts, tied.prompts, tied.n) == (20, 4, 20)
    assert tied.low is not None and free.low is not None and tied.low < free.low - 0.2
    assert tied.e_value < free.e_value / 1000


def test_the_command_opens_and_tells_a_contest(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with_systems()
    assert main(["votes", "r", "--between", "linear, tuned", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["base_is"], report["tuned_is"], report["n"]) == ("linear", "tuned", 0)
    assert Contest.parse(voting.open_contest(run)).base_is == "linear"
    assert main(["votes", "r", "--between", "linear"]) == 2 and "give two systems" in capsys.readouterr().err
