"""Bytes in, rows with line numbers out: JSONL, JSON, CSV, TSV and Parquet, and a fault for every line that can't be read."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sftdemo.errors import Fault

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")
MAX_BYTES = 1_000_000_000
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"\s*")
_DELIMITERS = ",\t;|"


class Row(NamedTuple):
    """One record and where it stands: `line` counts from 1 (in Parquet it is the row's number)."""

    file: str
    line: int
    values: dict[str, Any]
    split: str | None = None


@dataclass
class Table:
    """The rows of a file that can be read, and a fault for each that can't."""

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def kind(value: object) -> str:
    """What a value is, in words a user knows."""
    names = {type(None): "null", str: "text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value)) or ("a number" if isinstance(value, int | float) else type(value).__name__)


def suffix_of(name: str) -> str:
    return "." + name.rsplit(".", 1)[1].lower() if "." in name else ""


def read_table(name: str, data: bytes, split: str | None = None) -> Table:
    """Read one file's bytes. The suffix of `name` says how; between JSON and JSONL the content decides."""
    suffix = suffix_of(name)
    reader = _Reader(name, split)
    if suffix not in SUFFIXES:
        reader.fault(0, f"Files that end in {suffix!r} can't be read.", f"Give one of: {', '.join(SUFFIXES)}.")
    elif len(data) > MAX_BYTES:
        reader.fault(0, f"The file has {len(data) / 1e9:.1f} GB; the most is 1 GB.", "Give a part of it.")
    elif not data.removeprefix(_BOM).strip():
        reader.fault(0, "The file is empty.", "Give a file with rows.")
    elif suffix == ".parquet":
        reader.parquet(data)
    elif suffix in (".csv", ".tsv", ".txt"):
        reader.delimited(data)
    else:
        reader.json_or_lines(data, lines_expected=suffix != ".json")
    if not reader.table.rows and not reader.table.faults:
        reader.fault(0, "The file has no rows.", "Give a file with rows.")
    return reader.table


class _Reader:
    """Fills one table; each layout of a file is a method."""

    def __init__(self, name: str, split: str | None) -> None:
        self.name, self.split, self.table = name, split, Table()

    def fault(self, line: int, problem: str, remedy: str) -> None:
        self.table.faults.append(Fault(line, "", problem, remedy, self.name))

    def add(self, line: int, value: Any, source: str) -> None:
        """Take a value parsed from the JSON text `source`, unless it is no row."""
        if not isinstance(value, dict):
            self.fault(line, f"The row is {kind(value)}, not an object.", 'Write it as {"column": value, …}.')
        elif _SURROGATE.search(source) and _holds_half_character(value):
            self.fault(
                line, "The row holds half a character (a lone \\ud8…).", "Write the character out, or remove it."
            )
        else:
            self.table.rows.append(Row(self.name, line, value, self.split))

    def broken(self, line: int, error: Exception, remedy: str) -> None:
        if isinstance(error, json.JSONDecodeError):
            message = f"{error.msg} at character {error.colno}"
        else:
            message = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        self.fault(line, f"This isn't JSON: {message}.", remedy)

    def decode(self, data: bytes) -> tuple[list[str], set[int]]:
        """The lines, and the numbers of those that aren't UTF-8, each with its fault."""
        data = data.removeprefix(_BOM)
        try:
            return data.decode("utf-8").split("\n"), set()
        except UnicodeDecodeError:
            lines, bad = [], set()
        for number, raw in enumerate(data.split(b"\n"), 1):
            try:
                lines.append(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                bad.add(number)
                lines.append(raw.decode("utf-8", "replace"))
                place = f"Byte {error.start + 1} of the line, 0x{raw[error.start]:02x},"
                self.fault(number, f"{place} isn't UTF-8.", "Save the file as UTF-8.")
        return lines, bad

    def json_or_lines(self, data: bytes, lines_expected: bool) -> None:
        lines, bad = self.decode(data)
        filled = (line.strip() for line in lines if line.strip())
        first, single = next(filled, ""), next(filled, None) is None
        if first.startswith("["):
            whole = True
        elif isinstance(start := _parsed(first), dict):
            whole = single and isinstance(start.get("data"), list)
        else:
            whole = not lines_expected or _parsed("\n".join(lines)) is not None
        (self.whole_json if whole else self.json_lines)(lines, bad)

    def json_lines(self, lines: list[str], bad: set[int]) -> None:
        for number, line in enumerate(lines, 1):
            if number in bad or not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                self.broken(number, error, "Mend the line, or remove it.")
            else:
                self.add(number, value, line)

    def whole_json(self, lines: list[str], bad: set[int]) -> None:
        """A list of objects, or an object whose `data` is one."""
        text = "\n".join(lines)
        try:
            start = _list_start(text)
            if start is None:
                self.fault(
                    0, "The file is one object without a list under 'data'.", 'Write [row, …] or {"data": [row, …]}.'
                )
                return
            for line, value, source in _elements(text, start):
                # The decoder put a replacement for a bad byte: the row is at fault already.
                if not bad.intersection(range(line, line + source.count("\n") + 1)):
                    self.add(line, value, source)
        except (ValueError, RecursionError) as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
            self.broken(line, error, "Mend it; what follows could not be read.")

    def delimited(self, data: bytes) -> None:
        """CSV and its kin. A row's line is the one it starts on."""
        lines, bad = self.decode(data)
        text = "\n".join(lines)
        csv.field_size_limit(MAX_BYTES)  # the library's own limit of 128 KB is less than a long document
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.csv_error(line, reader.line_num, str(error))
                continue
            if not cells or bad.intersection(range(line, reader.line_num + 1)):
                continue
            if header is None:
                header = [name.strip() for name in cells]
                if twice := sorted({name for name in header if name and header.count(name) > 1}):
                    self.fault(line, f"The header has {', '.join(map(repr, twice))} twice.", "Rename one of them.")
            elif len(cells) != len(header):
                self.fault(
                    line,
                    f"The row has {len(cells)} cells, the header {len(header)}.",
                    "Put a cell that holds the delimiter or a line break in double quotes.",
                )
            else:
                values = dict(zip(header, cells, strict=True))
                self.table.rows.append(Row(self.name, line, values, self.split))

    def csv_error(self, line: int, last: int, message: str) -> None:
        if "end of data" in message:
            lost = f"; lines {line} to {last} could not be read" if last > line else ""
            self.fault(line, f"A quote that opens here is never closed{lost}.", "Close it.")
        else:
            self.fault(
                line, f"The cells can't be told apart: {message}.", "Double each quote that stands inside a cell."
            )

    def parquet(self, data: bytes) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            values = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)).read().to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            self.fault(0, f"This isn't a Parquet file that can be read: {str(error).splitlines()[0]}", "Write it anew.")
        else:
            self.table.rows = [Row(self.name, line, row, self.split) for line, row in enumerate(values, 1)]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _holds_half_character(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _list_start(text: str) -> int | None:
    """Where the rows' list opens, just after its bracket; None for an object without `data`."""
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if text[at] == "[":
        return at + 1
    while text[at : at + 1] in ("{", ","):
        at = _skip(text, at + 1)
        key, at = decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':'", text, at)
        at = _skip(text, at + 1)
        if key == "data" and text[at : at + 1] == "[":
            return at + 1
        at = _skip(text, decoder.raw_decode(text, at)[1])
    if text[at : at + 1] != "}":
        raise json.JSONDecodeError("Expecting an object or a list", text, at)
    return None


def _elements(text: str, at: int) -> Iterator[tuple[int, Any, str]]:
    """(line, value, its text) for each element of the JSON list that opens just before `at`."""
    decoder = json.JSONDecoder()
    seen, line = 0, 1
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return
    while True:
        value, end = decoder.raw_decode(text, at)
        line += text.count("\n", seen, at)
        seen = at
        yield line, value, text[at:end]
        at = _skip(text, end)
        if text[at : at + 1] == "]":
            return
        if text[at : at + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        at = _skip(text, at + 1)


def _delimiter(text: str) -> str:
    """The delimiter under which most of the first rows are as wide as the header, and the header widest."""
    sample = text[:65536]
    best, found = (0.0, 0), ","
    for delimiter in _DELIMITERS:
        try:
            rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        rank = (sum(len(row) == width for row in rows) / len(rows), width) if width > 1 else (0.0, 0)
        if rank > best:
            best, found = rank, delimiter
    return found
