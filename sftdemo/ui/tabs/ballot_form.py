"""Where a vote is given: reasons and marks, the four answers to "which is better?", and what stands beside them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo.ui.parts import html
from sftdemo.ui.texts import label, say
from sftdemo.votes import SCALES, TAGS

BUTTONS = {"a": "vote-a", "b": "vote-b", "tie": "vote-tie", "bad": "vote-bad"}
BARE = {"show_label": False, "container": False}


class BallotForm:
    """The form under a pair."""

    def __init__(self) -> None:
        self.outcome = gr.HTML("", elem_id="vote-said")
        self._build_reasons()
        self._build_buttons()
        self.keys = gr.HTML("", elem_id="vote-keys")

    def _build_reasons(self) -> None:
        with gr.Column(visible=False, elem_id="vote-why") as self.why:
            gr.Markdown(label("vote_why"), elem_id="vote-why-label")
            choices = [(label(f"tag_{tag}"), tag) for tag in TAGS]
            self.tags = gr.CheckboxGroup(choices, label=label("vote_why"), elem_id="vote-tags", **BARE)
            with gr.Accordion(label("vote_details"), open=False, elem_id="vote-details"):
                self.reason = gr.Textbox(
                    "", label=label("vote_reason"), lines=2, max_lines=6, max_length=2000, elem_id="vote-reason"
                )
                self.marks = {}
                with gr.Row():
                    for side in ("a", "b"):
                        with gr.Column(min_width=260):
                            for scale in SCALES:
                                self.marks[f"{side}_{scale}"] = gr.Radio(
                                    [1, 2, 3, 4, 5],
                                    label=label(f"mark_{side}_{scale}"),
                                    elem_classes="marks",
                                    elem_id=f"mark-{side}-{scale}",
                                )

    def _build_buttons(self) -> None:
        with gr.Column(elem_id="vote-bar"):
            with gr.Row(elem_id="vote-buttons", visible=False) as self.ballot:
                self.choices = {
                    choice: gr.Button(label(f"vote_{choice}"), elem_id=name, min_width=120)
                    for choice, name in BUTTONS.items()
                }
            with gr.Row(elem_id="vote-small"):
                self.onward = gr.Button(
                    label("vote_next"), variant="primary", visible=False, elem_id="vote-next", scale=3, min_width=140
                )
                self.skip = gr.Button(label("vote_skip"), elem_id="vote-skip", min_width=90)
                self.undo = gr.Button(label("vote_undo"), elem_id="vote-undo", min_width=90)
                self.finish = gr.Button(label("vote_finish"), visible=False, elem_id="vote-finish", min_width=90)

    @property
    def given(self) -> dict[str, Any]:
        """What is given with a vote, by the handlers' parameters."""
        return {"tags": self.tags, "reason": self.reason, **self.marks}

    @property
    def views(self) -> list[Any]:
        return [
            self.outcome, self.why, self.ballot, self.onward, self.skip, self.finish, self.keys, self.tags, self.reason,
            *self.marks.values(),
        ]  # fmt: skip

    def open(self, lang: str, may_finish: bool) -> dict[Any, Any]:
        """A vote is awaited, and nothing is given yet."""
        keys = html.block(say(lang, "vote_keys"), "muted small")
        return self.emptied() | self._buttons(voting=True, finish=may_finish) | {self.keys: keys}

    def told(self, lang: str) -> dict[Any, Any]:
        """The sides were told; the next pair comes when it is asked for."""
        return self._buttons(voting=False, after=True) | {
            self.keys: html.block(say(lang, "vote_keys_after"), "muted small")
        }

    def closed(self) -> dict[Any, Any]:
        """There is nothing to vote on."""
        return self.emptied() | self._buttons(voting=False) | {self.keys: ""}

    def emptied(self) -> dict[Any, Any]:
        return {self.tags: [], self.reason: "", **dict.fromkeys(self.marks.values()), self.outcome: ""}

    def save_again(self) -> dict[Any, Any]:
        """The vote could not be stored; one click tries again."""
        return {self.onward: gr.update(visible=True, value=label("vote_again"))}

    def _buttons(self, voting: bool, after: bool = False, finish: bool = False) -> dict[Any, Any]:
        return {
            **dict.fromkeys((self.why, self.ballot, self.skip), gr.update(visible=voting)),
            self.finish: gr.update(visible=finish),
            self.onward: gr.update(visible=after, value=label("vote_next")),
        }
