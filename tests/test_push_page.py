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
from sftdemo.ui import models, work
from sftdemo.ui.access import rights
from sftdemo.ui.parts.page import Page, may_stop, stop, work_line
from sftdemo.ui.tabs.importing import ImportPanel
from sftdemo.ui.tabs.push import PushPanel
from sftdemo.ui.texts import say
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
    with gr.Blocks() as blocks:
        return PushPanel(Page(blocks, run=gr.State(""), timer=gr.Timer(active=False)), gr.State(""))


def ended(panel: PushPanel, lang: str = "en") -> str:
    """What stands on the page once the push is over."""
    job = work.export()
    assert job and job.thread
    job.thread.join()
    return str(panel.progress.draw(runs.named("old"), lang)[panel.progress.view])


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
    begun = panel.push(browser(lang), "old", " me/moods ", what="adapter", public=False, license="")
    assert begun[panel.page.timer]["active"] and begun[panel.page.exporting] is not None
    last = ended(panel, lang)
    assert says in last and "http://hub/me/moods" in last
    assert panel.show(run, lang)[panel.progress.view] == last
    panel.push(browser(lang), "old", "<b>moods")
    assert "&lt;b&gt;moods" in ended(panel, lang)


def test_a_refusal_is_said_by_the_fields_of_the_page(panel, monkeypatch):
    monkeypatch.setattr(hub_upload, "in_child", lambda asked, *_: {"fault": "public"})
    panel.push(browser(), "old", "me/moods")
    assert "tick “Public”" in ended(panel) and "勾选“公开”" in ended(panel, "zh")
    assert (runs.home() / "pushes" / "old-auto" / "model").is_dir()


@pytest.mark.parametrize(
    ("lang", "says"),
    [("en", "On the Hub now: me/moods is there"), pytest.param("zh", "Hub 上现在：me/moods", marks=pytest.mark.slow)],
)
def test_a_push_is_stopped_in_the_bar(panel, monkeypatch, lang, says):
    sending, sent = threading.Event(), threading.Event()

    def child(asked, created, should_stop):
        if "look" in asked:
            return {"me/moods": {"commit": "1", "files": []}}
        sending.set()
        sent.wait()
        assert should_stop()
        raise hub_upload.Stopped("1")

    monkeypatch.setattr(hub_upload, "in_child", child)
    panel.push(browser(lang), "old", "me/moods", what="adapter")
    assert sending.wait(30)
    (item,) = work.running()
    assert may_stop(item, rights.LOCAL) and say(lang, "work_push", name="old") in work_line(lang, [item])
    told = work.export_told()
    stop("export", rights.LOCAL)
    (item,) = work.running()
    assert not may_stop(item, rights.LOCAL) and work.export_told() != told, "pages draw it anew"
    assert say(lang, "export_stopping") in panel.progress.draw(runs.named("old"), lang)[panel.progress.view]
    sent.set()
    assert says in ended(panel, lang)
    assert work.running() == [] and work.export_told() is None


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
