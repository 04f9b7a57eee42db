"""A second session neither sees nor stops what the first one began, and another tab of its owner does both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio")

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.config.export import ExportConfig
from sftdemo.errors import Text
from sftdemo.runs import Run
from sftdemo.training import turns
from sftdemo.ui import models, work
from sftdemo.ui.access import rights, sessions
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.tabs.push import Push
from sftdemo.ui.texts import say
from tests.test_sweep_page import swept
from tests.test_ui import made_run

pytestmark = pytest.mark.slow

ON_TRAIN = "?tab=train"  # what the page's address says
SECRET = "secret"  # in the name of all that is the owner's alone


class Tab:
    """One open page: what its events come to, as the browser is sent it."""

    def __init__(self, url: str, blocks: Any, session: str, **headers: str) -> None:
        self.blocks, self.session, self.client = (
            blocks,
            session,
            httpx.Client(base_url=url, headers=headers, timeout=60),
        )
        self.client.get("/config")  # for the cookie

    def event(self, handler: str, holds: Any) -> tuple[int, Any]:
        """The handler's last event, or that with this component among its outputs."""
        *_, last = (
            (number, event)
            for number, event in self.blocks.fns.items()
            if event.fn and event.fn.__qualname__ == handler and (holds is None or holds in event.outputs)
        )
        return last

    def begin(self, handler: str, picked: Any = None, holds: Any = None, **values: Any) -> str:
        """Send an event with what its fields hold at first, or by elem_id these values; its id."""
        number, event = self.event(handler, holds)
        data = []
        for block in event.inputs:
            usual = "" if block.get_block_name() == "textbox" else None if block.stateful else block.value
            data.append(values.get(str(getattr(block, "elem_id", None) or "").replace("-", "_"), usual))
        body = {"fn_index": number, "data": data, "session_hash": self.session, "event_data": {"value": picked}}
        reply = self.client.post("/gradio_api/queue/join", json=body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["event_id"])

    def do(self, handler: str, picked: Any = None, holds: Any = None, **values: Any) -> str:
        """All that is sent until the event is over."""
        return self.end(self.begin(handler, picked, holds, **values))

    def end(self, event: str) -> str:
        """All that is sent until an event that was begun is over."""
        said: list[str] = []
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                said.append(line)
                if event in line and "process_completed" in line:
                    return "\n".join(said)
        raise AssertionError(said)


@pytest.fixture
def tabs(running_app: tuple[Any, str], built_page: Any, home: Path) -> Iterator[tuple[Tab, Tab, Tab]]:
    """Two tabs of the owner and a visitor, who may all that visitors may be allowed."""
    sessions._holders.clear()
    allowed = {f"visitors_{name}": True for name in ("evaluate", "train", "own_data", "share")}
    rights.use(AppConfig(password="right", **allowed), "0.0.0.0")
    blocks, url = built_page, running_app[1]
    owner = {"authorization": "Bearer right"}
    first, second, visitor = (f"{name} {home.parent.name}" for name in ("first", "second", "visitor"))
    yield Tab(url, blocks, first, **owner), Tab(url, blocks, second, **owner), Tab(url, blocks, visitor)
    rights.use(AppConfig(), "127.0.0.1")


def hidden(run: Run) -> Run:
    runs.annotate(run, seen=False)
    return run


def seen(tab: Tab) -> str:
    """All that a page is shown of work that it knows nothing of."""
    handlers = ("Header.refresh_bar", "TrainTab.tick", "TrainTab.open_page", "RunsTab.open_tab", "EvaluateTab.tick")
    return "\n".join(tab.do(handler, address=ON_TRAIN) for handler in (*handlers, "list_runs"))


def asked(tab: Tab, run: str) -> str:
    """All that a page is told that knows the name of a run, beside that name."""
    told = [tab.do("RunsTab.pick", run), tab.do("TrainTab.pick_queued", f"show/{run}")]
    told += [tab.do(handler, compare=[run]) for handler in ("ReportButton.make", "ComparePanel.compare")]
    return "\n".join(told).replace(run, "")


@pytest.mark.parametrize("kind", ["sweep", "student"])
def test_trainings_of_both_kinds(tabs: tuple[Tab, Tab, Tab], kind: str) -> None:
    first, second, visitor = tabs
    if kind == "sweep":
        run = hidden(swept(name=f"{SECRET}-sweep"))
        run.write_status("running", step=1, total=9)
    else:
        settings = TrainConfig(data="d", teacher=f"{SECRET}-teacher").to_json()
        run = hidden(runs.create(f"{SECRET}-student", "", {"settings": settings}))
        turns.join(run, 60.0)
    visitor.do("Header.stop_training")
    visitor.do("TrainTab.pick_queued", f"cancel/{run.name}")
    assert SECRET not in seen(visitor) + asked(visitor, run.name) and not run.stop_asked
    assert run.name in second.do("Header.refresh_bar") and run.name in second.do("RunsTab.open_tab")
    first.do("TrainTab.pick_queued", f"show/{run.name}")
    assert run.name in first.do("TrainTab.tick", address=ON_TRAIN) and not run.stop_asked
    second.do("TrainTab.pick_queued", f"show/{run.name}")
    second.do("Header.stop_training")
    assert run.stop_asked or not run.path.exists()


@pytest.mark.parametrize("kind", ["export", "push"])
def test_an_export_and_a_push(tabs: tuple[Tab, Tab, Tab], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    first, second, visitor = tabs
    run, begun = hidden(made_run(f"{SECRET}-run")), threading.Event()

    def working(job: work.Export) -> None:
        job.notes.append(Text("{name} is on its way.", name=f"me/{SECRET}"))
        begun.set()
        job.stop.wait()

    monkeypatch.setattr(work.Export, "_work", working)
    monkeypatch.setattr(Push, "_work", working)
    job = (
        work.Export(run, ExportConfig(), Path("x"))
        if kind == "export"
        else Push(run, ExportConfig(), Path(), repository="me/r")
    )
    work.begin_export(job)
    assert begun.wait(30)
    try:
        said = seen(visitor) + asked(visitor, run.name)
        refused = visitor.do("Header.stop_export")
        assert rights.NOT_YOURS in refused
        said += (
            refused + visitor.do("ExportPanel.export") + visitor.do("PushPanel.push") + visitor.do("RunsTab.import_run")
        )
        assert SECRET not in said and said.count("Only the owner of this app may do that") == 3
        assert say("en", f"work_{kind}", name=say("en", "work_others")) in said
        assert job.active and not job.stop.is_set()
        shown = second.do("RunsTab.pick", run.name)
        assert f"me/{SECRET} is on its way." in shown
        first.do("RunsTab.pick", run.name)
        bar = first.do("Header.refresh_bar")
        assert run.name in bar and f"me/{SECRET} is on its way." in bar
        first.do("Header.stop_export")
        assert job.stop.is_set()
    finally:
        job.stop.set()
        if job.thread:
            job.thread.join()


def test_an_import(tabs: tuple[Tab, Tab, Tab], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the page's own that asked for it: another one doesn't hear of it, and can't take it out of the line."""
    first, second, visitor = tabs
    begun, ended = threading.Event(), threading.Event()

    def import_run(*_: Any) -> Run:
        begun.set()
        ended.wait()
        return hidden(made_run(f"{SECRET}-import"))

    monkeypatch.setattr("sftdemo.ui.tabs.importing.ImportPanel.import_run", lambda *_: import_run())
    monkeypatch.setattr(models, "load_libraries", lambda *_: None)
    event = first.begin("RunsTab.import_run", import_source=f"owner/{SECRET}")
    assert begun.wait(30)
    for tab in (visitor, second):
        assert SECRET not in tab.do("Header.refresh_bar") + tab.do("RunsTab.open_tab")
    for path, body in (("cancel", {"fn_index": 0, "event_id": event}), ("queue/join", {"fn_index": 0, "data": []})):
        reply = visitor.client.post(f"/gradio_api/{path}", json=body | {"session_hash": first.session})
        assert reply.status_code == 403 and "isn't yours" in reply.text
    ended.set()
    assert f"{SECRET}-import" in first.end(event)
    assert f"{SECRET}-import" in second.do("RunsTab.open_tab") and SECRET not in visitor.do("RunsTab.open_tab")
