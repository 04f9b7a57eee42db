"""The votes on a machine: pairs handed out, votes taken and taken back, raters left out, and what it all comes to."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftdemo.errors import Text, UserError
from sftdemo.runs import DamagedRun, Run, find, home, voting
from sftdemo.runs.voting import Contest
from sftdemo.votes import exports, pairing, results, storage
from sftdemo.votes.hints import Hints, hints
from sftdemo.votes.pairing import OTHER, TYPED, Pair, Sheet
from sftdemo.votes.ranking import Ranked, family, ranking
from sftdemo.votes.results import Report, Totals
from sftdemo.votes.storage import CHOICES, SCALES, SUBJECT, TAGS

ANSWERS = {"base": Text("base answer"), "tuned": Text("tuned answer")}


ENOUGH_TIMED, MOST_TIMED, LONGEST_LOOK_MS = 5, 200, 600_000  # votes whose times are asked; who looks longer was away


@dataclass(frozen=True)
class Revealed:
    """What a rater sees after the vote. `winner` is base, tuned, tie, bad or skip.

    Both `base_side` and `winner` are "" while the rater isn't to be told the sides.
    """

    base_side: str
    choice: str
    winner: str


@dataclass(frozen=True)
class OwnVote:
    """A vote as its rater is shown it at the end."""

    prompt: list[dict[str, str]]
    revealed: Revealed


class Store:
    """The votes file. Every call opens its own connection, so threads and processes may share one path."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / "votes.sqlite"
        storage.prepare(self.path)

    def next_pair(self, run: Run, evaluation: str, rater: str) -> Pair | None:
        """The rater's open ballot, or a new one on the row with the fewest votes; None when every row is voted on.

        One pair in 20 comes a second time, after at least ten others, to see how steady a rater's votes are.
        """
        voting.check_kind(run)
        rater = _text(rater, Text("rater's name"), 1, 100)
        with storage.transaction(self.path) as db:
            return self._next(db, run, evaluation, rater)

    def _next(self, db: sqlite3.Connection, run: Run, evaluation: str, rater: str) -> Pair | None:
        place = (run.name, evaluation)
        typed = evaluation == TYPED
        sheet = _sheet(db, run, evaluation, rater)
        asked = set(sheet.asked)
        where = "WHERE run = ? AND evaluation = ? AND rater = ? ORDER BY id"
        own = [vote for vote in db.execute(f"SELECT * FROM standing {where}", (*place, rater)) if vote["pair"] in asked]
        ballots = db.execute(
            f"SELECT *, EXISTS (SELECT 1 FROM events WHERE vote_id = token) AS used FROM ballots {where}",
            (*place, rater),
        ).fetchall()
        ballots = [ballot for ballot in ballots if ballot["pair"] in asked]
        ballot = next((ballot for ballot in reversed(ballots) if not ballot["used"]), None)
        if ballot is None:
            counts = (
                "SELECT pair, count(*) FROM counted WHERE run = ? AND evaluation = ? AND look = 1 AND choice != 'skip'"
            )
            votes = dict(map(tuple, db.execute(f"{counts} GROUP BY pair", place)))
            sides = {(ballot["pair"], ballot["look"]): ballot["side_a"] for ballot in ballots}
            chosen = pairing.choose(rater, evaluation, sheet.asked, own, sides, votes)
            if chosen is None:
                return None
            subject = {"run": run.name, "evaluation": evaluation, "rater": rater, **vars(chosen)}
            ballot = storage.open_ballot(db, row=sheet.rows[chosen.pair]["row"], **subject)
        row, side_a = sheet.rows[ballot["pair"]], ballot["side_a"]
        # Stripped, as a stray blank or line break at one end would give a model away.
        left, right = (row[side].strip() for side in (side_a, OTHER[side_a]))
        total = len(asked) if typed else pairing.looks(len(asked))
        return Pair(ballot["token"], len(own) + 1, total, row["messages"], left, right)

    def add_typed(
        self, run: Run, messages: Sequence[Mapping[str, str]], answers: Mapping[str, str], rater: str, **settings: Any
    ) -> Pair | None:
        """Store a typed prompt with both whole answers ({"base", "tuned"}) and their settings, and open a ballot on it.

        None where the answers are equal: that is counted, and there is nothing to vote on.
        """
        voting.check_kind(run)
        rater = _text(rater, Text("rater's name"), 1, 100)
        texts = {side: _text(answers[side], ANSWERS[side], 0, 1_000_000) for side in OTHER}
        prompt = json.dumps([dict(message) for message in messages])
        with storage.transaction(self.path) as db:
            typed = storage.add_typed(
                db, run=run.name, rater=rater, messages=prompt, settings=json.dumps(settings), **texts
            )
            if texts["base"] == texts["tuned"]:
                return None
            earlier = db.execute(
                "SELECT side_a FROM ballots WHERE run = ? AND evaluation = ? AND rater = ?", (run.name, TYPED, rater)
            )
            side_a = pairing.draw_side([ballot["side_a"] for ballot in earlier], None)
            subject = {"run": run.name, "evaluation": TYPED, "row": typed["id"], "pair": typed["pair"], "rater": rater}
            storage.open_ballot(db, **subject, side_a=side_a, look=1)
            return self._next(db, run, TYPED, rater)

    def vote(
        self,
        ballot: str,
        choice: str,
        rater: str,
        reason: str = "",
        ms: int | None = None,
        tags: Sequence[str] = (),
        scales: Mapping[str, Mapping[str, int]] | None = None,
        told: bool = True,
    ) -> Revealed:
        """Store the vote and, once it is on disk, tell the sides; a second post changes no vote and gets the first's answer.

        With `told` False the rater isn't told the sides yet (see `tell`). `ms` is how long the rater looked, in milliseconds; `tags` are of TAGS; `scales` is {"a" or "b": {one of SCALES: 1
        to 5}}. Raises UserError for a ballot that isn't this rater's.
        """
        ballot, rater = _text(ballot, Text("ballot"), 1, 100), _text(rater, Text("rater's name"), 1, 100)
        reason = _text(reason, Text("reason"), 0, 2000)
        if choice not in CHOICES:
            raise UserError("{choice!r} is no choice; vote one of: {names}.", choice=choice, names=CHOICES)
        ms = None if ms is None else min(max(int(ms), 0), 86_400_000)  # a day at most
        details = {"reason": reason, "ms": ms, "tags": _tags(tags), "scales": _scales(scales or {})}
        with storage.transaction(self.path) as db:
            paper = db.execute("SELECT * FROM ballots WHERE token = ? AND rater = ?", (ballot, rater)).fetchone()
            if not paper:
                raise UserError(
                    "Ballot {ballot!r} was not given to {rater!r}; load the next pair.", ballot=ballot, rater=rater
                )
            subject = {column: paper[column] for column in SUBJECT}
            storage.append(db, "vote", ballot, choice=choice, told=told, **subject, **details)
            first = db.execute("SELECT * FROM votes WHERE vote_id = ?", (ballot,)).fetchone()
            if told and not first["told"]:
                _tell(db, paper["run"], rater)
        return _revealed(first) if told else Revealed("", first["choice"], "")

    def tell(self, run: Run, evaluation: str, rater: str) -> list[OwnVote]:
        """The rater's votes that stand, with their sides, the oldest first; from now on the rater's votes on the run aren't blind."""
        rater = _text(rater, Text("rater's name"), 1, 100)
        with storage.transaction(self.path) as db:
            sheet = _sheet(db, run, evaluation, rater)
            query = "SELECT * FROM standing WHERE run = ? AND evaluation = ? AND rater = ? ORDER BY id"
            votes = [v for v in db.execute(query, (run.name, evaluation, rater)) if v["pair"] in sheet.rows]
            if votes:
                _tell(db, run.name, rater)
        return [OwnVote(sheet.rows[vote["pair"]]["messages"], _revealed(vote)) for vote in votes]

    def hints(self, run: Run, ballot: str, rater: str) -> Hints:
        """What the page may say of a pair before the vote; none on a ballot that isn't this rater's."""
        with storage.connection(self.path) as db:
            query = "SELECT * FROM ballots WHERE token = ? AND rater = ? AND run = ?"
            paper = db.execute(query, (ballot, rater.strip(), run.name)).fetchone()
            if not paper:
                return Hints()
            sheet = _sheet(db, run, paper["evaluation"], rater.strip())
        return hints(sheet, paper["pair"], paper["side_a"]) if paper["pair"] in sheet.rows else Hints()

    def pairs(self, run: Run, evaluation: str) -> int:
        """How many pairs a new rater is asked about, those that come again included."""
        return pairing.looks(len(pairing.sheet(run, evaluation).asked))

    def seconds_a_vote(self, run: Run) -> float | None:
        """The median time of the latest votes on the run, or where it has too few, on all runs; None where too few are timed."""
        query = "SELECT ms FROM standing WHERE ms BETWEEN 1 AND ? AND choice != 'skip' AND run = ifnull(?, run)"
        query += " ORDER BY id DESC LIMIT ?"
        with storage.connection(self.path) as db:
            for name in (run.name, None):
                times = [vote["ms"] for vote in db.execute(query, (LONGEST_LOOK_MS, name, MOST_TIMED))]
                if len(times) >= ENOUGH_TIMED:
                    return float(statistics.median(times)) / 1000
        return None

    def raters_marked(self, mark: str) -> tuple[set[str], str | None]:
        """The raters with ballots whose names end with the mark, and the one of them that has voted, who is then the only one
        told."""
        marked = "WHERE substr(rater, -length(?)) = ?"
        with storage.connection(self.path) as db:
            # The newest first: who votes at the moment is found at once, however many votes there are.
            latest = f"SELECT rater FROM votes {marked} ORDER BY id DESC LIMIT 1"
            if voted := db.execute(latest, (mark, mark)).fetchone():
                return {voted["rater"]}, voted["rater"]
            names = db.execute(f"SELECT DISTINCT rater FROM ballots {marked}", (mark, mark))
            return {row["rater"] for row in names}, None

    def undo(self, rater: str, run: Run, evaluation: str) -> None:
        """Take the rater's last vote back by a new event; its row comes next again, with the same sides."""
        rater = _text(rater, Text("rater's name"), 1, 100)
        with storage.transaction(self.path) as db:
            query = "SELECT * FROM standing WHERE run = ? AND evaluation = ? AND rater = ? ORDER BY id DESC"
            if not (last := db.execute(query, (run.name, evaluation, rater)).fetchone()):
                raise UserError("{rater!r} has no vote to take back.", rater=rater)
            subject = {column: last[column] for column in SUBJECT}
            storage.append(db, "undo", secrets.token_hex(16), undoes=last["vote_id"], **subject)
            storage.open_ballot(db, **subject)

    def exclude(self, run: Run, rater: str, excluded: bool = True) -> None:
        """Leave a rater's votes on a run out of everything, or take them in again; an event, so nothing is lost."""
        rater = _text(rater, Text("rater's name"), 1, 100)
        with storage.transaction(self.path) as db:
            if not db.execute("SELECT 1 FROM votes WHERE run = ? AND rater = ?", (run.name, rater)).fetchone():
                raise UserError(
                    "{rater!r} has not voted on run {name}; `votes {name}` lists its raters.",
                    rater=rater,
                    name=run.name,
                )
            kind = "exclude" if excluded else "include"
            storage.append(db, kind, secrets.token_hex(16), run=run.name, rater=rater)

    def excluded(self, run: Run) -> set[str]:
        """The raters whose votes on the run are left out."""
        with storage.connection(self.path) as db:
            return {row["rater"] for row in db.execute("SELECT rater FROM excluded WHERE run = ?", (run.name,))}

    def cast(self) -> int:
        """How many votes were cast in all, those taken back included."""
        with storage.connection(self.path) as db:
            return int(db.execute("SELECT count(*) FROM votes").fetchone()[0])

    def totals(self, run: Run | str, evaluation: str | None = None) -> Totals:
        """The votes on one evaluation of the run, or on all of them and on typed prompts."""
        sheet, votes = self._votes(run, evaluation)
        return results.totals(sheet, votes)

    def report(self, run: Run | str, evaluation: str | None = None) -> Report:
        """All that the votes say: totals, raters and their agreement, leanings, reasons, and which metric agrees."""
        run = find(run) if isinstance(run, str) else run
        sheet, votes = self._votes(run, evaluation, "standing")
        with storage.connection(self.path) as db:
            undone = db.execute("SELECT rater, pair FROM events WHERE run = ? AND kind = 'undo'", (run.name,))
            revised = set(map(tuple, undone))
        changed = sum((vote["rater"], vote["pair"]) in revised for vote in votes)
        return results.report(sheet, votes, self.excluded(run), changed)

    def ranking(self, run: Run | str) -> list[Ranked]:
        """The run, its base, all runs of the same base and the run's other systems by the votes on them, the strongest first;
        empty under three."""
        run = find(run) if isinstance(run, str) else run
        with storage.connection(self.path) as db:
            voted = [member["run"] for member in db.execute("SELECT DISTINCT run FROM counted ORDER BY run")]
        met: list[tuple[Run, str, Sheet, list[sqlite3.Row]]] = []
        for member in family(run, voted):
            try:
                met += [(member, key or "", *self._votes(member, key)) for key in (None, *self._contests(member))]
            except DamagedRun:
                if member == run:
                    raise
        return ranking(run, met)

    def export(self, run: Run | str, kind: str, evaluation: str | None = None) -> str:
        """The votes that count as csv or jsonl, or as dpo: one {"prompt", "chosen", "rejected"} a row that has a majority."""
        run = find(run) if isinstance(run, str) else run
        sheet, votes = self._votes(run, evaluation)
        rows = dict(sheet.rows)
        for key in self._contests(run) if evaluation is None else ():
            more, theirs = self._votes(run, key)
            rows |= more.rows
            votes += theirs
        return exports.export(Sheet.of(rows), sorted(votes, key=lambda vote: int(vote["id"])), kind)

    def votes_on_others(self, run: Run) -> int:
        """How many votes that count are on other systems than base and tuned: in files, and not in the totals of all."""
        return sum(len(self._votes(run, key)[1]) for key in self._contests(run))

    def _contests(self, run: Run) -> list[str]:
        """The keys of contests of other systems than base and tuned that were voted on, as far as their rows are there."""
        with storage.connection(self.path) as db:
            voted = db.execute(
                "SELECT DISTINCT evaluation FROM counted WHERE run = ? ORDER BY 1", (run.name,)
            ).fetchall()
        keys = []
        for key in (row["evaluation"] for row in voted):
            with contextlib.suppress(UserError):  # the evaluation or a system of it is gone, and with it the texts
                if not Contest.parse(key).is_usual and pairing.sheet(run, key):
                    keys.append(key)
        return keys

    def _votes(self, run: Run | str, evaluation: str | None, view: str = "counted") -> tuple[Sheet, list[sqlite3.Row]]:
        """The rows and the votes of a view on them, oldest first; votes on texts since replaced are left out."""
        run = find(run) if isinstance(run, str) else run
        with storage.connection(self.path) as db:
            names = [evaluation] if evaluation else [*run.evaluations(), TYPED]
            rows: dict[str, pairing.Row] = {}
            for name in names:
                part = pairing.typed_sheet(db, run.name) if name == TYPED else pairing.sheet(run, name)
                rows |= part.rows
            votes = db.execute(f"SELECT * FROM {view} WHERE run = ? ORDER BY id", (run.name,)).fetchall()
        return Sheet.of(rows), [vote for vote in votes if vote["pair"] in rows]


def _sheet(db: sqlite3.Connection, run: Run, evaluation: str, rater: str) -> Sheet:
    """What this rater is asked about."""
    return pairing.typed_sheet(db, run.name, rater) if evaluation == TYPED else pairing.sheet(run, evaluation)


def _revealed(vote: sqlite3.Row) -> Revealed:
    return Revealed("a" if vote["side_a"] == "base" else "b", vote["choice"], vote["winner"])


def _tell(db: sqlite3.Connection, run: str, rater: str) -> None:
    """Note that the rater knows some sides of the run from now on, unless that is noted already."""
    query = "SELECT 1 FROM events WHERE run = ? AND rater = ? AND told = 1"
    if not db.execute(query, (run, rater)).fetchone():
        storage.append(db, "tell", secrets.token_hex(16), run=run, rater=rater, told=1)


def _text(value: str, what: Text, least: int, most: int) -> str:
    value = value.strip().encode("utf-8", "replace").decode()  # SQLite refuses half an emoji, and a browser may send it
    if not least <= len(value) <= most:
        raise UserError(
            "The {what} has {n} characters; give {least} to {most}.", what=what, n=len(value), least=least, most=most
        )
    return value


def _tags(tags: Sequence[str]) -> str:
    if unknown := [tag for tag in tags if tag not in TAGS]:
        raise UserError("{tag!r} is no reason to pick; pick of: {names}.", tag=unknown[0], names=TAGS)
    return json.dumps([tag for tag in TAGS if tag in tags])


def _scales(scales: Mapping[str, Mapping[str, int]]) -> str:
    for side, marks in scales.items():
        for scale, mark in marks.items():
            if side not in ("a", "b") or scale not in SCALES or mark not in (1, 2, 3, 4, 5):
                raise UserError(
                    "{mark!r} for {scale!r} of answer {side!r} is no mark; give 1 to 5 for {names} of a or b.",
                    mark=mark,
                    scale=scale,
                    side=side,
                    names=SCALES,
                )
    return json.dumps({side: dict(marks) for side, marks in scales.items() if marks})
