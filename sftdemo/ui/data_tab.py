"""1 Data: choose rows, see at once how they are read and what of them will be learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo import data, hub, inspection
from sftdemo.config import CLEANING, DEFAULT_MODEL, ReadConfig, TrainConfig
from sftdemo.data.layouts import COMMON, LAYOUTS, parse_columns, write_columns
from sftdemo.data.sources import READABLE
from sftdemo.errors import UserError
from sftdemo.log import to_log
from sftdemo.ui import data_views, forms, html, work
from sftdemo.ui.forms import wire
from sftdemo.ui.page import EACH_PICK, Page, picked, picker
from sftdemo.ui.text_faults import in_words
from sftdemo.ui.texts import label, language, number, say

FIRST_SAMPLE = "support_tickets"
TOKEN_ROWS = 500  # rows whose tokens are counted for the page; `check` counts more
LIVE_ROWS = 5000  # up to here every key typed into the instruction is worked on
WORDING = ("instruction", "system")
READING = ("encoding", "header", "sheet")
CHOICES = ("on_fault", "balance", "min_characters", "max_characters", "validation_size", "test_size")
PREPARING = ("model", "max_length", "on_long", "chunk_overlap")
ROLES = {layout.name: [*layout.roles, *layout.optional, *COMMON] for layout in LAYOUTS}
EVERY_ROLE = list(dict.fromkeys(sorted((role for roles in ROLES.values() for role in roles), key=COMMON.__contains__)))
FROM_FILE = {spec.name for spec in fields(ReadConfig)}

_tokenizers: dict[str, Any] = {}


def stamp(source: str) -> float:
    """When the source last changed, so that a file saved anew is read anew."""
    path = Path(source)
    return path.stat().st_mtime if source and path.exists() else 0.0


@lru_cache(maxsize=4)
def _read(config: ReadConfig, changed: float) -> Any:
    return data.read(config)


@lru_cache(maxsize=2)
def _prepared(config: ReadConfig, changed: float) -> Any:
    return data.prepare(config, dataset=_read(config, changed))


@lru_cache(maxsize=4)
def _told(config: ReadConfig, changed: float) -> dict[str, Any]:
    dataset = _read(config, changed)
    return inspection.describe(dataset) | data.outlook(config, dataset)


@lru_cache(maxsize=8)
def _measured(config: TrainConfig, changed: float) -> dict[str, Any]:
    return inspection.measure(_read(of_file(config), changed), _tokenizers[config.model], config, TOKEN_ROWS)


def of_file(config: ReadConfig) -> ReadConfig:
    """The settings that decide how data is read, without those of the training."""
    return ReadConfig(**{name: getattr(config, name) for name in sorted(FROM_FILE)})


def chosen_config(chosen: Mapping[str, Any]) -> TrainConfig:
    config: TrainConfig = forms.config(TrainConfig, chosen)
    if not config.data:
        raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
    return config


def read(chosen: Mapping[str, Any]) -> Any:
    """The chosen data as training sees it; where it can't be trained on, as it was read."""
    config = of_file(chosen_config(chosen))
    changed = stamp(config.data)
    return (_prepared if _told(config, changed)["split_sizes"] else _read)(config, changed)


def tell(config: TrainConfig) -> dict[str, Any]:
    """What `check --json` says of the chosen data; of tokens too, once the model's tokenizer is at hand."""
    told = dict(_told(of_file(config), stamp(config.data)))
    if config.model in _tokenizers and told["examples"]:
        measured = dict(_measured(config, stamp(config.data)))
        for kind, faults in measured.pop("told").items():
            told[kind] = [*told[kind], *faults]
        told |= measured
    return told


def first_choice() -> dict[str, Any]:
    """What is chosen when the page opens."""
    names = [sample.name for sample in data.samples()]
    return {"data": FIRST_SAMPLE if FIRST_SAMPLE in names else (names or [""])[0]}


def sample_cards(lang: str, chosen: str) -> str:
    """The sample sets, each with its task, size, language and one example."""
    cards = []
    for sample in sorted(data.samples(), key=lambda sample: sample.name != FIRST_SAMPLE):
        title = sample.title_zh if lang == "zh" else sample.title
        tags = [say(lang, f"task_{sample.task}"), sample.language]
        if sample.rows:
            tags.insert(1, say(lang, "rows_n", n=number(sample.rows)))
        example = ""
        if sample.example:
            told = [message["content"] for message in sample.example["messages"] if message["role"] != "system"]
            example = f'<div class="eg">{html.esc(html.cut(last_paragraph(told[0]), 70))} → {html.esc(html.cut(told[-1], 50))}</div>'
        content = f'<div class="title">{html.esc(title)}</div><div class="tags">{"".join(html.chip(tag) for tag in tags)}</div>{example}'
        cards.append(html.card(sample.name, content, sample.name == chosen))
    return html.block(f'<div class="cards">{"".join(cards)}</div>')


def last_paragraph(text: str) -> str:
    """What is particular to a row: the instruction, which all rows share, stands before it."""
    return text.strip().rsplit("\n\n", 1)[-1]


def layout_of(told: Mapping[str, Any], asked: str) -> str:
    """The layout whose roles have menus: the one that was found, or asked for."""
    return told["format"] if told["format"] in ROLES else asked


def columns(layout: str, menus: Mapping[str, str | None], mapping: Mapping[str, str]) -> str:
    """The setting `columns` that the menus describe; "" where they say what was found without it."""
    named = {role: column for role in ROLES.get(layout, []) if (column := menus.get(role))}
    return write_columns(named) if named and named != dict(mapping) else ""


def have_tokenizer(model: str, report: hub.Report = to_log, fetch: bool = True) -> bool:
    """Get the model's tokenizer, from the network only if `fetch`; whether it is at hand then."""
    if model not in _tokenizers and (fetch or hub.is_here(model)):
        work.load_libraries()
        from sftdemo import encoding

        _tokenizers[model] = encoding.tokenizer(model, report)
    return model in _tokenizers


def xray(config: TrainConfig, row: int, lang: str) -> str:
    """The tokens of a row as they are trained on; only with the tokenizer at hand."""
    if config.model not in _tokenizers:
        return html.block(say(lang, "xray_ask"), "muted small")
    from sftdemo.xray import xray

    dataset = _read(of_file(config), stamp(config.data))
    if not dataset.examples:
        return ""
    try:
        return data_views.xray(xray(dataset, row, _tokenizers[config.model], config), row, lang)
    except UserError as error:
        return html.fault(in_words(str(error), lang))


def warm() -> None:
    """Read the default tokenizer in the background if its files are here; nothing is downloaded."""
    work.load_libraries()
    have_tokenizer(DEFAULT_MODEL, fetch=False)


def build(page: Page) -> None:
    """The tab's components and how they are connected."""
    looked = gr.State({})  # the data looked at, which may not be fit to be trained on
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=280):
            cards = picker(elem_id="samples")
            upload = gr.File(
                label=label("data_upload"), file_types=list(READABLE), type="filepath", height=130, elem_id="upload"
            )
            with gr.Accordion(label("data_more"), open=False):
                source = gr.Textbox(
                    "", label=label("data_source"), info=label("data_source_help"), max_lines=1, elem_id="source"
                )
            with gr.Accordion(label("data_columns"), open=False, elem_id="data-columns") as box:
                form = forms.field(ReadConfig, "format")
                with gr.Row():
                    reading = {name: forms.field(ReadConfig, name, min_width=130) for name in READING}
                with gr.Row():
                    menus = {
                        role: gr.Dropdown(
                            [], label=label(f"role_{role}"), visible=False, min_width=170, elem_id=f"role-{role}"
                        )
                        for role in EVERY_ROLE
                    }
                wording = {name: forms.field(ReadConfig, name, lines=2, max_lines=6) for name in WORDING}
                places = gr.HTML("", elem_id="placeholders")
            with gr.Accordion(label("data_choices"), open=False, elem_id="data-choices"):
                steps = gr.CheckboxGroup(
                    [(label(f"clean_{step}"), step) for step in CLEANING], label=label("set_clean"), elem_id="clean"
                )
                with gr.Row():
                    choices = {name: forms.field(ReadConfig, name, min_width=170) for name in CHOICES}
        with gr.Column(scale=6, min_width=320):
            fault = gr.HTML("", elem_id="data-fault")
            line = gr.HTML("", elem_id="data-verdict")
            go = gr.Button(label("data_go"), variant="primary", elem_classes="main-button", elem_id="to-train")
            how = gr.HTML("")
            faults = gr.HTML("", elem_id="data-faults")
            cleaned = gr.HTML("", elem_id="data-cleaning")
            shown = gr.HTML("", elem_id="data-examples")
            figures = gr.HTML("", elem_id="data-statistics")
            with gr.Row():
                row = gr.Number(
                    1,
                    label=label("xray_row"),
                    info=label("xray_row_help"),
                    precision=0,
                    min_width=120,
                    elem_id="xray-row",
                )
                page.preparing = {
                    "model": forms.field(TrainConfig, "model", min_width=240, scale=3, elem_id="data-model")
                }
            with gr.Accordion(label("xray_settings"), open=False, elem_id="xray-settings"), gr.Row():
                for name in PREPARING[1:]:
                    page.preparing[name] = forms.field(TrainConfig, name, min_width=140, elem_id=f"data-{name}")
            tokens = gr.Button(label("xray_button"), size="sm", elem_id="show-tokens")
            sound = gr.HTML("", elem_id="template-checks")
            ray = gr.HTML("", elem_id="xray")

    settings = {"format": form, **reading, **wording, "clean": steps, **choices}
    views = [line, how, faults, cleaned, shown, figures, sound, ray, tokens, go, box, places, page.data, looked, cards]
    # The menus only where one was picked: right after other data they may still hold a column that is gone.
    everything = [looked, row, *page.preparing.values(), *settings.values()]
    touched = [*views, row, *settings.values(), *menus.values()]

    def given(values: tuple[Any, ...]) -> tuple[dict[str, Any], int, dict[str, Any], dict[str, Any]]:
        """(data and columns looked at, row, settings, the menus' columns if given) from the values of `everything`."""
        before, number_of_row, *rest = values
        names = [*PREPARING, *settings]
        made = dict(zip(names, rest, strict=False))
        made["clean"] = ",".join(made["clean"] or ())
        return before, int(number_of_row or 1), made, dict(zip(EVERY_ROLE, rest[len(names) :], strict=False))

    def show(chosen: Mapping[str, Any], at: int, lang: str, fresh: bool = False) -> Iterator[dict[Any, Any]]:
        """Read what is chosen and fill the right side, without tokens first; `fresh` sets the form back.

        What can't be read or trained on leaves the choice before it to the other tabs.
        """
        config = chosen_config(chosen)
        dataset, told = _read(of_file(config), stamp(config.data)), _told(of_file(config), stamp(config.data))
        good = told["split_sizes"] is not None
        rows = [example for rows in dataset.splits.values() for example in rows[: data_views.SHOWN_EXAMPLES]]
        layout = layout_of(told, config.format)
        named = ", ".join(f"{{{column}}}" for column in told["columns"])
        yield {
            page.data: {name: value for name, value in chosen.items() if name in FROM_FILE} if good else gr.skip(),
            looked: {"data": config.data, "columns": config.columns or "", "told": layout, "mapping": told["mapping"]},
            cards: sample_cards(lang, config.data),
            line: data_views.verdict(told, lang),
            how: data_views.mapping(told, lang),
            cleaned: data_views.cleaning(told, lang),
            shown: data_views.examples(rows, lang),
            go: gr.update(interactive=good),
            box: gr.skip() if told["examples"] else gr.update(open=True),
            places: html.block(html.esc(say(lang, "data_placeholders", names=named)), "muted small") if named else "",
            **({setting: unset(name) for name, setting in settings.items()} | {row: 1} if fresh else {}),
            **{menu: of_menu(role, layout, told, config) for role, menu in menus.items()},
            wording["instruction"]: gr.update(placeholder=told["instruction"], **({"value": ""} if fresh else {})),
            **without_tokens(told, lang),
        }
        yield with_tokens(config, at, lang)

    def unset(name: str) -> Any:
        return [] if name == "clean" else ReadConfig.__dataclass_fields__[name].default or ""

    def of_menu(role: str, layout: str, told: Mapping[str, Any], config: ReadConfig) -> Any:
        if role not in ROLES.get(layout, ()) or not told["columns"]:
            return gr.update(visible=False, value=None)
        column = told["mapping"].get(role) or parse_columns(config.columns).get(role)
        # Where nothing is known yet, what the user may just have picked is left alone.
        known = {"value": column} if column or told["mapping"] else {}
        return gr.update(visible=True, choices=told["columns"], **known)

    def without_tokens(told: Mapping[str, Any], lang: str) -> dict[Any, Any]:
        return {faults: data_views.fault_lists(told, lang), figures: data_views.pictures(told, lang)}

    def with_tokens(config: TrainConfig, at: int, lang: str, report: hub.Report = to_log) -> dict[Any, Any]:
        have = have_tokenizer(config.model, report, fetch=False)
        told = tell(config)
        return {
            **(without_tokens(told, lang) if have else {}),
            sound: data_views.checks(told, lang),
            ray: xray(config, at, lang),
            tokens: gr.update(visible=not have),
        }

    def pick(event: gr.EventData, request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        name = picked(event)
        if name not in [sample.name for sample in data.samples()]:
            raise UserError(f"There is no sample {name!r}; reload the page.")
        yield from fresh(name, values, request)

    def fresh(name: str, values: tuple[Any, ...], request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Other data: what was set for the data before it doesn't count."""
        yield from show({"data": name, **dict(zip(PREPARING, values, strict=True))}, 1, language(request), fresh=True)

    def take_file(request: gr.Request, path: str | None, *values: Any) -> Iterator[dict[Any, Any]]:
        if path:
            yield {line: html.block(say(language(request), "data_reading"), "muted")}
            yield from fresh(path, values, request)

    def apply(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """The settings changed, and the data is read again with them."""
        before, at, made, _ = given(values)
        yield from show(
            {"data": before.get("data", ""), "columns": before.get("columns", ""), **made}, at, language(request)
        )

    def typed(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """As `apply`, while it is still being typed: what isn't whole yet is said without a toast."""
        before, *_ = given(values)
        name = before.get("data", "")
        try:
            if name and _told(ReadConfig(data=name), stamp(name))["examples"] <= LIVE_ROWS:
                yield from apply(request, *values)
        except UserError as error:
            yield {fault: html.fault(str(error))}

    def remap(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """A menu changed: the column plays another role."""
        before, at, made, chosen = given(values)
        named = columns(before.get("told", ""), chosen, before.get("mapping", {}))
        yield from show({"data": before.get("data", ""), "columns": named, **made}, at, language(request))

    def look(request: gr.Request, *values: Any) -> dict[Any, Any]:
        """Another row, model or limit."""
        before, at, made, _ = given(values)
        config = chosen_config({"data": before.get("data", ""), "columns": before.get("columns", ""), **made})
        return with_tokens(config, at, language(request))

    def show_tokens(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        yield {ray: html.block(say(language(request), "xray_loading"), "muted")}
        _, _, made, _ = given(values)
        have_tokenizer(forms.config(TrainConfig, {"model": made["model"]}).model)
        yield look(request, *values)

    def open_page(request: gr.Request) -> Iterator[dict[Any, Any]]:
        yield from show(first_choice(), 1, language(request))

    preparing = list(page.preparing.values())
    wire(page.blocks.load, open_page, None, touched, fault)
    wire(cards.select, pick, preparing, touched, fault, **EACH_PICK)
    wire(upload.upload, take_file, [upload, *preparing], touched, fault)
    wire(source.submit, take_file, [source, *preparing], touched, fault)
    wire(partial(gr.on, [menu.input for menu in menus.values()]), remap, [*everything, *menus.values()], touched, fault)
    changes = [event for field in (form, steps, *reading.values(), *choices.values()) for event in forms.settled(field)]
    wire(partial(gr.on, changes), apply, everything, touched, fault)
    wire(partial(gr.on, [field.change for field in wording.values()]), typed, everything, touched, fault)
    looks = [event for field in (row, *preparing) for event in forms.settled(field)]
    wire(partial(gr.on, looks), look, everything, touched, fault)
    wire(tokens.click, show_tokens, everything, touched, fault)
    wire(go.click, lambda: {page.tabs: gr.Tabs(selected="train")}, None, [page.tabs])
