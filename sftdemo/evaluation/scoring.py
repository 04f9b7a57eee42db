"""Scores for rows of predictions with references or labels, checked before any engine sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftdemo.encoding.thoughts import answer_of
from sftdemo.errors import DataError, Fault, Text, UsageError, UserError
from sftdemo.evaluation import answer_metrics, json_metrics, metrics, registry, words
from sftdemo.evaluation.metrics import Scores
from sftdemo.evaluation.sides import Side, Targets

Row = dict[str, Any]

FIRST = ("bleu", "chrf", *metrics.ROUGE_KINDS, "exact_match", "accuracy", "macro_f1")
# What columns are called, the usual name first; where two are there, the first counts.
PREDICTION = ("prediction", "predictions", "predicted", "pred", "y_pred", "output", "generated", "generated_text",
              "response", "hypothesis", "completion")  # fmt: skip
REFERENCES = ("references", "reference", "targets", "target", "answers", "answer", "gold", "expected", "ground_truth")
LABEL = ("label", "labels", "true_label", "gold_label", "y_true")
ROLES = {"prediction": PREDICTION, "references": REFERENCES, "label": LABEL}
_REMEDY = Text('Write it as {"prediction": "…", "references": ["…"]} or {"prediction": "…", "label": "…"}.')


def columns(row: Mapping[str, Any]) -> dict[str, str]:
    """{role: the row's own name for it}: prediction, references and label, as far as they are there."""
    names = {re.sub(r"[\s-]+", "_", key.strip().casefold()): key for key in reversed(list(row)) if isinstance(key, str)}
    return {role: names[synonyms[0]] for role in ROLES if (synonyms := [name for name in ROLES[role] if name in names])}


def standard(row: Mapping[str, Any]) -> Row:
    """The row under the standard names: what is no text is written as one, no prediction is an empty answer, and a
    reference that is alone becomes a list. What no text can be made of stays, and is at fault."""
    names = columns(row)
    result: Row = {}
    if "prediction" in names:
        value = row[names["prediction"]]
        result["prediction"] = "" if _is_nothing(value) else _as_text(value)
    if "references" in names and not _is_nothing(value := row[names["references"]]) and value != "":
        several = isinstance(value, list | tuple) and (
            names["references"].strip().casefold().endswith("s")
            or not any(isinstance(reference, dict) for reference in value)
        )
        result["references"] = (
            [reference if reference is None else _as_text(reference) for reference in value]
            if several
            else [_as_text(value)]
        )
    if "label" in names and not _is_nothing(value := row[names["label"]]):
        alone = value[0] if isinstance(value, list) and len(value) == 1 else value
        result["label"] = alone if isinstance(alone, list | dict) else _as_text(alone)
    return result


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _as_text(value: Any) -> Any:
    """Numbers as people write them (2.0 is 2), objects and lists as JSON."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float | dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if isinstance(value, str) else str(value)


def _text_problem(value: object) -> Text | None:
    if not isinstance(value, str):
        return Text("is {value}, not a text.", value=_shown(value))
    try:
        value.encode()
    except UnicodeEncodeError:
        return Text("holds half of a surrogate pair.")
    return None


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 40 else text[:39] + "…"


def _row_faults(row: Row, line: int, file: str) -> Iterable[Fault]:
    """What is wrong with a row under the standard names."""

    def fault(field: str, problem: Text, remedy: Text) -> Fault:
        return Fault(line, field, problem, remedy, file)

    if "prediction" not in row:
        yield fault("prediction", Text("is missing."), _REMEDY)
    elif problem := _text_problem(row["prediction"]):
        yield fault("prediction", problem, Text("Write a text; an empty answer is an empty text."))
    if "references" not in row and "label" not in row:
        yield fault("references", Text("is missing, and there is no label."), _REMEDY)
    if "label" in row and (problem := _text_problem(row["label"])):
        yield fault("label", problem, Text("Write one text."))
    elif "label" in row and not row["label"].strip():
        yield fault("label", Text("is empty."), Text("Name the class."))
    if "references" not in row:
        return
    if not row["references"]:
        yield fault("references", Text("is []."), Text("Give a list of one or more texts."))
    for text in row["references"]:
        if problem := _text_problem(text):
            yield fault("references", problem, Text("Give a list of texts."))
            return


def checked(numbered: Sequence[tuple[int, object]], file: str) -> list[Row]:
    """The rows under the standard names, or DataError with all that is wrong with them."""
    faults: list[Fault] = []
    rows: list[tuple[int, Row]] = []
    for line, row in numbered:
        if isinstance(row, Mapping):
            rows.append((line, standard(row)))
            faults += _row_faults(rows[-1][1], line, file)
        else:
            faults.append(Fault(line, "", Text("The row is {value}, not an object.", value=_shown(row)), _REMEDY, file))
    with_label = next((line for line, row in rows if "label" in row), None)
    if with_label is not None:
        problem, remedy = (
            Text("is missing, while line {line} has one.", line=with_label),
            Text("Give every row a label, or none."),
        )
        faults += [Fault(line, "label", problem, remedy, file) for line, row in rows if "label" not in row]
    if faults:
        raise DataError(sorted(faults, key=lambda fault: fault.line))
    return [row for _, row in rows]


def side_scores(side: Side, rows: Mapping[str, Any]) -> Scores:
    """The score of each metric, of the rows' statistics (`registry.statistics`); what answers are like; and of JSON
    "fields" and "entities" with their own figures."""
    of_json: Scores = json_metrics.parts(side.json, side.targets.have_entities) if side.targets.are_json else {}
    of_json |= json_metrics.entity_rates(side.json) if side.targets.have_entities else {}
    return registry.scores(side, rows) | answer_metrics.shape(side.texts, side.references) | of_json


def score(
    rows: Sequence[Row],
    language: str = "auto",
    tokenizer: str | None = None,
    labels: Sequence[str] | None = None,
) -> Scores:
    """{"n", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "accuracy", "macro_f1", "signatures", …}.

    After these the other metrics (docs/metrics.md) that need no model, what answers are like, where all references are JSON
    their "fields" and "entities", and "classes", what `metrics.classification` gives.

    Rows are {"prediction", "references": […]} or {"prediction", "label"} or both, or go by other usual names
    (`standard`); a label without references is the reference. What rests on labels is None without them, "ter" where it
    would take minutes; `labels` is the declared set. Raises DataError for rows that can't be scored.
    """
    if not isinstance(rows, list | tuple):
        raise UserError("The rows are {value}; give a list. {remedy}", value=_shown(rows), remedy=_REMEDY)
    if not rows:
        raise UserError("There are no rows to score. {remedy}", remedy=_REMEDY)
    if tokenizer is not None and tokenizer not in metrics.TOKENIZERS:
        raise UsageError(
            "{name} is {value!r}; choose one of: {names}.", name="tokenizer", value=tokenizer, names=metrics.TOKENIZERS
        )
    rows = checked(list(enumerate(rows, 1)), "rows")
    references = [[answer_of(text) or text for text in row.get("references") or [row["label"]]] for row in rows]
    true = [row["label"] for row in rows] if rows[0].get("label") is not None else None
    names = list(labels) if labels is not None else sorted(set(true or ()))
    targets = Targets(references, words.resolve_language(language, references), tokenizer, true, names)
    side = Side(targets, [answer_of(row["prediction"]) for row in rows])
    scores: Scores = dict.fromkeys(("accuracy", "macro_f1", "lenient_accuracy", "ter"))
    scores |= {"classes": side.classes if side.has_labels else None} | side_scores(side, registry.statistics(side))
    first = {name: scores.pop(name) for name in FIRST}
    return {"n": len(rows), **first, "signatures": registry.signatures(side), **scores}
