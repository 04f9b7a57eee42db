"""Blind votes over saved answers: which pair a rater sees on which side, each vote on disk before it counts, and their sum."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.runs import Run, find, home
from sftdemo.statistics import wilson

VERSION = "0.1.0"
CHOICES = ("a", "b", "tie", "bad", "skip")
WINNERS = ("base", "tuned", "tie", "bad", "skip")
SUBJECT = ("run", "evaluation", "row", "pair", "rater", "side_a")
COLUMNS = ("vote_id", "run", "evaluation", "row", "rater", "side_a", "choice", "winner", "reason", "ms", "time")
LONGEST_WAIT = 30.0  # seconds, for a lock
Row = dict[str, Any]
_OTHER = {"base": "tuned", "tuned": "base"}

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS ballots (
    id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE,
    run TEXT NOT NULL, evaluation TEXT NOT NULL, row INTEGER NOT NULL, pair TEXT NOT NULL, rater TEXT NOT NULL,
    side_a TEXT NOT NULL CHECK (side_a IN ('base', 'tuned')), created REAL NOT NULL);
CREATE INDEX IF NOT EXISTS ballots_of_rater ON ballots (run, evaluation, rater);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, vote_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('vote', 'undo')), undoes TEXT UNIQUE REFERENCES events (vote_id),
    run TEXT NOT NULL, evaluation TEXT NOT NULL, row INTEGER NOT NULL, pair TEXT NOT NULL, rater TEXT NOT NULL,
    side_a TEXT NOT NULL CHECK (side_a IN ('base', 'tuned')),
    choice TEXT CHECK (choice IN ('a', 'b', 'tie', 'bad', 'skip')), reason TEXT NOT NULL, ms INTEGER,
    created REAL NOT NULL, version TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_evaluation ON events (run, evaluation);
CREATE TRIGGER IF NOT EXISTS events_keep BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE VIEW IF NOT EXISTS votes AS SELECT *, strftime('%Y-%m-%dT%H:%M:%fZ', created, 'unixepoch') AS time,
    CASE choice WHEN 'a' THEN side_a WHEN 'b' THEN iif(side_a = 'base', 'tuned', 'base') ELSE choice END AS winner
    FROM events WHERE kind = 'vote';
CREATE VIEW IF NOT EXISTS live AS SELECT * FROM votes
    WHERE NOT EXISTS (SELECT 1 FROM events WHERE undoes = votes.vote_id);
PRAGMA user_version = 1;
COMMIT;
"""


@dataclass(frozen=True)
class Pair:
    """What a rater may see before the vote: nothing in it tells the sides."""

    ballot: str
    position: int
    total: int
    prompt: list[dict[str, str]]
    answer_a: str
    answer_b: str


@dataclass(frozen=True)
class Revealed:
    """What a rater sees after the vote. `winner` is base, tuned, tie, bad or skip."""

    base_side: str
    choice: str
    winner: str


@dataclass(frozen=True)
class Totals:
    """Votes by winner. `n` leaves skips out; `same` counts rows with equal answers, which nobody is asked about.

    `win_rate` is tuned's share of the votes for one side, with its 95 % Wilson interval; None without such votes.
    """

    base: int
    tuned: int
    tie: int
    bad: int
    skip: int
    same: int
    raters: int
    n: int
    win_rate: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


class Store:
    """The votes file. Every call opens its own connection, so threads and processes may share one path."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / "votes.sqlite"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as db:
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                _switch_to_wal(db)
                db.executescript(SCHEMA)

    def next_pair(self, run: Run, evaluation: str, rater: str) -> Pair | None:
        """The rater's open ballot, or a new one on the row with the fewest votes; None when every row is voted on."""
        rater, place = _text(rater, "rater's name", 1, 100), (run.name, evaluation)
        rows = {key: row for key, row in _rows(run, evaluation).items() if not _same(row)}
        with self._transaction() as db:
            votes = db.execute("SELECT * FROM live WHERE run = ? AND evaluation = ?", place).fetchall()
            done = rows.keys() & {vote["pair"] for vote in votes if vote["rater"] == rater}
            if len(done) == len(rows):
                return None
            given = db.execute(
                "SELECT *, EXISTS (SELECT 1 FROM events WHERE vote_id = token) AS used FROM ballots "
                "WHERE run = ? AND evaluation = ? AND rater = ? ORDER BY id DESC",
                (*place, rater),
            ).fetchall()
            ballot = next((ballot for ballot in given if ballot["pair"] in rows and not ballot["used"]), None)
            if ballot is None:
                asked = Counter(vote["pair"] for vote in votes if vote["choice"] != "skip")
                key = min(rows.keys() - done, key=lambda key: (asked[key], _digest(rater, key)))
                sides = {ballot["pair"]: ballot["side_a"] for ballot in given if ballot["pair"] in rows}
                side_a = _draw_side([*sides.values()], len(rows))
                ballot = _open_ballot(db, *place, rows[key]["row"], key, rater, side_a)
        row, side_a = rows[ballot["pair"]], ballot["side_a"]
        # Stripped, as a stray blank or line break at one end would give a model away.
        left, right = (row[side].strip() for side in (side_a, _OTHER[side_a]))
        return Pair(ballot["token"], len(done) + 1, len(rows), row["messages"], left, right)

    def vote(self, ballot: str, choice: str, rater: str, reason: str = "", ms: int | None = None) -> Revealed:
        """Store the vote and, once it is on disk, tell the sides; a second post changes nothing and gets the first's answer.

        `ms` is how long the rater looked, in milliseconds. Raises UserError for a ballot that isn't this rater's.
        """
        ballot, rater = _text(ballot, "ballot", 1, 100), _text(rater, "rater's name", 1, 100)
        reason = _text(reason, "reason", 0, 2000)
        if choice not in CHOICES:
            raise UserError(f"{choice!r} is no choice; vote one of: {', '.join(CHOICES)}.")
        ms = None if ms is None else min(max(int(ms), 0), 86_400_000)  # a day at most
        with self._transaction() as db:
            paper = db.execute("SELECT * FROM ballots WHERE token = ? AND rater = ?", (ballot, rater)).fetchone()
            if not paper:
                raise UserError(f"Ballot {ballot!r} was not given to {rater!r}; load the next pair.")
            _append(db, paper, "vote", ballot, choice=choice, reason=reason, ms=ms)
            first = db.execute("SELECT * FROM votes WHERE vote_id = ?", (ballot,)).fetchone()
        return Revealed("a" if first["side_a"] == "base" else "b", first["choice"], first["winner"])

    def undo(self, rater: str, run: Run, evaluation: str) -> None:
        """Take the rater's last vote back by a new event; its row comes next again, with the same sides."""
        rater = _text(rater, "rater's name", 1, 100)
        with self._transaction() as db:
            query = "SELECT * FROM live WHERE run = ? AND evaluation = ? AND rater = ? ORDER BY id DESC"
            if not (last := db.execute(query, (run.name, evaluation, rater)).fetchone()):
                raise UserError(f"{rater!r} has no vote to take back.")
            _append(db, last, "undo", secrets.token_hex(16), undoes=last["vote_id"])
            _open_ballot(db, *(last[column] for column in SUBJECT))

    def totals(self, run: Run | str, evaluation: str | None = None) -> Totals:
        """The votes on one evaluation of the run, or on all of them."""
        rows, votes = self._votes(run, evaluation)
        count = Counter(vote["winner"] for vote in votes)
        decisive = count["base"] + count["tuned"]
        low, high = wilson(count["tuned"], decisive) if decisive else (None, None)
        return Totals(
            **{winner: count[winner] for winner in WINNERS},
            same=sum(map(_same, rows.values())),
            raters=len({vote["rater"] for vote in votes}),
            n=len(votes) - count["skip"],
            win_rate=count["tuned"] / decisive if decisive else None,
            low=low,
            high=high,
        )

    def export(self, run: Run | str, kind: str, evaluation: str | None = None) -> str:
        """The votes that stand as csv or jsonl, or as dpo: one {"prompt", "chosen", "rejected"} a row that has a majority."""
        if kind not in ("csv", "jsonl", "dpo"):
            raise UserError(f"{kind!r} is no kind of export; choose csv, jsonl or dpo.")
        rows, votes = self._votes(run, evaluation)
        standing = [{column: vote[column] for column in COLUMNS} for vote in votes]
        if kind == "csv":
            return _csv(standing)
        records = standing if kind == "jsonl" else _preferences(rows, votes)
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def _votes(self, run: Run | str, evaluation: str | None) -> tuple[dict[str, Row], list[sqlite3.Row]]:
        """The rows and the votes that stand on them, oldest first; votes on texts since replaced are left out."""
        run = find(run) if isinstance(run, str) else run
        rows: dict[str, Row] = {}
        for name in [evaluation] if evaluation else run.evaluations():
            rows |= _rows(run, name)
        with self._connection() as db:
            votes = db.execute("SELECT * FROM live WHERE run = ? ORDER BY id", (run.name,))
            return rows, [vote for vote in votes if vote["pair"] in rows]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=LONGEST_WAIT, isolation_level=None)) as db:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA synchronous = FULL")
                yield db
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: {error}. Nothing was saved; check the disk, then try again.") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commits at the end of the block; any exception closes the connection, which rolls back."""
        with self._connection() as db:
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


def _text(value: str, what: str, least: int, most: int) -> str:
    value = value.strip().encode("utf-8", "replace").decode()  # SQLite refuses half an emoji, and a browser may send it
    if not least <= len(value) <= most:
        raise UserError(f"The {what} has {len(value)} characters; give {least} to {most}.")
    return value


def _rows(run: Run, evaluation: str) -> dict[str, Row]:
    """The rows of an evaluation by the digest of what a rater reads: when it is made anew, old votes don't count."""
    known = run.evaluations()
    if evaluation not in known:
        raise UserError(f"Run {run.name} has no evaluation {evaluation!r}; it has: {', '.join(known) or 'none yet'}.")
    rows = run.outputs(evaluation)
    return {_digest(evaluation, row["row"], row["messages"], row["base"], row["tuned"]): row for row in rows}


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _same(row: Row) -> bool:
    return bool(row["base"].strip() == row["tuned"].strip())


def _draw_side(sides: list[str], total: int) -> str:
    """What stands left in a rater's next row, drawn without replacement: over `total` rows the sides differ by one or none."""
    # All rows are one block, as the end of a shorter one could be foretold: each vote reveals its sides.
    wanted = total / 2 - sides.count("base")
    return "base" if secrets.SystemRandom().random() * (total - len(sides)) < wanted else "tuned"


def _open_ballot(db: sqlite3.Connection, *subject: Any) -> sqlite3.Row:
    """Store a ballot on a subject (its values in the order of SUBJECT) under a new token."""
    values = (secrets.token_hex(16), *subject, time.time())
    stored = db.execute("INSERT INTO ballots VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *", values)
    return stored.fetchone()  # type: ignore[no-any-return]


def _append(db: sqlite3.Connection, about: sqlite3.Row, kind: str, vote_id: str, **values: Any) -> None:
    """Append an event about a ballot or an earlier vote, unless there is one of this id."""
    event = {column: about[column] for column in SUBJECT}
    event |= {"kind": kind, "vote_id": vote_id, "reason": "", "created": time.time(), "version": VERSION, **values}
    columns, marks = ", ".join(event), ", ".join(f":{key}" for key in event)
    db.execute(f"INSERT INTO events ({columns}) VALUES ({marks}) ON CONFLICT (vote_id) DO NOTHING", event)


def _preferences(rows: dict[str, Row], votes: list[sqlite3.Row]) -> list[dict[str, Any]]:
    margin = Counter(vote["pair"] for vote in votes if vote["winner"] == "tuned")
    margin.subtract(vote["pair"] for vote in votes if vote["winner"] == "base")
    chosen = {key: "tuned" if more > 0 else "base" for key, more in margin.items() if more}
    return [
        {"prompt": row["messages"], "chosen": row[chosen[key]], "rejected": row[_OTHER[chosen[key]]]}
        for key, row in rows.items()
        if key in chosen
    ]


def _csv(records: list[dict[str, Any]]) -> str:
    """A text that a spreadsheet would run as a formula gets a quote in front: raters may be strangers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([f"'{v}" if str(v).startswith(tuple("=+-@\t\r")) else v for v in r.values()] for r in records)
    return file.getvalue()
