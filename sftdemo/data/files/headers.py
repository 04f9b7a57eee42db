"""Cells to rows: which row is the header if any is, what the columns are called, and which rows and columns are blank."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sftdemo.data.files.table import Table
from sftdemo.data.limits import OverLimit
from sftdemo.errors import Text

_SAMPLE = 2000  # rows that are looked at to tell a header
_LABEL = 60  # the longest label in characters
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")
_UNNAMED = re.compile(r"Unnamed: ?\d+")  # how pandas writes a column without a name
# What headers say and data hardly ever does.
_NAMES = {
    "text", "sentence", "label", "category", "class", "sentiment", "topic", "intent", "prompt", "completion",
    "question", "answer", "query", "response", "instruction", "input", "output", "context", "source", "target",
    "title", "content", "message", "review", "summary", "chosen", "rejected", "id", "split",
}  # fmt: skip
_PROSE = re.compile(r"\S+(?:\s+\S+){5}|.{60}|[.!?。！？]$", re.DOTALL)


class Record(NamedTuple):
    """The cells of one row, from its first line to its last."""

    line: int
    last: int
    cells: list[str]


def fill(table: Table, records: Sequence[Record], header: str) -> None:
    """Turn records into the table's rows. `header` is auto, yes, no, or the number of the header's row."""
    filled = [record for record in records if any(map(str.strip, record.cells))]
    if blank := len(records) - len(filled):
        table.note(Text("Blank rows skipped: {n}.", n=blank))
    names, body, start = _header(table, filled, header)
    if names is None:
        return
    if len(names) > table.limits.columns:
        raise OverLimit(table.limits, "columns", len(names))
    body = _without_row_numbers(table, names, body)
    keep = _columns(table, names, body, start)
    if keep is None:
        return
    width, cut, repeated = len(names), 0, 0
    first = [names[place] for place in keep]
    for record in body:
        cells = record.cells
        if len(cells) > width:
            if any(map(str.strip, cells[width:])):
                _ragged(table, record, width)
                continue
            cut += 1
        elif len(cells) < width:
            _ragged(table, record, width)
            continue
        values = [cells[place] for place in keep]
        if values == first and start:
            repeated += 1
            continue
        table.add(record.line, dict(zip(first, values, strict=True)))
    if cut:
        table.note(Text("Rows with surplus empty cells, which were skipped: {n}.", n=cut))
    if repeated:
        table.note(Text("Rows that repeat the header, which were skipped: {n}.", n=repeated))


def _ragged(table: Table, record: Record, width: int) -> None:
    table.fault(
        record.line,
        Text("The row has {n} cells, the header {m}.", n=len(record.cells), m=width),
        Text("Put a cell that holds the delimiter or a line break in double quotes."),
    )


def _header(table: Table, filled: list[Record], header: str) -> tuple[list[str] | None, list[Record], int]:
    """(the columns' names or None, the rows below, the header's line or 0 without one)."""
    if not filled:
        return None, [], 0
    if header.isdigit():
        at = next((place for place, record in enumerate(filled) if record.line == int(header)), None)
        if at is None:
            table.fault(
                0,
                Text("No row begins in line {n}, which header names.", n=header),
                Text("Name one of lines {first} to {last} that has cells.", first=filled[0].line, last=filled[-1].line),
            )
            return None, [], 0
        _skipped_above(table, filled[:at])
        return [cell.strip() for cell in filled[at].cells], filled[at + 1 :], filled[at].line
    if header == "auto":
        titles = _titles(filled)
        _skipped_above(table, filled[:titles])
        filled = filled[titles:]
    if header == "no" or (header == "auto" and _is_data(filled)):
        names = _made_up(filled)
        called = list(map(repr, names[:20]))
        if header == "no":
            table.note(Text("it is read without a header; its columns are called {names}.", names=called))
        else:
            table.note(
                Text(
                    "its first row is data; its columns are called {names}. If that row is a header, say --header yes.",
                    names=called,
                )
            )
        return names, filled, 0
    prose = next((cell for cell in filled[0].cells if _PROSE.search(cell.strip())), "")
    if header == "auto" and prose and not _names_numbers(filled):
        shown = prose.strip() if len(prose) < 50 else prose.strip()[:50] + "…"
        table.warn(
            filled[0].line,
            Text("The header has {cell!r}, which may be data.", cell=shown),
            Text("If there is no header, say --header no."),
        )
    return [cell.strip() for cell in filled[0].cells], filled[1:], filled[0].line


def _skipped_above(table: Table, records: list[Record]) -> None:
    if records:
        shown = next(cell.strip() for cell in records[0].cells if cell.strip())[:50]
        table.note(Text("Rows above the header, which are not read: {n} ({first!r}).", n=len(records), first=shown))


def _titles(filled_records: list[Record]) -> int:
    """How many rows stand above the header: a title has one cell, the row below it names columns, and rows follow."""
    for place, record in enumerate(filled_records[:5]):
        filled = [cell for cell in record.cells if cell.strip()]
        if len(filled) > 1 or not (len(record.cells) == 1 or " " in filled[0].strip()):
            below = filled_records[place:]
            wide = sum(len(record.cells) > 1 for record in below)
            return place if place and 1 < len(below) < 1.25 * wide and not _is_data(below) else 0
    return 0


def labels(values: Iterable[str]) -> set[str] | None:
    """The values if they are like labels: short, and each of them there again and again; else None."""
    counts = Counter(value.strip() for value in values)
    if 2 * len(counts) > counts.total() + 1 or any(len(value) > _LABEL for value in counts):
        return None
    return set(counts)


def column(records: Iterable[Record], place: int) -> list[str]:
    return [record.cells[place] for record in records if place < len(record.cells)]


def _is_data(records: list[Record]) -> bool:
    """Whether the first row is one of many: its cells are values that its columns have again and again, or numbers."""
    first, rest = [cell.strip() for cell in records[0].cells], records[1 : _SAMPLE + 1]
    if not rest or all(cell in ("", str(place)) for place, cell in enumerate(first)):
        return False  # pandas numbers columns that have no name
    if 2 * sum(cell.casefold() in _NAMES for cell in first) >= sum(map(bool, first)):
        return False
    if any([cell.strip() for cell in record.cells] == first for record in rest):
        return False  # files with a header each, joined
    for place, cell in enumerate(first):
        below = [value for value in column(rest, place) if value.strip()]
        repeated_values = labels(below)
        if cell and repeated_values is not None and cell in repeated_values:
            return True
        if _NUMBER.fullmatch(cell) and below and all(_NUMBER.fullmatch(value.strip()) for value in below):
            return True
    return False


def _names_numbers(records: list[Record]) -> bool:
    """Whether the first row has words above a column of numbers, dates or times, as no row of data has."""
    for place, cell in enumerate(records[0].cells):
        below = [value for value in column(records[1 : _SAMPLE + 1], place) if value.strip()]
        worded = cell.strip() and not re.search(r"\d", cell)
        if worded and below and all(re.match(r"\s*[-+]?\d", value) for value in below):
            return True
    return False


def _made_up(records: list[Record]) -> list[str]:
    """Names for columns that have none: text and label where there is one of each, with a title or as a pair; else column1, …"""
    width = Counter(len(record.cells) for record in records).most_common(1)[0][0]
    names = [f"column{place + 1}" for place in range(width)]
    columns = [column(records[:_SAMPLE], place) for place in range(width)]
    marks = [place for place, values in enumerate(columns) if len(labels(values) or ()) > 1]
    if len(marks) != 1:
        return names
    lengths = {
        place: sum(map(len, values)) for place, values in enumerate(columns) if place != marks[0] and _is_prose(values)
    }
    if width == 2:
        lengths = {1 - marks[0]: 1}
    prose = sorted(lengths, key=lambda place: -lengths[place])
    far = len(prose) > 1 and lengths[prose[0]] >= 1.5 * lengths[prose[1]]
    if len(prose) == 1 or far:
        names[prose[0]], names[marks[0]] = "text", "label"
        if far and width == 3:
            names[prose[1]] = "title"
    elif len(prose) == 2 and width == 3:
        names[min(prose)], names[max(prose)], names[marks[0]] = "sentence1", "sentence2", "label"
    return names


def _is_prose(values: list[str]) -> bool:
    """Whether most of the values are several words, or long."""
    return sum(" " in value.strip() or len(value) > 20 for value in values) > len(values) / 2


def _without_row_numbers(table: Table, names: list[str], body: list[Record]) -> list[Record]:
    """R numbers its rows in a first column that the header doesn't count. Anything else there may be text that a comma cuts."""
    longer = sum(len(record.cells) == len(names) + 1 for record in body)
    if not body or longer < len(body) or not any(record.cells[-1].strip() for record in body):
        return body
    numbers = {record.cells[0].strip() for record in body}
    if len(numbers) < len(body) or not all(map(str.isdecimal, numbers)):
        return body
    table.note(Text("the first column only counts the rows, and is not read."))
    return [Record(record.line, record.last, record.cells[1:]) for record in body]


def _columns(table: Table, names: list[str], body: list[Record], start: int) -> list[int] | None:
    """The places of the columns that are read, after those without a name got one; None after a fault."""
    keep, empty, counting = [], 0, False
    place_of: dict[str, int] = {}
    twice: dict[str, Text] = {}
    taken = set(names)
    for place, name in enumerate(names):
        if not name or _UNNAMED.fullmatch(name):
            values = column(body, place)
            if not any(map(str.strip, values)):
                empty += 1
                continue
            if place == 0 and _counts(values):
                counting = True
                continue
            names[place] = name = name or _free(f"column{place + 1}", taken)
            spilled = [record for record in body if place < len(record.cells) and record.cells[place].strip()]
            if 2 * len(spilled) < len(body):
                problem = Text(
                    "The column {name!r} has no name of its own, and holds something in {n} rows.",
                    name=name,
                    n=len(spilled),
                )
                table.warn(
                    spilled[0].line,
                    problem,
                    Text("Look whether a cell before it was cut; else name it, or take it out."),
                )
        if name in place_of:
            if column(body, place) == column(body, place_of[name]):
                twice[name] = Text(
                    "the column {name!r} stands there twice with the same values; it is read once.", name=name
                )
                continue
            table.fault(start, Text("The header has {name!r} twice.", name=name), Text("Rename one of them."), True)
            return None
        place_of[name] = place
        keep.append(place)
    for note in twice.values():
        table.note(note)
    if empty:
        table.note(Text("Columns without a name or a value, which were skipped: {n}.", n=empty))
    if counting:
        table.note(Text("the first column only counts the rows, and is not read."))
    return keep


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _counts(values: list[str]) -> bool:
    first = values[0].strip()
    return first in ("0", "1") and all(value.strip() == str(at) for at, value in enumerate(values, int(first)))
