"""Runs: what was trained, how it did, side by side, and what to keep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.summary import gained
from sftdemo.ui import work
from sftdemo.ui.access import rights
from sftdemo.ui.parts import charts, html
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import EACH_PICK, Page, picked, picker
from sftdemo.ui.tabs.export import ExportPanel
from sftdemo.ui.texts import label, language, number, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs import jobs

PAGE_ROWS = 25
MOST_COMPARED = 3
OFFERED = 200  # run names in the menu of the comparison


def matching(text: str) -> list[runs.Run]:
    """The runs whose name holds the text, newest first."""
    wanted = text.strip().casefold()
    return [run for run in runs.list_runs() if wanted in run.name.casefold()]


def gain(row: Mapping[str, Any], lang: str) -> str:
    if row["metric"] not in METRICS:
        return '<span class="muted">–</span>'
    delta = row["tuned"] - row["base"]
    better = gained(row["metric"], delta)
    css = "better" if better > 0 else "worse" if better < 0 else "same"
    name = say(lang, "metric_" + row["metric"])
    return f'{name} {charts.shown(row["metric"], row["tuned"])} <span class="{css}">{charts.gained(row["metric"], delta)}</span>'


def runs_table(matches: Sequence[runs.Run], shown: int, chosen: str, lang: str) -> str:
    """One page of runs; only the rows shown are read from disk."""
    if not matches:
        return html.empty(say(lang, "runs_empty"), say(lang, "wait_run_text"))
    headers = [say(lang, f"column_{name}") for name in ("run", "data", "method", "when", "state", "metric")]
    rows = []
    for run in matches[:shown]:
        row = runs.overview(run)
        method = say(lang, f"method_{row['method']}") if row["method"] in ("lora", "full") else ""
        if (row["quantization"] or "none") != "none":
            method += f" {html.esc(row['quantization'])}"
        cells = [
            f"<b>{html.esc(row['name'])}</b>",
            html.esc(html.cut(str(row["data"] or "").rsplit("/", 1)[-1], 28)),
            method,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"])),
            say(lang, f"state_{row['state']}"),
            gain(row, lang),
        ]
        rows.append((run.name, cells, run.name == chosen))
    count = f'<p class="muted small">{say(lang, "runs_count", k=number(min(shown, len(matches))), n=number(len(matches)))}</p>'
    return html.block(html.table(headers, rows) + count, "sheet")


def details(run: runs.Run, lang: str, owner: bool = True) -> str:
    """Where the run is, for the owner, and if it failed or is damaged, why."""
    line = runs.overview(run)
    error = html.fault(in_words(line["error"] or "", lang)) if line["state"] == "failed" else ""
    if line["state"] == "damaged":
        error = html.fault(say(lang, "runs_damaged", reason=in_words(line["error"], lang)))
    path = f'<p class="muted small">{say(lang, "runs_folder")}</p><pre class="cmd">{html.esc(run.path.resolve())}</pre>'
    return html.sheet(error + (path if owner else ""), run.name)


def setting_differences(chosen: Sequence[runs.Run]) -> list[tuple[str, list[str]]]:
    """The settings but the name in which the runs differ, with each run's value."""
    by_setting = runs.differences(list(chosen))["settings"]
    return [
        (name, ["–" if value is None else str(value) for value in by_run.values()])
        for name, by_run in by_setting.items()
        if name != "name"
    ]


def comparison(chosen: Sequence[runs.Run], lang: str) -> str:
    """Curves over each other and the settings that differ."""
    curves = [charts.curve(run.name, run.metrics()) for run in chosen]
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


class RunsTab:
    """The list of runs, what can be done with the one picked, and a comparison; drawn anew whenever it is opened."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page, self.tab = page, tab
        self.shown, self.focus = gr.State(PAGE_ROWS), gr.State("")  # rows listed; the run picked
        self.search = gr.Textbox(
            "",
            label=label("runs_search"),
            show_label=False,
            placeholder=label("runs_search"),
            container=False,
            elem_id="runs-search",
        )
        self.fault = gr.HTML("", elem_id="runs-fault")
        self.table = picker(elem_id="runs-table")
        self.more = gr.Button(label("runs_more"), size="sm", visible=False)
        self.info = gr.HTML("")
        with gr.Row(visible=False, elem_classes="small-row") as self.actions:
            self.to_evaluate = gr.Button(label("train_evaluate"), size="sm", elem_id="runs-evaluate")
            self.resume = gr.Button(label("train_resume"), size="sm", visible=False, elem_id="runs-resume")
            self.delete = gr.Button(label("runs_delete"), size="sm", elem_id="runs-delete")
            self.sure = gr.Button(label("runs_sure"), size="sm", variant="stop", visible=False, elem_id="runs-sure")
            self.keep = gr.Button(label("runs_keep"), size="sm", visible=False)
        self.export = ExportPanel(self.focus)
        self.compared = gr.Dropdown(
            [], multiselect=True, max_choices=MOST_COMPARED, label=label("compare_pick"), elem_id="compare"
        )
        self.compare_view = gr.HTML("")

    def list_runs(self, search: str, shown: int, focus: str, run_name: str, request: gr.Request) -> dict[Any, Any]:
        """The runs whose name holds the text searched for; the one picked, or else the chosen one, is marked."""
        matches = matching(search)
        return {
            self.table: runs_table(matches, shown, focus or run_name, language(request)),
            self.more: gr.update(visible=len(matches) > shown),
            self.compared: gr.update(choices=[run.name for run in matches[:OFFERED]]),
        }

    def list_more(self, search: str, shown: int, focus: str, run_name: str, request: gr.Request) -> dict[Any, Any]:
        more = shown + PAGE_ROWS
        return {self.shown: more, **self.list_runs(search, more, focus, run_name, request)}

    def confirming(self, confirming: bool) -> dict[Any, Any]:
        return {
            self.delete: gr.update(visible=not confirming and rights.current().owner),
            self.sure: gr.update(visible=confirming),
            self.keep: gr.update(visible=confirming),
        }

    def confirm_delete(self) -> dict[Any, Any]:
        return self.confirming(True)

    def keep_run(self) -> dict[Any, Any]:
        return self.confirming(False)

    def pick_run(
        self, search: str, shown: int, run_name: str, event: gr.EventData, request: gr.Request
    ) -> dict[Any, Any]:
        """Show a run, and choose it for the other tabs if it has a model."""
        run = runs.named(picked(event))
        ready = work.is_ready(run)
        return {
            self.focus: run.name,
            self.info: details(run, language(request), rights.visitor(request).owner),
            self.actions: gr.update(visible=True),
            self.to_evaluate: gr.update(visible=ready),
            self.resume: gr.update(visible=rights.current().owner and jobs.can_resume(run)),
            **({self.page.run: run.name} if ready else {}),
            **self.export.show(run, language(request)),
            **self.confirming(False),
            **self.list_runs(search, shown, run.name, run_name, request),
        }

    def resume_run(self, search: str, shown: int, focus: str, run_name: str, request: gr.Request) -> dict[Any, Any]:
        """Go on with the run that was picked; the bar at the top shows how far it is."""
        work.release()
        jobs.resume(runs.named(focus))
        return {
            self.resume: gr.update(visible=False),
            self.page.timer: gr.Timer(active=True),
            **self.list_runs(search, shown, focus, run_name, request),
        }

    def delete_run(self, search: str, shown: int, focus: str, run_name: str, request: gr.Request) -> dict[Any, Any]:
        runs.named(focus).delete()
        work.release()
        chosen = run_name if run_name != focus else work.newest_ready()
        return {
            self.focus: "",
            self.page.run: chosen,
            self.actions: gr.update(visible=False),
            self.info: "",
            **self.export.hide(),
            **self.confirming(False),
            **self.list_runs(search, shown, "", chosen, request),
        }

    def compare(self, names: list[str], request: gr.Request) -> dict[Any, Any]:
        if len(names) > MOST_COMPARED:
            raise UserError("{n} runs are chosen; compare at most {most}.", n=len(names), most=MOST_COMPARED)
        chosen = [runs.named(name) for name in names]
        return {self.compare_view: comparison(chosen, language(request)) if chosen else ""}

    def wire(self) -> None:
        page, fault = self.page, self.fault
        list_state = [self.search, self.shown, self.focus, page.run]
        listed, confirming = [self.table, self.more, self.compared], [self.delete, self.sure, self.keep]
        picked_run = [self.focus, page.run, self.info, self.actions, *confirming, *listed]
        wire(
            partial(gr.on, [self.tab.select, self.search.input, page.run.change]),
            self.list_runs,
            list_state,
            listed,
            fault,
        )
        wire(self.more.click, self.list_more, list_state, [self.shown, *listed], fault)
        wire(
            self.table.select,
            self.pick_run,
            [self.search, self.shown, page.run],
            [*picked_run, self.to_evaluate, self.resume, *self.export.parts],
            fault,
            **EACH_PICK,
        )
        resumed = [self.resume, page.timer, *listed]
        wire(self.resume.click, self.resume_run, list_state, resumed, fault, needs="manage")
        wire(self.delete.click, self.confirm_delete, None, confirming, needs="manage")
        wire(self.keep.click, self.keep_run, None, confirming, needs="manage")
        wire(self.sure.click, self.delete_run, list_state, [*picked_run, self.export.panel], fault, needs="manage")
        self.export.wire()
        page.opens(self.to_evaluate.click, "evaluate")
        wire(self.compared.change, self.compare, [self.compared], [self.compare_view], fault)
