"""The menu of earlier runs that a training can go on from."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.train import TrainConfig
from sftdemo.training import continual
from sftdemo.ui import models
from sftdemo.ui.access import rights
from sftdemo.ui.parts import forms, html
from sftdemo.ui.texts import label, say

OFFERED = 200  # the newest; older ones are typed
NAME_LENGTH = 40


def menu(**options: Any) -> Any:
    """The field of the setting; empty it stands for the base model."""
    choices = [(label("start_base"), "")]
    return forms.choice_field(TrainConfig, "from_run", choices, value="", **options)


def offered(visitor: rights.Visitor, lang: str) -> Any:
    """An update of the menu with the runs there are; a visitor can't go on from others' runs and doesn't see it."""
    ready = [
        run for run in runs.list_runs()[:OFFERED] if visitor.owner and models.is_ready(run) and run.kind == kinds.CHAT
    ]
    titles = html.cut_names([runs.title(run) for run in ready], NAME_LENGTH)
    named = [(title, run.name) for title, run in zip(titles, ready, strict=True)]
    return gr.update(choices=[(say(lang, "start_base"), ""), *named], visible=visitor.owner)


def completed(config: TrainConfig) -> TrainConfig:
    """The settings with those of the earlier run that stay; raises UserError where others were set, or there is no such run."""
    return continual.inherited(config, continual.find(config))
