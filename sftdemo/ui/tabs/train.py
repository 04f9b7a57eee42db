"""2 Train: the whole plan in a sentence, one button, and what happens while it runs."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import settings_file
from sftdemo.config.distillation import DistillationConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UserError
from sftdemo.model import download
from sftdemo.ui import chosen_data, models
from sftdemo.ui.access import private, rights
from sftdemo.ui.parts import browser_store, forms, html
from sftdemo.ui.parts.address import Address
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import EACH_PICK, Page, picked, picker, waits
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.tabs import queue, start_from, task_choice
from sftdemo.ui.tabs.sweep_form import SweepForm
from sftdemo.ui.tabs.train_plan import DEFAULT_PRESET, PRESETS, estimate, measured_speed, plan, unlearnable_said
from sftdemo.ui.tabs.train_view import live, log_tail
from sftdemo.ui.texts import label, language, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.ui.trainings import is_own, resume_training, start_sweep, start_training
from sftdemo.verbs import jobs

HERE = "?tab=train"
TICK_JS = "(watched, started, run) => [watched, started, run, location.search]"
ASK_ONCE_JS = "() => { window.sftdemo.soon('train-changed'); return []; }"
# On Data, a button, the command line; students are made by `compress`, of no data of their own.
NO_FIELD = {spec.name for spec in fields(DistillationConfig)} - {"seed"} | {"resume", "report_to"}


def choices_of_presets(fields: Mapping[str, Any]) -> tuple[str, str]:
    """As functions of the browser's: what a preset puts into the fields, and which preset they hold, if any."""
    values = {
        name: ["" if value is None else fields[setting].postprocess(value) for setting, value in preset.items()]
        for name, preset in PRESETS.items()
    }
    same = "(value, i) => String(value ?? '') !== '' ? Number(value) === Number(held[i] || NaN) : !held[i]"
    held = f"(...held) => [Object.entries({json.dumps(values)}).find(([, of]) => of.every({same}))?.[0] ?? null]"
    return f"(name) => ({json.dumps(values)})[name]", held


def config_of(chosen: Mapping[str, Any], settings: Mapping[str, Any]) -> TrainConfig:
    """The chosen data and the form's settings together, checked."""
    one_go = {"epochs": TrainConfig.epochs} if settings.get("method") == "frozen" else {}  # those are of a preset
    config: TrainConfig = forms.config(TrainConfig, {**chosen, **settings, **one_go})
    return start_from.completed(config)


def command(config: TrainConfig, lang: str) -> str:
    """The command line that does the same, and its settings as a file to save."""
    settings = base64.b64encode(private.shown(settings_file.to_yaml(config)).encode()).decode()
    link = f'<a class="download" href="data:application/yaml;base64,{settings}" download="settings.yaml">'
    note = html.esc(say(lang, "train_yaml"))
    return f'<pre class="cmd">{html.esc(private.shown(jobs.command(config)))}</pre>{link}{note}</a>'


def warn_without_cookie(visitor: rights.Visitor, lang: str) -> None:
    """Say that a visitor is known by this page's session alone, which a reload ends: others may have the same address."""
    if not (visitor.owner or visitor.browser):
        gr.Warning(say(lang, "no_cookie"), title=say(lang, "toast_note"))


class TrainTab:
    """Plan, settings, one button, and what the run it started is doing."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.watched = gr.State("")  # the name of the run that is shown
        self.started = gr.State("")  # the name of the run that was started on this page
        self.kept = gr.Textbox(
            "", visible="hidden", label=label("step_train")
        )  # the run that is shown, for the browser
        self.plan = gr.HTML("", elem_id="train-plan")
        choices = [(label(f"preset_{name}"), name) for name in PRESETS]
        self.preset = gr.Radio(
            choices, value=DEFAULT_PRESET, label=label("presets"), show_label=False, container=False, elem_id="presets"
        )
        with gr.Accordion(label("train_settings"), open=False, elem_id="train-settings"):
            self.fields = self._build_fields(rare=False)
            with gr.Accordion(label("more_settings"), open=False, elem_id="more-settings"):
                self.fields |= self._build_fields(rare=True)
            gr.Markdown(label("train_command"), elem_classes="group")
            self.command = gr.HTML("", elem_id="train-command")
        self.sweep = SweepForm()
        self.fault = gr.HTML("", elem_id="train-fault")
        main = {"elem_classes": "main-button"}
        with gr.Row():
            self.start = gr.Button(label("train_go"), variant="primary", elem_id="fine-tune", **main)
            self.resume = gr.Button(label("train_resume"), visible=False, elem_id="train-resume", **main)
            self.evaluate = gr.Button(
                label("train_evaluate"), variant="primary", visible=False, elem_id="to-evaluate", **main
            )
        self.queue = picker(elem_id="train-queue")
        self.view = gr.HTML("", elem_id="train-view")
        with gr.Accordion(label("train_log"), open=False, visible=False) as self.log_box:
            self.log = gr.HTML("")

    def _build_fields(self, rare: bool) -> dict[str, Any]:
        """The fields of the usual or the rare settings by name, set to the default preset."""
        fields = {}
        preset = PRESETS[DEFAULT_PRESET]
        for group, specs in forms.groups(TrainConfig, NO_FIELD, rare).items():
            gr.Markdown(label(f"group_{group}"), elem_classes="group")
            with gr.Row():
                for spec in specs:
                    if spec.name == "from_run":
                        fields[spec.name] = start_from.menu(min_width=240)
                        continue
                    value = {"value": preset[spec.name]} if spec.name in preset else {}
                    fields[spec.name] = forms.field(TrainConfig, spec.name, min_width=240, **value)
        return fields

    def describe(
        self, request: gr.Request, chosen: dict[str, Any], unready: str = "", **settings: Any
    ) -> dict[Any, Any]:
        """The plan and the command of the settings as they stand."""
        lang = language(request)
        if not rights.visitor(request).may("train"):
            return {}
        if not chosen:
            missing = "wait_mend" if unready else "wait_data"
            return {self.plan: waits(lang, missing), self.start: gr.update(interactive=False)}
        config = config_of(chosen, settings)
        try:
            download.check_name(config.model)
        except UserError as error:  # while it is being typed, without a toast
            wrong = html.fault(in_words(error, lang))
            return {self.plan: wrong, self.command: "", self.start: gr.update(interactive=False)}
        data = chosen_data.read(chosen)
        rows = data.splits.get("train", [])
        return {
            self.plan: plan(config, rows, lang, unready) + unlearnable_said(config, lang),
            self.command: command(config, lang),
            self.fields["task"]: task_choice.update(data, config.task, lang),
            self.start: gr.update(interactive=bool(rows)),
        }

    def follow_form(self, request: gr.Request, chosen: dict[str, Any], **settings: Any) -> Iterator[dict[Any, Any]]:
        """As `describe`; while a setting is wrong, no plan of other settings stands over what is said of it."""
        try:
            yield self.describe(request, chosen, **settings)
        except UserError:
            yield {self.plan: html.block(html.esc(say(language(request), "plan_none")), "muted"), self.command: ""}
            raise

    def describe_again(self, request: gr.Request, chosen: dict[str, Any], **settings: Any) -> Iterator[dict[Any, Any]]:
        """The same in another language; where a field is wrong, that instead of the plan, which was made before."""
        try:
            yield self.describe(request, chosen, **settings)
        except UserError as error:
            yield {self.plan: html.fault(forms.explained(error)), self.command: "", self.fault: ""}
            data = chosen_data.read(chosen)
            yield {self.fields["task"]: task_choice.update(data, settings["task"], language(request))}

    def show_run(self, name: str, lang: str) -> dict[Any, Any]:
        """The run of that name, if there is one, and the queue."""
        visitor = rights.current()
        listed = {self.watched: name, self.kept: name, self.queue: queue.queue_list(name, visitor, lang)}
        try:
            run = runs.named(name) if name else None
        except UserError:  # it left the queue, or was deleted
            run, listed[self.watched], listed[self.kept] = None, "", ""
        if run and run.state in runs.ACTIVE:  # whatever draws it going on has ticks follow it to its end
            listed[self.page.timer] = gr.update(active=True)
        ready, can_resume = (models.is_ready(run), jobs.can_resume(run)) if run else (False, False)
        return listed | {
            self.view: live(run, lang) if run else "",
            self.start: gr.update(**queue.start_label(ready)),
            self.resume: gr.update(visible=visitor.owner and can_resume),
            self.evaluate: gr.update(visible=ready and visitor.may("evaluate")),
            self.log_box: gr.update(visible=bool(run) and visitor.owner),
            self.log: log_tail(run) if run and visitor.owner else "",
        }

    def fine_tune(
        self, request: gr.Request, chosen: dict[str, Any], watched: str = "", **settings: Any
    ) -> dict[Any, Any]:
        """Start a run, or put it into the queue, and watch it unless another one is watched that still goes on."""
        if not chosen:
            raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
        config = config_of(chosen, settings)
        download.check_exists(config.model)
        rows = chosen_data.read(chosen).splits.get("train", [])
        speed = measured_speed(config)
        timed = speed is not None or config.max_minutes is not None
        visitor = rights.visitor(request)
        run = start_training(config, visitor, len(rows), estimate(config, rows, speed) if timed else None)
        warn_without_cookie(visitor, language(request))
        return self._began(run, watched, language(request))

    def try_settings(
        self, request: gr.Request, chosen: dict[str, Any], watched: str = "", **settings: Any
    ) -> dict[Any, Any]:
        """Start a run that tries the values of the form's lower part first, or put it into the queue."""
        if not chosen:
            raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
        tried, settings = self.sweep.values(settings)
        config = config_of(chosen, settings)
        download.check_exists(config.model)
        return self._began(start_sweep(config, tried), watched, language(request))

    def _began(self, run: runs.Run, watched: str, lang: str) -> dict[Any, Any]:
        """What is shown once a run has been started: that one, unless another one is watched that still goes on."""
        if watched in (other.name for other in runs.active()):
            return self.show_run(watched, lang)
        return {self.started: run.name, **self.show_run(run.name, lang)}

    def resume_run(self, watched: str, request: gr.Request) -> dict[Any, Any]:
        """Go on with the run that is shown."""
        resume_training(runs.named(watched))
        return {self.started: watched, **self.show_run(watched, language(request))}

    def pick_queued(self, watched: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """A button in the queue: show a run, cancel one that waits, go on with one that was interrupted."""
        name = queue.act(picked(event), rights.visitor(request))
        return {**({self.started: name} if name else {}), **self.show_run(name or watched, language(request))}

    def turn_to(self, watched: str, chosen: Mapping[str, Any], request: gr.Request) -> dict[Any, Any]:
        """A run that has ended gives way to the plan for other data than its own; Runs still has it."""
        with contextlib.suppress(UserError):
            run = runs.named(watched)
            of = run.config().get("settings", {}).get("data")
            if chosen and run.state not in runs.ACTIVE and of != chosen.get("data"):
                return self.show_run("", language(request))
        return {}

    def tick(
        self, watched: str, started: str, run_name: str, request: gr.Request, search: str = HERE
    ) -> dict[Any, Any]:
        """The watched run as it is now; with a model it becomes the chosen run where it was started, or no other is chosen.

        While the page's address names another tab, that alone is told: what a page draws out of sight makes it answer late.
        """
        if Address.parse(search).tab != "train" and not self._takes(watched, started, run_name):
            return {}
        shown = self.show_run(watched, language(request))
        if watched and not shown[self.watched]:
            shown = self.show_run(queue.own_work(rights.visitor(request)), language(request))
        taken = shown[self.watched] == watched and self._takes(watched, started, run_name)
        return {**shown, **({self.page.run: watched, self.started: ""} if taken else {})}

    def _takes(self, watched: str, started: str, run_name: str) -> bool:
        """Whether the watched run, which has a model now, becomes the chosen one."""
        with contextlib.suppress(UserError):  # it is gone
            return bool(watched) and (started == watched or not run_name) and models.is_ready(runs.named(watched))
        return False

    def open_page(self, request: gr.Request, kept: str | None = None) -> dict[Any, Any]:
        """The run that this page showed before it was loaded again; else one that is training, the one that a link to this
        tab names, and to the owner one that was cut off, to go on with."""
        visitor, asked = rights.visitor(request), Address.of(request.query_params)
        linked = asked.run if asked.tab == "train" else ""
        name = may_show(kept, visitor) or queue.own_work(visitor) or may_show(linked, visitor)
        name = name or next((run.name for run in runs.cut_off() if visitor.owner), "")
        owned = {
            self.fields["model"]: gr.update(interactive=visitor.owner),
            self.sweep.box: gr.update(visible=visitor.owner),
        }
        return owned | self.offer_runs(request) | self.show_run(name, language(request))

    def show_again(self, watched: str, request: gr.Request) -> dict[Any, Any]:
        """The run that is shown, if any, in another language."""
        return self.offer_runs(request) | self.show_run(watched, language(request))

    def offer_runs(self, request: gr.Request) -> dict[Any, Any]:
        """The runs to go on from as they are now."""
        return {self.fields["from_run"]: start_from.offered(rights.visitor(request), language(request))}

    def wire(self) -> None:
        page, fields, fault = self.page, self.fields, self.fault
        settings = {"chosen": page.data, "unready": page.unready, **fields}
        described = [self.plan, self.command, self.start, fields["task"]]
        # A page that opens gets a dozen values at once, and would ask a dozen times: the browser clicks this once (style.HEAD).
        # It is made outside the tab, whose parts aren't there before the tab is opened.
        ask = gr.Button("", visible="hidden", elem_id="train-changed")
        # A training that ends tells how fast the next one will be.
        changes = partial(gr.on, [page.data.change, page.unready.change, self.started.change, ask.click])
        wire(changes, self.follow_form, settings, described, fault)
        changed = partial(gr.on, [field.change for field in fields.values()])
        wire(changed, None, None, None, js=ASK_ONCE_JS)
        for name, twin in page.preparing.items():
            pass_on(twin, fields[name])
            pass_on(fields[name], twin)
        # In the browser: after a trip to the server, a quick click on the button would train with the preset before.
        preset_fields = {name: fields[name] for name in PRESETS[DEFAULT_PRESET]}
        take_preset, held_preset = choices_of_presets(preset_fields)
        preset_taken = wire(self.preset.input, None, [self.preset], list(preset_fields.values()), js=take_preset)
        # The fields' own change events can come between two fields; this one sees them all.
        wire(preset_taken.then, self.follow_form, settings, described, fault)
        set_otherwise = partial(gr.on, [field.change for field in preset_fields.values()])
        wire(set_otherwise, None, list(preset_fields.values()), [self.preset], js=held_preset)
        buttons = [self.start, self.resume, self.evaluate]
        views = [self.watched, self.kept, self.queue, self.view, *buttons, self.log_box, self.log, page.timer]
        began = [*views, self.started]
        started = {**settings, "watched": self.watched}
        wire(self.start.click, self.fine_tune, started, began, fault, needs="train", trigger_mode="once")
        wire(
            self.sweep.go.click,
            self.try_settings,
            {**started, **self.sweep.inputs},
            began,
            fault,
            needs="manage",
            trigger_mode="once",
        )
        wire(self.resume.click, self.resume_run, [self.watched], began, fault, needs="manage")
        wire(self.queue.select, self.pick_queued, [self.watched], began, fault, needs="train", **EACH_PICK)
        ticked: Any = [self.watched, self.started, page.run, page.address], [*views, self.started, page.run], fault
        page.tick = wire(page.tick.then, self.tick, *ticked, js=TICK_JS)
        wire(page.stopped["train"].then, self.tick, *ticked, js=TICK_JS)
        wire(page.continued.then, self.turn_to, [self.watched, page.data], views, fault)
        for tab in page.tabs.children:
            if tab.id == "train":
                wire(tab.select, self.tick, *ticked, js=TICK_JS.replace("location.search", repr(HERE)))
        opened = [*views, fields["model"], fields["from_run"], self.sweep.box]
        wire(fields["from_run"].focus, self.offer_runs, [], [fields["from_run"]], fault, needs="train")
        wire(page.blocks.load, self.open_page, {"kept": self.kept}, opened, js=browser_store.read_js("watched"))
        wire(self.kept.change, None, [self.kept], None, js=browser_store.write_js("watched"))
        redraw(page, self.describe_again, settings, [*described, fault])
        redraw(page, self.show_again, [self.watched], [self.queue, self.view, self.log, fields["from_run"]])
        self._wire_store()

    def _wire_store(self) -> None:
        """The form outlives a reload, in the browser alone."""
        form = {"preset": self.preset, **self.fields}
        parts = list(form.values())
        wire(self.page.blocks.load, None, parts, parts, js=browser_store.read_values_js("train", form))
        changed = partial(gr.on, [part.change for part in parts])
        wire(changed, None, parts, None, js=browser_store.write_values_js("train", form))


def may_show(name: str | None, visitor: rights.Visitor) -> str:
    """The name of a run that this visitor has trained or may see whole; "" where it isn't, was deleted, or can't be read."""
    with contextlib.suppress(UserError):
        if name and is_own(name, visitor) and not runs.named(name).damage():
            return name
    return ""


def pass_on(field: Any, twin: Any) -> None:
    """Let a field's twin follow what the user does with it, and only that, so the two can't chase each other."""
    wire(partial(gr.on, forms.settled(field)), lambda value: {twin: value}, [field], [twin])
