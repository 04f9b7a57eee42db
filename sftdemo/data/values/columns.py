"""What columns hold, judged by their values: labels, long text, ids; which stay unused, and what they might be."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo.data.files.table import Row

SAMPLE = 200  # values that a judgement rests on
MOST_JUDGED = 60  # columns of a table
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])")
_GAPS = re.compile(r"[\s\-.]+")
_OWNERS = (
    "row|doc|document|example|sample|item|text|sentence|question|conversation|conv|dialog|dialogue|user|author|thread|message|"
    "tweet|comment|review|article|source|data|pair|query|passage|image|q|orig|original|prompt|parent|order|record|task|worker"
)
# Names of columns that number or name the rows and say nothing about their text.
_NUMBERING = re.compile(
    rf"_*(?:|ids?|idx|index|uuid|guid|uid|qid|pid|(?:{_OWNERS})_?(?:id|idx|index)s?|id_(?:{_OWNERS})|unnamed:?_?\d*|row|line|lineno|"
    r"(?:row|line)_(?:no|nr|num|number)|.*hash|md5|sha_?\d*|checksum|created_(?:at|time|on)|updated_(?:at|time|on)|timestamp)"
)
_DATE = re.compile(r"\s*(?:\d{4}([./-])\d{1,2}\1\d{1,2}|\d{1,2}([./-])\d{1,2}\2\d{2,4})(?!\d)")
_LONG_LABEL, _FEW = 40, 50
_SHORT_TEXT = 12


def key(column: str) -> str:
    """A column's name without differences of case, blanks and camel case: "Review Text" and "reviewText" are review_text."""
    return _GAPS.sub("_", _CAMEL.sub("_", column.strip())).casefold()


@dataclass
class Columns:
    """The values that columns hold, from the first rows that have any; asked for column by column."""

    rows: Sequence[Row]
    _values: dict[str, list[Any]] = field(default_factory=dict)

    def values(self, column: str) -> list[Any]:
        """Up to SAMPLE values that aren't empty."""
        if column not in self._values:
            sample: list[Any] = []
            for row in self.rows:
                value = row.values.get(column)
                if value is not None and value != "" and value != []:
                    sample.append(value)
                    if len(sample) == SAMPLE:
                        break
            self._values[column] = sample
        return self._values[column]

    def numbering(self, column: str) -> bool:
        """Whether the column only numbers or names the rows: by its name, and by values that are no sentences."""
        return bool(_NUMBERING.fullmatch(key(column))) and all(
            isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 80 and " " not in value.strip())
            or (isinstance(value, str) and value[:4].isdigit())
            or not isinstance(value, str | list | dict)
            for value in self.values(column)
        )  # fmt: skip

    def few(self, column: str) -> bool:
        """Whether the values are short, few and repeated, as labels are."""
        lists = [value if isinstance(value, list) and value else [value] for value in self.values(column)]
        values = [part for parts in lists for part in parts]
        plain = [str(value) for value in values if isinstance(value, str | int) or _is_half(value)]
        distinct = len(set(plain))
        short = sum(map(len, plain)) <= _LONG_LABEL * len(plain)
        return len(plain) == len(values) > distinct and distinct <= min(_FEW, max(2, len(plain) // 2)) and short

    def labels(self, column: str) -> bool:
        """Whether the values are as labels are, and not all the same."""
        return self.few(column) and not self.constant(column)

    def texts(self, column: str) -> bool:
        """Whether the values are varied text of more than a word or two."""
        values = self.values(column)
        plain = [value for value in values if isinstance(value, str)]
        if len(plain) < len(values) or not plain:
            return False
        worded = sum(" " in value.strip() or not value.isascii() for value in plain)
        return 2 * len(set(plain)) >= len(plain) and self.length(column) >= _SHORT_TEXT / 2 and 2 * worded >= len(plain)

    def dated(self, column: str) -> bool:
        """Whether every value begins with a date."""
        values = self.values(column)
        return bool(values) and all(_DATE.match(str(value)) for value in values)

    def length(self, column: str) -> float:
        """Characters of a value, on average."""
        values = self.values(column)
        return sum(map(len, map(str, values))) / max(1, len(values))

    def varied(self, column: str) -> bool:
        """Whether nearly every row has another value."""
        values = self.values(column)
        return len(values) > 4 and 10 * len(set(map(str, values))) >= 9 * len(values)

    def opened(self, column: str) -> bool:
        """Whether the values are objects, which hold columns of their own."""
        values = self.values(column)
        return bool(values) and all(isinstance(value, dict) for value in values)

    def objects(self, column: str) -> bool:
        """Whether the values are objects or lists."""
        values = self.values(column)
        return bool(values) and all(isinstance(value, dict | list) for value in values)

    def sentences(self, column: str) -> bool:
        """Whether every value is another sentence, alone or the only one of a list: no label is."""
        values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in self.values(column)]
        plain = [value for value in values if isinstance(value, str)]
        words = sum(len(value.split()) if value.isascii() else len(value) // 3 for value in plain)
        return len(values) == len(plain) == len(set(plain)) > 4 and words >= 4 * len(plain)

    def constant(self, column: str) -> bool:
        """Whether every row has the same there, or nothing."""
        first = next(iter(self.values(column)), None)
        if first is None:
            return True
        values = (row.values.get(column) for row in self.rows)
        return len(self.rows) > 1 and all(value == first or value in (None, "", []) for value in values)

    def repeats(self, column: str, others: Iterable[str]) -> bool:
        """Whether the column says nothing that the others don't: it is one of them, one to one, or holds them all."""
        others = list(dict.fromkeys(others))
        whole = [
            all(str(row.values.get(other)) in str(row.values.get(column)) for other in others)
            for row in self.rows[:SAMPLE]
        ]
        return (len(others) > 1 and all(whole)) or any(self._same(column, other) for other in others)

    def _same(self, column: str, other: str) -> bool:
        forwards: dict[str, str] = {}
        backwards: dict[str, str] = {}
        for row in self.rows:
            text, other_text = str(row.values.get(column)), str(row.values.get(other))
            if forwards.setdefault(text, other_text) != other_text or backwards.setdefault(other_text, text) != text:
                return False
        # One to one by chance, since every row is another, says nothing.
        return 2 * len(forwards) <= len(self.rows) or all(text == other_text for text, other_text in forwards.items())


def _is_half(value: Any) -> bool:
    """Whether the value counts whole or half stars, as a rating does."""
    return isinstance(value, float) and (2 * value).is_integer()


@dataclass(frozen=True)
class Unused:
    """Columns that aren't read: those that may mean something, and those that number rows, never change, or repeat."""

    meant: list[str]
    numbering: list[str]
    constant: list[str]
    repeating: list[str]


def unused(columns: Columns, every: Sequence[str], used: set[str], labels: Sequence[str]) -> Unused:
    """Sort the columns outside `used`; `labels` are used ones that another column may spell once more."""
    remaining = [column for column in every if column not in used]
    result = Unused([], [], [], [])
    for column in remaining:
        if len(remaining) > MOST_JUDGED:
            kind = result.meant
        elif columns.numbering(column):
            kind = result.numbering
        elif columns.constant(column):
            kind = result.constant
        else:
            kind = result.repeating if columns.repeats(column, labels) else result.meant
        kind.append(column)
    return result


def guess(columns: Columns, every: Sequence[str]) -> dict[str, str]:
    """{role: column} that the values suggest: text and label, or prompt and completion in their order; {} without a clue."""
    judged = every[:MOST_JUDGED]
    candidates = [column for column in judged if not (columns.numbering(column) or columns.dated(column))]
    few = [column for column in candidates if columns.labels(column)]
    texts = [column for column in candidates if column not in few and columns.texts(column)]
    if texts and few:
        longest = max(texts, key=columns.length)
        return {"text": longest, "label": few[0]}
    objects = [column for column in candidates if columns.objects(column)]
    pair = [*texts, *objects][:2]
    return dict(zip(("prompt", "completion"), pair, strict=True)) if texts and len(pair) > 1 else {}


def flag(pairs: str) -> str:
    """The command-line flag that names columns."""
    return f"--columns {shlex.quote(pairs)}"


def flattened(values: dict[str, Any], depth: int = 2) -> dict[str, Any]:
    """The values with objects opened: {"meta": {"kind": 1}} also has "meta.kind"."""
    flat = dict(values)
    if depth:
        for column, value in values.items():
            if isinstance(value, dict):
                flat |= {f"{column}.{name}": part for name, part in flattened(value, depth - 1).items()}
    return flat


def at_path(values: dict[str, Any], path: str) -> Any:
    """What stands at a dotted path ("meta.kind", "turns.0.text"); None where nothing does. A column of that name wins."""
    if path in values:
        return values[path]
    value: Any = values
    for step in path.split("."):
        if isinstance(value, list) and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value
