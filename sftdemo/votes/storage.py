"""The votes file: its schema, how older files become new ones, and transactions that are on disk when they end."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sftdemo import __version__
from sftdemo.errors import UserError

CHOICES = ("a", "b", "tie", "bad", "skip")
WINNERS = ("base", "tuned", "tie", "bad", "skip")
TAGS = ("correct", "complete", "follows", "clear", "concise", "natural")  # reasons to pick from
SCALES = ("correct", "fluent", "helpful")  # 1 to 5 for each answer
SUBJECT = ("run", "evaluation", "row", "pair", "rater", "side_a", "look")
LONGEST_WAIT = 30.0  # seconds, for a lock

# Statements end with ";" at a line's end. A ballot is a pair on its sides, given to a rater, and its token is the vote's
# id. Events are only ever added. `look` is 2 where a rater sees a pair again, which tells how steady votes are. `told` is 1
# where an event told its rater which model wrote which answer: right after a vote, or at the end; the votes after it are
# `unblinded`, since who has seen both models' ways may know them again.
SCHEMA = """
CREATE TABLE IF NOT EXISTS ballots (
    id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE,
    run TEXT NOT NULL, evaluation TEXT NOT NULL, row INTEGER NOT NULL, pair TEXT NOT NULL, rater TEXT NOT NULL,
    side_a TEXT NOT NULL CHECK (side_a IN ('base', 'tuned')), created REAL NOT NULL, look INTEGER NOT NULL DEFAULT 1);
CREATE INDEX IF NOT EXISTS ballots_of_rater ON ballots (run, evaluation, rater);
CREATE TABLE IF NOT EXISTS typed (
    id INTEGER PRIMARY KEY, pair TEXT NOT NULL UNIQUE, run TEXT NOT NULL, rater TEXT NOT NULL, messages TEXT NOT NULL,
    base TEXT NOT NULL, tuned TEXT NOT NULL, settings TEXT NOT NULL, created REAL NOT NULL);
CREATE INDEX IF NOT EXISTS typed_of_run ON typed (run);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, vote_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('vote', 'undo', 'exclude', 'include', 'tell')),
    undoes TEXT UNIQUE REFERENCES events (vote_id), run TEXT NOT NULL, rater TEXT NOT NULL,
    evaluation TEXT, row INTEGER, pair TEXT, side_a TEXT CHECK (side_a IN ('base', 'tuned')),
    look INTEGER NOT NULL DEFAULT 1, choice TEXT CHECK (choice IN ('a', 'b', 'tie', 'bad', 'skip')),
    reason TEXT NOT NULL DEFAULT '', tags TEXT NOT NULL DEFAULT '[]', scales TEXT NOT NULL DEFAULT '{}', ms INTEGER,
    created REAL NOT NULL, version TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0,
    CHECK (kind IN ('exclude', 'include', 'tell') OR (evaluation IS NOT NULL AND pair IS NOT NULL AND side_a IS NOT NULL)));
CREATE INDEX events_of_rater ON events (run, evaluation, rater);
CREATE INDEX events_that_told ON events (run, rater) WHERE told = 1;
CREATE TRIGGER events_keep BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE VIEW votes AS SELECT *, strftime('%Y-%m-%dT%H:%M:%fZ', created, 'unixepoch') AS time,
    CASE choice WHEN 'a' THEN side_a WHEN 'b' THEN iif(side_a = 'base', 'tuned', 'base') ELSE choice END AS winner,
    EXISTS (SELECT 1 FROM events AS earlier WHERE earlier.run = events.run AND earlier.rater = events.rater
        AND earlier.told = 1 AND earlier.id < events.id) AS unblinded
    FROM events WHERE kind = 'vote';
CREATE VIEW standing AS SELECT * FROM votes WHERE NOT EXISTS (SELECT 1 FROM events WHERE undoes = votes.vote_id);
CREATE VIEW excluded AS SELECT run, rater FROM (
    SELECT run, rater, kind, max(id) FROM events WHERE kind IN ('exclude', 'include') GROUP BY run, rater)
    WHERE kind = 'exclude';
CREATE VIEW counted AS SELECT * FROM standing WHERE (run, rater) NOT IN (SELECT run, rater FROM excluded);
PRAGMA user_version = 3;
"""
# Version 1 knew votes and undos alone; version 2 told the sides right after each vote.
OUT_1 = """
DROP VIEW live;
DROP VIEW votes;
DROP TRIGGER events_keep;
DROP TRIGGER events_stay;
ALTER TABLE events RENAME TO events_before;
ALTER TABLE ballots ADD COLUMN look INTEGER NOT NULL DEFAULT 1;
"""
OUT_2 = """
DROP VIEW counted;
DROP VIEW excluded;
DROP VIEW standing;
DROP VIEW votes;
DROP TRIGGER events_keep;
DROP TRIGGER events_stay;
DROP INDEX events_of_rater;
ALTER TABLE events RENAME TO events_before;
"""


def _back(columns: str) -> str:
    """Takes the events of an older version in again, with their ids."""
    columns = f"id, vote_id, kind, undoes, run, rater, evaluation, row, pair, side_a, choice, reason, ms, created, version{columns}"
    return f"""
INSERT INTO events ({columns}, told) SELECT {columns}, kind = 'vote' FROM events_before ORDER BY id;
DROP TABLE events_before;
"""


UPDATES = {0: (SCHEMA,), 1: (OUT_1, SCHEMA, _back("")), 2: (OUT_2, SCHEMA, _back(", look, tags, scales"))}
VERSION = 3


def prepare(path: Path) -> None:
    """Make the file, or bring an older one up to date, votes and all; nothing to do for a current one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with connection(path) as db:
        if _version(db) == VERSION:
            return
        _switch_to_wal(db)
    with transaction(path) as db:
        version = _version(db)  # another process may have been first
        if version > VERSION:
            raise UserError(
                "{path} was written by a newer sftdemo (version {version} of the file); update sftdemo.",
                path=path,
                version=version,
            )
        for script in UPDATES.get(version, ()):
            for statement in script.strip().split(";\n"):
                db.execute(statement)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path, timeout=LONGEST_WAIT, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            yield db
    except sqlite3.Error as error:
        raise UserError(
            "{path}: {reason}. Nothing was saved; check the disk, then try again.", path=path, reason=error
        ) from error


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Commits at the end of the block; any exception closes the connection, which rolls back."""
    with connection(path) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """SQLite's own wait for a lock doesn't cover this switch, and several processes may open a new file at once."""
    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def open_ballot(db: sqlite3.Connection, **subject: Any) -> Any:
    """Store a ballot on a subject (the values of SUBJECT by name) under a new token."""
    return _insert(db, "ballots", {**subject, "token": secrets.token_hex(16), "created": time.time()})


def append(db: sqlite3.Connection, kind: str, vote_id: str, **values: Any) -> None:
    """Append an event, unless there is one of this id."""
    _insert(
        db,
        "events",
        {"kind": kind, "vote_id": vote_id, "created": time.time(), "version": __version__, **values},
    )


def add_typed(db: sqlite3.Connection, **values: Any) -> Any:
    """Store a prompt that was typed, with both answers."""
    return _insert(db, "typed", {**values, "pair": secrets.token_hex(8), "created": time.time()})


def _insert(db: sqlite3.Connection, table: str, values: dict[str, Any]) -> Any:
    columns, marks = ", ".join(values), ", ".join(f":{key}" for key in values)
    done = f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING RETURNING *"
    return db.execute(done, values).fetchone()
