"""Export: the model of a run to take home, as one ZIP in the format of what will run it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.ui import work
from sftdemo.ui.access import private, rights
from sftdemo.ui.parts import downloads, html
from sftdemo.ui.parts.forms import EVALUATION_CLICK, wire
from sftdemo.ui.texts import label, language, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs.export_config import FORMATS, ExportConfig


def formats(run: runs.Run) -> list[str]:
    """What the run can be exported as; only LoRA leaves an adapter."""
    lora = run.config().get("settings", {}).get("method") == "lora"
    return [form for form in FORMATS if form != "auto" and (lora or form != "adapter")]


def view(export: work.Export | None, lang: str) -> str:
    """How an export goes line by line, and at its end the file."""
    if export is None:
        return ""
    *done, last = [html.esc(private.shown(in_words(note, lang))) for note in [*export.notes]] or [
        say(lang, "export_begins")
    ]
    lines = "".join(f'<p class="muted small">{note}</p>' for note in done)
    if export.active:
        return html.block(f'{lines}<p role="status"><b>{last}</b></p>', "sheet")
    if not export.ready:
        return html.fault(in_words(export.error, lang))
    note = f'<p class="muted small">{html.esc(in_words(export.sentence, lang))}</p>'
    return html.block(
        f"<p>{downloads.link(export.to, say(lang, 'export_download', name=export.to.name))}</p>{note}", "sheet"
    )


class ExportPanel:
    """Folded on the Runs tab: choose a format, have it written and compared with the run, download it."""

    def __init__(self, run_name: Any) -> None:
        """`run_name` is the state with the run that was picked."""
        self.run_name = run_name
        with gr.Accordion(label("export_title"), open=False, visible=False, elem_id="export") as self.panel:
            self.format = gr.Radio(list(FORMATS[1:]), label=label("export_format"), elem_id="export-format")
            self.start = gr.Button(label("export_go"), variant="primary", elem_id="export-go")
            self.fault = gr.HTML("", elem_id="export-fault")
            self.view = gr.HTML("", elem_id="export-view")
        self.parts = [self.panel, self.format, self.view]

    def show(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        """The panel for a run, if it has a model and the visitor is the owner."""
        if not (work.is_ready(run) and rights.current().owner):
            return {self.panel: gr.update(visible=False)}
        offered = formats(run)
        return {
            self.panel: gr.update(visible=True),
            self.format: gr.update(choices=[(say(lang, f"export_{form}"), form) for form in offered], value=offered[0]),
            self.view: view(work.latest_export(run), lang),
        }

    def hide(self) -> dict[Any, Any]:
        return {self.panel: gr.update(visible=False)}

    def export(self, run_name: str, form: str | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Export and show how it goes; if the same export runs already, as after a reload, follow it."""
        lang, run = language(request), runs.named(run_name)
        config = ExportConfig.from_json({"format": form or "auto", "zip": True}).check()
        current = work.latest_export(run)
        if not (current and current.active and current.config == config):
            place = downloads.new_place(f"{run.name}-{form or 'model'}.zip")
            current = work.start_export(run, config, place)
        shown = ""
        while current.active:
            if (now := view(current, lang)) != shown:
                shown = now
                yield {self.view: shown}
            time.sleep(0.3)
        yield {self.view: view(current, lang) if current.ready else ""}
        if current.error:
            raise UserError(current.error)

    def wire(self) -> None:
        inputs = [self.run_name, self.format]
        wire(self.start.click, self.export, inputs, [self.view], self.fault, needs="manage", **EVALUATION_CLICK)
