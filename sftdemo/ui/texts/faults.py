"""Faults and notes in the language of the page, by the template they were made of."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from typing import Any

from sftdemo.errors import Text, UserError, fill
from sftdemo.ui.texts import (
    OWNERS,
    TEXTS,
    choices,
    en_faults,
    unbroken,
    zh_access,
    zh_continual,
    zh_edits,
    zh_hub,
    zh_kinds,
    zh_runs,
    zh_seq2seq,
    zh_students,
    zh_sweep,
    zh_systems,
)
from sftdemo.ui.texts.zh import ZH
from sftdemo.ui.texts.zh_faults_files import FILES, LIBRARIES
from sftdemo.ui.texts.zh_faults_rows import ROWS
from sftdemo.ui.texts.zh_faults_work import WORK
from sftdemo.ui.texts.zh_limits import LIMITS

TABLES = (
    *(WORK, FILES, LIMITS, ROWS, zh_access.FAULTS, zh_continual.FAULTS),
    *(
        zh_edits.FAULTS,
        zh_hub.FAULTS,
        zh_kinds.FAULTS,
        zh_runs.FAULTS,
        zh_seq2seq.FAULTS,
        zh_students.FAULTS,
        zh_sweep.FAULTS,
        zh_systems.FAULTS,
    ),
)
TEMPLATES = {english: chinese for table in TABLES for english, chinese in table.items()}
TRANSLATIONS = {"en": en_faults.PAGE, "zh": TEMPLATES}
# Single words that the core passes as they are: names of settings (as the form has them), states of a run, what other
# libraries say.
WORDS = {
    lang: {name.removeprefix("set_"): f"“{text}”" for name, text in texts.items() if name.startswith("set_")}
    for lang, texts in TEXTS.items()
}
WORDS["zh"] |= {name.removeprefix("state_"): text for name, text in ZH.items() if name.startswith("state_")} | LIBRARIES
# Settings that a template names are called as the form does: those whose keys are no words of a sentence, and others together
# with one of their choices ("method full").
_SPECS = {spec.name: spec for owner in OWNERS for spec in dataclasses.fields(owner)}
_CHOSEN = "|".join(
    f"{name} (?:{'|'.join(spec.metadata['choices'])})" for name, spec in _SPECS.items() if spec.metadata["choices"]
)
_KEYS = "|".join(name for name in _SPECS if "_" in name) + "|pissa|dora|rslora"
_NAMED = re.compile(
    rf"(?P<skip>\{{[^{{}}]*\}}|--[\w-]+|`[^`]*`)|(?<![\w-])(?:(?P<chosen>{_CHOSEN})|(?P<key>{_KEYS}))(?![\w=-])",
    re.ASCII,
)

# Values that a template has of settings, as "balance is {value!r}", and those that are of one wherever they stand.
_VALUE = re.compile(rf"(?<![\w-])({'|'.join(choices.CHOICES)})(?: is)? \{{(\w+)(?:!r)?\}}")
_OF = {"task": "task", "kind": "task", "layout": "format", "most": "format"}


class _Shown(str):
    """A value in the form's words, which `!r` leaves as they are."""

    def __repr__(self) -> str:
        return str(self)


@cache
def as_form(template: str, lang: str) -> str:
    """A template of ours with the settings that it names as the form of the page calls them."""

    def word(found: re.Match[str]) -> str:
        if found["skip"]:
            return found["skip"]
        if found["key"]:
            return WORDS[lang][found["key"]]
        name, _, value = found["chosen"].partition(" ")
        return f"{WORDS[lang][name][:-1]}{TEXTS[lang]['colon']}{choices.shown(name, value, lang)}”"

    named = _NAMED.sub(word, template)
    return unbroken(re.sub("(?<=[一-鿿]) (?=“)|(?<=”) (?=[一-鿿])", "", named))


def in_words(fault: str | UserError, lang: str) -> str:
    """A fault or a note in the language of the page; one without a template stays as it is, and so do the user's values."""
    text = fault.text if isinstance(fault, UserError) else fault
    return _translated(Text(text), lang)


def _translated(text: Text, lang: str) -> str:
    template = TRANSLATIONS[lang].get(text.key) or WORDS[lang].get(text.key)
    if template is None and lang == "en" and text.key in TEMPLATES:
        template = text.key
    if template is not None and text.key in TEMPLATES:
        template = as_form(template, lang)
    if template is None:  # without one, or one in a file that somebody else wrote, and may ask for any width
        return str(text)
    shown = _chosen(text, lang)
    for name in shown if lang == "zh" else ():
        template = re.sub(rf" ?(\{{{name}(?:!r)?\}}) ?", r"\1", template)
    try:
        return fill(
            template,
            {name: _value(value, lang) for name, value in text.values.items()} | shown,
            comma="、" if lang == "zh" else ", ",
        )
    except (LookupError, ValueError, TypeError, AttributeError):  # values from a file that somebody else wrote
        return str(text)


def _chosen(text: Text, lang: str) -> dict[str, _Shown]:
    """The values that are choices of the form, in its words."""
    settings = _OF | {name: setting for setting, name in _VALUE.findall(text.key)}
    return {
        name: _Shown(f"“{choices.shown(settings[name], value, lang)}”")
        for name, value in text.values.items()
        if name in settings and type(value) is str and value in choices.CHOICES[settings[name]]
    }


def _value(value: Any, lang: str) -> Any:
    if isinstance(value, list | tuple):
        return [_value(item, lang) for item in value]
    return _translated(value, lang) if isinstance(value, Text) else value
