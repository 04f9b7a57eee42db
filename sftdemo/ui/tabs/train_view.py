"""What a training is doing, or how it ended: its stage, its figures, its curve and its log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftdemo import runs
from sftdemo.evaluation.registry import METRICS
from sftdemo.runs import samples, sweep_record
from sftdemo.schema.run import Status
from sftdemo.ui import models, work
from sftdemo.ui.parts import charts, html, progress
from sftdemo.ui.tabs.queue import waiting_sentence
from sftdemo.ui.tabs.sweep_view import tried
from sftdemo.ui.tabs.train_plan import not_learned
from sftdemo.ui.texts import TEXTS, duration, say
from sftdemo.ui.texts.faults import in_words

LOG_BYTES = 20_000
SHOWN = 90  # characters of each question and answer


def live(run: runs.Run, lang: str) -> str:
    """The state of one run: its figures and its curve, in words when it ended."""
    status, metrics = run.status(), run.metrics()
    state, step, total = work.state_of(run), status.get("step") or 0, status.get("total") or 0
    curve = charts.curve(run.name, metrics)
    chart = charts.loss_chart([curve], lang, total, save=True)
    name = html.chip(runs.title(run))
    if state == "failed":
        head = html.fault(say(lang, "train_failed", error=in_words(status.get("error") or "?", lang)))
    elif state == "stopped" and not models.is_ready(run):
        trying = sweep_record.is_open(run) and status.get("error")
        head = html.fault(in_words(trying, lang) if trying else say(lang, "train_stopped_empty"))
    elif state in ("finished", "stopped"):
        head = f'<div class="big" id="train-done">{done_sentence(status, curve, lang)}</div>{source_line(status, lang)}'
    elif run.state == "queued" and (sentence := waiting_sentence(run, lang)):
        head = f'<div class="big" id="train-waits">{html.esc(sentence)}</div>'
    else:
        head = doing(state, status, lang)
    figures = []
    if total:
        figures.append((f"{step} / {total}", say(lang, "figure_step")))
    if curve.train:
        figures.append((f"{charts.smoothed(curve.train)[-1][1]:.2f}", say(lang, "figure_loss")))
    if curve.validation:
        figures.append((f"{curve.validation[-1][1]:.2f}", say(lang, "figure_validation")))
    scores = [(row["step"], row["eval_score"]) for row in metrics if "eval_score" in row]
    if scores and (metric := METRICS.get(run.config().get("settings", {}).get("best_by", ""))):
        figures.append((f"{scores[-1][1]:.{metric.digits}f}", metric.names[0 if lang == "en" else 1]))
    speed = status.get("tokens_per_s") or next(
        (row["tokens_per_s"] for row in reversed(metrics) if row.get("tokens_per_s")), None
    )
    if speed:
        figures.append((f"{speed:,.0f}", say(lang, "figure_speed")))
    if state == "running" and (seconds_left := status.get("eta_s")) is not None:
        figures.append((duration(lang, seconds_left), say(lang, "figure_left")))
    shown = f"<p>{name}</p>{head}{left_out(run, lang)}{html.figures(figures)}{chart}{answers(run, lang)}"
    return html.block(shown, "sheet") + tried(run, lang)


def left_out(run: runs.Run, lang: str) -> str:
    """How many rows the run doesn't have of its data, and what was wrong with most of them."""
    return not_learned("train_left_out", run.config().get("data", {}).get("dropped", []), lang)


def answers(run: runs.Run, lang: str) -> str:
    """What a few validation rows were answered, before the training and now."""
    rows = samples.read(run)
    if not rows:
        return ""
    first, last = rows[0]["step"], rows[-1]["step"]
    shown = [first, last] if last > first else [first]
    by_step = {step: [row for row in rows if row["step"] == step] for step in shown}
    heads = [say(lang, "samples_asked"), say(lang, "samples_right"), *(say(lang, "samples_step", step=step) for step in shown)]  # fmt: skip
    lines = [
        [each[0]["asked"], each[0]["reference"], *(row["answer"] for row in each)]
        for each in zip(*by_step.values(), strict=False)
    ]
    cells = [(None, [html.esc(html.cut(html.last_paragraph(text), SHOWN)) for text in line], False) for line in lines]
    return f"<h4>{html.esc(say(lang, 'samples_title'))}</h4>{html.table(heads, cells)}"


def doing(state: str, status: Status, lang: str) -> str:
    """What a training that runs is doing, and how far it is with that."""
    step, total, stage = status.get("step") or 0, status.get("total") or 0, work.stage_apart(status)
    if stage and state != "stopping":
        return progress.big(stage, lang)
    sentence = say(lang, "train_preparing" if state == "running" and not total else f"train_{state}")
    return f'<div class="big">{sentence}</div>{html.track(step / total if total else 0)}'


def done_sentence(status: Mapping[str, Any], curve: charts.Curve, lang: str) -> str:
    """How long it took, and what became of the validation loss."""
    spent = duration(lang, status["seconds"]) if status.get("seconds") else ""
    sentences = [say(lang, "train_done_" + status["state"], t=spent)]
    first = status.get("first_eval_loss")
    if first is None and len(curve.validation) > 1:
        first = curve.validation[0][1]
    last = status.get("eval_loss")
    if first is not None and last is not None:
        sentences.append(say(lang, "train_losses", first=f"{first:.2f}", last=f"{last:.2f}"))
    elif last is not None:
        sentences.append(say(lang, "train_loss", last=f"{last:.2f}"))
    if status.get("early_stopped"):
        sentences.append(say(lang, "train_early_stopped"))
    if status.get("best_step") is not None:
        sentences.append(say(lang, "train_kept", step=status["best_step"], steps=status.get("steps", "?")))
    return say(lang, "space").join(sentences)


def source_line(status: Mapping[str, Any], lang: str) -> str:
    """Which source served the model, in small below the headline; "" where it was here already."""
    key = f"source_{status.get('model_source', '').lower().replace(' ', '_')}"
    return f'<p class="muted small">{say(lang, key)}</p>' if key in TEXTS[lang] else ""


def log_tail(run: runs.Run) -> str:
    """The end of the training log, the last state of each progress line only."""
    if not run.log_path.is_file():  # nor a pipe, of which nobody knows when its end comes
        return ""
    with run.log_path.open("rb") as file:
        file.seek(max(run.log_path.stat().st_size - LOG_BYTES, 0))
        text = file.read(LOG_BYTES).decode("utf-8", "replace")
    lines = [line.rsplit("\r", 1)[-1] for line in text.splitlines()[-200:]]
    return f'<pre class="cmd log">{html.esc(chr(10).join(lines))}</pre>'
