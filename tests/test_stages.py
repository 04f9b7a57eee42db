"""The stages of long work: told in order, kept in status.json while a training runs, and said in both languages."""

from __future__ import annotations

import io
import logging
import sys
import time
from pathlib import Path

import pytest

from sftdemo import runs, stages
from sftdemo.cli.progress_bar import Bar
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.log import LOG, Reporter
from sftdemo.schema.json_types import problem_in
from sftdemo.schema.run import Status
from sftdemo.stages import Stage
from sftdemo.system import hub
from sftdemo.training.train import train


class Stages(Reporter):
    """Keeps each stage as told, with what another process reads of it at that moment."""

    def __init__(self) -> None:
        self.told: list[tuple[Stage, int, int]] = []
        self.statuses: list[Status] = []

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        self.told.append((name, done, total))

    def should_stop(self) -> bool:
        if not self.statuses or self.statuses[-1]["stage"]["name"] != "training":
            self.statuses.append(runs.find("r").status())
        return False


def test_a_training_tells_its_stages_and_keeps_them_in_its_status(tiny: str, labelled: str) -> None:
    heard = Stages()
    train(TrainConfig(data=labelled, model=tiny, name="r", max_steps=2), reporter=heard)
    names = list(dict.fromkeys(name for name, *_ in heard.told))
    assert names == ["reading", "encoding", "loading", "first_validation", "training", "saving", "validating"]
    validation = [(done, total) for name, done, total in heard.told if name == "first_validation"]
    assert [done for done, _ in validation] == list(range(validation[0][1])) and validation[0][1] > 0
    loading = next(total for name, _, total in heard.told if name == "loading")
    assert loading == sum(file.stat().st_size for file in Path(tiny).glob("*.safetensors"))
    for status in heard.statuses:
        assert problem_in(status, Status) is None and status["stage"]["began"] <= time.time()
    ended = runs.find("r").status()
    assert ended["state"] == "finished" and "stage" not in ended


def test_a_download_tells_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real child process writes, and its bytes are told while it does."""
    (tmp_path / "writer.py").write_text(
        "import sys, time\nwith open(sys.argv[1], 'wb') as file:\n"
        "    file.write(bytes(3000)); file.flush()\n"
        "    while not __import__('os').path.exists(sys.argv[2]): time.sleep(0.01)\n"
    )
    box, seen = tmp_path / "box", []
    box.mkdir()

    def arrived(size: int) -> None:
        seen.append(size)
        if size:
            (tmp_path / "enough").touch()

    arguments = [str(box / "file"), str(tmp_path / "enough")]
    hub.download("writer", arguments, [box], 3000, {"PYTHONPATH": str(tmp_path)}, arrived)
    assert 3000 in seen


@pytest.mark.parametrize(
    ("stage", "english", "chinese"),
    [
        (("fetching", 43 * 10**6, 98 * 10**6), "Fetching the model, 43 of 98 MB", "正在下载模型，已完成 43 / 98 MB"),
        (("first_validation", 3, 9), "First validation, 3 of 9 batches", "首次验证，已完成 3 / 9 批"),
        (("loading", 0, 540 * 10**6), "Loading the model (540 MB)", "正在加载模型，共 540 MB"),
        (("converting", 0, 0), "Converting the model, once", "正在转换模型（只需一次）"),
        (("reading", 0, 0), "Reading the data", "正在读取数据"),
    ],
)
def test_a_stage_is_said_in_both_languages(stage: tuple[Stage, int, int], english: str, chinese: str) -> None:
    pytest.importorskip("gradio")
    from sftdemo.ui.parts import progress

    name, done, total = stage
    assert stages.sentence(*stage) == english
    state = {"name": name, "done": done, "total": total, "began": time.time()}
    english, chinese = (text.replace(" MB", "\xa0MB") for text in (english, chinese))
    assert progress.line(state, "en") == english and progress.line(state, "zh") == chinese
    assert progress.line({**state, "began": time.time() - 75}, "en") == f"{english} · 1\xa0min\xa015\xa0s"


@pytest.mark.parametrize("state", ["running", "stopping"])
def test_the_page_shows_the_stage_of_a_training(state: str) -> None:
    pytest.importorskip("gradio")
    from sftdemo.ui import work
    from sftdemo.ui.parts.page import work_line
    from sftdemo.ui.tabs.train_view import live

    run = runs.create("r", "", {"settings": {}})
    stage = {"name": "first_validation", "done": 3, "total": 9, "began": time.time()}
    run.write_status(state, step=0, total=0, phase="preparing", stage=stage)
    shown, bar = live(run, "en"), work_line("en", work.running())
    for place in (shown, bar):
        assert ("First validation, 3 of 9 batches" in place) == (state == "running")
        assert ("width:33.3%" in place) == (state == "running") or place is bar
    run.write_status("running", step=5, total=20, stage={**stage, "name": "training"})
    assert "5 / 20" in live(run, "en") and "width:25.0%" in live(run, "en")


def test_an_evaluation_that_checks_for_forgetting_is_no_full_bar() -> None:
    pytest.importorskip("gradio")
    from sftdemo.ui import work
    from sftdemo.ui.tabs import evaluate

    current = work.Evaluation(runs.create("r", "", {"settings": {}}), EvaluateConfig(), 6)
    current.stage("loading", 0, 540 * 10**6)
    assert "Loading the model (540\xa0MB)" in evaluate.progress(current, "en")
    current.answered(6, 6)
    current.stage("forgetting", 10, 40)
    shown = evaluate.progress(current, "en")
    assert "Checking for forgetting, 10 of 40 questions" in shown and "width:25.0%" in shown and "6 / 6" not in shown


def test_a_log_gets_lines_and_no_bars(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr, lines = io.StringIO(), list[str]()
    monkeypatch.setattr(sys, "stderr", stderr)
    listener = logging.Handler()
    listener.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(LOG, "handlers", [listener])
    caplog.set_level("INFO", LOG.name)
    bar = Bar()
    bar.stage("fetching", 0, 98 * 10**6)
    for size in range(10**6, 99 * 10**6, 10**6):
        bar.stage("fetching", size, 98 * 10**6)
    for step in range(1, 41):
        bar.trained({"step": step, "total": 40, "loss": 2.0, "tokens_per_s": 300.0})
    assert lines[0] == "Fetching the model (98 MB) …" and "Fetching the model, 98 of 98 MB" in lines
    assert "Training, 40 of 40 steps, loss 2.000, tok/s 300" in lines and len(lines) <= 21
    assert stderr.getvalue() == ""


def test_what_has_come_never_shrinks() -> None:
    from sftdemo.model.download import _fetching

    heard = Stages()
    arrived = _fetching(98, heard)
    for size in (0, 40, 98, 30, 160, 98):
        arrived(size)
    assert heard.told == [("fetching", done, 98) for done in (0, 40, 98)]
