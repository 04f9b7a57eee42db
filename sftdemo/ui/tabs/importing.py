"""Import: a run made of what was exported elsewhere, by the owner."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import Text, UserError
from sftdemo.ui import models
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html
from sftdemo.ui.texts import label
from sftdemo.ui.texts.faults import in_words


class ImportPanel:
    """Folded below the list of runs: a source, its base, and a name."""

    def __init__(self) -> None:
        with gr.Accordion(label("import_title"), open=False, visible=False, elem_id="import") as self.panel:
            self.source = gr.Textbox("", label=label("import_source"), info=label("import_source_help"), max_lines=1, elem_id="import-source")  # fmt: skip
            with gr.Row():
                self.base = gr.Textbox("", label=label("import_base"), info=label("import_base_help"), max_lines=1, elem_id="import-base")  # fmt: skip
                self.name = gr.Textbox("", label=label("notes_name"), info=label("import_name_help"), max_lines=1, elem_id="import-name")  # fmt: skip
            self.start = gr.Button(label("import_go"), elem_id="import-go")
            self.fault = gr.HTML("", elem_id="import-fault")
            self.view = gr.HTML("", elem_id="import-view")

    def show(self) -> dict[Any, Any]:
        return {self.panel: gr.update(visible=rights.current().owner)}

    def import_run(self, source: str, base: str, name: str) -> runs.Run:
        """Make a run of the source."""
        if not source.strip():
            raise UserError("Say what to import: a folder, the ZIP of an export, or a Hub id (owner/name).")
        models.load_libraries((*models.LIBRARIES, "sftdemo.verbs.importing"))
        from sftdemo.verbs.importing import import_run

        return import_run(source.strip(), name.strip() or None, base.strip() or None)

    def done(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        note = Text("Run {name} is here.", name=run.name)
        return {self.source: "", self.name: "", self.view: f'<p role="status">{html.esc(in_words(note, lang))}</p>'}
