"""The file of votes: on disk before the answer, on a full disk too; one of an earlier version opens with every vote."""

from __future__ import annotations

import signal
import sqlite3
import sys
from pathlib import Path

import pytest

import sftdemo
from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.votes import Store, pairing, storage
from tests.test_votes import EVALUATION, events, make_run, next_pair, row_of, voter

# The schema of version 1, as it was.
OLD = """
PRAGMA journal_mode = WAL;
CREATE TABLE ballots (
    id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE,
    run TEXT NOT NULL, evaluation TEXT NOT NULL, row INTEGER NOT NULL, pair TEXT NOT NULL, rater TEXT NOT NULL,
    side_a TEXT NOT NULL CHECK (side_a IN ('base', 'tuned')), created REAL NOT NULL);
CREATE INDEX ballots_of_rater ON ballots (run, evaluation, rater);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, vote_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('vote', 'undo')), undoes TEXT UNIQUE REFERENCES events (vote_id),
    run TEXT NOT NULL, evaluation TEXT NOT NULL, row INTEGER NOT NULL, pair TEXT NOT NULL, rater TEXT NOT NULL,
    side_a TEXT NOT NULL CHECK (side_a IN ('base', 'tuned')),
    choice TEXT CHECK (choice IN ('a', 'b', 'tie', 'bad', 'skip')), reason TEXT NOT NULL, ms INTEGER,
    created REAL NOT NULL, version TEXT NOT NULL);
CREATE INDEX events_of_evaluation ON events (run, evaluation);
CREATE TRIGGER events_keep BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE VIEW votes AS SELECT *, strftime('%Y-%m-%dT%H:%M:%fZ', created, 'unixepoch') AS time,
    CASE choice WHEN 'a' THEN side_a WHEN 'b' THEN iif(side_a = 'base', 'tuned', 'base') ELSE choice END AS winner
    FROM events WHERE kind = 'vote';
CREATE VIEW live AS SELECT * FROM votes WHERE NOT EXISTS (SELECT 1 FROM events WHERE undoes = votes.vote_id);
PRAGMA user_version = 1;
"""


def old_file(path: Path, run: Run) -> list[tuple[object, ...]]:
    """A file as version 1 left it: two votes, one of them taken back, and an open ballot."""
    keys = list(pairing.sheet(run, EVALUATION).rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.executescript(OLD)
    for number, token in enumerate(("t0", "t1", "t2")):
        subject = (run.name, EVALUATION, number, keys[number], "ann", "base")
        db.execute("INSERT INTO ballots VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", (token, *subject, 1.0))
    insert = "INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, 'base', ?, ?, 900, 2.0, '0.1.0')"
    for number, kind, choice in ((0, "vote", "b"), (1, "vote", "a"), (1, "undo", None)):
        token = f"t{number}" if kind == "vote" else "u1"
        undoes = "t1" if kind == "undo" else None
        db.execute(insert, (token, kind, undoes, run.name, EVALUATION, number, keys[number], "ann", choice, "why"))
    db.commit()
    found = db.execute(
        "SELECT id, vote_id, kind, undoes, row, pair, choice, reason, ms, created FROM events"
    ).fetchall()
    db.close()
    return found


def test_an_older_file_opens_with_every_vote() -> None:
    run = make_run(4)
    path = runs.home() / "votes.sqlite"
    before = old_file(path, run)
    store = Store(path)
    with storage.connection(path) as db:
        query = "SELECT id, vote_id, kind, undoes, row, pair, choice, reason, ms, created FROM events ORDER BY id"
        assert [tuple(event) for event in db.execute(query)] == before
        assert db.execute("PRAGMA user_version").fetchone()[0] == 3
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'events_before'").fetchone() is None
    assert (store.totals(run).tuned, store.totals(run).base) == (1, 0)
    assert row_of(next_pair(store, run)) == 2  # the open ballot
    assert store.vote("t2", "tie", "ann").winner == "tie"
    store.exclude(run, "ann")
    assert Store(path).totals(run).n == 0
    with pytest.raises(UserError, match="append-only"), storage.connection(path) as db:
        db.execute("DELETE FROM events")


def test_a_step_up_that_fails_leaves_the_old_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(4)
    path = runs.home() / "votes.sqlite"
    before = old_file(path, run)
    broken = storage.UPDATES[1][-1].replace("DROP TABLE events_before", "DROP TABLE no_such_table")
    monkeypatch.setitem(storage.UPDATES, 1, (*storage.UPDATES[1][:-1], broken))
    with pytest.raises(UserError, match="no_such_table"):
        Store(path)
    monkeypatch.undo()
    monkeypatch.setenv("SFTDEMO_HOME", str(path.parent))
    assert Store(path).totals(run).tuned == 1 and len(events(Store(path))) == len(before)


def test_a_newer_file_is_left_alone() -> None:
    path = runs.home() / "votes.sqlite"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(UserError, match="written by a newer sftdemo"):
        Store(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_is_said_and_loses_nothing(store: Store) -> None:
    """A limit on the size of files stands for the full disk: SQLite's writes fail in the same place."""
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))

    run = make_run(150)
    child = voter("ann", preexec_fn=limit)
    out, err = child.communicate(timeout=60)
    ballots = out.split()
    assert child.returncode == 1 and "Nothing was saved" in err and "Traceback" not in err
    assert ballots and {event["vote_id"] for event in events(store)} >= set(ballots)
    assert store.vote(next_pair(store, run).ballot, "a", "ann").choice == "a"


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "junk.sqlite"
    path.write_text("These are no votes. " * 100)
    with pytest.raises(UserError, match=r"junk\.sqlite: file is not a database"):
        Store(path)
    assert path.read_text().startswith("These are no votes.")


@pytest.mark.slow
def test_many_processes_may_open_a_new_file_at_once() -> None:
    run = make_run(3)
    children = [voter(f"rater {number}") for number in range(6)]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    assert Store().totals(run).n == 18


def test_the_file_is_in_wal_mode_and_every_commit_is_synced(store: Store) -> None:
    with storage.connection(store.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_the_version_stored_with_votes_is_the_projects(store: Store) -> None:
    with storage.transaction(store.path) as db:
        storage.append(db, "exclude", "1", run="words", rater="ann")
        assert db.execute("SELECT version FROM events").fetchone()[0] == sftdemo.__version__
