"""Runs: what was trained, how it did, side by side, and what to keep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.registry import RATES
from sftdemo.ui import charts, html, work
from sftdemo.ui.forms import wire
from sftdemo.ui.page import EACH_PICK, Page, picked, picker
from sftdemo.ui.texts import label, language, number, say

PAGE_ROWS = 25
MOST_COMPARED = 3
OFFERED = 200  # run names in the menu of the comparison


def matching(text: str) -> list[runs.Run]:
    """The runs whose name holds the text, newest first."""
    wanted = text.strip().casefold()
    return [run for run in runs.list_runs() if wanted in run.name.casefold()]


def gain(row: Mapping[str, Any], lang: str) -> str:
    if row["metric"] is None:
        return '<span class="muted">–</span>'
    scale = 100 if row["metric"] in RATES else 1
    css = "better" if row["tuned"] > row["base"] else "worse" if row["tuned"] < row["base"] else "same"
    name = say(lang, "metric_" + row["metric"])
    return f'{name} {charts.shown(row["metric"], row["tuned"])} <span class="{css}">{scale * (row["tuned"] - row["base"]):+.1f}</span>'


def runs_table(found: Sequence[runs.Run], shown: int, chosen: str, lang: str) -> str:
    """One page of runs; only the rows shown are read from disk."""
    if not found:
        return html.empty(say(lang, "runs_empty"), say(lang, "wait_run_text"))
    headers = [say(lang, f"column_{name}") for name in ("run", "data", "method", "when", "state", "metric")]
    rows = []
    for run in found[:shown]:
        row = runs.overview(run)
        method = say(lang, f"method_{row['method']}") if row["method"] in ("lora", "full") else html.esc(row["method"])
        if row["quantization"] != "none":
            method += f" {html.esc(row['quantization'])}"
        cells = [
            f"<b>{html.esc(row['name'])}</b>",
            html.esc(html.cut(str(row["data"]).rsplit("/", 1)[-1], 28)),
            method,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"])),
            say(lang, f"state_{row['state']}"),
            gain(row, lang),
        ]
        rows.append((run.name, cells, run.name == chosen))
    count = (
        f'<p class="muted small">{say(lang, "runs_count", k=number(min(shown, len(found))), n=number(len(found)))}</p>'
    )
    return html.block(html.table(headers, rows) + count, "sheet")


def details(run: runs.Run, lang: str) -> str:
    """Where the run is and, if it failed, why."""
    status = run.status()
    why = html.fault(status.get("error") or "") if status["state"] == "failed" else ""
    path = f'<p class="muted small">{say(lang, "runs_folder")}</p><pre class="cmd">{html.esc(run.path.resolve())}</pre>'
    return html.sheet(why + path, run.name)


def setting_differences(chosen: Sequence[runs.Run]) -> list[tuple[str, list[str]]]:
    """The settings in which the runs differ, with each run's value."""
    all_settings = [run.config().get("settings", {}) for run in chosen]
    names = list(dict.fromkeys(name for settings in all_settings for name in settings if name != "name"))
    found = [(name, [settings.get(name) for settings in all_settings]) for name in names]
    return [
        (name, ["–" if v is None else str(v) for v in values])
        for name, values in found
        if any(v != values[0] for v in values)
    ]


def comparison(chosen: Sequence[runs.Run], lang: str) -> str:
    """Curves over each other and the settings that differ."""
    curves = [charts.curve(run.name, run.metrics(charts.MOST_POINTS)) for run in chosen]
    rows = [
        (None, [say(lang, f"set_{name}"), *map(html.esc, values)], False)
        for name, values in setting_differences(chosen)
    ]
    scores = [gain(runs.overview(run), lang) for run in chosen]
    rows.append((None, [say(lang, "column_metric"), *scores], False))
    return html.sheet(
        charts.loss_chart(curves, lang)
        + html.table([say(lang, "column_setting"), *(run.name for run in chosen)], rows),
        say(lang, "compare_title"),
    )


def build(page: Page, tab: Any) -> None:
    """The tab's components and how they are connected; `tab` is its own tab, which refreshes when opened."""
    shown, focus = gr.State(PAGE_ROWS), gr.State("")
    search = gr.Textbox("", show_label=False, placeholder=label("runs_search"), container=False, elem_id="runs-search")
    fault = gr.HTML("", elem_id="runs-fault")
    table = picker(elem_id="runs-table")
    more = gr.Button(label("runs_more"), size="sm", visible=False)
    info = gr.HTML("")
    with gr.Row(visible=False, elem_classes="small-row") as actions:
        to_evaluate = gr.Button(label("train_evaluate"), size="sm", elem_id="runs-evaluate")
        delete = gr.Button(label("runs_delete"), size="sm", elem_id="runs-delete")
        sure = gr.Button(label("runs_sure"), size="sm", variant="stop", visible=False, elem_id="runs-sure")
        keep = gr.Button(label("runs_keep"), size="sm", visible=False)
    compared = gr.Dropdown(
        [], multiselect=True, max_choices=MOST_COMPARED, label=label("compare_pick"), elem_id="compare"
    )
    compare_view = gr.HTML("")

    def refresh(text: str, rows: int, name: str, chosen: str, lang: str) -> dict[Any, Any]:
        found = matching(text)
        return {
            table: runs_table(found, rows, name or chosen, lang),
            more: gr.update(visible=len(found) > rows),
            compared: gr.update(choices=[run.name for run in found[:OFFERED]]),
        }

    def look(text: str, rows: int, name: str, chosen: str, request: gr.Request) -> dict[Any, Any]:
        return refresh(text, rows, name, chosen, language(request))

    def show_more(text: str, rows: int, name: str, chosen: str, request: gr.Request) -> dict[Any, Any]:
        return {shown: rows + PAGE_ROWS, **refresh(text, rows + PAGE_ROWS, name, chosen, language(request))}

    def asking(sure_now: bool) -> dict[Any, Any]:
        return {
            delete: gr.update(visible=not sure_now),
            sure: gr.update(visible=sure_now),
            keep: gr.update(visible=sure_now),
        }

    def choose(text: str, rows: int, chosen: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        lang, run = language(request), runs.named(picked(event))
        ready = work.is_ready(run)
        return {
            focus: run.name,
            info: details(run, lang),
            actions: gr.update(visible=True),
            to_evaluate: gr.update(visible=ready),
            **({page.run: run.name} if ready else {}),
            **asking(False),
            **refresh(text, rows, run.name, chosen, lang),
        }

    def remove(text: str, rows: int, name: str, chosen: str, request: gr.Request) -> dict[Any, Any]:
        runs.named(name).delete()
        work.release()
        kept = chosen if chosen != name else work.newest_ready()
        hidden = {actions: gr.update(visible=False), info: ""}
        return {
            focus: "",
            page.run: kept,
            **hidden,
            **asking(False),
            **refresh(text, rows, "", kept, language(request)),
        }

    def compare(names: list[str], request: gr.Request) -> dict[Any, Any]:
        if len(names) > MOST_COMPARED:
            raise UserError(f"{len(names)} runs are chosen; compare at most {MOST_COMPARED}.")
        return {compare_view: comparison([runs.named(name) for name in names], language(request)) if names else ""}

    asked = [search, shown, focus, page.run]
    views = [table, more, compared]
    wire(
        partial(gr.on, [tab.select, search.input, page.run.change]),
        look,
        asked,
        views,
        fault,
    )
    wire(more.click, show_more, asked, [shown, *views], fault)
    wire(
        table.select,
        choose,
        [search, shown, page.run],
        [focus, info, actions, to_evaluate, page.run, delete, sure, keep, *views],
        fault,
        **EACH_PICK,
    )
    wire(delete.click, lambda: asking(True), None, [delete, sure, keep])
    wire(keep.click, lambda: asking(False), None, [delete, sure, keep])
    wire(sure.click, remove, asked, [focus, page.run, actions, info, delete, sure, keep, *views], fault)
    wire(to_evaluate.click, lambda: {page.tabs: gr.Tabs(selected="evaluate")}, None, [page.tabs])
    wire(compared.change, compare, [compared], [compare_view], fault)
