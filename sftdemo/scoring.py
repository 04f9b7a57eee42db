"""Scores for rows of predictions with references or labels, checked before any engine sees them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sftdemo import answers, metrics, structured, words
from sftdemo.errors import DataError, Fault, UsageError, UserError
from sftdemo.labels import LENIENT_SIGNATURE
from sftdemo.metrics import Scores, row_scores
from sftdemo.thoughts import answer_of

__all__ = ["read_predictions", "row_scores", "score", "suite"]

Row = dict[str, Any]
Suite = dict[str, Callable[..., Scores]]

FIRST = ("bleu", "chrf", *metrics.ROUGE_KINDS, "exact_match", "accuracy", "macro_f1")
_REMEDY = 'Write it as {"prediction": "…", "references": ["…"]} or {"prediction": "…", "label": "…"}.'


def _text_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return f"is {_shown(value)}, not a text."
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair."
    return None


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 40 else text[:39] + "…"


def _row_faults(row: object, line: int, file: str) -> Iterable[Fault]:
    def fault(field: str, problem: str, remedy: str) -> Fault:
        return Fault(line, field, problem, remedy, file)

    if not isinstance(row, dict):
        yield fault("", f"The row is {_shown(row)}, not an object.", _REMEDY)
        return
    if "prediction" not in row:
        yield fault("prediction", "is missing.", _REMEDY)
    elif problem := _text_problem(row["prediction"]):
        yield fault("prediction", problem, "Put it in quotes; an empty answer is an empty text.")
    if row.get("references") is None and row.get("label") is None:
        yield fault("references", "is missing, and there is no label.", _REMEDY)
    if row.get("label") is not None and (problem := _text_problem(row["label"])):
        yield fault("label", problem, "Put it in quotes.")
    elif row.get("label") is not None and not row["label"].strip():
        yield fault("label", "is empty.", "Name the class.")
    references = row.get("references")
    if references is None:
        return
    if not isinstance(references, list | tuple) or not references:
        yield fault("references", f"is {_shown(references)}.", "Give a list of one or more texts.")
        return
    for text in references:
        if problem := _text_problem(text):
            yield fault("references", problem, "Give a list of texts.")
            return


def _check(numbered: Sequence[tuple[int, object]], file: str) -> list[Row]:
    """The rows, or DataError with all that is wrong with them."""
    faults = [fault for line, row in numbered for fault in _row_faults(row, line, file)]
    rows = [row for _, row in numbered if isinstance(row, dict)]
    with_label = next((line for line, row in numbered if isinstance(row, dict) and row.get("label") is not None), None)
    if with_label is not None:
        faults += [
            Fault(
                line, "label", f"is missing, while line {with_label} has one.", "Give every row a label, or none.", file
            )
            for line, row in numbered
            if isinstance(row, dict) and row.get("label") is None
        ]
    if faults:
        raise DataError(sorted(faults, key=lambda fault: fault.line))
    return rows


def read_predictions(path: str | Path) -> list[Row]:
    """The rows of a JSONL file; DataError names every line that isn't one."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. Give a JSONL file of predictions.") from None
    numbered: list[tuple[int, object]] = []
    faults = []
    for line, data in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not data.strip():
            continue
        try:
            numbered.append((line, json.loads(data.decode())))
        except UnicodeDecodeError as error:
            faults.append(
                Fault(line, "", f"Byte {error.start + 1} is not UTF-8.", "Save the file as UTF-8.", str(path))
            )
        except (ValueError, RecursionError) as error:
            faults.append(Fault(line, "", f"This is not JSON: {error}.", "Write one JSON object a line.", str(path)))
    try:
        rows = _check(numbered, str(path))
    except DataError as error:
        faults += error.faults
    if faults:
        raise DataError(sorted(faults, key=lambda fault: fault.line))
    if not rows:
        raise UserError(f"{path} has no rows. {_REMEDY}")
    return rows


def suite(language: str, tokenizer: str | None) -> Suite:
    """The text scores by name, each to be called with `predictions` and `references`."""
    return {
        "bleu": partial(metrics.bleu, language=language, tokenizer=tokenizer),
        "chrf": metrics.chrf,
        "rouge": partial(metrics.rouge, kinds=metrics.ALL_ROUGE),
        "exact_match": metrics.exact_match,
        "ter": partial(metrics.ter, language=language),
        "answers": answers.answer_scores,
        "json": structured.json_scores,
    }


def score(
    rows: Sequence[Row],
    language: str = "auto",
    tokenizer: str | None = None,
    labels: Sequence[str] | None = None,
    through_evaluate: bool = False,
) -> Scores:
    """{"n", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "accuracy", "macro_f1", "signatures", …}.

    After these: "lenient_accuracy" (labels as a reader would take them, `labels.parse_lenient`), "rougeLsum", "ter" (None
    where it would take minutes), what `answers.answer_scores` gives, and where all references are JSON what
    `structured.json_scores` gives; and "classes", what `metrics.classification` gives (None without labels).

    Rows are {"prediction", "references": […]} or {"prediction", "label"} or both; a label without references is the
    reference. The accuracies and `macro_f1` are None without labels; `labels` is the declared set. With `through_evaluate`
    the same functions are called through the classes of `measures`, whose import takes seconds.
    """
    if not isinstance(rows, list | tuple):
        raise UserError(f"The rows are {_shown(rows)}; give a list. {_REMEDY}")
    if not rows:
        raise UserError(f"There are no rows to score. {_REMEDY}")
    if tokenizer is not None and tokenizer not in metrics.TOKENIZERS:
        raise UsageError(f"tokenizer is {tokenizer!r}; choose one of: {', '.join(metrics.TOKENIZERS)}.")
    rows = _check(list(enumerate(rows, 1)), "rows")
    predictions = [answer_of(row["prediction"]) for row in rows]
    references = [[answer_of(text) or text for text in row.get("references") or [row["label"]]] for row in rows]
    language = words.resolve_language(language, references)
    scorers = suite(language, tokenizer)
    classify: Callable[..., Scores] = partial(metrics.classification, labels=labels)
    if through_evaluate:
        from sftdemo import measures

        scorers, classify = measures.suite(language, tokenizer), measures.Classification(labels=labels).compute
    if not metrics.ter_is_quick([*predictions, *(text for texts in references for text in texts)], len(rows)):
        del scorers["ter"]
    if not structured.are_json(references):
        del scorers["json"]
    found: Scores = {"accuracy": None, "macro_f1": None, "lenient_accuracy": None, "ter": None, "classes": None}
    signatures = {}
    for name, scorer in scorers.items():
        found |= scorer(predictions=predictions, references=references)
        signatures[name] = found.pop("signature")
    if rows[0].get("label") is not None:
        found["classes"] = classify(predictions=predictions, references=[row["label"] for row in rows])
        signatures |= {"accuracy": found["classes"].pop("signature"), "lenient_accuracy": LENIENT_SIGNATURE}
        found |= {name: found["classes"][name] for name in ("accuracy", "macro_f1", "lenient_accuracy")}
    first = {name: found.pop(name) for name in FIRST}
    return {"n": len(rows), **first, "signatures": signatures, **found}
