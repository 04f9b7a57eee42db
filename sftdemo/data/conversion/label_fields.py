"""The labels of rows: one or several, spelt alike, also where they stand in one text with something between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo.data.conversion.entity_fields import EntityFields
from sftdemo.data.files.table import Row
from sftdemo.data.text import repairs
from sftdemo.data.values import targets
from sftdemo.errors import Text

HIDDEN = "-1"
_DIVIDERS = (";", "|", ",", "、", "，")


@dataclass
class LabelFields(EntityFields):
    """Reads the labels of rows."""

    spellings: dict[str, str] = field(default_factory=dict)
    several: bool = False  # whether a row may have more than one label
    divider: str = ""  # what stands between them, where they are one text
    hidden: str = ""  # the label that stands for none

    def spell_labels(self, rows: list[Row]) -> None:
        """Find labels that are spelt in several ways; a warning for each row of a rarer spelling, or its repair."""
        column = self.mapping.columns.get("label")
        if column is None:
            return
        values = [row.values.get(column) for row in rows]
        self.divider = divider(values) if self.mapping.layout.answer == "label" else ""
        if self.divider:
            self.dataset.notes.append(
                Text("Labels are read as several of a row where {divider!r} stands between them.", divider=self.divider)
            )
        each = [self._listed(value) for value in values]
        self.several = any(len(labels) > 1 for labels in each)
        counts = Counter(label for labels in each for label in labels)
        self.hidden = HIDDEN if hides(counts) else ""
        spellings = repairs.variants(counts)
        for row, labels in zip(rows, each, strict=True) if spellings else ():
            for label in labels:
                if label in spellings:
                    best = spellings[label]
                    problem = Text(
                        "The label {label!r} is {best!r} in another spelling ({n} rows, and {m}).",
                        label=label,
                        best=best,
                        n=counts[label],
                        m=counts[best],
                    )
                    self.flaw(
                        row, column, problem, Text("Spell them alike."), Text("It was written {best!r}.", best=best)
                    )
        self.spellings = spellings if self.fix else {}

    def labels(self, row: Row) -> list[str]:
        labels = [self.spellings.get(label, label) for label in self._listed(self.value(row, "label"))]
        return [label for label in dict.fromkeys(labels) if not self.hidden or label != self.hidden]

    def saved_labels(self, row: Row, answer: str) -> list[str]:
        """The labels that a run's saved row lists beside its answer, if it has several."""
        labels = row.values.get("labels")
        listed = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        return list(labels or ()) if listed and answer == ", ".join(labels or ()) else []

    def _listed(self, value: Any) -> list[str]:
        labels = targets.labels(value)
        if not self.divider or not isinstance(value, str):
            return labels
        return [part.strip() for label in labels for part in label.split(self.divider) if part.strip()]


def hides(labels: Collection[str]) -> bool:
    """Whether -1 stands for no label, as in public sets: beside classes counted from 0, and more than the two of a mood."""
    classes = set(labels) - {HIDDEN}
    return HIDDEN in labels and len(classes) > 2 and classes <= {str(number) for number in range(len(classes))}


def divider(values: Sequence[Any]) -> str:
    """What divides labels that stand in one text, "" where nothing does.

    Each part must stand in another label too, and there must be fewer parts than whole labels: "Films, Music" is one label
    unless "Films" and "Music" are labels of their own, or of other pairs. Where every whole has as many parts it is one label of
    several fields ("bug,high", "bug,low"): sets of labels have unlike numbers.
    """
    wholes = {value.strip() for value in values if isinstance(value, str) and value.strip()}
    if len(wholes) < 3:
        return ""
    for mark in _DIVIDERS:
        parts_of = {whole: list(filter(None, map(str.strip, whole.split(mark)))) for whole in wholes}
        stands_in = Counter(part for parts in parts_of.values() for part in set(parts))
        divided = {part for whole, parts in parts_of.items() if mark in whole for part in parts}
        unlike = len(set(map(len, parts_of.values()))) > 1
        if divided and unlike and len(stands_in) < len(wholes) and all(stands_in[part] > 1 for part in divided):
            return mark
    return ""
