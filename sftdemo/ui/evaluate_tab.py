"""3 Evaluate: the claim with its interval first, then the bars, the tables and every answer behind it."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import EvaluateConfig
from sftdemo.errors import UserError
from sftdemo.ui import charts, forms, html, work
from sftdemo.ui.data_tab import last_paragraph
from sftdemo.ui.forms import wire
from sftdemo.ui.page import EACH_PICK, Page, find_ready, picked, picker
from sftdemo.ui.texts import duration, label, language, number, say

FIRST_ROWS = 100  # held-out rows proposed for a first look; on two cores about a minute
SHOWN_ROWS = 60
FILTERS = ("all", "better", "worse", "differ")


def latest(run: runs.Run) -> str:
    """The newest evaluation of a run, or ""."""
    names = run.evaluations()
    return names[0] if names else ""


def held_out(run: runs.Run) -> int:
    """How many rows the run holds out for its test."""
    sizes = run.config().get("data", {}).get("sizes", {})
    return int(sizes.get("test") or sizes.get("validation") or 0)


def mark(row: Mapping[str, Any]) -> str:
    """better, worse, differ or same: tuned against base, by the label or else by closeness to the reference."""
    base, tuned = row["base"].strip(), row["tuned"].strip()
    if base == tuned:
        return "same"
    targets = [row["label"]] if row.get("label") else row["references"]
    gains = [closeness(tuned, target, row) - closeness(base, target, row) for target in targets]
    gain = max(gains, key=abs) if gains else 0.0
    return "better" if gain > 0.02 else "worse" if gain < -0.02 else "differ"


def closeness(answer: str, target: str, row: Mapping[str, Any]) -> float:
    """How near an answer is to its target: whole labels count only whole, texts by their words in common (F1)."""
    if row.get("label"):
        return float(answer.strip().casefold() == target.strip().casefold())
    ours, theirs = (Counter(map(str.strip, html.words(text.strip().casefold()))) for text in (answer, target))
    words = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / words if words else 1.0


def claim(scores: Mapping[str, Any], lang: str) -> str:
    """The sentence the scores allow, as the evaluation wrote it, and what it rests on."""
    text = scores.get("summary", {}).get(lang) or scores.get("summary", {}).get("en") or ""
    base = say(lang, "claim_basis", n=number(scores["n"]), t=duration(lang, scores.get("seconds") or 0))
    return html.block(
        f'<div class="big" id="claim">{html.esc(text)}</div><div class="muted small">{base}</div>', "sheet"
    )


def confusions(scores: Mapping[str, Any], lang: str) -> str:
    """Both confusion matrices side by side, where there are labels."""
    found = scores.get("confusion")
    if not found:
        return ""
    both = "".join(charts.confusion(scores["labels"], found[side], side, lang) for side in ("base", "tuned"))
    note = f'<p class="muted small">{say(lang, "confusion_note")}</p>'
    return html.sheet(f'{note}<div class="two">{both}</div>', say(lang, "confusion_title"))


def small_print(scores: Mapping[str, Any], lang: str) -> str:
    """How every number was made."""
    signed = "<br>".join(
        f"{html.esc(name)}: {html.esc(text)}" for name, text in (scores.get("signatures") or {}).items()
    )
    return html.block(f"{say(lang, 'whisker_note')}<br>{signed}", "muted small") if signed else ""


def marked(run: runs.Run, evaluation: str) -> Sequence[dict[str, Any]]:
    """The rows of an evaluation, each with its mark; kept, as every click on a row or a filter asks for them again."""
    path = run.path / "evaluations" / evaluation / "outputs.jsonl"
    return _marked(path, runs.stamp(path.stat()))


@lru_cache(maxsize=2)
def _marked(path: Path, version: tuple[int, int, int]) -> Sequence[dict[str, Any]]:
    return [row | {"mark": mark(row)} for row in runs.read_jsonl(path)]


def chosen_rows(rows: Sequence[dict[str, Any]], which: str) -> Sequence[dict[str, Any]]:
    """Of marked rows those that the filter lets through."""
    if which in ("better", "worse"):
        return [row for row in rows if row["mark"] == which]
    return [row for row in rows if row["mark"] != "same"] if which == "differ" else rows


def outputs_table(rows: Sequence[dict[str, Any]], lang: str, selected: int | None) -> str:
    """Prompt, reference and both answers; a row can be opened."""
    if not rows:
        return html.block(say(lang, "outputs_none"), "muted small")
    headers = [say(lang, f"column_{name}") for name in ("prompt", "reference", "base", "tuned", "mark")]
    made = []
    for row in rows[:SHOWN_ROWS]:
        texts = (
            last_paragraph(row["messages"][-1]["content"]),
            row["references"][0] if row["references"] else "",
            row["base"],
            row["tuned"],
        )
        cells = [f'<div class="cut">{html.esc(html.cut(text, 260))}</div>' for text in texts]
        cells.append(f'<span class="{row["mark"]}">{say(lang, "mark_" + row["mark"])}</span>')
        made.append((str(row["row"]), cells, row["row"] == selected))
    more = (
        f'<p class="muted small">{say(lang, "outputs_more", n=number(len(rows) - SHOWN_ROWS))}</p>'
        if len(rows) > SHOWN_ROWS
        else ""
    )
    return html.table(headers, made) + more


def opened(row: Mapping[str, Any], lang: str) -> str:
    """One row in full: the conversation, the reference, and both answers with the words that differ marked."""
    base, tuned = html.differences(row["base"], row["tuned"])
    reference = "<br>".join(html.esc(text) for text in row["references"])
    answers = "".join(
        f'<div class="answer {side}-side"><span class="who">{html.chip(say(lang, "name_" + side), side)}</span>{text or "–"}</div>'
        for side, text in (("base", base), ("tuned", tuned))
    )
    target = f'<p class="muted small">{say(lang, "column_reference")}</p><p>{reference}</p>'
    return html.sheet(
        f'{html.bubbles(row["messages"])}{target}<div class="two">{answers}</div>', say(lang, "row_title", n=row["row"])
    )


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The outputs for a spreadsheet; text that one would run as a formula gets a quote in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ("row", "prompt", "reference", "label", "base", "tuned")
    writer.writerow(names)
    for row in rows:
        cells = (
            row["row"],
            row["messages"][-1]["content"],
            (row["references"] or [""])[0],
            row.get("label") or "",
            row["base"],
            row["tuned"],
        )
        writer.writerow(
            [f"'{cell}" if str(cell).startswith(("=", "+", "-", "@", "\t", "\r")) else cell for cell in cells]
        )
    return file.getvalue()


def exports() -> Path:
    """The one folder the app serves files from."""
    return runs.home() / "tmp" / "exports"


def download(run: runs.Run, name: str, kind: str) -> str:
    """Write the outputs of an evaluation as csv or jsonl for download; they never change, so once is enough."""
    path = exports() / f"{run.name}-{name}.{kind}"
    if not path.exists():
        source = run.path / "evaluations" / name / "outputs.jsonl"
        runs.write_text(path, as_csv(run.outputs(name)) if kind == "csv" else source.read_text(encoding="utf-8"))
    return str(path)


def progress(current: work.Evaluation, lang: str) -> str:
    """What the running evaluation is doing."""
    state = (
        say(lang, "work_stopping") if current.stop.is_set() else html.esc(current.note) or say(lang, "evaluate_running")
    )
    left = f" · {say(lang, 'work_left', t=duration(lang, current.eta_s))}" if current.eta_s else ""
    share = current.done / current.total if current.total else 0
    count = f'<p class="muted num">{current.done} / {current.total}{left}</p>' if current.done else ""
    return html.block(f'<div class="big">{state}</div>{count}{html.track(share)}', "sheet")


def public_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores without paths on the server."""
    return {key: value for key, value in scores.items() if key != "outputs"} | {"outputs": Path(scores["outputs"]).name}


def follow(run: runs.Run, config: EvaluateConfig, total: int) -> Iterator[work.Evaluation]:
    """Start an evaluation and yield it about twice a second until it ends; a fault is raised."""
    current = work.start_evaluation(run, config, total)
    yield current
    while current.active:
        time.sleep(0.4)
        yield current
    if current.error:
        raise UserError(current.error)


def build(page: Page, start_elsewhere: Any) -> None:
    """The tab's components and how they are connected; `start_elsewhere` is the button on Train that leads here."""
    watching = gr.State(False)  # whether this page has seen an evaluation run whose end it hasn't shown
    gate = gr.HTML("", elem_id="evaluate-gate")
    with gr.Column(visible=False) as body:
        with gr.Row(elem_classes="ends"):
            rows_label = {"label": label("evaluate_rows"), "info": None, "elem_id": "evaluate-rows"}
            rows_field = forms.field(EvaluateConfig, "max_examples", scale=1, min_width=130, **rows_label)
            main = {"elem_classes": "main-button", "scale": 4, "min_width": 160}
            start = gr.Button(label("evaluate_go"), variant="primary", elem_id="evaluate", **main)
            stop = gr.Button(label("evaluate_stop"), visible=False, elem_id="evaluate-stop", **main)
        fault = gr.HTML("", elem_id="evaluate-fault")
        doing = gr.HTML("", elem_id="evaluate-progress")
        said = gr.HTML("", elem_id="evaluate-claim")
        bars = gr.HTML("", elem_id="evaluate-bars")
        with gr.Row(visible=False, elem_classes="small-row") as next_row:
            to_chat = gr.Button(label("evaluate_chat"), size="sm", elem_id="to-chat")
            to_vote = gr.Button(label("evaluate_vote"), size="sm", elem_id="to-vote")
            csv_file = gr.DownloadButton(label("download_csv"), size="sm")
            jsonl_file = gr.DownloadButton(label("download_jsonl"), size="sm")
        matrices = gr.HTML("")
        with gr.Column(visible=False) as outputs_box:
            which = gr.Radio(
                [(label(f"filter_{name}"), name) for name in FILTERS],
                value="all",
                show_label=False,
                container=False,
                elem_id="filter",
            )
            one = gr.HTML("", elem_id="opened-row")
            table = picker(elem_id="outputs")
        prints = gr.HTML("")
    results = [csv_file, jsonl_file, said, bars, matrices, prints, table, one, next_row, outputs_box]
    views = [gate, body, rows_field, doing, start, stop, *results]

    def nothing() -> dict[Any, Any]:
        hidden = {part: gr.update(visible=False) for part in (next_row, outputs_box)}
        return {said: "", bars: "", matrices: "", prints: "", table: "", one: "", **hidden}

    def show(run: runs.Run, lang: str) -> dict[Any, Any]:
        name = latest(run)
        if not name:
            return nothing() | {said: html.empty(say(lang, "evaluate_empty"), say(lang, "evaluate_empty_text"))}
        scores = run.scores(name)
        return {
            said: claim(scores, lang),
            bars: html.sheet(charts.score_rows(scores, lang), say(lang, "scores_title")),
            matrices: confusions(scores, lang),
            prints: small_print(scores, lang),
            table: outputs_table(marked(run, name), lang, None),
            one: "",
            next_row: gr.update(visible=True),
            csv_file: gr.update(value=download(run, name, "csv")),
            jsonl_file: gr.update(value=download(run, name, "jsonl")),
            outputs_box: gr.update(visible=True),
        }

    def buttons(running: bool) -> dict[Any, Any]:
        return {start: gr.update(visible=not running), stop: gr.update(visible=running, interactive=True)}

    def refresh(name: str, request: gr.Request) -> dict[Any, Any]:
        lang = language(request)
        if not name:
            waits = html.empty(say(lang, "wait_run"), say(lang, "wait_run_text"))
            return nothing() | {gate: waits, body: gr.update(visible=False)}
        run = runs.named(name)
        current, rows = work.evaluation(), held_out(run)
        running = bool(current and current.active)
        return {
            gate: "",
            body: gr.update(visible=True),
            rows_field: min(rows, FIRST_ROWS) or None,
            doing: progress(current, lang) if current and running else "",
            **buttons(running),
            **show(run, lang),
        }

    def run_it(name: str, rows: Any, request: gr.Request) -> Iterator[dict[Any, Any]]:
        lang, run = language(request), find_ready(name)
        config = forms.config(EvaluateConfig, {"max_examples": rows})
        total = min(config.max_examples or held_out(run), held_out(run))
        yield {doing: html.block(say(lang, "evaluate_waiting"), "sheet")}
        try:
            for current in follow(run, config, total):
                yield {doing: progress(current, lang), page.timer: gr.Timer(active=True), **buttons(True)}
        except UserError:
            yield {doing: "", **buttons(False)}
            raise
        yield {doing: "", watching: False, **buttons(False), **show(run, lang)}

    def ask_stop(request: gr.Request) -> dict[Any, Any]:
        if (current := work.evaluation()) and current.active:
            current.stop.set()
        return {stop: gr.update(interactive=False)}

    def tick(name: str, running: bool, request: gr.Request) -> dict[Any, Any]:
        """After a reload nobody follows the evaluation any more; the tick shows it on, and what it came to."""
        current, lang = work.evaluation(), language(request)
        if not (current and name) or not (current.active or running):
            return {doing: gr.skip()}
        if current.active:
            return {doing: progress(current, lang), watching: True, **buttons(True)}
        return {doing: html.fault(current.error), watching: False, **buttons(False), **show(runs.named(name), lang)}

    def rows_of(name: str, request: gr.Request, filtered: str) -> tuple[str, Sequence[dict[str, Any]]]:
        run = find_ready(name)
        return language(request), chosen_rows(marked(run, latest(run)), filtered) if latest(run) else []

    def filter_rows(name: str, filtered: str, request: gr.Request) -> dict[Any, Any]:
        lang, rows = rows_of(name, request, filtered)
        return {table: outputs_table(rows, lang, None), one: ""}

    def open_row(name: str, filtered: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        lang, rows = rows_of(name, request, filtered)
        found = next((row for row in rows if str(row["row"]) == picked(event)), None)
        if found is None:
            raise UserError("That row isn't in this evaluation any more; reload the page.")
        return {one: opened(found, lang), table: outputs_table(rows, lang, found["row"])}

    wire(page.run.change, refresh, [page.run], views, fault)
    options = {"concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "once"}
    going = [*views, page.timer, watching]
    wire(start.click, run_it, [page.run, rows_field], going, fault, **options)
    moved = wire(start_elsewhere.click, lambda: {page.tabs: gr.Tabs(selected="evaluate")}, None, [page.tabs])
    wire(moved.then, run_it, [page.run, rows_field], going, fault, **options)
    wire(stop.click, ask_stop, None, [stop])
    page.tick = wire(page.tick.then, tick, [page.run, watching], [doing, watching, start, stop, *results])
    wire(which.input, filter_rows, [page.run, which], [table, one], fault)
    wire(table.select, open_row, [page.run, which], [one, table], fault, **EACH_PICK)
    wire(to_chat.click, lambda: {page.tabs: gr.Tabs(selected="chat")}, None, [page.tabs])
    wire(to_vote.click, lambda: {page.tabs: gr.Tabs(selected="vote")}, None, [page.tabs])
