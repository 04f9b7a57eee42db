"""Name, notes and tags of the run that was picked, for the owner to change."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.runs import notes
from sftdemo.ui.access import rights
from sftdemo.ui.texts import label


class NotesPanel:
    """Folded on the Runs tab; what is saved is text, and the folder keeps its name."""

    def __init__(self) -> None:
        with gr.Accordion(label("notes_title"), open=False, visible=False, elem_id="runs-notes") as self.panel:
            with gr.Row():
                self.name = gr.Textbox(
                    "", label=label("notes_name"), info=label("notes_name_help"), max_lines=1, elem_id="runs-name"
                )
                self.tags = gr.Textbox(
                    "", label=label("notes_tags"), info=label("notes_tags_help"), max_lines=1, elem_id="runs-tags-text"
                )
            self.text = gr.Textbox("", label=label("notes_text"), lines=3, max_lines=12, elem_id="runs-note")
            self.seen = gr.Checkbox(
                True, label=label("notes_visitors"), info=label("notes_visitors_help"), elem_id="runs-seen"
            )
            self.save = gr.Button(label("notes_save"), size="sm", elem_id="runs-save")
        self.fields = [self.name, self.tags, self.text]
        self.parts = [self.panel, *self.fields, self.seen]

    def show(self, run: runs.Run) -> dict[Any, Any]:
        """The panel for a run, if the visitor is the owner and its files can be read."""
        if not rights.current().owner or run.state == "damaged":
            return self.hide()
        known, choice = run.notes(), run.notes().get("visitors")
        return {
            self.panel: gr.update(visible=True),
            self.name: known.get("display_name", ""),
            self.tags: ", ".join(known.get("tags", [])),
            self.text: known.get("notes", ""),
            self.seen: gr.update(
                value=choice == "shown" or (choice is None and run.starter() is None),
                visible=not rights.policy().at_home,
            ),
        }

    def hide(self) -> dict[Any, Any]:
        return {self.panel: gr.update(visible=False), **dict.fromkeys(self.fields, "")}

    def write(self, run: runs.Run, name: str, tags: str, text: str, seen: bool) -> None:
        """Write all of it, or nothing where one of them can't be."""
        notes.check(text, parted := re.split("[,，、\n]", tags))
        runs.rename(run, name)
        runs.annotate(run, notes=text, tags=parted, seen=bool(seen))
