"""The page for raters, /rate?run=NAME: voting and nothing else, so that no other tab's data reaches their browser."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.ui import vote_tab, work
from sftdemo.ui.forms import wire
from sftdemo.ui.page import Page, brand, header
from sftdemo.ui.style import HEADER_JS
from sftdemo.ui.texts import language, say


def build(blocks: Any) -> None:
    """The page's components; the run is the link's, or else the newest that has a model."""
    with gr.Row(elem_id="head"):
        head = gr.HTML(brand("en"), elem_id="brand")
        switches = gr.HTML(header("en"), elem_id="switches", js_on_load=HEADER_JS)
    fault = gr.HTML("")
    page = Page(run=gr.State(None), data=None, timer=None, blocks=blocks)
    vote_tab.build(page)

    def open_page(request: gr.Request) -> dict[Any, Any]:
        lang, asked = language(request), request.query_params.get("run")
        try:
            chosen = runs.named(asked).name if asked else work.newest_ready()
        except UserError:  # its text, for whoever runs the app, names folders and other runs
            raise UserError(say(lang, "rate_no_run", name=str(asked)[:60])) from None
        return {head: brand(lang), switches: header(lang), page.run: chosen}

    wire(blocks.load, open_page, None, [head, switches, page.run], fault)
