"""Texts that are nearly the same: MinHash signatures by `rensa`, candidates by bands, and each pair verified exactly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sftdemo.data.text.writing_systems import written_in_han

if TYPE_CHECKING:
    import numpy as np

NEAR = 0.8
# 16 bands of 5 find a pair of Jaccard similarity 0.8 with probability 0.998.
_BANDS, _BAND_ROWS = 16, 5
_SLACK = 0.2  # four standard errors of the similarity that signatures tell
_BUCKET = 32
_CHUNK, _CHUNK_CHARACTERS = 4096, 2_000_000  # texts that are hashed at a time; a character takes about 40 bytes there
_PAIRS = 100_000
_DIGITS = re.compile(r"\d+")


def near(
    queries: Sequence[str], texts: Sequence[str], query_groups: Sequence[Any] = (), groups: Sequence[Any] = ()
) -> dict[int, int]:
    """{index of a query: index of a text nearly the same}, for normalised strings.

    With the queries' and the texts' groups (`query_groups`, `groups`) both must be of one.
    """
    matches: dict[int, int] = {}
    codes: dict[Any, int] = {}
    query_codes, text_codes = _codes(queries, query_groups, codes), _codes(texts, groups, codes)
    common = set(query_codes) & set(text_codes)
    for width in (5, 2):
        query_rows = [index for index in _of_width(queries, width) if query_codes[index] in common]
        text_rows = [index for index in _of_width(texts, width) if text_codes[index] in common]
        if query_rows and text_rows:
            pairs = _pairs(
                _signatures([queries[i] for i in query_rows], [query_codes[i] for i in query_rows], width),
                _signatures([texts[i] for i in text_rows], [text_codes[i] for i in text_rows], width),
            )
            for query, match in pairs:
                if query_rows[query] not in matches and _same(
                    queries[query_rows[query]], texts[text_rows[match]], width
                ):
                    matches[query_rows[query]] = text_rows[match]
    return matches


def near_earlier(texts: Sequence[str], groups: Sequence[Any] = ()) -> dict[int, int]:
    """{index of a text: index of an earlier text nearly the same, and of its group}, for normalised strings."""
    matches: dict[int, int] = {}
    codes = _codes(texts, groups, {})
    counts = Counter(codes)
    for width in (5, 2):
        if rows := [index for index in _of_width(texts, width) if counts[codes[index]] > 1]:
            signatures = _signatures([texts[i] for i in rows], [codes[i] for i in rows], width)
            for later, earlier in _pairs(signatures, signatures):
                if (
                    earlier < later
                    and rows[later] not in matches
                    and _same(texts[rows[later]], texts[rows[earlier]], width)
                ):
                    matches[rows[later]] = rows[earlier]
    return matches


def _codes(texts: Sequence[str], groups: Sequence[Any], code_of: dict[Any, int]) -> list[int]:
    """A number for the numbers a text holds and its group: only texts with the same one can be nearly the same."""
    numbers_of = (tuple(sorted(_DIGITS.findall(text))) for text in texts)
    return [
        code_of.setdefault((numbers, *group), len(code_of))
        for numbers, *group in zip(numbers_of, *([groups] if groups else []), strict=True)
    ]


def _same(left: str, right: str, width: int) -> bool:
    """Jaccard similarity of the shingles at least NEAR."""
    left_shingles, right_shingles = (
        {text[at : at + width] for at in range(len(text) - width + 1)} for text in (left, right)
    )
    common = len(left_shingles & right_shingles)
    return common >= NEAR * (len(left_shingles) + len(right_shingles) - common)


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
    candidates = [np.empty(0, np.int64)]
    for band in range(_BANDS):
        part = [*range(band * _BAND_ROWS, (band + 1) * _BAND_ROWS), _BANDS * _BAND_ROWS]
        query_keys, text_keys = _band_key(queries[:, part]), _band_key(texts[:, part])
        order = np.argsort(text_keys, kind="stable")
        low = np.searchsorted(text_keys[order], query_keys, "left")
        # A bucket that holds thousands is one template; a few of its rows stand for all.
        sizes = np.minimum(np.searchsorted(text_keys[order], query_keys, "right") - low, _BUCKET)
        sizes[sizes <= alone] = 0
        query_rows = np.repeat(np.arange(len(queries)), sizes)
        within = np.arange(len(query_rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        text_rows = order[np.repeat(low, sizes) + within]
        if alone:
            query_rows, text_rows = query_rows[text_rows < query_rows], text_rows[text_rows < query_rows]
        candidates.append(query_rows * len(texts) + text_rows)
    query_rows, text_rows = np.divmod(np.unique(np.concatenate(candidates)), max(len(texts), 1))
    agreement = np.empty(len(query_rows))
    for start in range(0, len(query_rows), _PAIRS):
        some = slice(start, start + _PAIRS)
        agreement[some] = (queries[query_rows[some], :-1] == texts[text_rows[some], :-1]).mean(axis=1)
    likely = np.flatnonzero(agreement >= NEAR - _SLACK)
    ranked = likely[np.lexsort((-agreement[likely], query_rows[likely]))]
    return list(zip(query_rows[ranked].tolist(), text_rows[ranked].tolist(), strict=True))


def _signatures(texts: Sequence[str], codes: Sequence[int], width: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """MinHash signatures of the texts' character shingles and, last, their codes, (texts, 81); every text has `width`
    characters or more."""
    import numpy as np
    from rensa import RMinHash

    slots = _BANDS * _BAND_ROWS
    powers = np.random.default_rng(0).integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
    signatures = np.empty((len(texts), slots + 1), dtype=np.uint32)
    signatures[:, slots] = codes
    for start, part in _chunks(texts):
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


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(index of the first, the texts) of each chunk."""
    start, part, characters = 0, list[str](), 0
    for index, text in enumerate(texts):
        if part and (len(part) == _CHUNK or characters + len(text) > _CHUNK_CHARACTERS):
            yield start, part
            start, part, characters = index, [], 0
        part.append(text)
        characters += len(text)
    if part:
        yield start, part


def _band_key(part: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """One number for the signature's values in a band and the code."""
    import numpy as np

    key = np.zeros(len(part), dtype=np.uint64)
    for column in part.T:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return key
