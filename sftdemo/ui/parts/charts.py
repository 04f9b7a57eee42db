"""Charts as inline SVG and HTML: light, themed by the style sheet, redrawn without flicker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo.evaluation.registry import METRICS
from sftdemo.ui.parts.html import cut, esc
from sftdemo.ui.texts import number, say

SHOWN = 7  # metrics in sight; the others are a click away
Point = tuple[float, float]


@dataclass
class Curve:
    """The losses of one run: (step, loss) points of training and of validation."""

    name: str
    train: list[Point] = field(default_factory=list)
    validation: list[Point] = field(default_factory=list)


def curve(name: str, metrics: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve in the rows of a run's metrics.jsonl; rows may hold a loss, an eval_loss, or both."""
    losses = Curve(name)
    for row in metrics:
        for key, points in (("loss", losses.train), ("eval_loss", losses.validation)):
            value = row.get(key)
            if value is not None and math.isfinite(value):
                points.append((float(row["step"]), float(value)))
    return losses


def thinned(points: Sequence[Point], most: int = 400) -> list[Point]:
    """At most about `most` of the points, the last always among them."""
    stride = max(1, math.ceil(len(points) / most))
    return [*points[:-1:stride], points[-1]] if points else []


def smoothed(points: Sequence[Point], weight: float = 0.7) -> list[Point]:
    """The running mean of the losses, started without a pull to zero."""
    means, mean, mass = [], 0.0, 0.0
    for step, loss in points:
        mean, mass = weight * mean + (1 - weight) * loss, weight * mass + (1 - weight)
        means.append((step, mean / mass))
    return means


def ticks(high: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least `high`."""
    high = max(high, 1e-9)
    raw = high / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    return [step * i for i in range(math.ceil(high / step - 1e-9) + 1)]


def loss_chart(curves: Sequence[Curve], lang: str, total: float | None = None) -> str:
    """Training (faint, with its running mean) and validation loss over the steps. The first run has the accent."""
    points = [point for drawn in curves for point in (*drawn.train, *drawn.validation)]
    if not points:
        return ""
    width, height, left, bottom = 760, 230, 34, 22
    x_high = max(total or 0, *(step for step, _ in points), 1)
    y_marks = ticks(max(loss for _, loss in points) * 1.05)
    y_high = y_marks[-1]

    def path(line: Sequence[Point], classes: str) -> str:
        spots = [
            (left + (width - left) * s / x_high, (height - bottom) * (1 - loss / y_high)) for s, loss in thinned(line)
        ]
        return f'<path class="{classes}" d="M{" L".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>' if spots else ""

    parts = []
    for mark in y_marks:
        y = (height - bottom) * (1 - mark / y_high)
        parts.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    parts.append(f'<text x="{left}" y="{height - 4}">0</text>')
    parts.append(
        f'<text x="{width}" y="{height - 4}" text-anchor="end">{say(lang, "chart_step", step=f"{x_high:g}")}</text>'
    )
    legend = []
    for hue, drawn in enumerate(curves, start=1):  # 0 is the base's grey, which no run has
        parts.append(path(drawn.train, f"l{hue} faint") + path(smoothed(drawn.train), f"l{hue}"))
        parts.append(path(drawn.validation, f"l{hue} dashed"))
        for step, loss in drawn.validation[-1:]:
            x, y = left + (width - left) * step / x_high, (height - bottom) * (1 - loss / y_high)
            parts.append(f'<circle class="d{hue}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        label = say(lang, "chart_train") if len(curves) == 1 else esc(drawn.name)
        legend.append(f'<span><i class="k{hue}"></i>{label}</span>')
        if drawn.validation and len(curves) == 1:
            legend.append(f'<span><i class="k{hue} dash"></i>{say(lang, "chart_validation")}</span>')
    if len(curves) > 1:
        legend.append(f"<span>{say(lang, 'chart_dashed')}</span>")
    title = say(lang, "chart_loss")
    return (
        f'<svg class="chart" viewBox="0 -8 {width} {height + 8}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
        f'<div class="legend">{"".join(legend)}</div>'
    )


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
        right += f"   ({limit})"
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
    """A score as the field writes it: rates in percent, the others on their scale of 100."""
    known = METRICS[metric]
    return f"{100 * value:.1f} %" if known.is_rate else f"{value:.{known.digits}f}"


def gained(metric: str, delta: float) -> str:
    """A difference of scores, with its sign, in the units of `shown`; rates in points of percent."""
    known = METRICS[metric]
    return f"{100 * delta:+.1f}" if known.is_rate else f"{delta:+.{known.digits}f}"


def lane(metric: str, value: float, side: str, name: str, interval: tuple[float, float] | None) -> str:
    """One bar with its number beside it, and whiskers where there is an interval."""
    scale = 100.0 if METRICS[metric].is_rate else 1.0
    share = min(max(value * scale, 0.0), 100.0)
    text = f"{name} {shown(metric, value)}"
    whisker = ""
    if interval:
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
    spread = " … ".join(gained(metric, gain[end]) for end in ("low", "high")) if known else ""
    spread = f'<span class="ci">{spread}</span>' if known else ""
    return f'<div class="pair">{pair}</div><div class="gain">{gained(metric, tuned - base)}{spread}</div>'


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
            f'<td class="{"d" if i == j else ""}" style="background:color-mix(in srgb, var(--{side}) {75 * n / whole:.0f}%, transparent)">{n or zero}</td>'
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
