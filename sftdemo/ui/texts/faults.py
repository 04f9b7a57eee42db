"""Faults and notes in the language of the page: by the template they were made of.

What the core still writes as plain English is looked up by its pattern: a value in braces is any text; with :d a number, :w a
word, :r a quoted text, with the name of a part (:kind) one of PARTS.
"""

from __future__ import annotations

import re
import string
from functools import cache
from typing import Any

from sftdemo.errors import Text, UserError, fill
from sftdemo.ui.texts import zh_access
from sftdemo.ui.texts.zh import ZH
from sftdemo.ui.texts.zh_faults import PARTS, SENTENCES, VALUES
from sftdemo.ui.texts.zh_faults_work import WORK
from sftdemo.ui.texts.zh_limits import LIMITS
from sftdemo.ui.texts.zh_settings import SETTINGS

# Single words, which the core passes as they are.
WORDS = {name.removeprefix("set_"): f"“{text}”" for name, text in SETTINGS.items() if name.startswith("set_")}
WORDS |= {name.removeprefix("state_"): text for name, text in ZH.items() if name.startswith("state_")}
TEMPLATES = WORK | zh_access.FAULTS | LIMITS


def in_words(said: str | UserError, lang: str) -> str:
    """A fault's or a note's text in the language of the page; one that isn't known stays as it is."""
    text = said.text if isinstance(said, UserError) else said
    return _chinese(Text(text)) if lang == "zh" else str(text)


def _chinese(value: Any) -> Any:
    """What was given by the user stays as it is."""
    if isinstance(value, list | tuple):
        return [_chinese(item) for item in value]
    if not isinstance(value, Text):
        return value
    if value.key in WORDS:
        return WORDS[value.key]
    if value.key not in TEMPLATES:
        return _said(value, None)
    try:
        return fill(TEMPLATES[value.key], {name: _chinese(part) for name, part in value.values.items()}, comma="、")
    except (LookupError, ValueError, TypeError):  # values from a file that somebody else wrote
        return str(value)


def _said(text: str, part: str | None) -> str:
    for pattern, chinese, parts in _known(part):
        if match := pattern.fullmatch(text):
            values = match.groupdict()
            return chinese.format(**values | {name: _said(values[name], of) for name, of in parts.items()})
    return text


@cache
def _known(part: str | None) -> list[tuple[re.Pattern[str], str, dict[str, str]]]:
    """(what the English looks like, the Chinese, which of its values are parts)."""
    found = []
    for english, chinese in (PARTS[part] if part else SENTENCES).items():
        parts = {name: spec for _, name, spec, _ in string.Formatter().parse(english) if name and spec in PARTS}
        found.append((re.compile(_looks(english), re.DOTALL), chinese, parts))
    return found


def _looks(english: str, named: bool = True) -> str:
    """A pattern for the English with any values; a value said twice is the same."""
    made, seen = "", set()
    for text, name, spec, _ in string.Formatter().parse(english):
        made += re.escape(text)
        if named and name in seen:
            made += f"(?P={name})"
        elif name:
            seen.add(name)
            value = VALUES.get(spec or "") or "|".join(_looks(each, named=False) for each in PARTS[spec or ""])
            made += f"(?P<{name}>{value})" if named else f"(?:{value})"
    return made
