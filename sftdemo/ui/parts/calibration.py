"""How far the probabilities of a run that labels texts can be believed: a reliability diagram, and the calibration errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sftdemo import files
from sftdemo.ui.parts import html
from sftdemo.ui.parts.line_chart import BOTTOM, HEIGHT, LEFT, WIDTH, saved_as
from sftdemo.ui.texts import say

Drawn = tuple[str, str, str]  # a side, before or after the temperature, and how its dots look
DOTS: tuple[Drawn, ...] = (
    ("tuned", "before", "tuned faint"),
    ("base", "after", "base"),
    ("tuned", "after", "tuned"),
)
BIN, QUARTERS = 0.1, (0.0, 0.25, 0.5, 0.75, 1.0)
SMALLEST, LARGEST = 3.0, 9.0  # radius of a dot


def calibration(scores: Mapping[str, Any], lang: str) -> str:
    """The diagram with both sides' errors in words, and links to save it; "" for a run without probabilities."""
    sides = scores.get("calibration")
    if not sides:
        return ""
    title = say(lang, "calibration_title")
    svg = (
        f'<svg class="chart lines" viewBox="0 -8 {WIDTH + 16} {HEIGHT + 8}" role="img" aria-label="{html.esc(title)}">'
        f"{''.join([*_axes(), *_dots(sides, scores['n'], lang)])}</svg>"
    )
    keys = "".join(
        f'<span><svg class="chart swatch" viewBox="0 0 26 8" aria-hidden="true"><circle class="{look}" cx="13" cy="4" r="4"/></svg>'
        f"{_name(side, when, lang)}</span>"
        for side, when, look in DOTS
    )
    errors = "".join(f"<li>{_error(side, sides[side], lang)}</li>" for side in ("base", "tuned"))
    saving = saved_as(svg, f"calibration-{scores.get('run', '')}", _csv(sides), lang)
    note = f'<p class="muted small">{say(lang, "calibration_note")}</p>'
    return html.sheet(
        f'<ul id="calibration-errors">{errors}</ul>{note}<div id="calibration-picture">{svg}</div>'
        f'<div class="legend">{keys}{saving}</div>',
        title,
    )


def _error(side: str, measured: Mapping[str, Any], lang: str) -> str:
    before, after = (_percent(measured[when]["ece"]) for when in ("before", "after"))
    return say(lang, "calibration_error", name=say(lang, f"name_{side}"), before=before, after=after)


def _name(side: str, when: str, lang: str) -> str:
    return say(lang, f"calibration_{when}", name=say(lang, f"name_{side}"))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\xa0%"


def _place(confidence: float, accuracy: float) -> tuple[float, float]:
    return LEFT + (WIDTH - LEFT) * confidence, (HEIGHT - BOTTOM) * (1 - accuracy)


def _axes() -> Iterator[str]:
    """Shares right upwards, probabilities to the right, and the line on which both are the same."""
    for share in QUARTERS:
        x, y = _place(share, share)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>'
        if share:  # where both begin, one label is for both
            yield f'<text x="{x:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{100 * share:.0f} %</text>'
    (left, bottom), (right, top) = _place(0, 0), _place(1, 1)
    yield f'<line class="whisker dashed" x1="{left:.1f}" y1="{bottom:.1f}" x2="{right:.1f}" y2="{top:.1f}"/>'


def _dots(sides: Mapping[str, Any], n: int, lang: str) -> Iterator[str]:
    """A dot for each bin that has answers; the larger, the more."""
    for side, when, look in DOTS:
        for row in sides[side][when]["bins"]:
            x, y = _place(row["confidence"], row["accuracy"])
            title = say(
                lang,
                "calibration_dot",
                name=_name(side, when, lang),
                low=f"{100 * row['low']:.0f}",
                high=f"{100 * (row['low'] + BIN):.0f}",
                n=f"{row['n']:.0f}",
                confidence=_percent(row["confidence"]),
                accuracy=_percent(row["accuracy"]),
            )
            radius = SMALLEST + (LARGEST - SMALLEST) * math.sqrt(row["n"] / max(n, 1))
            yield (
                f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{html.esc(title)}</title></circle>'
            )


def _csv(sides: Mapping[str, Any]) -> str:
    keys = ("low", "n", "confidence", "accuracy")
    rows = [
        (side, when, *(row[key] for key in keys))
        for side, measured in sides.items()
        for when, curve in measured.items()
        for row in curve["bins"]
    ]
    return files.csv_text(["side", "temperature", *keys], rows)
