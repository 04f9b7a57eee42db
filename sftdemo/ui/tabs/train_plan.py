"""The plan on Train in a sentence: model, method, data, length, time and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path
from statistics import median
from typing import Any

from sftdemo import runs
from sftdemo.config.kinds import CHAT, LABELLING, SEQ2SEQ
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.config.train import TrainConfig
from sftdemo.model import download, encoder_memory, memory_estimate, validation
from sftdemo.system import compute
from sftdemo.ui import chosen_data, models
from sftdemo.ui.parts import html
from sftdemo.ui.texts import choices, duration, number, say, unbroken
from sftdemo.ui.texts.faults import in_words

MODEL_NAMES = {DEFAULT_MODEL: "SmolLM2-135M"}
BYTES_A_TOKEN, TEMPLATE_TOKENS = 3.5, 35  # rough, for the estimate before a tokenizer is at hand
USUAL_SPEED = 300.0  # tokens/s of the default model on two cores; a finished run's own speed takes its place
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"max_examples": 150, "epochs": 1.0},
    "balanced": {"max_examples": 600, "epochs": 2.0},
    "thorough": {"max_examples": None, "epochs": 3.0},
}
DEFAULT_PRESET = "balanced"
STEPS_TO_TELL = 4  # the first ones hold what is set up once
RUNS_TO_TELL = 5  # of several the median: one may have been trained while the machine was busy with something else
MOST_WEIGHED = 2_000  # rows that the memory estimate looks at


def tokens_of(rows: Sequence[Mapping[str, Any]]) -> float:
    """About how many tokens a row has, from the bytes of some."""
    sample = rows[:200]
    total = sum(len(message["content"].encode()) for row in sample for message in row["messages"])
    return TEMPLATE_TOKENS + total / BYTES_A_TOKEN / max(len(sample), 1)


def measured_speed(config: TrainConfig) -> float | None:
    """Tokens a second of the newest runs of the same kind that took enough steps to tell."""
    same, speeds = ("model", "method", "quantization"), []
    for run in runs.list_runs()[:20]:
        if not models.is_ready(run):
            continue
        status, settings = run.status(), run.config().get("settings", {})
        speed = status.get("tokens_per_s") if (status.get("step") or 0) >= STEPS_TO_TELL else None
        if speed and all(settings.get(key) == getattr(config, key) for key in same):
            speeds.append(float(speed))
    return median(speeds[:RUNS_TO_TELL]) if speeds else None


def estimate(config: TrainConfig, rows: Sequence[Mapping[str, Any]], speed: float | None) -> float:
    """About how many seconds the training takes."""
    return _seconds(config, len(rows), tokens_of(rows), speed)


def _seconds(config: TrainConfig, count: int, tokens: float, speed: float | None) -> float:
    """The same of so many rows with so many tokens each."""
    n = min(count, config.max_examples or count)
    seconds = config.rows_seen(n) * tokens / (speed or USUAL_SPEED) + 12 if n else 12.0
    return min(seconds, 60 * config.max_minutes) if config.max_minutes is not None else seconds


def memory_said(config: TrainConfig, rows: Sequence[Mapping[str, Any]], lang: str) -> tuple[str, str]:
    """A note on what the training takes in memory, or what fits where it doesn't; none while the model isn't here."""
    folder = download.here(config.model)
    if folder is None or not rows:
        return "", ""

    def tokens(text: str) -> float:
        return len(text.encode()) / BYTES_A_TOKEN

    sample = rows[: config.max_examples or len(rows)][:MOST_WEIGHED]
    prompts = [row["messages"][0]["content"] for row in sample]
    alike = TEMPLATE_TOKENS // 2 + tokens(commonprefix(prompts))  # noqa: RUF071 (of texts, not of paths)
    lengths = [
        round(TEMPLATE_TOKENS + sum(tokens(message["content"]) for message in row["messages"])) for row in sample
    ]
    learned = [round(2 + tokens(row["messages"][-1]["content"])) for row in sample]
    measured = memory_estimate.LengthStatistics(lengths, learned, min(round(alike), min(lengths) - 1))
    if not measured.up_to(config.max_length).lengths:
        return "", ""
    fit = _judged(folder, config, measured)
    key = "plan_memory" if fit.fits else "plan_memory_ways" if fit.ways else "plan_memory_none"
    sentence = say(
        lang,
        key,
        need=unbroken(memory_estimate.gib(fit.estimate.peak)),
        room=unbroken(memory_estimate.gib(fit.room)),
        ways=say(lang, "or").join(fit.ways),
    )
    return (html.esc(sentence), "") if fit.fits else ("", html.fault(sentence))


def _judged(folder: Path, config: TrainConfig, measured: memory_estimate.LengthStatistics) -> memory_estimate.FitReport:
    """Whether a training of its kind fits, as its process will judge it with the tokens themselves."""
    model, size = memory_estimate.Model.read(folder), compute.size_of(config.precision)
    known = validation.read_json(folder / "config.json", validation.CONFIG_BYTES, str(folder))
    if config.task in LABELLING:
        most = min(config.max_length, known.get("max_position_embeddings") or config.max_length)
        return encoder_memory.judge(model, config, min(max(measured.lengths), most))
    if config.task == SEQ2SEQ and not known.get("is_encoder_decoder"):
        model = model.as_both_parts()
    return memory_estimate.judge(model, config, measured, size)


def lengths(config: TrainConfig, lang: str) -> list[str]:
    """What ends the training: minutes, steps, whichever is over first, or else epochs; a head is fitted in one go."""
    if config.method == "frozen":
        return []
    limits = (("minutes_n", config.max_minutes), ("steps_n", config.max_steps))
    return [say(lang, key, n=f"{value:.10g}") for key, value in limits if value is not None] or [
        say(lang, "epochs_n", n=f"{config.epochs:g}")
    ]


def presets_said(config: TrainConfig, count: int, tokens: float, speed: float | None, lang: str) -> str:
    """How long each preset would take; not where a head is fitted in one go, or minutes or steps end all alike."""
    if config.method == "frozen" or config.max_minutes is not None or config.max_steps is not None:
        return ""
    times = []
    for name, preset in PRESETS.items():
        seconds = _seconds(replace(config, **preset), count, tokens, speed)
        short = say(lang, f"preset_{name}").partition(" · ")[0]
        times.append(f"{short} {duration(lang, seconds)}")
    return say(lang, "plan_presets", times=" · ".join(times))


def plan(config: TrainConfig, rows: Sequence[Mapping[str, Any]], lang: str, unready: str = "") -> str:
    """The plan in one sentence: model, method, data, rows, epochs, time; and what Data shows if it isn't of that."""
    speed, tokens = measured_speed(config), tokens_of(rows)
    n = min(len(rows), config.max_examples or len(rows))
    method = say(lang, f"choice_method_{config.method}")
    if config.quantization != "none":
        method += f" ({config.quantization})"
    parts = [
        html.esc(MODEL_NAMES.get(config.model, config.model)),
        *([] if config.task == CHAT else [say(lang, choices.key("task", config.task))]),
        method,
        html.esc(
            html.cut_name(runs.source_name(config.data).strip(), 40)
        ),  # not always what Data shows: that may be at fault
        say(lang, "rows_n", n=number(n)),
        *([say(lang, "plan_from", run=html.esc(html.cut_name(config.from_run, 40)))] if config.from_run else []),
        *lengths(config, lang),
    ]
    time = f"— {say(lang, 'plan_time', t=duration(lang, _seconds(config, len(rows), tokens, speed)))}"
    basis = say(lang, "plan_measured" if speed else "plan_guess")
    if not speed and config.model != DEFAULT_MODEL and download.here(config.model) is None:
        time, basis = "", say(lang, "plan_fetch")  # whatever it is, nothing is known of it yet
    if time:
        basis += say(lang, "space") + presets_said(config, len(rows), tokens, speed, lang)
    note, warning = memory_said(config, rows, lang)
    if unready:
        of = {"name": html.cut_name(unready, 40), "data": html.cut_name(runs.source_name(config.data).strip(), 40)}
        warning += html.block(html.esc(say(lang, "plan_unready", **of)), "small worse")
    ahead = f'<span class="next muted">{say(lang, "plan_next")}{say(lang, "space")}</span>'  # in sight beside a run (style.css)
    return html.block(
        f'<div class="big" id="plan">{ahead}{" · ".join(parts)} <span class="muted">{time}</span></div>'
        f'<div class="muted small">{basis}{say(lang, "space")}{note}</div>{warning}'
    )


def unlearnable_said(config: TrainConfig, lang: str) -> str:
    """How many rows the training won't have, as those with tool calls that the model's template doesn't write, and why most."""
    faults, looked_at = chosen_data.unlearnable(config)
    return not_learned("plan_unlearnable", faults, lang, of=number(looked_at))


def not_learned(key: str, faults: Sequence[Mapping[str, Any]], lang: str, **counts: str) -> str:
    """The text of `key` on rows that aren't learned: how many, and what is wrong with most of them; "" for none."""
    problems = Counter(fault["problem"] for fault in faults)
    if not problems:
        return ""
    problem, most = problems.most_common(1)[0]
    told = say(lang, key, n=number(problems.total()), m=number(most), problem=in_words(problem, lang), **counts)
    return html.block(html.esc(told), "small worse")
