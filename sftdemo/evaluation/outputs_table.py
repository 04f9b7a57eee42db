"""The saved answers as a table: how each row fared by one metric, sorted, filtered, a page at a time; as CSV and JSONL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo import files
from sftdemo.encoding.thoughts import answers_only, scored_of
from sftdemo.errors import UsageError
from sftdemo.evaluation import json_metrics, registry
from sftdemo.evaluation.sides import Side, Targets, sets_of
from sftdemo.evaluation.words import resolve_language

Row = dict[str, Any]

SIDES = ("base", "tuned")
MARKS = ("better", "worse", "both_right", "both_wrong", "differ", "same")
FILTERS = ("all", "better", "worse", "both_right", "both_wrong", "differ")
ONLY_RIGHT = {"only_base": "base", "only_tuned": "tuned"}  # filters, where there are other systems
SORTS = ("row", "gained", "lost")
PAGE_ROWS = 50


@dataclass(frozen=True)
class OutputsPage:
    """One page of rows, which page of how many it is, how many rows match, and how many rows have each mark in all."""

    rows: list[Row]
    page: int
    pages: int
    total: int
    counts: dict[str, int] = field(default_factory=dict)


def metrics_for(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The metrics that rows can be told apart by; those of labels where all have one; those of JSON where all references
    are."""
    if not rows:
        return ()
    sides = _sides([answers_only(row) for row in rows], None)
    return tuple(metric.name for metric in registry.TELL_ROWS if all(map(metric.applies, sides)))


def row_gains(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """By each metric that tells rows apart, tuned minus base on each row; thoughts aside."""
    if not rows:
        return {}
    base, tuned = _sides([answers_only(row) for row in rows], None)
    return {
        metric.name: [after - before for before, after in zip(metric.of_each(base), metric.of_each(tuned), strict=True)]
        for metric in registry.TELL_ROWS
        if metric.applies(base)
    }


def _sides(rows: Sequence[Mapping[str, Any]], labels: Sequence[str] | None) -> list[Side]:
    """Base and tuned; `labels` are those declared, without them those of the rows."""
    true = [str(row.get("label") or "") for row in rows]
    known = true if all(true) else None
    names = labels or sorted(set(known or ()))
    references = [row["references"] for row in rows]
    targets = Targets(
        references, resolve_language("auto", references), labels=known, label_names=names, label_sets=sets_of(rows)
    )
    return [Side(targets, [row[side] for row in rows]) for side in SIDES]


def judged(
    rows: Sequence[Row],
    metric: str,
    labels: Sequence[str] | None = None,
    others: Mapping[str, Sequence[str]] | None = None,
) -> list[Row]:
    """The rows, each with both sides' `score` by the metric, its `gain` (tuned minus base), its `mark` and, where the metric
    calls an answer right or wrong, which sides are `right`; where all references are JSON also with `slots`, {side: what
    the answer lacks, has otherwise or adds}.

    `others` are more systems' answers, a text a row, under any names but the sides'. Their scores stand beside those of the
    sides, their texts in `others`; and `only_right` is who alone has a row right, or None, where the metric calls answers so.

    Marks, thoughts aside: better and worse by the metric; between equal scores both_right and both_wrong where it calls
    answers so, else differ for unlike answers, and same for the same answer.
    """
    by_name = {known.name: known for known in registry.TELL_ROWS}
    if metric not in by_name:
        raise UsageError(
            "{name} is {value!r}; choose one of: {names}.", name="metric", value=metric, names=tuple(by_name)
        )
    scored = [answers_only(row) for row in rows]
    sides = dict(zip(SIDES, _sides(scored, labels), strict=True))
    for name, texts in (others or {}).items():
        sides[name] = Side(sides["base"].targets, [scored_of(row, text) for row, text in zip(rows, texts, strict=True)])
    scores = {name: by_name[metric].of_each(side) for name, side in sides.items()}
    judged_rows = []
    for place, row in enumerate(rows):
        of_row = {name: values[place] for name, values in scores.items()}
        verdict = _verdict(row, of_row, by_name[metric].binary)
        if others:
            verdict |= {"others": {name: texts[place] for name, texts in others.items()}}
            if "right" in verdict:
                right = [name for name, is_right in verdict["right"].items() if is_right]
                verdict["only_right"] = right[0] if len(right) == 1 else None
        judged_rows.append(row | verdict)
    if json_metrics.are_json([row["references"] for row in scored]):
        judged_rows = [row | {"slots": slots(plain)} for row, plain in zip(judged_rows, scored, strict=True)]
    return judged_rows


def _verdict(row: Row, score: dict[str, float], binary: bool) -> Row:
    """What a row's scores come to; the mark is that of the tuned side."""
    gain = score["tuned"] - score["base"]
    both = "both_right" if score["tuned"] else "both_wrong"
    equal = both if binary else "differ" if _differ(row) else "same"
    mark = "better" if gain > 1e-9 else "worse" if gain < -1e-9 else equal
    right = {"right": {name: value == 1 for name, value in score.items()}} if binary else {}
    return {"score": score, "gain": gain, "mark": mark} | right


def _differ(row: Mapping[str, Any]) -> bool:
    return bool(row["base"].strip() != row["tuned"].strip())


def offered_filters(rows: Sequence[Row]) -> list[str]:
    """The filters that tell these judged rows apart."""
    hidden = () if any("right" in row for row in rows) else ("both_right", "both_wrong")
    only_right = ONLY_RIGHT if any("only_right" in row for row in rows) else ()
    return [*(name for name in FILTERS if name not in hidden), *only_right]


def slots(row: Mapping[str, Any]) -> dict[str, list[json_metrics.Slot]]:
    """{side: where its JSON differs from the reference's}, of a row without thoughts."""
    return {side: json_metrics.slots(row[side], row["references"]) for side in SIDES}


def _matches(row: Row, filter: str, label: str, text: str) -> bool:
    if filter in ONLY_RIGHT:
        fits = row.get("only_right") == ONLY_RIGHT[filter]
    else:
        fits = filter == "all" or (_differ(row) if filter == "differ" else row["mark"] == filter)
    if not fits:
        return False
    if label and row.get("label") != label:
        return False
    where = (row["messages"][-1]["content"], *row["references"], row["base"], row["tuned"])
    return not text or any(text in part.casefold() for part in where)


def outputs_page(
    rows: Sequence[Row],
    sort: str = "row",
    filter: str = "all",
    page: int = 0,
    label: str = "",
    text: str = "",
    size: int = PAGE_ROWS,
) -> OutputsPage:
    """One page of judged rows: those that match, in that order; a page past the end is the last.

    `filter` is one of FILTERS (differ: all whose answers differ) or ONLY_RIGHT, `label` a true label, `text` what a prompt, reference
    or answer holds, case aside. "gained" puts what improved most first, "lost" what suffered most.
    """
    for name, value, choices in (("sort", sort, SORTS), ("filter", filter, (*FILTERS, *ONLY_RIGHT))):
        if value not in choices:
            raise UsageError(
                "{name} is {value!r}; choose one of: {names}.", name=name, value=value, names=list(choices)
            )
    wanted = text.strip().casefold()
    matching = [row for row in rows if _matches(row, filter, label, wanted)]
    if sort != "row":
        sign = -1 if sort == "gained" else 1
        matching.sort(key=lambda row: (sign * row["gain"], row["row"]))
    pages = max(1, -(-len(matching) // size))
    page = min(max(page, 0), pages - 1)
    counts = Counter(row["mark"] for row in rows)
    return OutputsPage(
        matching[page * size : (page + 1) * size], page, pages, len(matching), {mark: counts[mark] for mark in MARKS}
    )


def as_csv(rows: Sequence[Row]) -> str:
    """Judged rows for a spreadsheet, counted from 1: both answers with their scores, 1 or 0 for whether they are right,
    and whether they were cut. Where all references are JSON, two more columns tell each side's differences."""
    of_json = any("slots" in row for row in rows)
    header = ("row", "prompt", "reference", "label", "base", "tuned", "base_score", "tuned_score", "mark", "cut")
    cells = (
        (
            row["row"] + 1,
            row["messages"][-1]["content"],
            (row["references"] or [""])[0],
            row.get("label") or "",
            row["base"],
            row["tuned"],
            *(round(row["score"][side], 4) for side in SIDES),
            row["mark"],
            " ".join(side for side in SIDES if row.get(f"{side}_cut")),
            *(["; ".join(map(str, row["slots"][side])) for side in SIDES] if of_json else []),
        )
        for row in rows
    )
    return files.csv_text((*header, *(("base_slots", "tuned_slots") if of_json else ())), cells)
