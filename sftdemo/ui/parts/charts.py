"""Charts as inline SVG and HTML: light, themed by the style sheet, redrawn without flicker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo.evaluation.registry import METRICS
from sftdemo.ui.parts.html import cut, esc
from sftdemo.ui.parts.line_chart import Line, Point, downloads, key, letter, line_chart
from sftdemo.ui.texts import number, say

SHOWN = 7  # metrics in sight; the others are a click away


@dataclass
class Curve:
    """The losses of one run: (step, loss) points of training and of validation."""

    name: str
    train: list[Point] = field(default_factory=list)
    validation: list[Point] = field(default_factory=list)


def curve(name: str, metrics: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve in the rows of a run's metrics.jsonl; rows may hold a loss, an eval_loss, or both."""
    return Curve(name, values(metrics, "loss"), values(metrics, "eval_loss"))


def smoothed(points: Sequence[Point], weight: float = 0.7) -> list[Point]:
    """The running mean of the losses, started without a pull to zero."""
    means, mean, mass = [], 0.0, 0.0
    for step, loss in points:
        mean, mass = weight * mean + (1 - weight) * loss, weight * mass + (1 - weight)
        means.append((step, mean / mass))
    return means


def values(metrics: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """The (step, value) points of one key in the rows of metrics.jsonl."""
    points = ((float(row["step"]), row.get(key)) for row in metrics)
    return [(step, float(value)) for step, value in points if value is not None and math.isfinite(value)]


def loss_chart(curves: Sequence[Curve], lang: str, total: float | None = None, save: bool = False) -> str:
    """Training and validation loss over the steps: of one run also each step, faint; several runs by colour, dashes and
    letter. With `save` there are links that save chart and figures."""
    alone, lines, legend = len(curves) == 1, [], []
    for place, drawn in enumerate(curves):
        mark = "" if alone else letter(place)
        mean = Line(drawn.name if not alone else say(lang, "chart_train"), smoothed(drawn.train), place, mark)
        if alone:
            lines.append(Line("", drawn.train, place, kind="faint"))
        name = say(lang, "chart_validation") if alone else f"{drawn.name}, {say(lang, 'chart_validation')}"
        validation = Line(name, drawn.validation, place, kind="dashed" if alone else "faint", dots=True)
        lines += [mean, validation]
        legend.append(key(mean, mean.name))
        if alone and drawn.validation:
            legend.append(key(validation, validation.name))
    if not alone and any(drawn.validation for drawn in curves):
        legend.append(f"<span>{say(lang, 'chart_dots')}</span>")
    if alone and curves[0].train:
        legend.append(f"<span>{say(lang, 'chart_smoothed')}</span>")
    svg = line_chart(say(lang, "chart_loss"), lines, lang, total)
    if not svg:
        return ""
    saving = downloads(svg, f"loss-{curves[0].name}", "loss", lines, lang) if save else ""
    return f'{svg}<div class="legend">{"".join(legend)}{saving}</div>'


def histogram(binned: Mapping[str, Any] | None, title: str, limit: str = "") -> str:
    """How lengths are spread over bins of one width; a dashed line for the limit, or where it lies beyond, a word."""
    if not binned:
        return ""
    width, height, counts = 320, 110, binned["counts"]
    low, last = binned["low"], binned["low"] + binned["width"] * len(counts) - 1
    line = binned["limit"] or 0
    drawn = bool(limit) and low <= line <= low + 1.6 * (last - low + 1)
    span = max(last, line if drawn else 0) - low + 1
    room, tallest = width * binned["width"] / span, max(counts)
    parts = []
    for index, n in enumerate(counts):
        start = low + index * binned["width"]
        kind = "base" if limit and start > line else "tuned"
        edges = f"{start}" if binned["width"] == 1 else f"{start}–{start + binned['width'] - 1}"
        parts.append(
            f'<rect class="{kind}" x="{index * room:.1f}" width="{max(room - 1.5, 1):.1f}" y="{height * (1 - n / tallest):.1f}"'
            f' height="{height * n / tallest:.1f}" rx="1.5"><title>{edges}: {n}</title></rect>'
        )
    right = str(last)
    if drawn:
        x = width * (line - low + 1) / span
        anchor = "end" if x > width / 2 else "start"
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="-12" y2="{height}"/>')
        parts.append(
            f'<text class="strong" x="{x + (-5 if anchor == "end" else 5):.1f}" y="-3" text-anchor="{anchor}">{esc(limit)}</text>'
        )
    elif limit:
        right += f" · {limit}"
    axis = f'<text x="0" y="{height + 14}">{low}</text>'
    if not drawn or line <= last:
        axis += f'<text x="{width}" y="{height + 14}" text-anchor="end">{esc(right)}</text>'
    return (
        f'<svg class="chart" viewBox="0 -14 {width} {height + 32}" role="img" aria-label="{esc(title)}">'
        f"{''.join(parts)}{axis}</svg>"
    )


def label_bars(labels: Mapping[str, int], most: int = 8, after: Mapping[str, int] | None = None) -> str:
    """How often each label occurs, the most frequent first; `after`, in the accent, how often in training."""
    ordered = sorted(labels.items(), key=lambda item: -item[1])
    top = max([*labels.values(), *(after or {}).values(), 1])
    rows = []
    for name, n in ordered[:most]:
        bars, count = f'<div class="bar" style="width:{100 * n / top:.1f}%"></div>', number(n)
        if after and name in after:
            bars += f'<div class="bar after" style="width:{100 * after[name] / top:.1f}%"></div>'
            count += f" → {number(after[name])}"
        rows.append(f'<span>{esc(cut(name, 24))}</span><div>{bars}</div><span class="num">{count}</span>')
    if len(ordered) > most:
        rows.append(f'<span class="muted">+ {len(ordered) - most}</span><span></span><span></span>')
    return f'<div class="bars">{"".join(rows)}</div>'


def split_bar(sizes: Mapping[str, int]) -> str:
    """The splits as shares of one bar, each with its count below."""
    parts = [(name, n, f"part{index}") for index, (name, n) in enumerate(sizes.items()) if n]
    cells = "".join(f'<div class="{css}" style="flex:{n}" title="{esc(name)} {n}"></div>' for name, n, css in parts)
    legend = "".join(f'<span><i class="{css}"></i>{esc(name)} {number(n)}</span>' for name, n, css in parts)
    return f'<div class="split">{cells}</div><div class="legend split-legend">{legend}</div>'


def shown(metric: str, value: float) -> str:
    """A score as the field writes it: rates in percent, which no line breaks off, the others on their scale of 100."""
    known = METRICS[metric]
    return f"{100 * value:.1f}\xa0%" if known.is_rate else f"{value:.{known.digits}f}"


def gained(metric: str, delta: float) -> str:
    """A difference of scores, with its sign where it has one, in the units of `shown`; rates in points of percent."""
    known = METRICS[metric]
    text = f"{100 * delta:+.1f}" if known.is_rate else f"{delta:+.{known.digits}f}"
    return text if float(text) else text[1:]


def spread(metric: str, gain: Mapping[str, Any], lang: str) -> str:
    """The interval of a difference; a word where both tie however the rows are drawn."""
    low, high, nothing = (gained(metric, value) for value in (gain["low"], gain["high"], 0.0))
    return say(lang, "gain_tied") if low == high == nothing else f"{low} … {high}"


def lane(metric: str, value: float, side: str, name: str, interval: tuple[float, float] | None) -> str:
    """One bar with its number beside it, and whiskers where there is an interval."""
    scale = 100.0 if METRICS[metric].is_rate else 1.0
    share = min(max(value * scale, 0.0), 100.0)
    text = f"{name} {shown(metric, value)}"
    whisker = ""
    if interval and interval[0] < interval[1]:
        low, high = (min(max(edge * scale, 0.0), 100.0) for edge in interval)
        whisker = f'<span class="ci" style="left:{low:.1f}%;width:{max(high - low, 0.3):.1f}%"></span>'
    return (
        f'<div class="lane-row"><div class="lane {side}-lane"><div class="fill" style="width:{share:.1f}%"></div>{whisker}'
        f'</div><span class="v">{esc(text)}</span></div>'
    )


def score_figures(metric: str, scores: Mapping[str, Any], lang: str) -> str:
    """One metric of an evaluation: two bars and what was gained, with its interval."""
    base, tuned = scores["base"][metric], scores["tuned"][metric]
    gain = scores.get("difference", {}).get(metric) or {}
    known = gain.get("low") is not None and gain.get("high") is not None
    interval = (base + gain["low"], base + gain["high"]) if known else None
    if not METRICS[metric].higher_is_better:  # no bars: a longer one would look better
        sides = (("base", base), ("tuned", tuned))
        pair = "".join(
            f'<div class="plain-lane">{say(lang, "name_" + side)} {shown(metric, v)}</div>' for side, v in sides
        )
    else:
        pair = lane(metric, base, "base", say(lang, "name_base"), None)
        pair += lane(metric, tuned, "tuned", say(lang, "name_tuned"), interval)
    edges = f'<span class="ci">{spread(metric, gain, lang)}</span>' if known else ""
    return f'<div class="pair">{pair}</div><div class="gain">{gained(metric, tuned - base)}{edges}</div>'


def score_rows(scores: Mapping[str, Any], lang: str) -> str:
    """Every metric as two bars, base grey and tuned accent; the whisker is the interval of the gain. Metrics whose bars
    would be identical share them."""
    names_by_figures: dict[str, list[str]] = {}
    leading = scores.get("leading")
    for metric in sorted(METRICS, key=lambda name: name != leading):
        base, tuned = scores["base"].get(metric), scores["tuned"].get(metric)
        if base is None or tuned is None:
            continue
        figures = score_figures(metric, scores, lang)
        names_by_figures.setdefault(figures, []).append(metric)
    rows = []
    for figures, names in names_by_figures.items():
        title, *same = (say(lang, "metric_" + name) for name in names)
        why = say(lang, "scores_same", names=say(lang, "comma").join(same)) if same else say(lang, "why_" + names[0])
        rows.append(
            f'<div class="score"><div class="metric">{title}<span class="why">{why}</span></div>{figures}</div>'
        )
    first, more = "".join(rows[:SHOWN]), "".join(rows[SHOWN:])
    if more:
        title = say(lang, "scores_more", n=len(rows) - SHOWN)
        more = f'<details><summary>{title}</summary><div class="scores">{more}</div></details>'
    return f'<div class="scores">{first}{more}</div>'


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]], side: str, lang: str) -> str:
    """True labels down, answers across, the last column for answers that are no label."""
    names = [*labels, say(lang, "name_unparsed")]
    head = "".join(f'<th title="{esc(name)}"><span>{esc(name)}</span></th>' for name in names)
    zero = '<i class="zero">·</i>'
    body = []
    for i, (label, row) in enumerate(zip(labels, matrix, strict=False)):
        whole = max(sum(row), 1)
        cells = "".join(
            f'<td class="{"d" if i == j else ""}" style="background:color-mix(in srgb, var(--{side}) {45 * n / whole:.0f}%, transparent)">{n or zero}</td>'
            for j, n in enumerate(row)
        )
        body.append(f'<tr><th title="{esc(label)}">{esc(label)}</th>{cells}</tr>')
    name = f'<span class="chip {side}">{say(lang, "name_" + side)}</span>'
    return f'<div>{name}<div class="scroll"><table class="cm"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div></div>'


def vote_bar(wins: int, ties: int, both_bad: int, losses: int, lang: str) -> str:
    """Votes for the tuned model, ties, both bad, and votes for the base, as shares of one bar."""
    parts = (
        ("w", wins, "vote_wins"),
        ("t", ties, "vote_ties"),
        ("bb", both_bad, "vote_bads"),
        ("l", losses, "vote_losses"),
    )
    cells = "".join(
        f'<div class="{css}" style="flex:{n}" title="{say(lang, key, n=number(n))}">{say(lang, key, n=number(n))}</div>'
        for css, n, key in parts
        if n
    )
    return f'<div class="wtl">{cells}</div>'
