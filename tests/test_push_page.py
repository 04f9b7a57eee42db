"""Push and import on the Runs tab: for the owner alone, each told as it goes, faults in both languages."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.system import hub_upload
from sftdemo.ui import models
from sftdemo.ui.access import rights
from sftdemo.ui.tabs.importing import ImportPanel
from sftdemo.ui.tabs.push import PushPanel
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs import export as export_module
from tests.in_process import owners_request

pytestmark = pytest.mark.slow

OLD = Path(__file__).parent / "old"
VISITOR = rights.Visitor("visitor", "somebody")


def browser(lang: str = "en") -> SimpleNamespace:
    return owners_request(headers={"accept-language": lang})


@pytest.fixture
def panel(home, monkeypatch) -> PushPanel:
    """The panel for a run whose export is its model, beside a Hub that takes everything private."""
    shutil.copytree(OLD, home)

    def exported(run, to, reporter, config):
        shutil.copytree(run.model_path, to)
        return export_module.Exported(to, "adapter", None)

    def taken(asked, created, should_stop):
        created()
        return {"url": f"http://hub/{asked['repository']}", "commit": "1", "private": not asked["public"]}

    monkeypatch.setattr(models, "load_libraries", lambda *_: None)  # all that chat needs, too
    monkeypatch.setattr("sftdemo.verbs.push.export", exported)
    monkeypatch.setattr(hub_upload, "in_child", taken)
    with gr.Blocks():
        return PushPanel(gr.State(""))


@pytest.mark.parametrize(
    ("lang", "says"), [("en", "The model is at"), pytest.param("zh", "模型位于", marks=pytest.mark.slow)]
)
def test_a_push_is_told_and_shown_after_a_reload(panel, lang, says):
    run = runs.named("old")
    shown = panel.show(run, lang)
    assert shown[panel.panel]["visible"] and [what for _, what in shown[panel.what]["choices"]] == [
        "adapter",
        "merged",
        "gguf",
    ]
    *_, last = panel.push(browser(lang), "old", " me/moods ", what="adapter", public=False, license="")
    assert says in last[panel.progress.view] and "http://hub/me/moods" in last[panel.progress.view]
    assert panel.show(run, lang)[panel.progress.view] == last[panel.progress.view]
    with pytest.raises(UserError, match="can't be a repository's name"):
        list(panel.push(browser(lang), "old", "<b>moods"))


def test_a_refusal_is_said_by_the_fields_of_the_page(panel, monkeypatch):
    monkeypatch.setattr(hub_upload, "in_child", lambda asked, *_: {"fault": "public"})
    with pytest.raises(UserError, match="--public") as refused:
        list(panel.push(browser(), "old", "me/moods"))
    assert "tick “Public”" in in_words(refused.value, "en") and "勾选“公开”" in in_words(refused.value, "zh")
    assert (runs.home() / "pushes" / "old-auto" / "model").is_dir()


@pytest.mark.parametrize(
    ("lang", "says"),
    [("en", "On the Hub now: me/moods is there"), pytest.param("zh", "Hub 上现在：me/moods", marks=pytest.mark.slow)],
)
def test_a_push_is_stopped_by_its_button(panel, monkeypatch, lang, says):
    progress, sending, ended = panel.progress, threading.Event(), threading.Event()

    def child(asked, created, should_stop):
        if "look" in asked:
            return {"me/moods": {"commit": "1", "files": []}}
        sending.set()
        ended.wait()
        assert should_stop()
        raise hub_upload.Stopped("1")

    monkeypatch.setattr(hub_upload, "in_child", child)
    updates = panel.push(browser(lang), "old", "me/moods", what="adapter")
    first = next(updates)
    assert first[progress.stop]["visible"] and first[progress.stop]["interactive"]
    assert sending.wait(30)
    told = progress.stop_job("old", browser(lang))
    assert not next(told)[progress.stop]["interactive"]
    assert progress.show(runs.named("old"), lang)[progress.stop]["visible"], "after a reload it is there, too"
    ended.set()
    for each in (updates, told):
        with pytest.raises(UserError) as stopped:
            list(each)
        assert says in in_words(stopped.value, lang)
    assert not progress.show(runs.named("old"), lang)[progress.stop]["visible"]
    assert next(progress.stop_job("old", browser(lang)))[progress.stop] == gr.update(visible=False)


def test_visitors_see_neither_panel(panel, monkeypatch):
    with gr.Blocks():
        imports = ImportPanel()
    assert imports.show()[imports.panel]["visible"]
    monkeypatch.setattr(rights, "current", lambda: VISITOR)
    assert panel.show(runs.named("old"), "en") == {panel.panel: gr.update(visible=False)}
    assert not imports.show()[imports.panel]["visible"]


def test_import_makes_a_run_and_says_what_is_missing(panel, babbler, monkeypatch):
    with gr.Blocks():
        imports = ImportPanel()
    with pytest.raises(UserError, match="Say what to import"):
        imports.import_run(" ", "", "")
    source = str(OLD / "runs" / "old" / "model")
    with pytest.raises(UserError, match="give --base") as refused:
        imports.import_run(source, "", "")
    assert "name that as the base model" in in_words(refused.value, "en")
    run = imports.import_run(source, babbler, "mine")
    assert run.name == "mine" and "Run mine is here." in imports.done(run, "en")[imports.view]
