"""5 Vote: blind, only the prompt and two answers; who was who comes after the vote is on disk."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.runs import voting
from sftdemo.ui import work
from sftdemo.ui.access import allowance, rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.forms import MODEL_CLICK, wire
from sftdemo.ui.parts.page import Page, find_ready, waits
from sftdemo.ui.parts.stopping import SessionStop
from sftdemo.ui.tabs.ballot import account, answers, cards, public, rater_of, verdict
from sftdemo.ui.tabs.exchange import has_instruction, question
from sftdemo.ui.tabs.vote_results import VoteResults
from sftdemo.ui.texts import label, language, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.votes import SCALES, TAGS, TYPED, Store

BUTTONS = {"a": "vote-a", "b": "vote-b", "tie": "vote-tie", "bad": "vote-bad"}
BARE = {"show_label": False, "container": False}
ONCE = {"trigger_mode": "once"}

# The state of a vote: {"pair", "since", "evaluation", "pending": the vote that could not be saved}
State = dict[str, Any]


def evaluation_of(run: runs.Run, source: str) -> str:
    """Where the pairs come from: the evaluation that is open for votes, "" without one, or the typed prompts."""
    return TYPED if source == "typed" else voting.open_evaluation(run)


def new_guest() -> str:
    return f"guest-{secrets.token_hex(6)}"


def vote_of(choice: str, state: State, tags: list[str] | None, reason: str | None, marks: Mapping[str, Any]) -> State:
    """The vote as the store takes it; `marks` are the scales given, by "a_fluent" and the like."""
    scales = {
        side: {scale: int(mark) for scale in SCALES if (mark := marks.get(f"{side}_{scale}")) is not None}
        for side in ("a", "b")
    }
    milliseconds = round(1000 * (time.monotonic() - state["since"]))
    return {"choice": choice, "tags": tags or [], "reason": reason or "", "scales": scales, "ms": milliseconds}


def with_pair(state: State, request: gr.Request) -> State:
    """The state, if a pair is open in it."""
    if not state.get("pair"):
        raise UserError("There is no open pair; press Next pair.")
    return state


class VoteTab:
    """The tab, or without one the page for raters: no results, no typed prompts."""

    def __init__(self, page: Page, tab: Any = None) -> None:
        self.page, self.tab = page, tab
        self.gate = gr.HTML("", elem_id="vote-gate")
        self.rater = gr.BrowserState("", storage_key="sftdemo-rater", secret="a rater's name is no secret")
        self.state = gr.State({})
        with (gr.Tabs if tab else gr.Column)(visible=False, elem_id="vote-tabs") as self.body:
            with gr.Tab(label("vote_tab"), id="vote") if tab else nullcontext():
                self._build_who()
                self._build_typed()
                self.view = gr.HTML("", elem_id="vote-view")
                self.fault = gr.HTML("", elem_id="vote-fault")
                self.outcome = gr.HTML("", elem_id="vote-said")
                self._build_reasons()
                self._build_buttons()
                self.keys = gr.HTML("", elem_id="vote-keys")
            if tab:
                with gr.Tab(label("results_tab"), id="results") as results_tab:
                    self.results = VoteResults(page, results_tab)

    def _build_who(self) -> None:
        with gr.Row(elem_id="vote-who"):
            self.source = gr.Radio(
                [(label("source_rows"), "rows"), (label("source_typed"), "typed")],
                value="rows",
                label=label("vote_source"),
                elem_id="vote-source",
                min_width=220,
                visible=self.tab is not None,
                **BARE,
            )
            self.name_box = gr.Textbox(
                "",
                label=label("vote_name"),
                placeholder=label("vote_name"),
                max_lines=1,
                max_length=60,
                elem_id="vote-name",
                min_width=150,
                **BARE,
            )
            if rights.can_sign_in():
                gr.LoginButton(size="sm", min_width=120)

    def _build_typed(self) -> None:
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

    # What is shown

    def buttons(self, voting: bool, after: bool = False) -> dict[Any, Any]:
        return {
            **dict.fromkeys((self.why, self.ballot, self.skip), gr.update(visible=voting)),
            self.onward: gr.update(visible=after, value=label("vote_next")),
        }

    def show_pair(self, pair: dict[str, Any], evaluation: str, lang: str) -> dict[Any, Any]:
        """The state in which a vote is awaited, or the end."""
        empty: dict[Any, Any] = {self.tags: [], self.reason: "", **dict.fromkeys(self.marks.values()), self.outcome: ""}
        state = {"evaluation": evaluation}
        if pair["done"]:
            end = "typed_empty" if evaluation == TYPED else "vote_done"
            return empty | self.buttons(False) | {self.view: waits(lang, end), self.state: state, self.keys: ""}
        return (
            empty
            | self.buttons(True)
            | {
                self.view: cards(pair, lang),
                self.state: {**state, "pair": pair, "since": time.monotonic()},
                self.keys: html.block(say(lang, "vote_keys"), "muted small"),
            }
        )

    def next_pair(self, run_name: str, source: str, rater: str, request: gr.Request) -> dict[Any, Any]:
        run, lang = find_ready(run_name), language(request)
        if not (evaluation := evaluation_of(run, source)):
            nothing = {self.outcome: "", self.keys: "", self.state: {}}
            return {self.view: waits(lang, "vote_waits"), **nothing, **self.buttons(False)}
        return self.show_pair(public(Store().next_pair(run, evaluation, rater_of(rater, request))), evaluation, lang)

    # Opening the page, choosing the source and the name

    def refresh(self, run_name: str, source: str, rater: str, request: gr.Request) -> dict[Any, Any]:
        if not rights.visitor(request).may("vote"):
            closed = in_words(rights.REFUSED["vote"], language(request))
            return {self.gate: html.empty(closed, ""), self.body: gr.update(visible=False)}
        user, rater = account(request), rater or new_guest()
        if not run_name:
            gate = waits(language(request), "wait_run")
            return {self.gate: gate, self.body: gr.update(visible=False), self.rater: rater}
        name_shown = user or ("" if rater.startswith("guest-") else rater)
        return {
            self.gate: "",
            self.body: gr.update(visible=True),
            self.rater: rater,
            self.name_box: gr.update(value=name_shown, interactive=not user),
            **self.next_pair(run_name, source, rater, request),
        }

    def open_tab(self, run_name: str, source: str, state: State, rater: str, request: gr.Request) -> dict[Any, Any]:
        """A pair, or a vote just revealed, stays while its evaluation is open."""
        evaluation = state.get("evaluation")
        if run_name and evaluation and evaluation == evaluation_of(runs.named(run_name), source):
            return {self.gate: ""}
        return self.refresh(run_name, source, rater, request)

    def choose_source(self, run_name: str, source: str, rater: str, request: gr.Request) -> dict[Any, Any]:
        wrapped = bool(run_name) and has_instruction(runs.named(run_name))
        ask_row = {self.ask_row: gr.update(visible=source == "typed"), self.as_trained: gr.update(visible=wrapped)}
        return ask_row | self.next_pair(run_name, source, rater, request)

    def rename(self, run_name: str, source: str, name: str, rater: str, request: gr.Request) -> dict[Any, Any]:
        """Votes already given stay under the old name."""
        name = name.strip()
        if name == rater or account(request) or (not name and rater.startswith("guest-")):
            return {}
        renamed = rater_of(name, request) or new_guest()
        return {self.rater: renamed, **self.next_pair(run_name, source, renamed, request)}

    # Voting

    def cast(self, vote: dict[str, Any], state: State, rater: str, request: gr.Request) -> dict[Any, Any]:
        """Store the vote, then tell who was who."""
        lang = language(request)
        allowance.spend(rights.visitor(request), "votes", 1)
        revealed = asdict(Store().vote(state["pair"]["ballot"], rater=rater_of(rater, request), **vote))
        return {
            self.view: cards(state["pair"], lang, revealed),
            self.outcome: verdict(revealed, lang),
            **self.buttons(False, after=True),
            self.state: {"evaluation": state["evaluation"]},
            self.keys: html.block(say(lang, "vote_keys_after"), "muted small"),
        }

    def cast_or_keep(
        self, vote: dict[str, Any], state: State, rater: str, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Cast; a vote that could not be stored stays on the page, to be stored again as it was."""
        try:
            yield self.cast(vote, state, rater, request)
        except UserError:
            again = gr.update(visible=True, value=label("vote_again"))
            yield {self.state: {**state, "pending": vote}, self.onward: again}
            raise

    def vote(
        self, choice: str, state: State, rater: str, request: gr.Request, tags: Any, reason: Any, **marks: Any
    ) -> Iterator[dict[Any, Any]]:
        vote = vote_of(choice, with_pair(state, request), tags, reason, marks)
        yield from self.cast_or_keep(vote, state, rater, request)

    def proceed(
        self, run_name: str, source: str, state: State, rater: str, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """On to the next pair, or once more the vote that could not be stored."""
        if state.get("pending"):
            yield from self.cast_or_keep(state["pending"], state, rater, request)
        else:
            yield self.next_pair(run_name, source, rater, request)

    def skip_pair(
        self,
        run_name: str,
        source: str,
        state: State,
        rater: str,
        request: gr.Request,
        tags: Any,
        reason: Any,
        **marks: Any,
    ) -> dict[Any, Any]:
        self.cast(vote_of("skip", with_pair(state, request), tags, reason, marks), state, rater, request)
        return self.next_pair(run_name, source, rater, request)

    def undo_vote(self, run_name: str, source: str, rater: str, request: gr.Request) -> dict[Any, Any]:
        run = find_ready(run_name)
        allowance.spend(rights.visitor(request), "votes", 1)
        Store().undo(rater_of(rater, request), run, evaluation_of(run, source))
        return self.next_pair(run_name, source, rater, request)

    # Typed prompts

    def asking(self, running: bool) -> dict[Any, Any]:
        stop = gr.update(visible=True, interactive=True) if running else gr.update(visible=False)
        return {self.ask: gr.update(visible=not running), self.stop: stop}

    async def ask_both(
        self, run_name: str, prompt: str, rater: str, request: gr.Request, as_trained: bool = True
    ) -> AsyncIterator[dict[Any, Any]]:
        """Generate both answers out of sight, store them with the prompt, and show them together."""
        lang, run = language(request), find_ready(run_name)
        if not prompt.strip():
            raise UserError("Type a question first.")
        rater = rater_of(rater, request)
        working = {
            self.view: html.empty(say(lang, "typed_working"), ""),
            self.outcome: "",
            self.keys: "",
            self.state: {},
        }
        with self.stopping.running(request) as stopped:
            yield working | self.buttons(False) | self.asking(True)
            try:
                asked = question(run, prompt.strip(), as_trained)
                messages, texts = await answers(run_name, asked, rights.asker(request), stopped.is_set)
                if stopped.is_set():
                    yield {self.view: html.empty(say(lang, "typed_stopped"), ""), **self.asking(False)}
                    return
                settings = asdict(GenerateConfig())
                pair = await work.in_thread(lambda: Store().add_typed(run, messages, texts, rater, **settings))
            except UserError:
                yield {self.view: "", **self.asking(False)}
                raise
            if pair:
                yield {self.typed: "", **self.asking(False), **self.show_pair(public(pair), TYPED, lang)}
            else:
                same = html.empty(say(lang, "typed_same"), texts["base"].strip())
                yield {self.typed: "", self.view: same, self.state: {"evaluation": TYPED}, **self.asking(False)}

    def wire(self) -> None:
        fault, tab = self.fault, self.tab
        where = {"run_name": self.page.run, "source": self.source, "rater": self.rater}
        ballot = {"state": self.state, "rater": self.rater, "tags": self.tags, "reason": self.reason, **self.marks}
        views = [self.view, self.outcome, self.why, self.ballot, self.onward, self.skip, self.state, self.keys]
        views += [self.tags, self.reason, *self.marks.values()]
        opened = [self.gate, self.body, self.rater, self.name_box, *views]
        wire(self.page.run.change, self.refresh, where, opened, fault)
        if tab:
            wire(tab.select, self.open_tab, {**where, "state": self.state}, opened, fault)
            self.results.wire()
        wire(
            self.source.change, self.choose_source, where, [self.ask_row, self.as_trained, *views], fault, needs="vote"
        )
        name_settled = partial(gr.on, [self.name_box.submit, self.name_box.blur])
        wire(name_settled, self.rename, {**where, "name": self.name_box}, [self.rater, *views], fault, needs="vote")
        for choice, button in self.choices.items():
            wire(button.click, self.vote, {"choice": gr.State(choice), **ballot}, views, fault, needs="vote", **ONCE)
        wire(self.onward.click, self.proceed, {**where, "state": self.state}, views, fault, needs="vote", **ONCE)
        wire(self.skip.click, self.skip_pair, {**where, **ballot}, views, fault, needs="vote", **ONCE)
        wire(self.undo.click, self.undo_vote, where, views, fault, needs="vote", **ONCE)
        prompt_sent = partial(gr.on, [self.ask.click, self.typed.submit])
        answered = [self.typed, self.ask, self.stop, *views]
        typed = {"run_name": self.page.run, "prompt": self.typed, "rater": self.rater, "as_trained": self.as_trained}
        wire(prompt_sent, self.ask_both, typed, answered, fault, needs="vote", **MODEL_CLICK)
        self.stopping.wire()
        if tab:
            self.page.blocks.unload(rights.guarded(self.stopping.leave, "look"))
