"""Push to the Hub: the model of a run with its card, by its owner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from sftdemo import runs
from sftdemo.config.export import ExportConfig
from sftdemo.config.push import FORMATS, WHAT, PushConfig
from sftdemo.log import LOG
from sftdemo.training import lock
from sftdemo.ui import models, work
from sftdemo.ui.access import private, rights
from sftdemo.ui.parts import forms, html
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.export import format_name, formats
from sftdemo.ui.tabs.export_progress import ExportProgress
from sftdemo.ui.texts import label, language
from sftdemo.ui.texts.faults import in_words

MOST_NAME = 200  # characters of a repository's id


@dataclass
class Push(work.Export):
    """A run's model on its way to the Hub."""

    title: ClassVar[str] = "work_push"
    repository: str = ""
    settings: PushConfig = field(default_factory=PushConfig)

    @property
    def ready(self) -> bool:
        return bool(self.sentence)

    def asks_for(self, other: Push) -> bool:
        return (self.repository, self.settings) == (other.repository, other.settings)

    def _work(self) -> None:
        LOG.info("Pushing run %s.", self.run.name)
        models.load_libraries((*models.LIBRARIES, "sftdemo.verbs.push"))
        from sftdemo.verbs.push import push

        self.sentence = push(self.run, self.repository, self.settings, self, _exporting).sentence


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """An export needs the memory that a training would take; an upload doesn't."""
    with lock.alone():
        models.release()
        yield


def result(push: Push, lang: str) -> str:
    """The lines that led there, and where the model is."""
    lines = "".join(
        f'<p class="muted small">{html.esc(private.shown(in_words(note, lang)))}</p>' for note in push.notes
    )
    return f'{lines}<p role="status">{html.esc(in_words(push.sentence, lang))}</p>'


class PushPanel:
    """Folded on the Runs tab: where to, who sees it, what goes along."""

    def __init__(self, page: Page, run_name: Any) -> None:
        """`run_name` is the state with the run that was picked."""
        self.page, self.run_name = page, run_name
        with gr.Accordion(label("push_title"), open=False, visible=False, elem_id="push") as self.panel:
            gr.Markdown(label("push_note"), elem_classes="muted small")
            self.repository = gr.Textbox(
                "", label=label("push_repository"), placeholder="owner/name", max_lines=1, max_length=MOST_NAME, elem_id="push-repository"
            )  # fmt: skip
            self.what = gr.Radio(list(WHAT[1:]), label=label("export_format"), elem_id="push-what")
            with gr.Row():
                self.license = gr.Textbox("", label=label("push_license"), placeholder="apache-2.0", max_lines=1)
                self.data_license = gr.Textbox(
                    "", label=label("push_data_license"), placeholder="cc-by-4.0", max_lines=1
                )
            with gr.Row():
                self.public = gr.Checkbox(False, label=label("push_public"), elem_id="push-public")
                self.with_data = gr.Checkbox(False, label=label("push_with_data"), elem_id="push-with-data")
            self.start = gr.Button(label("push_go"), variant="primary", elem_id="push-go")
            self.progress = ExportProgress(page, Push, result, "push")
        self.parts = [self.panel, self.what, *self.progress.parts]
        self.settings = {
            "what": self.what,
            "public": self.public,
            "with_data": self.with_data,
            "license": self.license,
            "data_license": self.data_license,
        }

    def show(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        """The panel for a run, if it has a model and the visitor is the owner."""
        if not (models.is_ready(run) and rights.current().owner):
            return self.hide()
        exported = {what: FORMATS.get(what, what) for what in WHAT[1:]}
        offered = [(format_name(run, form, lang), what) for what, form in exported.items() if form in formats(run)]
        latest = self.progress.latest(run)
        return {
            self.panel: gr.update(visible=True, **({"open": True} if latest and latest.active else {})),
            self.what: gr.update(choices=offered, value=offered[0][1]),
            **self.progress.show(run, lang),
        }

    def hide(self) -> dict[Any, Any]:
        return {self.panel: gr.update(visible=False)}

    def push(self, request: gr.Request, run_name: str, repository: str, **settings: Any) -> dict[Any, Any]:
        """Begin to push, unless the same push runs already; ticks show how it goes."""
        lang, run = language(request), runs.named(run_name)
        config = PushConfig.from_json(forms.values(PushConfig, settings)).check()
        job = Push(run, ExportConfig(), Path(), repository=repository.strip(), settings=config)
        current = self.progress.latest(run)
        if not (current and current.active and current.asks_for(job)):
            work.begin_export(job)
        return self.progress.show(run, lang)

    def wire(self) -> None:
        inputs = {"run_name": self.run_name, "repository": self.repository, **self.settings}
        outputs, place = [self.progress.view, self.page.timer, self.page.exporting], self.progress.fault
        wire(self.start.click, self.push, inputs, outputs, place, needs="manage", trigger_mode="once")
