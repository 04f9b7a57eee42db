"""A sweep on the page: what was tried as sentence, picture and table, in both languages; the form for the owner alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from conftest import label_rows

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.config.sweep import SweepConfig
from sftdemo.errors import UsageError
from sftdemo.runs import Run, sweep_record
from sftdemo.runs.sweep_record import Sweep
from sftdemo.ui.parts.page import Page
from sftdemo.ui.parts.parallel_plot import Axis, Thread, parallel_plot
from sftdemo.ui.tabs.runs import details
from sftdemo.ui.tabs.sweep_view import tried
from sftdemo.ui.tabs.train import TrainTab
from sftdemo.ui.tabs.train_view import live
from sftdemo.ui.texts import say
from sftdemo.verbs.sweep import new
from tests.test_tabs import request


@pytest.fixture
def page() -> Iterator[Page]:
    with gr.Blocks() as blocks:
        yield Page(blocks, run=gr.State(None), data=gr.State({}), timer=gr.Timer(active=False), tabs=gr.Tabs())


def swept(method: str = "lora", name: str = "s") -> Run:
    """A sweep of four trials, the second the best; nothing is trained."""
    tried = SweepConfig(9, "1e-4,1e-3", "4,8" if method == "lora" else None, "1" if method == "lora" else "1,2")
    run = new(TrainConfig(data="d", name=name, method=method), tried)
    record: Sweep = sweep_record.read(run)  # type: ignore[assignment]
    record |= {"rungs": [{"share": 0.25, "trials": 3}, {"share": 0.5, "trials": 2}], "chosen": 2, "search_s": 90.0}
    for trial, ended, losses in zip(
        record["trials"],
        ("beaten", "chosen", "diverged", "not_tried"),
        ([0.5, 0.4], [0.45, 0.3], [None], []),
        strict=True,
    ):
        trial |= {"ended": ended, "steps": 40, "seconds": 7.0, "curve": [[1, 0.9], [2, 0.7]]}  # type: ignore[typeddict-item]
        trial["measured"] = [
            {"share": share, "step": round(40 * share), "eval_loss": loss}
            for share, loss in zip((0.25, 0.5), losses, strict=False)
        ]
    sweep_record.write(run, record)
    return run


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_trial_is_told_with_its_settings_loss_and_end(lang: str) -> None:
    run = swept()
    shown = tried(run, lang)
    for ended in ("beaten", "chosen", "diverged", "not_tried"):
        assert say(lang, f"sweep_{ended}") in shown
    assert "0.3000" in shown and "20 / 40" in shown and "25\xa0%" in shown and shown.count("<tr>") == 5
    assert shown.index("0.3000") < shown.index("0.4000") and shown.count('<path class="l1 best"') == 1
    run.write_status("stopped", step=0, total=0)
    assert shown in details(run, lang) and say(lang, "sweep_tried") in live(run, lang)
    assert tried(runs.create("plain", "", {"settings": TrainConfig(data="d").to_json()}), lang) == ""


def test_full_tuning_has_no_rank_and_a_sweep_without_a_plan_says_that() -> None:
    assert say("en", "sweep_rank") not in parallel_part(tried(swept("full"), "en"))
    run = new(TrainConfig(data="d", name="begun"), SweepConfig(minutes=7))
    assert say("en", "sweep_measuring", minutes="7") in tried(run, "en") and "<svg" not in tried(run, "en")


@pytest.mark.parametrize("content", ["{", '{"trials": 3}', "[]"])
def test_a_damaged_record_is_a_line_and_the_rest_is_shown(content: str) -> None:
    run = swept()
    run.write_status("stopped", step=0, total=0)
    (run.path / "sweep.json").write_text(content, encoding="utf-8")
    for shown in (live(run, "en"), details(run, "en")):
        assert "sweep.json" in shown and "learning_rate" not in tried(run, "en")


def parallel_part(shown: str) -> str:
    return shown[shown.index('<svg class="chart lines parallel"') : shown.index("</svg>")]


def test_a_parallel_plot_has_a_line_each_and_spreads_settings_evenly() -> None:
    axes = [Axis("rate", evenly=True), Axis("loss")]
    threads = [Thread("a<b", (1e-5, 1.0)), Thread("b", (1e-3, 3.0), "best"), Thread("c", (1e-2, None))]
    plot = parallel_plot("what", axes, threads, "f", "en")
    # The lowest stands at the bottom, the middle one of three in the middle, and the best is drawn last.
    paths = [part.split('"')[0] for part in parallel_part(plot).split(' d="')[1:]]
    assert paths == ["M44.0,200.0 L716.0,200.0", "M44.0,8.0", "M44.0,104.0 L716.0,8.0"]
    assert "a&lt;b" in plot and "a<b" not in plot
    assert parallel_plot("what", axes, [], "f", "en") == ""
    alone = parallel_plot("what", axes, [Thread("a", (1e-5, 1.0))], "f", "en")
    assert "nan" not in alone and "104.0" in alone


def test_the_form_refuses_what_is_no_list_and_begins_nothing(page: Page, labelled: str) -> None:
    tab = TrainTab(page)
    with pytest.raises(UsageError, match="learning_rate is 'fast'"):
        tab.try_settings(request(), {"data": labelled}, sweep_learning_rate="fast", sweep_minutes=3)
    with pytest.raises(UsageError, match=r"minutes is 0;"):
        tab.try_settings(request(), {"data": labelled}, sweep_minutes=0)
    assert runs.list_runs() == []


@pytest.mark.slow
def test_a_sweep_begun_on_the_page_is_trained_by_a_process_of_its_own(page: Page, tiny: str, tmp_path: Path) -> None:
    tab, data = TrainTab(page), tmp_path / "moods.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in label_rows(100)), encoding="utf-8")
    fields: dict[str, Any] = {"model": tiny, "max_examples": "16", "name": "s", "precision": "float32"}
    values = {"sweep_minutes": 60.0, "sweep_learning_rate": "1e-4, 1e-3", "sweep_rank": "4", "sweep_epochs": "1"}
    shown = tab.try_settings(request(), {"data": str(data)}, **fields, **values)
    run = runs.named("s")
    assert shown[tab.started] == "s" and [each.name for each in runs.list_runs()] == ["s"]
    for _ in range(6000):  # ten minutes at most, on whatever machine
        if run.state not in runs.ACTIVE:
            break
        time.sleep(0.1)
    assert run.state == "finished", run.log_path.read_text(encoding="utf-8")
    assert run.model_path.is_dir() and say("en", "sweep_chosen") in live(run, "en")
