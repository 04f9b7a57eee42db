"""Which column plays which role: the first rows of a file as a table, the two columns that matter, and the menus of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from sftdemo.config.read import ReadConfig
from sftdemo.data.layouts.recognition import COMMON, LAYOUTS, PAIRS, parse_columns, write_columns
from sftdemo.data.types import Preview
from sftdemo.errors import UserError
from sftdemo.ui.parts import html
from sftdemo.ui.tabs.data_views import total
from sftdemo.ui.texts import number, say

ROLES = {layout.name: [*layout.roles, *layout.optional, *COMMON] for layout in LAYOUTS}
EVERY_ROLE = list(dict.fromkeys(sorted((role for roles in ROLES.values() for role in roles), key=COMMON.__contains__)))


def layout_of(summary: Mapping[str, Any], format: str) -> str:
    """The layout whose roles have menus: the one that was found, or asked for."""
    return summary["format"] if summary["format"] in ROLES else format


def columns(layout: str, menus: Mapping[str, str | None], mapping: Mapping[str, str]) -> str:
    """The setting `columns` that the menus describe; "" where they say what was found without it."""
    mapped = {role: column for role in ROLES.get(layout, []) if (column := menus.get(role))}
    return write_columns(mapped) if mapped and mapped != dict(mapping) else ""


def menu_of(role: str, layout: str, summary: Mapping[str, Any], config: ReadConfig) -> Any:
    """The menu of a role: the data's columns, and the one that plays it."""
    if role not in ROLES.get(layout, ()) or not summary["columns"]:
        return gr.update(visible=False, value=None)
    column = summary["mapping"].get(role) or parse_columns(config.columns).get(role)
    # Where nothing is known yet, what the user may just have picked is left alone.
    value = {"value": column} if column or summary["mapping"] else {}
    return gr.update(visible=True, choices=summary["columns"], **value)


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
    """The columns as a menu's choices, what is inside objects too; those that hold labels say how many: of the column that
    is read, what was counted over all rows."""
    labels = dict(preview.labels)
    if summary["labels"] and (read := summary["mapping"].get("label")):
        labels[read] = total(summary, "labels")
    return [
        (say(lang, "column_labels", column=column, n=number(labels[column])), column)
        if column in labels
        else (column, column)
        for column in dict.fromkeys((*preview.columns, *summary["columns"], *pair))
    ]


def table(preview: Preview | None, pair: tuple[str, str] | None, lang: str) -> str:
    """The first rows as they stand in the file; the columns of prompt and answer are marked and stand first."""
    if preview is None or not preview.rows:
        return ""
    names = dict(zip(pair, ("column_prompt", "column_answer"), strict=True)) if pair else {}
    order = sorted(range(len(preview.columns)), key=lambda i: [*names, preview.columns[i]].index(preview.columns[i]))
    columns = [preview.columns[i] for i in order]
    marked = [f"{column} · {say(lang, names[column])}" if column in names else column for column in columns]
    headers = [say(lang, "fault_line"), *marked]
    rows = [(None, [str(line), *(html.esc(cells[i]) for i in order)], False) for line, cells in preview.rows]
    return html.sheet(html.table(headers, rows), say(lang, "column_preview"))
