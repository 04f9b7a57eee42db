"""Files of predictions for `score`: any file that data can be read from, its columns by their usual names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sftdemo.config.read import ReadConfig
from sftdemo.data import sources
from sftdemo.data.text.literals import parsed_list
from sftdemo.errors import DataError, Fault, Text, UserError
from sftdemo.evaluation.scoring import ROLES, checked, columns
from sftdemo.log import TO_LOG, Reporter

ROW = "row"  # which row of an evaluation a prediction is for


def read_predictions(
    path: str | Path, config: ReadConfig | None = None, reporter: Reporter = TO_LOG
) -> list[dict[str, Any]]:
    """The rows of a file under the standard names ("prediction", "references", "label"), with the number of column "row", if any.

    `reporter` is told how the file was read, which columns aren't used, and how many predictions are empty. DataError names
    every line that can't be scored, UserError what is wrong with the file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(
            "{path} can't be read: it is {what}. Give a file.",
            path=path,
            what=Text("a folder") if path.is_dir() else Text("not there"),
        )
    table = sources.resolve(str(path), config).table
    for note in (*table.notes, *map(str, table.warnings)):
        reporter.info(note)
    if table.faults and not table.rows:
        raise DataError(table.faults)
    names = {role: {name: None for row in table.rows if (name := columns(row.values).get(role))} for role in ROLES}
    column_names = {key: None for row in table.rows for key in row.values}
    _check_columns(path, names, list(column_names))
    known = [ROW, *(name for used in names.values() for name in used)]
    if unused := [repr(key) for key in column_names if key not in known]:
        reporter.info(f"Columns that are not used: {', '.join(unused)}.")
    faults: list[Fault] = list(table.faults)
    rows: list[dict[str, Any]] = []
    try:
        rows = checked([(row.line, _with_lists(row.values)) for row in table.rows], path.name)
    except DataError as error:
        faults += error.faults
    if faults:
        raise DataError(sorted(faults, key=lambda fault: fault.line))
    for row, read in zip(rows, table.rows, strict=True):
        if str(place := read.values.get(ROW)).isdecimal():
            row[ROW] = int(str(place))
    if empty := sum(not row["prediction"].strip() for row in rows):
        reporter.info(f"Predictions that are empty, and count as wrong: {empty} of {len(rows)}.")
    return rows


def _with_lists(values: dict[str, Any]) -> dict[str, Any]:
    """The row with several references that a cell spells as a list of texts ("['a', 'b']") as that list."""
    name = columns(values).get("references", "")
    if name.strip().casefold().endswith("s") and isinstance(values[name], str):
        several = parsed_list(values[name])
        if several and all(isinstance(text, str) for text in several):
            return values | {name: several}
    return values


def _check_columns(path: Path, names: dict[str, dict[str, None]], column_names: list[str]) -> None:
    """One line where a whole column is missing, in place of one for each row."""
    listed = list(map(repr, column_names[:20]))
    if not names["prediction"]:
        raise UserError(
            "{name} has no column of predictions, only {listed}; name it 'prediction'.", name=path.name, listed=listed
        )
    if not names["references"] and not names["label"]:
        raise UserError(
            "{name} has no column to compare with, only {listed}; name it 'reference', or 'label' for classes.",
            name=path.name,
            listed=listed,
        )
