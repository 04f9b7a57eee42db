"""The queue on the page: what waits is listed with place and start, shown, cancelled, gone on with; runs are cloned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.training import turns
from sftdemo.ui import trainings, work
from sftdemo.ui.access import rights
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.clone import Clone
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.queue import act, queue_list
from sftdemo.ui.tabs.runs import RunsTab
from sftdemo.ui.tabs.train import TrainTab
from sftdemo.ui.texts import say
from tests.test_queue import wait_for
from tests.test_tabs import last, pick, request
from tests.test_ui import made_run

pytestmark = pytest.mark.slow

ANN = rights.Visitor("visitor", "ann", address="198.41.0.4")


def queued(name: str, expected_s: float | None = None) -> Run:
    run = runs.create(name, "", {"settings": TrainConfig(data="d").to_json()})
    turns.join(run, expected_s)
    return run


def training(name: str, **values: Any) -> Run:
    run = runs.create(name, "", {"settings": TrainConfig(data="d").to_json()})
    run.write_status("running", step=1, total=9, **values)
    return run


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_queue_says_place_and_start_and_names_nobodys_runs_to_others(lang: str) -> None:
    assert queue_list("", rights.LOCAL, lang) == ""
    first = training("first", eta_s=90)
    assert queue_list("first", rights.LOCAL, lang) == ""
    queued("second", 60.0)
    queued("third")
    queued("fourth")
    shown = queue_list("first", rights.LOCAL, lang)
    for number, start in (
        (1, "1\xa0min\xa030\xa0s" if lang == "en" else "1\xa0分\xa030\xa0秒"),
        (2, "2\xa0min" if lang == "en" else "2\xa0分"),
    ):
        assert f"{say(lang, 'queue_place', n=number)} · " in shown and start in shown, shown
    assert f"{say(lang, 'queue_place', n=3)} · {say(lang, 'queue_unknown')}" in shown
    assert shown.count('data-pick="cancel/') == 3 and 'data-pick="show/first"' not in shown
    rights.started("train third", ANN)
    others = queue_list("", ANN, lang)
    assert "third" in others and "second" not in others and "first" not in others
    assert others.count("data-pick") == 2  # show and cancel its own
    assert [item.name for item in work.running()] == ["first"], "the bar's Stop doesn't empty the queue"
    first.write_status("failed", cut_off=True, error=None)
    assert 'data-pick="resume/first"' in queue_list("", rights.LOCAL, lang) not in queue_list("", ANN, lang)


def test_nobody_shows_cancels_or_resumes_what_others_started() -> None:
    training("first")
    run = queued("second")
    for asked in ("show/second", "cancel/second", "show/first", "cancel/nobody", "cancel/../x", "junk", ""):
        with pytest.raises(UserError, match="Only who started it"):
            act(asked, ANN)
    with pytest.raises(UserError, match="Only the owner"):
        act("resume/second", ANN)
    assert not run.stop_asked and run.state == "queued"
    rights.started("train second", ANN)
    assert act("show/second", ANN) == "second" and act("cancel/second", ANN) == "" and run.stop_asked


def test_fine_tune_while_another_trains_joins_the_queue_and_cancel_leaves_it(page: Page) -> None:
    tab = TrainTab(page)
    settings = {name: field.value for name, field in tab.fields.items()}
    busy = training("busy", eta_s=200)
    shown = tab.open_page(request())
    assert shown[tab.watched] == "busy" and shown[tab.start]["value"].key == "train_add"
    shown = tab.fine_tune(request(), {"data": "support_tickets"}, "busy", **settings | {"name": "mine"})
    mine = runs.named("mine")
    assert shown[tab.watched] == "busy" and tab.started not in shown and "mine" in shown[tab.queue]
    assert runs.waiting() == [mine] and mine.status()["expected_s"] is None
    shown = tab.pick_queued("busy", pick("show/mine"), request())
    assert shown[tab.watched] == shown[tab.started] == "mine"
    assert "place 1, starts in about 3\xa0min" in shown[tab.view] and 'data-pick="cancel/mine"' in shown[tab.queue]
    shown = tab.pick_queued("mine", pick("cancel/mine"), request())
    wait_for(lambda: not mine.path.exists(), "the wait to end")
    shown = tab.tick("mine", "mine", "", request())
    assert shown[tab.watched] == "busy" and shown[tab.queue] == ""
    busy.write_status("finished")
    assert tab.tick("", "", "", request())[tab.start]["value"].key == "train_go"


def test_a_run_that_has_ended_gives_way_to_other_data(page: Page) -> None:
    tab, ended = TrainTab(page), made_run("ended")
    assert tab.turn_to("ended", {"data": "support_tickets"}, request()) == {}, (
        "another run of the same data may be meant"
    )
    shown = tab.turn_to("ended", {"data": "en_fr"}, request())
    assert shown[tab.watched] == shown[tab.kept] == shown[tab.view] == ""
    assert shown[tab.start]["value"].key == "train_go" and not shown[tab.evaluate]["visible"]
    ended.write_status("stopping")
    assert tab.turn_to("ended", {"data": "en_fr"}, request()) == {}, "it is still at work"
    assert tab.turn_to("", {"data": "en_fr"}, request()) == tab.turn_to("gone", {"data": "en_fr"}, request()) == {}


def test_what_a_visitor_queues_is_booked_at_once_and_given_back_where_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainings, "POLL_S", 0.01)
    rights.use(AppConfig(visitors_train=True, visitor_steps=10, visitor_minutes=2), "0.0.0.0")
    try:
        training("busy")
        config = TrainConfig(data="support_tickets", batch_size=8, epochs=2, name="hers")
        run = trainings.start_training(config, ANN, 32)
        with pytest.raises(UserError, match="takes 8 training steps, and a visitor has 10 an hour"):
            trainings.start_training(replace(config, name="more"), ANN, 32)
        assert runs.waiting() == [run]
        with rights.for_owner():  # who may see the run; an event has that from its request
            act("cancel/hers", ANN)
        wait_for(lambda: not run.path.exists(), "the wait to end")

        def given_back() -> bool:
            ledger, limit = rights.ledger(), trainings.allowance.limits(ANN, "steps")[0]
            return ledger._level("steps", limit) > 9.9

        wait_for(given_back, "the steps")
    finally:
        rights.use(AppConfig(), "127.0.0.1")


def test_a_clone_fills_the_forms_and_reads_the_runs_data(page: Page, tmp_path: Any) -> None:
    data, train, listed = DataTab(page), TrainTab(page), RunsTab(page, gr.Tab())
    clone = Clone(page, data, train, listed)
    config = TrainConfig(
        data="support_tickets", name="old", epochs=3.0, learning_rate=3e-4, lora_r=8, clean="html,leaks"
    )
    runs.create("old", "", {"settings": config.to_json()})
    assert listed.show_run(runs.named("old"), request())[listed.clone]["visible"]
    shown = last(clone.clone("old", request()))
    form = {name: shown[field] for name, field in train.fields.items()} | {"task": shown[train.fields["task"]]["value"]}
    assert form["name"] == "" and shown[page.tabs].selected == "train"
    assert (form["epochs"], form["learning_rate"], form["lora_r"]) == (3.0, 3e-4, 8)
    assert shown[data.looked] == {"data": "support_tickets", "columns": "", "edits": ""}
    assert shown[data.steps] == ["html", "leaks"] and shown[page.preparing["model"]] == config.model
    read = {name: shown[field] for name, field in {**page.preparing, **data.settings}.items()}
    chosen = last(data.apply(request(), shown[data.looked], 1, **read))[page.data]
    again = train.describe(request(), chosen, **form)
    assert "--epochs 3.0 " in again[train.command] and "--clean html,leaks" in again[train.command]
    shown = clone.other_data("old", request())
    assert shown[page.tabs].selected == "data" and shown[train.fields["lora_r"]] == 8 and data.looked not in shown
    tokens, menu = replace(config, task="tokens"), train.fields["task"]
    narrowed = gr.Dropdown(**menu.constructor_args | {"choices": again[menu]["choices"], "render": False})
    with pytest.raises(gr.Error, match="not in the list"):
        narrowed.preprocess("tokens")
    filled = clone.fill(tokens, "en")[menu]
    widened = gr.Dropdown(**narrowed.constructor_args | {"choices": filled["choices"]})
    assert widened.preprocess(filled["value"]) == "tokens"
    gone = replace(config, data=str(tmp_path / "gone.csv"))
    runs.create("lost", "", {"settings": gone.to_json()})
    assert last(clone.clone("lost", request()))[page.tabs].selected == "data"
    runs.create("imported", "", {"settings": TrainConfig(method="full").to_json()})  # its data stayed elsewhere
    shown = last(clone.clone("imported", request()))
    assert shown[page.tabs].selected == "data" and shown[data.looked]["data"] == ""
    assert shown[train.fields["method"]] == "full"
