"""A run's settings taken over into the form: to change some and train again, or to train on other data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UserError
from sftdemo.training import resume
from sftdemo.ui import chosen_data
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import task_choice
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.runs import RunsTab
from sftdemo.ui.tabs.train import TrainTab
from sftdemo.ui.texts import language


class Clone:
    """What the two buttons on Runs do with the forms on Data and Train."""

    def __init__(self, page: Page, data: DataTab, train: TrainTab, listed: RunsTab) -> None:
        self.page, self.data, self.train, self.listed = page, data, train, listed

    def fill(self, config: TrainConfig, lang: str) -> dict[Any, Any]:
        """Train's form with a run's settings, but for its name, which is taken; what Data shows of them, too."""
        shared = {**self.train.fields, **{f"data {name}": field for name, field in self.page.preparing.items()}}
        values = {field: getattr(config, name.removeprefix("data ")) for name, field in shared.items()}
        filled = {field: "" if value is None else value for field, value in values.items()}
        filled[self.train.fields["task"]] = task_choice.take(config.task, lang)
        return {**filled, self.train.fields["name"]: ""}

    def clone(self, focus: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Settings and data of the run; where its data can't be read any more, Data says so and others can be chosen."""
        config = resume.settings(runs.named(focus))
        reading = {field: getattr(config, name) for name, field in self.data.settings.items() if name != "clean"}
        reading = {field: "" if value is None else value for field, value in reading.items()}
        reading[self.data.steps] = [step for step in (config.clean or "").split(",") if step]
        looked = {name: getattr(config, name) or "" for name in ("data", "columns", "edits")}
        yield {**self.fill(config, language(request)), **reading, self.data.looked: looked}
        try:
            chosen_data.description(config)
            tab = "train"
        except UserError:  # said on Data, which reads it after this
            tab = "data"
        yield {self.page.tabs: gr.Tabs(selected=tab)}

    def other_data(self, focus: str, request: gr.Request) -> dict[Any, Any]:
        """The settings of the run; the data are chosen next."""
        filled = self.fill(resume.settings(runs.named(focus)), language(request))
        return {**filled, self.page.tabs: gr.Tabs(selected="data")}

    def wire(self) -> None:
        page, data, listed = self.page, self.data, self.listed
        filled = [*self.train.fields.values(), *page.preparing.values(), page.tabs]
        cloned = [*filled, *data.settings.values(), data.looked]
        options: dict[str, Any] = {"needs": "manage", "trigger_mode": "once"}
        done = wire(listed.clone.click, self.clone, [listed.focus], cloned, listed.fault, **options)
        data.read_again(done.success)
        wire(listed.again.click, self.other_data, [listed.focus], filled, listed.fault, **options)
