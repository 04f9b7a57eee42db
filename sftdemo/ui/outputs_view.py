"""The answers behind the scores: how many got better, every row of them, one row in full, and why it was answered so."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from sftdemo import files, outputs, runs
from sftdemo.errors import UserError
from sftdemo.outputs import OutputsPage, Row
from sftdemo.ui import html, work
from sftdemo.ui.data_tab import last_paragraph
from sftdemo.ui.forms import wire
from sftdemo.ui.page import EACH_PICK, Page, find_ready, picked, picker
from sftdemo.ui.texts import label, language, number, say

SIDES = ("base", "tuned")


@functools.lru_cache(maxsize=4)
def _judged(run: runs.Run, name: str, version: tuple[int, int, int], metric: str) -> tuple[list[Row], tuple[str, ...]]:
    rows = run.outputs(name)
    known = outputs.metrics_for(rows)
    return outputs.judged(rows, metric if metric in known else known[0], run.scores(name).get("labels")), known


def load(run: runs.Run, name: str, metric: str = "") -> tuple[list[Row], tuple[str, ...]]:
    """An evaluation's judged rows and the metrics that fit them; kept while the file stays as it is."""
    version = files.stamp((run.path / "evaluations" / name / "outputs.jsonl").stat())
    return _judged(run, name, version, metric)


def counted(page: OutputsPage, lang: str) -> str:
    """How many rows got better, worse, or are as good as before, as a bar and in words."""
    cells = "".join(
        f'<div class="{css}" style="flex:{page.counts[mark]}"></div>'
        for mark, css in (("better", "w"), ("differ", "t"), ("same", "t"), ("worse", "l"))
        if page.counts[mark]
    )
    words = " · ".join(
        f'<span class="{mark}">{say(lang, "count_" + mark, n=number(page.counts[mark]))}</span>'
        for mark in outputs.MARKS
    )
    return html.block(f'<div class="wtl thin" aria-hidden="true">{cells}</div><div class="small">{words}</div>')


def outputs_table(page: OutputsPage, lang: str, selected: int | None) -> str:
    """Prompt, reference and both answers; a row can be opened."""
    if not page.rows:
        return html.block(say(lang, "outputs_none"), "muted small")
    headers = [say(lang, f"column_{name}") for name in ("prompt", "reference", "base", "tuned", "mark")]
    made = []
    for row in page.rows:
        texts = (
            last_paragraph(row["messages"][-1]["content"]),
            row["references"][0] if row["references"] else "",
            row["base"],
            row["tuned"],
        )
        cells = [f'<div class="cut">{html.esc(html.cut(text, 260))}</div>' for text in texts]
        for place, side in ((2, "base"), (3, "tuned")):
            cells[place] += slots_named(row, side, lang)
        cells.append(f'<span class="{row["mark"]}">{say(lang, "mark_" + row["mark"])}</span>')
        made.append((str(row["row"]), cells, row["row"] == selected))
    return html.table(headers, made)


def slots_named(row: Mapping[str, Any], side: str, lang: str) -> str:
    """The fields of a JSON answer that are missing, wrong or invented, by name; "" where there are none."""
    named: dict[str, dict[str, None]] = {}
    for slot in row.get("slots", {}).get(side, ()):
        named.setdefault(slot.kind, {})[slot.path] = None
    parts = [say(lang, f"slot_{kind}") + " " + ", ".join(filter(None, paths)) for kind, paths in named.items()]
    return html.block(html.esc(" · ".join(part.strip() for part in parts)), "muted small slots") if parts else ""


def slots_listed(row: Mapping[str, Any], side: str, lang: str) -> str:
    """The same with their values, a line each."""
    lines = []
    for slot in row.get("slots", {}).get(side, ()):
        values = " → ".join(html.esc(html.cut(value, 120)) for value in (slot.wanted, slot.given) if value)
        name = f"<b>{html.esc(slot.path)}</b>" if slot.path else ""
        lines.append(f"<div>{say(lang, f'slot_{slot.kind}')} {name} {values}</div>")
    return html.block("".join(lines), "small slots") if lines else ""


def place(page: OutputsPage, lang: str) -> str:
    return html.block(
        say(lang, "outputs_place", n=number(page.total), page=number(page.page + 1), pages=number(page.pages)),
        "muted small",
    )


def opened(row: Mapping[str, Any], lang: str) -> str:
    """One row in full: the conversation, the reference, where JSON differs from it field by field, both answers with the
    words that differ marked, and each as the reference corrected."""
    base, tuned = html.differences(row["base"], row["tuned"])
    reference = "<br>".join(html.esc(text) for text in row["references"])
    target = row["references"][0] if row["references"] else ""

    def pair(texts: Sequence[str]) -> str:
        cells = "".join(
            f'<div class="answer {side}-side"><span class="who">{html.chip(say(lang, "name_" + side), side)}</span>{text or "–"}</div>'
            for side, text in zip(SIDES, texts, strict=True)
        )
        return f'<div class="two">{cells}</div>'

    def note(key: str) -> str:
        return f'<p class="muted small">{say(lang, key)}</p>'

    listed = [slots_listed(row, side, lang) for side in SIDES]
    fields = note("row_slots") + pair(listed) if row.get("slots") else ""
    against = "" if not target else note("row_against") + pair([html.against(target, row[side]) for side in SIDES])
    return html.sheet(
        f"{html.bubbles(row['messages'])}{note('column_reference')}<p>{reference}</p>"
        f"{fields}{note('row_between')}{pair((base, tuned))}{against}",
        say(lang, "row_title", n=row["row"]),
    )


def explained(found: Mapping[str, Sequence[Mapping[str, Any]]], whose: str, lang: str) -> str:
    """One answer's tokens as base and as tuned see them."""
    sides = "".join(
        f'<div class="answer {side}-side"><span class="who">{html.chip(say(lang, "name_" + side), side)} '
        f'<span class="muted small">{say(lang, "why_mean", p=f"{100 * mean_probability(found[side]):.1f}")}</span></span>'
        f"{html.tokens(found[side])}</div>"
        for side in SIDES
    )
    note = f'<p class="muted small">{say(lang, "why_note")}</p>'
    return html.sheet(f'{note}<div class="two">{sides}</div>', say(lang, f"why_title_{whose}"))


def mean_probability(found: Sequence[Mapping[str, Any]]) -> float:
    """The geometric mean of the tokens' probabilities."""
    import math

    logs = [math.log(max(one["probability"], 1e-300)) for one in found]
    return math.exp(sum(logs) / max(len(logs), 1))


@dataclass(frozen=True)
class View:
    """What the tab shows and hides: the components, and functions that return their updates."""

    parts: list[Any]
    show: Callable[[runs.Run, str, str], dict[Any, Any]]
    hide: Callable[[], dict[Any, Any]]


def build(page: Page, latest: Callable[[runs.Run], str], fault: Any) -> View:
    """The components and how they are connected; `latest` names a run's newest evaluation."""
    at, chosen = gr.State(0), gr.State(None)  # the page shown; the row that is open
    with gr.Column(visible=False) as box:
        counts = gr.HTML("", elem_id="outputs-counts")
        with gr.Row(elem_classes="small-fields"):
            narrow = {"min_width": 130, "scale": 1}
            metric = gr.Dropdown([], label=label("outputs_metric"), elem_id="outputs-metric", **narrow)
            order = [(label(f"sort_{name}"), name) for name in outputs.SORTS]
            sort = gr.Dropdown(order, value="row", label=label("outputs_sort"), elem_id="outputs-sort", **narrow)
            labels = gr.Dropdown([], label=label("outputs_label"), elem_id="outputs-label", visible=False, **narrow)
            search = gr.Textbox(label=label("outputs_search"), max_lines=1, elem_id="outputs-search", **narrow)
        filters = [(label(f"filter_{name}"), name) for name in outputs.FILTERS]
        which = gr.Radio(filters, value="all", show_label=False, container=False, elem_id="filter")
        one = gr.HTML("", elem_id="opened-row")
        with gr.Row(visible=False, elem_classes="small-row") as why_row:
            why = {side: gr.Button(label(f"why_{side}"), size="sm", elem_id=f"why-{side}") for side in SIDES}
        reason = gr.HTML("", elem_id="why-answer")
        table = picker(elem_id="outputs")
        with gr.Row(elem_classes="small-row"):
            back = gr.Button("‹", size="sm", elem_id="outputs-back")
            where = gr.HTML("", elem_id="outputs-place")
            on = gr.Button("›", size="sm", elem_id="outputs-next")
    asked = [page.run, metric, sort, labels, which, search, at]
    listed = [counts, table, where, back, on, at]
    closed = {one: "", reason: "", why_row: gr.update(visible=False), chosen: None}

    def drawn(found: OutputsPage, lang: str, selected: int | None) -> dict[Any, Any]:
        return {
            counts: counted(found, lang),
            table: outputs_table(found, lang, selected),
            where: place(found, lang),
            back: gr.update(visible=found.pages > 1, interactive=found.page > 0),
            on: gr.update(visible=found.pages > 1, interactive=found.page + 1 < found.pages),
            at: found.page,
        }

    def show(run: runs.Run, name: str, lang: str) -> dict[Any, Any]:
        leading = run.scores(name).get("leading", "")
        rows, known = load(run, name, leading)
        names = sorted({row["label"] for row in rows if row.get("label")})
        every = [(say(lang, "outputs_all"), ""), *((text, text) for text in names)]
        return {
            **drawn(outputs.outputs_page(rows), lang, None),
            **closed,
            metric: gr.update(
                choices=[(say(lang, f"metric_{key}"), key) for key in known],
                value=leading if leading in known else known[0],
            ),
            labels: gr.update(choices=every, value="", visible=len(names) > 1),
            sort: "row",
            which: "all",
            search: "",
            box: gr.update(visible=True),
        }

    def hide() -> dict[Any, Any]:
        return {box: gr.update(visible=False), table: "", **closed}

    def rows_of(name: str, metric: str) -> list[Row]:
        run = find_ready(name)
        return load(run, latest(run), metric)[0] if latest(run) else []

    def listing(
        name: str, metric: str, sort: str, label: str, filter: str, text: str, at: int, request: gr.Request
    ) -> dict[Any, Any]:
        found = outputs.outputs_page(rows_of(name, metric), sort, filter, at, label or "", text or "")
        return drawn(found, language(request), None) | closed

    def turned(step: int) -> Callable[..., dict[Any, Any]]:
        def turn(
            name: str, metric: str, sort: str, label: str, filter: str, text: str, at: int, request: gr.Request
        ) -> dict[Any, Any]:
            return listing(name, metric, sort, label, filter, text, at + step, request)

        return turn

    def anew(
        name: str, metric: str, sort: str, label: str, filter: str, text: str, request: gr.Request
    ) -> dict[Any, Any]:
        return listing(name, metric, sort, label, filter, text, 0, request)

    def find_row(name: str, metric: str, number: object) -> Row:
        found = next((row for row in rows_of(name, metric) if str(row["row"]) == str(number)), None)
        if found is None:
            raise UserError("That row isn't in this evaluation any more; reload the page.")
        return found

    def open_row(
        name: str,
        metric: str,
        sort: str,
        label: str,
        filter: str,
        text: str,
        at: int,
        event: gr.EventData,
        request: gr.Request,
    ) -> dict[Any, Any]:
        lang, row = language(request), find_row(name, metric, picked(event))
        found = outputs.outputs_page(rows_of(name, metric), sort, filter, at, label or "", text or "")
        shown = {one: opened(row, lang), table: outputs_table(found, lang, row["row"])}
        return shown | {chosen: row["row"], reason: "", why_row: gr.update(visible=True)}

    def reasons(side: str) -> Callable[..., dict[Any, Any]]:
        def ask(name: str, metric: str, row: int | None, request: gr.Request) -> dict[Any, Any]:

            lang, found = language(request), find_row(name, metric, row)
            pair = work.pair(find_ready(name).name)
            return {reason: explained(pair.explain(found["messages"], found[side], found.get("tools")), side, lang)}

        return ask

    for trigger in (metric.input, sort.input, labels.input, which.input, search.submit, search.blur):
        wire(trigger, anew, asked[:-1], [*listed, *closed], fault)
    for button, step in ((back, -1), (on, 1)):
        wire(button.click, turned(step), asked, [*listed, *closed], fault)
    wire(table.select, open_row, asked, [one, table, chosen, reason, why_row], fault, **EACH_PICK)
    options = {"concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "once", "show_progress": "minimal"}
    for side in SIDES:
        wire(why[side].click, reasons(side), [page.run, metric, chosen], [reason], fault, **options)
    return View([box, metric, sort, labels, which, search, *listed, *closed], show, hide)
