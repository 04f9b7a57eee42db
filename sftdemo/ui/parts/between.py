"""What two runs come to against each other: a sentence, and every metric's difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.significance import Difference
from sftdemo.evaluation.summary import FEW_ROWS, gained
from sftdemo.ui.parts import charts, html
from sftdemo.ui.texts import number, say


def p_value(p: float | None) -> str:
    return "–" if p is None else "&lt; 0.0001" if p < 0.0001 else f"{p:.4f}"


def sentence(pair: Mapping[str, Any], lang: str) -> str:
    """Which of two runs is better on the rows that both answered, by the metric that decides, or that it can't be told.

    `pair` is one of `between` of `compare_runs`. HTML.
    """
    names = {key: html.esc(pair[key]) for key in ("first", "second")}
    gain = pair["difference"].get(pair["leading"])
    if not gain:
        return say(lang, "between_none", **names)
    if pair.get("groups", pair["n"]) < FEW_ROWS:
        return say(lang, "between_few", n=pair["n"], most=FEW_ROWS, **names)
    metric, difference = pair["leading"], Difference(*(gain[key] for key in ("delta", "low", "high", "p")))
    figures = {
        "metric": say(lang, f"metric_{metric}"),
        "gain": charts.gained(metric, difference.delta),
        "low": charts.gained(metric, difference.low),
        "high": charts.gained(metric, difference.high),
        "n": number(pair["n"]),
    }
    if not difference.clear:
        return say(lang, "between_even", **names, **figures)
    worse = gained(metric, difference.delta) < 0
    return say(lang, "between_worse" if worse else "between_better", **names, **figures)


def sentences(between: Sequence[Mapping[str, Any]], lang: str) -> str:
    """A sentence for each two runs."""
    return "".join(f"<p>{sentence(pair, lang)}</p>" for pair in between)


def table(pair: Mapping[str, Any], lang: str) -> str:
    """Every metric's difference between two runs, second minus first."""
    table_rows = []
    for metric, gain in pair["difference"].items():
        if metric in METRICS:
            spread = " … ".join(charts.gained(metric, gain[end]) for end in ("low", "high"))
            cells = [
                say(lang, f"metric_{metric}"),
                charts.gained(metric, gain["delta"]),
                spread,
                p_value(gain["p_holm"]),
            ]
            table_rows.append((None, cells, False))
    headers = ("metric", "difference", "interval", "p_holm")
    return html.table([say(lang, f"report_column_{name}") for name in headers], table_rows) if table_rows else ""
