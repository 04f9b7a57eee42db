"""Excel workbooks: the sheet that is meant, and its cells as people would write them."""

from __future__ import annotations

import datetime
import io
import itertools
import re
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sftdemo.config.read import ReadConfig
from sftdemo.data.files import headers
from sftdemo.data.files.headers import Record
from sftdemo.data.files.table import Table, reason, split_name
from sftdemo.data.limits import Limits, OverLimit
from sftdemo.errors import Text
from sftdemo.files import check_packing

SUFFIXES = (".xlsx", ".xlsm")
_FIRST = 100  # rows that tell whether a sheet holds a table
_ROWS = 1_048_576  # of a sheet, at most
_ERRORS = {"#N/A", "#REF!", "#DIV/0!", "#NAME?", "#VALUE!", "#NULL!", "#NUM!"}
_CHUNK = 1 << 20
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*?\bref="([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})"')
# The ways in which Python gives up on a broken ZIP, when it is opened and when it is unpacked.
BROKEN_ZIP = (EOFError, NotImplementedError, OSError, ValueError, struct.error, zipfile.BadZipFile, zlib.error)
# The ways in which the library and its XML give up on a broken workbook.
_BROKEN = (
    *BROKEN_ZIP,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    SyntaxError,
    TypeError,
)


def suffix_of(data: bytes) -> str | None:
    """.xlsx if the bytes are a workbook, whatever the file is called."""
    if not data.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return ".xlsx" if "xl/workbook.xml" in archive.namelist() else None
    except BROKEN_ZIP:
        return None


def read(table: Table, data: bytes, config: ReadConfig) -> None:
    """Fill the table from the sheet that `config` names, else from the first with a table, or with rows; sheets called train and test
    are splits. Raises OverLimit for more than the table may hold."""
    if problem := _fault(data, table.limits):
        table.fault(0, problem, Text("Save it anew, or its rows as .csv."))
        return
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and menus that it doesn't know
        try:
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            _sheets(table, book, config)
        except _BROKEN as error:
            table.fault(
                0,
                Text("This isn't a workbook that can be read: {reason}.", reason=reason(error)),
                Text("Save it anew, or its rows as .csv."),
            )


def _fault(data: bytes, limits: Limits) -> Text | None:
    """Why it can't be read; raises OverLimit for the size it really unpacks to, whatever its list of contents says."""
    bytes_left = limits.unpacked_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for item in archive.infolist():
                if item.flag_bits & 1:
                    return Text("The workbook is locked with a password.")
                check_packing(item)
                with archive.open(item) as part:
                    while chunk := part.read(min(_CHUNK, bytes_left + 1)):
                        bytes_left -= len(chunk)
                        if bytes_left < 0:
                            raise OverLimit(limits, "unpacked_bytes")
    except BROKEN_ZIP as error:
        return Text("This isn't a workbook that can be read: {reason}.", reason=reason(error))
    return None


@dataclass
class _Walk:
    """All rows that are looked at, whatever becomes of them: a few bytes can place a cell far below the others."""

    limits: Limits
    visited: int = 0

    def rows(self, sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """(number, values) of each row. Raises OverLimit for more cells than the limit, and a sheet's blank rows."""
        sheet.reset_dimensions()  # what the file says of its size may be wrong
        for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
            self.visited += 1 + len(row)
            if number > _ROWS or self.visited > self.limits.cells + _ROWS:
                raise OverLimit(self.limits, "cells")
            yield number, row


def _sheets(table: Table, book: Any, config: ReadConfig) -> None:
    walk = _Walk(table.limits)
    names = [sheet.title for sheet in book.worksheets]
    if len(names) > table.limits.members:
        raise OverLimit(table.limits, "members", len(names))
    if config.sheet:
        wanted = config.sheet.strip()
        title = next((name for name in names if name.casefold() == wanted.casefold()), None)
        if title is None and wanted.isdigit() and 1 <= int(wanted) <= len(names):
            title = names[int(wanted) - 1]
        if title is None:
            titles = list(map(repr, names[:20]))
            table.fault(
                0,
                Text("The workbook has no sheet {name!r}; it has {names}.", name=wanted, names=titles),
                Text("Name one with --sheet."),
            )
            return
        _sheet(table, book[title], config, walk)
        return
    shown = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible" and _has_rows(sheet, walk)]
    if len(shown) > 1 and all(split_name(sheet.title) for sheet in shown) and not table.split:
        for sheet in shown:
            part = Table(table.file, split_name(sheet.title), limits=table.limits)
            _sheet(part, sheet, config, walk)
            table.extend(part)
        return
    read = next((sheet for sheet in shown if _is_table(sheet, walk)), shown[0] if shown else None)
    if read is not None:
        _sheet(table, read, config, walk)
    if read is not None and len(shown) > 1:
        others = [repr(sheet.title) for sheet in shown[:20] if sheet is not read]
        table.warn(
            0,
            Text("Only the sheet {name!r} is read; there are also {names}.", name=read.title, names=others),
            Text("Name another with --sheet."),
        )


def _has_rows(sheet: Any, walk: _Walk) -> bool:
    return any(value is not None for _, row in walk.rows(sheet) for value in row)


def _is_table(sheet: Any, walk: _Walk) -> bool:
    """Whether two of its first rows have more than one cell: a page of notes has none such."""
    first = itertools.islice(walk.rows(sheet), _FIRST)
    return sum(sum(value is not None for value in row) > 1 for _, row in first) > 1


def _sheet(table: Table, sheet: Any, config: ReadConfig, walk: _Walk) -> None:
    filled: list[tuple[int, list[str]]] = []
    errors: Counter[str] = Counter()
    for number, row in walk.rows(sheet):
        cells = [as_text(value) for value in row]
        for place, cell in enumerate(cells):
            if cell in _ERRORS:
                errors[cell] += 1
                cells[place] = ""
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            filled.append((number, cells))
    width = max((len(cells) for _, cells in filled), default=0)
    if merged := _fill_merged(sheet, dict(filled), table.limits):
        table.note(Text("Cells merged over several rows, whose value each row got: {n}.", n=merged))
    if width * len(filled) > table.limits.cells:
        raise OverLimit(table.limits, "cells")
    headers.fill(table, [Record(at, at, cells + [""] * (width - len(cells))) for at, cells in filled], config.header)
    if errors:
        table.warn(
            0,
            Text(
                "Cells with an error of Excel ({kinds}) are read as blank: {n}.", kinds=list(errors), n=errors.total()
            ),
            Text("Correct their formulas."),
        )


def _fill_merged(sheet: Any, rows: dict[int, list[str]], limits: Limits) -> int:
    """Give each row of a cell that is merged over rows of one column its value; how many such cells there are.

    The library reads them only with the whole sheet in memory, so they are looked up in its XML.
    """
    from openpyxl.utils import column_index_from_string

    merged, visited = 0, 0
    for match in _MERGED.finditer(sheet.parent._archive.read(sheet._worksheet_path)):
        column, first, other, last = (part.decode() for part in match.groups())
        place, rest = column_index_from_string(column) - 1, range(int(first) + 1, min(int(last), _ROWS) + 1)
        top = rows.get(int(first), [])
        visited += len(rest)
        if visited > limits.cells + _ROWS:
            raise OverLimit(limits, "cells")
        if column != other or place >= len(top) or not top[place]:
            continue
        merged += 1
        for number in rest:
            cells = rows.get(number)
            if cells is not None:
                cells += [""] * (place + 1 - len(cells))
                cells[place] = cells[place] or top[place]
    return merged


def as_text(value: Any) -> str:
    """A cell's value as people would write it."""
    if value is None:
        return ""
    if isinstance(value, str):
        if "_x" in value:
            from openpyxl.utils.escape import unescape

            value = unescape(value)
        return str(value).replace("\r\n", "\n")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        if value.time() == datetime.time():
            return value.date().isoformat()
        return value.isoformat(" ", "seconds" if value.second else "minutes")
    if isinstance(value, datetime.time):
        return value.isoformat("seconds" if value.second else "minutes")
    return str(value)
