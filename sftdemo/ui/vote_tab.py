"""5 Vote: blind, only the prompt and two answers; who was who comes after the vote is on disk."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.statistics import wilson
from sftdemo.ui import charts, html
from sftdemo.ui.evaluate_tab import exports, latest
from sftdemo.ui.forms import wire
from sftdemo.ui.page import Page, find_ready
from sftdemo.ui.texts import label, language, number, say
from sftdemo.votes import CHOICES, Store

BUTTONS = {"a": "vote-a", "b": "vote-b", "tie": "vote-tie", "bad": "vote-bad"}
KEYS = {"a": "1", "b": "2", "tie": "3", "bad": "4"}
EXPORTS = {"csv": "csv", "jsonl": "jsonl", "dpo": "dpo.jsonl"}
MOST_VOTES = 2000  # beyond this many more votes a lean this small isn't worth asking for


def votes_needed(tuned: int, base: int) -> int | None:
    """How many more decisive votes until the interval would exclude one half, if the lean stays; 0 when it does now."""
    n = tuned + base
    for more in range(MOST_VOTES + 1):
        share = tuned / n if n else 0.5
        low, high = wilson(round(share * (n + more)), n + more) if n + more else (0.0, 1.0)
        if low > 0.5 or high < 0.5:
            return more
    return None


def cards(pair: Mapping[str, Any], lang: str, revealed: Mapping[str, Any] | None = None) -> str:
    """The prompt and the two answers, drawn alike; with `revealed`, who was who."""
    drawn = []
    for side in ("a", "b"):
        who, css = f"<b>{side.upper()}</b>", "plain-side"
        if revealed:
            name = "base" if revealed["base_side"] == side else "tuned"
            who, css = f"<b>{side.upper()}</b> {html.chip(say(lang, 'name_' + name), name)}", f"{name}-side"
        text = html.esc(pair[f"answer_{side}"]) or f'<span class="muted">{say(lang, "vote_no_answer")}</span>'
        drawn.append(f'<div class="answer {css}"><span class="who">{who}</span>{text}</div>')
    place = say(lang, "vote_place", n=pair["position"], total=pair["total"])
    share = html.track((pair["position"] - 1) / max(pair["total"], 1))
    return html.block(
        f'<div class="workline muted small"><span class="num">{place}</span>{share}</div><br>'
        f'{html.bubbles(pair["prompt"])}<div class="two">{"".join(drawn)}</div>'
    )


def verdict(revealed: Mapping[str, Any], lang: str) -> str:
    """What the vote was for, said once it is stored."""
    key = {"tuned": "voted_tuned", "base": "voted_base"}.get(revealed["winner"], f"voted_{revealed['winner']}")
    return html.block(f'<div class="big" id="revealed">{say(lang, key)}</div>')


def results(totals: Any, lang: str) -> str:
    """The bar, the win rate with its interval, and whether that is enough."""
    if not totals.n:
        return html.empty(say(lang, "votes_empty"), say(lang, "votes_empty_text"))
    parts = [charts.vote_bar(totals.tuned, totals.tie, totals.bad, totals.base, lang)]
    if totals.win_rate is None:
        parts.insert(0, f'<div class="big">{say(lang, "votes_undecided")}</div>')
    else:
        rate = say(
            lang,
            "votes_rate",
            rate=f"{100 * totals.win_rate:.0f}",
            low=f"{100 * totals.low:.0f}",
            high=f"{100 * totals.high:.0f}",
        )
        more = votes_needed(totals.tuned, totals.base)
        enough = (
            "votes_more"
            if more
            else "votes_never"
            if more is None
            else "votes_tuned"
            if totals.tuned > totals.base
            else "votes_base"
        )
        parts.insert(0, f'<div class="big">{rate}</div><p>{say(lang, enough, n=number(more or 0))}</p>')
    notes = say(lang, "votes_notes", n=number(totals.n), raters=totals.raters, skip=totals.skip, same=totals.same)
    return html.block("".join(parts) + f'<p class="muted small"><br>{notes}</p>', "sheet")


def public(pair: Any) -> dict[str, Any]:
    """What a rater may know of a pair; the reply when all are voted on is {"done": true}."""
    return {"done": False, **asdict(pair)} if pair else {"done": True}


def build(page: Page, tab: Any) -> None:
    """The tab's components and how they are connected."""
    gate = gr.HTML("", elem_id="vote-gate")
    rater = gr.BrowserState("", storage_key="sftdemo-rater", secret="a rater's name is no secret")
    # {"pair", "since", "evaluation", "pending" choice that could not be saved}
    now = gr.State({})
    with gr.Tabs(visible=False, elem_id="vote-tabs") as body:
        with gr.Tab(label("vote_tab"), id="vote"):
            view = gr.HTML("", elem_id="vote-view")
            fault = gr.HTML("", elem_id="vote-fault")
            said = gr.HTML("", elem_id="vote-said")
            with gr.Row(elem_id="vote-buttons", visible=False) as ballot:
                marked = {
                    choice: gr.Button(label(f"vote_{choice}"), elem_id=name, min_width=120)
                    for choice, name in BUTTONS.items()
                }
            onward = gr.Button(
                label("vote_next"), variant="primary", visible=False, elem_classes="main-button", elem_id="vote-next"
            )
            with gr.Row(elem_classes="small-row"):
                skip = gr.Button(label("vote_skip"), size="sm", elem_id="vote-skip", min_width=90)
                undo = gr.Button(label("vote_undo"), size="sm", elem_id="vote-undo", min_width=90)
            keys = gr.HTML("", elem_id="vote-keys")
        with gr.Tab(label("results_tab"), id="results") as results_tab:
            result_fault = gr.HTML("")
            result_view = gr.HTML("", elem_id="vote-results")
            with gr.Row(elem_classes="small-row"):
                files = {kind: gr.DownloadButton(label(f"export_{kind}"), size="sm", visible=False) for kind in EXPORTS}
    views = [view, said, ballot, onward, skip, now, keys]

    def waiting(pair: dict[str, Any], evaluation: str, lang: str) -> dict[Any, Any]:
        """The state in which a vote is awaited, or the end."""
        if pair["done"]:
            return {
                view: html.empty(say(lang, "vote_done"), say(lang, "vote_done_text")),
                **dict.fromkeys((ballot, onward, skip), gr.update(visible=False)),
                said: "",
                now: {},
                keys: "",
            }
        return {
            view: cards(pair, lang),
            said: "",
            ballot: gr.update(visible=True),
            onward: gr.update(visible=False),
            skip: gr.update(visible=True),
            now: {"pair": pair, "since": time.monotonic(), "evaluation": evaluation, "pending": None},
            keys: html.block(say(lang, "vote_keys"), "muted small"),
        }

    def serve(name: str, who: str, lang: str) -> dict[Any, Any]:
        run = find_ready(name)
        evaluation = latest(run)
        if not evaluation:
            raise UserError(say(lang, "vote_needs"))
        return waiting(public(Store().next_pair(run, evaluation, who)), evaluation, lang)

    def refresh(name: str, who: str, request: gr.Request) -> dict[Any, Any]:
        lang, who = language(request), who or secrets.token_hex(6)
        if not name or not latest(runs.named(name)):
            key = "vote_waits" if name else "wait_run"
            return {
                gate: html.empty(say(lang, key), say(lang, key + "_text")),
                body: gr.update(visible=False),
                rater: who,
            }
        return {gate: "", body: gr.update(visible=True), rater: who, **serve(name, who, lang)}

    def look(name: str, state: dict[str, Any], who: str, request: gr.Request) -> dict[Any, Any]:
        """On opening the tab; a pair, or a vote just revealed, stays while its evaluation is the newest."""
        if name and state.get("evaluation") and state["evaluation"] == latest(runs.named(name)):
            return {gate: ""}
        return refresh(name, who, request)

    def cast(choice: str, state: dict[str, Any], who: str, lang: str) -> dict[Any, Any]:
        """Store the vote, then tell; a vote that could not be stored stays on the page to be stored again."""
        if not state.get("pair") or choice not in CHOICES:
            raise UserError(say(lang, "vote_gone"))
        milliseconds = round(1000 * (time.monotonic() - state["since"]))
        revealed = asdict(Store().vote(state["pair"]["ballot"], choice, who, ms=milliseconds))
        return {
            view: cards(state["pair"], lang, revealed),
            said: verdict(revealed, lang),
            ballot: gr.update(visible=False),
            skip: gr.update(visible=False),
            onward: gr.update(visible=True, value=label("vote_next")),
            now: {**state, "pair": None},
            keys: html.block(say(lang, "vote_keys_after"), "muted small"),
        }

    def kept(choice: str, state: dict[str, Any], who: str, lang: str) -> Any:
        try:
            yield cast(choice, state, who, lang)
        except UserError:
            if state.get("pair"):
                yield {now: {**state, "pending": choice}, onward: gr.update(visible=True, value=label("vote_again"))}
            raise

    def voter(choice: str) -> Callable[..., Any]:
        def vote(state: dict[str, Any], who: str, request: gr.Request) -> Any:
            yield from kept(choice, state, who, language(request))

        return vote

    def proceed(name: str, state: dict[str, Any], who: str, request: gr.Request) -> Any:
        lang = language(request)
        if state.get("pending"):
            yield from kept(state["pending"], state, who, lang)
        else:
            yield serve(name, who, lang)

    def pass_over(name: str, state: dict[str, Any], who: str, request: gr.Request) -> dict[Any, Any]:
        lang = language(request)
        cast("skip", state, who, lang)
        return serve(name, who, lang)

    def take_back(name: str, who: str, request: gr.Request) -> dict[Any, Any]:
        run = find_ready(name)
        Store().undo(who, run, latest(run))
        return serve(name, who, language(request))

    def show_results(name: str, request: gr.Request) -> dict[Any, Any]:
        run, store, lang = find_ready(name), Store(), language(request)
        totals = store.totals(run, latest(run))
        found: dict[Any, Any] = {result_view: results(totals, lang)}
        for kind, ending in EXPORTS.items():
            path = exports() / f"{run.name}-votes-{secrets.token_hex(3)}.{ending}"
            if totals.n:
                runs.write_text(path, store.export(run, kind))
            found[files[kind]] = gr.update(visible=bool(totals.n), value=str(path) if totals.n else None)
        return found

    wire(page.run.change, refresh, [page.run, rater], [gate, body, rater, *views], fault)
    for choice, button in marked.items():
        wire(button.click, voter(choice), [now, rater], views, fault, trigger_mode="once")
    wire(onward.click, proceed, [page.run, now, rater], views, fault, trigger_mode="once")
    wire(skip.click, pass_over, [page.run, now, rater], views, fault, trigger_mode="once")
    wire(undo.click, take_back, [page.run, rater], views, fault, trigger_mode="once")
    wire(results_tab.select, show_results, [page.run], [result_view, *files.values()], result_fault)
    wire(tab.select, look, [page.run, now, rater], [gate, body, rater, *views], fault)
