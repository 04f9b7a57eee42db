"""Votes: blind, balanced, never lost once acknowledged, counted once."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sftdemo import files, runs
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.votes import Pair, Revealed, Store, pairing, storage

ROOT = Path(__file__).parents[1]
EVALUATION = "held-out"

# Votes on everything, and says each vote only when it is acknowledged.
VOTER = """
import sys
from sftdemo.errors import UserError
from sftdemo.runs import find
from sftdemo.votes import Store
rater, choice = sys.argv[1:]
run, store = find("words"), Store()
try:
    while pair := store.next_pair(run, "held-out", rater):
        store.vote(pair.ballot, choice, rater)
        print(pair.ballot, flush=True)
except UserError as error:
    sys.exit(str(error))
"""


def make_run(different: int, same: int = 0, name: str = "words", evaluation: str = EVALUATION, mark: str = "") -> Run:
    """A run with an evaluation; the first rows have answers that differ, the last ones answers that don't.

    Base answers in small letters, tuned ones in capitals; neither names its side.
    """
    run = Run(runs.home() / "runs" / name)
    rows = [
        {
            "row": number,
            "messages": [{"role": "user", "content": f"Say word {number}{mark}"}],
            "references": [f"Word {number}"],
            "label": None,
            "base": f"word {number}",
            "tuned": f"WORD {number}" if number < different else f"word {number}\n",
        }
        for number in range(different + same)
    ]
    files.write_json(run.path / "config.json", {})
    files.write_jsonl(run.path / "evaluations" / evaluation / "outputs.jsonl", rows)
    files.write_json(
        run.path / "evaluations" / evaluation / "scores.json",
        {"n": len(rows), "base": {}, "tuned": {}, "difference": {}},
    )
    return run


def next_pair(store: Store, run: Run, rater: str = "ann") -> Pair:
    pair = store.next_pair(run, EVALUATION, rater)
    assert pair is not None
    return pair


def side_of_base(pair: Pair) -> str:
    return "a" if pair.answer_a.islower() else "b"


def row_of(pair: Pair) -> int:
    return int(pair.answer_a.split()[1])


def vote_for(store: Store, run: Run, winner: str, rater: str = "ann") -> Revealed:
    pair = next_pair(store, run, rater)
    base = side_of_base(pair)
    choice = {"base": base, "tuned": "ab".replace(base, "")}.get(winner, winner)
    return store.vote(pair.ballot, choice, rater)


def events(store: Store) -> list[sqlite3.Row]:
    with storage.connection(store.path) as db:
        return db.execute("SELECT * FROM events ORDER BY id").fetchall()


def voter(rater: str, choice: str = "a", **settings: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", VOTER, rater, choice],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("total", [1, 12, 13, 20, 32, 33, 40, 600])
def test_as_many_pairs_come_again_for_each_rater(total: int) -> None:
    """So that an invitation can say how many pairs there are."""
    for rater in map(str, range(40)):
        places = pairing.repeats(rater, EVALUATION, total)
        assert len(places) == len(pairing.repeated(total)) == (total + 7) // 20
        for start, place in zip(pairing.repeated(total), places, strict=True):
            assert start + pairing.APART < place < min(start + 20, total)


def test_nothing_in_a_pair_tells_the_sides(store: Store) -> None:
    pair = next_pair(store, make_run(10))
    shown = (repr(pair) + json.dumps(dataclasses.asdict(pair))).casefold()
    assert "base" not in shown and "tuned" not in shown
    assert {field.name for field in dataclasses.fields(pair)} == {
        "ballot",
        "position",
        "total",
        "prompt",
        "answer_a",
        "answer_b",
    }


def test_blanks_at_the_ends_do_not_tell_the_sides(store: Store) -> None:
    run = make_run(1)
    rows = run.outputs(EVALUATION)
    rows[0]["tuned"] = " WORD 0\n"
    files.write_jsonl(run.path / "evaluations" / EVALUATION / "outputs.jsonl", rows)
    pair = next_pair(store, run)
    assert sorted([pair.answer_a, pair.answer_b]) == ["WORD 0", "word 0"]


def test_a_reload_gives_the_same_ballot(store: Store) -> None:
    run = make_run(10)
    assert next_pair(store, run) == next_pair(Store(), run)
    assert next_pair(store, run) != next_pair(store, run, "bob")


def test_progress_and_end(store: Store) -> None:
    run = make_run(3, same=2)
    for position in (1, 2, 3):
        pair = next_pair(store, run)
        assert (pair.position, pair.total) == (position, 3)
        store.vote(pair.ballot, "tie", "ann")
    assert store.next_pair(run, EVALUATION, "ann") is None


def test_equal_answers_are_counted_and_never_served(store: Store) -> None:
    run = make_run(4, same=3)
    seen = []
    while pair := store.next_pair(run, EVALUATION, "ann"):
        seen.append(row_of(pair))
        store.vote(pair.ballot, "a", "ann")
    assert sorted(seen) == [0, 1, 2, 3]
    assert store.totals(run).same == 3
    assert store.next_pair(make_run(0, same=2, name="alike"), EVALUATION, "ann") is None


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_each_rater_sees_the_base_left_in_half_of_the_rows(store: Store, size: int) -> None:
    run = make_run(size)
    orders = []
    for rater in ("ann", "bob", "eve"):
        sides = []
        while pair := store.next_pair(run, EVALUATION, rater):
            sides.append(side_of_base(pair))
            assert store.vote(pair.ballot, "tie", rater).base_side == sides[-1]
        assert abs(sides.count("a") - sides.count("b")) <= 1
        orders.append("".join(sides))
    if size == 30:  # equal by chance once in 10^7
        assert len(set(orders)) == 3


def test_the_side_is_random_at_every_position() -> None:
    """Over 2,000 raters of four rows each place has the base left about half the time, the first three not foretold."""
    left = Counter[int]()
    pairs = Counter[tuple[str, str]]()
    for _ in range(2000):
        sides: list[str] = []
        for place in range(4):
            sides.append(pairing.draw_side(sides, 4))
            left[place] += sides[-1] == "base"
        assert sides.count("base") == 2
        pairs[sides[0], sides[1]] += 1
    assert all(abs(count - 1000) < 135 for count in left.values())  # six standard deviations
    assert pairs["base", "base"] > 200  # a block of two would never allow it


def test_odd_numbers_of_rows_lean_to_neither_side() -> None:
    sums = Counter[int]()
    for _ in range(2000):
        sides: list[str] = []
        for _ in range(3):
            sides.append(pairing.draw_side(sides, 3))
        sums[sides.count("base")] += 1
    assert set(sums) == {1, 2} and abs(sums[1] - 1000) < 135


def test_the_rows_with_the_fewest_votes_come_first(store: Store) -> None:
    run = make_run(12)
    asked = Counter[int]()
    for rater in ("ann", "bob", "eve", "dan"):
        for _ in range(3):
            pair = next_pair(store, run, rater)
            asked[row_of(pair)] += 1
            store.vote(pair.ballot, "a", rater)
    assert set(asked.values()) == {1} and len(asked) == 12


def test_raters_start_at_different_rows(store: Store) -> None:
    run = make_run(50)
    assert len({row_of(next_pair(store, run, f"rater {number}")) for number in range(8)}) > 4


def test_a_vote_reveals_the_sides(store: Store) -> None:
    run = make_run(6)
    assert vote_for(store, run, "tuned").winner == "tuned"
    assert vote_for(store, run, "base").winner == "base"
    for choice in ("tie", "bad", "skip"):
        revealed = vote_for(store, run, choice)
        assert (revealed.choice, revealed.winner) == (choice, choice)


def test_a_second_post_changes_nothing_and_gets_the_first_answer(store: Store) -> None:
    run = make_run(2)
    pair = next_pair(store, run)
    first = store.vote(pair.ballot, "a", "ann", reason="shorter", ms=1200)
    before = [tuple(event) for event in events(store)]
    assert store.vote(pair.ballot, "b", "ann", reason="other") == first
    assert [tuple(event) for event in events(store)] == before
    assert (before[0], len(before)) == (tuple(events(store)[0]), 1)
    assert (events(store)[0]["reason"], events(store)[0]["ms"]) == ("shorter", 1200)


def test_a_second_post_of_a_vote_taken_back_does_not_bring_it_back(store: Store) -> None:
    run = make_run(2)
    pair = next_pair(store, run)
    store.vote(pair.ballot, "a", "ann")
    store.undo("ann", run, EVALUATION)
    store.vote(pair.ballot, "b", "ann")
    assert store.totals(run).n == 0


@pytest.mark.parametrize(
    ("ballot", "choice", "rater", "says"),
    [
        (None, "c", "ann", "'c' is no choice"),
        (None, "a", "bob", "not given to 'bob'"),
        ("made-up", "a", "ann", "'made-up' was not given"),
        ("", "a", "ann", "ballot has 0 characters"),
        (None, "a", "  ", "rater's name has 0 characters"),
        (None, "a", "x" * 101, "101 characters"),
    ],
)
def test_bad_votes_are_refused(store: Store, ballot: str | None, choice: str, rater: str, says: str) -> None:
    pair = next_pair(store, make_run(2))
    with pytest.raises(UserError, match=says):
        store.vote(pair.ballot if ballot is None else ballot, choice, rater)
    assert events(store) == []


def test_too_long_a_reason_is_refused_and_half_an_emoji_is_not(store: Store) -> None:
    pair = next_pair(store, make_run(2))
    with pytest.raises(UserError, match="2001 characters"):
        store.vote(pair.ballot, "a", "ann", reason="x" * 2001)
    store.vote(pair.ballot, "a", "ann", reason="好\ud83d", ms=-5)
    assert (events(store)[0]["reason"], events(store)[0]["ms"]) == ("好?", 0)


@pytest.mark.parametrize("name", ["", "../other", "none"])
def test_an_unknown_evaluation_is_named(store: Store, name: str) -> None:
    run = make_run(2)
    with pytest.raises(UserError, match="it has: held-out"):
        store.next_pair(run, name, "ann")


def test_undo_takes_the_last_vote_back_and_serves_its_row_with_the_same_sides(store: Store) -> None:
    run = make_run(5)
    vote_for(store, run, "base")
    pair = next_pair(store, run)
    store.vote(pair.ballot, "a", "ann")
    opened = next_pair(store, run)
    store.undo("ann", run, EVALUATION)
    again = next_pair(store, run)
    assert again.ballot not in (pair.ballot, opened.ballot)
    assert dataclasses.replace(again, ballot=pair.ballot) == pair
    store.vote(again.ballot, "tie", "ann")
    assert next_pair(store, run) == opened
    totals = store.totals(run)
    assert (totals.base, totals.tuned, totals.tie, totals.n) == (1, 0, 1, 2)
    assert [event["kind"] for event in events(store)] == ["vote", "vote", "undo", "vote"]


def test_undo_goes_back_vote_by_vote_and_is_each_raters_own(store: Store) -> None:
    run = make_run(5)
    for winner in ("base", "tuned", "bad"):
        vote_for(store, run, winner)
    vote_for(store, run, "tie", "bob")
    for left in (2, 1, 0):
        store.undo("ann", run, EVALUATION)
        assert store.totals(run).n == left + 1
    with pytest.raises(UserError, match="no vote to take back"):
        store.undo("ann", run, EVALUATION)
    assert store.totals(run).tie == 1


def test_events_cannot_be_changed_or_removed(store: Store) -> None:
    vote_for(store, make_run(2), "tuned")
    for statement in ("UPDATE events SET choice = 'tie'", "DELETE FROM events"):
        with pytest.raises(UserError, match="append-only"), storage.connection(store.path) as db:
            db.execute(statement)
    assert len(events(store)) == 1


def test_threads_vote_at_once_and_each_ballot_counts_once(store: Store) -> None:
    run = make_run(15)

    def vote_all(rater: str) -> None:
        while pair := store.next_pair(run, EVALUATION, rater):
            store.vote(pair.ballot, "tie", rater)

    # Two threads a rater: a browser that posts twice.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(vote_all, ["ann", "bob", "eve", "dan"] * 2))
    totals = store.totals(run)
    assert (totals.tie, totals.raters) == (60, 4)
    assert len(events(store)) == 60 + 4 * len(pairing.repeated(15)), "what comes again isn't counted"


def test_the_first_of_two_posts_at_once_wins_for_both(store: Store) -> None:
    run = make_run(1)
    pair = next_pair(store, run)
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda choice: store.vote(pair.ballot, choice, "ann"), ["a", "b", "tie", "bad"] * 2))
    assert len(answers) == 1 and len(events(store)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("rows", [15, pytest.param(600, marks=pytest.mark.slow)])
def test_killed_processes_lose_no_acknowledged_vote(rows: int) -> None:
    """Four raters in four processes, each killed again and again in mid-work, until all is voted on."""
    run = make_run(rows)
    acknowledged: dict[str, list[str]] = defaultdict(list)
    choices = dict(zip(("ann", "bob", "eve", "dan"), ("a", "b", "tie", "bad"), strict=True))
    kills = Counter[str]()

    def keep_killing(rater: str) -> None:
        chance = random.Random(rater)
        while True:
            with voter(rater, choices[rater]) as child:
                assert child.stdout and child.stderr
                patience = chance.randint(rows // 12, rows // 2)
                for line in child.stdout:
                    acknowledged[rater].append(line.strip())
                    patience -= 1
                    if not patience:
                        child.kill()
            if child.returncode != -signal.SIGKILL:
                assert child.returncode == 0, child.stderr
                return
            kills[rater] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep_killing, choices))
    stored = {event["vote_id"]: event for event in events(Store())}
    for rater, ballots in acknowledged.items():
        assert len(ballots) == len(set(ballots))
        assert {(stored[ballot]["rater"], stored[ballot]["choice"]) for ballot in ballots} == {(rater, choices[rater])}
    looks = sum(rows + len(pairing.repeats(rater, EVALUATION, rows)) for rater in choices)
    # A vote may be on disk without its word having come through, never the other way round.
    assert looks == len(stored) >= sum(map(len, acknowledged.values())) >= looks - sum(kills.values())
    assert len(kills) == 4 and sum(kills.values()) >= 8
    assert Store().totals(run).raters == 4
