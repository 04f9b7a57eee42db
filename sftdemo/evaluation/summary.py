"""What the differences come to, in one or two plain sentences, English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.significance import CONFIDENCE, Difference

FEW_ROWS = 30


def summary(difference: Mapping[str, Mapping[str, float]], metric: str, n: int) -> dict[str, str]:
    """{"en", "zh"}: one plain sentence on the leading metric over n rows, which claims a difference only where it is clear."""
    if n < FEW_ROWS:
        return {
            "en": f"{n} rows are too few to tell; evaluate on {FEW_ROWS} or more.",
            "zh": f"只有 {n} 行，太少，无法判断；请至少用 {FEW_ROWS} 行评估。",
        }
    leading = _difference(difference[metric])
    form = _form(difference, metric)
    if not leading.clear:
        verdict, verdict_zh = "there is no clear difference", "没有明显差别"
    elif form.verdict:
        verdict, verdict_zh = form.verdict
    elif leading.delta > 0:
        verdict, verdict_zh = "the tuned model is better", "微调后的模型更好"
    else:
        verdict, verdict_zh = "the tuned model is worse", "微调后的模型更差"
    also, also_zh = _others(difference, metric)
    english, chinese = _figures(metric, leading)
    return {
        "en": f"On {n} rows {verdict}: {english}.{form.english}{also}",
        "zh": f"在 {n} 行上，{verdict_zh}：{chinese}。{form.chinese}{also_zh}",
    }


def _figures(metric: str, difference: Difference) -> tuple[str, str]:
    about = METRICS[metric]
    digits = 1 if about.scale == 100 else 2
    delta = f"{difference.delta:+.{digits}f}"
    low, high = (f"{value:.{digits}f}" for value in (difference.low, difference.high))
    return (
        f"{delta} {about.names[0]}, 95 % interval {low} to {high}",
        f"{about.names[1]} {delta}，95% 区间 {low} 至 {high}",
    )


class _Form(NamedTuple):
    """A sentence where most of a clear difference is the form of the answers alone, and the verdict where all of it is."""

    english: str = ""
    chinese: str = ""
    verdict: tuple[str, str] | None = None


def _form(difference: Mapping[str, Mapping[str, float]], metric: str) -> _Form:
    """What the lenient twin of the leading metric says of its difference."""
    strict, twin = _difference(difference[metric]), METRICS[metric].lenient
    if not strict.clear or twin not in difference:
        return _Form()
    lenient = _difference(difference[twin])
    agrees = lenient.clear and lenient.delta * strict.delta > 0
    if agrees and abs(lenient.delta) >= abs(strict.delta) / 2:
        return _Form()
    english, chinese = _figures(twin, lenient)
    change, change_zh = ("gain", "提升") if strict.delta > 0 else ("loss", "下降")
    clear, clear_zh = ("", "") if lenient.clear else (", no clear difference", "，没有明显差别")
    better = strict.delta > 0
    if not lenient.clear:
        verdict = ("the tuned model differs clearly only in form", "微调后的模型只在形式上有明显差别")
    elif better:
        verdict = ("the form of the answers is better, but what they say is worse", "答案的形式更好，内容却更差")
    else:
        verdict = ("the form of the answers is worse, but what they say is better", "答案的形式更差，内容却更好")
    return _Form(
        f" Most of the {change} is the form of the answer: {english}{clear}.",
        f"大部分{change_zh}来自答案的形式：{chinese}{clear_zh}。",
        None if agrees else verdict,
    )


def _difference(values: Mapping[str, float]) -> Difference:
    return Difference(*(values[name] for name in ("delta", "low", "high", "p")))


def gained(metric: str, delta: float) -> float:
    """The difference counted so that more is better."""
    return delta if METRICS[metric].higher_is_better else -delta


def _others(difference: Mapping[str, Mapping[str, float]], leading: str) -> tuple[str, str]:
    """A second sentence, only where other metrics say something else than the leading one, after Holm's correction."""
    leader = _difference(difference[leading])
    direction = (leader.delta > 0) - (leader.delta < 0) if leader.clear else 0
    covered = {leading, METRICS[leading].lenient if _form(difference, leading).english else leading}
    sides: dict[int, list[str]] = {1: [], -1: []}
    for name, values in difference.items():
        clear = _difference(values).clear and values.get("p_holm", 1.0) < 1 - CONFIDENCE
        side = 1 if gained(name, values["delta"]) > 0 else -1
        if name not in covered and name in METRICS and clear and side != direction:
            sides[side].append(name)
    if not any(sides.values()):
        return "", ""
    en, zh = (
        {side: separator.join(METRICS[name].names[language] for name in names) for side, names in sides.items()}
        for language, separator in enumerate((", ", "、"))
    )
    english = "; ".join(f"{word}: {en[side]}" for side, word in ((1, "better"), (-1, "worse")) if en[side])
    chinese = "；".join(f"{word}：{zh[side]}" for side, word in ((1, "更好"), (-1, "更差")) if zh[side])
    count = len(difference)
    return (
        f" Other metrics say otherwise, corrected for all {count}: {english}.",
        f"经 {count} 项校正后，其他指标结论不同：{chinese}。",
    )
