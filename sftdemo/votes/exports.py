"""The votes as files: CSV for a spreadsheet, JSONL for programs, and preference pairs for DPO."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo import files
from sftdemo.errors import UserError
from sftdemo.runs.voting import Contest
from sftdemo.votes.pairing import OTHER, Row, Sheet
from sftdemo.votes.storage import SCALES

KINDS = ("csv", "jsonl", "dpo")
COLUMNS = (
    "vote_id", "run", "evaluation", "row", "rater", "side_a", "choice", "winner", "look", "tags", "reason", "ms", "time",
)  # fmt: skip
BETWEEN = ("base_is", "tuned_is")  # which systems played the parts that the votes name base and tuned
MARKS = tuple(f"{scale}_{side}" for scale in SCALES for side in ("base", "tuned"))


def export(sheet: Sheet, votes: Sequence[sqlite3.Row], kind: str) -> str:
    """One text of that kind; csv and jsonl hold every vote, dpo one pair a row with a majority."""
    if kind not in KINDS:
        raise UserError("{kind!r} is no kind of export; choose csv, jsonl or dpo.", kind=kind)
    if kind == "csv":
        rows = ({**fields, "tags": ";".join(fields["tags"])}.values() for fields in map(record, votes))
        return files.csv_text(COLUMNS + MARKS + BETWEEN, map(tuple, rows))
    records = preferences(sheet.rows, votes) if kind == "dpo" else map(record, votes)
    return files.jsonl(records)


def marks(vote: sqlite3.Row) -> dict[str, dict[str, int]]:
    """The marks from 1 to 5 by model: {"base" or "tuned": {scale: mark}}."""
    by_place = json.loads(vote["scales"])
    names = {"a": vote["side_a"], "b": OTHER[vote["side_a"]]}
    return {names[side]: scales for side, scales in by_place.items()}


def record(vote: sqlite3.Row) -> dict[str, Any]:
    """A vote as it is exported; a mark that wasn't given is None."""
    by_side = marks(vote)
    flat = {f"{scale}_{side}": by_side.get(side, {}).get(scale) for scale in SCALES for side in ("base", "tuned")}
    contest = Contest.parse(vote["evaluation"])
    own = {**{column: vote[column] for column in COLUMNS}, "evaluation": contest.evaluation}
    between = {"base_is": contest.base_is, "tuned_is": contest.tuned_is}
    return {**own, "tags": json.loads(vote["tags"]), **flat, **between}


def lean(votes: Sequence[sqlite3.Row]) -> dict[str, int]:
    """By pair, how many more raters chose tuned than base; second looks aside, which are no new opinion."""
    margin = Counter(vote["pair"] for vote in votes if vote["winner"] == "tuned" and vote["look"] == 1)
    margin.subtract(vote["pair"] for vote in votes if vote["winner"] == "base" and vote["look"] == 1)
    return dict(margin)


def preferences(rows: Mapping[str, Row], votes: Sequence[sqlite3.Row]) -> list[dict[str, Any]]:
    chosen = {key: "tuned" if margin > 0 else "base" for key, margin in lean(votes).items() if margin}
    return [
        {"prompt": row["messages"], "chosen": row[chosen[key]], "rejected": row[OTHER[chosen[key]]]}
        for key, row in rows.items()
        if key in chosen
    ]
