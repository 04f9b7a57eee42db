"""Which script a text is written in, as a first sign of its language."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

# The first word of a letter's Unicode name, and what the script is called.
_NAMES = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "HALFWIDTH": "Kana"}
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
MAIN = 0.6  # of the letters; with less no script is the main one
MIXED, NONE = "mixed", "none"


@lru_cache(maxsize=16_384)
def script(character: str) -> str | None:
    """The script of a letter ("Latin", "Han", "Cyrillic", …); None for what is no letter."""
    if not character.isalpha():
        return None
    word = unicodedata.name(character, "OTHER").split()[0].partition("-")[0]
    return _NAMES.get(word, word.capitalize())


def main_script(text: str) -> str:
    """The script that most letters are in, "mixed" where none has 60 %, "none" without letters.

    Han counts as Kana's where a fifth of the letters are Kana, as in Japanese.
    """
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else NONE
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script_name := script(character):
            letters[script_name] += count
    total = letters.total()
    if not total:
        return NONE
    if letters["Kana"] >= 0.2 * total:
        letters["Kana"] += letters.pop("Han", 0)
    name, count = letters.most_common(1)[0]
    return name if count >= MAIN * total else MIXED


def scripts(texts: Iterable[str]) -> dict[str, int]:
    """How many of the texts are in each script, the most frequent first."""
    return dict(Counter(map(main_script, texts)).most_common())


def written_in_han(text: str) -> bool:
    """Chinese characters, and none of the Japanese or Korean scripts."""
    return bool(_HAN.search(text)) and not _KANA_HANGUL.search(text)


def mostly_han(texts: Iterable[str]) -> bool:
    verdicts = [written_in_han(text) for text in texts]
    return 2 * sum(verdicts) > len(verdicts)
