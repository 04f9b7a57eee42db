"""An edit that was begun outlives a reload: the browser keeps which row is open, and what was put into its fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

from sftdemo.ui.parts import browser_store
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.texts import label

FIELDS = ("prompt", "text", "label")
# A row that is opened has nothing put into its fields yet, unless it is the one that comes back.
PLACE_JS = """(place) => {
  const begun = JSON.parse(sessionStorage.getItem("sftdemo-kept-row") || "{}");
  if (begun.place !== place) window.sftdemo.keepValues("row", ["place"], [place]);
  return [];
}"""


class Draft:
    """The place of the open row as it stands, and what the browser kept of one before the page was loaded again."""

    def __init__(self) -> None:
        hidden: dict[str, Any] = {"visible": "hidden", "label": label("rows_title")}
        self.place, self.kept = gr.Textbox("", **hidden), gr.Textbox("", **hidden)

    def wire(self, opened: Any, fields: Sequence[Any]) -> Any:
        """`opened` is the event of the data having been read for a page that loads, `fields` are those of FIELDS.

        Returns the event of an edit having come back from the browser, in `kept`.
        """
        wire(self.place.change, None, [self.place], None, js=PLACE_JS)
        # The input event of a text carries the text before it.
        typed = partial(gr.on, [field.change for field in fields])
        wire(typed, None, [self.place, *fields], None, js=browser_store.write_values_js("row", ("place", *FIELDS)))
        wire(opened.then, None, None, [self.kept], js=browser_store.read_js("row"))
        return self.kept.change


def place(key: Sequence[Any], field: int, **begun: str) -> str:
    """The row at a key and which of its values is changed, with what a new one begins with by the names of FIELDS."""
    return json.dumps({"key": list(key), "field": field, **begun})


def parse(kept: Any) -> tuple[list[Any], int, dict[str, str]] | None:
    """(key, field, {name of a field: text put into it}) of what a browser sends; None where it is no row's."""
    values = browser_store.values(kept, ("place", *FIELDS))
    where = browser_store.values(values.get("place"), ("key", "field", *FIELDS))
    key, field = where.get("key"), where.get("field")
    if not isinstance(key, list) or not isinstance(field, int):
        return None
    texts = {name: values.get(name, where.get(name)) for name in FIELDS}
    return key, field, {name: text for name, text in texts.items() if isinstance(text, str)}
