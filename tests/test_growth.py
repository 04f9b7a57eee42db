"""What grows stays quick: the page comes before anything heavy, a tick reads what has changed, long files are thinned."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import files, runs
from sftdemo.config import TrainConfig
from sftdemo.ui import models, server, work
from sftdemo.ui.parts.page import Header, Page
from sftdemo.ui.tabs import outputs as outputs_view
from sftdemo.ui.tabs.train import TrainTab
from tests.in_process import owners_request

ROOT = Path(__file__).parents[1]
_opened: list[str] | None = None


def _keep(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None and threading.current_thread() is threading.main_thread():
        _opened.append(str(arguments[0]))


@cache
def _listen() -> None:
    """For good, and slowing all that follows: once it is needed."""
    sys.addaudithook(_keep)


@contextmanager
def opened_files(home: Path) -> Iterator[list[str]]:
    """The names of the files in a home that the block opens; what earlier tests left running may look there, too."""
    global _opened
    _listen()
    kept: list[str] = []
    _opened = kept
    try:
        yield kept
    finally:
        _opened = None
        kept[:] = [os.path.relpath(path, home) for path in kept if path.startswith(str(home))]


def made_run(name: str, state: str = "finished") -> runs.Run:
    config = TrainConfig(data="support_tickets", name=name)
    run = runs.create(name, name, {"settings": config.to_json(), "data": {"sizes": {"test": 2}}})
    run.model_path.mkdir()
    run.write_status(state, step=1, total=4)
    return run


SERVE = """
import socket, sys
from sftdemo.ui import launch, server
server.CALM_S = server.LONGEST_WAIT_S = 600.0  # what is loaded in a calm moment would count here on a busy machine
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    free = probe.getsockname()[1]
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
app, url, _ = launch(port=free, prevent_thread_lock=True, quiet=True)
import urllib.request
page = urllib.request.urlopen(url).read()
print(len(page), sorted({"torch", "transformers", "peft", "evaluate", "datasets", "scipy", "sacrebleu"} & set(sys.modules)))
print([path for path in opened if path.endswith(".pyi")])
"""


@pytest.mark.slow
def test_the_page_comes_before_anything_heavy(home: Path) -> None:
    """Nor does Gradio write editor stubs on the way."""
    environment = {**os.environ, "SFTDEMO_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", SERVE], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    size, loaded, stubs = done.stdout.replace(" [", "\n[").splitlines()
    assert int(size) > 10_000 and loaded == "[]" and stubs == "[]"


def test_a_tick_reads_only_what_has_changed(home: Path) -> None:
    for number in range(200):
        made_run(f"run{number:03}")
    training = made_run("training", "running")
    request = owners_request()
    with gr.Blocks() as blocks:
        page = Page(blocks, run=gr.State(None), data=gr.State({}), timer=gr.Timer(active=False))
        bar, train = Header(page), TrainTab(page)

    def tick() -> list[str]:
        with opened_files(home) as opened:
            bar.refresh_bar(request)
            train.tick("training", "", "", request)
        return opened

    assert len(tick()) == 202  # every status, and the config of the run that is shown
    assert tick() == []
    training.write_status("running", step=2, total=4)
    assert tick() == ["runs/training/status.json"]
    assert [(item.name, item.done) for item in work.running()] == [("training", 2)]


def test_a_value_read_again_is_as_fresh_as_its_file_and_nobody_elses(home: Path) -> None:
    run = made_run("r")
    run.status()["state"] = "mine alone"
    run.config()["settings"]["lora_r"] = 0
    assert run.status()["state"] == "finished" and run.config()["settings"]["lora_r"] == 16
    run.write_status("stopped", step=1, total=4)
    assert run.status()["state"] == "stopped"


def test_a_line_of_the_log_that_is_being_written_is_left_for_the_next_read(home: Path) -> None:
    run = made_run("r")
    assert run.metrics() == []
    (run.path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo', encoding="utf-8")
    assert [row["step"] for row in run.metrics()] == [1]


def test_an_evaluation_made_anew_is_marked_anew(home: Path) -> None:
    run = made_run("r")
    path = run.path / "evaluations" / "one" / "outputs.jsonl"
    asked = [{"role": "user", "content": "?"}]
    row = {"row": 0, "messages": asked, "references": ["le chat noir"], "label": None, "base": "x", "tuned": "le chat"}
    files.write_jsonl(path, [row])
    with opened_files(home) as opened:
        assert [outputs_view.load(run, "one", "chrf")[0][0]["mark"] for _ in range(3)] == ["better"] * 3
    assert len(opened) == 1
    files.write_jsonl(path, [row | {"base": "le chat noir"}])
    assert outputs_view.load(run, "one", "chrf")[0][0]["mark"] == "worse"


def test_nothing_is_loaded_ahead_while_a_run_trains(home: Path) -> None:
    made_run("ready")
    made_run("training", "running")
    models.preload("")
    models.preload("ready")
    assert not models.is_loaded("ready")


def test_work_in_the_background_waits_for_the_first_visitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.Calm, "first", threading.Event())
    waiting = threading.Thread(target=server.Calm.wait, daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    server.Calm.first.set()
    waiting.join(30)
    assert not waiting.is_alive()
