"""Text that came through broken, and labels spelt in several ways: what is wrong, and what can safely be mended."""

from __future__ import annotations

import re
from collections import Counter

from sftdemo.data.text.normalisation import normalise
from sftdemo.errors import Text

# All controls but tab and line breaks, and a byte order mark inside the text.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
_LOST = "\ufffd"
# UTF-8 read as another code always has one of these: letters of the Latin, Greek or Cyrillic codes, or old line drawing.
_MAY_BE_BAD = re.compile("[\u00a0-\u05ff\u221a\u2500-\u257f]")


def flaws(text: str) -> list[Text]:
    """What is wrong with the text, as ends of a sentence that begins with its name."""
    problems = []
    if control := _CONTROL.search(text):
        problems.append(Text("holds the control character U+{code:04X}", code=ord(control[0])))
    if text.isascii():
        return problems
    if _LOST in text:
        problems.append(Text("holds U+FFFD, the sign for a lost character"))
    if (mended := _decoded(text)) != text:
        at = next((i for i, (a, b) in enumerate(zip(text, mended, strict=False)) if a != b), 0)
        problems.append(
            Text("is wrongly decoded: {bad!r} should be {good!r}", bad=text[at : at + 12], good=mended[at : at + 12])
        )
    return problems


def repair(text: str) -> str:
    """Without control characters, and decoded rightly. What was lost (U+FFFD) stays lost."""
    return _CONTROL.sub("", text if text.isascii() else _decoded(text))


def _decoded(text: str) -> str:
    if not _MAY_BE_BAD.search(text):
        return text
    import ftfy
    from ftfy.badness import is_bad

    return ftfy.fix_encoding(text) if is_bad(text) else text


def variants(labels: Counter[str]) -> dict[str, str]:
    """{spelling: the commonest spelling} of labels that differ in case, width, space or punctuation alone."""
    spellings: dict[str, list[str]] = {}
    for label in labels:
        spellings.setdefault(normalise(label) or label, []).append(label)
    commonest: dict[str, str] = {}
    for group in spellings.values():
        best = min(group, key=lambda label: (-labels[label], label))
        commonest |= {label: best for label in group if label != best}
    return commonest
