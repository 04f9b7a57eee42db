"""Export: the model of a run to take home, as one ZIP in the format of what will run it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config.export import FORMATS, ExportConfig
from sftdemo.config.kinds import CHAT
from sftdemo.ui import downloads, models, work
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.export_progress import ExportProgress
from sftdemo.ui.texts import label, language, say
from sftdemo.ui.texts.faults import in_words


def formats(run: runs.Run) -> list[str]:
    """What the run can be exported as: only LoRA leaves an adapter, and only chat models are GGUF."""
    left_out = ("auto", *(() if run.has_adapter else ("adapter",)))
    return [form for form in FORMATS if form not in left_out and (run.kind == CHAT or not form.startswith("gguf"))]


def format_name(run: runs.Run, form: str, lang: str) -> str:
    """A format and what it is for; nothing but transformers opens the weights of a model that doesn't chat."""
    return say(lang, "export_merged_other" if form == "merged" and run.kind != CHAT else f"export_{form}")


def result(export: work.Export, lang: str) -> str:
    """The file, and how its answers compare."""
    link = html.download_link(export.to, say(lang, "export_download", name=export.to.name))
    return f'<p>{link}</p><p class="muted small">{html.esc(in_words(export.sentence, lang))}</p>'


class ExportPanel:
    """Folded on the Runs tab: choose a format, have it written and compared with the run, download it."""

    def __init__(self, page: Page, run_name: Any) -> None:
        """`run_name` is the state with the run that was picked."""
        self.page, self.run_name = page, run_name
        with gr.Accordion(label("export_title"), open=False, visible=False, elem_id="export") as self.panel:
            self.format = gr.Radio(list(FORMATS[1:]), label=label("export_format"), elem_id="export-format")
            self.start = gr.Button(label("export_go"), variant="primary", elem_id="export-go")
            self.progress = ExportProgress(page, work.Export, result, "export")
        self.parts = [self.panel, self.format, *self.progress.parts]

    def show(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        """The panel for a run, if it has a model and the visitor is the owner."""
        if not (models.is_ready(run) and rights.current().owner):
            return {self.panel: gr.update(visible=False)}
        offered, latest = formats(run), self.progress.latest(run)
        asked = latest.config.format if latest else ""
        return {
            self.panel: gr.update(visible=True, **({"open": True} if latest and latest.active else {})),
            self.format: gr.update(
                choices=[(format_name(run, form, lang), form) for form in offered],
                value=asked if asked in offered else offered[0],
            ),
            **self.progress.show(run, lang),
        }

    def hide(self) -> dict[Any, Any]:
        return {self.panel: gr.update(visible=False)}

    def export(self, run_name: str, form: str | None, request: gr.Request) -> dict[Any, Any]:
        """Begin to export, unless the same export runs already; ticks show how it goes."""
        lang, run = language(request), runs.named(run_name)
        config = ExportConfig.from_json({"format": form or "auto", "zip": True}).check()
        current = self.progress.latest(run)
        if not (current and current.active and current.config == config):
            place = downloads.new_place(f"{run.name}-{form or 'model'}.zip")
            work.start_export(run, config, place)
        return self.progress.show(run, lang)

    def wire(self) -> None:
        inputs, outputs = [self.run_name, self.format], [self.progress.view, self.page.timer, self.page.exporting]
        place = self.progress.fault
        wire(self.start.click, self.export, inputs, outputs, place, needs="manage", trigger_mode="once")
