"""3 Evaluate: the claim with its interval first, then the bars, the tables and every answer behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo import files, outputs, runs
from sftdemo.config import EvaluateConfig
from sftdemo.errors import UserError
from sftdemo.ui import charts, forms, html, outputs_view, work
from sftdemo.ui.forms import wire
from sftdemo.ui.page import Page, find_ready
from sftdemo.ui.texts import duration, label, language, number, say

FIRST_ROWS = 100  # held-out rows proposed for a first look; on two cores about a minute


def latest(run: runs.Run) -> str:
    """The newest evaluation of a run, or ""."""
    names = run.evaluations()
    return names[0] if names else ""


def held_out(run: runs.Run) -> int:
    """How many rows the run holds out for its test."""
    sizes = run.config().get("data", {}).get("sizes", {})
    return int(sizes.get("test") or sizes.get("validation") or 0)


def claim(scores: Mapping[str, Any], lang: str) -> str:
    """The sentence the scores allow, as the evaluation wrote it, and what it rests on."""
    text = scores.get("summary", {}).get(lang) or scores.get("summary", {}).get("en") or ""
    base = say(lang, "claim_basis", n=number(scores["n"]), t=duration(lang, scores.get("seconds") or 0))
    return html.block(
        f'<div class="big" id="claim">{html.esc(text)}</div><div class="muted small">{base}</div>', "sheet"
    )


def under_scores(scores: Mapping[str, Any], lang: str) -> str:
    """One plain sentence under the table, what needs no model at all, and whether the answers are just shorter."""
    lines = []
    leading = scores.get("leading")
    for name, found in (scores.get("baselines") or {}).items():
        if leading and leading in found:
            value = charts.shown(leading, found[leading])
            metric = say(lang, f"metric_{leading}")
            lines.append(say(lang, f"baseline_{name}", metric=metric, value=value, answer=found.get("answer", "")))
    if left_out := scores.get("left_out"):
        lines.append(say(lang, "left_out_note", n=number(left_out)))
    base, tuned = scores["base"].get("length_ratio"), scores["tuned"].get("length_ratio")
    if base is not None and tuned is not None:
        repeated = (f"{100 * scores[side].get('repetition', 0.0):.0f} %" for side in ("base", "tuned"))
        first, second = repeated
        lines.append(say(lang, "shape_note", base=f"{base:.2f}", tuned=f"{tuned:.2f}", first=first, second=second))
    sentence = (scores.get("summary") or {}).get(lang) or ""
    said = f'<p class="said">{html.esc(sentence)}</p>' if sentence else ""
    corrected = [one["p_holm"] < 0.05 for one in scores["difference"].values() if "p_holm" in one]
    if leading and corrected:
        metric = say(lang, f"metric_{leading}")
        lines.insert(0, say(lang, "holm_note", metric=metric, k=sum(corrected), n=len(corrected)))
    of_tasks = "".join(
        f'<p class="said"><b>{html.esc(task)}</b>: {html.esc(found["summary"].get(lang) or found["summary"]["en"])}</p>'
        for task, found in (scores.get("by_task") or {}).items()
    )
    return said + of_tasks + "".join(f'<p class="muted small">{html.esc(line)}</p>' for line in lines)


def confusions(scores: Mapping[str, Any], lang: str) -> str:
    """Both confusion matrices side by side, where there are labels."""
    found = scores.get("confusion")
    if not found:
        return ""
    both = "".join(charts.confusion(scores["labels"], found[side], side, lang) for side in ("base", "tuned"))
    note = f'<p class="muted small">{say(lang, "confusion_note")}</p>'
    return html.sheet(f'{note}<div class="two">{both}</div>', say(lang, "confusion_title"))


def fields(scores: Mapping[str, Any], lang: str) -> str:
    """F1 of each field and each kind of entity, where the answers are JSON; a row each, the most frequent first."""
    made = []
    for part in ("fields", "entities"):
        sides = scores.get(part)
        if not sides:
            continue
        named = {**sides["base"], **sides["tuned"]}
        headers = [say(lang, f"column_{part}"), *(say(lang, f"name_{side}") for side in ("base", "tuned"))]
        headers.insert(1, say(lang, "column_support"))
        rows = []
        for name in sorted(named, key=lambda name: -named[name]["support"]):
            figures = [sides[side].get(name) for side in ("base", "tuned")]
            cells = "".join(
                f'<td class="num">{charts.shown("field_f1", one["f1"]) if one else "–"}</td>' for one in figures
            )
            title = html.esc(name or say(lang, "field_items"))
            rows.append(f'<tr><th>{title}</th><td class="num">{number(named[name]["support"])}</td>{cells}</tr>')
        head = "".join(f"<th>{text}</th>" for text in headers)
        made.append(
            f'<div class="scroll"><table class="t narrow"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    note = f'<p class="muted small">{say(lang, "fields_note")}</p>'
    return html.sheet(note + "".join(made), say(lang, "fields_title")) if made else ""


def forgotten(scores: Mapping[str, Any], lang: str) -> str:
    """What the tuned model lost on general tasks, where that was measured."""
    found = scores.get("general")
    if not found:
        return ""
    rows = "".join(
        f"<tr><th>{say(lang, 'metric_' + name)}</th>"
        + "".join(f'<td class="num">{charts.shown(name, found[side][name])}</td>' for side in ("base", "tuned"))
        + "</tr>"
        for name in ("answered", "perplexity")
    )
    head = f"<tr><th></th><th>{say(lang, 'name_base')}</th><th>{say(lang, 'name_tuned')}</th></tr>"
    text = html.esc(found["summary"].get(lang) or found["summary"]["en"])
    kind = "state warn" if found["forgotten"] else "muted"
    table = f'<table class="t narrow"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    return html.sheet(f'<p class="{kind}">{text}</p>{table}', say(lang, "general_title"))


def small_print(scores: Mapping[str, Any], lang: str) -> str:
    """How every number was made."""
    signed = "<br>".join(
        f"{html.esc(name)}: {html.esc(text)}" for name, text in (scores.get("signatures") or {}).items()
    )
    return html.block(f"{say(lang, 'whisker_note')}<br>{signed}", "muted small") if signed else ""


def exports() -> Path:
    """The one folder the app serves files from."""
    return runs.home() / "tmp" / "exports"


def download(run: runs.Run, name: str, kind: str) -> str:
    """Write the outputs of an evaluation as csv or jsonl for download; they never change, so once is enough."""
    path = exports() / f"{run.name}-{name}.{kind}"
    if not path.exists():
        rows = run.outputs(name)
        files.write_text(path, outputs.as_csv(rows) if kind == "csv" else files.jsonl(rows))
    return str(path)


def progress(current: work.Evaluation, lang: str) -> str:
    """What the running evaluation is doing."""
    state = html.esc(current.note) or say(lang, "evaluate_running")
    if current.stop.is_set():
        state = say(lang, "work_stopping")
    elif current.read and not current.done:
        state = say(lang, "evaluate_reading", n=current.read)
    left = f" · {say(lang, 'work_left', t=duration(lang, current.eta_s))}" if current.eta_s else ""
    count = f'<p class="muted num">{current.done} / {current.total}{left}</p>' if current.read else ""
    return html.block(f'<div class="big">{state}</div>{count}{html.track(current.share)}', "sheet")


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


def build(page: Page, start_elsewhere: Any, tab: Any) -> None:
    """The tab's components and how they are connected; `start_elsewhere` is the button on Train that leads here.

    Answers are sent once `tab`, this one, is opened: somebody who votes blind on the same page hasn't seen them.
    """
    watching = gr.State(False)  # whether this page has seen an evaluation run whose end it hasn't shown
    gate = gr.HTML("", elem_id="evaluate-gate")
    with gr.Column(visible=False) as body:
        with gr.Row(elem_classes="ends"):
            rows_label = {"label": label("evaluate_rows"), "info": None, "elem_id": "evaluate-rows"}
            rows_field = forms.field(EvaluateConfig, "max_examples", scale=1, min_width=130, **rows_label)
            also = {"label": label("evaluate_general"), "info": None, "elem_id": "evaluate-general-ask"}
            general_field = forms.field(EvaluateConfig, "general", scale=1, min_width=150, **also)
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
        general = gr.HTML("", elem_id="evaluate-general")
        matrices = gr.HTML("")
        answers = outputs_view.build(page, latest, fault)
        prints = gr.HTML("")
    results = [csv_file, jsonl_file, said, bars, matrices, general, prints, next_row, *answers.parts]
    views = [gate, body, rows_field, doing, start, stop, *results]

    def nothing() -> dict[Any, Any]:
        hidden = {next_row: gr.update(visible=False), **answers.hide()}
        return {said: "", bars: "", matrices: "", general: "", prints: "", **hidden}

    def show_answers(run: runs.Run, lang: str) -> dict[Any, Any]:
        if not (name := latest(run)):
            return answers.hide()
        return {
            **answers.show(run, name, lang),
            csv_file: gr.update(value=download(run, name, "csv")),
            jsonl_file: gr.update(value=download(run, name, "jsonl")),
        }

    def show(run: runs.Run, lang: str) -> dict[Any, Any]:
        name = latest(run)
        if not name:
            return nothing() | {said: html.empty(say(lang, "evaluate_empty"), say(lang, "evaluate_empty_text"))}
        scores = run.scores(name)
        return {
            said: claim(scores, lang),
            bars: html.sheet(charts.score_rows(scores, lang) + under_scores(scores, lang), say(lang, "scores_title")),
            matrices: confusions(scores, lang) + fields(scores, lang),
            prints: small_print(scores, lang),
            general: forgotten(scores, lang),
            next_row: gr.update(visible=True),
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
            **answers.hide(),
            **show(run, lang),
        }

    def opened(name: str, request: gr.Request) -> dict[Any, Any]:
        return show_answers(runs.named(name), language(request)) if name else answers.hide()

    def run_it(name: str, rows: Any, general: bool, request: gr.Request) -> Iterator[dict[Any, Any]]:
        lang, run = language(request), find_ready(name)
        config = forms.config(EvaluateConfig, {"max_examples": rows, "general": general})
        total = min(config.max_examples or held_out(run), held_out(run))
        yield {doing: html.block(say(lang, "evaluate_waiting"), "sheet")}
        try:
            for current in follow(run, config, total):
                yield {doing: progress(current, lang), page.timer: gr.Timer(active=True), **buttons(True)}
        except UserError:
            yield {doing: "", **buttons(False)}
            raise
        yield {doing: "", watching: False, **buttons(False), **show(run, lang), **show_answers(run, lang)}

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
        run = runs.named(name)
        ended = {doing: html.fault(current.error), watching: False, **buttons(False)}
        return ended | show(run, lang) | show_answers(run, lang)

    wire(page.run.change, refresh, [page.run], views, fault)
    wire(tab.select, opened, [page.run], [csv_file, jsonl_file, *answers.parts], fault)
    options = {"concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "once"}
    going = [*views, page.timer, watching]
    wire(start.click, run_it, [page.run, rows_field, general_field], going, fault, **options)
    moved = wire(start_elsewhere.click, lambda: {page.tabs: gr.Tabs(selected="evaluate")}, None, [page.tabs])
    wire(moved.then, run_it, [page.run, rows_field, general_field], going, fault, **options)
    wire(stop.click, ask_stop, None, [stop])
    page.tick = wire(page.tick.then, tick, [page.run, watching], [doing, watching, start, stop, *results])
    wire(to_chat.click, lambda: {page.tabs: gr.Tabs(selected="chat")}, None, [page.tabs])
    wire(to_vote.click, lambda: {page.tabs: gr.Tabs(selected="vote")}, None, [page.tabs])
