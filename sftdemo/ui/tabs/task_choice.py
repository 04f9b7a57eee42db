"""The kinds of model that the chosen data can train, for the form on Train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from sftdemo.config import kinds
from sftdemo.data import Dataset
from sftdemo.ui.texts import choices, say


def offered(dataset: Dataset) -> list[str]:
    """The kinds that these rows can train: those that label need labels, or entities."""
    first = next((example for part in dataset.splits.values() for example in part), None)
    labelled = dataset.task == "classification" or (first is not None and "labels" in first)
    fits = {"classification": labelled, "tokens": dataset.format == "extraction"}
    return [kind for kind in kinds.KINDS if fits.get(kind, True)]


def update(dataset: Dataset, chosen: str, lang: str) -> dict[str, Any]:
    """The menu of these kinds; one that is chosen stays, so that its training can say why it can't be."""
    fitting = offered(dataset)
    return _menu([kind for kind in kinds.KINDS if kind == chosen or kind in fitting], lang)


def take(kind: str, lang: str) -> dict[str, Any]:
    """The menu with this kind chosen, whichever data it was narrowed for: Gradio refuses a value that its menu lacks, before
    any handler could offer it."""
    return _menu(kinds.KINDS, lang) | {"value": kind}


def _menu(shown: Iterable[str], lang: str) -> dict[str, Any]:
    named: dict[str, Any] = gr.update(choices=[(say(lang, choices.key("task", kind)), kind) for kind in shown])
    return named
