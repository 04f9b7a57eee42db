"""What votes come to, and what is exported of them."""

from __future__ import annotations

import csv
import io
import json

import pytest

from sftdemo import files
from sftdemo.errors import UserError
from sftdemo.votes import Store
from tests.test_votes import EVALUATION, make_run, next_pair, row_of, side_of_base, vote_for


def test_totals(store: Store) -> None:
    run = make_run(10, same=4)
    for winner in ("tuned", "tuned", "tuned", "base", "tie", "bad", "skip"):
        vote_for(store, run, winner)
    vote_for(store, run, "tuned", "bob")
    totals = store.totals("words", EVALUATION)
    counts = {"base": 1, "tuned": 4, "tie": 1, "bad": 1, "skip": 1, "same": 4, "raters": 2, "n": 7, "rows": 10}
    value = totals.to_json()
    assert {key: value[key] for key in counts} == counts
    assert value["win_rate"] == 0.8 and value["low"] < 0.8 < value["high"] <= 1
    assert value["prompts"] in (4, 5) and value["needed"] > 5  # bob may have voted on a row of ann's
    assert store.totals(run) == totals


def test_without_a_decisive_vote_there_is_no_rate(store: Store) -> None:
    run = make_run(3)
    empty = store.totals(run)
    assert (empty.n, empty.win_rate, empty.low, empty.high, empty.e_value, empty.needed) == (
        0,
        None,
        None,
        None,
        1,
        None,
    )
    vote_for(store, run, "tie")
    assert store.totals(run).win_rate is None


def test_totals_of_all_evaluations(store: Store) -> None:
    run = make_run(3, same=1)
    make_run(3, same=2, evaluation="second")
    vote_for(store, run, "tuned")
    pair = store.next_pair(run, "second", "ann")
    assert pair is not None and (pair.position, pair.total) == (1, 3)
    store.vote(pair.ballot, "tie", "ann")
    totals = store.totals(run)
    assert (totals.tuned, totals.tie, totals.same) == (1, 1, 3)
    assert store.totals(run, EVALUATION).tie == 0


def test_votes_on_texts_since_replaced_do_not_count(store: Store) -> None:
    run = make_run(2)
    vote_for(store, run, "tuned")
    make_run(2, mark="!")
    assert store.totals(run).n == 0
    assert next_pair(store, run).prompt[0]["content"].endswith("!")


def test_export_of_votes(store: Store) -> None:
    run = make_run(3)
    pair = next_pair(store, run, "=1+1")
    revealed = store.vote(pair.ballot, "a", "=1+1", reason='更短, "clear"', ms=900)
    vote_for(store, run, "tie")
    vote_for(store, run, "bad")
    store.undo("ann", run, EVALUATION)
    records = [json.loads(line) for line in store.export(run, "jsonl").splitlines()]
    assert len(records) == 2
    first = records[0]
    assert first["vote_id"] == pair.ballot
    assert first["winner"] == revealed.winner == first["side_a"]
    assert (first["rater"], first["reason"], first["row"]) == ("=1+1", '更短, "clear"', row_of(pair))
    assert first["time"].startswith("20") and first["time"].endswith("Z")
    table = list(csv.DictReader(store.export(run, "csv").splitlines()))
    assert [row["winner"] for row in table] == [record["winner"] for record in records]
    assert (table[0]["rater"], table[0]["reason"]) == ("'=1+1", '更短, "clear"')
    with pytest.raises(UserError, match="'xml' is no kind of export"):
        store.export(run, "xml")


def test_no_reason_or_name_runs_as_a_formula_in_a_spreadsheet(store: Store) -> None:
    run = make_run(3)
    risky = ["  =1+1", "＝1+1", "\u3000@sum", "\u200b-1"]
    for reason in risky[:3]:
        store.vote(next_pair(store, run, risky[3]).ballot, "a", risky[3], reason=reason)
    table = list(csv.DictReader(io.StringIO(store.export(run, "csv"))))
    assert all(row[key].startswith("'") for row in table for key in ("rater", "reason")), table
    assert files.csv_text(["=1+1", "a"], [["@x", -1]]) == "'=1+1,a\n'@x,-1\n", "columns are strangers' words too"


def test_export_for_dpo_takes_the_majority_of_each_row(store: Store) -> None:
    run = make_run(4)
    wanted = {0: ("tuned", "tuned", "base"), 1: ("base", "base", "tie"), 2: ("tuned", "base", "bad"), 3: ("tie",) * 3}
    for number, rater in enumerate(("ann", "bob", "eve")):
        while pair := store.next_pair(run, EVALUATION, rater):
            winner, base = wanted[row_of(pair)][number], side_of_base(pair)
            store.vote(pair.ballot, {"base": base, "tuned": "ab".replace(base, "")}.get(winner, winner), rater)
    assert [json.loads(line) for line in store.export("words", "dpo", EVALUATION).splitlines()] == [
        {"prompt": [{"role": "user", "content": "Say word 0"}], "chosen": "WORD 0", "rejected": "word 0"},
        {"prompt": [{"role": "user", "content": "Say word 1"}], "chosen": "word 1", "rejected": "WORD 1"},
    ]
