"""Marked spans and tagged tokens, as annotation tools and CoNLL files write them, to a text and the list of its entities.

An entity is {"text", "label"}, and where an earlier mention of the same text is none, or is told later, "nth": which of its
occurrences it is, from 1 (`occurrences`). Without one it is the next after the last that the list names, so that a list
says of each entity where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from sftdemo.data.files.conll import SURE, TAG
from sftdemo.data.files.table import Row, present
from sftdemo.data.text.literals import parsed_list
from sftdemo.data.text.occurrences import occurrences
from sftdemo.data.values import tags
from sftdemo.data.values.columns import key
from sftdemo.data.values.tags import Span
from sftdemo.errors import Text

TEXTS = ("text", "tokens", "words", "sentence", "data", "content", "token")
MARKS = (
    *("entities", "spans", "ner_tags", "ner", "tags", "labels", "label", "bio_tags", "ner_labels", "entity", "tag"),
    *("annotations", "iob_tags"),
)
_STARTS, _ENDS = ("start", "start_offset", "start_char", "begin"), ("end", "end_offset", "end_char")
_LABELS, _SURFACES = (
    ("label", "labels", "entity", "type", "entity_type", "tag"),
    ("text", "value", "word", "surface", "name"),
)
_WORDS, _TAGS = ("word", "token", "words", "tokens"), ("tag", "ner_tag", "ner", "iob", "bio", "label", "tags")
_SENTENCES = ("sentence_#", "sentence", "sentence_id", "sentence_no", "sent_id", "sentence_number", "sentence_idx")

Entity = dict[str, Any]
MOST = 10**6  # mentions of one text in another


class NotEntities(ValueError):
    """Why a row's marks can't be read as entities: `problem` is the end of a sentence that begins with "The field"."""

    def __init__(self, problem: Text) -> None:
        super().__init__(problem)
        self.problem = problem


def are_marks(text: Any, marks: Any) -> bool:
    """Whether the marks are spans of the text, or a tag for each of its tokens."""
    mark_list, tokens = parsed_list(marks), parsed_list(text)
    if isinstance(tokens, list):
        flat = mark_list is not None and all(isinstance(tag, str | int) for tag in mark_list)
        return bool(mark_list) and flat and len(mark_list or ()) == len(tokens)
    return isinstance(text, str) and bool(mark_list) and all(_span(mark) is not None for mark in mark_list or ())


def read(text: Any, marks: Any) -> tuple[str, list[Entity]]:
    """(the text, its entities in the order they stand in it) of spans or of tagged tokens.

    Raises NotEntities for spans outside the text, an `nth` that is no count, tags that are numbers, and as many tags as there
    are no tokens.
    """
    tokens, mark_list = parsed_list(text), parsed_list(marks)
    if marks is None or mark_list is None:
        raise NotEntities(Text("is no list of entities"))
    if isinstance(tokens, list):
        if problem := tags.problem_of(tokens, mark_list):
            raise NotEntities(problem)
        whole, spans = tags.spans([str(token) for token in tokens], [str(tag) for tag in mark_list])
        return whole, written(whole, spans)
    if not isinstance(text, str) or not text.strip():
        raise NotEntities(Text("has no text to stand in"))
    placed_marks, loose = [], []
    for mark in mark_list:
        span = _span(mark)
        if span is None:
            raise NotEntities(Text("is no list of entities"))
        start, end, label, surface = span
        if start is not None and end is not None:
            if not 0 <= start < end <= len(text):
                raise NotEntities(
                    Text("marks the characters {start} to {end} of a text of {n}", start=start, end=end, n=len(text))
                )
            placed_marks.append(Span(start, end, label))
        elif not surface:
            raise NotEntities(Text("holds an entity without a place or a text"))
        else:
            loose.append({"text": surface, "label": label, **_nth(mark)})
    by_text, missing = placed(text, loose)
    return text, [*written(text, [*placed_marks, *by_text]), *missing]


def written(text: str, spans: Iterable[Span]) -> list[Entity]:
    """The spans of a text as a list of entities in its order, of two that begin together the longer first."""
    last: dict[str, int] = {}
    places: dict[str, list[int]] = {}
    entities = []
    for span in sorted(set(spans), key=lambda span: (span.start, -span.end, span.label)):
        surface = text[span.start : span.end]
        if surface not in places:
            places[surface] = occurrences(text, surface)
        nth = places[surface].index(span.start) + 1
        is_next = nth == last.get(surface, 0) + 1
        entities.append({"text": surface, "label": span.label} | ({} if is_next else {"nth": nth}))
        last[surface] = nth
    return entities


def numbered(entities: Sequence[Any]) -> list[Any]:
    """The list with the "nth" of each of its entities; what is none is left as it is."""
    last: dict[str, Any] = {}
    whole = []
    for entity in entities:
        if is_entity(entity):
            nth = last[entity["text"]] = int(entity.get("nth", last.get(entity["text"], 0) + 1))
            entity = {**entity, "nth": nth}
        whole.append(entity)
    return whole


def is_entity(value: Any) -> bool:
    """Whether a value of parsed JSON is an entity as they are written here."""
    return (
        isinstance(value, dict)
        and {"text", "label"} <= value.keys() <= {"text", "label", "nth"}
        and all(isinstance(value[name], str) and value[name] for name in ("text", "label"))
        and _is_count(value.get("nth", 1))
    )


def _is_count(value: Any) -> bool:
    return (
        isinstance(value, int | float | Decimal) and type(value) is not bool and 1 <= value <= MOST and value % 1 == 0
    )


def _nth(mark: Any) -> dict[str, int]:
    """{"nth"} of a mark that says which mention it is; raises NotEntities where that is no count."""
    nth = mark.get("nth") if isinstance(mark, dict) else None
    if nth is None:
        return {}
    if not _is_count(nth):
        raise NotEntities(Text("holds an entity whose nth is {nth!r}, not a count from 1", nth=nth))
    return {"nth": int(nth)}


def placed(text: str, entities: Sequence[Mapping[str, Any]]) -> tuple[list[Span], list[Entity]]:
    """Where the entities stand in the text, and those that don't, as they are."""
    places: dict[str, list[int]] = {}
    spans, missing = [], []
    for own, entity in zip(entities, numbered(entities), strict=True):
        surface, nth = entity["text"], entity.get("nth", MOST)  # it has one, but for a label that is empty
        if surface not in places:
            places[surface] = occurrences(text, surface)
        if nth <= len(places[surface]):
            start = places[surface][nth - 1]
            spans.append(Span(start, start + len(surface), entity["label"]))
        else:
            missing.append(dict(own))
    return spans, missing


def overlapping(spans: Sequence[Span]) -> tuple[Span, Span] | None:
    """Two spans that share a character, if there are any."""
    ordered = sorted(set(spans))
    return next(((one, two) for one, two in pairwise(ordered) if two.start < one.end), None)


def _span(mark: Any) -> tuple[int | None, int | None, str, str] | None:
    """(start, end, label, text) of a mark in any spelling; None for anything else."""
    if isinstance(mark, list | tuple) and len(mark) == 3:
        start, end, label = mark
        is_span = all(isinstance(at, int) and not isinstance(at, bool) for at in (start, end)) and isinstance(
            label, str
        )
        return (start, end, label.strip(), "") if is_span and label.strip() else None
    if isinstance(mark, list | tuple) and len(mark) == 2 and all(isinstance(part, str) for part in mark):
        return None, None, mark[1], mark[0]
    if not isinstance(mark, dict):
        return None
    label = next((mark[key] for key in _LABELS if mark.get(key)), None)
    label = label[0] if isinstance(label, list) and label else label
    label = label.strip() if isinstance(label, str) else ""
    start, end = (
        next((mark[key] for key in keys if isinstance(mark.get(key), int)), None) for keys in (_STARTS, _ENDS)
    )
    surface = next((mark[key] for key in _SURFACES if isinstance(mark.get(key), str)), "")
    placed = start is not None and end is not None
    return (start, end, label, surface) if label and (placed or surface) else None


def sentences(rows: list[Row]) -> list[Row] | None:
    """A row for each sentence of a table with a token and its tag in each row; None for other tables.

    A sentence goes on as long as its column says the same, or nothing. It stands where its first token does, or did before
    an edit left that out, and is edited where any of its tokens is.
    """
    by_key = {key(column): column for column in reversed(rows[0].values)} if rows else {}
    word, tag, number = (
        next((by_key[name] for name in names if name in by_key), None) for names in (_WORDS, _TAGS, _SENTENCES)
    )
    if word is None or tag is None or number is None:
        return None
    values = [str(row.values.get(tag)).strip() for row in rows]
    if sum(map(bool, map(TAG.fullmatch, values))) < SURE * len(values) or all(len(mark) < 2 for mark in values):
        return None
    groups: list[list[Row]] = []
    current: Any = None
    for row in rows:
        value = row.values.get(number)
        if not groups or (value not in (None, "") and value != current):
            current = value
            groups.append([])
        groups[-1].append(row)
    names = {word: "tokens", tag: "ner_tags"}
    return [_sentence(group, number, names) for group in groups if present(group)]


def _sentence(tokens: list[Row], number: str, names: dict[str, str]) -> Row:
    """The row of one sentence; `names` are those of the columns that aren't called as in the table."""
    first, edits = tokens[0], {row.edited for row in tokens}
    columns = [column for column in first.values if column != number]
    values = {names.get(column, column): [row.values.get(column) for row in present(tokens)] for column in columns}
    return first._replace(values=values, edited=edits.pop() if len(edits) == 1 else "change")
