"""1 Data: choose rows, see at once how they are read and what of them will be learned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import data, runs
from sftdemo.config.read import CLEANING, ReadConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Superseded, UserError
from sftdemo.model import download
from sftdemo.ui import chosen_data, row_edits
from sftdemo.ui.access import rights, uploads
from sftdemo.ui.chosen_data import FROM_FILE, PREPARING, chosen_config, description, have_tokenizer, of_file, summarize
from sftdemo.ui.parts import browser_store, forms, html
from sftdemo.ui.parts.address import READY_JS
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import EACH_PICK, Page, picked, picker, tabs_for
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.tabs import data_columns, data_views
from sftdemo.ui.tabs.coming_from import ComingFromOpenAI
from sftdemo.ui.tabs.data_form import (
    CHOICES,
    KEPT,
    READING,
    WORDING,
    chosen_of,
    default_of,
    field_values,
    first_choice,
    is_typed,
    xray,
)
from sftdemo.ui.tabs.rows_view import RowsView
from sftdemo.ui.texts import TEXTS, label, language, say
from sftdemo.ui.texts.faults import in_words

LIVE_ROWS = 5000  # up to here every key typed into the instruction is worked on


class DataTab:
    """On the left the choice of data and how it is read, on the right what comes of it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        # What is looked at, which may not be fit to be trained on: {"data", "columns", "edits", "layout", "mapping"}, and
        # "read", all settings that it was read with
        self.looked = gr.State({})
        page.unready = gr.State("")
        self.kept = gr.Textbox("", visible="hidden", label=label("step_data"))  # what the browser keeps of it
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=4, min_width=280):
                self._build_sources()
                self._build_columns()
                self._build_choices()
            with gr.Column(scale=6, min_width=320):
                self._build_views()
                self._build_xray()
        self.rows = RowsView(page, self.edit)
        self.settings = {"format": self.form, **self.reading, **self.wording, "clean": self.steps, **self.choices}

    def _build_sources(self) -> None:
        # Of any type: the reader tells what it can't read, and on the page.
        self.upload = gr.File(label=label("data_upload"), type="filepath", height=130, elem_id="upload")
        self.chosen_name = gr.HTML("", elem_id="chosen-data")
        self.from_openai = ComingFromOpenAI()
        self.cards = picker(elem_id="samples")
        with gr.Accordion(label("data_more"), open=False) as self.elsewhere:
            self.source = gr.Textbox(
                "", label=label("data_source"), info=label("data_source_help"), max_lines=1, elem_id="source"
            )

    def _build_columns(self) -> None:
        with gr.Accordion(label("data_columns"), open=False, elem_id="data-columns") as self.columns_box:
            self.form = forms.field(ReadConfig, "format")
            with gr.Row():
                self.reading = {name: forms.field(ReadConfig, name, min_width=130) for name in READING}
            with gr.Row():
                self.menus = {
                    role: gr.Dropdown(
                        [], label=label(f"role_{role}"), visible=False, min_width=170, elem_id=f"role-{role}"
                    )
                    for role in data_columns.EVERY_ROLE
                }
            self.wording = {name: forms.field(ReadConfig, name, lines=2, max_lines=6) for name in WORDING}
            self.placeholders = gr.HTML("", elem_id="placeholders")

    def _build_choices(self) -> None:
        with gr.Accordion(label("data_choices"), open=False, elem_id="data-choices"):
            steps = [(label(f"clean_{step}"), step) for step in CLEANING]
            self.steps = gr.CheckboxGroup(steps, label=label("set_clean"), elem_id="clean")
            with gr.Row():
                self.choices = {name: forms.field(ReadConfig, name, min_width=170) for name in CHOICES}

    def _build_views(self) -> None:
        self.fault = gr.HTML("", elem_id="data-fault")
        self.verdict = gr.HTML("", elem_id="data-verdict")
        self.to_train = gr.Button(label("data_go"), variant="primary", elem_classes="main-button", elem_id="to-train")
        self._build_remedies()
        self._build_pair()
        self.mapping = gr.HTML("")
        self.faults = gr.HTML("", elem_id="data-faults")
        self.cleaning = gr.HTML("", elem_id="data-cleaning")
        self.examples = gr.HTML("", elem_id="data-examples")
        self.statistics = gr.HTML("", elem_id="data-statistics")

    def _build_remedies(self) -> None:
        """One click for each thing that keeps data from being trained on, or from telling anything."""
        with gr.Row(elem_id="data-remedies"):
            self.repair = gr.Button(label("data_repair"), visible=False, elem_id="repair-rows")
            self.leave_out = gr.Button(label("data_leave_out"), visible=False, elem_id="leave-out-rows")
            self.edit = gr.Button(label("rows_open"), visible=False, elem_id="edit-rows")
        self.few = gr.HTML("", elem_id="data-few")
        self.hold_out = gr.Button(label("data_hold_out"), visible=False, elem_id="hold-out")

    def _build_pair(self) -> None:
        with gr.Row(elem_id="data-pair"):
            options: dict[str, Any] = {"visible": False, "min_width": 150}
            self.prompt = gr.Dropdown([], label=label("column_prompt"), elem_id="prompt-column", **options)
            self.answer = gr.Dropdown([], label=label("column_answer"), elem_id="answer-column", **options)
        self.confirm = gr.Button(label("column_confirm"), visible=False, variant="primary", elem_id="confirm-columns")
        self.preview = gr.HTML("", elem_id="data-preview")

    def _build_xray(self) -> None:
        preparing = self.page.preparing
        with gr.Row():
            row = {"label": label("xray_row"), "info": label("xray_row_help"), "precision": 0, "min_width": 120}
            self.row = gr.Number(1, elem_id="xray-row", **row)
            preparing["model"] = forms.field(TrainConfig, "model", min_width=240, scale=3, elem_id="data-model")
        with gr.Accordion(label("xray_settings"), open=False, elem_id="xray-settings"), gr.Row():
            for name in PREPARING[1:]:
                preparing[name] = forms.field(TrainConfig, name, min_width=140, elem_id=f"data-{name}")
        self.show_tokens = gr.Button(label("xray_button"), size="sm", elem_id="show-tokens")
        self.checks = gr.HTML("", elem_id="template-checks")
        self.xray = gr.HTML("", elem_id="xray")

    # What is shown

    def show(self, chosen: Mapping[str, Any], row: int, lang: str, fresh: bool = False) -> Iterator[dict[Any, Any]]:
        """Read what is chosen and fill the right side, without tokens first; `fresh` sets the form back.

        What can't be read or trained on leaves the choice before it to the other tabs.
        """
        chosen_data.choose(chosen_config(chosen))
        yield from self.draw(chosen, row, lang, fresh)

    def draw(self, chosen: Mapping[str, Any], row: int, lang: str, fresh: bool = False) -> Iterator[dict[Any, Any]]:
        """As `show`, while other data that the page is reading goes on being read."""
        config = chosen_config(chosen)
        dataset, summary = chosen_data.dataset(of_file(config)), description(of_file(config))
        good = summary["split_sizes"] is not None
        rows = [example for rows in dataset.splits.values() for example in rows[: data_views.SHOWN_EXAMPLES]]
        layout = data_columns.layout_of(summary, config.format)
        looked: dict[str, Any] = {"data": config.data, "columns": config.columns or "", "edits": config.edits or ""}
        looked |= {"layout": layout, "read": of_file(config).to_json()}
        looked |= {"mapping": summary["mapping"], "suggested": summary["suggested"]}
        looked |= {"labels": list(dataset.preview.labels) if dataset.preview else []}
        yield {
            self.kept: json.dumps(dict(chosen)),
            self.page.data: {name: value for name, value in chosen.items() if name in FROM_FILE} if good else gr.skip(),
            self.page.unready: "" if good else runs.source_name(config.data),
            self.looked: looked,
            self.cards: data_views.sample_cards(lang, config.data),
            self.chosen_name: data_views.chosen_name(config.data, lang),
            self.verdict: data_views.verdict(summary, lang, dataset.repairable > 0),
            self.mapping: data_views.mapping(summary, lang),
            **self.show_pair(summary, dataset, lang),
            **self.show_remedies(summary, dataset.repairable if config.on_fault == "stop" else 0, config, lang),
            **self.rows.show(config, lang),
            self.cleaning: data_views.cleaning(summary, lang),
            self.examples: data_views.examples(rows, lang),
            **self.update_form(summary, layout, config, lang, fresh),
            **self.without_tokens(summary, lang),
        }
        yield self.with_tokens(config, row, lang)

    def show_pair(self, summary: Mapping[str, Any], dataset: data.Dataset, lang: str) -> dict[Any, Any]:
        """The first rows, and the menus of prompt and answer above them."""
        preview = dataset.preview
        pair = data_columns.chosen_pair(summary, preview)
        unknown, ready = summary["format"] == "unknown", summary["split_sizes"] is not None
        menus: dict[Any, Any] = dict.fromkeys((self.prompt, self.answer), gr.update(visible=False))
        if preview and pair:
            choices = data_columns.choices(summary, preview, pair, lang)
            for menu, column in zip(menus, pair, strict=True):
                menus[menu] = gr.update(visible=True, choices=choices, value=column)
        return {
            **menus,
            self.confirm: gr.update(visible=bool(pair) and unknown),
            self.to_train: gr.update(value=say(lang, "data_go"), interactive=ready, visible=not (pair and unknown)),
            self.preview: data_columns.table(preview, pair, lang),
        }

    def show_remedies(self, summary: Mapping[str, Any], flaws: int, config: TrainConfig, lang: str) -> dict[Any, Any]:
        open_faults = any(fault["line"] for fault in summary["faults"])
        leaves = open_faults and summary["examples"] > 0
        few, mends = data_views.few_test_rows(summary, config.test_size, lang)
        return {
            self.repair: gr.update(visible=flaws > 0, variant="primary" if open_faults else "secondary"),
            self.leave_out: gr.update(visible=leaves, variant="secondary" if flaws else "primary"),
            self.few: few,
            self.hold_out: gr.update(visible=mends),
        }

    def update_form(
        self, summary: Mapping[str, Any], layout: str, config: TrainConfig, lang: str, fresh: bool
    ) -> dict[Any, Any]:
        """Menus and placeholders for the data's columns; the settings only if set back."""
        unset = {field: default_of(name) for name, field in self.settings.items()} | {self.row: 1}
        names = ", ".join(f"{{{column}}}" for column in summary["columns"])
        placeholders = html.esc(say(lang, "data_placeholders", names=names))
        empty = {"value": ""} if fresh else {}
        return {
            self.placeholders: html.block(placeholders, "muted small") if names else "",
            **(unset if fresh else {}),
            **{menu: data_columns.menu_of(role, layout, summary, config) for role, menu in self.menus.items()},
            self.wording["instruction"]: gr.update(placeholder=summary["instruction"], **empty),
        }

    def without_tokens(self, summary: Mapping[str, Any], lang: str) -> dict[Any, Any]:
        return {self.faults: data_views.fault_lists(summary, lang), self.statistics: data_views.pictures(summary, lang)}

    def with_tokens(self, config: TrainConfig, row: int, lang: str) -> dict[Any, Any]:
        """What needs the model's tokenizer, if it is at hand; nothing is downloaded."""
        at_hand = have_tokenizer(config.model, fetch=False)
        summary = summarize(config)
        return {
            **(self.without_tokens(summary, lang) if at_hand else {}),
            self.checks: data_views.checks(summary, lang),
            self.xray: xray(config, row, lang),
            self.show_tokens: gr.update(visible=not at_hand),
        }

    # Handlers

    def open_page(self, request: gr.Request, kept: str | None = None) -> Iterator[dict[Any, Any]]:
        """What the browser kept of this page before it was loaded again, else the first sample."""
        visitor, lang = rights.visitor(request), language(request)
        if not tabs_for(visitor)["data"]:
            yield {self.page.data: {}}
            return
        yield {
            self.upload: gr.update(visible=visitor.may("own_data")),
            self.elsewhere: gr.update(visible=visitor.owner),
            self.page.preparing["model"]: gr.update(interactive=visitor.owner),
        }
        if chosen := browser_store.values(kept, KEPT):
            try:
                yield from self.restore(chosen, request)
                return
            except Superseded:
                raise
            except UserError as error:
                gone = html.fault_in({lang: say(lang, "data_gone", reason=in_words(error, lang)) for lang in TEXTS})
        for update in self.show(first_choice(lang), 1, lang):
            yield {**update, **({self.fault: gone} if chosen else {})}

    def restore(self, chosen: Mapping[str, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Data and settings as they were chosen before; UserError where they can't be read any more."""
        uploads.read_by(str(chosen.get("data")), rights.visitor(request), str(request.session_hash))
        form = {**self.settings, **self.page.preparing}
        values = {form[name]: value for name, value in field_values(chosen).items() if name in form}
        asked = self.wording["instruction"]
        for number, update in enumerate(self.show(chosen, 1, language(request))):
            # The fields once; the instruction keeps the placeholder that the data give it.
            placeholder = {asked: {**update[asked], "value": values.get(asked, "")}} if not number else {}
            yield {**update, **({} if number else values), **placeholder}

    def pick_sample(self, event: gr.EventData, request: gr.Request, **preparing: Any) -> Iterator[dict[Any, Any]]:
        name = picked(event)
        if name not in [sample.name for sample in data.samples()]:
            raise UserError("There is no sample {name!r}; reload the page.", name=name)
        yield from self.choose(name, request, preparing)

    def take_source(self, request: gr.Request, path: str | None, **preparing: Any) -> Iterator[dict[Any, Any]]:
        """A file was uploaded, or another source typed."""
        if path:
            uploads.read_by(path, rights.visitor(request), str(request.session_hash))
            reading = html.block(say(language(request), "data_reading"), "muted")
            yield {self.fault: reading}  # where a fault takes its place
            yield from self.choose(path, request, preparing)

    def choose(self, name: str, request: gr.Request, preparing: Mapping[str, Any]) -> Iterator[dict[Any, Any]]:
        """Other data: what was set for the data before it doesn't count; of an upload its edits do."""
        chosen = {"data": name, "edits": row_edits.kept(name, rights.visitor(request)), **preparing}
        yield from self.show(chosen, 1, language(request), fresh=True)

    def apply(self, request: gr.Request, looked: Any, row: Any, **settings: Any) -> Iterator[dict[Any, Any]]:
        """The settings changed, and the data is read again with them."""
        yield from self.show(chosen_of(looked, settings), int(row or 1), language(request))

    def draw_again(self, request: gr.Request, looked: Any, row: Any, **preparing: Any) -> Iterator[dict[Any, Any]]:
        """What was read last, whatever stands in the form by now; where no row can be prepared like that, without tokens."""
        lang, read = language(request), looked.get("read") or {}
        yield next(self.draw(read, 1, lang))
        yield from self.draw({**read, **preparing}, int(row or 1), lang)

    def apply_wording(self, request: gr.Request, looked: Any, row: Any, **settings: Any) -> Iterator[dict[Any, Any]]:
        """As `apply`, while it is still being typed: what isn't whole yet is said without a toast."""
        name = looked.get("data", "")
        try:
            if name and is_typed(settings, looked) and description(ReadConfig(data=name))["examples"] <= LIVE_ROWS:
                yield from self.apply(request, looked, row, **settings)
        except UserError as error:
            yield {self.fault: forms.fault(error)}

    def map_columns(self, request: gr.Request, looked: Any, row: Any, **values: Any) -> Iterator[dict[Any, Any]]:
        """A menu changed: the column plays another role."""
        menus = {role: values.pop(f"role_{role}") for role in data_columns.EVERY_ROLE}
        pairs = data_columns.columns(looked.get("layout", ""), menus, looked.get("mapping", {}))
        yield from self.show(chosen_of({**looked, "columns": pairs}, values), int(row or 1), language(request))

    def pick_pair(
        self, request: gr.Request, looked: Any, row: Any, prompt: Any, answer: Any, **settings: Any
    ) -> Iterator[dict[Any, Any]]:
        """The columns of prompt and answer were confirmed, or one of them changed."""
        pairs = data_columns.setting(prompt, answer, looked)
        chosen = chosen_of({**looked, "columns": pairs}, {**settings, "format": "auto"})
        for update in self.show(chosen, int(row or 1), language(request)):
            yield {self.form: "auto", **update}

    def repair_rows(self, request: gr.Request, looked: Any, row: Any, **settings: Any) -> Iterator[dict[Any, Any]]:
        yield from self._set(request, looked, row, {**settings, "on_fault": "fix"}, "on_fault")

    def leave_rows_out(self, request: gr.Request, looked: Any, row: Any, **settings: Any) -> Iterator[dict[Any, Any]]:
        yield from self._set(request, looked, row, {**settings, "on_fault": "drop"}, "on_fault")

    def hold_more_out(self, request: gr.Request, looked: Any, row: Any, **settings: Any) -> Iterator[dict[Any, Any]]:
        yield from self._set(request, looked, row, {**settings, "test_size": str(data_views.HELD_OUT)}, "test_size")

    def _set(
        self, request: gr.Request, looked: Any, row: Any, settings: dict[str, Any], name: str
    ) -> Iterator[dict[Any, Any]]:
        """A button set one of the choices."""
        for update in self.show(chosen_of(looked, settings), int(row or 1), language(request)):
            yield {self.choices[name]: settings[name], **update}

    def look_at_row(self, request: gr.Request, looked: Any, row: Any, **settings: Any) -> dict[Any, Any]:
        """Another row, model or limit."""
        download.check_exists(forms.config(TrainConfig, {"model": settings["model"]}).model)
        return self.with_tokens(chosen_config(chosen_of(looked, settings)), int(row or 1), language(request))

    def fetch_tokenizer(self, request: gr.Request, looked: Any, row: Any, **settings: Any) -> Iterator[dict[Any, Any]]:
        yield {self.xray: html.block(say(language(request), "xray_loading"), "muted")}
        have_tokenizer(forms.config(TrainConfig, {"model": settings["model"]}).model)
        yield self.look_at_row(request, looked, row, **settings)

    def wire(self) -> None:
        page = self.page
        self.from_openai.wire(page)
        fault, preparing = self.fault, page.preparing
        menus = {f"role_{role}": menu for role, menu in self.menus.items()}
        form = {"looked": self.looked, "row": self.row, **preparing, **self.settings}
        views = [self.verdict, self.mapping, self.faults, self.cleaning, self.examples, self.statistics, self.checks]
        views += [self.repair, self.leave_out, self.few, self.hold_out, self.preview]
        views += [self.prompt, self.answer, self.confirm, page.unready]
        views += [self.xray, self.show_tokens, self.to_train, self.columns_box, self.placeholders]
        views += [*self.rows.views, page.data, self.looked, self.kept, self.chosen_name, self.cards, self.row]
        views += [*self.settings.values(), *self.menus.values()]
        fields = [self.upload, self.elsewhere, *preparing.values()]
        kept, read = {"kept": self.kept}, browser_store.read_js("data")
        opened = wire(page.blocks.load, self.open_page, kept, [*fields, *views], fault, js=read)
        wire(self.kept.change, None, [self.kept], None, js=browser_store.write_js("data"))
        wire(opened.then, None, None, None, js=READY_JS)
        wire(self.cards.select, self.pick_sample, preparing, views, fault, **EACH_PICK)
        uploaded, typed_source = {"path": self.upload, **preparing}, {"path": self.source, **preparing}
        page.blocks.unload(rights.guarded(uploads.leave, "look"))
        wire(self.upload.upload, self.take_source, uploaded, views, fault, needs="own_data")
        wire(self.source.submit, self.take_source, typed_source, views, fault, needs="manage")
        # The menus only where one was picked: right after other data they may still hold a column that is gone.
        remapped = partial(gr.on, [menu.input for menu in menus.values()])
        wire(remapped, self.map_columns, {**form, **menus}, views, fault)
        pair = {**form, "prompt": self.prompt, "answer": self.answer}
        picked_pair = partial(gr.on, [self.confirm.click, self.prompt.input, self.answer.input])
        wire(picked_pair, self.pick_pair, pair, views, fault)
        wire(self.repair.click, self.repair_rows, form, views, fault)
        wire(self.leave_out.click, self.leave_rows_out, form, views, fault)
        held_out = wire(self.hold_out.click, self.hold_more_out, form, views, fault)
        page.opens(held_out.success, "train")
        settled = forms.settled_any(self.form, self.steps, *self.reading.values(), *self.choices.values())
        wire(settled, self.apply, form, views, fault)
        wire(partial(gr.on, [each.change for each in self.wording.values()]), self.apply_wording, form, views, fault)
        wire(forms.settled_any(self.row, *preparing.values()), self.look_at_row, form, views, fault)
        wire(self.show_tokens.click, self.fetch_tokenizer, form, views, fault)
        self.views = views
        self.rows.wire(
            form, views, lambda looked, settings, *rest: self.show(chosen_of(looked, settings), *rest), fault, opened
        )
        listed = {*self.rows.listed, *self.rows.panel, self.rows.files}  # under filters, and with a row open
        prepared = {"looked": self.looked, "row": self.row, **preparing}
        redraw(page, self.draw_again, prepared, [part for part in views if part not in listed])
        page.continued = page.opens(self.to_train.click, "train")
        self.read_again = partial(wire, handler=self.apply, inputs=form, outputs=views, place=fault)
