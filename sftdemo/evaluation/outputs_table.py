"""The saved answers as a table: how each row fared by one metric, sorted, filtered, a page at a time; as CSV and JSONL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo import files
from sftdemo.encoding.thoughts import answers_only
from sftdemo.errors import UsageError
from sftdemo.evaluation import answer_metrics, json_metrics, metrics, row_statistics
from sftdemo.evaluation.labels import parse_labels, parse_lenient, parse_true_labels

Row = dict[str, Any]

OF_LABELS = {"accuracy": parse_labels, "lenient_accuracy": parse_lenient}
OF_JSON = ("field_f1", "entity_f1", "json_exact")
METRICS = (*OF_LABELS, *OF_JSON, "exact_match", "token_f1", "rougeL", "chrf")
MARKS = ("better", "worse", "differ", "same")
FILTERS = ("all", "better", "worse", "differ")
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
    """The metrics that rows can be told apart by; accuracy first, where all have labels; those of JSON where all references are."""
    references = [answers_only(row)["references"] for row in rows]
    unfit: set[str] = set()
    if not rows or not all(row.get("label") for row in rows):
        unfit |= OF_LABELS.keys()
    if not json_metrics.are_json(references):
        unfit |= set(OF_JSON)
    elif not json_metrics.has_entities(references):
        unfit.add("entity_f1")
    return tuple(name for name in METRICS if name not in unfit)


def row_values(
    rows: Sequence[Mapping[str, Any]], side: str, metric: str, labels: Sequence[str] | None = None
) -> list[float]:
    """One side's score on each row: rates 0 or 1, F1s 0 to 1, rougeL and chrf 0 to 100.

    `labels` are those declared; without, those of the rows.
    """
    texts, references = [row[side] for row in rows], [row["references"] for row in rows]
    if not rows:
        return []
    if parse := OF_LABELS.get(metric):
        names = labels or sorted({row["label"] for row in rows})
        true = parse_true_labels([row["label"] for row in rows], names)
        return [float(one == other) for one, other in zip(parse(texts, names), true, strict=True)]
    if metric in OF_JSON:
        compared = json_metrics.json_rows(texts, references)
        if metric == "json_exact":
            return [float(row.exact) for row in compared]
        return [row.f1("fields" if metric == "field_f1" else "entities") for row in compared]
    if metric == "exact_match":
        return metrics.exact_rows(texts, references)
    if metric == "token_f1":
        return answer_metrics.token_f1_rows(texts, references)
    if metric == "rougeL":
        return [overlaps["rougeL"].f for overlaps in metrics.rouge_rows(texts, references, ["rougeL"])]
    if metric == "chrf":
        from sacrebleu.metrics import CHRF

        values: list[float] = row_statistics.chrf_scores(row_statistics.chrf_rows(CHRF(), texts, references)).tolist()
        return values
    raise UsageError("{name} is {value!r}; choose one of: {names}.", name="metric", value=metric, names=METRICS)


def judged(rows: Sequence[Row], metric: str, labels: Sequence[str] | None = None) -> list[Row]:
    """The rows, each with its `gain` (tuned minus base by the metric) and its `mark`; where all references are JSON also
    with `slots`, {side: what the answer lacks, has otherwise or adds}.

    better and worse by the metric, thoughts aside; differ where it sees no difference between unlike answers; same for the same answer.
    """
    scored = [answers_only(row) for row in rows]
    base, tuned = (row_values(scored, side, metric, labels) for side in ("base", "tuned"))
    judged_rows = []
    for row, before, after in zip(rows, base, tuned, strict=True):
        gain = after - before
        equal = "same" if row["base"].strip() == row["tuned"].strip() else "differ"
        mark = "better" if gain > 1e-9 else "worse" if gain < -1e-9 else equal
        judged_rows.append(row | {"gain": gain, "mark": mark})
    if json_metrics.are_json([row["references"] for row in scored]):
        judged_rows = [row | {"slots": slots(plain)} for row, plain in zip(judged_rows, scored, strict=True)]
    return judged_rows


def slots(row: Mapping[str, Any]) -> dict[str, list[json_metrics.Slot]]:
    """{side: where its JSON differs from the reference's}, of a row without thoughts."""
    return {side: json_metrics.slots(row[side], row["references"]) for side in ("base", "tuned")}


def _matches(row: Row, filter: str, label: str, text: str) -> bool:
    if filter != "all" and not (row["mark"] == filter or (filter == "differ" and row["mark"] != "same")):
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

    `filter` is one of FILTERS (differ: all whose answers differ), `label` a true label, `text` what a prompt, reference
    or answer holds, case aside. "gained" puts what improved most first, "lost" what suffered most.
    """
    for name, value, choices in (("sort", sort, SORTS), ("filter", filter, FILTERS)):
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


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The outputs for a spreadsheet. Where all references are JSON, two more columns tell each side's differences."""
    scored = [answers_only(row) for row in rows]
    of_json = json_metrics.are_json([row["references"] for row in scored])
    header = (
        "row",
        "prompt",
        "reference",
        "label",
        "base",
        "tuned",
        *(("base_slots", "tuned_slots") if of_json else ()),
    )
    cells = (
        (
            row["row"],
            row["messages"][-1]["content"],
            (row["references"] or [""])[0],
            row.get("label") or "",
            row["base"],
            row["tuned"],
            *(["; ".join(map(str, differing)) for differing in slots(plain).values()] if of_json else []),
        )
        for row, plain in zip(rows, scored, strict=True)
    )
    return files.csv_text(header, cells)
