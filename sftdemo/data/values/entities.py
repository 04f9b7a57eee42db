"""Marked spans and tagged tokens, as annotation tools and CoNLL files write them, to a text and the list of its entities."""

from __future__ import annotations

from typing import Any

from sftdemo.data.files.conll import SURE, TAG
from sftdemo.data.files.table import Row, present
from sftdemo.data.text.literals import parsed_list
from sftdemo.data.text.writing_systems import written_in_han
from sftdemo.data.values.columns import key
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

Entity = dict[str, str]


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
    """(the text, [{"text", "label"}, …] in the order they stand in it) of spans or of tagged tokens.

    Raises NotEntities for spans outside the text, tags that are numbers, and as many tags as there are no tokens.
    """
    tokens, mark_list = parsed_list(text), parsed_list(marks)
    if marks is None or mark_list is None:
        raise NotEntities(Text("is no list of entities"))
    if isinstance(tokens, list):
        return _tagged([str(token) for token in tokens], mark_list)
    if not isinstance(text, str) or not text.strip():
        raise NotEntities(Text("has no text to stand in"))
    entities = []
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
            surface = text[start:end]
        elif not surface:
            raise NotEntities(Text("holds an entity without a place or a text"))
        at = start if start is not None else max(text.find(surface), 0)
        entities.append((at, -len(surface), {"text": surface, "label": label}))
    return text, [entity for _, _, entity in sorted(entities, key=lambda entry: entry[:2])]


def _span(mark: Any) -> tuple[int | None, int | None, str, str] | None:
    """(start, end, label, text) of a mark in any spelling; None for anything else."""
    if isinstance(mark, list | tuple) and len(mark) == 3:
        start, end, label = mark
        is_span = all(isinstance(at, int) and not isinstance(at, bool) for at in (start, end)) and isinstance(
            label, str
        )
        return (start, end, label, "") if is_span else None
    if isinstance(mark, list | tuple) and len(mark) == 2 and all(isinstance(part, str) for part in mark):
        return None, None, mark[1], mark[0]
    if not isinstance(mark, dict):
        return None
    label = next((mark[key] for key in _LABELS if mark.get(key)), None)
    label = label[0] if isinstance(label, list) and label else label
    start, end = (
        next((mark[key] for key in keys if isinstance(mark.get(key), int)), None) for keys in (_STARTS, _ENDS)
    )
    surface = next((mark[key] for key in _SURFACES if isinstance(mark.get(key), str)), "")
    placed = start is not None and end is not None
    return (start, end, label, surface) if isinstance(label, str) and (placed or surface) else None


def _tagged(tokens: list[str], tags: list[Any]) -> tuple[str, list[Entity]]:
    """The text of tokens and its entities; B, I, E, S, L and U before a label say how it begins and ends."""
    if any(isinstance(tag, int) for tag in tags):
        raise NotEntities(Text("holds numbers, not the names of tags (B-PER, I-PER, O)"))
    if len(tokens) != len(tags):
        raise NotEntities(Text("has {n} tags for {m} tokens", n=len(tags), m=len(tokens)))
    blank = (
        "" if all(len(token) == 1 or token.isascii() for token in tokens) and written_in_han("".join(tokens)) else " "
    )
    spans: list[tuple[str, list[str]]] = []
    open_label = None
    for token, tag in zip(tokens, map(str, tags), strict=True):
        mark, dash, label = tag.partition("-") if TAG.fullmatch(tag) else ("I", "-", tag)
        if not dash or tag == "O":
            open_label = None
            continue
        if mark in "BSU" or label != open_label:
            spans.append((label, []))
        spans[-1][1].append(token)
        open_label = None if mark in "ESLU" else label
    return blank.join(tokens), [{"text": blank.join(part), "label": label} for label, part in spans]


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
    tags = [str(row.values.get(tag)).strip() for row in rows]
    if sum(map(bool, map(TAG.fullmatch, tags))) < SURE * len(tags) or not any("-" in mark for mark in tags):
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
