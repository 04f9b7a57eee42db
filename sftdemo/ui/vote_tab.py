"""5 Vote: blind, only the prompt and two answers; who was who comes after the vote is on disk."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.ui import html, vote_results
from sftdemo.ui.ballot import account, answers, can_sign_in, cards, public, rater_of, verdict
from sftdemo.ui.evaluate_tab import latest
from sftdemo.ui.forms import wire
from sftdemo.ui.page import Page, find_ready
from sftdemo.ui.texts import label, language, say
from sftdemo.votes import SCALES, TAGS, TYPED, Store

BUTTONS = {"a": "vote-a", "b": "vote-b", "tie": "vote-tie", "bad": "vote-bad"}

_stops: dict[str, threading.Event] = {}  # by browser session, while two answers to a typed prompt are made


def build(page: Page, tab: Any = None) -> None:
    """The tab's components and how they are connected; without a tab the page for raters: no results, no typed prompts."""
    gate = gr.HTML("", elem_id="vote-gate")
    rater = gr.BrowserState("", storage_key="sftdemo-rater", secret="a rater's name is no secret")
    # {"pair", "since", "evaluation", "pending": the vote that could not be saved}
    now = gr.State({})
    with (gr.Tabs if tab else gr.Column)(visible=False, elem_id="vote-tabs") as body:
        with gr.Tab(label("vote_tab"), id="vote") if tab else nullcontext():
            with gr.Row(elem_id="vote-who"):
                source = gr.Radio(
                    [(label("source_rows"), "rows"), (label("source_typed"), "typed")],
                    value="rows",
                    label=label("vote_source"),
                    show_label=False,
                    container=False,
                    elem_id="vote-source",
                    min_width=220,
                    visible=tab is not None,
                )
                name_box = gr.Textbox(
                    "",
                    label=label("vote_name"),
                    show_label=False,
                    container=False,
                    placeholder=label("vote_name"),
                    max_lines=1,
                    max_length=60,
                    elem_id="vote-name",
                    min_width=150,
                )
                if can_sign_in():
                    gr.LoginButton(size="sm", min_width=120)
            with gr.Row(visible=False, elem_id="vote-ask-row") as ask_row:
                typed = gr.Textbox(
                    "",
                    label=label("vote_ask"),
                    show_label=False,
                    container=False,
                    placeholder=label("vote_ask"),
                    lines=1,
                    max_lines=6,
                    scale=6,
                    elem_id="vote-input",
                    min_width=180,
                )
                ask = gr.Button(label("vote_ask_both"), variant="primary", scale=1, min_width=110, elem_id="vote-ask")
                stop = gr.Button(label("chat_stop"), visible=False, scale=1, min_width=110, elem_id="vote-stop")
            view = gr.HTML("", elem_id="vote-view")
            fault = gr.HTML("", elem_id="vote-fault")
            said = gr.HTML("", elem_id="vote-said")
            with gr.Column(visible=False, elem_id="vote-why") as why:
                gr.Markdown(label("vote_why"), elem_id="vote-why-label")
                tags = gr.CheckboxGroup(
                    [(label(f"tag_{tag}"), tag) for tag in TAGS],
                    label=label("vote_why"),
                    show_label=False,
                    container=False,
                    elem_id="vote-tags",
                )
                with gr.Accordion(label("vote_details"), open=False, elem_id="vote-details"):
                    reason = gr.Textbox(
                        "", label=label("vote_reason"), lines=2, max_lines=6, max_length=2000, elem_id="vote-reason"
                    )
                    marks = {}
                    with gr.Row():
                        for side in ("a", "b"):
                            with gr.Column(min_width=260):
                                for scale in SCALES:
                                    marks[side, scale] = gr.Radio(
                                        [1, 2, 3, 4, 5],
                                        label=label(f"mark_{side}_{scale}"),
                                        elem_classes="marks",
                                        elem_id=f"mark-{side}-{scale}",
                                    )
            with gr.Column(elem_id="vote-bar"):
                with gr.Row(elem_id="vote-buttons", visible=False) as ballot:
                    marked = {
                        choice: gr.Button(label(f"vote_{choice}"), elem_id=name, min_width=120)
                        for choice, name in BUTTONS.items()
                    }
                with gr.Row(elem_id="vote-small"):
                    onward = gr.Button(
                        label("vote_next"),
                        variant="primary",
                        visible=False,
                        elem_id="vote-next",
                        scale=3,
                        min_width=140,
                    )
                    skip = gr.Button(label("vote_skip"), elem_id="vote-skip", min_width=90)
                    undo = gr.Button(label("vote_undo"), elem_id="vote-undo", min_width=90)
            keys = gr.HTML("", elem_id="vote-keys")
        if tab:
            with gr.Tab(label("results_tab"), id="results") as results_tab:
                vote_results.build(page, results_tab)
    opinion = [tags, reason, *marks.values()]
    views = [view, said, why, ballot, onward, skip, now, keys, *opinion]

    def buttons(voting: bool, after: bool = False) -> dict[Any, Any]:
        return {
            **dict.fromkeys((why, ballot, skip), gr.update(visible=voting)),
            onward: gr.update(visible=after, value=label("vote_next")),
        }

    def waiting(pair: dict[str, Any], evaluation: str, lang: str) -> dict[Any, Any]:
        """The state in which a vote is awaited, or the end."""
        state = {"evaluation": evaluation}
        fresh = {tags: [], reason: "", **dict.fromkeys(marks.values()), said: "", **buttons(not pair["done"])}
        if pair["done"]:
            end = "typed_empty" if evaluation == TYPED else "vote_done"
            return fresh | {view: html.empty(say(lang, end), say(lang, end + "_text")), now: state, keys: ""}
        return fresh | {
            view: cards(pair, lang),
            now: {**state, "pair": pair, "since": time.monotonic()},
            keys: html.block(say(lang, "vote_keys"), "muted small"),
        }

    def where(run: runs.Run, chosen: str) -> str:
        return TYPED if chosen == "typed" else latest(run)

    def serve(name: str, chosen: str, who: str, request: gr.Request) -> dict[Any, Any]:
        run, lang = find_ready(name), language(request)
        if not (evaluation := where(run, chosen)):
            waits = html.empty(say(lang, "vote_waits"), say(lang, "vote_waits_text"))
            return {view: waits, said: "", keys: "", now: {}, **buttons(False)}
        return waiting(public(Store().next_pair(run, evaluation, rater_of(who, request))), evaluation, lang)

    def refresh(name: str, chosen: str, who: str, request: gr.Request) -> dict[Any, Any]:
        lang, user = language(request), account(request)
        who = who or f"guest-{secrets.token_hex(6)}"
        if not name:
            waits = html.empty(say(lang, "wait_run"), say(lang, "wait_run_text"))
            return {gate: waits, body: gr.update(visible=False), rater: who}
        shown = user or ("" if who.startswith("guest-") else who)
        found = {gate: "", body: gr.update(visible=True), rater: who}
        return found | {name_box: gr.update(value=shown, interactive=not user), **serve(name, chosen, who, request)}

    def look(name: str, chosen: str, state: dict[str, Any], who: str, request: gr.Request) -> dict[Any, Any]:
        """On opening the tab; a pair, or a vote just revealed, stays while its evaluation is the newest."""
        if name and state.get("evaluation") and state["evaluation"] == where(runs.named(name), chosen):
            return {gate: ""}
        return refresh(name, chosen, who, request)

    def choose_source(name: str, chosen: str, who: str, request: gr.Request) -> dict[Any, Any]:
        return {ask_row: gr.update(visible=chosen == "typed"), **serve(name, chosen, who, request)}

    def rename(name: str, chosen: str, given: str, who: str, request: gr.Request) -> dict[Any, Any]:
        """Votes already given stay under the old name."""
        given = given.strip()
        if given == who or account(request) or (not given and who.startswith("guest-")):
            return {}
        named = rater_of(given, request) or f"guest-{secrets.token_hex(6)}"
        return {rater: named, **serve(name, chosen, named, request)}

    def given_by(choice: str, state: dict[str, Any], opinions: tuple[Any, ...]) -> dict[str, Any]:
        scales: dict[str, dict[str, int]] = {"a": {}, "b": {}}
        for (side, scale), mark in zip(marks, opinions[2:], strict=True):
            if mark is not None:
                scales[side][scale] = int(mark)
        milliseconds = round(1000 * (time.monotonic() - state["since"]))
        return {
            "choice": choice,
            "tags": opinions[0] or [],
            "reason": opinions[1] or "",
            "scales": scales,
            "ms": milliseconds,
        }

    def cast(vote: dict[str, Any], state: dict[str, Any], who: str, request: gr.Request) -> dict[Any, Any]:
        """Store the vote, then tell who was who."""
        lang = language(request)
        revealed = asdict(Store().vote(state["pair"]["ballot"], rater=rater_of(who, request), **vote))
        return {
            view: cards(state["pair"], lang, revealed),
            said: verdict(revealed, lang),
            **buttons(False, after=True),
            now: {"evaluation": state["evaluation"]},
            keys: html.block(say(lang, "vote_keys_after"), "muted small"),
        }

    def kept(vote: dict[str, Any], state: dict[str, Any], who: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Cast; a vote that could not be stored stays on the page, to be stored again as it was."""
        try:
            yield cast(vote, state, who, request)
        except UserError:
            again = gr.update(visible=True, value=label("vote_again"))
            yield {now: {**state, "pending": vote}, onward: again}
            raise

    def open_pair(state: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        if not state.get("pair"):
            raise UserError(say(language(request), "vote_gone"))
        return state

    def voter(choice: str) -> Callable[..., Any]:
        def vote(state: dict[str, Any], who: str, request: gr.Request, *opinions: Any) -> Any:
            yield from kept(given_by(choice, open_pair(state, request), opinions), state, who, request)

        return vote

    def proceed(name: str, chosen: str, state: dict[str, Any], who: str, request: gr.Request) -> Any:
        if state.get("pending"):
            yield from kept(state["pending"], state, who, request)
        else:
            yield serve(name, chosen, who, request)

    def pass_over(
        name: str, chosen: str, state: dict[str, Any], who: str, request: gr.Request, *opinions: Any
    ) -> dict[Any, Any]:
        cast(given_by("skip", open_pair(state, request), opinions), state, who, request)
        return serve(name, chosen, who, request)

    def take_back(name: str, chosen: str, who: str, request: gr.Request) -> dict[Any, Any]:
        run = find_ready(name)
        Store().undo(rater_of(who, request), run, where(run, chosen))
        return serve(name, chosen, who, request)

    def ask_both(name: str, prompt: str, who: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Generate both answers out of sight, store them with the prompt, and show them together."""
        lang, run = language(request), find_ready(name)
        if not prompt.strip():
            raise UserError(say(lang, "chat_empty"))
        voter_name, session = rater_of(who, request), str(request.session_hash)
        stopped = _stops[session] = threading.Event()
        running = {ask: gr.update(visible=False), stop: gr.update(visible=True, interactive=True)}
        idle = {ask: gr.update(visible=True), stop: gr.update(visible=False)}
        yield {
            view: html.empty(say(lang, "typed_working"), ""),
            said: "",
            keys: "",
            now: {},
            **buttons(False),
            **running,
        }
        try:
            asked, texts = answers(name, prompt.strip(), stopped.is_set)
            if stopped.is_set():
                yield {view: html.empty(say(lang, "typed_stopped"), ""), **idle}
                return
            settings = asdict(GenerateConfig())
            pair = Store().add_typed(run, asked, texts, voter_name, **settings)
            if pair:
                yield {typed: "", **idle, **waiting(public(pair), TYPED, lang)}
            else:
                alike = html.empty(say(lang, "typed_same"), texts["base"].strip())
                yield {typed: "", view: alike, now: {"evaluation": TYPED}, **idle}
        except UserError:
            yield {view: "", **idle}
            raise
        finally:
            stopped.set()
            _stops.pop(session, None)

    def ask_stop(request: gr.Request) -> dict[Any, Any]:
        if event := _stops.get(str(request.session_hash)):
            event.set()
        return {stop: gr.update(interactive=False)}

    def leave(request: gr.Request) -> None:
        if event := _stops.pop(str(request.session_hash), None):
            event.set()

    opened = [gate, body, rater, name_box, *views]
    once = {"trigger_mode": "once"}
    wire(page.run.change, refresh, [page.run, source, rater], opened, fault)
    if tab:
        wire(tab.select, look, [page.run, source, now, rater], opened, fault)
    wire(source.change, choose_source, [page.run, source, rater], [ask_row, *views], fault)
    wire(
        partial(gr.on, [name_box.submit, name_box.blur]),
        rename,
        [page.run, source, name_box, rater],
        [rater, *views],
        fault,
    )
    for choice, button in marked.items():
        wire(button.click, voter(choice), [now, rater, *opinion], views, fault, **once)
    wire(onward.click, proceed, [page.run, source, now, rater], views, fault, **once)
    wire(skip.click, pass_over, [page.run, source, now, rater, *opinion], views, fault, **once)
    wire(undo.click, take_back, [page.run, source, rater], views, fault, **once)
    model = {"concurrency_id": "model", "concurrency_limit": 1, **once}
    wire(
        partial(gr.on, [ask.click, typed.submit]),
        ask_both,
        [page.run, typed, rater],
        [typed, ask, stop, *views],
        fault,
        **model,
    )
    wire(stop.click, ask_stop, None, [stop])
    if tab:
        page.blocks.unload(leave)
