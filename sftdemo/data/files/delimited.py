"""CSV and its kin: which delimiter, whether quotes are quotes, and the rows that an open quote swallowed."""

from __future__ import annotations

import contextlib
import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sftdemo.data.files.headers import Record, column, labels
from sftdemo.data.files.table import Table
from sftdemo.data.limits import Limits, OverLimit
from sftdemo.errors import Text

_DELIMITERS = ",\t;|^~"
_TOLD = re.compile(r"sep=(.)", re.IGNORECASE)
_SPACED = re.compile(r'\s+".*"', re.DOTALL)  # a quoted cell after a blank
_NONE = "\x1f"
_SAMPLE = 65_536


@dataclass
class _Parsed:
    """Records, and what went wrong: (first line, last line, message of the library); `add` raises OverLimit."""

    limits: Limits

    records: list[Record] = field(default_factory=list)
    errors: list[tuple[int, int, str]] = field(default_factory=list)
    swallowed: list[Record] = field(default_factory=list)
    cells: int = 0

    def add(self, line: int, last: int, cells: list[str]) -> None:
        self.cells += len(cells)
        if self.cells > self.limits.cells:
            raise OverLimit(self.limits, "cells")
        self.records.append(Record(line, last, cells))


def delimiter(lines: list[str]) -> tuple[str, float]:
    """The delimiter that divides most of the first rows into equally many cells, and their share; 0 where none does."""
    sample, size = [], 0
    for line in lines:
        sample.append(line[:_SAMPLE].rstrip("\r"))
        size += len(line) + 1
        if size > _SAMPLE:
            break
    best_rank, best_mark = (0.0, 0), ","
    for mark in _DELIMITERS:
        for rows in _both_ways(sample, mark):
            widths = Counter(len(row) for row in rows if row)
            wide = [(count, width) for width, count in widths.items() if width > 1]
            count, width = max(wide, default=(0, 0))
            rank = (count / max(widths.total(), 1), width)
            if rank > best_rank:
                best_rank, best_mark = rank, mark
    return best_mark, best_rank[0]


def _both_ways(lines: list[str], mark: str) -> Iterator[list[list[str]]]:
    if any(mark in line for line in lines):
        with contextlib.suppress(csv.Error):
            yield list(csv.reader((line + "\n" for line in lines), delimiter=mark))
        if mark == "\t":
            yield [line.split(mark) if line else [] for line in lines]


def records(table: Table, lines: list[str], bad: set[int]) -> list[Record]:
    """The records of a delimited text; what can't be told apart is a fault.

    Raises OverLimit for more cells than the table may have.
    """
    csv.field_size_limit(sys.maxsize)  # the library's own limit of 128 KB is less than a long document
    offset = 0
    if declared := _TOLD.fullmatch(lines[0].strip()):  # Excel's own line for its delimiter
        offset, lines = 1, lines[1:]
    last = next((at for at in range(len(lines), 0, -1) if lines[at - 1].strip("\r")), 1)
    lines = lines[:last]
    mark, share = (declared[1], 1.0) if declared else delimiter(lines)
    if share < 0.5 and mark not in lines[0]:
        mark = _NONE  # one column, with a comma here and there
    quoted = any('"' in line for line in lines)
    parsed = _quoted(lines, mark, offset, table.limits) if quoted else _plain(lines, mark, offset, table.limits)
    if mark == "\t" and (parsed.errors or parsed.swallowed):
        plain = _plain(lines, mark, offset, table.limits)
        width = len(plain.records[0].cells)
        if sum(len(record.cells) != width for record in plain.records) <= len(parsed.errors) + len(parsed.swallowed):
            table.note(Text("its quotes are plain characters, as rows can be told apart only so."))
            parsed = plain
    if parsed.errors and any('\\"' in line for line in lines):
        escaped = _quoted(lines, mark, offset, table.limits, escapechar="\\", doublequote=False)
        if not escaped.errors:
            table.note(Text('its quotes are escaped as \\", and were read so.'))
            parsed = escaped
    if any(_SPACED.fullmatch(cell) for record in parsed.records for cell in record.cells):
        closer = _quoted(lines, mark, offset, table.limits, skipinitialspace=True)
        if len(closer.errors) <= len(parsed.errors):
            parsed = closer
    for line, last, message in parsed.errors:
        _error(table, line, last, message)
    for record in parsed.swallowed:
        problem = (
            Text(
                "Lines {n} to {m} became one row: a quote opens in the first and closes in the last.",
                n=record.line,
                m=record.last,
            )
            if record.last > record.line + 1
            else Text(
                "Lines {n} and {m} became one row: a quote opens in the first and closes in the last.",
                n=record.line,
                m=record.last,
            )
        )
        table.fault(
            record.line,
            problem,
            Text("Double each quote that stands inside a cell, or take it out."),
        )
    gone = {record.line for record in parsed.swallowed}
    return [
        record
        for record in parsed.records
        if record.line not in gone and not (bad and bad.intersection(range(record.line, record.last + 1)))
    ]


def _plain(lines: list[str], mark: str, offset: int, limits: Limits) -> _Parsed:
    parsed = _Parsed(limits)
    for number, line in enumerate(lines, 1 + offset):
        if text := line.rstrip("\r"):
            parsed.add(number, number, text.split(mark))
    return parsed


def _quoted(lines: list[str], mark: str, offset: int, limits: Limits, **how: Any) -> _Parsed:
    parsed = _Parsed(limits)
    reader = csv.reader((line + "\n" for line in lines), delimiter=mark, strict=True, **how)
    while True:
        line = reader.line_num + 1 + offset
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            parsed.errors.append((line, min(reader.line_num, len(lines)) + offset, str(error)))
            continue
        if cells:
            parsed.add(line, reader.line_num + offset, cells)
    parsed.swallowed = _swallowed(parsed.records, lines, mark, offset)
    return parsed


def _swallowed(records: list[Record], lines: list[str], mark: str, offset: int) -> list[Record]:
    """Records over several lines each of which would be a row by itself.

    Prose may look so by chance (but has no tabs). Labels at their place in every line prove it; else most such records
    must look so.
    """
    multiline = [record for record in records if record.last > record.line]
    if not multiline:
        return []
    single = [record for record in records if record.last == record.line]
    width = Counter(len(record.cells) for record in records).most_common(1)[0][0]
    labels_at = {
        place: values for place in range(width) if (values := labels(column(single[1:], place))) and len(single) > 2
    }
    proven, likely = [], []
    for record in multiline:
        cells_by_line = [
            line.rstrip("\r").split(mark) for line in lines[record.line - 1 - offset : record.last - offset]
        ]
        if width > 1 and all(len(cells) == width for cells in cells_by_line):
            if labels_at and all(
                cells[place].strip(' "') in values for cells in cells_by_line for place, values in labels_at.items()
            ):
                proven.append(record)
            elif mark == "\t" or (not labels_at and len(cells_by_line) > 2):
                likely.append(record)
    return proven or (likely if 2 * len(likely) > len(multiline) else [])


def _error(table: Table, line: int, last: int, message: str) -> None:
    if "end of data" in message:
        problem = (
            Text("A quote that opens here is never closed; lines {n} to {m} could not be read.", n=line, m=last)
            if last > line
            else Text("A quote that opens here is never closed.")
        )
        table.fault(line, problem, Text("Close it."), whole=True)
    else:
        table.fault(
            line,
            Text("The cells can't be told apart: {reason}.", reason=Text(message)),
            Text("Double each quote that stands inside a cell."),
        )
