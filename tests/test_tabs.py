"""The tabs' handlers, called as the page calls them: with plain values, and updates by component in return."""

from __future__ import annotations

import asyncio
import base64
import inspect
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import files, runs, train
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.errors import UserError
from sftdemo.runs import voting
from sftdemo.ui import build, work
from sftdemo.ui.parts.page import Header, Page, brand
from sftdemo.ui.parts.stopping import SessionStop
from sftdemo.ui.tabs import chat_prompts
from sftdemo.ui.tabs.chat import ChatTab
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.data_columns import EVERY_ROLE
from sftdemo.ui.tabs.evaluate import EvaluateTab
from sftdemo.ui.tabs.exchange import question
from sftdemo.ui.tabs.outputs import OutputsView
from sftdemo.ui.tabs.rate import RatePage
from sftdemo.ui.tabs.runs import RunsTab
from sftdemo.ui.tabs.train import TrainTab
from sftdemo.ui.tabs.vote import VoteTab
from sftdemo.ui.tabs.vote_results import VoteResults
from sftdemo.ui.texts import say
from sftdemo.votes import Store
from tests.test_ui import add_evaluation, made_run
from tests.test_votes import EVALUATION, make_run

MARKS = {f"{side}_{scale}": None for side in "ab" for scale in ("correct", "helpful", "fluent")}


def request(session: str = "s1", **query: str) -> SimpleNamespace:
    return SimpleNamespace(headers={}, cookies={}, session_hash=session, query_params=query, username=None)


def pick(value: object) -> SimpleNamespace:
    return SimpleNamespace(value=value)


def each(updates: AsyncIterator[dict[Any, Any]]) -> list[dict[Any, Any]]:
    """What a handler on the web server's loop yields."""

    async def collect() -> list[dict[Any, Any]]:
        return [update async for update in updates]

    return asyncio.run(collect())


def last(updates: Iterator[dict[Any, Any]] | AsyncIterator[dict[Any, Any]]) -> dict[Any, Any]:
    """All that a generator of updates leaves on the page."""
    merged: dict[Any, Any] = {}
    for update in updates if isinstance(updates, Iterator) else each(updates):
        merged |= update
    return merged


@pytest.fixture
def page() -> Iterator[Page]:
    with gr.Blocks() as blocks:
        yield Page(blocks, run=gr.State(None), data=gr.State({}), timer=gr.Timer(active=False), tabs=gr.Tabs())


def test_every_handler_takes_what_it_is_wired_to() -> None:
    """Names of inputs are parameters of the handler, and Gradio finds the request and the event by their hints."""
    blocks, checked = build(), 0
    for fn in blocks.fns.values():
        if fn.fn is None:
            continue
        hints = inspect.get_annotations(fn.fn, eval_str=True)
        special = {name for name, hint in hints.items() if hint in (gr.Request, gr.EventData)}
        named = set(fn.input_keyword_names or ())
        given = [name for name in inspect.signature(fn.fn).parameters if name not in special | named]
        positional = given[: len(fn.inputs) - len(named)]
        inspect.signature(fn.fn).bind(**dict.fromkeys([*positional, *named, *special]))
        checked += 1
    assert checked > 50


# Header and raters' page


def test_the_header_shows_the_chosen_run_and_what_runs(page: Page) -> None:
    header = Header(page)
    made_run("ready")
    shown = header.open_page(request())
    assert shown[page.run] == "ready" and shown[header.work_row]["visible"] is False
    made_run("busy", "running")
    shown = header.refresh_bar(request())
    assert "busy" in shown[header.work_bar] and shown[header.work_row]["visible"] is True


def test_the_address_names_tab_and_run(page: Page) -> None:
    header = Header(page)
    add_evaluation(made_run("asked"))
    made_run("newest")
    shown = header.open_page(request(tab="evaluate", run="asked", row="1"))
    assert shown[page.run] == "asked" and shown[page.tabs].selected == "evaluate" and not shown[header.fault]
    for nowhere in ("nowhere", "../asked", "x" * 5_000, made_run("busy", "running").name):
        shown = header.open_page(request(tab="nowhere", run=nowhere))
        assert shown[page.run] == "newest" and shown[page.tabs].selected == "data"
        assert nowhere[:80] in shown[header.fault] and str(runs.home()) not in shown[header.fault]
    back = header.follow_address("?tab=chat&run=asked", "newest", request())
    assert back[page.run] == "asked" and back[page.tabs].selected == "chat" and not back[header.fault]
    gone = header.follow_address("?run=gone", "asked", request())
    assert gone[page.run] == "asked" and "gone" in gone[header.fault]


def test_the_address_names_a_row_of_its_run_only(page: Page) -> None:
    tab = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State(""))
    add_evaluation(made_run("r"))
    add_evaluation(made_run("other"))
    shown = tab.open_tab("r", "?tab=evaluate&run=r&row=1", request())
    assert shown[tab.outputs.open_number] == 1 and shown[tab.outputs.opened]
    assert tab.open_tab("other", "?tab=evaluate&run=r&row=1", request())[tab.outputs.open_number] is None
    assert tab.follow_address("r", "?tab=vote&run=r&row=1", request()) == {}, "who votes there sees no answers"
    with pytest.raises(UserError, match="That row"):
        tab.open_tab("r", "?run=r&row=99", request())


def test_the_raters_page_takes_the_run_of_its_link() -> None:
    with gr.Blocks() as blocks:
        rate = RatePage(blocks)
    made_run("newest")
    made_run("asked")
    assert rate.open_page(request(run="asked"))[rate.page.run] == "asked"
    make_run(30, name="words")
    assert "31 pairs, about 6 min" in rate.open_page(request(run="words"))[rate.instruction]
    chinese = request(run="nowhere")
    chinese.cookies = {"sftdemo_lang": "zh"}
    wrong = rate.open_page(chinese)
    assert "没有可评的运行 'nowhere'" in unescape(wrong[rate.fault]) and wrong[rate.brand] == brand("zh")
    assert rate.page.run not in wrong


# Stop


def test_a_stop_reaches_its_own_session_only(page: Page) -> None:
    stopping = SessionStop(gr.Button())
    with stopping.running(request("s1")) as mine, stopping.running(request("s2")) as others:
        stopping.ask(request("s1"))
        assert mine.is_set() and not others.is_set()
        stopping.leave(request("s2"))
        assert others.is_set()
    stopping.ask(request("s1"))  # nothing runs: nothing happens
    with stopping.running(request("s1")) as fresh:
        assert not fresh.is_set()


# Data


def form_of(tab: DataTab, **settings: Any) -> dict[str, Any]:
    values = {name: field.value for name, field in {**tab.page.preparing, **tab.settings}.items()}
    return values | {"clean": []} | settings


def test_a_sample_is_picked_and_handed_to_the_other_tabs(page: Page) -> None:
    tab = DataTab(page)
    preparing = {name: field.value for name, field in page.preparing.items()}
    shown = last(tab.pick_sample(pick("support_tickets"), request(), **preparing))
    assert shown[page.data]["data"] == shown[tab.looked]["data"] == "support_tickets"
    assert shown[tab.to_train]["interactive"] and shown[tab.row] == 1 and shown[tab.steps] == []
    with pytest.raises(UserError, match="no sample 'x'"):
        last(tab.pick_sample(pick("x"), request(), **preparing))
    assert last(tab.take_source(request(), None, **preparing)) == {}


def test_data_that_cannot_be_trained_on_leaves_the_choice_before(page: Page, tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text(
        "".join(f'{{"utt": "number {i}", "mood": "{"ab"[i % 2]}"}}\n' for i in range(30))
    )
    tab = DataTab(page)
    preparing = {name: field.value for name, field in page.preparing.items()}
    shown = last(tab.take_source(request(), str(tmp_path / "odd.jsonl"), **preparing))
    assert "value" not in shown[page.data] and not shown[tab.to_train]["interactive"]
    menus = {f"role_{role}": None for role in EVERY_ROLE} | {"role_text": "utt", "role_label": "mood"}
    looked = shown[tab.looked] | {"layout": "text_label"}
    shown = last(tab.map_columns(request(), looked, 1, **form_of(tab, format="text_label"), **menus))
    assert shown[page.data]["columns"] == "text=utt,label=mood" and shown[tab.to_train]["interactive"]


def test_half_a_placeholder_is_said_without_a_toast(page: Page) -> None:
    tab = DataTab(page)
    looked = {"data": "support_tickets"}
    shown = last(tab.apply_wording(request(), looked, 1, **form_of(tab, instruction="What? {tex}")))
    assert "{tex}" in shown[tab.fault].replace("&#123;", "{").replace("&#125;", "}") and page.data not in shown
    shown = last(tab.apply_wording(request(), looked, 1, **form_of(tab, instruction="What? {text}")))
    assert "What? " in shown[tab.examples] and tab.fault not in shown


def test_another_row_is_looked_at_with_the_tokenizer_at_hand(page: Page, babbler: str) -> None:
    tab = DataTab(page)
    form = form_of(tab, model=babbler)
    *_, shown = tab.fetch_tokenizer(request(), {"data": "support_tickets"}, 2, **form)
    assert "X-ray of row 2" in shown[tab.xray] and not shown[tab.show_tokens]["visible"]
    assert "X-ray of row 3" in tab.look_at_row(request(), {"data": "support_tickets"}, 3, **form)[tab.xray]


# Train


def test_the_plan_follows_the_form_and_a_run_is_watched(page: Page) -> None:
    tab = TrainTab(page)
    settings = {name: field.value for name, field in tab.fields.items()}
    waiting = tab.describe(request(), {}, **settings)
    assert say("en", "wait_data") in waiting[tab.plan] and not waiting[tab.start]["interactive"]
    shown = tab.describe(request(), {"data": "support_tickets"}, **settings | {"epochs": 3})
    assert "3 epochs" in shown[tab.plan] and "--epochs 3" in shown[tab.command]
    saved = re.search(r'href="data:application/yaml;base64,([^"]+)" download', shown[tab.command])
    assert saved and "epochs: 3.0\n" in base64.b64decode(saved[1]).decode()
    with pytest.raises(UserError, match="epochs is -1"):
        tab.describe(request(), {"data": "support_tickets"}, **settings | {"epochs": -1})
    idle = tab.tick("", "", "", request())
    assert idle[tab.view] == idle[tab.queue] == "" and page.run not in idle
    run = made_run("busy", "running")
    shown = tab.open_page(request())
    assert shown[tab.watched] == "busy" and shown[tab.stop]["visible"] and not shown[tab.evaluate]["visible"]
    assert page.run not in tab.tick("busy", "busy", "", request())
    shown = tab.stop_run("busy", request())
    assert say("en", "train_stopping") in shown[tab.view] and not shown[tab.stop]["interactive"]
    assert [item.state for item in work.running()] == ["stopping"] and run.status()["state"] == "running"
    run.write_status("finished", step=4, total=4)
    assert page.run not in tab.tick("busy", "", "chosen", request()), "it was started on another page"
    assert tab.tick("busy", "busy", "chosen", request())[page.run] == "busy"
    shown = tab.tick("busy", "", "", request())
    assert shown[page.run] == "busy" and shown[tab.evaluate]["visible"]
    assert shown[tab.start]["value"].key == "train_again"


# Evaluate


def test_answers_are_sent_once_the_tab_is_opened(page: Page) -> None:
    tab = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State(""))
    assert say("en", "wait_run") in tab.refresh("", request())[tab.gate]
    run = made_run("r")
    assert say("en", "evaluate_empty") in tab.refresh("r", request())[tab.claim]
    add_evaluation(run)
    shown = tab.refresh("r", request())
    assert "+50.0" in shown[tab.bars] and shown[tab.rows] == 2 and "parcel" not in str(shown)
    shown = tab.open_tab("r", "", request())
    assert "parcel" in shown[tab.outputs.table] and Path(shown[tab.csv_file]["value"]).exists()
    assert list(tab.tick("r", False, request())) == [tab.progress]


def test_the_run_that_was_trained_is_evaluated_whatever_the_fields_still_show(page: Page) -> None:
    """Right after a training the fields here can still be those of the run chosen before."""
    tab = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State(""))
    made_run("before")
    first = next(tab.evaluate_trained(made_run("trained").name, False, request()))
    assert first == {page.run: "trained", tab.rows: 2}


def test_results_are_those_of_the_chosen_run_when_another_one_s_evaluation_ends(page: Page) -> None:
    tab = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State(""))
    add_evaluation(made_run("evaluated"))
    made_run("chosen")
    assert "+50.0" in tab.show_results("evaluated", request())[tab.bars]
    assert say("en", "evaluate_empty") in tab.show_results("chosen", request())[tab.claim]


def test_rows_are_listed_turned_and_opened(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    view = OutputsView(page, gr.HTML())
    make_run(120, name="many")
    asked = {"run_name": "many", "metric": "chrf", "sort": "row", "label": "", "filter": "all", "search": ""}
    shown = view.list_rows(request(), **asked)
    assert "Say word 0" in shown[view.table] and shown[view.pager.next]["interactive"]
    second = view.list_rows(request(), **asked, at=shown[view.at], step=1)
    assert second[view.at] == 1 and "Say word 0<" not in second[view.table] and second[view.pager.back]["interactive"]
    assert "1 row" in view.list_rows(request(), **asked | {"search": "word 119"})[view.pager.place]
    assert not view.leave_search(request(), "", **asked), "a click on a row leaves the field; the row stays open"
    assert view.leave_search(request(), "word 1", **asked)[view.opened] == ""
    shown = view.open_row(request(), pick("3"), **asked, at=0)
    assert "Row 4" in shown[view.opened] and shown[view.open_number] == 3 and shown[view.why_row]["visible"]
    with pytest.raises(UserError, match="isn't in this evaluation"):
        view.open_row(request(), pick("999"), **asked, at=0)


# Chat


def test_nothing_is_asked_without_a_question(page: Page) -> None:
    tab = ChatTab(page, gr.Tab())
    made_run("r")
    for handler, problem in (
        (lambda: tab.ask(request(), " ", None, **on_page()), "Type a question first"),
        (lambda: tab.regenerate(request(), [], **on_page()), "no answer to make again"),
        (lambda: tab.act(request(), pick("edit:0"), **on_page()), "reload the page"),
        (lambda: tab.ask(request(), "x", None, **on_page(talks={"r": {"now": 1}})), "can't be read"),
    ):
        with pytest.raises(UserError, match=problem):
            last(handler())
    assert tab.take_prompt([{"text": "Hm?", "system": ""}], pick("0")) == {tab.text: "Hm?"}
    for wrong in ("1", "-1", "x", None):
        with pytest.raises(UserError, match="reload the page"):
            tab.take_prompt([{"text": "Hm?", "system": ""}], pick(wrong))


def on_page(run_name: str = "r", beside: list[str] | None = None, talks: Any = None, **changed: Any) -> dict[str, Any]:
    """What the chat's fields hold."""
    fields = {"run_name": run_name, "beside": beside, "talks": talks, "system": "", "as_trained": True, "wording": None}
    return fields | asdict(GenerateConfig(max_new_tokens=4)) | changed


def test_each_run_is_asked_in_its_own_wording(page: Page) -> None:
    for name, instruction in (("first", "A: {text}"), ("second", "B: {text}"), ("pairs", "Say.\n1: {text}\n2: {pair}")):
        run = made_run(name)
        config = run.config()
        files.write_json(run.path / "config.json", {**config, "data": {**config["data"], "instruction": instruction}})
    tab = ChatTab(page, gr.Tab())
    setup = tab.setup(request(), **on_page("first", ["second", "pairs"]))
    assert setup.asked("hi") == ({"": "A: hi", "first": "A: hi", "second": "B: hi"}, ["pairs"])
    assert "pairs was asked your text as it stands" in tab.bare(["pairs"], setup) and "1: … ⏎ 2: …" in tab.bare(
        ["pairs"], setup
    )
    assert tab.setup(request(), **on_page("first", as_trained=False)).asked("hi") == ({}, [])
    assert question(runs.named("pairs"), "1: a\n2: b") == "Say.\n1: a\n2: b"
    with pytest.raises(UserError, match="several parts"):
        question(runs.named("pairs"), "hi")


def test_a_conversation_goes_on_is_edited_and_taken_back(page: Page, tiny: str, labelled: str) -> None:
    train(TrainConfig(data=labelled, model=tiny, name="r", epochs=0.1, max_examples=16))
    chat = ChatTab(page, gr.Tab())
    row = chat_prompts.example_prompts(runs.named("r"))[0]["text"]
    first, *_, ended = each(chat.ask(request(), row, None, **on_page()))
    assert first[chat.text] == "" and first[chat.stop]["visible"] and ended[chat.send]["visible"]
    talk = ended[chat.talks]
    (turn,) = talk["r"]["now"]["turns"]
    assert turn["text"] == row and turn["asked"]["r"].endswith("Answer with the label only.\n\n" + row)
    assert turn["expected"] in ("good", "bad") and {turn["answers"][name]["right"] for name in ("", "r")} <= {
        True,
        False,
    }
    assert f'<div class="says user">{row}</div>' in ended[chat.now] and turn["expected"] in ended[chat.now]
    bare = last(chat.ask(request(), "the film was good", None, **on_page(talks=talk, as_trained=False)))
    assert [turn["asked"] for turn in bare[chat.talks]["r"]["now"]["turns"]][1] == {} and row in bare[chat.past]

    edited = last(chat.ask(request(), "the film was bad", 0, **on_page(talks=bare[chat.talks])))
    assert [turn["text"] for turn in edited[chat.talks]["r"]["now"]["turns"]] == ["the film was bad"]
    back = chat.take_back(request(), **on_page(talks=edited[chat.talks]))
    assert back[chat.talks]["r"]["now"] == bare[chat.talks]["r"]["now"]
    shown = chat.refresh("r", back[chat.talks], request())
    assert row in shown[chat.past] and "the film was good" in shown[chat.now], "a reload finds it again"
    assert chat.refresh("r", {}, request())[chat.now] == chat.start_over(request(), **on_page(talks=talk))[chat.now]

    same = last(chat.regenerate(request(), [], **on_page(talks=talk)))
    assert "the same" in same[chat.note] and same[chat.warmer]["visible"] and chat.talks not in same
    again = last(chat.act(request(), pick("again:r"), **on_page(talks=talk, temperature=0.5)))
    (other,) = again[chat.talks]["r"]["now"]["turns"]
    assert other["answers"][""] == turn["answers"][""] and other["answers"]["r"]["seed"] == GenerateConfig().seed + 1
    assert again[chat.settings["seed"]] == GenerateConfig().seed + 1

    # The same run in the vote, and why it answers so.
    vote = VoteTab(page, gr.Tab())
    asked = last(vote.prompt.ask_both("r", "the film was bad and sad", "ann", request()))
    assert "film was bad" in asked[vote.view] or say("en", "typed_same") in asked[vote.view]
    assert asked[vote.prompt.ask]["visible"] and not asked[vote.prompt.stop]["visible"]

    add_evaluation(runs.named("r"))
    view = OutputsView(page, gr.HTML())
    assert "toks" in asyncio.run(view.explain(request(), "r", "accuracy", 0, "tuned"))[view.reason]


# Vote


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


# Runs


def test_a_run_is_picked_compared_and_deleted(page: Page) -> None:
    tab = RunsTab(page, gr.Tab())
    for name in ("one", "two", "three", "four"):
        made_run(name)
    made_run("bad", "failed")
    shown = tab.pick(pick("one"), request())
    assert shown[tab.focus] == shown[page.run] == "one" and shown[tab.to_evaluate]["visible"]
    assert page.run not in tab.pick(pick("bad"), request(), run_name="one"), "it has no model to be chosen for"
    shown = tab.delete_run(request(), focus="one", run_name="one")
    assert shown[page.run] == work.newest_ready() != "one" and not (runs.home() / "runs" / "one").exists()
    assert (
        shown[tab.trash.undo_row]["visible"]
        and 'data-pick="one"' not in shown[tab.table]
        and "one" in shown[tab.trash.note]
    )
    shown = tab.undo_delete(request(), shown[tab.trash.deleted], run_name="two")
    assert shown[tab.focus] == "one" and page.run not in shown and not shown[tab.trash.undo_row]["visible"]
    assert tab.list_more(request(), search="t", shown=1)[tab.shown] > 25
