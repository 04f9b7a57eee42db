"""The first rows of a table as they stand in the file, and which columns are likely the prompt and the answer."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sftdemo.data.types import Preview
from sftdemo.data.values import targets
from sftdemo.data.values.columns import MOST_JUDGED, Columns, guess

_ROWS, _COLUMNS, _CELL = 5, 12, 160


def preview(columns: Columns, every: Sequence[str], used: Collection[str]) -> Preview:
    """The first rows, cut to what a page can show, with the columns that are `used` among them."""
    room = _COLUMNS - sum(column in used for column in every[_COLUMNS:])
    shown = [column for at, column in enumerate(every) if at < room or column in used]
    rows = [(row.line, [_cell(row.values.get(column)) for column in shown]) for row in columns.rows[:_ROWS]]
    labels = {
        column: len({label for value in columns.values(column) for label in targets.labels(value)})
        for column in every[:MOST_JUDGED]
        if columns.few(column)
    }
    return Preview(shown, rows, labels)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def likely_pair(columns: Columns, every: Sequence[str], suggested: Mapping[str, str]) -> tuple[str, str] | None:
    """The columns of prompt and answer as `suggested` ({role: column}) or as the values suggest; without a clue the column
    with the longest text, and another, labels first."""
    if clue := tuple((suggested or guess(columns, every)).values()):
        return clue[0], clue[1]
    candidates = [column for column in every[:MOST_JUDGED] if not columns.numbering(column)]
    if len(candidates) < 2:
        candidates = list(every[:MOST_JUDGED])
    if len(candidates) < 2:
        return None
    prompt = max(candidates, key=lambda column: sum(len(str(value)) for value in columns.values(column)))
    others = [column for column in candidates if column != prompt]
    return prompt, next((column for column in others if columns.few(column)), others[-1])
