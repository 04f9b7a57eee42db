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
from sftdemo.ui import models, work
from sftdemo.ui.access import rights
from sftdemo.ui.parts.page import Header, Page, brand
from sftdemo.ui.parts.stopping import SessionStop
from sftdemo.ui.tabs import chat_prompts
from sftdemo.ui.tabs.chat import ChatTab
from sftdemo.ui.tabs.evaluate import EvaluateTab
from sftdemo.ui.tabs.exchange import question
from sftdemo.ui.tabs.outputs import OutputsView
from sftdemo.ui.tabs.rate import RatePage
from sftdemo.ui.tabs.runs import RunsTab
from sftdemo.ui.tabs.train import TrainTab
from sftdemo.ui.tabs.vote import VoteTab
from sftdemo.ui.texts import say
from tests.in_process import owners_request
from tests.test_ui import add_evaluation, made_run
from tests.test_votes import make_run


def request(session: str = "s1", **query: str) -> SimpleNamespace:
    return owners_request(session, **query)


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


def test_no_handler_waits_for_the_input_of_a_text(built_page: Any) -> None:
    """That event carries the text before it: what is pasted at once would never be heard of."""
    texts = {number for number, part in built_page.blocks.items() if isinstance(part, gr.Textbox)}
    asked = {
        fn.name for fn in built_page.fns.values() for part, event in fn.targets if part in texts and event == "input"
    }
    assert texts and not asked


def test_every_handler_takes_what_it_is_wired_to(built_page: Any) -> None:
    """Names of inputs are parameters of the handler, and Gradio finds the request and the event by their hints."""
    checked = 0
    for fn in built_page.fns.values():
        if fn.fn is None or fn.name == "draw_all":  # which looks at its handlers itself
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
    assert shown[page.run] == "ready" and shown[header.work]["visible"] is False
    made_run("busy", "running")
    shown = header.refresh_bar(request())
    assert "busy" in shown[header.bars["train"][1]] and shown[header.work]["visible"] is True


def test_runs_shows_the_run_that_the_address_asks_for_whether_it_has_a_model_or_not(page: Page) -> None:
    made_run("ready")
    made_run("lost").write_status("failed", error="Out of luck.")
    header, tab = Header(page), RunsTab(page, gr.Tab())
    shown = header.open_page(request(tab="runs", run="lost"))
    assert (shown[header.fault], shown[page.run], shown[page.picked]) == ("", "ready", "lost")
    assert "Out of luck." in tab.open_tab(request(), "", focus="lost")[tab.info]
    assert tab.info not in tab.open_tab(request(), "seen", focus="lost"), "what was typed of its notes stays"
    for other in ({"tab": "chat", "run": "lost"}, {"tab": "runs", "run": "nowhere"}):
        shown = header.open_page(request(**other))
        assert "asks for run" in shown[header.fault] and "不存在" in shown[header.fault] and not shown[page.picked]


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
    shown = tab.open_tab("r", "?tab=evaluate&run=r&row=1", request())  # of an older link, counted from 0
    assert shown[tab.outputs.open_number] == 1 and shown[tab.outputs.opened]
    shown = tab.open_tab("r", "?tab=evaluate&run=r&answer=2", request())
    assert shown[tab.outputs.open_number] == 1 and "Row 2" in shown[tab.outputs.opened], "the page counts from 1"
    assert tab.open_tab("other", "?tab=evaluate&run=r&row=1", request())[tab.outputs.open_number] is None
    assert tab.follow_address("r", "?tab=vote&run=r&row=1", request()) == {}, "who votes there sees no answers"
    with pytest.raises(UserError, match="That row"):
        tab.open_tab("r", "?run=r&row=99", request())
    with pytest.raises(UserError, match="That row"):
        tab.open_tab("r", "?run=r&answer=" + "9" * 1_900, request())


def test_the_raters_page_takes_the_run_of_its_link() -> None:
    with gr.Blocks() as blocks:
        rate = RatePage(blocks)
    made_run("newest")
    made_run("asked")
    assert rate.open_page(request(run="asked"))[rate.page.run] == "asked"
    make_run(30, name="words")
    assert "31 pairs, about 6\xa0min" in rate.open_page(request(run="words"))[rate.instruction]
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


# Train


def test_the_plan_follows_the_form_and_a_run_is_watched(page: Page) -> None:
    tab = TrainTab(page)
    settings = {name: field.value for name, field in tab.fields.items()}
    waiting = tab.describe(request(), {}, **settings)
    assert say("en", "wait_data") in waiting[tab.plan] and not waiting[tab.start]["interactive"]
    assert say("en", "wait_mend") in unescape(tab.describe(request(), {}, "guests.csv", **settings)[tab.plan])
    shown = tab.describe(request(), {"data": "support_tickets"}, **settings | {"epochs": 3})
    assert (
        "· support_tickets ·" in shown[tab.plan]
        and "3 epochs" in shown[tab.plan]
        and "--epochs 3" in shown[tab.command]
    )
    assert re.search(r"each takes: Quick look \d[^·.]+ · Balanced \d[^·.]+ · Thorough \d[^·.]+\.", shown[tab.plan])
    ended = tab.describe(request(), {"data": "support_tickets"}, **settings | {"max_steps": 5})[tab.plan]
    assert "Quick look" not in ended, "they all take as long"
    beside = tab.describe(request(), {"data": "support_tickets"}, "guests.csv", **settings)[tab.plan]
    assert "guests.csv on Data can" in beside and "this plan is for support_tickets" in beside
    assert "guests.csv" not in shown[tab.plan]
    saved = re.search(r'href="data:application/yaml;base64,([^"]+)" download', shown[tab.command])
    assert saved and "epochs: 3.0\n" in base64.b64decode(saved[1]).decode()
    with pytest.raises(UserError, match="epochs is -1"):
        tab.describe(request(), {"data": "support_tickets"}, **settings | {"epochs": -1})
    idle = tab.tick("", "", "", request())
    assert idle[tab.view] == idle[tab.queue] == "" and page.run not in idle
    run = made_run("busy", "running")
    shown = tab.open_page(request())
    assert shown[tab.watched] == "busy" and not shown[tab.evaluate]["visible"]
    assert page.run not in tab.tick("busy", "busy", "", request())
    assert tab.tick("busy", "busy", "", request(), "?tab=chat") == {}, "nothing is drawn out of sight"
    bar = Header(page)
    row, lines, button = bar.bars["train"]
    shown = bar.refresh_bar(request())
    assert shown[row]["visible"] and shown[button]["visible"] and not shown[bar.bars["evaluate"][0]]["visible"]
    shown = bar.stop_training(request())
    assert say("en", "work_stopping") in shown[lines] and not shown[button]["visible"], "it is asked already"
    assert say("en", "train_stopping") in tab.tick("busy", "busy", "", request())[tab.view]
    assert [item.state for item in work.running()] == ["stopping"] and run.status()["state"] == "running"
    run.write_status("finished", step=4, total=4)
    assert page.run not in tab.tick("busy", "", "chosen", request()), "it was started on another page"
    for search in ("?tab=chat", "?tab=train"):
        assert tab.tick("busy", "busy", "chosen", request(), search)[page.run] == "busy"
    shown = tab.tick("busy", "", "", request())
    assert shown[page.run] == "busy" and shown[tab.evaluate]["visible"]
    assert shown[tab.start]["value"].key == "train_again"


def test_a_link_to_train_shows_the_run_that_it_names(page: Page) -> None:
    tab, visitor = TrainTab(page), request(tab="train", run="first")
    visitor.scope = {rights.IN_SCOPE: rights.Visitor("visitor", "ann", address="198.41.0.4")}
    made_run("first")
    made_run("last", "failed")
    assert tab.open_page(request(tab="train", run="first"))[tab.watched] == "first"
    assert tab.open_page(request(tab="train", run="last"))[tab.watched] == "last", "why it failed is what a link is for"
    assert tab.open_page(request(tab="chat", run="first"))[tab.watched] == ""
    assert tab.open_page(request(tab="train", run="../first"))[tab.watched] == ""
    assert tab.open_page(request(tab="train", run="first"), "last")[tab.watched] == "last", (
        "what this page showed before"
    )
    assert tab.open_page(visitor)[tab.watched] == "", "another's training"


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


def test_a_run_that_labels_texts_is_not_asked_what_it_forgot(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    tab = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State(""))
    made_run("chats")
    made_run("labels", task="classification", model="m")
    assert tab.refresh("chats", request())[tab.ask_general]["visible"]
    shown = tab.refresh("labels", request())[tab.ask_general]
    assert (shown["visible"], shown["value"]) == (False, False)
    asked: list[bool] = []
    monkeypatch.setattr(tab, "evaluate", lambda run, rows, general, *more: asked.append(general) or iter(()))
    for name in ("chats", "labels"):
        list(tab.evaluate_trained(name, True, request()))
    assert asked == [True, False], "a tick that was set for the run chosen before"


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
    assert tab.take_prompt([{"text": "Hm?", "system": ""}], pick("0")) == {tab.offer: "Hm?"}
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


def test_the_held_out_rows_are_read_once_and_not_at_each_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thirty who chat that took a tenth of the page's time."""
    run, read = made_run("asked"), []
    path = run.path / "data" / "test.jsonl"

    def hold_out(*rows: tuple[str, str]) -> None:
        said = [[{"role": "user", "content": asked}, {"role": "assistant", "content": told}] for asked, told in rows]
        files.write_jsonl(path, [{"messages": messages, "label": "x"} for messages in said])

    jsonl = runs.Run._jsonl
    monkeypatch.setattr(runs.Run, "_jsonl", lambda self, *given: read.append(given) or jsonl(self, *given))
    hold_out(("one?", "first"), ("two?", "2"), ("one?", "second"))
    for _ in range(3):
        assert chat_prompts.expected_row(run, "one?")["references"] == ["first"]
        assert chat_prompts.expected_row(run, "three?") is None
        assert [prompt["text"] for prompt in chat_prompts.example_prompts(run)] == ["one?", "two?"]
    assert len(read) == 1
    monkeypatch.setattr(chat_prompts, "MOST_BYTES", 1)
    assert [chat_prompts.expected_row(run, "two?")["references"] for _ in range(2)] == [["2"], ["2"]]
    assert len(read) == 3, "what is large isn't kept"
    monkeypatch.setattr(chat_prompts, "MOST_BYTES", 2**20)
    hold_out(("three?", "3"))
    assert chat_prompts.expected_row(run, "three?")["references"] == ["3"] and len(read) == 4
    path.write_text('{"messages": 7}\n')
    for _ in range(2):
        with pytest.raises(runs.DamagedRun):
            chat_prompts.expected_row(run, "three?")


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


def test_a_stop_is_heard_while_the_models_wait_to_be_loaded(page: Page) -> None:
    models.load_libraries()
    from sftdemo.inference.server import MODELS

    made_run("r")
    chat, vote = ChatTab(page, gr.Tab()), VoteTab(page, gr.Tab())

    async def stopped(updates: AsyncIterator[dict[Any, Any]], stopping: SessionStop) -> dict[Any, Any]:
        await anext(updates)
        stopping.ask(request())
        return [update async for update in updates][-1]

    async def both() -> list[dict[Any, Any]]:
        asked = chat.ask(request(), "hi", None, **on_page())
        typed = vote.prompt.ask_both("r", "hi", "ann", request())
        stops = stopped(asked, chat.stopping), stopped(typed, vote.prompt.stopping)
        return [await asyncio.wait_for(stop, 60) for stop in stops]

    with MODELS._loading:  # as long as another visitor's models are loaded
        of_chat, of_vote = asyncio.run(both())
    (turn,) = of_chat[chat.talks]["r"]["now"]["turns"]
    assert {answer["finish_reason"] for answer in turn["answers"].values()} == {"stopped"}
    assert of_chat[chat.send]["visible"] and say("en", "chat_stopped") in of_chat[chat.now]
    assert say("en", "typed_stopped") in of_vote[vote.view] and of_vote[vote.prompt.ask]["visible"]


# Vote


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
    assert shown[page.run] == models.newest_ready() != "one" and not (runs.home() / "runs" / "one").exists()
    assert (
        shown[tab.trash.undo_row]["visible"]
        and 'data-pick="one"' not in shown[tab.table]
        and "one" in shown[tab.trash.note]
    )
    shown = tab.undo_delete(request(), shown[tab.trash.deleted], run_name="two")
    assert shown[tab.focus] == "one" and page.run not in shown and not shown[tab.trash.undo_row]["visible"]
    assert tab.list_more(request(), search="t", shown=1)[tab.shown] > 25
