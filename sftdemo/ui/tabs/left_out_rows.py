"""The rows that the edits of the chosen data leave out: listed, looked at, and each taken back by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftdemo.data import edits
from sftdemo.errors import UserError
from sftdemo.ui import row_edits
from sftdemo.ui.row_edits import Record


def records(history: str) -> list[tuple[int, Record]]:
    """The rows left out as `verbs.row_records` has rows, each with the number of its edit; the last one first."""
    entries = edits.effective(row_edits.history(history))
    return [(number, _record(edit)) for number, edit in reversed(entries) if edit["action"] == "leave_out"]


def _record(edit: Any) -> Record:
    place = {"file": edit.get("file", ""), "line": edit["line"], "nth": edit.get("nth", 1)}
    return {**place, "values": edit["old"], "edited": "left_out", "label": None, "asked": [], "problems": []}


def find(history: str, number: int) -> Record:
    """One of `records`; raises UserError where it isn't left out any more."""
    record = next((record for at, record in records(history) if at == number), None)
    if record is None:
        raise UserError("That row isn't left out any more; list the rows anew.")
    return record


def number_in(key: Sequence[Any]) -> int:
    """The number of the edit in the key of an opened row; 0 where it isn't one that is left out."""
    return key[0] if len(key) == 1 and isinstance(key[0], int) else 0
