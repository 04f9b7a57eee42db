"""What two runs come to against each other: a sentence, every metric's difference with its interval, and what neither tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.significance import Difference
from sftdemo.evaluation.summary import FEW_ROWS, gained
from sftdemo.runs import Run
from sftdemo.ui.parts import charts, html
from sftdemo.ui.texts import number, say


def p_value(p: float | None) -> str:
    return "–" if p is None else "&lt; 0.0001" if p < 0.0001 else f"{p:.4f}"


def sentence(pair: Mapping[str, Any], lang: str) -> str:
    """Which of two runs is better on the rows that both answered, by the metric that decides, or that it can't be told.

    `pair` is one of `between` of `compare_runs`. HTML.
    """
    names = {key: html.esc(pair[key]) for key in ("first", "second")}
    left_out = say(lang, "between_left_out", n=number(n), **names) if (n := pair.get("left_out")) else ""
    return " ".join(filter(None, (_verdict(pair, names, lang), left_out)))


def is_few(pair: Mapping[str, Any]) -> bool:
    """Whether the rows of both are too few to tell."""
    return int(pair.get("groups", pair["n"])) < FEW_ROWS


def _verdict(pair: Mapping[str, Any], names: Mapping[str, str], lang: str) -> str:
    gain = pair["difference"].get(pair["leading"])
    if not gain:
        return "" if pair.get("left_out") else say(lang, "between_none", **names)
    if is_few(pair):
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
        tied = not (difference.low or difference.high)  # of rows that are all the same no interval is known
        return say(lang, "between_tied" if tied else "between_even", **names, **figures)
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
            cells = [
                say(lang, f"metric_{metric}"),
                charts.gained(metric, gain["delta"]),
                charts.spread(metric, gain, lang),
                p_value(gain["p_holm"]),
            ]
            table_rows.append((None, cells, False))
    headers = ("metric", "difference", "interval", "p_holm")
    return html.table([say(lang, f"report_column_{name}") for name in headers], table_rows) if table_rows else ""


def notes(measured: Sequence[Any], first: str, lang: str) -> Iterator[str]:
    """What the differences are, and what else may make one."""
    yield say(lang, "compare_note", first=first)
    if len(measured) > 2:
        yield say(lang, "compare_several", n=number(len(measured) - 1))
    settings = [each.get("settings", {}) for each in measured]
    if len({(each.get("max_new_tokens"), each.get("beams", 1)) for each in settings}) > 1:
        yield say(lang, "compare_asked_otherwise")


def losses_unlike(chosen: Sequence[Run], curve: str, lang: str) -> list[str]:
    """Why the heights of these runs' losses can't be compared, if they can't."""
    split = {"loss": "train", "validation": "validation"}.get(curve)
    if split is None:
        return []
    configs = [run.config() for run in chosen]
    facts = {
        "kind": [config.get("settings", {}).get("task") for config in configs],
        "base": [config.get("settings", {}).get("model") for config in configs],
        "rows": [config.get("data", {}).get("files", {}).get(split) for config in configs],
    }
    return [say(lang, f"losses_other_{name}") for name, of in facts.items() if len({*of} - {None}) > 1]
