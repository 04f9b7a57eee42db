"""Several systems on the same rows: the scores of each with their intervals, and how one of them differs from every other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sftdemo.encoding.thoughts import answers_only, scored_of
from sftdemo.evaluation import registry, significance, summary
from sftdemo.evaluation.scorecard import groups_of, targets_of
from sftdemo.evaluation.scoring import side_scores
from sftdemo.evaluation.sides import Side, Targets
from sftdemo.evaluation.significance import PairedStatistics

Row = Mapping[str, Any]
Statistics = Mapping[str, Any]
MOST_TIMES = 1_000  # of one answer's time to another's: no clock tells more
Differences = dict[str, dict[str, float]]  # by metric: {delta, low, high, p}


class SystemsTable:
    """What systems answered to the rows of `outputs`, a text a row, scored by the text of answers alone."""

    def __init__(
        self, outputs: Sequence[Row], labels: list[str], answers: Mapping[str, Sequence[str]], seed: int
    ) -> None:
        rows = [answers_only(row) for row in outputs]
        self.seed, self.groups = seed, groups_of(rows)
        targets: Targets = targets_of(rows, labels)
        self._sides = {
            name: Side(targets, [scored_of(row, text) for row, text in zip(rows, texts, strict=True)])
            for name, texts in answers.items()
        }
        self._statistics: dict[str, Statistics] = {
            name: registry.statistics(side) for name, side in self._sides.items()
        }

    def scores(self, name: str) -> dict[str, float]:
        """One system's score by metric."""
        scores = side_scores(self._sides[name], self._statistics[name])
        return {key: value for key, value in scores.items() if isinstance(value, float)}

    def intervals(self, name: str) -> dict[str, list[float]]:
        """The 95 % interval of one system's score by metric: [low, high]."""
        alone = registry.paired(self._statistics[name], self._statistics[name])
        intervals = significance.score_intervals(alone, self.seed, groups=self.groups)
        return {metric: [low, high] for metric, (low, high) in intervals.items()}

    def differences(self, to: str, names: Sequence[str], metric: str | None = None) -> dict[str, Differences]:
        """For each of `names`, the score of the system `to` minus its own: by one metric, or by all."""
        table = {}
        for name in names:
            pairs: dict[str, PairedStatistics] = registry.paired(self._statistics[name], self._statistics[to])
            asked = {key: pair for key, pair in pairs.items() if metric in (None, key)}
            differences = significance.paired_differences(asked, self.seed, groups=self.groups)
            table[name] = {key: difference.to_json() for key, difference in differences.items()}
        return table


def correct(table: Mapping[str, Mapping[str, dict[str, float]]], beside: Mapping[str, float] | None = None) -> None:
    """Give each difference of a table, {system: {metric: …}}, its `p_holm` for asking the same of all systems (Holm 1979),
    each metric for itself; `beside` has the p of one more system by metric."""
    for metric in {metric for differences in table.values() for metric in differences}:
        asked = {name: differences[metric] for name, differences in table.items() if metric in differences}
        ps = {name: difference["p"] for name, difference in asked.items()}
        more = {"": beside[metric]} if beside and metric in beside else {}
        adjusted = significance.holm(ps | more)
        for name, difference in asked.items():
            difference["p_holm"] = adjusted[name]


def sides_as_systems(scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Base and tuned of a scores.json as its other systems stand there: `scores` and costs."""
    by_side = scores.get("ms_by_side", {})
    sides = {
        side: {
            "ms_per_answer": by_side.get(side, scores.get("ms_per_answer")),
            "scores": scores[side],
            "bytes": scores.get("bytes", {}).get(side),
        }
        for side in ("base", "tuned")
    }
    sides["tuned"]["training_seconds"] = scores.get("training_seconds")
    return sides


KNOWN = {
    "base": ("the base", "基础模型"),
    "tuned": ("the tuned model", "微调后的模型"),
    "linear": ("the linear model", "线性模型"),
    "majority": ("always answering the most frequent label", "始终回答最常见标签的做法"),
    "copy": ("copying the prompt", "照抄提示的做法"),
    "merged": ("the tuned model asked alone", "微调后的模型（单独作答）"),
}
# The run itself as it is stored: all its bits, or fewer.
QUANTIZED = {"merged": "", "int8": "int8", "nf4": "NF4", "gguf-q8_0": "GGUF Q8_0", "gguf-q4_0": "GGUF Q4_0"}


class Named(NamedTuple):
    """What a system is called in both languages, and the milliseconds that an answer of it takes."""

    en: str
    zh: str
    ms: float | None = None

    @classmethod
    def of(cls, name: str, ms: float | None = None) -> Named:
        if shots := re.fullmatch(r"base\+(\d+)(:nearest)?", name):
            nearest, nearest_zh = (" nearest", "最近的") if shots[2] else ("", "")
            return cls(
                f"the base with {shots[1]}{nearest} example{'' if shots[1] == '1' else 's'}",
                f"带{nearest_zh} {shots[1]} 个示例的基础模型",
                ms,
            )
        kind, _, rest = name.partition(":")
        if kind == "run":
            return cls(f"the run {rest}", f"运行 {rest}", ms)
        if kind == "file":
            return cls(f"the answers in {Path(rest).name}", f"{Path(rest).name} 中的回答", ms)
        if kind == "api":
            model, _, url = rest.rpartition("@")
            host = urlsplit(url).netloc
            return cls(f"{model} at {host}", f"{host} 上的 {model}", ms)
        if QUANTIZED.get(name):
            return cls(f"the tuned model in {QUANTIZED[name]}", f"微调后的模型（{QUANTIZED[name]}）", ms)
        return cls(*KNOWN.get(name, (name, name)), ms)


def sentence(
    to: Named, other: Named, values: Mapping[str, float], metric: str, n: int, groups: int | None
) -> dict[str, str]:
    """{"en", "zh"}: whether one system is better than the other by a metric, by how much, and what that costs; `values` are
    delta, low, high, p and p_holm of `to` minus `other` on n rows."""
    difference = summary.difference_of(values)
    clear = difference.clear and values["p_holm"] < 1 - significance.CONFIDENCE
    figures, figures_zh = summary.bracketed(metric, difference)
    rows = summary.counted(n, "row") + (f" of {summary.counted(groups, 'group')}" if groups else "")
    rows_zh = f"{n} 行{f'（{groups} 组）' if groups else ''}"
    time, time_zh = _time(to.ms, other.ms)
    more, more_zh = "", ""
    to_zh, other_zh = _spaced(to.zh), _spaced(other.zh)
    if (groups or n) < summary.FEW_ROWS:
        verdict = f"{rows} {'is' if n == 1 else 'are'} too few to tell {to.en} from {other.en}"
        verdict_zh = f"{rows_zh}太少，无法区分{to_zh}与{other_zh}".rstrip()
    elif not clear:
        verdict = f"On {rows} there is no clear difference between {to.en} and {other.en}"
        verdict_zh = f"在 {rows_zh}上，{to_zh.lstrip()}与{other_zh}没有明显差别"
        more, more_zh = _by_holm(values["p_holm"]) if difference.clear else summary.needed(difference, n)
    else:
        won = summary.gained(metric, difference.delta) > 0
        verdict = f"On {rows} {to.en} {'beats' if won else 'loses to'} {other.en}"
        verdict_zh = f"在 {rows_zh}上，{to_zh.lstrip()}{'胜过' if won else '不如'}{other_zh}".rstrip()
    return {"en": f"{verdict}: {figures}{time}.{more}", "zh": f"{verdict_zh}：{figures_zh}{time_zh}。{more_zh}"}


def _by_holm(p: float) -> tuple[str, str]:
    """Why a difference whose interval leaves 0 out isn't clear."""
    return (
        f" The interval is for this comparison alone; corrected for all of them (Holm), p is {p:.2f}.",
        f"区间只针对这一次比较；按全部比较校正（Holm）后 p 为 {p:.2f}。",
    )


def _spaced(name: str) -> str:
    """A name amid Chinese, with a space where it begins or ends in another script."""
    return f"{' ' if name[:1].isascii() else ''}{name}{' ' if name[-1:].isascii() else ''}"


def _time(ms: float | None, other_ms: float | None) -> tuple[str, str]:
    """How many times the time of an answer one costs of the other's, where that says something."""
    if not ms or not other_ms or min(ms, other_ms) < 0.05 or 0.5 < ms / other_ms < 2:  # next to nothing is no measure
        return "", ""
    ratio = max(ms, other_ms) / min(ms, other_ms)
    times = f"over {MOST_TIMES:,}" if ratio > MOST_TIMES else f"{ratio:,.0f}"
    times_zh = f"{MOST_TIMES:,} 多" if ratio > MOST_TIMES else f"{ratio:,.0f} "
    if ms > other_ms:
        return f"; it costs {times} times the time per answer", f"；每个回答的用时是后者的 {times_zh}倍"
    return f"; the other costs {times} times the time per answer", f"；后者每个回答的用时是前者的 {times_zh}倍"
