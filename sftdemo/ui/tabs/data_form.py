"""The form of the Data tab: its fields, and their values as settings and back; the tokens of a row by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftdemo import data
from sftdemo.config.read import CLEANING, ReadConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UserError
from sftdemo.ui import chosen_data
from sftdemo.ui.chosen_data import FROM_FILE, PREPARING, of_file
from sftdemo.ui.parts import html
from sftdemo.ui.tabs import data_views
from sftdemo.ui.texts import say
from sftdemo.ui.texts.faults import in_words

WORDING = ("instruction", "system")
READING = ("encoding", "header", "sheet")
CHOICES = ("on_fault", "balance", "min_characters", "max_characters", "validation_size", "test_size")
KEPT = {*FROM_FILE, *PREPARING}  # by the browser


def first_choice(lang: str) -> dict[str, Any]:
    """What is chosen when the page opens: a sample in its language."""
    names, first = [sample.name for sample in data.samples()], data_views.FIRST_SAMPLES[lang]
    return {"data": first if first in names else (names or [""])[0]}


def xray(config: TrainConfig, row: int, lang: str) -> str:
    """The tokens of a row as they are trained on; only with the tokenizer at hand."""
    if (tokenizer := chosen_data.tokenizer(config)) is None:
        return html.block(say(lang, "xray_ask"), "muted small")
    from sftdemo.encoding.xray import xray

    dataset = chosen_data.dataset(of_file(config))
    if not dataset.examples:
        return ""
    try:
        return data_views.xray(xray(dataset, row, tokenizer, config), row, lang)
    except UserError as error:
        return html.fault(in_words(error, lang))


def chosen_of(looked: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The data looked at and the form's settings as TrainConfig's values."""
    clean = ",".join(settings["clean"] or ())
    of_data = {name: looked.get(name, "") for name in ("data", "columns", "edits")}
    return {**of_data, **settings, "clean": clean}


def default_of(name: str) -> Any:
    """What the field of a setting holds before anything is set."""
    return [] if name == "clean" else ReadConfig.__dataclass_fields__[name].default or ""


def field_values(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of the form hold where these values were chosen."""
    steps = [step for step in str(chosen.get("clean") or "").split(",") if step in CLEANING]
    return {**chosen, "clean": steps}


def is_typed(settings: Mapping[str, Any], looked: Mapping[str, Any]) -> bool:
    """Whether the wording was typed: what the page itself put into its fields, as after a reload, was read with already.

    Such a text's event may come with what all other fields held before.
    """
    read = looked.get("read") or {}
    return any(settings[name] is not None and settings[name] != (read.get(name) or "") for name in WORDING)
