"""A parallel plot as SVG: an upright axis a quantity, and each combination of values a line across them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftdemo import files
from sftdemo.ui.parts.html import esc
from sftdemo.ui.parts.line_chart import BOTTOM, HEIGHT, LEFT, WIDTH, saved_as

TOP, MARKS = 8, 5
MOST_MARKS = 9  # values that stand beside an axis


@dataclass(frozen=True)
class Axis:
    """One quantity; `evenly` spread values stand as far apart as each other, whatever lies between."""

    name: str
    evenly: bool = False


@dataclass(frozen=True)
class Thread:
    """One line: a value for each axis, None where there is none, and the classes that it is drawn with."""

    name: str
    values: Sequence[float | None]
    kind: str = ""


def parallel_plot(title: str, axes: Sequence[Axis], threads: Sequence[Thread], file: str, lang: str) -> str:
    """The picture with what it shows in a line above, "" without a line; links save it, and its figures."""
    if not threads:
        return ""
    columns = [
        [value for value in column if value is not None] for column in zip(*(t.values for t in threads), strict=True)
    ]
    scales = [_Scale(axis, values) for axis, values in zip(axes, columns, strict=True)]
    places = [LEFT + (WIDTH - 2 * LEFT) * place / (len(axes) - 1) for place in range(len(axes))]
    parts = [f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM - 8}"/>' for x in places]
    # The best is drawn last, above the others.
    for thread in sorted(threads, key=lambda thread: "best" in thread.kind):
        points = [
            f"{x:.1f},{scale.y(value):.1f}"
            for x, scale, value in zip(places, scales, thread.values, strict=True)
            if value is not None
        ]
        figures = [
            f"{axis.name} {_figure(value)}"
            for axis, value in zip(axes, thread.values, strict=True)
            if value is not None
        ]
        words = esc("\n".join([thread.name, *figures]))
        parts.append(f'<path class="l1 {thread.kind}" d="M{" L".join(points)}"><title>{words}</title></path>')
    parts += [_marks(axis, scale, x) for axis, scale, x in zip(axes, scales, places, strict=True)]
    svg = (
        f'<svg class="chart lines parallel" viewBox="0 -8 {WIDTH + 16} {HEIGHT + 8}" role="img" aria-label="{esc(title)}">'
        f"{''.join(parts)}</svg>"
    )
    rows = [(thread.name, *("" if value is None else value for value in thread.values)) for thread in threads]
    csv = files.csv_text(["name", *(axis.name for axis in axes)], rows)
    return f'<p class="muted small">{esc(title)}</p>{svg}<div class="legend">{saved_as(svg, file, csv, lang)}</div>'


class _Scale:
    """Where the values of an axis stand, the lowest at the bottom."""

    def __init__(self, axis: Axis, values: Sequence[float]) -> None:
        distinct = sorted(set(values)) or [0.0]
        self.steps = distinct if axis.evenly else []
        self.low, self.high = distinct[0], distinct[-1]
        if axis.evenly:
            stride = -(-len(distinct) // MOST_MARKS)
            self.marks = [*distinct[:-1:stride], distinct[-1]]
        else:
            span = self.high - self.low
            self.marks = [self.low + span * mark / (MARKS - 1) for mark in range(MARKS)] if span else [self.low]

    def y(self, value: float) -> float:
        if self.steps:
            share = self.steps.index(value) / max(len(self.steps) - 1, 1) if len(self.steps) > 1 else 0.5
        else:
            share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return TOP + (HEIGHT - BOTTOM - TOP - 8) * (1 - share)


def _marks(axis: Axis, scale: _Scale, x: float) -> str:
    """An axis' values and its name, above the lines."""
    parts = [
        f'<text x="{x - 6:.1f}" y="{scale.y(mark) + 4:.1f}" text-anchor="end">{_figure(mark)}</text>'
        for mark in scale.marks
    ]
    parts.append(f'<text class="strong" x="{x:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{esc(axis.name)}</text>')
    return "".join(parts)


def _figure(value: float) -> str:
    return f"{value:.3g}"
