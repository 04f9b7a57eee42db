"""On Train, folded away: which settings are tried before the training, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import gradio as gr

from sftdemo.config.sweep import SweepConfig
from sftdemo.ui.parts import forms
from sftdemo.ui.texts import label

PREFIX = "sweep_"  # of its fields' names among those of the training


class SweepForm:
    """The fields of a sweep and its button, for the owner."""

    def __init__(self) -> None:
        with gr.Accordion(label("sweep_title"), open=False, visible=False, elem_id="sweep") as self.box:
            gr.Markdown(label("sweep_help"))
            with gr.Row():
                names = [spec.name for spec in fields(SweepConfig)]
                self.fields = {name: forms.field(SweepConfig, name, min_width=240) for name in names}
            self.go = gr.Button(label("sweep_go"), elem_id="sweep-go", elem_classes="main-button")

    @property
    def inputs(self) -> dict[str, Any]:
        return {PREFIX + name: field for name, field in self.fields.items()}

    def values(self, settings: Mapping[str, Any]) -> tuple[SweepConfig, dict[str, Any]]:
        """The sweep that the form describes, and the fields of the training; raises UsageError."""
        own = {name.removeprefix(PREFIX): value for name, value in settings.items() if name.startswith(PREFIX)}
        others = {name: value for name, value in settings.items() if not name.startswith(PREFIX)}
        sweep: SweepConfig = SweepConfig.from_json(forms.values(SweepConfig, own))
        return sweep, others
