"""What is done to the chosen data's rows: an edit is a line of a history, with which the data is read anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from sftdemo.config.read import ReadConfig
from sftdemo.errors import UserError
from sftdemo.ui import data_reader, row_edits
from sftdemo.ui.access import rights
from sftdemo.ui.data_reader import Reading
from sftdemo.ui.tabs import left_out_rows, row_list
from sftdemo.ui.tabs.row_list import Filters
from sftdemo.ui.texts import language

Update = dict[Any, Any]
# Reads the data that is looked at and fills the tab: (looked, settings, row of the X-ray, language).
Shows = Callable[[Mapping[str, Any], Mapping[str, Any], int, str], Iterator[Update]]


def read(looked: Mapping[str, Any]) -> Reading:
    """The data that is looked at, as it was read."""
    if not looked.get("read"):
        raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
    return data_reader.read(ReadConfig.from_json(looked["read"]))


class Editing:
    """The handlers that change the history, and read the data with it."""

    def __init__(self, view: Any, looked: Any, shows: Shows) -> None:
        """`view` is the RowsView that lists the rows."""
        self.view, self.looked, self.shows = view, looked, shows

    def save(
        self,
        request: gr.Request,
        looked: Any,
        key: Any,
        field: Any,
        text: Any,
        own_label: Any,
        prompt: Any,
        **rest: Any,
    ) -> Iterator[Update]:
        wanted = self.view.wanted(looked, key, field, str(text or ""), own_label, str(prompt or ""))
        if not wanted:
            yield self.view.closed()
            return
        path = row_edits.add(looked.get("edits", ""), looked.get("data", ""), wanted, rights.visitor(request))
        yield from self.read_anew(request, {**looked, "edits": path}, rest)

    def leave_out(self, request: gr.Request, looked: Any, key: Any, **rest: Any) -> Iterator[Update]:
        edit = row_edits.left_out(row_list.find(read(looked), key))
        path = row_edits.add(looked.get("edits", ""), looked.get("data", ""), [edit], rights.visitor(request))
        yield from self.read_anew(request, {**looked, "edits": path}, rest)

    def take_back(self, request: gr.Request, looked: Any, key: Any, **rest: Any) -> Iterator[Update]:
        """The row that is open, and was left out, is among the others again."""
        number = left_out_rows.number_in(key or [])
        row_edits.take_row_back(looked.get("edits", ""), looked.get("data", ""), number, rights.visitor(request))
        yield from self.read_anew(request, looked, rest)

    def undo(self, request: gr.Request, looked: Any, **rest: Any) -> Iterator[Update]:
        row_edits.undo(looked.get("edits", ""), looked.get("data", ""), rights.visitor(request))
        yield from self.read_anew(request, looked, rest)

    def read_anew(self, request: gr.Request, looked: Any, rest: dict[str, Any]) -> Iterator[Update]:
        """All of the tab with the edited data, and the same page of the list under the same filters."""
        lang, view = language(request), self.view
        asked = {name: rest.pop(name) for name in view.asked}
        at, row = rest.pop("at"), int(rest.pop("row") or 1)
        filters = Filters.of(asked["show"], asked["of_label"], asked["search"])
        for update in self.shows(looked, rest, row, lang):
            if view.table in update:
                same = {view.show_only: asked["show"], view.of_label: asked["of_label"], view.search: asked["search"]}
                now = update[self.looked]
                update |= same | view.list_page(read(now), filters, at, asked["run_name"], lang, now.get("edits"))
            yield update
