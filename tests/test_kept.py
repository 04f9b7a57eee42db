"""What the browser keeps of a page is put back when it is loaded again, checked as anything that a browser sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo.config import EvaluateConfig
from sftdemo.errors import UserError
from sftdemo.ui import chosen_data, work
from sftdemo.ui.parts import browser_store
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.evaluate import EvaluateTab
from sftdemo.ui.tabs.train import TrainTab
from sftdemo.ui.texts import say
from tests import encoders
from tests.test_data_handlers import form_of
from tests.test_tabs import last, request
from tests.test_ui import made_run

pytestmark = pytest.mark.slow


def odd_file(folder: Path) -> Path:
    path = folder / "odd.csv"
    rows = [f"number {number} it is,{'ab'[number % 2]}" for number in range(60)]
    path.write_text("\n".join(["remark,mood", *rows]) + "\n", encoding="utf-8")
    return path


def test_data_columns_and_settings_come_back(page: Page, tmp_path: Path) -> None:
    tab, path = DataTab(page), odd_file(tmp_path)
    form = form_of(tab, clean=["whitespace"], validation_size="7", instruction="Which mood? {remark}", max_length=77)
    looked = {"data": str(path)}
    kept = last(tab.pick_pair(request(), looked, 1, "remark", "mood", **form))[tab.kept]
    shown = last(tab.open_page(request(), kept))
    assert shown[page.data]["data"] == str(path) and "remark" in shown[page.data]["columns"]
    assert shown[tab.choices["validation_size"]] == "7" and shown[tab.steps] == ["whitespace"]
    assert shown[tab.wording["instruction"]]["value"] == "Which mood? {remark}"
    assert shown[page.preparing["max_length"]] == 77 and "odd.csv" in shown[tab.chosen_name]
    assert str(tmp_path) not in shown[tab.chosen_name] and not shown.get(tab.fault)
    path.unlink()
    shown = last(tab.open_page(request(), kept))
    assert shown[page.data]["data"] == "support_tickets"
    assert "t here any more: There is no file" in shown[tab.fault]


@pytest.mark.parametrize(
    "kept", [None, "", "[" * 100_000, '{"data": ["x"]}', '{"data": 7, "x": {}}', '"x"', "[1]", "\ud83d", 7]
)
def test_what_a_browser_sends_is_no_more_than_a_wish(page: Page, kept: Any) -> None:
    shown = last(DataTab(page).open_page(request(), kept))
    assert shown[page.data]["data"] == "support_tickets"


def test_values_are_those_that_were_asked_for() -> None:
    text = json.dumps({"data": "a", "evil": 1})
    assert browser_store.values(text, ("data", "columns")) == {"data": "a"}
    assert browser_store.values(" " * browser_store.MOST_CHARACTERS + text, ("data",)) == {}


def test_the_run_that_was_shown_comes_back_and_an_unknown_model_is_said(page: Page) -> None:
    DataTab(page)
    tab = TrainTab(page)
    run = made_run("done", "finished")
    assert tab.show_run("done", "en")[tab.kept] == "done"
    shown = tab.open_page(request(), "done")
    assert shown[tab.watched] == "done" and "train-done" in shown[tab.view]
    for name in ("gone", "../done", "\0", "x" * 5000):
        assert tab.open_page(request(), name)[tab.watched] == ""
    (run.path / "status.json").write_text("[")
    assert tab.open_page(request(), "done")[tab.watched] == ""
    settings = {name: field.value for name, field in tab.fields.items()}
    shown = tab.describe(request(), {"data": "support_tickets"}, **settings | {"model": "nope"})
    assert "There is no model" in shown[tab.plan] and not shown[tab.start]["interactive"]
    shown = tab.describe(request(), {"data": "support_tickets"}, **settings | {"model": "nope/nope"})
    assert say("en", "plan_fetch") in shown[tab.plan] and "about" not in shown[tab.plan], "nothing is known of it"
    with pytest.raises(UserError, match="The Hub did not give 'nope/nope'"):
        tab.fine_tune(request(), {"data": "support_tickets"}, **settings | {"model": "nope/nope"})


def test_another_kind_of_model_is_said_by_the_plan_or_no_plan_is_left(page: Page, tmp_path: Path) -> None:
    tab = TrainTab(page)
    settings = {name: field.value for name, field in tab.fields.items()} | {"task": "classification"}
    live = tab.follow_form(request(), {"data": "support_tickets"}, **settings)
    assert say("en", "plan_none") in next(live)[tab.plan], "the default model can't be that"
    with pytest.raises(UserError, match="needs a model of its own"):
        next(live)
    settings["model"] = encoders.make("bert", tmp_path / "bert")
    (shown,) = tab.follow_form(request(), {"data": "support_tickets"}, **settings)
    assert "· a label for a text ·" in shown[tab.plan]


def test_the_plan_tells_the_rows_that_the_model_cannot_learn(page: Page, tiny: str, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    rows = [[{"role": "user", "content": f"hello {k}"}, {"role": "assistant", "content": "hi"}] for k in range(30)]
    rows += [[{"role": "user", "content": f"find {k}"}, {"role": "assistant", "tool_calls": [call]}] for k in range(3)]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows), encoding="utf-8")
    chosen = {"data": str(path), "on_fault": "drop"}
    tab = TrainTab(page)
    settings = {name: field.value for name, field in tab.fields.items()} | {"model": tiny}
    assert "rows looked at" not in tab.describe(request(), chosen, **settings)[tab.plan], "no tokenizer is at hand"
    assert chosen_data.have_tokenizer(tiny)
    shown = tab.describe(request(), chosen, **settings)[tab.plan]
    assert "This model can&#x27;t learn 3 of 33 rows looked at. 3 of them: The model&#x27;s chat template" in shown
    with_fewer = tab.describe(request(), chosen, **settings | {"epochs": 1})[tab.plan]
    assert "rows looked at" in with_fewer


def test_an_unknown_model_is_said_with_the_data(page: Page) -> None:
    tab = DataTab(page)
    for model, words in (("nope", "There is no model 'nope'"), ("nope/nope", "The Hub did not give 'nope/nope'")):
        with pytest.raises(UserError, match=words):
            tab.look_at_row(request(), {"data": "support_tickets"}, 1, **form_of(tab, model=model))


def test_not_measured_yet_goes_while_it_is_measured(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    tab = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State(""))
    run = made_run("r")

    class Running(work.Evaluation):
        active = True

    monkeypatch.setattr(work, "_evaluation", Running(run, EvaluateConfig(), 2))
    assert tab.refresh("r", request())[tab.claim] == "" == tab.tick("r", False, request())[tab.claim]
    made_run("other")
    assert say("en", "evaluate_empty") in tab.refresh("other", request())[tab.claim]
    assert tab.claim not in tab.tick("other", False, request())


def test_work_that_ends_before_a_page_ticks_is_shown_to_its_end(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, train = EvaluateTab(page, gr.Tab(), gr.Button(), gr.State("")), TrainTab(page)
    run = made_run("r")
    current = work.Evaluation(run, EvaluateConfig(), 2)
    monkeypatch.setattr(work, "_evaluation", current)
    monkeypatch.setattr(work.Evaluation, "active", property(lambda job: not job.error))
    loaded = tab.refresh("r", request())
    assert loaded[tab.progress] and loaded[page.timer]["active"], "the bar may have looked before it began"
    current.error = "Stopped."
    shown = tab.tick("r", loaded[tab.watching], request())
    assert "Stopped." in shown[tab.progress] and shown[tab.start]["visible"]
    made_run("busy", "running")
    assert train.show_run("busy", "en")[page.timer]["active"] and page.timer not in train.show_run("r", "en")
