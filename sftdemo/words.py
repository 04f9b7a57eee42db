"""What a word is: the tokens that ROUGE and word counts use, and the language a text is in."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from sftdemo.errors import UsageError

References = Sequence[Sequence[str]]

LANGUAGES = ("auto", "en", "zh")
# English with 1 Han character in 10 words still needs the Chinese tokenizer, and loses nothing by it.
_HAN_SHARE = 0.1


@functools.cache
def units() -> Any:
    """A Han or kana character, or a run of other letters, marks and digits."""
    import regex  # type: ignore[import-untyped]

    return regex.compile(
        r"[\p{Han}\p{Hiragana}\p{Katakana}]|[[\p{L}\p{M}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}]]+", regex.V1
    )


def detect_language(texts: Sequence[str]) -> str:
    """ "zh" where Han characters are at least a tenth of all words and characters; else "en", for all spaced writing."""
    if all(map(str.isascii, texts)):
        return "en"
    found = [unit for text in texts for unit in units().findall(text)]
    han = sum("㐀" <= unit <= "鿿" or unit > "\U0001ffff" for unit in found)
    return "zh" if found and han >= _HAN_SHARE * len(found) else "en"


def resolve_language(language: str, references: References) -> str:
    """The language asked for, or the one that the references are in (predictions may be anything)."""
    if language not in LANGUAGES:
        raise UsageError(f"language is {language!r}; choose one of: {', '.join(LANGUAGES)}.")
    return language if language != "auto" else detect_language([text for texts in references for text in texts])


def _ascii_words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


class Tokenizer:
    """Words for ROUGE: ASCII as rouge-score cuts it, Han by the character, other scripts in lower-case words.

    rouge-score alone drops all but a-z and 0-9: it gives 0 for identical Chinese, and cuts French words apart.
    """

    def __init__(self, stem: bool = False) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        # Without a stemmer rouge-score's tokens are plain runs of letters and digits; finding these is faster.
        self._ascii: Callable[[str], list[str]] = DefaultTokenizer(stem).tokenize if stem else _ascii_words
        self.tokenize = functools.lru_cache(maxsize=1024)(self._tokenize)

    def _tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return self._ascii(text)
        words: list[str] = units().findall(unicodedata.normalize("NFC", text.lower()))
        return [token for word in words for token in (self._ascii(word) if word.isascii() else [word])]
