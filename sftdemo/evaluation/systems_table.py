"""Several systems on the same rows: the scores of each, and how one of them, the tuned model, differs from every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo.encoding.thoughts import answer_of, answers_only
from sftdemo.evaluation import registry, significance, summary
from sftdemo.evaluation.scorecard import groups_of, targets_of
from sftdemo.evaluation.scoring import side_scores
from sftdemo.evaluation.sides import Side

Row = Mapping[str, Any]


def compare_systems(
    outputs: Sequence[Row], labels: list[str], answers: Mapping[str, Sequence[str]], seed: int
) -> dict[str, dict[str, Any]]:
    """{system: {"scores": {metric: float}, "difference": {metric: {delta, low, high, p}}}} of each one's `answers` to the rows
    of `outputs`; the difference is the tuned model's score minus the system's, on the text of answers alone."""
    rows = [answers_only(row) for row in outputs]
    targets, groups = targets_of(rows, labels), groups_of(rows)
    tuned = registry.statistics(Side(targets, [row["tuned"] for row in rows]))
    table: dict[str, dict[str, Any]] = {}
    for name, texts in answers.items():
        side = Side(targets, [answer_of(text) for text in texts])
        statistics = registry.statistics(side)
        scores = {key: value for key, value in side_scores(side, statistics).items() if isinstance(value, float)}
        differences = significance.paired_differences(registry.paired(statistics, tuned), seed, groups=groups)
        table[name] = {
            "scores": scores,
            "difference": {metric: difference.to_json() for metric, difference in differences.items()},
        }
    return table


def correct(systems: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each difference its `p_holm`, for asking the same of all systems (Holm 1979), each metric for itself."""
    for metric in {metric for system in systems.values() for metric in system["difference"]}:
        differences = {
            name: system["difference"][metric] for name, system in systems.items() if metric in system["difference"]
        }
        adjusted = significance.holm({name: difference["p"] for name, difference in differences.items()})
        for name, difference in differences.items():
            difference["p_holm"] = adjusted[name]


def sentence(
    name: str, system: Mapping[str, Any], metric: str, n: int, groups: int | None, tuned_ms: float | None
) -> dict[str, str]:
    """{"en", "zh"}: whether the tuned model is better than the system by the leading metric, and what an answer costs."""
    values = system["difference"][metric]
    difference = summary.difference_of(values)
    clear = difference.clear and values["p_holm"] < 1 - significance.CONFIDENCE
    spread, spread_zh = summary.spread(metric, difference)
    if (groups or n) < summary.FEW_ROWS:
        verdict, verdict_zh = "too few rows to tell the tuned model from", "行数太少，无法把微调模型区别于"
    elif not clear:
        verdict, verdict_zh = "no clear difference between the tuned model and", "没有明显差别：微调模型与"
    elif summary.gained(metric, difference.delta) > 0:
        verdict, verdict_zh = "the tuned model is better than", "微调模型好于"
    else:
        verdict, verdict_zh = "the tuned model is worse than", "微调模型不如"
    time, time_zh = _time(system.get("ms_per_answer"), tuned_ms)
    return {
        "en": f"On {n} rows{f' of {groups} groups' if groups else ''} {verdict} {name} ({spread}){time}.",
        "zh": f"{n} 行{f'（{groups} 组）' if groups else ''}上{verdict_zh} {name}（{spread_zh}）{time_zh}。",
    }


def _time(ms: float | None, tuned_ms: float | None) -> tuple[str, str]:
    """How many times the time of an answer one takes of the other's, where that says something."""
    if not ms or not tuned_ms or min(ms, tuned_ms) < 0.05 or 0.5 < tuned_ms / ms < 2:  # next to nothing is no measure
        return "", ""
    if tuned_ms > ms:
        times = f"{tuned_ms / ms:,.0f}"
        return f"; it takes {times} times as long an answer", f"；每个回答用时为其 {times} 倍"
    times = f"{ms / tuned_ms:,.0f}"
    return f"; the other takes {times} times as long an answer", f"；后者每个回答用时为 {times} 倍"
