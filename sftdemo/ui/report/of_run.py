"""What a report says of one run: its result, its answers, how people voted, how it was made, and how to make it again."""

from __future__ import annotations

import csv
import dataclasses
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sftdemo import runs
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.config.train import TrainConfig
from sftdemo.data.sources import card_path, front_matter
from sftdemo.evaluation.registry import METRICS
from sftdemo.runs import Run
from sftdemo.schema.evaluation import Scores
from sftdemo.training.model_card import base_name
from sftdemo.ui.access import private, rights
from sftdemo.ui.parts import charts, html, lineage, preference, scores
from sftdemo.ui.parts.between import p_value
from sftdemo.ui.parts.calibration import calibration
from sftdemo.ui.report import rows
from sftdemo.ui.texts import TEXTS, choices, duration, number, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs import jobs
from sftdemo.votes import Store

MOST_FIELDS = 40
ELSEWHERE = {"data", "model", "name", "resume"}  # settings that stand in other places of a report


def section(title: str, *parts: str) -> str:
    """A part of the report with its heading; nothing where there is nothing to say."""
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>" if any(parts) else ""


def sections(run: Run, lang: str) -> str:
    """All of a report on one run."""
    evaluation = next(iter(run.evaluations()), "")
    measured = run.scores(evaluation) if evaluation else None
    return "".join(
        (
            lede(run, lang),
            section(say(lang, "report_result"), result(measured, lang)),
            section(say(lang, "report_answers"), rows.by_kind(run, evaluation, measured.get("leading", ""), lang))
            if measured
            else "",
            section(say(lang, "report_votes"), votes(run, lang)),
            section(say(lang, "report_training"), training(run, lang)),
            section(say(lang, "report_made"), data(run, lang), settings(run, lang), made_with(run, lang)),
            section(say(lang, "report_again"), html.block(commands(run, measured, lang), "sheet")),
        )
    )


def lede(run: Run, lang: str) -> str:
    """What the run is, in a line: which base on which data, and when."""
    config, status = run.config(), run.status()
    facts = config.get("data", {})
    line = say(
        lang,
        "report_lede",
        base=html.esc(base_of(run)),
        data=html.esc(data_name(run)),
        n=number(facts.get("sizes", {}).get("train", 0)),
    )
    updated = status.get("updated")
    date = time.strftime("%Y-%m-%d", time.localtime(updated)) if updated else ""
    state = say(lang, f"state_{status['state']}")
    error = status.get("error") if status["state"] == "failed" else None
    why = f'<p class="state fault">{html.esc(private.without_paths(in_words(error, lang)))}</p>' if error else ""
    return f'<p class="lede">{" · ".join(filter(None, (line, state, date)))}</p>{why}'


def result(measured: Scores | None, lang: str) -> str:
    """The verdict in words, every score with its interval, what was forgotten, and how all of it was measured."""
    if measured is None:
        return html.empty(say(lang, "evaluate_empty"), say(lang, "report_unmeasured"))
    bars = charts.score_rows(measured, lang) + scores.under_scores(measured, lang)
    return "".join(
        (
            scores.claim(measured, lang),
            html.sheet(bars, say(lang, "scores_title")),
            html.sheet(metrics_table(measured, lang), say(lang, "report_metrics")),
            scores.forgotten(measured, lang),
            calibration(measured, lang),
            confusions(measured, lang),
            scores.fields(with_fewer_fields(measured), lang),
            scores.small_print(measured, lang),
        )
    )


def metrics_table(measured: Scores, lang: str) -> str:
    """Every metric: base, tuned, their difference with its interval, and both p-values."""
    table_rows = []
    for metric, gain in measured["difference"].items():
        if metric not in METRICS:
            continue
        spread = charts.spread(metric, gain, lang)
        p_values = (p_value(gain.get("p")), p_value(gain.get("p_holm")))
        sides = (nowrap(charts.shown(metric, measured[side][metric])) for side in ("base", "tuned"))  # type: ignore[literal-required]
        cells = [say(lang, f"metric_{metric}"), *sides, charts.gained(metric, gain["delta"]), nowrap(spread), *p_values]
        table_rows.append((None, cells, False))
    headers = ("metric", "base", "tuned", "difference", "interval", "p", "p_holm")
    return html.table([say(lang, f"report_column_{name}") for name in headers], table_rows)


def confusions(measured: Scores, lang: str) -> str:
    """As the page has them, with long labels cut."""
    labels = [html.cut(label, 40) for label in measured.get("labels", [])]
    return scores.confusions({**measured, "labels": labels}, lang)


def with_fewer_fields(measured: Scores) -> dict[str, Any]:
    """The scores with the most frequent fields and entities alone."""
    fewer: dict[str, Any] = {**measured}
    for part in ("fields", "entities"):
        by_side: Mapping[str, Any] = fewer.get(part) or {}
        fewer[part] = {
            side: dict(sorted(figures.items(), key=lambda item: -item[1]["support"])[:MOST_FIELDS])
            for side, figures in by_side.items()
        }
    return fewer


def votes(run: Run, lang: str) -> str:
    """Who people prefer and how surely, where somebody voted."""
    if not (runs.home() / "votes.sqlite").is_file():
        return ""
    totals = Store().report(run).totals
    return preference.headline(totals, lang) if totals.n else ""


def training(run: Run, lang: str) -> str:
    """The curve of the losses and what the training came to."""
    status = run.status()
    figures = [(number(status.get("steps", status.get("step", 0))), say(lang, "report_steps"))]
    if seconds := status.get("seconds"):
        figures.append((duration(lang, seconds), say(lang, "report_time")))
    first, last = status.get("first_eval_loss"), status.get("eval_loss")
    if first is not None and last is not None:
        figures.append((f"{first:.2f} → {last:.2f}", say(lang, "chart_validation")))
    drawn = charts.loss_chart([charts.curve(runs.title(run), run.metrics())], lang)
    return html.sheet(html.figures(figures) + drawn)


def data(run: Run, lang: str) -> str:
    """What it was trained on: its name, its hash, how many rows of each split, its labels, and its licence if known."""
    config = run.config()
    facts: Mapping[str, Any] = config.get("data", {})
    if not facts:
        return ""
    hashes = facts.get("files", {})
    splits = [
        (None, [say(lang, f"split_{name}"), number(count), digest(hashes.get(name, ""))], False)
        for name, count in facts.get("sizes", {}).items()
    ]
    licence = front_matter(card_path(str(facts.get("source", "")))).get("license") if facts.get("source") else None
    pairs = [
        (say(lang, "report_data_task"), html.esc(TEXTS[lang].get(f"task_{facts.get('task')}", facts.get("task", "")))),
        ("SHA-256", digest(facts.get("sha256", ""))),
        (say(lang, "report_licence"), html.esc(licence or say(lang, "report_licence_unknown"))),
    ]
    for key in ("dropped", "fixed"):
        if facts.get(key):
            pairs.append((say(lang, f"report_data_{key}"), number(len(facts[key]))))
    labels = facts.get("labels") or {}
    bars = f"<h3>{say(lang, 'data_labels')}</h3>{charts.label_bars(labels, most=scores.MOST_LABELS)}" if labels else ""
    headers = [say(lang, f"report_column_{name}") for name in ("split", "rows", "hash")]
    origin = config.get("from")
    before = f'<p class="small">{lineage.line(origin, lang)}</p>' if origin and rights.current().owner else ""
    return html.sheet(
        before + listed(pairs) + html.table(headers, splits) + bars, say(lang, "report_data", name=data_name(run))
    )


def settings(run: Run, lang: str) -> str:
    """The settings that aren't their defaults, and folded the others."""
    config = train_config(run)
    changed: list[tuple[str, str]] = []
    defaults: list[tuple[str, str]] = []
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if spec.name in ELSEWHERE:
            continue
        if spec.name == "learning_rate" and value is None:
            value = config.peak_learning_rate
        own = getattr(config, spec.name) != spec.default
        (changed if own else defaults).append((setting_name(spec.name, lang), setting_value(spec.name, value, lang)))
    own_settings = listed(changed) if changed else f"<p>{say(lang, 'report_all_defaults')}</p>"
    return html.sheet(
        own_settings + html.folded(say(lang, "report_defaults"), listed(defaults)), say(lang, "report_settings")
    )


def setting_name(name: str, lang: str) -> str:
    return html.esc(TEXTS[lang].get(f"set_{name}", name))


def setting_value(name: str, value: object, lang: str) -> str:
    """A setting's value as HTML, of a path its last name alone."""
    shown = "–" if value is None else rows.middle_cut(choices.shown(name, private.setting(name, value), lang))
    return f'<span class="ask">{html.esc(shown)}</span>'


def made_with(run: Run, lang: str) -> str:
    """The base, the precision and the libraries."""
    config = run.config()
    licence = "Apache-2.0" if train_config(run).model == DEFAULT_MODEL else say(lang, "report_licence_unknown")
    versions = ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items())
    pairs = [
        (say(lang, "report_base"), html.esc(base_of(run))),
        (say(lang, "report_licence"), licence),
        (say(lang, "report_precision"), html.esc(private.without_paths(in_words(config.get("precision", ""), lang)))),
        (say(lang, "report_versions"), html.esc(versions)),
    ]
    return html.sheet(listed((name, value) for name, value in pairs if value), say(lang, "report_model"))


def commands(run: Run, measured: Scores | None, lang: str) -> str:
    """What to type to train, evaluate and report it again, with the data and the base by their names alone."""
    config = train_config(run)
    model = config.model if config.model == DEFAULT_MODEL else base_of(run)
    lines = [jobs.command(dataclasses.replace(config, model=model, name=run.name, resume=None))]
    if measured is not None:
        asked = known(EvaluateConfig, measured.get("settings", {}))
        lines.append(shlex.join(["python", "-m", "sftdemo", "evaluate", run.name, *jobs.flags(asked)]))
    lines.append(shlex.join(["python", "-m", "sftdemo", "report", run.name, "--to", f"{run.name}.html"]))
    note = f'<p class="muted small">{say(lang, "report_again_note")}</p>'
    return f'{note}<pre class="cmd">{html.esc(chr(10).join(lines))}</pre>'


def known(owner: type[Any], values: Mapping[str, Any]) -> Any:
    """A config of the settings that this version knows, as others may read them: of each path its last name alone."""
    names = {spec.name for spec in dataclasses.fields(owner)}
    return owner(
        **{
            name: public_value(name, value) if isinstance(value, str) else value
            for name, value in values.items()
            if name in names
        }
    )


def public_value(name: str, value: str) -> str | None:
    """A setting as anybody may read it: of the systems to compare with, no runs, files and endpoints, as those are the owner's."""
    if name != "against":
        return private.setting(name, value)
    systems = next(csv.reader([value], skipinitialspace=True), [])
    return ",".join(system for system in systems if re.fullmatch(r"[\w+-]+(:nearest)?", system.strip())) or None


def train_config(run: Run) -> TrainConfig:
    config: TrainConfig = known(TrainConfig, run.config().get("settings", {}))
    return config


def base_of(run: Run) -> str:
    """What the base is called; of a local folder its name alone."""
    config = run.config()
    return base_name({**config, "settings": {"model": DEFAULT_MODEL, **config["settings"]}})


def data_name(run: Run) -> str:
    """What the data is called: of a path the file's name alone, as the folders above it tell of the machine."""
    return train_config(run).data or ""


def nowrap(text: str) -> str:
    return f'<span class="nowrap">{text}</span>'


def digest(sha256: str) -> str:
    return f'<span class="hash">{html.esc(sha256)}</span>'


def listed(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, as HTML, a line each."""
    lines = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in pairs)
    return f'<table class="t facts">{lines}</table>'
