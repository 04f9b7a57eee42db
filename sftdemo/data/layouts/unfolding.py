"""The readers of nested rows, and which of them a row needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sftdemo.data.files.table import Row, present
from sftdemo.data.layouts import annotation_tools as tools
from sftdemo.data.layouts import nested
from sftdemo.data.types import LeftOut, Tally
from sftdemo.data.values import entities, tags
from sftdemo.errors import Fault, Text

Values = dict[str, Any]

MARKED_DIFFERENTLY = Text("{n} rows are marked differently by several people: one of the marks is learned.")


@dataclass(frozen=True)
class Reader:
    """A nested row: whether these columns and values are one, and the plain rows it holds (or LeftOut)."""

    name: str
    needs: Callable[[Iterable[str]], bool]
    fits: Callable[[Values], bool]
    rows: Callable[[Values], Iterator[Values]]
    differs: Callable[[Values], bool] | None = None  # whether people marked the row differently


def _reader(
    name: str,
    columns: str,
    fits: Callable[[Values], bool],
    rows: Callable[[Values], Iterator[Values]],
    differs: Callable[[Values], bool] | None = None,
) -> Reader:
    needed = frozenset(columns.split())
    return Reader(name, lambda there: needed <= set(there), fits, rows, differs)


READERS = (
    _reader("SQuAD", "paragraphs", nested.is_squad, nested.squad),
    _reader("WMT", "translation", nested.is_translation, nested.translation),
    _reader(
        "OpenAI preference",
        "input preferred_output non_preferred_output",
        nested.is_openai_preference,
        nested.openai_preference,
    ),
    _reader("Gemini", "contents", nested.is_gemini, nested.gemini),
    _reader("Label Studio", "data annotations", tools.is_label_studio, tools.label_studio, tools.studio_differs),
    _reader("Label Studio", "annotation_id", tools.is_label_studio_min, tools.label_studio_min),
    _reader("Argilla", "fields", tools.is_argilla, tools.argilla, tools.argilla_differs),
    _reader("Argilla", "annotation", tools.is_old_argilla, tools.old_argilla),
    Reader("Argilla", tools.is_published_argilla, lambda values: True, tools.published_argilla),
    _reader("Prodigy", "answer", tools.is_prodigy, tools.prodigy),
    _reader("spaCy", "text annotations", nested.is_spacy, nested.spacy),
    _reader("UltraChat", "data", nested.is_ultrachat, nested.ultrachat),
    _reader("ChatGPT", "mapping current_node", nested.is_chatgpt, nested.chatgpt),
)


def _reader_of(values: Values, readers: Iterable[Reader]) -> Reader | None:
    return next((reader for reader in readers if reader.needs(values.keys()) and reader.fits(values)), None)


def opened(rows: list[Row], tally: Tally) -> list[Row]:
    """The rows inside a file's one object, numbered from 1; all other rows as they are."""
    if len(rows) != 1 or _reader_of(rows[0].values, READERS) or not (inside := nested.opened(rows[0].values)):
        return rows
    first = rows[0]
    beside = (column for column, value in first.values.items() if not isinstance(value, list | dict) and value)
    tally.unused += map(repr, beside)
    return [Row(first.file, at, values, first.split or split) for at, (values, split) in enumerate(inside, 1)]


def unfold(rows: list[Row], tally: Tally, faults: list[Fault]) -> list[Row]:
    """The rows with plain columns; rows that are plain stay as they are, and what is left out is counted.

    A nested row that can't be read is added to the faults.
    """
    rows = opened(rows, tally)
    rows = tags.named(entities.sentences(rows) or present(rows))
    candidates: dict[tuple[str, ...], list[Reader]] = {}
    plain: list[Row] = []
    for row in rows:
        shape = tuple(row.values)
        if shape not in candidates:
            candidates[shape] = [reader for reader in READERS if reader.needs(row.values.keys())]
        reader = _reader_of(row.values, candidates[shape])
        if reader is None:
            plain.append(row)
            continue
        try:
            if reader.differs and reader.differs(row.values):
                tally.counts[MARKED_DIFFERENTLY] += 1
            plain += [row._replace(values=values) for values in list(reader.rows(row.values))]
        except LeftOut as reason:
            tally.left_out[reason.why] += 1
        except (AttributeError, TypeError, ValueError, KeyError):  # a part of another kind than the tool writes
            problem = Text("The row is laid out as {layout}, but a part of it is of another kind.", layout=reader.name)
            faults.append(Fault(row.line, "", problem, Text("Correct it, or remove the row."), row.file))
    return plain
