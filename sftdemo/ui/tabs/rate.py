"""The page for raters, /rate?run=NAME: voting and nothing else, so that no other tab's data reaches their browser."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import Text, UserError
from sftdemo.ui import models
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.address import READY_JS
from sftdemo.ui.parts.forms import fault, wire
from sftdemo.ui.parts.page import Page, brand, header
from sftdemo.ui.parts.redraw import language_switch, redraw, redraw_all
from sftdemo.ui.parts.style import HEADER_JS
from sftdemo.ui.tabs.invitation import instruction
from sftdemo.ui.tabs.vote import VoteTab
from sftdemo.ui.texts import language


class RatePage:
    """The page; the run is the link's, or else the newest that has a model."""

    def __init__(self, blocks: Any) -> None:
        with gr.Row(elem_id="head"):
            self.brand = gr.HTML(brand("en"), elem_id="brand")
            self.switches = gr.HTML(header("en"), elem_id="switches", js_on_load=HEADER_JS)
        self.fault = gr.HTML("", elem_id="rate-fault")
        self.instruction = gr.HTML("", elem_id="rate-instruction")
        self.page = Page(blocks, run=gr.State(None), language_switched=language_switch())
        self.voting = VoteTab(self.page)

    def open_page(self, request: gr.Request) -> dict[Any, Any]:
        """The header, and what to do; or why there is nothing to vote on here."""
        lang, visitor, run_name = language(request), rights.visitor(request), request.query_params.get("run")
        head = {self.brand: brand(lang), self.switches: header(lang, visitor)}
        try:
            name = runs.named(run_name).name if run_name else models.newest_ready()
            told = instruction(runs.named(name), lang) if name and visitor.may("vote") else ""
        except UserError:  # its text, for whoever runs the app, names folders and other runs
            missing = Text(
                "There is no run {name!r} to rate. Ask whoever gave you the link for the right one.",
                name=str(run_name)[:60],
            )
            return head | {self.fault: fault(missing)}
        return head | {self.instruction: html.block(told), self.page.run: name}

    def wire(self) -> None:
        self.voting.wire()
        opened = [self.brand, self.switches, self.fault, self.instruction, self.page.run]
        arrived = wire(self.page.blocks.load, self.open_page, None, opened)
        wire(arrived.then, None, None, None, js=READY_JS)
        redraw(self.page, self.open_page, None, [self.brand, self.switches, self.instruction])
        redraw_all(self.page, {})
