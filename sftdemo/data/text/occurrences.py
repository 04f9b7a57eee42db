"""Where a piece of text stands in another: occurrences counted, and the edges of words."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import regex  # type: ignore[import-untyped]

# Writing whose words aren't divided by spaces, or carry their particles without one: each character may begin a word.
_UNDIVIDED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Line_Break=SA}]", regex.V1)


@lru_cache(maxsize=16_384)
def _joins(character: str) -> bool:
    """Whether the character holds a word together: a letter, mark or digit of writing that divides words by spaces."""
    return unicodedata.category(character)[0] in "LMN" and not _UNDIVIDED.match(character)


def is_edge(text: str, place: int) -> bool:
    """Whether a word may begin or end before the character at this place."""
    return place <= 0 or place >= len(text) or not (_joins(text[place - 1]) and _joins(text[place]))


def occurrences(text: str, piece: str) -> list[int]:
    """Where the piece begins in the text: first where it stands as whole words, then where it is a part of them."""
    places, at = [], text.find(piece)
    while at >= 0 and piece:
        places.append(at)
        at = text.find(piece, at + 1)
    return sorted(places, key=lambda at: not (is_edge(text, at) and is_edge(text, at + len(piece))))
