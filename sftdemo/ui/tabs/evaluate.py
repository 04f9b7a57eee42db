"""3 Evaluate: the claim with its interval first, then the bars, the tables and every answer behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo import files, runs
from sftdemo.config import kinds
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.errors import UserError
from sftdemo.evaluation import outputs_table
from sftdemo.evaluation.systems_table import QUANTIZED
from sftdemo.runs import voting
from sftdemo.ui import downloads, models, work
from sftdemo.ui.access import private, rights
from sftdemo.ui.parts import charts, forms, html, scores
from sftdemo.ui.parts.address import RUN_AND_SEARCH_JS, Address
from sftdemo.ui.parts.answers import load
from sftdemo.ui.parts.calibration import calibration
from sftdemo.ui.parts.forms import EVALUATION_CLICK, wire
from sftdemo.ui.parts.page import Page, find_ready, latest_evaluation, waits
from sftdemo.ui.parts.progress import big as stage_head
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.parts.systems import system_name
from sftdemo.ui.tabs.outputs import OutputsView
from sftdemo.ui.tabs.report import ReportButton
from sftdemo.ui.tabs.systems_view import SystemsView
from sftdemo.ui.texts import duration, label, language, say
from sftdemo.ui.texts.faults import in_words

BOM = "\ufeff"  # without it Excel reads UTF-8 as the machine's own encoding
MOST_RUNS = 8  # of the same data that are offered as rivals
FIRST_ROWS = 100  # held-out rows proposed for a first look; on two cores about a minute


def held_out(run: runs.Run) -> int:
    """How many rows the run holds out for its test."""
    sizes = run.config().get("data", {}).get("sizes", {})
    return int(sizes.get("test") or sizes.get("validation") or 0)


def proposed_rows(run: runs.Run) -> int | None:
    """How many held-out rows a first look at the run takes."""
    return min(held_out(run), FIRST_ROWS) or None


def download(run: runs.Run, name: str, kind: str) -> str:
    """The path of an evaluation's outputs as csv, judged by the leading metric, or as jsonl."""
    path = downloads.folder() / f"{run.name}-{name}.{kind}"
    if kind == "csv":
        rows, _ = load(run, name, run.scores(name).get("leading", ""))
        files.write_text(path, BOM + outputs_table.as_csv(rows))
    elif not path.is_file():
        files.write_text(path, files.jsonl(run.outputs(name)))
    return str(path)


def is_own(current: work.Evaluation) -> bool:
    """Whether who sent the event began the evaluation, or owns the app; its notes and faults may name runs that others don't see."""
    return rights.may_stop(f"evaluate {current.run.name}", rights.current())


def progress(current: work.Evaluation, lang: str) -> str:
    """What the running evaluation is doing; of one that isn't theirs, visitors see how far it is."""
    own, seen = is_own(current), rights.sees(current.run.name)
    at, asked, eta_s = current.at, current.asked, current.eta_s  # read once: they change and end while this is written
    if (seen or own) and at and not current.stop.is_set():
        return html.block(stage_head(at, lang), "sheet")
    note = private.shown(in_words(current.note, lang)) if own else ""
    if own and asked:  # as the menu that it was chosen from calls it
        note = say(lang, "evaluate_asking", name=system_name(asked, lang, rights.current().owner))
    state = html.esc(note) or say(lang, "evaluate_running")
    if not (seen or own):
        state = say(lang, "work_others")
    elif current.stop.is_set():
        state = say(lang, "work_stopping")
    elif current.read and not current.done:
        state = say(lang, "evaluate_reading", n=current.read)
    remaining = f" · {say(lang, 'work_left', t=duration(lang, eta_s))}" if eta_s else ""
    count = f'<p class="muted num">{current.done} / {current.total}{remaining}</p>' if current.read else ""
    return html.block(f'<div class="big">{state}</div>{count}{html.track(current.share)}', "sheet")


def fault_of(current: work.Evaluation) -> str:
    """What ended an evaluation early, as those who may know are told."""
    return forms.fault(current.error) if is_own(current) else ""


def chats(run: runs.Run) -> bool:
    """Whether it writes text, so that it can be asked general questions."""
    return run.kind not in kinds.LABELLING


def rival_choices(run: runs.Run, lang: str) -> list[tuple[str, str]]:
    """The other systems that can be asked from the page; those of labels where the run has labels, those that talk where it does."""
    labelled = run.config().get("data", {}).get("task") == "classification"
    names = ["linear", "majority"] if labelled else ["copy"]
    if run.kind == kinds.CHAT:
        names += ["base+4", "base+8", *QUANTIZED]
    names += [f"run:{other.name}" for other in (_comparable(run) if rights.current().owner else [])]
    return [(system_name(name, lang), name) for name in names]


def _comparable(run: runs.Run) -> list[runs.Run]:
    """The run's students, and the newest other runs on the same data."""
    data = run.config().get("data", {}).get("sha256")
    others = [other for other in runs.list_runs() if other.name != run.name and models.is_ready(other)]
    same = [other for other in others if data and runs.outline(other)["sha256"] == data][:MOST_RUNS]
    return list({other.name: other for other in (*runs.students(run), *same)}.values())


def public_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores without paths on the server."""
    public = {**scores, "outputs": Path(scores.get("outputs", "")).name}
    if (settings := scores.get("settings", {})).get("data"):
        public["settings"] = {**settings, "data": runs.source_name(settings["data"])}
    return public


def follow(run: runs.Run, config: EvaluateConfig, total: int) -> Iterator[work.Evaluation]:
    """Start an evaluation and yield it about twice a second until it ends; a fault is raised."""
    current = work.start_evaluation(run, config, min(config.max_examples or total, total), rights.current())
    yield current
    while current.active:
        time.sleep(0.4)
        yield current
    if current.error:
        raise UserError(current.error)


def merged(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    """Both handlers' updates; of a component that both change, both changes."""
    both = {part: first[part] | second[part] for part in first.keys() & second.keys() if isinstance(first[part], dict)}
    return {**first, **second, **both}


class EvaluateTab:
    """Start and stop an evaluation, its scores, and the answers behind them.

    Answers are sent once `tab`, this one, is opened: somebody who votes blind on the same page hasn't seen them.
    """

    def __init__(self, page: Page, tab: Any, start_on_train: Any, trained: Any) -> None:
        """`start_on_train` is the button on Train that leads here and starts, too; `trained` the run shown there."""
        self.page, self.tab, self.start_on_train, self.trained = page, tab, start_on_train, trained
        self.watching = gr.State(False)  # whether this page has seen an evaluation run whose end it hasn't shown
        self.gate = gr.HTML("", elem_id="evaluate-gate")
        with gr.Column(visible=False) as self.body:
            self._build_start()
            self.fault = gr.HTML("", elem_id="evaluate-fault")
            self.progress = gr.HTML("", elem_id="evaluate-progress")
            self.claim = gr.HTML("", elem_id="evaluate-claim")
            with gr.Row(visible=False, elem_classes="ends") as self.next_row:
                loud = {"variant": "primary", "elem_classes": "main-button", "min_width": 150}
                self.to_chat = gr.Button(label("evaluate_chat"), elem_id="to-chat", **loud)
                self.to_vote = gr.Button(label("evaluate_vote"), elem_id="to-vote", **loud)
            self.bars = gr.HTML("", elem_id="evaluate-bars")
            self.general = gr.HTML("", elem_id="evaluate-general")
            self.systems = SystemsView(page, self.fault)
            self.confusions = gr.HTML("")
            self.outputs = OutputsView(page, self.fault)
            self.report = ReportButton("evaluate-report")
            with gr.Row(elem_classes="small-row"):
                self.csv_file = gr.DownloadButton(label("download_csv"), size="sm", visible=False)
                self.jsonl_file = gr.DownloadButton(label("download_jsonl"), size="sm", visible=False)
                self.report.button.render()
            self.small_print = gr.HTML("")

    def _build_start(self) -> None:
        with gr.Row(elem_classes="ends"):
            rows = {"label": label("evaluate_rows"), "info": None, "elem_id": "evaluate-rows"}
            self.rows = forms.field(EvaluateConfig, "max_examples", scale=1, min_width=130, **rows)
            general = {"label": label("evaluate_general"), "info": None, "elem_id": "evaluate-general-ask"}
            self.ask_general = forms.field(EvaluateConfig, "general", scale=1, min_width=150, **general)
            main = {"elem_classes": "main-button", "scale": 4, "min_width": 160}
            self.start = gr.Button(label("evaluate_go"), variant="primary", elem_id="evaluate", **main)
        with gr.Accordion(
            label("evaluate_rivals"), open=False, visible=False, elem_id="evaluate-rivals"
        ) as self.rivals:
            self.against = gr.CheckboxGroup(
                [], label=label("evaluate_against"), info=label("evaluate_against_help"), elem_id="evaluate-against"
            )

    def show_nothing(self) -> dict[Any, Any]:
        drawn = dict.fromkeys((self.claim, self.bars, self.confusions, self.general, self.small_print), "")
        parts = (self.next_row, self.csv_file, self.jsonl_file, self.report.button)
        hidden = dict.fromkeys(parts, gr.update(visible=False))
        begin = {self.start: gr.update(variant="primary")}
        return drawn | hidden | begin | self.systems.hide() | self.outputs.hide()

    def show_answers(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        if not (name := latest_evaluation(run)):
            return self.outputs.hide()
        owner = rights.current().owner
        files = {
            button: gr.update(visible=owner, value=download(run, name, kind) if owner else None)
            for button, kind in ((self.csv_file, "csv"), (self.jsonl_file, "jsonl"))
        }
        return {**self.outputs.show(run, name, lang), **files}

    def show_scores(self, run: runs.Run, lang: str) -> dict[Any, Any]:
        if not (name := latest_evaluation(run)):
            return self.show_nothing() | {self.claim: waits(lang, "evaluate_empty")}
        measured, visitor = run.scores(name), rights.current()
        bars = charts.score_rows(measured, lang) + scores.under_scores(measured, lang)
        return {
            self.claim: scores.claim(measured, lang),
            self.bars: html.sheet(bars, say(lang, "scores_title")),
            **self.systems.show(run, name, measured, lang),
            self.confusions: calibration(measured, lang)
            + scores.confusions(measured, lang)
            + scores.fields(measured, lang),
            self.small_print: scores.small_print(measured, lang),
            self.general: scores.forgotten(measured, lang),
            self.start: gr.update(variant="secondary"),
            self.next_row: gr.update(visible=True),
            self.report.button: gr.update(visible=True),
            self.to_chat: gr.update(visible=visitor.may("chat")),
            self.to_vote: gr.update(visible=visitor.may("vote") and not voting.refusal(run)),
        }

    def followed(self) -> dict[Any, Any]:
        """Whatever draws a running evaluation has ticks follow it to its end, which may come before the first of them."""
        return {self.watching: True, self.page.timer: gr.update(active=True)}

    def buttons(self, running: bool) -> dict[Any, Any]:
        return {self.start: gr.update(visible=not running and rights.current().may("evaluate"))}

    def refresh(self, run_name: str, request: gr.Request) -> dict[Any, Any]:
        lang = language(request)
        if not run_name:
            return self.show_nothing() | {
                self.gate: waits(lang, "wait_run", "then_evaluate"),
                self.body: gr.update(visible=False),
            }
        run = runs.named(run_name)
        current = work.evaluation()
        running = bool(current and current.active)
        return {
            self.gate: "",
            self.body: gr.update(visible=True),
            self.rows: proposed_rows(run),
            self.ask_general: gr.update(visible=True) if chats(run) else gr.update(visible=False, value=False),
            self.rivals: gr.update(visible=rights.current().owner),
            self.against: gr.update(choices=rival_choices(run, lang), value=[]),
            self.progress: progress(current, lang) if current and running else "",
            **self.outputs.hide(),
            **merged(self.show_scores(run, lang), self.buttons(running)),
            **(self.followed() if running else {}),
            **(self.without_waiting(run) if current and running and current.run.path == run.path else {}),
        }

    def draw_again(self, run_name: str, request: gr.Request) -> dict[Any, Any]:
        """As `refresh`; with nothing under way, what the place of the progress says of the last evaluation stays."""
        shown = self.refresh(run_name, request)
        return shown if shown.get(self.progress) else {**shown, self.progress: gr.skip()}

    def without_waiting(self, run: runs.Run) -> dict[Any, Any]:
        """ "Not measured yet" goes while it is being measured."""
        return {} if latest_evaluation(run) else {self.claim: ""}

    def open_tab(self, run_name: str, search: str, request: gr.Request) -> dict[Any, Any]:
        """The answers, and in full the row that the page's address names."""
        if not run_name:
            return self.outputs.hide()
        shown, asked = self.show_answers(runs.named(run_name), language(request)), Address.parse(search)
        if asked.row and asked.run == run_name and latest_evaluation(runs.named(run_name)):
            shown |= self.outputs.open_named(run_name, asked.row, request)
        return shown

    def follow_address(self, run_name: str, search: str, request: gr.Request) -> dict[Any, Any]:
        """The answers once the run is another one, or Back was pressed, while this tab is open."""
        return self.open_tab(run_name, search, request) if Address.parse(search).tab == "evaluate" else {}

    def evaluate(
        self, run_name: str, rows: Any, general: bool, against: list[str], request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        lang, run = language(request), find_ready(run_name)
        if against and not rights.current().owner:
            raise UserError("Other systems are the owner's to ask.")
        asked = {"max_examples": rows, "general": general, "against": ",".join(against) or None}
        config = forms.config(EvaluateConfig, asked)
        total = min(config.max_examples or held_out(run), held_out(run))
        yield {self.progress: html.block(say(lang, "evaluate_waiting"), "sheet"), **self.without_waiting(run)}
        try:
            for update, current in enumerate(follow(run, config, total)):
                # Only the first: after it the tick draws the progress, in the language of the page as it is by then.
                drawn = {} if update else {self.progress: progress(current, lang)}
                yield {**drawn, **self.followed(), **self.buttons(True)}
        except UserError:
            yield {self.progress: "", **self.buttons(False)}
            raise
        yield {self.progress: "", self.watching: False, **self.buttons(False)}

    def evaluate_trained(self, trained: str, general: bool, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Evaluate the run that Train shows; what stands in the fields here may still be another run's."""
        run = find_ready(trained)
        rows = proposed_rows(run)
        yield {self.page.run: trained, self.rows: rows}
        yield from self.evaluate(trained, rows, general and chats(run), [], request)

    def show_results(self, run_name: str, request: gr.Request) -> dict[Any, Any]:
        """Scores and answers of the chosen run, which may have changed while another one was evaluated."""
        if not run_name:
            return self.show_nothing()
        run, lang = runs.named(run_name), language(request)
        return self.show_scores(run, lang) | self.show_answers(run, lang)

    def tick(self, run_name: str, watching: bool, request: gr.Request) -> dict[Any, Any]:
        """After a reload nobody follows the evaluation any more; the tick shows it on, and what it came to."""
        current, lang = work.evaluation(), language(request)
        if not (current and run_name) or not (current.active or watching):
            return {self.progress: gr.skip()}
        if current.active:
            waited = self.without_waiting(current.run) if current.run.name == run_name else {}
            return {self.progress: progress(current, lang), self.watching: True, **waited, **self.buttons(True)}
        ended = {
            self.progress: fault_of(current),
            self.watching: False,
            **self.buttons(False),
        }
        return merged(ended, self.show_results(run_name, request))

    def wire(self) -> None:
        page, fault, answers = self.page, self.fault, [self.csv_file, self.jsonl_file, *self.outputs.parts]
        results = [self.claim, self.bars, self.confusions, self.general, self.small_print, self.next_row]
        results += [*self.systems.parts, self.to_chat, self.to_vote, self.report.button, self.start, *answers]
        views = [self.gate, self.body, self.rows, self.ask_general, self.rivals, self.against, self.progress, *results]
        views += [self.watching, page.timer]
        refreshed = wire(page.run.change, self.refresh, [page.run], views, fault)
        addressed: Any = ([page.run, page.address], answers, fault)
        wire(self.tab.select, self.open_tab, *addressed, js=RUN_AND_SEARCH_JS)
        for moved in (refreshed, page.travelled):
            wire(moved.then, self.follow_address, *addressed, js=RUN_AND_SEARCH_JS)
        settings = [page.run, self.rows, self.ask_general, self.against]
        started = wire(self.start.click, self.evaluate, settings, views, fault, needs="evaluate", **EVALUATION_CLICK)
        opened = page.opens(self.start_on_train.click, "evaluate")
        trained = [self.trained, self.ask_general]
        followed = wire(
            opened.then,
            self.evaluate_trained,
            trained,
            [*views, page.run],
            fault,
            needs="evaluate",
            **EVALUATION_CLICK,
        )
        for ended in (started, followed):
            wire(ended.then, self.show_results, [page.run], results, fault)
        ticked = [self.progress, self.watching, *results]
        page.tick = wire(page.tick.then, self.tick, [page.run, self.watching], ticked)
        wire(page.stopped["evaluate"].then, self.tick, [page.run, self.watching], ticked)
        page.opens(self.to_chat.click, "chat")
        page.opens(self.to_vote.click, "vote")
        texts = [self.gate, self.progress, self.claim, self.bars, self.general, self.confusions, self.small_print]
        redraw(page, self.draw_again, [page.run], [*texts, self.against, self.systems.to])
        self.systems.wire()
        self.outputs.wire()
        self.report.wire(page.run, fault)
