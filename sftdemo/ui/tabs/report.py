"""The button that has a report made of what is shown, and saves it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo.ui.downloads import SAVE_JS
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import runs_named
from sftdemo.ui.report.document import MOST_RUNS, document
from sftdemo.ui.texts import label, language

# Several at once would keep the page waiting; a comparison resamples its rows.
ONE_BY_ONE: dict[str, Any] = {"concurrency_id": "report", "concurrency_limit": 1, "trigger_mode": "once"}


class ReportButton:
    """The report is made at the click, in the page's language, for whoever may look at the runs; the browser saves it from
    the reply, so that no file of it stays here.

    `button.render()` puts the button in its place.
    """

    def __init__(self, elem_id: str) -> None:
        self.button = gr.Button(label("download_report"), size="sm", visible=False, elem_id=elem_id, render=False)
        carried = {"visible": "hidden", "elem_classes": "carried", "label": label("download_report")}
        self.name, self.text = (gr.Textbox("", **carried) for _ in range(2))

    def make(self, names: str | list[str] | None, request: gr.Request) -> dict[Any, Any]:
        """The report on a run, or on several compared."""
        chosen = runs_named([names] if isinstance(names, str) else names, MOST_RUNS)
        name = "-".join(run.name for run in chosen)[:100]
        return {self.name: f"{name}.html", self.text: document(chosen, language(request))}

    def wire(self, chosen: Any, fault: Any) -> None:
        """`chosen` holds the name of a run, or a list of names."""
        file = [self.name, self.text]
        reported = wire(self.button.click, self.make, [chosen], file, fault, **ONE_BY_ONE)
        wire(reported.success, None, file, file, js=SAVE_JS)
