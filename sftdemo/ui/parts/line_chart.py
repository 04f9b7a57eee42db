"""Lines over the steps of a training as SVG: figures on hover, each line told by colour, dashes and a letter; to download."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

from sftdemo import files
from sftdemo.ui.parts.html import esc
from sftdemo.ui.parts.style import CSS_PATH
from sftdemo.ui.texts import say

Point = tuple[float, float]
HUES, DASHES = 7, 4  # the first is the tuned model's blue, and none is the base's grey
BANDS = 60  # places with figures on hover
WIDTH, HEIGHT, LEFT, BOTTOM = 760, 230, 44, 22
LETTER_GAP = 12  # between letters at the ends of lines


@dataclass
class Line:
    """One line: (step, value) points; `place`, from 0, decides how it looks, and `letter` stands at its end."""

    name: str
    points: Sequence[Point]
    place: int = 0
    letter: str = ""
    kind: str = ""  # more classes: faint, dashed
    dots: bool = False  # points that stand apart, as validation: fewer than three make no line

    @property
    def look(self) -> str:
        """The classes of its path."""
        dash = self.place % DASHES
        return " ".join(filter(None, (f"l{self.place % HUES + 1}", f"p{dash}" if dash else "", self.kind)))


def letter(place: int) -> str:
    return chr(ord("A") + place % 26)


def thinned(points: Sequence[Point], most: int = 400) -> list[Point]:
    """At most about `most` of the points, the last always among them."""
    stride = max(1, math.ceil(len(points) / most))
    return [*points[:-1:stride], points[-1]] if points else []


def ticks(high: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least `high`."""
    high = max(high, 1e-9)
    raw = high / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    return [step * i for i in range(math.ceil(high / step - 1e-9) + 1)]


def line_chart(title: str, lines: Sequence[Line], lang: str, total: float | None = None) -> str:
    """The lines as one SVG, "" without a point. `total` is the last step of the axis, if it is further than the points."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    x_high = max(total or 0, *(step for step, _ in points), 1)
    marks = ticks(max(value for _, value in points) * 1.05)
    parts = _axes(marks, x_high, lang)
    for line in lines:
        places = [_place(point, x_high, marks[-1]) for point in thinned(line.points)]
        if len(places) > (2 if line.dots else 1):
            path = " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<path class="{line.look}" d="M{path}"/>')
        radius = 3.5 if line.dots else 4
        dots = places if line.dots else places[-1:] if not line.letter and "faint" not in line.kind else []
        parts += [f'<circle class="d{line.place % HUES + 1}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in dots]
    parts += _letters(lines, x_high, marks[-1])
    parts += _bands([line for line in lines if "faint" not in line.kind and line.points], x_high, lang)
    return (
        f'<svg class="chart lines" viewBox="0 -8 {WIDTH + 16} {HEIGHT + 8}" role="img" aria-label="{esc(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _place(point: Point, x_high: float, y_high: float) -> Point:
    step, value = point
    return LEFT + (WIDTH - LEFT) * step / x_high, (HEIGHT - BOTTOM) * (1 - value / y_high)


def _axes(marks: Sequence[float], x_high: float, lang: str) -> list[str]:
    parts = []
    for mark in marks:
        y = (HEIGHT - BOTTOM) * (1 - mark / marks[-1])
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:.4g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">0</text>')
    last = say(lang, "chart_step", step=f"{x_high:g}")
    parts.append(f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{last}</text>')
    return parts


def _letters(lines: Sequence[Line], x_high: float, y_high: float) -> list[str]:
    """Each line's letter beside its end, moved apart where lines end together."""
    ends = [(*_place(line.points[-1], x_high, y_high), line) for line in lines if line.letter and line.points]
    parts, lowest = [], -math.inf
    for x, y, line in sorted(ends, key=lambda end: end[1]):
        lowest = max(y + 4, lowest + LETTER_GAP)
        parts.append(
            f'<text class="letter t{line.place % HUES + 1}" x="{x + 6:.1f}" y="{lowest:.1f}">{line.letter}</text>'
        )
    return parts


def _bands(lines: Sequence[Line], x_high: float, lang: str) -> list[str]:
    """Upright bands that show where the pointer is, each with the values there as its title."""
    steps = [step for step, _ in thinned(sorted({(step, 0.0) for line in lines for step, _ in line.points}), BANDS)]
    edges = [(before + after) / 2 for before, after in itertools.pairwise(steps)]
    parts = []
    for step, low, high in zip(steps, [0.0, *edges], [*edges, x_high], strict=True):
        values = [f"{line.letter} {line.name}".strip() + f": {_value_at(line.points, step):.4g}" for line in lines]
        title = esc("\n".join([say(lang, "chart_step", step=f"{step:g}"), *values]))
        left, right, middle = (LEFT + (WIDTH - LEFT) * edge / x_high for edge in (low, high, step))
        parts.append(
            f'<rect class="band" x="{left:.1f}" y="0" width="{max(right - left, 1):.1f}" height="{HEIGHT - BOTTOM}"><title>{title}'
            f'</title></rect><line class="at" x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="{HEIGHT - BOTTOM}"/>'
        )
    return parts


def _value_at(points: Sequence[Point], step: float) -> float:
    """The value at a step, or the nearest one to it."""
    return min(points, key=lambda point: abs(point[0] - step))[1]


def key(line: Line, text: str) -> str:
    """One line's entry in the legend, with a piece of it as it is drawn."""
    piece = f'<svg class="chart swatch" viewBox="0 0 26 8" aria-hidden="true"><path class="{line.look}" d="M0,4 L26,4"/></svg>'
    return f"<span>{piece}{f'<b>{line.letter}</b> ' if line.letter else ''}{esc(text)}</span>"


def downloads(svg: str, name: str, column: str, lines: Sequence[Line], lang: str) -> str:
    """Links that save the chart as SVG, and its figures as CSV; both are in the page, and nothing is asked for."""
    rows = [
        (line.name, f"{step:g}", value) for line in lines if "faint" not in line.kind for step, value in line.points
    ]
    return saved_as(svg, name, files.csv_text(["run", "step", column], rows), lang)


def saved_as(svg: str, name: str, csv: str, lang: str) -> str:
    """Links that save a chart as SVG, and its figures as CSV."""
    figures = "\ufeff" + csv
    links = (("svg", "image/svg+xml", standalone(svg)), ("csv", "text/csv", figures))
    return "".join(
        f'<a class="small-button" download="{esc(name)}.{kind}" href="data:{mime};charset=utf-8,{quote(text)}">'
        f"{say(lang, 'chart_save', kind=kind.upper())}</a>"
        for kind, mime, text in links
    )


def standalone(svg: str) -> str:
    """The chart as a file of its own, in the colours of the light page."""
    size = f'xmlns="http://www.w3.org/2000/svg" width="{(WIDTH + 16) * 2}" height="{(HEIGHT + 8) * 2}"'
    ground = f'<rect x="0" y="-8" width="{WIDTH + 16}" height="{HEIGHT + 8}" fill="#fff"/>'
    head, _, rest = svg.partition(">")
    return f"{head.replace('<svg', f'<svg {size}', 1)}><style>{_own_style()}</style>{ground}{rest}"


@cache
def _own_style() -> str:
    """The rules of the style sheet that are for charts, with the light colours in the place of variables."""
    sheet = CSS_PATH.read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): ([^;]+);", sheet[: sheet.index(".dark {")]))
    rules = " ".join(re.findall(r"svg\.chart[^{}]*{[^}]*}", sheet))

    def resolved(text: str) -> str:
        return re.sub(r"var\(--([\w-]+)\)", lambda name: resolved(colours.get(name[1], "#000")), text)

    return "svg { font-family: system-ui, sans-serif; } " + resolved(rules)
