"""The words of the page: which language a request gets, and a sentence by its key."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.generate import GenerateConfig
from sftdemo.config.read import FileConfig, ReadConfig
from sftdemo.config.sweep import SweepConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import in_number
from sftdemo.evaluation.registry import METRICS
from sftdemo.ui.texts import (
    choices,
    en,
    en_access,
    en_chat,
    en_data,
    en_edits,
    en_report,
    en_runs,
    en_settings,
    en_sweep,
    en_votes,
    zh,
    zh_access,
    zh_chat,
    zh_data,
    zh_edits,
    zh_report,
    zh_runs,
    zh_settings,
    zh_sweep,
    zh_votes,
)

# A number and its unit stand in one line, in every text that has both.
_UNIT = re.compile(r"(?<=[\d}]) (?=(?:%|h|min|ms|s|[kMG]i?B|小时|分钟|分|秒|毫秒)(?![A-Za-z]))")
ON_SERVER = ("report_", "between_")  # keys of texts that the browser never fills in
OWNERS = (ReadConfig, TrainConfig, GenerateConfig, EvaluateConfig, SweepConfig)


def help_key(owner: type, name: str) -> str:
    """The key of a setting's help; settings of one name mean different things where their owners aren't related."""
    common = issubclass(owner, ReadConfig) or name in FileConfig.__dataclass_fields__
    return f"help_{name}" if common else f"help_{owner.__name__}_{name}"


def _of_settings() -> dict[str, str]:
    """Names and help of every setting, from where they are declared."""
    texts = {}
    for owner in OWNERS:
        for spec in dataclasses.fields(owner):
            texts[f"set_{spec.name}"] = spec.name.replace("_", " ").capitalize()
            texts[help_key(owner, spec.name)] = spec.metadata["help"]
            texts[f"group_{spec.metadata['group']}"] = spec.metadata["group"]
    return texts


def _of_metrics(lang: int) -> dict[str, str]:
    """Names and notes of every metric, from the registry; a name that begins in lower case has a capital here."""
    texts = {}
    for metric in METRICS.values():
        name = metric.names[lang]
        texts[f"metric_{metric.name}"] = name if name == "chrF" else name[:1].upper() + name[1:]
        texts[f"why_{metric.name}"] = metric.notes[lang]
    return texts


def unbroken(text: str) -> str:
    """The text with no line break between a number, or the place of one, and its unit."""
    return _UNIT.sub("\xa0", text)


_TEXTS: dict[str, dict[str, str]] = {
    "en": {
        **_of_settings(),
        **en_settings.SETTINGS,
        **_of_metrics(0),
        **choices.texts(0),
        **en.EN,
        **en_chat.CHAT,
        **en_data.DATA,
        **en_votes.VOTES,
        **en_access.ACCESS,
        **en_edits.EDITS,
        **en_runs.RUNS,
        **en_report.REPORT,
        **en_sweep.SWEEP,
    },
    "zh": {
        **zh_settings.SETTINGS,
        **_of_metrics(1),
        **choices.texts(1),
        **zh.ZH,
        **zh_chat.CHAT,
        **zh_data.DATA,
        **zh_votes.VOTES,
        **zh_access.ACCESS,
        **zh_edits.EDITS,
        **zh_runs.RUNS,
        **zh_report.REPORT,
        **zh_sweep.SWEEP,
    },
}

TEXTS = {lang: {key: unbroken(text) for key, text in texts.items()} for lang, texts in _TEXTS.items()}


@cache
def i18n() -> Any:
    """The same words for Gradio's labels; the page calls every Chinese locale zh-CN (see parts/style.py)."""
    import gradio as gr

    of_page = {
        lang: {key: text for key, text in texts.items() if not key.startswith(ON_SERVER)}
        for lang, texts in TEXTS.items()
    }
    return gr.I18n(**{"en": of_page["en"], "zh-CN": of_page["zh"]})


def label(key: str) -> Any:
    """A label that the browser fills in, in its own language."""
    if key not in TEXTS["en"]:
        raise KeyError(key)
    return i18n()(key)


def say(lang: str, key: str, **values: object) -> str:
    """A sentence made by the server."""
    ones = {name for name, value in values.items() if value in (1, "1")}
    return in_number(TEXTS[lang][key], ones).format(**values)


def language(request: Any) -> str:
    """ "zh" or "en": the one chosen on the page, else the browser's first."""
    if request is None:
        return "en"
    chosen: Mapping[str, str] = getattr(request, "cookies", None) or {}
    if chosen.get("sftdemo_lang") in TEXTS:
        return chosen["sftdemo_lang"]
    accepted = (dict(request.headers).get("accept-language") or "").lower()
    return "zh" if accepted.startswith("zh") else "en"


def number(value: float) -> str:
    return f"{value:,}"


def duration(lang: str, seconds: float) -> str:
    """A time span in words, no finer than is useful, and in one line."""
    if not math.isfinite(seconds):
        return "–"
    total = max(round(seconds), 0)
    if total < 60:
        span = say(lang, "time_s", s=total)
    elif total < 600:
        span = say(lang, "time_m", m=total // 60, s=total % 60)
    elif total < 3600:
        span = say(lang, "time_m0", m=total // 60)
    else:
        h, m = total // 3600, total % 3600 // 60
        span = say(lang, "time_h", h=h, m=m) if m else say(lang, "time_h0", h=h)
    return span.replace(" ", "\xa0")


def megabytes(count: float) -> str:
    return unbroken(f"{count / 10**6:,.1f} MB")
