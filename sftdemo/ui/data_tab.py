"""1 Data: choose rows, see at once how they are read and what of them will be learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo import data
from sftdemo.config import DEFAULT_MODEL, ReadConfig
from sftdemo.errors import UserError
from sftdemo.ui import charts, forms, html, work
from sftdemo.ui.forms import wire
from sftdemo.ui.page import EACH_PICK, Page, picked, picker
from sftdemo.ui.texts import label, language, number, say

FIRST_SAMPLE = "support_tickets"
FILE_TYPES = [".jsonl", ".json", ".csv", ".tsv", ".parquet"]
OVERRIDES = ("format", "columns", "instruction", "system")
SHOWN_EXAMPLES = 3
SHOWN_FAULTS = 50
TOKEN_ROWS = 500  # rows whose tokens are counted for the histogram

_tokenizers: dict[str, Any] = {}


def stamp(source: str) -> float:
    """When the source last changed, so that a file saved anew is read anew."""
    path = Path(source)
    return path.stat().st_mtime if source and path.exists() else 0.0


@lru_cache(maxsize=4)
def _read(config: ReadConfig, changed: float) -> Any:
    return data.split(data.read(config), config.seed)


def read(chosen: Mapping[str, Any]) -> Any:
    """The chosen data, read and split; kept, so that looking at it again costs nothing."""
    config = forms.config(ReadConfig, chosen)
    if not config.data:
        raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
    return _read(config, stamp(config.data))


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


def usable(dataset: Any) -> bool:
    return bool(dataset.splits.get("train"))


def verdict(dataset: Any, lang: str) -> str:
    """One line: what was read and whether it can be trained on."""
    n = number(dataset.examples)
    size = say(lang, "verdict_labels", n=n, k=len(dataset.labels)) if dataset.labels else say(lang, "verdict_rows", n=n)
    faults = sum(fault.line > 0 for fault in dataset.faults) or len(dataset.faults)
    if not usable(dataset):
        kind, mark, text = "bad", "✕", say(lang, "verdict_none")
    elif faults:
        kind, mark, text = "warn", "!", say(lang, "verdict_faults", size=size, n=number(faults))
    else:
        kind, mark, text = "", "✓", say(lang, "verdict_ready", size=size)
    notes = []
    sizes = [f"{say(lang, 'split_' + name)} {number(len(rows))}" for name, rows in dataset.splits.items() if rows]
    notes.append(" · ".join(sizes))
    if dataset.duplicates:
        notes.append(say(lang, "data_duplicates", n=number(dataset.duplicates)))
    if dataset.leaked:
        notes.append(say(lang, "data_leaked", n=number(dataset.leaked)))
    notes += [html.esc(note) for note in dataset.notes]
    return html.block(
        f'<div class="verdict {kind}" id="verdict"><span class="mark">{mark}</span><span>{html.esc(text)}</span></div>'
        f'<div class="muted small">{"<br>".join(notes)}</div>'
    )


def mapping(dataset: Any, lang: str) -> str:
    """Which column plays which part, as sentences."""
    parts = [say(lang, "map_format", format=f"<b>{html.esc(dataset.format)}</b>")]
    for role, column in dataset.mapping.items():
        key = f"map_{role}" if f"map_{role}" in ROLE_KEYS else "map_other"
        parts.append(say(lang, key, column=f"<b>{html.esc(column)}</b>", role=html.esc(role)))
    return html.block(" ".join(parts), "muted small")


ROLE_KEYS = {
    f"map_{role}"
    for role in (
        "text",
        "label",
        "source",
        "target",
        "prompt",
        "completion",
        "messages",
        "conversations",
        "instruction",
        "input",
        "output",
        "split",
        "group",
    )
}


def examples(dataset: Any, lang: str) -> str:
    """The first rows as they will be seen by the model."""
    rows: list[Any] = dataset.splits.get("train") or next(iter(dataset.splits.values()), [])
    shown = "".join(html.bubbles(row["messages"]) for row in rows[:SHOWN_EXAMPLES])
    return html.sheet(shown, say(lang, "data_examples")) if shown else ""


def fault_table(faults: Sequence[Any], lang: str) -> str:
    """Line, field, problem and remedy of every faulty row."""
    if not faults:
        return ""
    headers = [say(lang, f"fault_{name}") for name in ("line", "field", "problem", "remedy")]
    rows = [
        (None, [str(fault.line or "–"), html.esc(fault.field), html.esc(fault.problem), html.esc(fault.remedy)], False)
        for fault in faults[:SHOWN_FAULTS]
    ]
    more = (
        f'<p class="muted small">{say(lang, "faults_more", n=number(len(faults) - SHOWN_FAULTS))}</p>'
        if len(faults) > SHOWN_FAULTS
        else ""
    )
    return html.sheet(html.table(headers, rows) + more, say(lang, "data_faults"))


def statistics(dataset: Any, lang: str) -> str:
    """How long the rows are and how the labels are spread; in tokens once the tokenizer has been asked for."""
    rows = [row for split in dataset.splits.values() for row in split][:TOKEN_ROWS]
    tokenizer = _tokenizers.get(DEFAULT_MODEL)
    if tokenizer is not None:
        lengths, title = token_lengths(tokenizer, rows), say(lang, "chart_tokens")
    else:
        lengths = [sum(len(message["content"]) for message in row["messages"]) for row in rows]
        title = say(lang, "chart_characters")
    parts = []
    if lengths:
        middle = sorted(lengths)[len(lengths) // 2]
        note = (
            f'<p class="muted small">{say(lang, "chart_median", median=number(middle), high=number(max(lengths)))}</p>'
        )
        parts.append(html.sheet(charts.histogram(lengths, title) + note, title))
    if dataset.labels:
        parts.append(html.sheet(charts.label_bars(dataset.labels), say(lang, "data_labels")))
    return f'<div class="two">{"".join(parts)}</div>' if len(parts) > 1 else "".join(parts)


def token_lengths(tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The length of every row in tokens, as it is trained on; rows the template refuses are left out."""
    from sftdemo import encoding

    found = []
    for row in rows:
        try:
            found.append(len(encoding.encode(tokenizer, row["messages"]).ids))
        except UserError:
            continue
    return found


def xray(dataset: Any, lang: str) -> str:
    """One row token by token, what is learned in the accent; only with the tokenizer at hand."""
    rows = dataset.splits.get("train") or []
    tokenizer = _tokenizers.get(DEFAULT_MODEL)
    if not rows:
        return ""
    if tokenizer is None:
        return html.block(say(lang, "xray_ask"), "muted small")
    from sftdemo import encoding

    tokens = encoding.xray(tokenizer, rows[0]["messages"])
    learned = sum(token["supervised"] for token in tokens)
    spans = "".join(
        f'<span class="{"sup" if token["supervised"] else ""}" title="{token["id"]}">{html.esc(token["text"]) or "·"}</span>'
        for token in tokens
    )
    note = say(lang, "xray_note", n=number(len(tokens)), k=number(learned))
    return html.sheet(f'<p class="muted small">{note}</p><div class="xray">{spans}</div>', say(lang, "xray_title"))


def warm() -> None:
    """Read the default tokenizer in the background if its files are here; nothing is downloaded."""
    work.load_libraries()
    from sftdemo import hub, models

    if hub.is_here(DEFAULT_MODEL):
        _tokenizers.setdefault(DEFAULT_MODEL, models.tokenizer(DEFAULT_MODEL))


def build(page: Page) -> None:
    """The tab's components and how they are connected."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=280):
            cards = picker(elem_id="samples")
            upload = gr.File(
                label=label("data_upload"), file_types=FILE_TYPES, type="filepath", height=130, elem_id="upload"
            )
            with gr.Accordion(label("data_more"), open=False):
                source = gr.Textbox(
                    "", label=label("data_source"), info=label("data_source_help"), max_lines=1, elem_id="source"
                )
                overrides = [forms.field(ReadConfig, name) for name in OVERRIDES]
                apply = gr.Button(label("data_apply"), elem_id="data-apply")
        with gr.Column(scale=6, min_width=320):
            fault = gr.HTML("", elem_id="data-fault")
            line = gr.HTML("", elem_id="data-verdict")
            go = gr.Button(label("data_go"), variant="primary", elem_classes="main-button", elem_id="to-train")
            how = gr.HTML("")
            faults = gr.HTML("")
            shown = gr.HTML("", elem_id="data-examples")
            ray = gr.HTML("", elem_id="xray")
            tokens = gr.Button(label("xray_button"), size="sm", elem_id="show-tokens")
            figures = gr.HTML("", elem_id="data-statistics")

    views = [line, how, faults, shown, ray, tokens, figures, go, page.data, cards]

    def show(chosen: Mapping[str, Any], lang: str) -> dict[Any, Any]:
        """Read what is chosen and fill the right side; what can't be read leaves the choice before it."""
        dataset = read(chosen)
        good = usable(dataset)
        return {
            page.data: dict(chosen) if good else gr.skip(),
            cards: sample_cards(lang, str(chosen["data"])),
            line: verdict(dataset, lang),
            how: mapping(dataset, lang),
            faults: fault_table(dataset.faults, lang),
            shown: examples(dataset, lang),
            ray: xray(dataset, lang),
            tokens: gr.update(visible=DEFAULT_MODEL not in _tokenizers),
            figures: statistics(dataset, lang),
            go: gr.update(interactive=good),
        }

    def pick(event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        name = picked(event)
        if name not in [sample.name for sample in data.samples()]:
            raise UserError(f"There is no sample {name!r}; reload the page.")
        return show({"data": name}, language(request))

    def take_file(path: str | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        if path:
            lang = language(request)
            yield {line: html.block(say(lang, "data_reading"), "muted")}
            yield show({"data": path}, lang)

    def apply_settings(
        chosen: dict[str, Any], typed: str, form: str, columns: str, instruction: str, system: str, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        lang = language(request)
        settings = dict(zip(OVERRIDES, (form, columns, instruction, system), strict=True))
        yield {line: html.block(say(lang, "data_reading"), "muted")}
        yield show({"data": typed.strip() or chosen.get("data", ""), **settings}, lang)

    def show_tokens(chosen: dict[str, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
        lang, notes = language(request), list[str]()
        yield {ray: html.block(say(lang, "xray_loading"), "muted")}
        work.load_libraries()
        from sftdemo import models

        if DEFAULT_MODEL not in _tokenizers:
            _tokenizers[DEFAULT_MODEL] = models.tokenizer(DEFAULT_MODEL, notes.append)
        dataset = read(chosen)
        yield {ray: xray(dataset, lang), figures: statistics(dataset, lang), tokens: gr.update(visible=False)}

    def open_page(request: gr.Request) -> dict[Any, Any]:
        return show(first_choice(), language(request))

    wire(page.blocks.load, open_page, None, views, fault)
    wire(cards.select, pick, None, views, fault, **EACH_PICK)
    wire(upload.upload, take_file, [upload], views, fault)
    applied = partial(gr.on, [apply.click, source.submit])
    wire(applied, apply_settings, [page.data, source, *overrides], views, fault)
    wire(tokens.click, show_tokens, [page.data], [ray, figures, tokens], fault)
    wire(go.click, lambda: {page.tabs: gr.Tabs(selected="train")}, None, [page.tabs])
