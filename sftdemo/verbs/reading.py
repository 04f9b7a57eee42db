"""What the page's reader does in a process of its own: read data, describe it, and write its rows to a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sftdemo import data
from sftdemo.config.read import ReadConfig
from sftdemo.data import stored_rows
from sftdemo.data.files.table import Row
from sftdemo.data.limits import Limits
from sftdemo.data.pipeline import prepare_if_fit
from sftdemo.data.reading import read_rows
from sftdemo.encoding.encode import most_tokens
from sftdemo.errors import UserError
from sftdemo.verbs import check, row_records

FAULTS, COLUMNS, LABELS = 1000, 200, 1000  # of these no more are passed on


def read(config: ReadConfig, limits: Limits, folder: str) -> dict[str, Any]:
    """{"dataset": the data set without its rows, "summary": what `check` says without a tokenizer, "splits": how many rows
    each split has, "prepared": which rows each has in training, or None}; the rows are written to the folder.

    The rows as they stand in the file go into its folder `stored_rows.LISTED`, unless they are too many or of several sources."""
    file_rows: list[Row] = []
    dataset = read_rows(config, limits, file_rows)
    outlook, prepared = prepare_if_fit(config, dataset)
    summary = check.describe(dataset) | outlook
    rows = [example for split in dataset.splits.values() for example in split]
    try:
        stored_rows.write(Path(folder), rows, lambda row: most_tokens(row["messages"], row.get("tools")))
        if len(file_rows) <= row_records.MOST_ROWS and not dataset.sources:
            (Path(folder) / stored_rows.LISTED).mkdir()
            stored_rows.write(Path(folder) / stored_rows.LISTED, row_records.records(file_rows, dataset), lambda _: 0)
    except OSError as error:
        raise UserError("The rows can't be kept: {reason}; make room on the disk.", reason=error.strerror) from None
    numbers = {id(example["messages"]): number for number, example in enumerate(rows)}
    trained = prepared and {
        name: [numbers[id(row["messages"])] for row in part] for name, part in prepared.splits.items()
    }
    splits_before = {name: len(part) for name, part in dataset.splits.items()}
    bare = replace(
        dataset,
        splits={},
        unedited=None,
        faults=[],
        warnings=[],
        dropped=[],
        fixed=[],
        columns=dataset.columns[:COLUMNS],
    )
    return {"dataset": bare, "summary": shortened(summary), "splits": splits_before, "prepared": trained}


def shortened(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with no more faults, columns and labels than a page can show; "more" says how many there are in all."""
    more: dict[str, int] = {}
    short = dict(summary)
    for name, most in {**dict.fromkeys(("faults", "warnings", "dropped", "fixed"), FAULTS), "columns": COLUMNS}.items():
        if len(summary[name]) > most:
            more[name] = len(summary[name])
            short[name] = summary[name][:most]
    if len(summary["labels"]) > LABELS:
        more["labels"] = len(summary["labels"])
        short["labels"] = dict(sorted(summary["labels"].items(), key=lambda item: -item[1])[:LABELS])
    if "faults" in more:
        more["rows_at_fault"] = len({(fault["file"], fault["line"]) for fault in summary["faults"]})
    return {**short, "more": more} if more else short


def warm() -> None:
    """Import what reading needs, by reading."""
    config = ReadConfig(data="support_tickets")
    dataset = data.read(config)
    check.describe(dataset)
    data.outlook(config, dataset)
