"""What a file is read into: rows that know where they stand, and all that is to be said about the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sftdemo.data.limits import OWNER, Limits, OverLimit, depth
from sftdemo.data.types import SPLITS
from sftdemo.errors import Fault, Text

_SPLITS = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("dev", "val", "valid", "eval"), "validation"),
    "training": "train",
    "testing": "test",
}


MOST_REASON = 200  # characters


class Row(NamedTuple):
    """One record and where it stands: `line` counts from 1 (in Parquet and workbooks it is the row's number), `nth` tells rows
    that begin on one line apart. `edited` is what an edit made of it, "change", "add", or "leave_out": then it only holds the
    place of its sentence, where rows are tokens."""

    file: str
    line: int
    values: dict[str, Any]
    split: str | None = None
    nth: int = 1
    edited: str = ""


def present(rows: list[Row]) -> list[Row]:
    """The rows without those that an edit leaves out."""
    return [row for row in rows if row.edited != "leave_out"]


KINDS = {
    type(None): Text("null"),
    str: Text("text"),
    bool: Text("true or false"),
    list: Text("a list"),
    dict: Text("an object"),
}


@dataclass
class Table:
    """The rows of a file that can be read, a fault for each that can't, warnings, and notes on how it was read; `classes` has by
    file the names of the classes in each column that holds their numbers.

    All rows come in by `add`, which raises OverLimit for more of them, or of their cells, than the limits allow.
    """

    file: str = ""
    split: str | None = None
    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    notes: list[Text] = field(default_factory=list)
    limits: Limits = OWNER
    cells: int = 0
    classes: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(self, line: int, values: dict[str, Any]) -> None:
        self.cells += len(values)
        if len(self.rows) >= self.limits.rows:
            raise OverLimit(self.limits, "rows")
        if self.cells > self.limits.cells:
            raise OverLimit(self.limits, "cells")
        for value in values.values():
            if isinstance(value, dict | list) and depth(value, self.limits.depth) >= self.limits.depth:
                over = OverLimit(self.limits, "depth", 1 + depth(value, 10 * self.limits.depth))
                self.fault(line, over.problem, over.remedy)
                return
        nth = self.rows[-1].nth + 1 if self.rows and self.rows[-1].line == line else 1
        self.rows.append(Row(self.file, line, values, self.split, nth))

    def fault(self, line: int, problem: Text, remedy: Text, whole: bool = False) -> None:
        if len(self.faults) >= self.limits.faults:
            raise OverLimit(self.limits, "faults")
        self.faults.append(Fault(line, "", problem, remedy, self.file, whole))

    def warn(self, line: int, problem: Text, remedy: Text) -> None:
        self.warnings.append(Fault(line, "", problem, remedy, self.file))

    def note(self, text: Text) -> None:
        self.notes.append(Text("{source}: {note}", source=self.file, note=text))

    def become(self, other: Table) -> None:
        """All of another reading of the same file, instead of this one's; the notes before it stay."""
        self.rows, self.faults, self.warnings, self.cells = other.rows, other.faults, other.warnings, other.cells
        self.notes += other.notes

    def extend(self, other: Table) -> None:
        """All of another file, after this one's."""
        self.cells += other.cells
        if len(self.rows) + len(other.rows) > self.limits.rows:
            raise OverLimit(self.limits, "rows")
        if self.cells > self.limits.cells:
            raise OverLimit(self.limits, "cells")
        self.rows += other.rows
        self.classes |= other.classes
        self.faults += other.faults
        self.warnings += other.warnings
        self.notes += other.notes


def kind(value: object) -> Text:
    """What a value is, in words a user knows."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Text("a number")
    return KINDS.get(type(value)) or Text("{type}", type=type(value).__name__)


def reason(error: Exception) -> Text:
    """What a library says of a file that it can't read, in one short line: it may have the file's own bytes in it."""
    line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return Text(line if len(line) <= MOST_REASON else f"{line[: MOST_REASON - 1]}…")


def split_name(value: str) -> str | None:
    """train, validation or test for any of their usual spellings."""
    return _SPLITS.get(value.strip().casefold())
