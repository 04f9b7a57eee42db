"""The pictures of a model card, as PNG: the losses over the steps, and base and tuned by metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo.evaluation.registry import METRICS

if TYPE_CHECKING:
    from sftdemo.schema.evaluation import Scores
    from sftdemo.schema.run import MetricsRow

CURVE, SCORES = "curve.png", "scores.png"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 250, 56, 30, 24
ROW, NAME, VALUE = 44, 200, 80  # of the scores: a metric's height, and the widths of its name and figures
MOST = 8  # metrics in the picture; the table has all
SCALE, FINE = 2, 2  # pixels a unit, and how much finer it is drawn before it is scaled down
INK, MUTED, GRID, BASE, TUNED = "#1c2024", "#5f6670", "#e3e6ea", "#9aa1ab", "#2563c9"
Point = tuple[float, float]


class _Picture:
    """A white sheet of `width` × `height` units, on which shapes and text are drawn with smooth edges."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.unit = SCALE * FINE
        self.image = Image.new("RGB", (width * self.unit, height * self.unit), "white")
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], colour: str, width: float = 1) -> None:
        scaled = [(x * self.unit, y * self.unit) for x, y in points]
        self.draw.line(scaled, fill=colour, width=round(width * self.unit), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self.draw.rectangle([edge * self.unit for edge in (left, top, right, bottom)], fill=colour)

    def dot(self, x: float, y: float, colour: str, radius: float = 3.5) -> None:
        self.draw.ellipse([edge * self.unit for edge in (x - radius, y - radius, x + radius, y + radius)], fill=colour)

    def text(self, x: float, y: float, text: str, colour: str = MUTED, anchor: str = "lm", size: int = 13) -> None:
        from PIL import ImageFont

        font = ImageFont.load_default(size * self.unit)
        self.draw.text((x * self.unit, y * self.unit), text, fill=colour, font=font, anchor=anchor)

    def save(self, path: Path) -> None:
        self.image.reduce(FINE).quantize(64).save(path, optimize=True)


def draw_curve(rows: Sequence[MetricsRow], path: Path) -> bool:
    """Draw training and validation loss in nats a token over the steps; False, and no file, without two steps."""
    training, validation = _points(rows, "loss"), _points(rows, "eval_loss")
    if len(training) < 2:
        return False
    last = max(step for step, _ in (*training, *validation))
    top = max(loss for _, loss in (*training, *validation)) * 1.05 or 1.0
    picture = _Picture(WIDTH, HEIGHT)

    def place(point: Point) -> Point:
        return (
            LEFT + (WIDTH - LEFT - 16) * point[0] / last,
            TOP + (HEIGHT - TOP - BOTTOM) * (1 - point[1] / top),
        )

    for part in range(5):
        loss = top * part / 4
        left, y = place((0, loss))
        picture.line([(left, y), (WIDTH - 16, y)], GRID)
        picture.text(LEFT - 8, y, f"{loss:.2f}", anchor="rm")
    for step, anchor in ((0.0, "lm"), (last, "rm")):
        picture.text(place((step, 0))[0], HEIGHT - BOTTOM / 2, f"step {step:g}" if step else "0", anchor=anchor)
    picture.line([place(point) for point in training], TUNED, 1.8)
    if len(validation) > 1:
        picture.line([place(point) for point in validation], INK, 1.2)
    for point in validation:
        picture.dot(*place(point), INK)
    picture.text(LEFT, TOP / 2, "Training loss", TUNED)
    if validation:
        picture.text(LEFT + 120, TOP / 2, "Validation loss", INK)
    picture.save(path)
    return True


def draw_scores(scores: Scores, path: Path) -> bool:
    """Draw base and tuned by metric, with the 95 % interval of the difference; False, and no file, without a metric.

    Metrics of which less is better, or that have no highest score, stand in the table alone.
    """
    leading = scores.get("leading", "")
    drawn = sorted(
        (
            (name, metric.scale)
            for name, metric in METRICS.items()
            if metric.scale and metric.higher_is_better and name in scores["base"] and name in scores["tuned"]
        ),
        key=lambda item: item[0] != leading,
    )[:MOST]
    if not drawn:
        return False
    picture = _Picture(WIDTH, TOP + ROW * len(drawn))
    picture.text(NAME, TOP / 2, "Base", BASE)
    picture.text(NAME + 60, TOP / 2, "Tuned, with the 95 % interval of the difference", TUNED)
    for number, (name, scale) in enumerate(drawn):
        _draw_metric(picture, TOP + ROW * number, name, scale, scores)
    picture.save(path)
    return True


def _draw_metric(picture: _Picture, top: float, name: str, scale: int, scores: Scores) -> None:
    base, tuned = scores["base"][name], scores["tuned"][name]
    digits, full = METRICS[name].digits, WIDTH - NAME - VALUE

    def right(value: float) -> float:
        return NAME + full * min(max(value / scale, 0), 1)

    picture.text(NAME - 12, top + 18, METRICS[name].names[0], INK, anchor="rm")
    for y, value, colour in ((top + 5, base, BASE), (top + 20, tuned, TUNED)):
        picture.box(NAME, y, WIDTH - VALUE, y + 10, "#f3f4f6")
        picture.box(NAME, y, max(right(value), NAME + 1), y + 10, colour)
        picture.text(WIDTH - VALUE + 12, y + 5, f"{value:.{digits}f}", INK, size=12)
    if gain := scores["difference"].get(name):
        low, high = right(base + gain["low"]), right(base + gain["high"])
        for line in ([(low, top + 25), (high, top + 25)], *([(x, top + 21), (x, top + 29)] for x in (low, high))):
            picture.line(line, INK, 1.2)


def _points(rows: Sequence[Any], key: str) -> list[Point]:
    points = ((float(row["step"]), row.get(key)) for row in rows)
    return [(step, float(value)) for step, value in points if value is not None and math.isfinite(value)]
