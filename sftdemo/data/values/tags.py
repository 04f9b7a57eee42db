"""Tagged tokens (BIO, IOB1, IOBES, BILOU, plain labels) as a text and the spans of its entities, and back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from sftdemo.data.files.table import Row
from sftdemo.data.text.literals import parsed_list
from sftdemo.data.text.writing_systems import written_in_han
from sftdemo.data.values.columns import key
from sftdemo.errors import Text

MARKS = tuple("BIESLUM")  # begin, inside, end, single, last, unit, middle
_MARKED = re.compile(rf"([{''.join(MARKS)}])[-_](.+)", re.IGNORECASE)
OUTSIDE = {"o", "", "_", "-", "none", "null"}
NAMES = ("label_names", "tag_names", "ner_tag_names", "class_names")  # columns that name tags which are numbers


class Span(NamedTuple):
    """An entity: the characters from `start` to before `end` of a text."""

    start: int
    end: int
    label: str


class _Chunk(NamedTuple):
    """An entity as tags `first` to before `end`, which begins with the letter `mark`; `touches` one of its label before it."""

    first: int
    end: int
    label: str
    mark: str
    touches: bool


def _split(tag: str) -> tuple[str, str]:
    """(letter, label) of a tag; a bare label is one inside, and ("O", "") is outside."""
    tag = tag.strip()
    if tag.casefold() in OUTSIDE:
        return "O", ""
    mark, dash, label = tag.partition("-")
    return (mark, label) if dash and label and mark in MARKS else ("I", tag)


def usual_spellings(tags: Iterable[str]) -> dict[str, str]:
    """{tag: as it is usually written} of tags with their mark in lower case or before a `_` (b-per, B_PER).

    Empty where a tag has no mark, or no label stands both under a B and inside or at an end: then they are labels alone.
    """
    every = {tag for tag in tags if tag.strip().casefold() not in OUTSIDE}
    matches = {tag: _MARKED.fullmatch(tag.strip()) for tag in every}
    marks_of: defaultdict[str, set[str]] = defaultdict(set)
    for match in matches.values():
        if match is None:
            return {}
        marks_of[match[2]].add(match[1].upper())
    if not any("B" in marks and marks & set("IEL") for marks in marks_of.values()):
        return {}
    usual = {tag: f"{match[1].upper()}-{match[2]}" for tag, match in matches.items() if match}
    return {tag: written for tag, written in usual.items() if written != tag.strip()}


def _chunks(tags: Sequence[str]) -> Iterator[_Chunk]:
    """The entities of a sentence as seqeval finds them by default: I- begins one where none of its label is open."""
    current: _Chunk | None = None
    ended = -1, ""  # where the last entity ended, and its label
    for place, (mark, label) in enumerate(map(_split, tags)):
        if current and (mark in "OBSU" or label != current.label):
            yield current
            ended, current = (place, current.label), None
        if mark == "O":
            continue
        if current is None:
            current = _Chunk(place, place + 1, label, mark, ended == (place, label))
        current = current._replace(end=place + 1)
        if mark in "ESLU":
            yield current
            ended, current = (place + 1, label), None
    if current:
        yield current


def chunks(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first, end, label) of each entity: tags `first` to before `end`."""
    return [(chunk.first, chunk.end, chunk.label) for chunk in _chunks(tags)]


def damaged(sentences: Sequence[Sequence[str]]) -> tuple[list[int], int]:
    """The sentences with an entity that begins amid one (I- without B-), and how many such entities there are.

    There are none where the tags are in a scheme without beginnings: plain labels, or IOB1, whose B- only divides neighbours.
    """
    explicit, bare = False, []
    for number, tags in enumerate(sentences):
        for chunk in _chunks(tags):
            explicit = explicit or chunk.mark in "SU" or (chunk.mark == "B" and not chunk.touches)
            bare += [(number, chunk.mark)] if chunk.mark in "IMEL" else []
    broken = [number for number, mark in bare if explicit or mark in "EL"]
    return sorted(set(broken)), len(broken)


def joined(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The text of tokens, and where each stands in it; Chinese characters stand without blanks."""
    han = all(len(token) == 1 or token.isascii() for token in tokens) and written_in_han("".join(tokens))
    blank = "" if han else " "
    places, at = [], 0
    for token in tokens:
        places.append((at, at + len(token)))
        at += len(token) + len(blank)
    return blank.join(tokens), places


def spans(tokens: Sequence[str], tags: Sequence[str]) -> tuple[str, list[Span]]:
    """The text of tokens with a tag each, and its entities; those of tokens without a character are none."""
    text, places = joined(tokens)
    entities = [Span(places[first][0], places[end - 1][1], label) for first, end, label in chunks(tags)]
    return text, [span for span in entities if text[span.start : span.end].strip()]


def tags_of(words: Sequence[tuple[int, int]], entities: Sequence[Span]) -> list[str]:
    """The BIO tag of each word (start, end); a word that two entities share has the tag of the first."""
    tags = ["O"] * len(words)
    for span in sorted(entities):
        inside = [number for number, (start, end) in enumerate(words) if start < span.end and end > span.start]
        free = [number for number in inside if tags[number] == "O"]
        for number in free:
            tags[number] = f"{'B' if number == free[0] else 'I'}-{span.label}"
    return tags


def spans_of(words: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Span]:
    """The entities of tagged words (start, end)."""
    return [Span(words[first][0], words[end - 1][1], label) for first, end, label in chunks(tags)]


def named(rows: list[Row]) -> list[Row]:
    """The rows with the names of labels and tags that are numbers, where a column lists them, alike in all rows of a file; the
    others, and those of columns with a number that has no name, as they are."""
    column = next((name for name in NAMES if any(name in row.values for row in rows)), None)
    if column is None:
        return rows
    of_file: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_file[row.file].append(row)
    names = {file: _names(own, column) for file, own in of_file.items()}
    numbered = {file: _numbered(own, column, names[file]) for file, own in of_file.items()}
    return [_named(row, column, names[row.file], numbered[row.file]) if numbered[row.file] else row for row in rows]


def _names(rows: Sequence[Row], column: str) -> list[str]:
    """The names that all these rows list, empty where they don't list the same: then they are each row's own labels."""
    first = rows[0].values.get(column)
    names = parsed_list(first) if all(row.values.get(column) == first for row in rows) else None
    return names if names and all(isinstance(name, str) for name in names) else []


def _numbered(rows: Sequence[Row], column: str, names: Sequence[str]) -> list[str]:
    """The columns whose values are all numbers of these names, or such a name, as an edit writes it: lists of them, or one each
    where the column is called so."""
    stem = column.removesuffix("_names")
    result = []
    for name in dict.fromkeys(name for row in rows for name in row.values if name != column):
        single = key(name) in (stem, f"{stem}s", "label")
        own = [row.values[name] for row in rows if row.values.get(name) is not None]
        lists = [numbers if (numbers := parsed_list(value)) is not None or not single else [value] for value in own]
        if any(map(_is_int, chain.from_iterable(filter(None, lists)))) and all(
            numbers is not None and all(_name(number, names) is not None for number in numbers) for numbers in lists
        ):
            result.append(name)
    return result


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _name(value: Any, names: Sequence[str]) -> str | None:
    if _is_int(value):
        return names[value] if 0 <= value < len(names) else None
    return value if isinstance(value, str) and value in names else None


def _named(row: Row, column: str, names: Sequence[str], numbered: Sequence[str]) -> Row:
    values = {name: value for name, value in row.values.items() if name != column}
    for name in numbered:
        if (value := values.get(name)) is not None:
            numbers = parsed_list(value)
            values[name] = _name(value, names) if numbers is None else [_name(number, names) for number in numbers]
    return row._replace(values=values)


def problem_of(tokens: Sequence[Any], tags: Sequence[Any]) -> Text | None:
    """Why these can't be tokens with a tag each, as the end of a sentence that begins with "The field"."""
    if any(isinstance(tag, int) or (isinstance(tag, str) and tag.strip().isdigit()) for tag in tags):
        return Text("holds numbers, not the names of tags (B-PER, I-PER, O)")
    if len(tokens) != len(tags):
        return Text("has {n} tags for {m} tokens", n=len(tags), m=len(tokens))
    return None
