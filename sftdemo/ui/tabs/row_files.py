"""The files that are offered of the chosen data: its rows as edited, what is trained on, and the edits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftdemo import files
from sftdemo.errors import UserError
from sftdemo.ui import downloads, row_edits
from sftdemo.ui.access import rights, uploads
from sftdemo.ui.data_reader import Reading

BOM = "\ufeff"  # without it Excel reads UTF-8 as the machine's own encoding


def written(reading: Reading, looked: Mapping[str, Any], visitor: rights.Visitor) -> dict[str, Path]:
    """What is offered for download, by kind, as files written now: of an upload beside it, where its visitor may fetch them."""
    listed = reading.listed
    rows = [listed.read(place)["values"] for place in range(len(listed))] if listed else []
    rows = [row for row in rows if row]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = ([row_edits.as_text(row.get(column)) for column in columns] for row in rows)
    texts = {"rows_jsonl": ("edited.jsonl", files.jsonl(rows))}
    texts["rows_csv"] = ("edited.csv", BOM + files.csv_text(columns, cells))
    if trained := reading.prepared:
        examples = ({**row, "split": split} for split, part in trained.splits.items() for row in part)
        texts["trained_jsonl"] = ("examples.jsonl", files.jsonl(examples))
    if no_room := uploads.no_room(visitor, sum(len(text.encode()) for _, text in texts.values())):
        raise UserError(no_room)
    paths, own = {}, uploads.is_own(looked["data"], visitor)
    for kind, (end, text) in texts.items():
        name = f"{reading.dataset.name}-{end}"
        paths[kind] = uploads.place_of(Path(looked["data"])) / name if own else downloads.new_place(name)
        files.write_text(paths[kind], text)
    if looked.get("edits"):
        paths["history"] = Path(looked["edits"])
    return paths
