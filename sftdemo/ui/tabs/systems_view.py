"""Other systems beside base and tuned on Evaluate: the table and picture of them, and the one that the others are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.evaluation.system_answers import systems_of
from sftdemo.ui.access import rights
from sftdemo.ui.parts import systems
from sftdemo.ui.parts.forms import ONE_COMPARISON, wire
from sftdemo.ui.parts.page import Page, find_ready, latest_evaluation
from sftdemo.ui.parts.redraw import redraw_where
from sftdemo.ui.texts import label, language
from sftdemo.verbs import other_systems


def system_at(run: runs.Run, evaluation: str, place: object) -> str:
    """The system at a place of the menus; base and tuned come first."""
    known = systems_of(run, evaluation)
    if not (str(place).isdecimal() and int(str(place)) < len(known)):
        raise UserError("That system isn't in this evaluation any more; reload the page.")
    return known[int(str(place))]


class SystemsView:
    """Nothing of it is in sight until other systems were asked."""

    def __init__(self, page: Page, fault: Any) -> None:
        self.page, self.fault = page, fault
        self.view = gr.HTML("", elem_id="evaluate-systems")
        self.to = gr.Dropdown([], label=label("systems_to"), visible=False, elem_id="systems-to")
        self.parts = [self.view, self.to]

    def hide(self) -> dict[Any, Any]:
        return {self.view: "", self.to: gr.update(visible=False, value=None)}

    def show(self, run: runs.Run, name: str, scores: Mapping[str, Any], lang: str) -> dict[Any, Any]:
        """The systems of an evaluation, as its scores.json compares them."""
        if not scores.get("systems"):
            return self.hide()
        owner, known = rights.current().owner, systems_of(run, name)
        to = scores["to"]["system"] if "to" in scores else "tuned"
        offered = gr.update(choices=systems.choices(known, lang, owner), value=str(known.index(to)), visible=True)
        return {self.view: systems.systems(scores, lang, owner, run=run.name), self.to: offered}

    def compare(self, run_name: str, to: str, request: gr.Request) -> dict[Any, Any]:
        """The same with the differences to another system."""
        run = find_ready(run_name)
        name = latest_evaluation(run)
        scores = run.scores(name)
        compared = other_systems.compared_to(run, name, system_at(run, name, to), scores["leading"])
        owner = rights.visitor(request).owner
        return {self.view: systems.systems(scores, language(request), owner, compared, run.name)}

    def wire(self) -> None:
        wire(self.to.input, self.compare, [self.page.run, self.to], [self.view], self.fault, **ONE_COMPARISON)
        redraw_where(self.page, self.to, self.compare, [self.page.run, self.to], [self.view], **ONE_COMPARISON)
