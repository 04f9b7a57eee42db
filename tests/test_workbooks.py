"""Workbooks: sheets, merged cells, formulas, damage, bombs."""

from __future__ import annotations

import datetime
import io
import json
import time
import zipfile
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftdemo.__main__ import main
from sftdemo.data import read
from sftdemo.data.files.readers import read_table
from sftdemo.data.limits import OWNER
from tests.test_data_files import MOODS, said, table, values


# Workbooks.
def workbook(*sheets: tuple[str, list[list[Any]]], hidden: str = "") -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        sheet.sheet_state = "hidden" if title == hidden else "visible"
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


GRID: list[list[Any]] = [["text", "label"], ["a b", "x"], ["c d", "y"]]


def test_a_workbook_is_read_as_people_would_write_it():
    day = datetime.datetime(2024, 5, 1)
    cells: list[Any] = [
        "two\nlines",
        3,
        2.5,
        True,
        day,
        day.replace(hour=13, minute=30),
        datetime.time(9, 5),
        None,
        "#N/A",
    ]
    names = [f"c{at}" for at in range(len(cells))]
    found = table("a.xlsx", workbook(("One", [["Report of May"], [], names, cells, [None] * 9, ["last"]])))
    assert values(found)[0] == dict(
        zip(names, ["two\nlines", "3", "2.5", "true", "2024-05-01", "2024-05-01 13:30", "09:05", "", ""], strict=True)
    )
    assert [row.line for row in found.rows] == [4, 6]
    assert "Cells with an error of Excel (#N/A)" in said(found) and "above the header" in said(found)


def test_the_sheet_is_found_or_named(tmp_path, capsys):
    other = [["text", "label"], ["e f", "x"]]
    content = workbook(("Empty", []), ("Secret", other), ("Data", GRID), ("More", other), hidden="Secret")
    found = table("a.xlsx", content)
    assert values(found) == MOODS and "there are also 'More'" in said(found)
    for name in ("more", "4"):
        assert values(table("a.xlsx", content, sheet=name)) == [{"text": "e f", "label": "x"}]
    assert "no sheet 'Nope'; it has 'Empty', 'Secret', 'Data', 'More'" in said(table("a.xlsx", content, sheet="Nope"))
    path = tmp_path / "a.xlsx"
    path.write_bytes(workbook(("Train", GRID), ("test", other)))
    dataset = read(path)
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {"train": 2, "test": 1}
    assert main(["check", str(path), "--sheet", "Train", "--header", "1", "--json", "--model", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == {"x": 1, "y": 1}


def test_a_label_merged_over_rows_is_that_of_each():
    import openpyxl

    book = openpyxl.load_workbook(
        io.BytesIO(workbook(("One", [["text", "label"], ["a b", "x"], ["c d"], ["e f"], ["g h", "y"]])))
    )
    book["One"].merge_cells("B2:B4")
    file = io.BytesIO()
    book.save(file)
    found = table("a.xlsx", file.getvalue())
    assert [row["label"] for row in values(found)] == ["x", "x", "x", "y"] and found.faults == []
    assert "whose value each row got: 1." in said(found)


def test_a_formula_gives_its_last_value():
    content = workbook(("One", [*GRID, ["=1+1", "x"]]))
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b"<f>1+1</f><v></v>", b"<f>1+1</f><v>2</v>")
    assert b"<v>2</v>" in parts[sheet]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as book:
        for name, part in parts.items():
            book.writestr(name, part)
    assert values(table("a.csv", file.getvalue()))[-1] == {"text": "2", "label": "x"}  # and known under any name


@pytest.mark.slow
def test_a_workbook_that_is_a_bomb_is_refused(monkeypatch):
    content = workbook(("One", GRID))
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    far = b'<row r="%d"><c r="XFD%d" t="n"><v>1</v></c></row>'
    for name, body in (
        (sheet, b"".join(far % (at, at) for at in range(4, 3000))),
        (sheet, far % (10**12, 10**12)),
        ("bomb.bin", b" " * 3_000_000),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
            for part, text in (parts | {"bomb.bin": b""}).items():
                end = b"</sheetData>"
                book.writestr(
                    part, text.replace(end, body + end) if part == name == sheet else body if part == name else text
                )
        start = time.process_time()
        found = read_table("a.xlsx", file.getvalue(), limits=replace(OWNER, unpacked_bytes=2_000_000, cells=20_000_000))
        assert not found.rows and len(found.faults) == 1
        assert time.process_time() - start < 20


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 3000), bytes_=st.binary(min_size=1, max_size=4), part=st.sampled_from(["xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/styles.xml"]))  # fmt: skip
def test_a_damaged_workbook_gives_no_traceback(at, bytes_, part):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook(("One", GRID)))) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            place = at % len(data)
            new.writestr(name, data[:place] + bytes_ + data[place + len(bytes_) :] if name == part else data)
    found = table("a.xlsx", file.getvalue())
    assert found.rows or found.faults
