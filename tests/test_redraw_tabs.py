"""What each tab draws anew when the language is switched, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.errors import UserError
from sftdemo.ui import data_reader, work
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import evaluate as evaluate_module
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.evaluate import EvaluateTab
from sftdemo.ui.tabs.train import TrainTab
from sftdemo.ui.tabs.vote import VoteTab
from sftdemo.ui.texts import say
from tests.test_data_handlers import form_of
from tests.test_tabs import last, request
from tests.test_ui import made_run
from tests.test_votes import make_run
from tests.test_voting_tab import MARKS

pytestmark = pytest.mark.slow


def chinese() -> Any:
    asked = request()
    asked.cookies = {"sftdemo_lang": "zh"}
    return asked


def test_a_vote_speaks_of_no_pair_and_of_a_told_one_too(page: Page) -> None:
    tab, run = VoteTab(page, gr.Tab()), make_run(1)
    empty = made_run("empty").name
    state = tab.refresh(empty, "rows", "ann", request())[tab.state]
    spoken = tab.speak(empty, "rows", state, "ann", chinese())
    assert say("zh", "vote_waits") in spoken[tab.view] and spoken[tab.gate] == ""
    labels = made_run("labels", task="classification").name
    state = tab.refresh(labels, "rows", "ann", request())[tab.state]
    gate = tab.speak(labels, "rows", state, "ann", chinese())[tab.gate]
    assert "无需投票" in gate and 'data-go="evaluate"' in gate
    state = tab.refresh(run.name, "rows", "ann", request())[tab.state]
    assert say("zh", "vote_place", n=1, total=1) in tab.speak(run.name, "rows", state, "ann", chinese())[tab.view]
    assert say("zh", "wait_run") in tab.speak("", "rows", state, "ann", chinese())[tab.gate], "the run was deleted"
    told = last(tab.vote("a", run.name, "rows", state, "ann", request(), [], "", **MARKS))[tab.state]
    spoken = tab.speak(run.name, "rows", told, "ann", chinese())
    assert set(spoken) == {tab.view, tab.form.outcome, tab.form.keys}
    assert say("zh", "vote_place", n=1, total=1) in spoken[tab.view] and "你选的是" in spoken[tab.form.outcome]
    ended = last(tab.proceed(run.name, "rows", told, "ann", request()))[tab.state]
    assert say("zh", "vote_done") in tab.speak(run.name, "rows", ended, "ann", chinese())[tab.view]
    assert tab.view not in tab.speak(empty, "typed", {}, "ann", chinese()), "which may just be answered"


def test_train_says_what_is_wrong_instead_of_the_plan_and_shows_no_other_run(page: Page) -> None:
    tab, chosen = TrainTab(page), {"data": "support_tickets"}
    settings = {name: field.value for name, field in tab.fields.items()}
    drawn: dict[Any, Any] = {}
    for update in tab.describe_again(chinese(), chosen, **settings | {"epochs": -1}):
        drawn |= update
    assert "-1" in drawn[tab.plan] and "Epochs" in drawn[tab.plan] and drawn[tab.command] == drawn[tab.fault] == ""
    kinds = dict(drawn[tab.fields["task"]]["choices"])
    assert kinds[say("zh", "choice_task_chat")] == "chat"
    made_run("busy", "running")
    again = tab.show_again("", chinese())
    assert again[tab.view] == "" and "busy" not in str(again[tab.watched])
    assert "busy" in tab.show_again("busy", chinese())[tab.view]


def test_data_is_drawn_as_it_was_read_whatever_the_fields_hold(
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tab = DataTab(page)
    looked = next(tab.apply(request(), {"data": "support_tickets"}, 1, **form_of(tab, test_size="7")))[tab.looked]
    assert looked["read"]["test_size"] == 7
    dropped: list[Any] = []
    monkeypatch.setattr(data_reader, "drop_others", dropped.append)
    preparing = {name: field.value for name, field in page.preparing.items()}
    for length in (preparing["max_length"], "abc"):
        drawn: dict[Any, Any] = {}
        wrong = pytest.raises(UserError, match="max_length") if length == "abc" else nullcontext()
        with wrong:
            for update in tab.draw_again(chinese(), looked, 1, **preparing | {"max_length": length}):
                drawn |= update
        assert "没有重复行" in drawn[tab.statistics]
        assert drawn[tab.to_train]["value"] == say("zh", "data_go"), "Gradio translates no button that was hidden"
    assert not dropped, "an upload that is being read meanwhile is read on"


def test_a_new_row_is_labelled_in_the_language_of_the_page(page: Page) -> None:
    tab = DataTab(page)
    looked = next(tab.apply(request(), {"data": "support_tickets"}, 1, **form_of(tab)))[tab.looked]
    asked = {"show": "all", "of_label": "", "search": "", "run_name": None}
    shown = tab.rows.list_again(chinese(), looked, 0, "drawn", [], 0, **asked)
    assert shown[tab.rows.text]["label"] == say("zh", "column_answer")


def test_the_progress_of_an_evaluation_is_drawn_by_the_tick_alone(
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tab = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State(""))
    run = made_run("r")

    class Running(work.Evaluation):
        active = True

    running = Running(run, EvaluateConfig(), 2)

    def follow(*_: Any) -> Iterator[work.Evaluation]:
        yield from [running] * 3

    monkeypatch.setattr(evaluate_module, "follow", follow)
    _, first, *others, end = tab.evaluate("r", 2, False, [], request())
    assert first[tab.progress] and end[tab.progress] == "" and len(others) == 2
    assert not any(tab.progress in update for update in others)
    assert tab.draw_again("r", chinese())[tab.progress] == gr.skip(), "a fault there stays"
    monkeypatch.setattr(work, "_evaluation", running)
    assert say("zh", "evaluate_running") in tab.draw_again("r", chinese())[tab.progress]
