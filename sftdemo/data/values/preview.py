"""The first rows of a table as they stand in the file, and which columns are likely the prompt and the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sftdemo.data.types import Preview
from sftdemo.data.values.columns import MOST_JUDGED, Columns, guess

_ROWS, _COLUMNS, _CELL = 5, 12, 160


def preview(columns: Columns, every: Sequence[str]) -> Preview:
    """The first rows, cut to what a page can show."""
    shown = list(every[:_COLUMNS])
    rows = [(row.line, [_cell(row.values.get(column)) for column in shown]) for row in columns.rows[:_ROWS]]
    labels = {
        column: len({str(value) for value in columns.values(column)})
        for column in every[:MOST_JUDGED]
        if columns.few(column)
    }
    return Preview(shown, rows, labels, _prompt_and_answer(columns, every, labels))


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _prompt_and_answer(columns: Columns, every: Sequence[str], labels: dict[str, int]) -> tuple[str, str] | None:
    """As the values suggest; without a clue the column with the longest text, and another, labels first."""
    if guessed := tuple(guess(columns, every).values()):
        return guessed[0], guessed[1]
    candidates = [column for column in every[:MOST_JUDGED] if not columns.numbering(column)]
    if len(candidates) < 2:
        candidates = list(every[:MOST_JUDGED])
    if len(candidates) < 2:
        return None
    prompt = max(candidates, key=lambda column: sum(len(str(value)) for value in columns.values(column)))
    others = [column for column in candidates if column != prompt]
    return prompt, next((column for column in others if column in labels), others[-1])
