"""Which words of two texts differ, in time that is bounded whatever stands there: a longest common subsequence, by bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Piece = tuple[str, int, int, int, int]  # "equal" or "replace", then where in the old and where in the new


def pieces(old: Sequence[str], new: Sequence[str]) -> Iterator[Piece]:
    """Both in turn, as runs that are equal and runs that aren't; one side of the latter may be empty.

    A row of the usual table is one integer (Crochemore et al. 2001): 2,000 words against 2,000 take milliseconds.
    difflib takes a quarter of a minute for them where words repeat, as a small model's do.
    """
    at_old = at_new = 0
    for i, j in [*_common(old, new), (len(old), len(new))]:
        if (i, j) != (at_old, at_new):
            yield "replace", at_old, i, at_new, j
        if i < len(old) and j < len(new):
            yield "equal", i, i + 1, j, j + 1
        at_old, at_new = i + 1, j + 1


def _common(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """The places of a longest common subsequence, in order."""
    places: dict[str, int] = {}
    for place, word in enumerate(old):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(old)) - 1
    row, rows = full, []
    for word in new:
        matching = row & places.get(word, 0)
        row = ((row + matching) | (row - matching)) & full
        rows.append(row)
    pairs, i, j = [], len(old), len(new)
    while i and j:
        if rows[j - 1] >> (i - 1) & 1:
            i -= 1
        elif j > 1 and not rows[j - 2] >> (i - 1) & 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
