"""How an export or a push goes, line by line; the bar over the tabs has its Stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.ui import work
from sftdemo.ui.access import private
from sftdemo.ui.parts import html
from sftdemo.ui.parts.page import Page
from sftdemo.ui.texts import say
from sftdemo.ui.texts.faults import in_words


class ExportProgress:
    """The place for faults and the lines of one kind of export."""

    def __init__(self, page: Page, kind: type[work.Export], result: Callable[[Any, str], str], name: str) -> None:
        """`result` writes what stands there when it is done; `name` begins the ids."""
        self.page, self.kind, self.result = page, kind, result
        self.fault = gr.HTML("", elem_id=f"{name}-fault")
        self.view = gr.HTML("", elem_id=f"{name}-view")
        self.parts = [self.fault, self.view]

    def latest(self, run: runs.Run) -> Any:
        """The run's latest export, if it is of this kind."""
        latest = work.export()
        return latest if type(latest) is self.kind and latest.run.path == run.path else None

    def draw(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        """How the run's latest export went, or goes; ticks follow one that goes on to its end."""
        job = self.latest(run)
        shown: dict[Any, Any] = {self.view: self._lines(job, lang) if job else ""}
        if job and job.active:
            shown |= {self.page.timer: gr.update(active=True), self.page.exporting: work.export_told()}
        return shown

    def show(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        """The same, without what was at fault before."""
        return {**self.draw(run, lang), self.fault: ""}

    def _lines(self, job: work.Export, lang: str) -> str:
        notes = [html.esc(private.shown(in_words(note, lang))) for note in [*job.notes]] or [say(lang, "export_begins")]
        if job.active and job.should_stop():
            notes.append(say(lang, "export_stopping"))
        *done, last = notes
        lines = "".join(f'<p class="muted small">{note}</p>' for note in done)
        if job.active:
            return html.block(f'{lines}<p role="status"><b>{last}</b></p>', "sheet")
        if not job.ready:
            return html.fault(in_words(job.error, lang))
        return html.block(self.result(job, lang), "sheet")
