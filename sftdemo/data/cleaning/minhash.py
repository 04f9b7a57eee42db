"""Texts that are nearly the same: MinHash signatures by `rensa`, candidates by bands, and each pair verified exactly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftdemo.data.text.writing_systems import written_in_han

if TYPE_CHECKING:
    import numpy as np

NEAR = 0.8
# 16 bands of 5 find a pair of Jaccard similarity 0.8 with probability 0.998.
_BANDS, _BAND_ROWS = 16, 5
_SLACK = 0.2  # four standard errors of the similarity that signatures tell
_BUCKET = 32
_CHUNK = 4096
_PAIRS = 100_000
_DIGITS = re.compile(r"\d+")


def near(
    queries: Sequence[str], texts: Sequence[str], asked: Sequence[Any] = (), groups: Sequence[Any] = ()
) -> dict[int, int]:
    """{index of a query: index of a text nearly the same}, for normalised strings.

    With the queries' and the texts' groups (`asked`, `groups`) both must be of one.
    """
    found: dict[int, int] = {}
    codes: dict[Any, int] = {}
    query_codes, text_codes = _codes(queries, asked, codes), _codes(texts, groups, codes)
    common = set(query_codes) & set(text_codes)
    for width in (5, 2):
        ours = [index for index in _of_width(queries, width) if query_codes[index] in common]
        theirs = [index for index in _of_width(texts, width) if text_codes[index] in common]
        if ours and theirs:
            pairs = _pairs(
                _signatures([queries[i] for i in ours], [query_codes[i] for i in ours], width),
                _signatures([texts[i] for i in theirs], [text_codes[i] for i in theirs], width),
            )
            for query, match in pairs:
                if ours[query] not in found and _same(queries[ours[query]], texts[theirs[match]], width):
                    found[ours[query]] = theirs[match]
    return found


def near_earlier(texts: Sequence[str], groups: Sequence[Any] = ()) -> dict[int, int]:
    """{index of a text: index of an earlier text nearly the same, and of its group}, for normalised strings."""
    found: dict[int, int] = {}
    codes = _codes(texts, groups, {})
    counts = Counter(codes)
    for width in (5, 2):
        if ours := [index for index in _of_width(texts, width) if counts[codes[index]] > 1]:
            signatures = _signatures([texts[i] for i in ours], [codes[i] for i in ours], width)
            for later, earlier in _pairs(signatures, signatures):
                if (
                    earlier < later
                    and ours[later] not in found
                    and _same(texts[ours[later]], texts[ours[earlier]], width)
                ):
                    found[ours[later]] = ours[earlier]
    return found


def _codes(texts: Sequence[str], groups: Sequence[Any], known: dict[Any, int]) -> list[int]:
    """A number for the numbers a text holds and its group: only texts with the same one can be nearly the same."""
    held = (tuple(sorted(_DIGITS.findall(text))) for text in texts)
    return [
        known.setdefault((numbers, *group), len(known))
        for numbers, *group in zip(held, *([groups] if groups else []), strict=True)
    ]


def _same(left: str, right: str, width: int) -> bool:
    """Jaccard similarity of the shingles at least NEAR."""
    ours, theirs = ({text[at : at + width] for at in range(len(text) - width + 1)} for text in (left, right))
    both = len(ours & theirs)
    return both >= NEAR * (len(ours) + len(theirs) - both)


def _of_width(texts: Sequence[str], width: int) -> list[int]:
    return [
        index
        for index, text in enumerate(texts)
        if len(text) >= width and (2 if not text.isascii() and written_in_han(text) else 5) == width
    ]


def _pairs(
    queries: np.ndarray[Any, np.dtype[np.uint32]], texts: np.ndarray[Any, np.dtype[np.uint32]]
) -> list[tuple[int, int]]:
    """(query, text) whose signatures agree in a band, the likeliest first for each query; not a row with itself."""
    import numpy as np

    alone = queries is texts
    met = [np.empty(0, np.int64)]
    for band in range(_BANDS):
        part = [*range(band * _BAND_ROWS, (band + 1) * _BAND_ROWS), _BANDS * _BAND_ROWS]
        left, right = _band_key(queries[:, part]), _band_key(texts[:, part])
        order = np.argsort(right, kind="stable")
        low = np.searchsorted(right[order], left, "left")
        # A bucket that holds thousands is one template; a few of its rows stand for all.
        sizes = np.minimum(np.searchsorted(right[order], left, "right") - low, _BUCKET)
        sizes[sizes <= alone] = 0
        ours = np.repeat(np.arange(len(queries)), sizes)
        within = np.arange(len(ours)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        theirs = order[np.repeat(low, sizes) + within]
        if alone:
            ours, theirs = ours[theirs < ours], theirs[theirs < ours]
        met.append(ours * len(texts) + theirs)
    ours, theirs = np.divmod(np.unique(np.concatenate(met)), max(len(texts), 1))
    agreement = np.empty(len(ours))
    for start in range(0, len(ours), _PAIRS):
        some = slice(start, start + _PAIRS)
        agreement[some] = (queries[ours[some], :-1] == texts[theirs[some], :-1]).mean(axis=1)
    likely = np.flatnonzero(agreement >= NEAR - _SLACK)
    ranked = likely[np.lexsort((-agreement[likely], ours[likely]))]
    return list(zip(ours[ranked].tolist(), theirs[ranked].tolist(), strict=True))


def _signatures(texts: Sequence[str], codes: Sequence[int], width: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """MinHash signatures of the texts' character shingles and, last, their codes, (texts, 81); every text has `width`
    characters or more."""
    import numpy as np
    from rensa import RMinHash

    slots = _BANDS * _BAND_ROWS
    powers = np.random.default_rng(0).integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
    signatures = np.empty((len(texts), slots + 1), dtype=np.uint32)
    signatures[:, slots] = codes
    for start in range(0, len(texts), _CHUNK):
        part = texts[start : start + _CHUNK]
        lengths = np.array([len(text) for text in part])
        letters = np.frombuffer("".join(part).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
        total = len(letters) - width + 1
        hashes = sum((letters[shift : shift + total] * powers[shift] for shift in range(width)), np.zeros(1, np.uint64))
        hashes ^= hashes >> np.uint64(29)  # products are even in their low bits; the library takes a hash as it is
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        inside = np.ones(total, dtype=bool)
        for back in range(1, width):  # shingles that run over into the next text
            inside[np.cumsum(lengths)[:-1] - back] = False
        offsets = np.concatenate(([0], np.cumsum(lengths - width + 1))).tolist()
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes[inside], offsets, num_perm=slots, seed=0)
        signatures[start : start + len(part), :slots] = matrix.to_rows()
    return signatures


def _band_key(part: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """One number for the signature's values in a band and the code."""
    import numpy as np

    key = np.zeros(len(part), dtype=np.uint64)
    for column in part.T:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return key
