"""Systems on the same rows: what each is called, the table of them, and the picture of score against time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from sftdemo import files
from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.summary import bracketed, difference_of
from sftdemo.evaluation.systems_table import QUANTIZED, Named, sentence, sides_as_systems
from sftdemo.ui.parts import charts, html
from sftdemo.ui.parts.line_chart import BOTTOM, HEIGHT, HUES, LEFT, WIDTH, letter, saved_as
from sftdemo.ui.parts.page import title_of
from sftdemo.ui.texts import number, say

CROWDED = 16  # pixels between points whose letters would cover each other
LEAST_MS = 0.01  # where less time is drawn, which no clock tells apart
SIDES = ("base", "tuned")


@dataclass(frozen=True)
class Entry:
    """A system as it is shown: its score by the leading metric with its interval, and what it costs."""

    name: str
    title: str
    exact: str  # the same, of a file or an endpoint with its address, where that is for whoever looks to know
    score: float
    interval: Sequence[float] | None
    ms: float | None
    training_seconds: float | None
    size: int | None


def system_name(name: str, lang: str, owner: bool = True) -> str:
    """What a system is called on the page; where an endpoint is, and the owner's other runs and files, only the owner sees."""
    if shots := re.fullmatch(r"base\+(\d+)(:nearest)?", name):
        return say(lang, "system_nearest" if shots[2] else "system_shots", n=number(int(shots[1])))
    if name in ("linear", "majority", "copy"):
        return say(lang, f"system_{name}")
    if name in QUANTIZED:
        return say(lang, "system_quantized" if QUANTIZED[name] else "system_merged", kind=QUANTIZED[name])
    if name in SIDES:
        return say(lang, f"name_{name}")
    if is_named(name) and not owner:
        return say(lang, f"system_{name.partition(':')[0]}")
    if name.startswith("run:"):
        return title_of(name)
    if name.startswith("file:"):
        return PurePath(name).name
    known = Named.of(name)
    return known.zh if lang == "zh" else known.en.removeprefix("the ")


def is_named(name: str) -> bool:
    """Whether a system's name says which run, file or endpoint it is, which is the owner's to know."""
    return name.startswith(("run:", "file:", "api:"))


def choices(names: Sequence[str], lang: str, owner: bool) -> list[tuple[str, str]]:
    """Systems for a menu, by their place: names of files and endpoints are for the owner alone."""
    return [(system_name(name, lang, owner), str(place)) for place, name in enumerate(names)]


def entries(scores: Mapping[str, Any], lang: str, owner: bool) -> list[Entry]:
    """Every system, the best first."""
    metric, intervals = scores["leading"], scores.get("intervals", {})
    listed = [
        Entry(
            name,
            system_name(name, lang, owner),
            name if owner and name.startswith(("file:", "api:")) else system_name(name, lang, owner),
            facts["scores"][metric],
            intervals.get(name, {}).get(metric),
            facts.get("ms_per_answer"),
            facts.get("training_seconds"),
            facts.get("bytes"),
        )
        for name, facts in {**sides_as_systems(scores), **scores["systems"]}.items()
    ]
    return sorted(listed, key=lambda entry: entry.score, reverse=METRICS[metric].higher_is_better)


def systems(
    scores: Mapping[str, Any], lang: str, owner: bool, compared: Mapping[str, Any] | None = None, run: str = ""
) -> str:
    """Every system on these rows, best first: its score, what the tuned model has more, or the one `compared` to the others,
    and what an answer costs; the same as a picture and in sentences."""
    if not scores.get("systems"):
        return ""
    metric, listed = scores["leading"], entries(scores, lang, owner)
    compared = compared or scores.get("to")
    to = compared["system"] if compared else "tuned"
    differences = compared["difference"] if compared else _to_tuned(scores)
    rows: list[Any] = []
    for entry in listed:
        more = "–"
        if entry.name in differences:
            more = bracketed(metric, difference_of(differences[entry.name][metric]))[lang == "zh"]
        score = f"<b>{charts.shown(metric, entry.score)}</b>"
        if entry.interval:
            low, high = (charts.shown(metric, end) for end in entry.interval)
            score += f' <span class="muted small num">{low} … {high}</span>'
        size = None if entry.size is None else entry.size / 10**6
        costs = (_figure(entry.training_seconds, 1), _figure(entry.ms, 2), _figure(size, 1))
        called = f'<span title="{html.esc(entry.exact)}">{html.esc(entry.title)}</span>'
        rows.append((None, [called, score, html.esc(more), *costs], False))
    headers = [say(lang, "system_head"), say(lang, f"metric_{metric}")]
    headers.append(say(lang, "system_more", name=system_name(to, lang, owner)))
    headers += [say(lang, key) for key in ("system_training", "system_ms", "system_size")]
    verdicts = "".join(
        f'<p class="small">{html.esc(line)}</p>' for line in _sentences(scores, to, differences, lang, owner)
    )
    by = say(lang, "system_by", metric=say(lang, f"metric_{metric}"))
    verdicts = f'<p class="muted small">{html.esc(by)}</p>{verdicts}'
    facts = "".join(f'<p class="muted small">{html.esc(line)}</p>' for line in _on_costs(scores, lang, owner))
    picture = score_against_time(listed, metric, lang, run)
    return html.sheet(f"{verdicts}{picture}{html.table(headers, rows)}{facts}", say(lang, "systems_title"))


def _to_tuned(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {"base": scores["difference"], **{name: facts["difference"] for name, facts in scores["systems"].items()}}


def _sentences(scores: Mapping[str, Any], to: str, differences: Mapping[str, Any], lang: str, owner: bool) -> list[str]:
    """One sentence a system; base against tuned has its own at the top of the page."""
    metric, facts = scores["leading"], {**sides_as_systems(scores), **scores["systems"]}

    def named(name: str) -> Named:
        ms = facts[name].get("ms_per_answer")
        title = system_name(name, lang, owner)
        if is_named(name) and not owner:
            return Named(title, title, ms)
        return Named.of(f"run:{title}" if name.startswith("run:") else name, ms)

    others = [name for name in differences if {name, to} != set(SIDES)]
    return [
        sentence(named(to), named(name), differences[name][metric], metric, scores["n"], scores.get("groups"))[lang]
        for name in others
    ]


def _on_costs(scores: Mapping[str, Any], lang: str, owner: bool) -> list[str]:
    """Whose time the run's own sides have, what endpoints counted and cost, and what they said of themselves, which is the
    owner's."""
    lines = [say(lang, "system_shared")] if scores.get("ms_per_answer") and "ms_by_side" not in scores else []
    for name, facts in scores["systems"].items():
        if tokens := facts.get("tokens"):
            line = say(
                lang,
                "system_tokens",
                name=system_name(name, lang, owner),
                prompt=number(tokens.get("prompt_tokens", 0)),
                answer=number(tokens.get("completion_tokens", 0)),
            )
            if "cost" in facts:
                line += say(lang, "system_cost", cost=f"{facts['cost']:.4g}")
            if owner and (about := facts.get("about")):
                line += " · " + ", ".join(f"{key} {value}" for key, value in about.items())
            lines.append(line)
    return lines


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


# The picture


def score_against_time(listed: Sequence[Entry], metric: str, lang: str, run: str) -> str:
    """A point a system, milliseconds an answer from left to right on a logarithmic scale, with intervals as bars; links save
    it, and its figures."""
    timed = [entry for entry in listed if entry.ms is not None]
    if not timed:
        return ""
    factor = 100 if METRICS[metric].is_rate else 1
    low, high = _range([edge * factor for entry in timed for edge in (entry.interval or [entry.score])])
    decades = [math.log10(max(entry.ms or 0, LEAST_MS)) for entry in timed]
    first, last = math.floor(min(decades)), max(math.ceil(max(decades)), math.floor(min(decades)) + 1)

    def x(decade: float) -> float:
        return LEFT + 20 + (WIDTH - LEFT - 50) * (decade - first) / (last - first)

    def y(score: float) -> float:
        return (HEIGHT - BOTTOM - 4) * (high - score * factor) / (high - low)

    parts = [_axis(low, high, factor)]
    parts += [
        f'<text x="{x(decade):.1f}" y="{HEIGHT - 4}" text-anchor="middle">{10.0**decade:g}{" ms" * (decade == last)}</text>'
        f'<line class="grid" x1="{x(decade):.1f}" x2="{x(decade):.1f}" y1="0" y2="{HEIGHT - BOTTOM - 4}"/>'
        for decade in range(first, last + 1)
    ]
    key = []
    points = [(x(decade), y(entry.score)) for entry, decade in zip(timed, decades, strict=True)]
    for place, (entry, at) in enumerate(zip(timed, points, strict=True)):
        look = "base" if entry.name == "base" else f"d{_hue(entry, timed)}"
        if entry.interval:
            ends = f'y1="{y(entry.interval[0]):.1f}" y2="{y(entry.interval[1]):.1f}"'
            parts.append(f'<line class="whisker" x1="{at[0]:.1f}" x2="{at[0]:.1f}" {ends}/>')
        title = f"{entry.title}: {charts.shown(metric, entry.score)}, {_figure(entry.ms, 2)} ms"
        parts.append(
            f'<circle class="{look}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="6"><title>{html.esc(title)}</title></circle>'
            f'<text class="strong" x="{letter_x(points, place):.1f}" y="{at[1] + 4:.1f}">{letter(place)}</text>'
        )
        key.append(f"<span><b>{letter(place)}</b> {html.esc(entry.title)}</span>")
    name = say(lang, "system_picture", metric=say(lang, f"metric_{metric}"))
    svg = (
        f'<svg class="chart lines" viewBox="0 -8 {WIDTH + 16} {HEIGHT + 8}" role="img" aria-label="{html.esc(name)}">'
        f"{''.join(parts)}</svg>"
    )
    untimed = [entry.title for entry in listed if entry.ms is None]
    note = f"<span>{say(lang, 'system_untimed', names=html.esc(', '.join(untimed)))}</span>" if untimed else ""
    saving = saved_as(svg, f"systems-{run}" if run else "systems", _csv(listed, metric), lang)
    return (
        f'<p class="muted small">{html.esc(name)}</p><div id="systems-picture">{svg}</div>'
        f'<div class="legend keys">{"".join(key)}</div><div class="legend">{note}{saving}</div>'
    )


def letter_x(points: Sequence[tuple[float, float]], place: int) -> float:
    """Where a point's letter begins: beside it, and behind the letters of those before it in the same place."""
    return points[place][0] + 10 + CROWDED * sum(math.dist(points[place], other) < CROWDED for other in points[:place])


def _hue(entry: Entry, timed: Sequence[Entry]) -> int:
    """The tuned model has the first colour, as everywhere; the others the next ones."""
    others = [each.name for each in timed if each.name not in SIDES]
    return 1 if entry.name == "tuned" else 2 + others.index(entry.name) % (HUES - 1)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Round ends a little outside of all values."""
    low, high = min(values), max(values)
    step = 10 if high - low > 20 else 5 if high - low > 5 else 1
    bottom, top = step * math.floor(low / step), step * math.ceil(high / step)
    return float(bottom), float(top if top > bottom else bottom + step)


def _axis(low: float, high: float, factor: int) -> str:
    unit = " %" if factor == 100 else ""
    parts = []
    for quarter in range(5):
        value, y = high - (high - low) * quarter / 4, (HEIGHT - BOTTOM - 4) * quarter / 4
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}{unit}</text>')
    return "".join(parts)


def _csv(listed: Sequence[Entry], metric: str) -> str:
    """The figures of the picture, and what has no place in it."""
    header = ("system", metric, "low", "high", "ms_per_answer", "training_seconds", "bytes")
    rows = [
        (entry.exact, entry.score, *(entry.interval or ("", "")), entry.ms, entry.training_seconds, entry.size)
        for entry in listed
    ]
    return files.csv_text(header, [tuple("" if cell is None else cell for cell in row) for row in rows])
