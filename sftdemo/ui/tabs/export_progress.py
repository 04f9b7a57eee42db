"""How an export or a push goes, line by line, and the button that stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.ui import work
from sftdemo.ui.access import private
from sftdemo.ui.parts import html
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.texts import label, language, say
from sftdemo.ui.texts.faults import in_words

POLL_S = 0.3


class ExportProgress:
    """The stop button, the place for faults and the lines of one kind of export."""

    def __init__(self, kind: type[work.Export], result: Callable[[Any, str], str], name: str) -> None:
        """`result` writes what stands there when it is done; `name` begins the ids."""
        self.kind, self.result = kind, result
        self.stop = gr.Button(label("evaluate_stop"), visible=False, elem_id=f"{name}-stop")
        self.fault = gr.HTML("", elem_id=f"{name}-fault")
        self.view = gr.HTML("", elem_id=f"{name}-view")
        self.parts = [self.stop, self.fault, self.view]

    def latest(self, run: runs.Run) -> Any:
        """The run's latest export, if it is of this kind."""
        latest = work.latest_export(run)
        return latest if type(latest) is self.kind else None

    def show(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        """How the run's latest export went, or goes."""
        return {**self._shown(self.latest(run), lang), self.fault: ""}

    def follow(self, job: work.Export, lang: str) -> Iterator[dict[Any, Any]]:
        """Show how it goes to its end; raises UserError where it failed or was stopped."""
        shown = None
        while job.active:
            if (now := (len(job.notes), job.should_stop())) != shown:
                shown = now
                yield self._shown(job, lang)
            time.sleep(POLL_S)
        yield self._shown(job, lang) if job.ready else {self.view: "", self.stop: gr.update(visible=False)}
        if job.error:
            raise UserError(job.error)

    def stop_job(self, run_name: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Stop it, and show its end: after a reload nobody else does."""
        job = self.latest(runs.named(run_name))
        if job is None:
            yield {self.stop: gr.update(visible=False)}
            return
        job.stop.set()
        yield from self.follow(job, language(request))

    def _shown(self, job: work.Export | None, lang: str) -> dict[Any, Any]:
        running = job is not None and job.active
        stop = gr.update(visible=running, interactive=not (job and job.should_stop()))
        return {self.view: self._lines(job, lang) if job else "", self.stop: stop}

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

    def wire(self, run_name: Any) -> None:
        """`run_name` is the state with the run that was picked."""
        outputs = [self.view, self.stop]
        wire(self.stop.click, self.stop_job, [run_name], outputs, self.fault, needs="manage", trigger_mode="once")
