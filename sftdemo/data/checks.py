"""Rows that stand twice inside a split, and held-out rows that also stand in train, exactly or nearly."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sftdemo.data.templates import written_in_han
from sftdemo.data.types import Dataset, Example

if TYPE_CHECKING:
    import numpy as np

NEAR = 0.8
# 16 bands of 5 find a pair of Jaccard similarity 0.8 with probability 0.998.
_BANDS, _BAND_ROWS = 16, 5
_BUCKET = 50
_CHUNK = 2048
_DIGITS = re.compile(r"\d+")
# A point or comma that is not inside a number, a hyphen that is no sign; the set in front makes the search fast.
_POINTS = re.compile(r"[.,-](?:(?!\d)|(?<!\d[.,])(?<!-))")


@cache
def _blanks() -> dict[int, str]:
    """Punctuation to blanks, save what changes a number or a formula: 1.5, -3, %, *, /, &, #, @."""
    kept = set("%*/&#@\\.,-")
    return {
        code: " " for code in range(0x10000) if unicodedata.category(chr(code))[0] in "PZ" and chr(code) not in kept
    }


def normalise(text: str) -> str:
    """The text without differences in case, width, whitespace and punctuation."""
    text = unicodedata.normalize("NFKC", text).casefold().translate(_blanks())
    return " ".join(_POINTS.sub(" ", text).split())


def _asked(example: Example) -> str:
    """All that is said before the last answer, the system prompt aside."""
    return "\n".join(turn["content"] for turn in example["messages"][:-1] if turn["role"] != "system")


def _shared(left: str, right: str) -> int:
    """How many characters two texts have in common from the start."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def row_keys(examples: Sequence[Example]) -> list[str]:
    """Question and answer, normalised: equal keys are the same row."""
    return [f"{normalise(_asked(example))}\n{normalise(example['messages'][-1]['content'])}" for example in examples]


def leak_keys(examples: Sequence[Example]) -> list[str]:
    """What must not be seen before the test, normalised: the question's variable part and, unless it is a label, the
    answer. What all questions begin or end with (the instruction) says nothing about a row, and is cut off."""
    asked = [_asked(example) for example in examples]
    if len(set(asked)) > 1:
        head = _shared(min(asked), max(asked))
        backwards = [text[head:][::-1] for text in asked]
        tail = _shared(min(backwards), max(backwards))
        asked = [text[head : len(text) - tail] for text in asked]
    return [
        normalise(text) if "label" in example else f"{normalise(text)} {normalise(example['messages'][-1]['content'])}"
        for text, example in zip(asked, examples, strict=True)
    ]


def duplicates(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """(surplus row, the row it repeats) as indices."""
    first: dict[str, int] = {}
    return [
        (index, first[key]) for index, key in enumerate(row_keys(examples)) if first.setdefault(key, index) != index
    ]


def leaks(train: Sequence[Example], held_out: Sequence[Example]) -> list[tuple[int, int]]:
    """(held-out row, a train row it repeats) as indices, one pair for each held-out row that leaked.

    Near means: Jaccard similarity of the character shingles (5 letters, or 2 in Chinese) at least 0.8, and the same
    numbers and label: "Chapter 3" is not "Chapter 4", and "mute" is not "unmute" where the label tells them apart.
    Near pairs come from MinHash and are then verified exactly.
    """
    if not train or not held_out:
        return []
    keys = leak_keys([*train, *held_out])
    seen, asked = keys[: len(train)], keys[len(train) :]
    exact: dict[str, int] = {}
    for index, key in enumerate(seen):
        exact.setdefault(key, index)
    found = {index: exact[key] for index, key in enumerate(asked) if key in exact}
    rest = [index for index in range(len(asked)) if index not in found]
    by_label: dict[str | None, tuple[list[int], list[int]]] = {}
    for index in rest:
        by_label.setdefault(held_out[index].get("label"), ([], []))[0].append(index)
    for index, example in enumerate(train):
        if example.get("label") in by_label:
            by_label[example.get("label")][1].append(index)
    for ours, theirs in by_label.values():
        pairs = near([asked[index] for index in ours], [seen[index] for index in theirs])
        found |= {ours[query]: theirs[match] for query, match in pairs.items()}
    return sorted(found.items())


def count(dataset: Dataset) -> None:
    """Set `duplicates` and `leaked` from the splits as they are."""
    dataset.duplicates = sum(len(duplicates(examples)) for examples in dataset.splits.values())
    held_out = [*dataset.splits.get("validation", ()), *dataset.splits.get("test", ())]
    dataset.leaked = len(leaks(dataset.splits.get("train", ()), held_out))


def near(queries: Sequence[str], texts: Sequence[str]) -> dict[int, int]:
    """{index of a query: index of a text nearly the same}, for normalised strings."""
    found: dict[int, int] = {}
    for width in (5, 2):
        ours, theirs = _of_width(queries, width), _of_width(texts, width)
        if not ours or not theirs:
            continue
        for query, candidates in _candidates([queries[i] for i in ours], [texts[i] for i in theirs], width):
            left = _shingles(queries[ours[query]], width)
            numbers = sorted(_DIGITS.findall(queries[ours[query]]))
            for candidate in candidates:
                text = texts[theirs[candidate]]
                right = _shingles(text, width)
                both = len(left & right)
                if both >= NEAR * (len(left) + len(right) - both) and numbers == sorted(_DIGITS.findall(text)):
                    found[ours[query]] = theirs[candidate]
                    break
    return found


def _of_width(texts: Sequence[str], width: int) -> list[int]:
    return [
        index for index, text in enumerate(texts) if (2 if written_in_han(text) else 5) == width and len(text) >= width
    ]


def _shingles(text: str, width: int) -> set[str]:
    return {text[at : at + width] for at in range(len(text) - width + 1)}


def _candidates(queries: Sequence[str], texts: Sequence[str], width: int) -> list[tuple[int, list[int]]]:
    """For each query that has any, the texts whose MinHash signatures agree with its own, the likeliest first."""
    import numpy as np

    ours, theirs = _signatures(queries, width), _signatures(texts, width)
    found: dict[int, set[int]] = {}
    for band in range(_BANDS):
        part = slice(band * _BAND_ROWS, (band + 1) * _BAND_ROWS)
        left, right = _band_key(ours[:, part]), _band_key(theirs[:, part])
        order = np.argsort(right, kind="stable")
        low = np.searchsorted(right[order], left, "left")
        high = np.searchsorted(right[order], left, "right")
        for query in np.flatnonzero(high > low):
            # A bucket that holds thousands is one template; a few of its rows stand for all.
            members = order[low[query] : min(high[query], low[query] + _BUCKET)]
            found.setdefault(int(query), set()).update(members.tolist())
    results = []
    for asked, texts_met in found.items():
        candidates = np.array(sorted(texts_met))
        agreement = (theirs[candidates] == ours[asked]).mean(axis=1)
        likely = agreement >= NEAR - 0.2  # four standard errors of the estimate
        ranked = candidates[likely][np.argsort(-agreement[likely], kind="stable")]
        if len(ranked):
            results.append((asked, ranked.tolist()))
    return results


def _signatures(texts: Sequence[str], width: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """MinHash signatures of the texts' character shingles, (texts, 80)."""
    import numpy as np

    random = np.random.default_rng(0)  # fixed: the same data always gives the same count
    factors, masks = random.integers(0, 2**32, (2, _BANDS * _BAND_ROWS), dtype=np.uint32)
    factors |= np.uint32(1)
    powers = random.integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
    signatures = np.empty((len(texts), len(factors)), dtype=np.uint32)
    for start in range(0, len(texts), _CHUNK):
        part = texts[start : start + _CHUNK]
        lengths = np.array([len(text) for text in part])
        codes = np.frombuffer("".join(part).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
        total = len(codes) - width + 1
        hashes = sum((codes[shift : shift + total] * powers[shift] for shift in range(width)), np.zeros(1, np.uint64))
        ends = np.cumsum(lengths)
        inside = np.ones(total, dtype=bool)
        for back in range(1, width):  # shingles that run over into the next text
            inside[(ends[:-1] - back)] = False
        short = (hashes[inside] >> np.uint64(32)).astype(np.uint32)
        starts = np.concatenate(([0], np.cumsum(lengths - width + 1)[:-1]))
        for column, (factor, mask) in enumerate(zip(factors, masks, strict=True)):
            signatures[start : start + len(part), column] = np.minimum.reduceat((short ^ mask) * factor, starts)
    return signatures


def _band_key(part: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """One number for the signature's values in a band."""
    import numpy as np

    key = np.zeros(len(part), dtype=np.uint64)
    for column in part.T:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return key
