"""Answers that name several labels: which of those that are known, and how many are none of them."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sftdemo.evaluation.words import pattern

SIGNATURE = (
    "match:whole-labels|norm:nfkc|case:folded|divided:comma,semicolon,line|unparsed:invented|macro:labels-present"
)
_DIVIDERS = r"\s*[,;|\n、，；]\s*"
_MARKS = " \t\r\n.。\"'“”*`-•"


def parse(texts: Sequence[str], names: Collection[str]) -> list[tuple[frozenset[int], int]]:
    """(the labels that each answer names, by their place among the sorted names; how many others it names).

    Labels stand between commas, semicolons or lines, or in a JSON list; case, quotes and list marks aside, where no two labels
    differ in nothing else. A label that has a comma itself is found whole.
    """
    known = _Known.of(sorted(names))
    return [_sets(known.within(text)) for text in texts]


def named(texts: Sequence[str], names: Collection[str]) -> list[list[str]]:
    """The labels that each text names, in its order: the known ones as they are spelt among the names, others as in the text."""
    places = sorted(names)
    known = _Known.of(places)
    return [
        list(dict.fromkeys(places[label] if isinstance(label, int) else label for label in known.within(text)))
        for text in texts
    ]


def _sets(labels: Iterable[int | str]) -> tuple[frozenset[int], int]:
    labels = list(labels)
    others = {_plain(label) for label in labels if isinstance(label, str)}
    return frozenset(label for label in labels if isinstance(label, int)), len(others)


def _plain(part: str) -> str:
    return part.casefold().strip(_MARKS)


_FORMS: tuple[Callable[[str], str], ...] = (str, _plain)  # a label is told by the first of these that it has alone


def _parts(text: str) -> list[str]:
    parts = pattern(_DIVIDERS).split(unicodedata.normalize("NFKC", text))
    return [part.strip() for part in parts if part.strip()]


def _written(parts: Iterable[str], form: Callable[[str], str]) -> str:
    return ", ".join(filter(None, map(form, parts)))


@dataclass(frozen=True)
class _Known:
    """The known labels' places by how they are written in each form, None where two are written alike."""

    places: tuple[dict[str, int | None], ...]
    longest: int  # the most parts that a label has

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        parts = list(map(_parts, names))
        tables: list[dict[str, int | None]] = []
        for form in _FORMS:
            written = [_written(own, form) for own in parts]
            rows = Counter(written)
            tables.append({text: place if rows[text] == 1 else None for place, text in enumerate(written) if text})
        return cls(tuple(tables), max(map(len, parts), default=1))

    def place(self, parts: Sequence[str]) -> int | None:
        places = (table.get(_written(parts, form)) for table, form in zip(self.places, _FORMS, strict=True))
        return next((place for place in places if place is not None), None)

    def within(self, text: str) -> Iterator[int | str]:
        """The labels in a text: the place of each that is known, what stands there of the others."""
        try:
            listed = json.loads(text) if text.lstrip().startswith("[") else None
        except (ValueError, RecursionError):
            listed = None
        parts = _parts(", ".join(map(str, listed)) if isinstance(listed, list) else text)
        at = 0
        while at < len(parts):
            ends = range(min(at + self.longest, len(parts)), at, -1)
            places = ((end, self.place(parts[at:end])) for end in ends)
            end, place = next(((end, place) for end, place in places if place is not None), (at + 1, None))
            if place is not None:
                yield place
            elif _plain(parts[at]):
                yield parts[at]
            at = end


def counts(answers: Sequence[tuple[frozenset[int], int]], true: Sequence[frozenset[int]]) -> list[tuple[int, int, int]]:
    """(right, invented, missing) labels of each row."""
    return [
        (len(own & wanted), len(own - wanted) + others, len(wanted - own))
        for (own, others), wanted in zip(answers, true, strict=True)
    ]


def exact(answers: Sequence[tuple[frozenset[int], int]], true: Sequence[frozenset[int]]) -> list[float]:
    """1 for each row whose labels are the true ones, all of them and no other."""
    return [float(answer == (wanted, 0)) for answer, wanted in zip(answers, true, strict=True)]


def by_label(answers: Sequence[tuple[frozenset[int], int]], true: Sequence[frozenset[int]], names: int) -> Any:
    """[right…, named…, true…] of each row, sparse (n, 3 · names), as `row_statistics.macro_f1_scores` takes them."""
    import numpy as np
    from scipy.sparse import csr_matrix

    cells = [
        (row, column)
        for row, ((own, _), wanted) in enumerate(zip(answers, true, strict=True))
        for offset, labels in ((0, own & wanted), (names, own), (2 * names, wanted))
        for column in sorted(offset + label for label in labels)
    ]
    rows, columns = (np.array([cell[axis] for cell in cells], np.int64) for axis in (0, 1))
    return csr_matrix((np.ones(len(cells)), (rows, columns)), shape=(len(true), 3 * names))
