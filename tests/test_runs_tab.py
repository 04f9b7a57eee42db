"""The Runs tab: many runs listed, filtered and sorted; named, noted and deleted by the owner alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import files, runs
from sftdemo.config.export import ExportConfig
from sftdemo.errors import UserError
from sftdemo.runs import Run, trash
from sftdemo.ui import work
from sftdemo.ui.access import rights
from sftdemo.ui.parts.page import Page, chip_text
from sftdemo.ui.tabs.runs import RunsTab, details
from sftdemo.ui.tabs.runs_table import (
    NEWEST,
    PAGE_ROWS,
    all_tags,
    cells,
    filtered,
    ordered,
    runs_table,
    trash_table,
    turned,
)
from tests.test_tabs import pick, request
from tests.test_ui import made_run


@pytest.fixture(scope="module")
def tab() -> Iterator[RunsTab]:
    with gr.Blocks() as blocks:
        page = Page(blocks, run=gr.State(""), timer=gr.Timer(60, active=False), chip=gr.Button())
        with gr.Tabs() as page.tabs, gr.Tab("x") as place:
            yield RunsTab(page, place)


def made(name: str, age: int, metric: str = "", score: float = 0.0, loss: float | None = None, **status: Any) -> Run:
    """A run that ended, with an evaluation if a metric is named."""
    run = runs.create(name, "", {"settings": {"data": f"/somewhere/{name[0]}.csv", "method": "lora", "model": "m"}})
    run.write_status("finished", **({"eval_loss": loss} if loss is not None else {}), **status)
    if metric:
        figures = {"n": 9, "base": {metric: 0.1}, "tuned": {metric: score}, "difference": {}, "leading": metric}
        files.write_json(run.path / "evaluations" / "E" / "scores.json", figures)
        rows = [{"row": 0, "messages": [{"role": "user", "content": "q"}], "references": [], "base": "", "tuned": ""}]
        files.write_jsonl(run.path / "evaluations" / "E" / "outputs.jsonl", rows)
    os.utime(run.path / "config.json", (1e9 - age, 1e9 - age))
    return run


def names(listed: list[Run]) -> list[str]:
    return [run.name for run in listed]


def test_every_column_sorts_both_ways_and_what_is_missing_comes_last() -> None:
    made("b", 1, "accuracy", 0.5, 1.5, seconds=5.0)
    made("a", 2, "accuracy", 0.9, 0.5, seconds=50.0)
    made("t", 3, "ter", 20.0)  # lower is better
    made("u", 4, "ter", 90.0)
    (made("none", 5).path / "big").write_bytes(b"x" * 100_000)
    listed = runs.list_runs()
    assert ordered(listed, NEWEST) == ordered(listed, "nonsense") == listed
    assert names(ordered(listed, "metric-down")) == ["a", "b", "t", "u", "none"]
    assert names(ordered(listed, "metric-up")) == ["b", "a", "u", "t", "none"]
    assert names(ordered(listed, "loss-up"))[:2] == ["a", "b"] and names(ordered(listed, "loss-down"))[:2] == ["b", "a"]
    assert names(ordered(listed, "time-down"))[:2] == ["a", "b"] and names(ordered(listed, "size-down"))[0] == "none"
    assert (
        names(ordered(listed, "when-up")) == ["none", "u", "t", "a", "b"] and names(ordered(listed, "run-up"))[0] == "a"
    )
    assert [turned(NEWEST, "when"), turned("when-up", "when"), turned(NEWEST, "loss")] == ["when-up", NEWEST, "loss-up"]
    assert turned(NEWEST, "<b>") == NEWEST


def test_a_run_that_has_nothing_is_not_listed_as_kept() -> None:
    kept, early = made_run("kept", "stopped"), made_run("early", "stopped")
    early.model_path.rmdir()
    assert [cells(run, run.name, "en")["state"] for run in (kept, early)] == ["stopped, kept", "stopped"]


def test_the_list_is_filtered_by_text_and_tags() -> None:
    best, other = made("alpha", 1), made("beta", 2)
    runs.rename(best, "Tickets <2>")
    runs.annotate(best, notes="secret plan", tags=["good", "Kept"])
    runs.annotate(other, tags=["good"])
    assert all_tags() == ["good", "Kept"]
    assert names(filtered("tickets <2", [], False)) == names(filtered("KEPT alpha", [], False)) == ["alpha"]
    assert names(filtered("", ["good"], False)) == ["alpha", "beta"] and not filtered("", ["good", "gone"], False)
    assert names(filtered("secret", [], True)) == ["alpha"] and not filtered("secret", [], False)
    assert "No run matches" in runs_table([], 25, "", "en")
    assert names(filtered("alpha " * 100 + "else", [], False)) == ["alpha"], "no more is searched than the field takes"
    assert names(filtered("b.csv", [], False)) == ["beta"] and not filtered("somewhere", [], False)
    shown = runs_table(runs.list_runs(), 25, "alpha", "en")
    assert "Tickets &lt;2&gt;" in shown and "<2>" not in shown and 'aria-sort="descending"' in shown
    assert "&lt;2&gt;" in details(best, "en") and "secret" not in details(best, "en", owner=False)
    assert chip_text("en", "alpha") == "Run: Tickets <2>"


def test_many_runs_are_listed_without_reading_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        made(f"run{number:03}", number, "accuracy", number / 60)
    read: list[str] = []
    config = runs.Run.config
    monkeypatch.setattr(runs.Run, "config", lambda run: (read.append(run.name), config(run))[1])
    listed = ordered(filtered("", [], True), NEWEST)
    assert runs_table(listed, PAGE_ROWS, "", "en").count("<tr data-pick") == len(set(read)) == PAGE_ROWS
    assert names(ordered(filtered("RUN", [], True), "metric-down"))[0] == "run059" and len(set(read)) == 60
    read.clear()
    ordered(filtered("RUN", [], True), "metric-up")
    assert not read, "what hasn't changed isn't read again"
    runs.named("run007").write_status("failed", error="why")
    assert runs.overview(runs.named("run007"))["state"] == "failed" and set(read) == {"run007"}


def test_a_student_names_its_teacher_to_the_owner() -> None:
    student = {"teacher": "big <b>", "teacher_sha256": "0" * 64, "lineage": ["big <b>"]}
    smaller = {**student, "layers_kept": [0, 2], "block_influence": [0.3, 0.1, 0.2]}
    learned, fewer = (
        runs.create(name, "", {"settings": {}, "student": facts}) for name, facts in (("l", student), ("f", smaller))
    )
    for run in (learned, fewer):
        run.write_status("finished")
    for lang, layers in (("en", "2 of its 3 layers"), ("zh", "3 层中的 2 层")):
        shown = details(fewer, lang)
        assert "big &lt;b&gt;" in shown and layers in shown
        assert "big &lt;b&gt;" in details(learned, lang) and layers not in details(learned, lang)
        assert "big" not in details(learned, lang, owner=False)


def test_a_run_is_named_and_noted_on_the_page(tab: RunsTab) -> None:
    run = made("one", 1)
    made("two", 2)
    shown = tab.save_notes(request(), "Best", "a, b，c", "line\nline <i>", focus="one")
    assert run.notes() == {"display_name": "Best", "notes": "line\nline <i>", "tags": ["a", "b", "c"]}
    assert shown[tab.notes.tags] == "a, b, c" and "&lt;i&gt;" in shown[tab.info] and "Best" in shown[tab.table]
    assert ("Best", "one") in shown[tab.comparison.runs]["choices"]
    for wrong in (("two", "", ""), ("x", "t" * 31, ""), ("x", "", "\x07")):
        with pytest.raises(UserError):
            tab.save_notes(request(), *wrong, focus="one")
    assert run.notes()["display_name"] == "Best", "all or nothing"


def test_a_column_is_sorted_by_its_head(tab: RunsTab) -> None:
    made("one", 1)
    made("two", 2)
    shown = tab.pick(pick("sort/run"), request(), order=NEWEST)
    assert shown[tab.order]["value"] == "run-up" and tab.focus not in shown
    rows = re.findall('<tr data-pick="(.*?)"', tab.pick(pick("sort/run"), request(), order="run-up")[tab.table])
    assert rows == ["two", "one"]


@pytest.mark.slow
def test_the_trash_restores_and_deletes_for_good(tab: RunsTab) -> None:
    for name in ("one", "two"):
        made(name, 1)
    shown = tab.delete_run(request(), focus="one", compared=["one", "two"])
    assert shown[tab.comparison.runs]["value"] == ["two"], "what is gone is compared no more"
    deleted = shown[tab.trash.deleted]
    other = tab.delete_run(request(), focus="two")[tab.trash.deleted]
    asked = tab.pick_deleted(pick(f"ask/{deleted}"), request(), other)[tab.trash.list]
    # Where the button was that asks there is another one now.
    plain = trash_table(trash.trashed(), "", "en")
    assert f"ask/{deleted}" in plain and f"remove/{deleted}" not in plain
    row = asked.split('<div class="trash-row">')[2]
    assert row.index(f"remove/{deleted}") < row.index(f"restore/{deleted}") < row.index("keep/")
    tab.pick_deleted(pick(f"remove/{deleted}"), request(), other)
    shown = tab.undo_delete(request(), other)
    assert names(runs.list_runs()) == ["two"] and not shown[tab.trash.panel]["visible"] and trash.trashed() == []
    with pytest.raises(UserError, match="no deleted run"):
        tab.pick_deleted(pick("restore/../../runs/two"), request(), "")


def test_visitors_see_no_panel_of_the_owners(tab: RunsTab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made("one", 1)
    runs.annotate(run, notes="secret")
    trash.discard(made("gone", 2))
    visitor = rights.Visitor("visitor", "v")
    monkeypatch.setattr(rights, "visitor", lambda request: visitor)
    monkeypatch.setattr(rights, "current", lambda: visitor)
    shown = tab.pick(SimpleNamespace(value="one"), request()) | tab.open_tab(request())
    assert not shown[tab.delete]["visible"] and not shown[tab.notes.panel]["visible"]
    assert not shown[tab.trash.panel]["visible"] and "gone" not in shown[tab.trash.list] and "secret" not in str(shown)


def test_a_page_that_is_loaded_again_shows_the_run_that_it_exports(
    tab: RunsTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = made("exported", 1), made("other", 2)
    for each in (run, other):
        each.model_path.mkdir()
    job = work.Export(run, ExportConfig(), run.path / "x.zip")
    job.notes.append("Half of it is written.")
    monkeypatch.setattr(work, "_export", job)
    assert tab.focus not in tab.open_tab(request(), run_name=run.name), "it has ended"
    monkeypatch.setattr(work.Export, "active", True)
    shown = tab.open_tab(request(), run_name=run.name)
    assert shown[tab.focus] == run.name and "Half of it" in shown[tab.export.progress.view]
    assert shown[tab.page.timer]["active"], "ticks follow it to its end"
    assert tab.open_tab(request(), focus=other.name, run_name=run.name)[tab.focus] == other.name
    for chosen in (other.name, ""):
        assert tab.focus not in tab.open_tab(request(), run_name=chosen), "a page isn't moved to another run"
    assert "Half of it" in tab.follow_export(run.name, request())[tab.export.progress.view]
    assert tab.follow_export(other.name, request())[tab.export.progress.view] == ""
    assert tab.follow_export("gone", request()) == tab.follow_export("", request()) == {}
