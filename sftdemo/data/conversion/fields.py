"""The fields of a row as text, and what is said of those that can't be read or came through broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sftdemo.config.read import ReadConfig
from sftdemo.data.files.table import Row, kind
from sftdemo.data.layouts import recognition
from sftdemo.data.text import repairs
from sftdemo.data.types import Dataset, Tally
from sftdemo.data.values import targets
from sftdemo.errors import Fault, Text

FILL_IN = Text("Fill it in, or remove the row.")
NOTHING = Text("")


@dataclass
class Fields:
    """Reads the rows of one mapping field by field; faults, warnings and repairs go to the data set."""

    mapping: recognition.Mapping
    config: ReadConfig
    dataset: Dataset
    tally: Tally

    @property
    def fix(self) -> bool:
        return self.config.on_fault == "fix"

    def value(self, row: Row, role: str) -> Any:
        """What the column of a role holds; None without such a column."""
        column = self.mapping.columns.get(role)
        return None if column is None else row.values.get(column)

    def fault(self, row: Row, column: str, problem: Text, remedy: Text = FILL_IN) -> None:
        self.dataset.faults.append(Fault(row.line, column, problem, remedy, row.file))

    def flaw(self, row: Row, column: str, problem: Text, remedy: Text, done: Text = NOTHING) -> None:
        """What blocks nothing: a warning, or, where repairs are asked for and this is one, what was `done`."""
        mended = self.fix and done
        faults = self.dataset.fixed if mended else self.dataset.warnings
        faults.append(Fault(row.line, column, problem, done if mended else remedy, row.file))
        self.dataset.repairable += bool(done and not mended)

    def mend(self, row: Row, column: str, problem: Text, done: Text) -> None:
        """What repairs mend of what is told as a fault else: told, where they are asked for, else counted."""
        if self.fix:
            self.dataset.fixed.append(Fault(row.line, column, problem, done, row.file))
        else:
            self.dataset.repairable += 1

    def sound(self, row: Row, column: str, text: str, turn: int = 0) -> str:
        """The text (of a turn, where it has a number), with a warning for what came through broken, or mended."""
        problems = repairs.flaws(text)
        if not problems:
            return text
        mended = repairs.repair(text)
        unrepaired = repairs.flaws(mended)
        what = Text("Turn {n}", n=turn) if turn else Text("The field")
        for problem in problems:
            told = Text("{what} {problem}.", what=what, problem=problem)
            if problem in unrepaired:
                self.flaw(row, column, told, Text("Write it out rightly."))
            else:
                remedy = Text("Write it out rightly, or repair it with on_fault fix.")
                self.flaw(row, column, told, remedy, Text("It was repaired."))
        return mended if self.fix else text

    def take_as_text(self, row: Row, column: str, value: object) -> None:
        """Note that a number was read as the text that it is written as."""
        what = Text("The field is {kind}, not text.", kind=kind(value))
        self.mend(row, column, what, Text("It was taken as text."))

    def text(self, row: Row, column: str) -> str | None:
        """The column's text, which must be there; None after a fault."""
        value = row.values.get(column)
        if isinstance(value, int | float):
            self.take_as_text(row, column, value)
            value = str(value) if self.fix else value
        if isinstance(value, str) and value.strip():
            value = self.sound(row, column, value)
            if value.strip():
                return value
        if value is None or isinstance(value, str):
            self.fault(row, column, Text("The field is missing.") if value is None else Text("The field is empty."))
        else:
            remedy = Text("Give text.") if isinstance(value, list | dict) else Text("Put it in quotes.")
            self.fault(row, column, Text("The field is {kind}, not text.", kind=kind(value)), remedy)
        return None

    def extra(self, row: Row, column: str) -> str | None:
        """A further column that the template shows; that of an optional role may be empty."""
        value = row.values.get(column)
        optional = any(self.mapping.columns.get(role) == column for role in self.mapping.layout.optional)
        if optional and (value is None or (isinstance(value, str) and not value.strip())):
            return ""
        if optional and isinstance(value, list | dict):
            return targets.as_json(value)
        if value is None or isinstance(value, list | dict):
            return self.text(row, column)
        return self.sound(row, column, str(value))
