"""What a word is: the tokens that ROUGE and word counts use, and the language a text is in."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from sftdemo.errors import UsageError

References = Sequence[Sequence[str]]

# Written without spaces, in letters that carry marks: by script, the language that is most written in it.
CLUSTERED = {"th": "Thai", "lo": "Lao", "km": "Khmer", "my": "Myanmar"}
LANGUAGES = ("auto", "en", "zh", *CLUSTERED)
# English with 1 Han character in 10 words still needs the Chinese tokenizer, and loses nothing by it.
_HAN_SHARE = 0.1
# English would lose: BLEU of characters is for texts that are mostly such characters.
_CLUSTER_SHARE = 0.5
# Classes for `regex`. Unicode's line breaking knows which scripts need a dictionary to find words: class SA (UAX 14).
HAN_KANA = r"\p{Han}\p{Hiragana}\p{Katakana}"
NO_SPACES = HAN_KANA + r"\p{Line_Break=SA}"
# What a reader takes for one character: a letter with its vowel signs and tone marks (UAX 29). Code points would count a
# tone mark as a word, and as one in common with any other word of that tone.
CHARACTER = rf"[{HAN_KANA}]|(?=[\p{{Line_Break=SA}}&&[\p{{L}}\p{{M}}]])\X"


@functools.lru_cache(maxsize=256)
def pattern(expression: str) -> Any:
    """The expression compiled by `regex`, whose sets can be subtracted."""
    import regex  # type: ignore[import-untyped]

    return regex.compile(expression, regex.V1)


def units() -> Any:
    """A character of writing without spaces, or a run of other letters, marks and digits."""
    return pattern(rf"{CHARACTER}|[[\p{{L}}\p{{M}}\p{{N}}]--[{NO_SPACES}]]+")


def spaced(text: str) -> str:
    """Spaces around each character of Thai and its kin, for engines that know words only by their spaces."""
    if text.isascii():
        return text
    return pattern(r"(?=[\p{Line_Break=SA}&&[\p{L}\p{M}]])\X").sub(r" \g<0> ", text)  # type: ignore[no-any-return]


def detect_language(texts: Sequence[str]) -> str:
    """ "zh" where Han characters are at least a tenth of all words and characters; the language of the script where at
    least half are characters of Thai, Lao, Khmer or Burmese; else "en", for all spaced writing."""
    if all(map(str.isascii, texts)):
        return "en"
    text_units = [unit for text in texts for unit in units().findall(text)]
    han = sum("㐀" <= unit <= "鿿" or unit > "\U0001ffff" for unit in text_units)
    if text_units and han >= _HAN_SHARE * len(text_units):
        return "zh"
    counts = {
        code: sum(pattern(rf"\p{{{script}}}").match(unit) is not None for unit in text_units if not unit.isascii())
        for code, script in CLUSTERED.items()
    }
    most = max(counts, key=counts.__getitem__)
    return most if text_units and counts[most] >= _CLUSTER_SHARE * len(text_units) else "en"


def resolve_language(language: str, references: References) -> str:
    """The language asked for, or the one that the references are in (predictions may be anything)."""
    if language not in LANGUAGES:
        raise UsageError(
            "{name} is {value!r}; choose one of: {names}.", name="language", value=language, names=LANGUAGES
        )
    return language if language != "auto" else detect_language([text for texts in references for text in texts])


def _ascii_words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


class Tokenizer:
    """Words for ROUGE: ASCII as rouge-score cuts it, Han and Thai by the character, other scripts in lower-case words.

    rouge-score alone drops all but a-z and 0-9: it gives 0 for identical Chinese, and cuts French words apart.
    """

    def __init__(self) -> None:
        self.tokenize = functools.lru_cache(maxsize=1024)(self._tokenize)

    def _tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return _ascii_words(text)
        words: list[str] = units().findall(unicodedata.normalize("NFC", text.lower()))
        return [token for word in words for token in (_ascii_words(word) if word.isascii() else [word])]
