"""The entities of a row, read as a text and a list in JSON; and what is said of tags that don't fit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sftdemo.data.conversion.fields import Fields
from sftdemo.data.files.table import Row
from sftdemo.data.text import repairs
from sftdemo.data.text.literals import parsed_list
from sftdemo.data.values import entities, tags, targets
from sftdemo.errors import Fault, Text


@dataclass
class EntityFields(Fields):
    """Reads the entities of rows: spans of a text, or a tag for each token."""

    usual_tags: dict[str, str] = field(default_factory=dict)  # of those in another spelling, such as b-per

    def marks(self, row: Row) -> list[entities.Entity]:
        try:
            return entities.read(self.value(row, "text"), self.tags(row))[1]
        except entities.NotEntities:
            return []  # told where the row is read

    def marked(self, row: Row) -> tuple[str, str]:
        """The text of a row with entities, and those as JSON; empty after a fault."""
        try:
            text, marks = entities.read(self.value(row, "text"), self.tags(row))
        except entities.NotEntities as error:
            column = self.mapping.columns["entities"]
            self.fault(
                row, column, Text("The field {problem}.", problem=error.problem), Text("Correct it, or remove the row.")
            )
            return "", ""
        sound = self.sound(row, self.mapping.columns["text"], text)
        if sound != text:
            marks = [{**mark, "text": repairs.repair(mark["text"])} for mark in marks]
        return sound, targets.as_json(marks)

    def sentence(self, row: Row) -> list[str]:
        """The tags of a row's tokens, as they stand there; none where it is a text with spans."""
        if parsed_list(self.value(row, "text")) is None:
            return []
        return [str(tag) for tag in parsed_list(self.value(row, "entities")) or ()]

    def tags(self, row: Row) -> Any:
        """The entities of a row, as they stand there, but tags in their usual spelling."""
        value = self.value(row, "entities")
        if not self.usual_tags or not (sentence := self.sentence(row)):
            return value
        return [self.usual_tags.get(tag, tag) for tag in sentence]

    def check_tags(self, rows: list[Row]) -> None:
        """Find how tags are spelt, and warn of entities whose tags begin amid one, which are read all the same."""
        if self.mapping.layout.name != "extraction":
            return
        sentences = [self.sentence(row) for row in rows]
        self.usual_tags = tags.usual_spellings(tag for sentence in sentences for tag in sentence)
        sentences = [[self.usual_tags.get(tag, tag) for tag in sentence] for sentence in sentences]
        broken, count = tags.damaged(sentences)
        if broken:
            first, column = rows[broken[0]], self.mapping.columns["entities"]
            problem = Text(
                "{n} entities in {rows} rows begin with a tag for the inside of one (I-X without B-X before it), first here.",
                n=count,
                rows=len(broken),
            )
            remedy = Text("Each was read as an entity of its own; write B- where one begins.")
            self.dataset.warnings.append(Fault(first.line, column, problem, remedy, first.file))
