"""Exports of annotation tools (Label Studio, Argilla, Prodigy) to plain columns: what was marked, unless it was rejected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sftdemo.data.layouts.roles import TEXT
from sftdemo.data.text.literals import parsed
from sftdemo.data.types import LeftOut
from sftdemo.data.values.columns import key
from sftdemo.errors import Text

Values = dict[str, Any]
REJECTED, IGNORED = Text("an annotator rejected them"), Text("an annotator ignored them")
CANCELLED, DISCARDED = Text("their annotation was cancelled"), Text("their answers were discarded")
UNMARKED = Text("nobody has annotated them")
_STUDIO = {
    *("id", "annotations", "predictions", "drafts", "created_at", "updated_at", "project", "file_upload", "inner_id"),
    *("total_annotations", "cancelled_annotations", "total_predictions", "comment_count", "unresolved_comment_count"),
    *("last_comment_updated_at", "updated_by", "comment_authors", "data", "allow_skip", "precomputed_agreement"),
}
_STUDIO_MIN = {"annotation_id", "annotator", "created_at", "updated_at", "lead_time", "id", "agreement"}
_PRODIGY = {
    *("answer", "_input_hash", "_task_hash", "_session_id", "_view_id", "_annotator_id", "_timestamp", "_is_binary"),
    *("options", "accept", "tokens", "spans", "relations", "config", "priority", "score", "meta", "label"),
}
_ARGILLA = {
    *("id", "fields", "responses", "suggestions", "status", "vectors", "external_id", "inserted_at", "updated_at"),
    *("inputs", "annotation", "annotation_agent", "prediction", "prediction_agent", "metrics", "explanation"),
    *("event_timestamp", "search_keywords", "_server_id"),
}
_NOT_GIVEN = {"discarded", "draft", "pending"}


def _plain(values: Values, tool_columns: set[str]) -> Values:
    """The columns that aren't the tool's own, nor empty metadata."""
    return {
        column: value
        for column, value in values.items()
        if column not in tool_columns and not (column in ("meta", "metadata") and not value)
    }


def answered(answers: dict[str, Any], written: bool = False) -> Values:
    """The columns of what was marked: spans as entities, one answer as a label or, `written`, a text, several as JSON."""
    if not answers:
        raise LeftOut(UNMARKED)
    if len(answers) > 1:
        return {"completion": json.dumps(answers, ensure_ascii=False)}
    (answer,) = answers.values()
    return {"entities": answer} if _are_spans(answer) else {"completion" if written else "label": answer}


def _are_spans(answer: Any) -> bool:
    return (
        isinstance(answer, list) and bool(answer) and all(isinstance(mark, dict) and "start" in mark for mark in answer)
    )


def is_label_studio(values: Values) -> bool:
    return isinstance(values["data"], dict) and isinstance(values["annotations"], list)


def label_studio(values: Values) -> Iterator[Values]:
    """A task, with the annotation its maker calls the truth, else the first that wasn't cancelled."""
    annotations = [part for part in values["annotations"] if isinstance(part, dict)]
    valid = [part for part in annotations if not part.get("was_cancelled")]
    if annotations and not valid:
        raise LeftOut(CANCELLED)
    valid = [part for part in valid if part.get("result")]
    chosen = next((part for part in valid if part.get("ground_truth")), valid[0] if valid else {"result": []})
    written = any(result.get("type") == "textarea" for result in chosen["result"])
    yield {**_plain(values, _STUDIO), **values["data"], **answered(_studio_answers(chosen["result"]), written)}


def studio_differs(values: Values) -> bool:
    """Whether several people marked the task, and not alike."""
    valid = [part for part in values["annotations"] if isinstance(part, dict) and not part.get("was_cancelled")]
    answers_by_annotation = [_studio_answers(part["result"]) for part in valid if part.get("result")]
    return any(answers != answers_by_annotation[0] for answers in answers_by_annotation)


def _studio_answers(results: Any) -> dict[str, Any]:
    """{name of the control: what was marked with it}."""
    answers: dict[str, Any] = {}
    for result in results if isinstance(results, list) else ():
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            continue
        name, kind = str(result.get("from_name") or "answer"), str(result.get("type"))
        marked = value.get("text" if kind == "textarea" else kind)
        if kind == "taxonomy" and isinstance(marked, list):
            marked = [" / ".join(map(str, path)) if isinstance(path, list) else path for path in marked]
        if kind in ("labels", "hypertextlabels") and isinstance(marked, list):
            marked = [{**value, "label": label} for label in marked]
            marked = [{key: mark[key] for key in ("start", "end", "text", "label") if key in mark} for mark in marked]
        if isinstance(marked, list) and isinstance(answers.get(name), list):
            answers[name] += marked
        elif marked is not None:
            answers[name] = marked
    return {name: marked[0] if isinstance(marked, list) and len(marked) == 1 and not _are_spans(marked) else marked
            for name, marked in answers.items()}  # fmt: skip


def is_label_studio_min(values: Values) -> bool:
    return "annotator" in values or "lead_time" in values


def label_studio_min(values: Values) -> Iterator[Values]:
    """The flat export (JSON-MIN, CSV): a control's value is a text, {"choices": […]}, or spans."""
    row = _plain(values, _STUDIO_MIN)
    for column, value in row.items():
        content = parsed(value) if isinstance(value, str) else value
        if isinstance(content, dict) and isinstance(content.get("choices"), list):
            row[column] = content["choices"]
        elif (
            isinstance(content, list)
            and content
            and all(isinstance(mark, dict) and "labels" in mark for mark in content)
        ):
            row[column] = [
                {key: value for key, value in mark.items() if key != "labels"} | {"label": label}
                for mark in content
                for label in mark["labels"]
            ]
    row = {("entities" if _are_spans(value) else column): value for column, value in row.items()}
    controls = [column for column in row if key(column) not in TEXT]
    # With one control its value is the label, whatever the control was called.
    only = controls[0] if len(controls) == 1 and controls[0] != "entities" else None
    yield {("label" if column == only else column): value for column, value in row.items()}


def is_prodigy(values: Values) -> bool:
    marks = ("label", "spans", "options", "accept", "_input_hash", "_task_hash")
    return values["answer"] in ("accept", "reject", "ignore") and any(mark in values for mark in marks)


def prodigy(values: Values) -> Iterator[Values]:
    if values["answer"] != "accept":
        raise LeftOut(REJECTED if values["answer"] == "reject" else IGNORED)
    answers: dict[str, Any] = {}
    if isinstance(values.get("accept"), list):
        options = values.get("options") if isinstance(values.get("options"), list) else []
        texts = {option.get("id"): option.get("text") for option in options or () if isinstance(option, dict)}
        chosen = [texts.get(choice) or choice for choice in values["accept"]]
        if not chosen:
            raise LeftOut(UNMARKED)
        answers["labels"] = chosen[0] if len(chosen) == 1 else chosen
    elif isinstance(values.get("label"), str) and not values.get("spans"):
        answers["label"] = values["label"]
    row = _plain(values, _PRODIGY)
    if "spans" in values and isinstance(values["spans"], list) and not (answers and not values["spans"]):
        marks = [{**mark, "label": mark.get("label")} for mark in values["spans"] if isinstance(mark, dict)]
        if not answers:
            yield {**row, "entities": [{key: mark.get(key) for key in ("start", "end", "label")} for mark in marks]}
            return
        text = row.get("text") if isinstance(row.get("text"), str) else ""
        answers["entities"] = [
            {"text": str(text)[mark.get("start") or 0 : mark.get("end") or 0], "label": mark["label"]} for mark in marks
        ]
    yield {**row, **(answered(answers) if answers else {})}


def is_argilla(values: Values) -> bool:
    return isinstance(values["fields"], dict) and ("responses" in values or "suggestions" in values)


def argilla(values: Values) -> Iterator[Values]:
    """A record with fields and responses; what a model suggested and nobody confirmed is not learned."""
    if values.get("status") == "discarded":
        raise LeftOut(DISCARDED)
    answers: dict[str, list[Any]] = {}
    turned_down = False
    responses = values.get("responses") or {}
    responses_by_question = (
        [{"question_name": name, **answer} for name, part in responses.items() for answer in part or ()]
        if isinstance(responses, dict)
        else [
            {**response, "question_name": name, "value": answer.get("value") if isinstance(answer, dict) else answer}
            for response in responses
            for name, answer in (
                response.get("values") or {response.get("question_name"): response.get("value")}
            ).items()
        ]
    )
    for answer in responses_by_question:
        if answer.get("status") in _NOT_GIVEN:
            turned_down = turned_down or answer["status"] == "discarded"
        elif answer.get("value") is not None:
            answers.setdefault(str(answer["question_name"]), []).append(answer["value"])
    if turned_down and not answers:
        raise LeftOut(DISCARDED)
    yield {
        **_plain(values, _ARGILLA),
        **values["fields"],
        **answered({name: part[0] for name, part in answers.items()}),
    }


def argilla_differs(values: Values) -> bool:
    responses = values.get("responses")
    answers_by_question = responses.values() if isinstance(responses, dict) else ()
    return any(answer.get("value") != part[0].get("value") for part in answers_by_question for answer in part or ())


def is_old_argilla(values: Values) -> bool:
    return "annotation_agent" in values or "prediction_agent" in values or values.get("status") in (
        *("Validated", "Default", "Discarded", "Edited"),
    )  # fmt: skip


def old_argilla(values: Values) -> Iterator[Values]:
    """A record of Argilla 1: `annotation` beside `text` or `inputs`."""
    if str(values.get("status")).casefold() == "discarded":
        raise LeftOut(DISCARDED)
    marked = values["annotation"]
    if marked in (None, [], ""):
        raise LeftOut(UNMARKED)
    if isinstance(marked, list) and all(isinstance(mark, dict | list) for mark in marked):
        marked = [
            mark if isinstance(mark, dict) else dict(zip(("label", "start", "end"), mark, strict=False))
            for mark in marked
        ]
    inputs = values["inputs"] if isinstance(values.get("inputs"), dict) else {}
    row = _plain(values, {*_ARGILLA, "tokens"})
    yield {**row, **({} if "text" in row else inputs), **answered({"annotation": marked})}


_PUBLISHED = ".responses"


def is_published_argilla(columns: Iterable[str]) -> bool:
    return any(column.endswith(_PUBLISHED) for column in columns)


def published_argilla(values: Values) -> Iterator[Values]:
    """A row of a set that Argilla put on the Hub: "label.responses", "label.responses.status", "label.suggestion", …"""
    questions = [column.removesuffix(_PUBLISHED) for column in values if column.endswith(_PUBLISHED)]
    asked = set(questions)
    answer_to: dict[str, Any] = {}
    turned_down = False
    for question in questions:
        answers = values[question + _PUBLISHED] or []
        states = values.get(f"{question}{_PUBLISHED}.status") or ["submitted"] * len(answers)
        for answer, state in zip(answers, states, strict=False):
            turned_down = turned_down or state == "discarded"
            if state not in _NOT_GIVEN and answer is not None:
                answer_to.setdefault(question, answer)
    if turned_down and not answer_to:
        raise LeftOut(DISCARDED)
    question_columns = {column for column in values if not asked.isdisjoint(_stems(column))}
    yield {**_plain(values, {*_ARGILLA, *question_columns}), **answered(answer_to)}


def _stems(column: str) -> Iterator[str]:
    """What stands before each of the column's dots."""
    return (column[:at] for at, character in enumerate(column) if character == ".")
