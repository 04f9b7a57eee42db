"""Text without the differences that mean nothing: case, width, whitespace, punctuation."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# A point or comma that is not inside a number, a hyphen that is no sign; the set in front makes the search fast.
_POINTS = re.compile(r"[.,-](?:(?!\d)|(?<!\d[.,])(?<!-))")
_HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_BY_HAN = re.compile(f"(?<=[{_HAN}]) | (?=[{_HAN}])")

_LONG = 2000  # characters from which on it matters how many marks follow each other


@cache
def _blanks() -> tuple[dict[int, str], re.Pattern[str]]:
    """Punctuation to blanks, save what changes a number or a formula: 1.5, -3, %, *, /, &, #, @.

    As a table, which is fast for ASCII alone, and as a pattern."""
    kept = set("%*/&#@\\.,-")
    marks = [
        chr(code) for code in range(0x10000) if unicodedata.category(chr(code))[0] in "PZ" and chr(code) not in kept
    ]
    return {ord(mark): " " for mark in marks}, re.compile(f"[{re.escape(''.join(marks))}]+")


@cache
def _long_runs() -> re.Pattern[str]:
    """Thirty combining marks in a row: putting n of them in order takes n² steps."""
    marks = "".join(chr(code) for code in range(0x20000) if unicodedata.combining(chr(code)))
    return re.compile(f"[{re.escape(marks)}]{{30}}")


def compatible(text: str) -> str:
    """The text in Unicode's form NFKC; long runs of marks are parted, as its Stream-Safe Text Format does."""
    if len(text) > _LONG:
        text = _long_runs().sub("\\g<0>\u034f", text)
    return unicodedata.normalize("NFKC", text)


def normalise(text: str) -> str:
    """The text without differences in case, width, whitespace and punctuation."""
    table, pattern = _blanks()
    if text.isascii():
        text = text.lower().translate(table)
        return " ".join(_POINTS.sub(" ", text).split())
    text = pattern.sub(" ", compatible(text).casefold())
    # Chinese and Japanese have no blanks between words: one that took a comma's place means nothing.
    return _BY_HAN.sub("", " ".join(_POINTS.sub(" ", text).split()))
