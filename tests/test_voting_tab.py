"""The handlers of the Vote tab and its results: a vote is stored, told, undone; raters are left out and taken in again."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo.errors import UserError
from sftdemo.runs import voting
from sftdemo.ui.access import rights
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.vote import VoteTab
from sftdemo.ui.tabs.vote_results import VoteResults
from sftdemo.ui.texts import say
from sftdemo.votes import Store
from tests.test_tabs import last, pick, request
from tests.test_votes import EVALUATION, make_run

pytestmark = pytest.mark.slow

MARKS = {f"{side}_{scale}": None for side in "ab" for scale in ("correct", "helpful", "fluent")}


def test_a_vote_is_stored_then_told_then_undone(page: Page) -> None:
    tab, run = VoteTab(page, gr.Tab()), make_run(3)
    assert say("en", "wait_run") in tab.refresh("", "rows", "", request())[tab.gate]
    opened = tab.refresh(run.name, "rows", "", request())
    rater, state = opened[tab.rater], opened[tab.state]
    assert rater.startswith("guest-") and opened[tab.name_box]["value"] == ""
    assert tab.open_tab(run.name, "rows", state, rater, request()) == {tab.gate: ""}
    voted = last(
        tab.vote("a", run.name, "rows", state, rater, request(), ["clear"], "short", **MARKS | {"a_fluent": 4})
    )
    assert (
        "revealed" in voted[tab.form.outcome]
        and voted[tab.form.onward]["visible"]
        and not voted[tab.form.ballot]["visible"]
    )
    stored = Store().export(run, "jsonl")
    assert '"short"' in stored and '"clear"' in stored and re.search('"fluent_(base|tuned)": 4', stored)
    with pytest.raises(UserError, match="no open pair"):
        last(tab.vote("b", run.name, "rows", voted[tab.state], rater, request(), [], "", **MARKS))
    following = last(tab.proceed(run.name, "rows", voted[tab.state], rater, request()))
    assert following[tab.state]["pair"]["ballot"] != state["pair"]["ballot"] and following[tab.form.tags] == []
    back = tab.undo_vote(run.name, "rows", rater, request())
    assert back[tab.state]["pair"]["prompt"] == state["pair"]["prompt"]
    tab.skip_pair(run.name, "rows", back[tab.state], rater, request(), [], "", **MARKS)
    assert Store().totals(run, EVALUATION).skip == 1


def test_where_all_answers_are_alike_there_is_nothing_to_vote_on(page: Page) -> None:
    run = make_run(0, same=3)
    for tab, key in ((VoteTab(page, gr.Tab()), "vote_none"), (VoteTab(page), "vote_none_rater")):
        view = tab.refresh(run.name, "rows", "ann", request())[tab.view]
        assert (
            say("en", key) in view and say("en", "vote_done") not in view and say("en", "vote_done_rater") not in view
        )


def test_raters_are_told_at_the_end_and_by_one_click_each_pair(page: Page) -> None:
    tab, run = VoteTab(page), make_run(4)
    shown = tab.refresh(run.name, "rows", "ann", request())
    assert not shown[tab.form.finish]["visible"]
    for _ in range(3):
        shown = last(tab.vote("a", run.name, "rows", shown[tab.state], "ann", request(), [], "", **MARKS))
        assert shown[tab.form.ballot]["visible"] and not shown[tab.form.onward]["visible"], "the next pair is there"
        assert not re.search(r"\b(base|tuned)\b", shown[tab.view]) and shown[tab.form.outcome] == ""
    assert shown[tab.form.finish]["visible"] and Store().totals(run).unblinded == 0
    early = tab.finish_early(run.name, "rows", shown[tab.state], "ann", request())
    assert say("en", "own_left", n=1) in early[tab.view] and early[tab.form.onward]["visible"]
    shown = last(tab.proceed(run.name, "rows", early[tab.state], "ann", request()))
    end = last(tab.vote("tie", run.name, "rows", shown[tab.state], "ann", request(), [], "", **MARKS))
    assert say("en", "vote_done_rater") in end[tab.view] and say("en", "own_title") in end[tab.view]
    assert Store().totals(run).unblinded == 1 and not end[tab.form.ballot]["visible"]
    with pytest.raises(UserError, match="no vote yet"):
        tab.finish_early(run.name, "rows", {}, "bob", request())


def test_the_owner_decides_when_names_are_told(page: Page) -> None:
    tab, rate, run = VoteTab(page, gr.Tab()), VoteTab(page), make_run(6)
    results = VoteResults(page, gr.Tab())
    voting.tell_each_vote(run, False)
    assert results.show(run.name, "all", request())[results.telling]["value"] == "end"
    for here, tell_each, each in ((tab, True, True), (tab, False, False), (rate, True, False)):
        state = here.refresh(run.name, "rows", "ann", request())[here.state]
        cast = here.vote("a", run.name, "rows", state, "ann", request(), [], "", tell_each=tell_each, **MARKS)
        assert last(cast)[here.form.onward]["visible"] is each
    results.choose_telling(run.name, "each", "all", request())
    state = rate.refresh(run.name, "rows", "ann", request())[rate.state]
    assert (
        "revealed"
        in last(rate.vote("a", run.name, "rows", state, "ann", request(), [], "", **MARKS))[rate.form.outcome]
    )
    with pytest.raises(UserError, match="'never' is no time"):
        results.choose_telling(run.name, "never", "all", request())
    shown = results.show(run.name, "all", request())
    assert say("en", "trust_rater", name="ann", n=3, total=4) in shown[results.trust]
    assert "By one rater" in shown[results.head] and say("en", "votes_unblinded", n=3, total=4) in shown[results.head]
    assert "<svg" in shown[results.share] and f"rate?run={run.name}" in shown[results.share]
    assert say("en", "invite_told_each") in shown[results.share]


def test_a_vote_that_could_not_be_stored_is_kept_to_be_stored_again(page: Page) -> None:
    tab, run = VoteTab(page, gr.Tab()), make_run(2)
    state = tab.refresh(run.name, "rows", "ann", request())[tab.state]
    broken = {**state, "pair": {**state["pair"], "ballot": "made-up"}}
    updates = tab.vote("tie", run.name, "rows", broken, "ann", request(), [], "", **MARKS)
    kept = next(updates)
    assert kept[tab.state]["pending"]["choice"] == "tie" and kept[tab.form.onward]["visible"]
    with pytest.raises(UserError, match="made-up"):
        next(updates)
    told = last(tab.proceed(run.name, "rows", {**state, "pending": kept[tab.state]["pending"]}, "ann", request()))
    assert "revealed" in told[tab.form.outcome] and Store().totals(run, EVALUATION).tie == 1


def test_a_new_name_votes_on_its_own_pairs(page: Page) -> None:
    tab, run = VoteTab(page, gr.Tab()), make_run(2)
    assert tab.rename(run.name, "rows", "", "guest-1", request()) == {}
    named = tab.rename(run.name, "rows", " ann ", "guest-1", request())
    assert named[tab.rater] == "ann" and named[tab.state]["pair"]
    assert tab.rename(run.name, "rows", "", "ann", request())[tab.rater].startswith("guest-")
    typed = tab.prompt.choose_source(run.name, "typed", "ann", request())
    assert typed[tab.prompt.ask_row]["visible"] and say("en", "typed_empty") in typed[tab.view]


def test_a_visitors_new_name_stands_in_the_field_as_it_was_typed(page: Page) -> None:
    tab, run = VoteTab(page, gr.Tab()), make_run(2)
    rights.use(AppConfig(), "0.0.0.0")
    try:
        scope = {"type": "http", "method": "POST", "client": ("198.41.0.4", 1), "headers": [(b"host", b"192.168.1.5")]}
        asked = request()
        asked.request = SimpleNamespace(scope=scope)
        named = tab.rename(run.name, "rows", "ann", "guest-1", asked)
        assert named[tab.rater] == "ann" == tab.refresh(run.name, "rows", "ann", asked)[tab.name_box]["value"]
        with pytest.raises(UserError, match="name of an account"):
            tab.rename(run.name, "rows", "@ann", "ann", asked)
    finally:
        rights.use(AppConfig(), "127.0.0.1")


def test_a_raters_votes_are_left_out_and_taken_in_again(page: Page) -> None:
    results, run, store = VoteResults(page, gr.Tab()), make_run(2), Store()
    assert say("en", "votes_empty") in results.show(run.name, "all", request())[results.head]
    pair = store.next_pair(run, EVALUATION, "ann")
    assert pair
    store.vote(pair.ballot, "a", "ann")
    shown = results.show(run.name, "rows", request())
    assert Path(shown[results.files["csv"]]["value"]).exists() and "ann" in shown[results.raters]
    for key in ("rater_include", "rater_exclude"):
        assert say("en", key) in results.toggle_rater(run.name, "all", request(), pick("ann"))[results.raters]
