"""Deleting runs: into the trash, back by Undo, and out of it for good."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.runs import trash
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.page import picker
from sftdemo.ui.tabs.runs_table import NAME_LENGTH, moment, trash_table
from sftdemo.ui.texts import label, megabytes, say


class TrashPanel:
    """What the owner has deleted: the latest with its Undo over the list, all of it folded below."""

    def __init__(self) -> None:
        self.deleted = gr.State("")  # the id of what was deleted last on this page
        with gr.Row(visible=False, elem_classes="small-row", elem_id="runs-undo-row") as self.undo_row:
            self.note = gr.HTML("", elem_id="runs-undo-note")
            self.undo = gr.Button(label("trash_undo"), size="sm", elem_id="runs-undo")

    def build_list(self) -> None:
        with gr.Accordion(label("trash_title"), open=False, visible=False, elem_id="runs-trash") as self.panel:
            self.list = picker(elem_id="runs-trash-list")
        self.parts = [self.deleted, self.undo_row, self.note, self.panel, self.list]

    def show(self, lang: str, asking: str = "") -> dict[Any, Any]:
        """The list, for the owner if there is something in it."""
        entries = trash.trashed() if rights.current().owner else []
        return {self.panel: gr.update(visible=bool(entries)), self.list: trash_table(entries, asking, lang)}

    def discard(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        entry = trash.discard(run)
        size = megabytes(entry.to_json()["bytes"])
        name = html.esc(html.cut_name(runs.title(runs.Run(entry.path)), NAME_LENGTH))
        note = say(lang, "trash_note", name=name, size=size, until=moment(entry.until))
        shown = {self.undo_row: gr.update(visible=True), self.note: f'<p class="s" role="status">{note}</p>'}
        return {self.deleted: entry.id, **shown, **self.show(lang)}

    def undone(self) -> dict[Any, Any]:
        return {self.deleted: "", self.undo_row: gr.update(visible=False), self.note: ""}

    def act(self, pick: str, lang: str) -> tuple[runs.Run | None, dict[Any, Any]]:
        """Do what a button in the list says; returns the run that was restored, if one was."""
        action, _, name = pick.partition("/")
        restored = None
        if action == "restore":
            restored = trash.restore(trash.find_deleted(name))
        elif action == "remove":
            trash.remove(trash.find_deleted(name))
        return restored, self.show(lang, name if action == "ask" else "")
