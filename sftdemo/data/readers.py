"""Bytes in, rows with line numbers out: JSONL, JSON, CSV, TSV, Parquet and Arrow, and a fault for each line that can't be."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sftdemo.data.decoding import Undecodable, decode
from sftdemo.errors import Fault

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather")
PACKED = (".zip", ".gz")
MAX_BYTES = 500_000_000  # rows take about eight times their file's size in memory
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"\s*")
_DELIMITERS = ",\t;|^~"
_TOLD = re.compile(r"sep=(.)", re.IGNORECASE)


class Row(NamedTuple):
    """One record and where it stands: `line` counts from 1 (in Parquet it is the row's number)."""

    file: str
    line: int
    values: dict[str, Any]
    split: str | None = None


@dataclass
class Table:
    """The rows of a file that can be read, a fault for each that can't, and notes on how it was read."""

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def kind(value: object) -> str:
    """What a value is, in words a user knows."""
    names = {type(None): "null", str: "text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value)) or ("a number" if isinstance(value, int | float) else type(value).__name__)


def suffix_of(name: str) -> str:
    return "." + name.rsplit(".", 1)[1].lower() if "." in name else ""


def too_large(name: str, size: int, what: str = "") -> Fault:
    over = f"{size / 1e9:.1f} GB" if size > 1.05 * MAX_BYTES else f"more than {MAX_BYTES / 1e9:.1f} GB"
    return Fault(0, "", f"The file has {what}{over}; the most is {MAX_BYTES / 1e9:.1f} GB.", "Give a part of it.", name)


def read_table(name: str, data: bytes, split: str | None = None) -> Table:
    """Read one file's bytes. The suffix of `name` says how; between JSON and JSONL the content decides."""
    suffix = suffix_of(name)
    reader = _Reader(name, split)
    if suffix not in SUFFIXES:
        reader.fault(
            0, f"Files that end in {suffix!r} can't be read.", f"Give one of: {', '.join((*SUFFIXES, *PACKED))}."
        )
    elif len(data) > MAX_BYTES:
        reader.table.faults.append(too_large(name, len(data)))
    elif not data.removeprefix(b"\xef\xbb\xbf").strip(b"\x00 \t\r\n"):
        reader.fault(0, "The file is empty.", "Give a file with rows.")
    elif suffix in (".parquet", ".arrow", ".feather"):
        reader.arrow(data, suffix)
    else:
        reader.text(data, suffix)
    if not reader.table.rows and not reader.table.faults:
        reader.fault(0, "The file has no rows.", "Give a file with rows.")
    return reader.table


class _Reader:
    """Fills one table; each layout of a file is a method."""

    def __init__(self, name: str, split: str | None) -> None:
        self.name, self.split, self.table = name, split, Table()

    def fault(self, line: int, problem: str, remedy: str, whole: bool = False) -> None:
        self.table.faults.append(Fault(line, "", problem, remedy, self.name, whole))

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

    def broken(self, line: int, error: Exception, remedy: str, whole: bool = False) -> None:
        if isinstance(error, json.JSONDecodeError):
            message = f"{error.msg} at character {error.colno}"
        else:
            message = (
                "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it has too many digits"
            )
        self.fault(line, f"This isn't JSON: {message}.", remedy, whole)

    def text(self, data: bytes, suffix: str) -> None:
        try:
            lines, wrong, encoding = decode(data)
        except Undecodable as error:
            self.fault(0, f"The file begins as UTF-16, but {error}.", "Save the file as UTF-8.")
            return
        if encoding != "utf-8":
            self.table.notes.append(f"{self.name} is read as {encoding.upper()}.")
        for number, problem in wrong.items():
            self.fault(number, problem, "Save the file as UTF-8.")
        if not any(line.strip() for line in lines):
            self.fault(0, "The file is empty.", "Give a file with rows.")
        elif suffix in (".csv", ".tsv", ".txt"):
            self.delimited(lines, set(wrong))
        else:
            self.json_or_lines(lines, set(wrong), lines_expected=suffix != ".json")

    def json_or_lines(self, lines: list[str], bad: set[int], lines_expected: bool) -> None:
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
            self.broken(line, error, "Mend it; what follows could not be read.", whole=True)

    def delimited(self, lines: list[str], bad: set[int]) -> None:
        """CSV and its kin. A row's line is the one it starts on."""
        skipped = 0
        if told := _TOLD.fullmatch(lines[0].strip()):  # Excel's own line for its delimiter
            skipped, lines = 1, lines[1:]
        text = "\n".join(lines)
        csv.field_size_limit(MAX_BYTES)  # the library's own limit of 128 KB is less than a long document
        delimiter = told[1] if told else _delimiter(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1 + skipped
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.csv_error(line, reader.line_num + skipped, str(error))
                continue
            if not cells or bad.intersection(range(line, reader.line_num + skipped + 1)):
                continue
            if header is None:
                header = [name.strip() for name in cells]
                if twice := sorted({name for name in header if name and header.count(name) > 1}):
                    self.fault(
                        line, f"The header has {', '.join(map(repr, twice))} twice.", "Rename one of them.", True
                    )
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
            self.fault(line, f"A quote that opens here is never closed{lost}.", "Close it.", whole=True)
        else:
            self.fault(
                line, f"The cells can't be told apart: {message}.", "Double each quote that stands inside a cell."
            )

    def arrow(self, data: bytes, suffix: str) -> None:
        """Parquet, and Arrow as file (Feather) or stream."""
        import pyarrow

        name = "a Parquet" if suffix == ".parquet" else "an Arrow"
        try:
            values = _arrow_table(pyarrow.BufferReader(data), suffix).to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            self.fault(0, f"This isn't {name} file that can be read: {reason}.", "Write it anew.")
        else:
            self.table.rows = [Row(self.name, line, row, self.split) for line, row in enumerate(values, 1)]


def _arrow_table(source: Any, suffix: str) -> Any:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    if suffix == ".parquet":
        return pyarrow.parquet.ParquetFile(source).read()
    try:
        return pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
    try:
        return pyarrow.ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:
        raise ValueError("it is neither a file nor a stream of Arrow") from None


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
