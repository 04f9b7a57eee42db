"""The first rows of a file as a table, and the two columns that matter: the prompt and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftdemo.data.layouts.recognition import LAYOUTS, write_columns
from sftdemo.data.types import Preview
from sftdemo.errors import UserError
from sftdemo.ui.parts import html
from sftdemo.ui.texts import number, say

# Layouts of one question and one answer, each in a column of its own; the first role is the question.
PAIRS = {
    layout.name: (next(role for role in layout.roles if role != layout.answer), layout.answer)
    for layout in LAYOUTS
    if layout.name in ("text_label", "prompt_completion", "instruction", "source_target", "summary")
}


def chosen_pair(summary: Mapping[str, Any], preview: Preview | None) -> tuple[str, str] | None:
    """The columns of prompt and answer: as read, or guessed where no layout was found; None where two don't make a row."""
    if preview is None or len(summary["columns"]) < 2:
        return None
    if roles := PAIRS.get(summary["format"]):
        return summary["mapping"][roles[0]], summary["mapping"][roles[1]]
    return preview.guess if summary["format"] == "unknown" else None


def setting(prompt: Any, answer: Any, looked: Mapping[str, Any]) -> str:
    """The setting `columns` for the two that were chosen; raises UserError unless they are two."""
    if not prompt or not answer:
        raise UserError("Choose a column for the prompt and another for the answer.")
    if prompt == answer:
        raise UserError("{column!r} can't be both the prompt and the answer; choose two columns.", column=prompt)
    suggested: Mapping[str, str] = looked.get("suggested", {})
    if tuple(suggested.values()) == (prompt, answer):
        return write_columns(dict(suggested))
    layout, has_labels = looked.get("layout", ""), answer in looked.get("labels", ())
    read = layout in PAIRS and looked.get("mapping", {}).get(PAIRS[layout][1]) == answer
    if not read and (layout not in PAIRS or (layout == "text_label") != has_labels):
        layout = "text_label" if has_labels else "prompt_completion"
    return write_columns(dict(zip(PAIRS[layout], (prompt, answer), strict=True)))


def choices(summary: Mapping[str, Any], preview: Preview, pair: tuple[str, str], lang: str) -> list[tuple[str, str]]:
    """The columns as a menu's choices, what is inside objects too; those that hold labels say how many."""
    return [
        (say(lang, "column_labels", column=column, n=number(preview.labels[column])), column)
        if column in preview.labels
        else (column, column)
        for column in dict.fromkeys((*preview.columns, *summary["columns"], *pair))
    ]


def table(preview: Preview | None, pair: tuple[str, str] | None, lang: str) -> str:
    """The first rows as they stand in the file; the columns of prompt and answer are marked."""
    if preview is None or not preview.rows:
        return ""
    names = dict(zip(pair, ("column_prompt", "column_answer"), strict=True)) if pair else {}
    headers = [say(lang, "fault_line")]
    for column in preview.columns:
        headers.append(f"{column} · {say(lang, names[column])}" if column in names else column)
    rows = [(None, [str(line), *map(html.esc, cells)], False) for line, cells in preview.rows]
    return html.sheet(html.table(headers, rows), say(lang, "column_preview"))
