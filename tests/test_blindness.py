"""When a rater is told which model wrote what, what that does to later votes, and what is said of a pair before the vote."""

from __future__ import annotations

import json
import sqlite3

import pytest

from sftdemo import files, runs
from sftdemo.runs import Run, voting
from sftdemo.votes import Hints, Store, storage
from tests.test_votes import EVALUATION, events, make_run, next_pair, side_of_base, vote_for


def vote_untold(store: Store, run: Run, rater: str = "ann") -> None:
    pair = next_pair(store, run, rater)
    given = store.vote(pair.ballot, "a", rater, told=False)
    assert (given.base_side, given.choice, given.winner) == ("", "a", ""), "a vote that isn't told tells nothing"


def test_votes_after_the_sides_were_told_count_as_unblinded() -> None:
    run, store = make_run(8), Store()
    for _ in range(3):
        vote_for(store, run, "tuned", "told")
        vote_untold(store, run, "blind")
    assert store.totals(run).unblinded == 2 and store.totals(run).n == 6
    assert {rater.name: rater.unblinded for rater in store.report(run).by_rater} == {"told": 2, "blind": 0}
    own = store.tell(run, EVALUATION, "blind")
    assert len(own) == 3 and {vote.revealed.winner for vote in own} <= {"base", "tuned"}
    assert store.totals(run).unblinded == 2, "what was voted before stays blind"
    vote_untold(store, run, "blind")
    assert {rater.name: rater.unblinded for rater in store.report(run).by_rater} == {"told": 2, "blind": 1}
    told = len(events(store))
    store.tell(run, EVALUATION, "blind")
    assert len(events(store)) == told, "it is noted once"
    assert store.tell(run, EVALUATION, "nobody") == [] and len(events(store)) == told


def test_a_second_post_that_is_told_the_sides_is_noted() -> None:
    run, store = make_run(4), Store()
    pair = next_pair(store, run)
    store.vote(pair.ballot, "a", "ann", told=False)
    assert store.vote(pair.ballot, "b", "ann").winner == ("base" if side_of_base(pair) == "a" else "tuned")
    vote_untold(store, run)
    assert store.totals(run).unblinded == 1


def test_a_file_of_version_2_opens_with_every_vote_and_its_votes_were_told() -> None:
    run, store = make_run(6), Store()
    for winner in ("tuned", "base", "tuned"):
        vote_for(store, run, winner)
    store.undo("ann", run, EVALUATION)
    before = [tuple(event)[:-1] for event in events(store)]
    with sqlite3.connect(store.path, isolation_level=None) as db:  # as version 2 had it
        for name, kind in list(db.execute("SELECT name, type FROM sqlite_master WHERE type IN ('view', 'trigger')")):
            db.execute(f"DROP {kind} {name}")
        db.execute("DROP INDEX events_that_told")
        db.execute("ALTER TABLE events DROP COLUMN told")
        for kind, names in (
            ("VIEW", ("votes", "standing", "excluded", "counted")),
            ("TRIGGER", ("events_keep", "events_stay")),
        ):
            for name in names:
                on = "AS SELECT 1" if kind == "VIEW" else "BEFORE DELETE ON events BEGIN SELECT 1; END"
                db.execute(f"CREATE {kind} {name} {on}")
        db.execute("PRAGMA user_version = 2")
    totals = Store().totals(run)
    assert (totals.tuned, totals.base, totals.unblinded) == (1, 1, 1)
    assert [tuple(event)[:-1] for event in events(store)] == before
    with storage.connection(store.path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == storage.VERSION


def rows(**row: object) -> list[dict[str, object]]:
    plain = {"messages": [{"role": "user", "content": "Which?"}], "references": [], "label": None}
    return [
        {"row": 0, **plain, "base": "one", "tuned": "two", **row},
        {"row": 1, **plain, "base": "x", "tuned": "x", "label": "billing"},
    ]


@pytest.mark.parametrize(
    ("row", "both"),
    [
        ({"label": "account", "references": ["account"], "base": "I can't say", "tuned": "billing"}, "both_wrong"),
        ({"label": "account", "references": ["account"], "base": "It is account.", "tuned": "account"}, "both_right"),
        ({"label": "account", "references": ["account"], "base": "billing", "tuned": "account"}, ""),
        ({"references": ["42"], "base": "It is 41.", "tuned": "43"}, "both_wrong"),
        ({"references": ["42"], "base": "It is 42.", "tuned": "42"}, "both_right"),
        ({"references": ["42"], "base": "It is 42.", "tuned": "41"}, ""),
        ({"references": ['{"a": 1}'], "base": '{"a": 2}', "tuned": "none"}, "both_wrong"),
        ({"references": ["A long answer that may be said in many other ways."]}, ""),
        ({"references": [], "base": "Yes, of course!", "tuned": "yes of course"}, "same_words"),
    ],
)
def test_what_both_answers_are_is_told_where_it_is_known(row: dict[str, object], both: str) -> None:
    run, store = make_run(1), Store()
    files.write_jsonl(run.path / "evaluations" / EVALUATION / "outputs.jsonl", rows(**row))
    pair = next_pair(store, run)
    hints = store.hints(run, pair.ballot, "ann")
    assert hints == Hints(both=both)
    assert store.hints(run, pair.ballot, "eve") == store.hints(run, "made up", "ann") == Hints()


def test_a_cut_answer_is_marked_on_its_side() -> None:
    run, store = make_run(1), Store()
    files.write_jsonl(run.path / "evaluations" / EVALUATION / "outputs.jsonl", rows(base_cut=True, tuned_cut=False))
    pair = next_pair(store, run)
    hints = store.hints(run, pair.ballot, "ann")
    assert (hints.cut_a, hints.cut_b) == (pair.answer_a == "one", pair.answer_b == "one")


def test_the_time_of_a_vote_is_measured_where_enough_are_timed() -> None:
    run, store = make_run(12), Store()
    assert store.seconds_a_vote(run) is None and store.pairs(run, EVALUATION) == 12
    for ms in (8_000, 9_000, 10_000, 11_000, 90_000_000, 12_000):  # one went for a walk
        store.vote(next_pair(store, run).ballot, "tie", "ann", ms=ms)
    assert store.seconds_a_vote(run) == 10 and store.seconds_a_vote(make_run(2, name="other")) == 10


def test_what_the_owner_decided_about_votes_stands_beside_what_is_open() -> None:
    run = make_run(3)
    assert not voting.tells_each_vote(run)
    voting.open_for_votes(run, EVALUATION)
    voting.tell_each_vote(run, True)
    assert voting.tells_each_vote(run) and voting.open_evaluation(run) == EVALUATION
    voting.open_for_votes(run, EVALUATION)
    assert voting.tells_each_vote(run), "opening an evaluation leaves the rest"
    (run.path / "voting.json").write_text(json.dumps({"tell_each_vote": "yes"}), encoding="utf-8")
    assert not voting.tells_each_vote(run) and voting.open_evaluation(run) == EVALUATION
    voting.tell_each_vote(run, False)
    assert not voting.tells_each_vote(run) and voting.open_evaluation(runs.named(run.name)) == EVALUATION
