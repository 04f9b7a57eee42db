"""A prompt typed on the spot to vote on: both models answer it out of sight."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config.generate import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.ui import models
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.forms import MODEL_CLICK, wire
from sftdemo.ui.parts.page import find_ready
from sftdemo.ui.parts.progress import line as stage_line
from sftdemo.ui.parts.stopping import SessionStop
from sftdemo.ui.tabs.ballot import answers, rater_of
from sftdemo.ui.tabs.ballot_form import BARE
from sftdemo.ui.tabs.exchange import has_instruction, question
from sftdemo.ui.texts import label, language, say
from sftdemo.votes import TYPED, Store


class TypedPrompt:
    """The row in which one is typed. `voting` is the tab that shows the pair."""

    def __init__(self, voting: Any) -> None:
        self.voting = voting
        with gr.Row(visible=False, elem_id="vote-ask-row") as self.ask_row:
            self.typed = gr.Textbox(
                "",
                label=label("vote_ask"),
                placeholder=label("vote_ask"),
                lines=1,
                max_lines=6,
                scale=6,
                elem_id="vote-input",
                min_width=180,
                **BARE,
            )
            self.as_trained = gr.Checkbox(
                True, label=label("as_trained"), container=False, elem_id="vote-as-trained", min_width=200
            )
            width = {"scale": 1, "min_width": 110}
            self.ask = gr.Button(label("vote_ask_both"), variant="primary", elem_id="vote-ask", **width)
            self.stop = gr.Button(label("chat_stop"), visible=False, elem_id="vote-stop", **width)
        self.stopping = SessionStop(self.stop)

    def asking(self, running: bool) -> dict[Any, Any]:
        stop = gr.update(visible=True, interactive=True) if running else gr.update(visible=False)
        return {self.ask: gr.update(visible=not running), self.stop: stop}

    def stopped(self, lang: str) -> dict[Any, Any]:
        return {self.voting.view: html.empty(say(lang, "typed_stopped"), ""), **self.asking(False)}

    def choose_source(
        self, run_name: str, source: str, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        """Saved answers or typed prompts are to be voted on."""
        wrapped = bool(run_name) and has_instruction(runs.named(run_name))
        ask_row = {self.ask_row: gr.update(visible=source == "typed"), self.as_trained: gr.update(visible=wrapped)}
        return {**ask_row, **self.voting.next_pair(run_name, source, rater, request, tell_each)}

    async def ask_both(
        self,
        run_name: str,
        prompt: str,
        rater: str,
        request: gr.Request,
        as_trained: bool = True,
        tell_each: bool = True,
    ) -> AsyncIterator[dict[Any, Any]]:
        """Generate both answers out of sight, store them with the prompt, and show them together."""
        voting, lang, run = self.voting, language(request), find_ready(run_name)
        if not prompt.strip():
            raise UserError("Type a question first.")
        rater, each = rater_of(rater, request), voting.tells_each(run, tell_each, request)
        closed = {voting.state: {}, **voting.form.closed()}
        with self.stopping.running(request) as stopped:
            yield closed | {voting.view: html.empty(say(lang, "typed_working"), "")} | self.asking(True)
            try:
                asked = question(run, prompt.strip(), as_trained)
                async with aclosing(models.loading(stopped.is_set, run_name)) as stages:
                    async for stage in stages:
                        yield {voting.view: html.empty(say(lang, "typed_working"), stage_line(stage, lang))}
                if stopped.is_set():
                    yield self.stopped(lang)
                    return
                messages, texts, cut = await answers(run_name, asked, rights.asker(request), stopped.is_set)
                if stopped.is_set():
                    yield self.stopped(lang)
                    return
                settings = {**asdict(GenerateConfig()), **cut}
                pair = await models.in_thread(lambda: Store().add_typed(run, messages, texts, rater, **settings))
            except UserError:
                yield {voting.view: "", **self.asking(False)}
                raise
            if pair:
                shown = await models.in_thread(lambda: voting.show_pair(run, pair, TYPED, rater, each, lang))
                yield {self.typed: "", **self.asking(False), **shown}
            else:
                same = html.empty(say(lang, "typed_same"), texts["base"].strip())
                yield {self.typed: "", voting.view: same, **self.asking(False)}

    def wire(self) -> None:
        voting = self.voting
        sent = partial(gr.on, [self.ask.click, self.typed.submit])
        answered = [self.typed, self.ask, self.stop, *voting.views]
        where = {name: field for name, field in voting.where.items() if name != "source"}
        typed = {**where, "prompt": self.typed, "as_trained": self.as_trained}
        wire(sent, self.ask_both, typed, answered, voting.fault, needs="vote", **MODEL_CLICK)
        chosen = [self.ask_row, self.as_trained, *voting.views]
        wire(voting.source.change, self.choose_source, voting.where, chosen, voting.fault, needs="vote")
        self.stopping.wire()
