"""What the differences come to, in one or two plain sentences, English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.significance import CONFIDENCE, Difference

FEW_ROWS = 30
MOST_NEEDED = 100_000  # rows that anybody would collect

# What stands as the base of runs that label texts, by how they were trained.
BASES = {
    "frozen": (
        "The base gives every text the label that most training rows have.",
        "基础模型给每段文本的都是训练行中最常见的标签。",
    ),
    "several": (
        "The base gives every text the labels that more than half of the training rows have.",
        "基础模型给每段文本的都是超过一半训练行所有的标签。",
    ),
    "tokens": (
        "The base gives every word the tag that most words of the training rows have.",
        "基础模型给每个词的都是训练行的词中最常见的标记。",
    ),
    "trained": (
        "The base is the same encoder, frozen, under a logistic head fitted to the same rows.",
        "基础模型是不经训练的同一编码器，加上用同样的行拟合的逻辑回归分类头。",
    ),
}

Scores = Mapping[str, Any]


def base_of_labels(method: str, task: str = "classification", several: bool = False) -> tuple[str, str]:
    """What stands as the base of a run that labels texts, maybe by `several` labels, or their words, a sentence in English and
    Chinese."""
    if method != "frozen":
        return BASES["trained"]
    return BASES["tokens" if task == "tokens" else "several" if several else "frozen"]


def summary(
    difference: Mapping[str, Mapping[str, float]],
    metric: str,
    n: int,
    base: Scores,
    tuned: Scores,
    groups: int | None = None,
) -> dict[str, str]:
    """{"en", "zh"}: the verdict on the leading metric over n rows in plain words; it claims a difference only where it is
    clear. `base` and `tuned` are each side's scores by metric, `groups` how many groups the rows are of, if they are."""
    if (groups or n) < FEW_ROWS:
        within, within_zh, of, of_zh = (
            (f" in {counted(groups, 'group')}", f"（{groups} 组）", " groups", "组") if groups else ("", "", "", "行")
        )
        return {
            "en": f"{counted(n, 'test row')}{within} {'is' if n == 1 else 'are'} too few to tell. Evaluate on at least {FEW_ROWS}{of}; if there are fewer, hold "
            "out more and train again, or vote blind.",
            "zh": f"只有 {n} 行测试数据{within_zh}，太少，无法判断。请至少用 {FEW_ROWS} {of_zh}评测；如果没有这么多，请留出更多测试行后重新训练，或进行盲评。",
        }
    leading = difference_of(difference[metric])
    form = _form(difference, metric, n, base, tuned)
    if not leading.clear:
        verdict, verdict_zh = "No clear difference", "没有明显差别"
    elif form.verdict:
        verdict, verdict_zh = form.verdict
    elif gained(metric, leading.delta) > 0:
        verdict, verdict_zh = "Better", "更好"
    else:
        verdict, verdict_zh = "Worse", "更差"
    english, chinese = _figures(metric, leading, n, base[metric], tuned[metric])
    further = [form[:2], _by_group(groups), needed(leading, n), _others(difference, metric, bool(form.english))]
    return {
        "en": f"{verdict}: {english}." + "".join(sentence for sentence, _ in further),
        "zh": f"{verdict_zh}：{chinese}。" + "".join(sentence for _, sentence in further),
    }


def counted(n: int, what: str) -> str:
    """1 row, 2 rows."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def rows_to_show(difference: Difference, n: int) -> int | None:
    """How many rows would show a difference of this size in four of five evaluations, by the interval over n rows; None
    where there is none to show, it is clear already, or it takes more than MOST_NEEDED.

    The usual formula: n grows with the square of (1.96 + 0.84) standard errors over the difference.
    """
    if difference.clear or not difference.delta:
        return None
    certain, power = (NormalDist().inv_cdf(share) for share in ((1 + CONFIDENCE) / 2, 0.8))
    error = (difference.high - difference.low) / (2 * certain)
    rows = n * ((certain + power) * error / difference.delta) ** 2
    return round(float(f"{rows:.2g}")) if n < rows <= MOST_NEEDED else None


def needed(difference: Difference, n: int) -> tuple[str, str]:
    """A sentence on how many rows would show a difference that isn't clear, in English and Chinese; none where there is none."""
    if (rows := rows_to_show(difference, n)) is None:
        return "", ""
    return (
        f" If the difference is what it seems, about {rows:,} rows would show it.",
        f"如果差别确实如此，约 {rows:,} 行可以看出。",
    )


def _by_group(groups: int | None) -> tuple[str, str]:
    if groups is None:
        return "", ""
    return f" The interval counts {groups} groups of rows, not single rows.", f"区间按 {groups} 组计算，而不是按单行。"


def _figures(metric: str, difference: Difference, n: int, base: float, tuned: float) -> tuple[str, str]:
    """Both scores and their difference with its interval: as counts of right rows where each row is right or wrong."""
    about = METRICS[metric]
    points, points_zh = spread(metric, difference)
    if about.binary:
        after, before = round(tuned * n), round(base * n)
        return (
            f"{about.counted[0]} {_counted(after, 'none')} of {n} rows, the base on {_counted(before, 'none')} ({points})",
            f"{n} 行中{about.counted[1]} {after} 行，基础模型 {before} 行（{points_zh}）",
        )
    shown, shown_base = (f"{100 * x:.1f} %" if about.is_rate else f"{x:.{about.digits}f}" for x in (tuned, base))
    return (
        f"{about.names[0]} {shown} on {n} rows, the base {shown_base} ({points})",
        f"{n} 行上“{about.names[1]}”为 {shown}，基础模型为 {shown_base}（{points_zh}）",
    )


def _counted(rows: int, none: str) -> str:
    return str(rows) if rows else none


TIED = "the same on each row", "每行都相同"


def spread(metric: str, difference: Difference) -> tuple[str, str]:
    """The difference and its interval, in both languages; of rows that are all the same no interval is known."""
    if not (difference.low or difference.high):
        return TIED
    delta, low, high, unit, unit_zh = _in_words(metric, difference)
    return f"{delta}{unit}, 95 % interval {low} to {high}", f"{delta}{unit_zh}，95% 区间 {low} 至 {high}"


def bracketed(metric: str, difference: Difference) -> tuple[str, str]:
    """The same in short, the interval in brackets."""
    if not (difference.low or difference.high):
        return TIED
    delta, low, high, unit, unit_zh = _in_words(metric, difference)
    return f"{delta}{unit} [{low}, {high}]", f"{delta}{unit_zh} [{low}, {high}]"


def _in_words(metric: str, difference: Difference) -> tuple[str, str, str, str, str]:
    """The difference, both ends of its interval, and the unit in both languages: a rate in points of percent, without
    decimals where the interval is wide."""
    about = METRICS[metric]
    factor, digits = (100, 0 if difference.high - difference.low >= 0.05 else 1) if about.is_rate else (1, about.digits)
    delta, low, high = (
        _signless(factor * value, digits) for value in (difference.delta, difference.low, difference.high)
    )
    sign = "+" if not delta.startswith("−") and float(delta) else ""
    unit, unit_zh = (" points", " 个百分点") if about.is_rate else ("", "")
    return f"{sign}{delta}", low, high, unit, unit_zh


def _signless(value: float, digits: int) -> str:
    """The number with a true minus; a zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


class _Form(NamedTuple):
    """A sentence where most of a clear difference is the form of the answers alone, and the verdict where all of it is."""

    english: str = ""
    chinese: str = ""
    verdict: tuple[str, str] | None = None


def _form(difference: Mapping[str, Mapping[str, float]], metric: str, n: int, base: Scores, tuned: Scores) -> _Form:
    """What the lenient twin of the leading metric says of its difference."""
    strict, twin = difference_of(difference[metric]), METRICS[metric].lenient
    if not strict.clear or twin not in difference:
        return _Form()
    lenient = difference_of(difference[twin])
    agrees = lenient.clear and lenient.delta * strict.delta > 0
    if agrees and abs(lenient.delta) >= abs(strict.delta) / 2:
        return _Form()
    english, chinese = _figures(twin, lenient, n, base[twin], tuned[twin])
    change, change_zh = ("gain", "提升") if strict.delta > 0 else ("loss", "下降")
    clear, clear_zh = ("", "") if lenient.clear else (", no clear difference", "，没有明显差别")
    better = strict.delta > 0
    if not lenient.clear:
        verdict = ("Different only in form", "只在形式上有明显差别")
    elif better:
        verdict = ("Better in form but worse in content", "形式更好，内容却更差")
    else:
        verdict = ("Worse in form but better in content", "形式更差，内容却更好")
    return _Form(
        f" Most of the {change} is the form of the answer: {english}{clear}.",
        f"大部分{change_zh}来自答案的形式：{chinese}{clear_zh}。",
        None if agrees else verdict,
    )


def difference_of(values: Mapping[str, float]) -> Difference:
    """What scores.json says of a metric, as it was before it became JSON."""
    return Difference(*(values[name] for name in ("delta", "low", "high", "p")))


def gained(metric: str, delta: float) -> float:
    """The difference counted so that more is better."""
    return delta if METRICS[metric].higher_is_better else -delta


def _others(difference: Mapping[str, Mapping[str, float]], leading: str, of_form: bool) -> tuple[str, str]:
    """A second sentence, only where other metrics say something else than the leading one, after Holm's correction."""
    leader = difference_of(difference[leading])
    direction = (leader.delta > 0) - (leader.delta < 0) if leader.clear else 0
    covered = {leading, METRICS[leading].lenient if of_form else leading}
    sides: dict[int, list[str]] = {1: [], -1: []}
    for name, values in difference.items():
        clear = difference_of(values).clear and values.get("p_holm", 1.0) < 1 - CONFIDENCE
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
        f" Other metrics disagree, even allowing for {count} being looked at: {english}.",
        f"经 {count} 项校正后，其他指标结论不同：{chinese}。",
    )
