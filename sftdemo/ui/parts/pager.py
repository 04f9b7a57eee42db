"""A long list a page at a time: which page is shown, and the buttons that turn it."""

from __future__ import annotations

from typing import Any, Protocol

import gradio as gr

from sftdemo.ui.parts import html
from sftdemo.ui.texts import number, say


class Paged(Protocol):
    """One page of a list; pages count from 0."""

    @property
    def page(self) -> int: ...
    @property
    def pages(self) -> int: ...
    @property
    def total(self) -> int: ...


class Pager:
    """Below a list: back, where one is, next. `at` is the page that is shown."""

    def __init__(self, at: Any, name: str) -> None:
        """`name` begins the parts' ids."""
        self.at = at
        with gr.Row(elem_classes="small-row"):
            self.back = gr.Button("‹", size="sm", elem_id=f"{name}-back")
            self.place = gr.HTML("", elem_id=f"{name}-place")
            self.next = gr.Button("›", size="sm", elem_id=f"{name}-next")
        self.parts = [self.place, self.back, self.next, self.at]

    @property
    def turns(self) -> list[tuple[Any, dict[str, Any]]]:
        """(button, what its handler is given beside the filters) of both."""
        return [(button, {"at": self.at, "step": gr.State(step)}) for button, step in ((self.back, -1), (self.next, 1))]

    def shown(self, listed: Paged, lang: str) -> dict[Any, Any]:
        page, pages = number(listed.page + 1), number(listed.pages)
        where = say(lang, "outputs_place", n=number(listed.total), page=page, pages=pages)
        return {
            self.place: html.block(where, "muted small"),
            self.back: gr.update(visible=listed.pages > 1, interactive=listed.page > 0),
            self.next: gr.update(visible=listed.pages > 1, interactive=listed.page + 1 < listed.pages),
            self.at: listed.page,
        }
