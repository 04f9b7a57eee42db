"""5 Vote: blind, only the prompt and two answers; who was who is told after the vote is on disk, or at the end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.runs import voting
from sftdemo.ui.access import allowance, rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import Page, find_ready, waits
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.tabs.ballot import GUEST, MOST_NAME, account, at_the_end, cards, names_of, public, rater_of, verdict
from sftdemo.ui.tabs.ballot_form import BARE, BallotForm
from sftdemo.ui.tabs.typed_prompt import TypedPrompt
from sftdemo.ui.tabs.vote_results import VoteResults
from sftdemo.ui.texts import label, language, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.votes import SCALES, TYPED, Pair, Store

ONCE = {"trigger_mode": "once"}
# After a vote the next pair is read from its beginning.
TO_THE_PAIR_JS = """() => {
  const view = document.getElementById('vote-view');
  if (view && view.getBoundingClientRect().top < 0) view.scrollIntoView({block: 'start'});
  return [];
}"""

# The state of a vote: {"pair", "hints", "since", "evaluation", "ended": nothing is left to vote on, "pending": the vote that
# could not be saved}
State = dict[str, Any]


def evaluation_of(run: runs.Run, source: str) -> str:
    """Where the pairs come from: the evaluation that is open for votes, "" without one, or the typed prompts."""
    return TYPED if source == "typed" else voting.open_contest(run)


def new_guest() -> str:
    return f"{GUEST}{secrets.token_hex(6)}"


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
                self.prompt = TypedPrompt(self)
                self.view = gr.HTML("", elem_id="vote-view")
                self.fault = gr.HTML("", elem_id="vote-fault")
                self.form = BallotForm()
            if tab:
                with gr.Tab(label("results_tab"), id="results") as results_tab:
                    self.results = VoteResults(page, results_tab)
        self.where = {"run_name": page.run, "source": self.source, "rater": self.rater, "tell_each": self.tell_each}
        self.views = [self.view, self.state, *self.form.views]

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
            self.tell_each = gr.Checkbox(
                True,
                label=label("vote_tell_each"),
                container=False,
                visible=False,
                elem_id="vote-tell-each",
                min_width=160,
            )
            self.name_box = gr.Textbox(
                "",
                label=label("vote_name"),
                placeholder=label("vote_name"),
                max_lines=1,
                max_length=MOST_NAME,
                elem_id="vote-name",
                min_width=150,
                **BARE,
            )
            if rights.can_sign_in():
                gr.LoginButton(size="sm", min_width=120)

    # What is shown

    def tells_each(self, run: runs.Run, tell_each: bool, request: gr.Request) -> bool:
        """Whether names are told after each vote: as the owner decided for raters, on the owner's own ballot by the switch."""
        own = self.tab is not None and rights.visitor(request).owner
        return bool(tell_each) if own else voting.tells_each_vote(run)

    def show_pair(
        self, run: runs.Run, pair: Pair, evaluation: str, rater: str, each: bool, lang: str
    ) -> dict[Any, Any]:
        """The state in which a vote is awaited."""
        hints = Store().hints(run, pair.ballot, rater)
        state: State = {
            "evaluation": evaluation,
            "pair": public(pair),
            "hints": asdict(hints),
            "since": time.monotonic(),
        }
        drawn = {self.view: cards(state["pair"], state["hints"], lang), self.state: state}
        return drawn | self.form.open(lang, may_finish=not each and pair.position > 1)

    def next_pair(
        self, run_name: str, source: str, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        run, lang = find_ready(run_name), language(request)
        voting.check_kind(run)
        if not (evaluation := evaluation_of(run, source)):
            return {self.view: waits(lang, self._words("vote_waits")), self.state: {}, **self.form.closed()}
        rater, each = rater_of(rater, request), self.tells_each(run, tell_each, request)
        if pair := Store().next_pair(run, evaluation, rater):
            return self.show_pair(run, pair, evaluation, rater, each, lang)
        ended = "vote_done" if evaluation == TYPED or Store().pairs(run, evaluation) else "vote_none"
        end = waits(lang, "typed_empty" if evaluation == TYPED else self._words(ended))
        if evaluation != TYPED and not each:
            end += at_the_end(Store().tell(run, evaluation, rater), 0, lang, self.names(run, evaluation, lang))
        return {self.view: end, self.state: {"evaluation": evaluation, "ended": True}, **self.form.closed()}

    def _words(self, key: str) -> str:
        """What is said to raters, who see no other tab, where it differs."""
        return key if self.tab else f"{key}_rater"

    def names(self, run: runs.Run, evaluation: str, lang: str) -> dict[str, str]:
        """Who plays the parts of base and tuned."""
        return names_of(run, evaluation, lang, rights.current().owner)

    # Opening the page, choosing the source and the name

    def refresh(
        self, run_name: str, source: str, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        visitor, lang = rights.visitor(request), language(request)
        if not visitor.may("vote"):
            closed = in_words(rights.REFUSED["vote"], lang)
            return {self.gate: html.empty(closed, ""), self.body: gr.update(visible=False)}
        user, rater = account(request), rater or new_guest()
        if not run_name:
            gate = waits(lang, "wait_run", "then_vote") if self.tab else waits(lang, "vote_waits_rater")
            return {self.gate: gate, self.body: gr.update(visible=False), self.rater: rater}
        if refused := voting.refusal(runs.named(run_name)):
            way = ("evaluate", say(lang, "go_evaluate")) if self.tab else ()
            gate = html.empty(in_words(refused, lang), "", *way)
            return {self.gate: gate, self.body: gr.update(visible=False), self.rater: rater, self.state: {}}
        name_shown = user or ("" if rater.startswith(GUEST) else rater)
        return {
            self.gate: "",
            self.body: gr.update(visible=True),
            self.rater: rater,
            self.name_box: gr.update(value=name_shown, interactive=not user),
            self.tell_each: gr.update(visible=self.tab is not None and visitor.owner),
            **self.next_pair(run_name, source, rater, request, tell_each),
        }

    def open_tab(
        self, run_name: str, source: str, state: State, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        """A pair, or a vote just revealed, stays while its evaluation is open."""
        evaluation = state.get("evaluation")
        if run_name and evaluation and evaluation == evaluation_of(runs.named(run_name), source):
            return {self.gate: ""}
        return self.refresh(run_name, source, rater, request, tell_each)

    def speak(
        self, run_name: str, source: str, state: State, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        """The pair that is open, who was who in the last one, or why there is none, in the page's language."""
        lang = language(request)
        if run_name and (told := state.get("told")):
            names = self.names(find_ready(run_name), state["evaluation"], lang)
            return {**self.tell(**told, names=names, lang=lang), self.form.keys: self.form.told(lang)[self.form.keys]}
        if run_name and (pair := state.get("pair")):
            return {self.view: cards(pair, state["hints"], lang), **self.form.open(lang, may_finish=False)}
        if run_name and state.get("evaluation") and not state.get("ended"):
            return {self.form.keys: self.form.told(lang)[self.form.keys]}
        shown = self.refresh(run_name, source, rater, request, tell_each)
        # A typed prompt may just be answered; and a pair that there is only by now comes with what else belongs to it.
        still = (source == "rows" or state.get("ended")) and not shown.get(self.state, {}).get("pair")
        parts = [self.gate, self.view] if still else [self.gate]
        return {part: shown[part] for part in parts if part in shown}

    def rename(
        self, run_name: str, source: str, name: str, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        """Votes already given stay under the old name."""
        name = name.strip()
        if name == rater or account(request) or (not name and rater.startswith(GUEST)):
            return {}
        renamed = name or new_guest()
        rater_of(renamed, request)  # refuses what can't be one; what tells raters apart is added wherever it is used
        return {self.rater: renamed, **self.next_pair(run_name, source, renamed, request, tell_each)}

    # Voting

    def store(self, vote: dict[str, Any], state: State, rater: str, told: bool, request: gr.Request) -> dict[str, Any]:
        """Store the vote; what it was for is in the reply where the rater is to be told."""
        allowance.spend(rights.visitor(request), "votes", 1)
        ballot = state["pair"]["ballot"]
        return asdict(Store().vote(ballot, rater=rater_of(rater, request), told=told, **vote))

    def cast(
        self,
        vote: dict[str, Any],
        run_name: str,
        source: str,
        state: State,
        rater: str,
        request: gr.Request,
        tell_each: bool = True,
    ) -> Iterator[dict[Any, Any]]:
        """Store the vote, then tell who was who, or go on; a vote that could not be stored stays, to be stored as it was."""
        lang, each = language(request), self.tells_each(find_ready(run_name), tell_each, request)
        try:
            revealed = self.store(vote, state, rater, each, request)
        except UserError:
            yield {self.state: {**state, "pending": vote}, **self.form.save_again()}
            raise
        if not each:
            yield self.next_pair(run_name, source, rater, request, tell_each)
            return
        names = self.names(find_ready(run_name), state["evaluation"], lang)
        told = {"pair": state["pair"], "hints": state.get("hints", {}), "revealed": revealed}
        kept = {self.state: {"evaluation": state["evaluation"], "told": told}}
        yield {**self.tell(**told, names=names, lang=lang), **kept, **self.form.told(lang)}

    def tell(
        self, pair: Any, hints: Mapping[str, Any], revealed: Mapping[str, Any], names: Mapping[str, str], lang: str
    ) -> dict[Any, Any]:
        """Who was who in a pair that was voted on."""
        shown = cards(pair, hints, lang, revealed, names)
        return {self.view: shown, self.form.outcome: verdict(revealed, lang, names)}

    def vote(
        self,
        choice: str,
        run_name: str,
        source: str,
        state: State,
        rater: str,
        request: gr.Request,
        tags: Any,
        reason: Any,
        tell_each: bool = True,
        **marks: Any,
    ) -> Iterator[dict[Any, Any]]:
        vote = vote_of(choice, with_pair(state, request), tags, reason, marks)
        yield from self.cast(vote, run_name, source, state, rater, request, tell_each)

    def proceed(
        self, run_name: str, source: str, state: State, rater: str, request: gr.Request, tell_each: bool = True
    ) -> Iterator[dict[Any, Any]]:
        """On to the next pair, or once more the vote that could not be stored."""
        if state.get("pending"):
            yield from self.cast(state["pending"], run_name, source, state, rater, request, tell_each)
        else:
            yield self.next_pair(run_name, source, rater, request, tell_each)

    def skip_pair(
        self,
        run_name: str,
        source: str,
        state: State,
        rater: str,
        request: gr.Request,
        tags: Any,
        reason: Any,
        tell_each: bool = True,
        **marks: Any,
    ) -> dict[Any, Any]:
        self.store(vote_of("skip", with_pair(state, request), tags, reason, marks), state, rater, False, request)
        return self.next_pair(run_name, source, rater, request, tell_each)

    def undo_vote(
        self, run_name: str, source: str, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        run = find_ready(run_name)
        allowance.spend(rights.visitor(request), "votes", 1)
        Store().undo(rater_of(rater, request), run, evaluation_of(run, source))
        return self.next_pair(run_name, source, rater, request, tell_each)

    def finish_early(
        self, run_name: str, source: str, state: State, rater: str, request: gr.Request, tell_each: bool = True
    ) -> dict[Any, Any]:
        """Tell who was who before all pairs are voted on."""
        run, lang = find_ready(run_name), language(request)
        evaluation = evaluation_of(run, source)
        if not evaluation or not (votes := Store().tell(run, evaluation, rater_of(rater, request))):
            raise UserError("There is no vote yet; vote on a pair first.")
        pair = state.get("pair") or {}
        left = pair.get("total", 0) - pair.get("position", 1) + 1 if pair else 0
        names = self.names(run, evaluation, lang)
        shown = {self.view: at_the_end(votes, left, lang, names), self.state: {"evaluation": evaluation}}
        return self.form.emptied() | shown | self.form.told(lang)

    def wire(self) -> None:
        fault, tab, form, where = self.fault, self.tab, self.form, self.where
        with_state = {**where, "state": self.state}
        ballot = {**with_state, **form.given}
        opened = [self.gate, self.body, self.rater, self.name_box, self.tell_each, *self.views]
        wire(self.page.run.change, self.refresh, where, opened, fault)
        if tab:
            wire(tab.select, self.open_tab, with_state, opened, fault)
            self.results.wire()
        name_settled = partial(gr.on, [self.name_box.submit, self.name_box.blur])
        wire(
            name_settled, self.rename, {**where, "name": self.name_box}, [self.rater, *self.views], fault, needs="vote"
        )
        may_vote: dict[str, Any] = {"needs": "vote", **ONCE}
        clicks = [
            wire(button.click, self.vote, {"choice": gr.State(choice), **ballot}, self.views, fault, **may_vote)
            for choice, button in form.choices.items()
        ]
        clicks += [
            wire(form.onward.click, self.proceed, with_state, self.views, fault, **may_vote),
            wire(form.skip.click, self.skip_pair, ballot, self.views, fault, **may_vote),
            wire(form.undo.click, self.undo_vote, where, self.views, fault, **may_vote),
            wire(form.finish.click, self.finish_early, with_state, self.views, fault, **may_vote),
        ]
        for click in clicks:
            wire(click.then, None, None, None, js=TO_THE_PAIR_JS)
        redraw(self.page, self.speak, with_state, [self.gate, self.view, form.outcome, form.keys])
        self.prompt.wire()
        if tab:
            self.page.blocks.unload(rights.guarded(self.prompt.stopping.leave, "look"))
