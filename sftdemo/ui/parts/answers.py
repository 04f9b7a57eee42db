"""An evaluation's judged answers, and what is said of one: right or wrong, cut, and where its JSON differs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sftdemo import runs
from sftdemo.evaluation import outputs_table as outputs
from sftdemo.evaluation.outputs_table import OutputsPage, Row
from sftdemo.evaluation.system_answers import answers_of, paired_rows, systems_of
from sftdemo.ui.parts import html
from sftdemo.ui.texts import number, say


@functools.lru_cache(maxsize=4)
def _judged(
    run: runs.Run, name: str, version: tuple[int, int, int], metric: str, beside: str | None, systems: tuple[str, ...]
) -> tuple[list[Row], tuple[str, ...]]:
    rows: list[Row] = paired_rows(run, name, beside, "tuned") if beside else [{**row} for row in run.outputs(name)]
    metrics = outputs.metrics_for(rows)
    metric = metric if metric in metrics else metrics[0]
    labels = run.scores(name).get("labels") if rows[0].get("label") else None
    others = {
        str(place): [text[""] for text in answers_of(run, name, system).values()]
        for place, system in enumerate(systems)
        if system not in (beside, "tuned")
    }
    return outputs.judged(rows, metric, labels, others), metrics


def load(run: runs.Run, name: str, metric: str = "", beside: str | None = None) -> tuple[list[Row], tuple[str, ...]]:
    """An evaluation's judged rows and the metrics that fit them; kept while the file stays as it is.

    With `beside`, one of the systems that answered the rows, that one's answers stand for the base's, and the `others` of a
    row are those of all but it and tuned, by their place among the systems.
    """
    systems = tuple(systems_of(run, name)) if beside else ()
    if systems == outputs.SIDES:  # the same rows, already judged
        beside, systems = None, ()
    return _judged(run, name, run.outputs_stamp(name), metric, beside, systems)


def counted(page: OutputsPage, lang: str) -> str:
    """How many rows got better, worse, or are as good as before, as a bar and in words."""
    cells = "".join(
        f'<div class="{css}" style="flex:{page.counts[mark]}"></div>'
        for mark, css in (("better", "w"), *((mark, "t") for mark in outputs.MARKS[2:]), ("worse", "l"))
        if page.counts[mark]
    )
    words = " · ".join(
        f'<span class="{mark}">{say(lang, "count_" + mark, n=number(page.counts[mark]))}</span>'
        for mark in outputs.MARKS
        if page.counts[mark] or mark in ("better", "worse")
    )
    return html.block(f'<div class="wtl thin" aria-hidden="true">{cells}</div><div class="small">{words}</div>')


def verdict(row: Mapping[str, Any], side: str, lang: str) -> str:
    """Whether an answer is right, else its score by the metric compared by; and whether it was cut."""
    marks = []
    if "right" in row:
        kind = "right" if row["right"][side] else "wrong"
        marks.append(f'<span class="{kind}" title="{say(lang, kind)}">{say(lang, f"mark_{kind}")}</span>')
    elif "score" in row:
        marks.append(f'<span class="muted num">{row["score"][side]:.3g}</span>')
    if row.get(f"{side}_cut"):
        marks.append(cut_chip(lang))
    return f'<span class="judged">{" ".join(marks)}</span>' if marks else ""


def cut_chip(lang: str) -> str:
    """The mark of an answer that ended at the token limit."""
    return f'<span class="chip plain" title="{say(lang, "answer_cut_help")}">{say(lang, "answer_cut")}</span>'


def slots_named(row: Mapping[str, Any], side: str, lang: str) -> str:
    """The fields of a JSON answer that are missing, wrong or invented, by name; "" where there are none."""
    paths_by_kind: dict[str, dict[str, None]] = {}
    for slot in row.get("slots", {}).get(side, ()):
        # What a list lacks or has too much of has no path, and is named by itself.
        paths_by_kind.setdefault(slot.kind, {})[slot.path or html.cut(slot.wanted or slot.actual, 40)] = None
    parts = [say(lang, f"slot_{kind}") + " " + ", ".join(filter(None, paths)) for kind, paths in paths_by_kind.items()]
    return html.block(html.esc(" · ".join(part.strip() for part in parts)), "muted small slots") if parts else ""


def slots_listed(row: Mapping[str, Any], side: str, lang: str) -> str:
    """The same with their values, a line each."""
    lines = []
    for slot in row.get("slots", {}).get(side, ()):
        values = " → ".join(html.esc(html.cut(value, 120)) for value in (slot.wanted, slot.actual) if value)
        name = f"<b>{html.esc(slot.path)}</b>" if slot.path else ""
        lines.append(f"<div>{say(lang, f'slot_{slot.kind}')} {name} {values}</div>")
    return html.block("".join(lines), "small slots") if lines else ""
