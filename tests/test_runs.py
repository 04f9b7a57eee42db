"""Run folders: files that are never read half-written, processes told apart, names that stay inside the folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sftdemo import files, runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.runs import Run

ROOT = Path(__file__).parents[1]

# Replaces one file again and again: every text is whole or it is wrong.
WRITER = """
import sys, time
from pathlib import Path
from sftdemo.files import write_json
path, word, until = Path(sys.argv[1]), sys.argv[2], time.time() + float(sys.argv[3])
while time.time() < until:
    write_json(path, [word] * 20000)
"""


@pytest.fixture
def run() -> Run:
    return runs.create("first", "unused", {"settings": {"seed": 1}})


def ended_process() -> int:
    """The pid of a process that is gone and waited for."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_home_is_moved_by_one_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs.home() == home
    monkeypatch.delenv("SFTDEMO_HOME")
    assert runs.home() == Path.home() / ".sftdemo"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    files.write_json(path, ["start"] * 20000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, word, "1"], cwd=ROOT) for word in ("ann", "bob")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        words = files.read_json(path)
        assert len(words) == 20000 and len(set(words)) == 1
        seen.add(words[0])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen >= {"ann", "bob"}
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "half an emoji \ud83d")
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_jsonl_keeps_text_of_every_kind(tmp_path: Path) -> None:
    rows = [{"text": "你好\u2028\nworld\r\n\u0085"}, {"text": ""}, 3, None]
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, rows)
    assert list(files.read_jsonl(path)) == rows
    assert "你好" in path.read_text(encoding="utf-8")


def test_a_metrics_line_still_being_written_waits_for_the_next_read(run: Run) -> None:
    assert run.metrics() == []
    run.append_metrics({"step": 1, "loss": 2.5})
    path = run.path / "metrics.jsonl"
    line = json.dumps({"step": 2, "loss": 2.25}) + "\n"
    with path.open("a") as file:
        for character in line[:-1]:
            file.write(character)
            file.flush()
            assert run.metrics() == [{"step": 1, "loss": 2.5}]
        file.write("\n")
    assert [row["step"] for row in run.metrics()] == [1, 2]


def test_the_status_is_the_writers_while_it_lives(run: Run) -> None:
    before = time.time()
    run.write_status("running", step=3, total=9, eta_s=1.5)
    status = run.status()
    assert (status["state"], status["step"], status["total"], status["eta_s"]) == ("running", 3, 9, 1.5)
    assert status["pid"] == os.getpid()
    assert status["process_start"] == runs.process_start(os.getpid()) < before <= status["updated"]


def test_the_status_may_name_another_process(run: Run) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        run.write_status("queued", pid=child.pid)
        assert run.status()["state"] == "queued"
        assert run.status()["pid"] == child.pid
    assert run.status()["state"] == "failed"


@pytest.mark.parametrize("state", runs.ACTIVE)
def test_a_process_that_is_gone_reads_as_failed(run: Run, state: str) -> None:
    run.write_status(state, pid=ended_process(), step=3, eta_s=8)
    status = run.status()
    assert status["state"] == "failed"
    assert "killed" in status["error"]
    assert (status["step"], status["eta_s"]) == (3, None)


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_last_word_stands_after_the_process_is_gone(run: Run, state: str) -> None:
    run.write_status(state, pid=ended_process(), error="The data has no rows.")
    assert run.status()["state"] == state
    assert run.status()["error"] == "The data has no rows."


def test_a_pid_that_another_process_has_now_reads_as_failed(run: Run) -> None:
    run.write_status("running")
    status = files.read_json(run.path / "status.json")
    files.write_json(run.path / "status.json", status | {"process_start": status["process_start"] - 60})
    assert run.status()["state"] == "failed"


def test_a_child_nobody_waited_for_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.time() + 10
    while runs.process_start(child.pid) is not None and time.time() < deadline:
        time.sleep(0.01)
    assert runs.process_start(child.pid) is None
    assert Path(f"/proc/{child.pid}").exists() or not Path("/proc").exists()
    child.wait()


def test_without_a_status_a_run_has_failed(run: Run) -> None:
    assert run.status()["state"] == "failed"


def test_create_makes_the_folder_with_its_config(home: Path) -> None:
    run = runs.create("语气-1.5_b", "unused", {"settings": {"seed": 7}})
    assert run.path == home / "runs" / "语气-1.5_b"
    assert run.config() == {"settings": {"seed": 7}}
    assert [file.name for file in run.path.iterdir()] == ["config.json"]


def test_create_without_a_name_makes_one_of_the_hint() -> None:
    assert runs.create(None, "my data/../x.jsonl-lora", {}).name.startswith("my-data-..-x.jsonl-lora-")
    assert runs.create(None, "../..", {}).name.startswith("run-")
    assert runs.create(None, "情感-lora", {}).name.startswith("情感-lora-")


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "..", "-x", "a b", "a\n", "a\\b", "a\x00", "x" * 101])
def test_names_that_leave_the_folder_are_refused(home: Path, name: str) -> None:
    with pytest.raises(UserError, match="can't be a run's name"):
        runs.create(name, "unused", {})
    assert not home.exists()


def test_a_name_in_use_is_refused_and_its_run_untouched(run: Run) -> None:
    with pytest.raises(UserError, match="'first' already"):
        runs.create("first", "unused", {"settings": {"seed": 2}})
    assert run.config() == {"settings": {"seed": 1}}


def test_find_by_name_and_by_folder(run: Run) -> None:
    assert runs.find("first") == run
    assert runs.find(str(run.path)) == run
    with pytest.raises(UserError, match="the newest are: first"):
        runs.find("second")
    for name in ("", ".", "/"):
        with pytest.raises(UserError, match="can't be a run's name"):
            runs.find(name)


def test_runs_are_listed_newest_first(home: Path) -> None:
    assert runs.list_runs() == []
    with pytest.raises(UserError, match="none yet"):
        runs.find("first")
    for age, name in enumerate(["new", "middle", "old"]):
        run = runs.create(name, "unused", {})
        os.utime(run.path / "config.json", (1e9 - age, 1e9 - age))
    (home / "runs" / "no-run").mkdir()
    (home / "runs" / "note.txt").write_text("")
    assert [run.name for run in runs.list_runs()] == ["new", "middle", "old"]


def test_delete_removes_the_folder_but_never_while_it_trains(run: Run) -> None:
    run.write_status("running")
    with pytest.raises(UserError, match="still training"):
        run.delete()
    assert run.config() == {"settings": {"seed": 1}}
    run.write_status("finished")
    run.delete()
    assert not run.path.exists() and runs.list_runs() == []


def test_asking_to_stop_leaves_a_word(run: Run) -> None:
    assert not run.stop_asked
    run.ask_to_stop()
    run.ask_to_stop()
    assert run.stop_asked


def test_examples_and_evaluations(run: Run) -> None:
    assert run.examples("test") == [] and run.evaluations() == []
    row = {"messages": [{"role": "user", "content": "a"}]}
    files.write_jsonl(run.path / "data" / "test.jsonl", [row])
    assert run.examples("test") == [row]
    for age, name in enumerate(["new", "old"]):
        folder = run.path / "evaluations" / name
        files.write_jsonl(folder / "outputs.jsonl", [{"row": age, "references": [], "base": "", "tuned": ""} | row])
        files.write_json(folder / "scores.json", {"n": age, "base": {}, "tuned": {}, "difference": {}})
        os.utime(folder / "scores.json", (1e9 - age, 1e9 - age))
    (run.path / "evaluations" / "unfinished").mkdir()
    assert run.evaluations() == ["new", "old"]
    assert run.scores("old")["n"] == 1 and [output["row"] for output in run.outputs("old")] == [1]


def test_a_status_read_while_another_thread_writes_it_is_whole(run: Run) -> None:
    done = threading.Event()

    def write() -> None:
        for step in range(100):
            run.write_status("running", step=step, total=100)
        done.set()

    thread = threading.Thread(target=write)
    run.write_status("running", step=0, total=100)
    thread.start()
    steps = []
    while not done.is_set():
        steps.append(run.status()["step"])
    thread.join()
    assert steps == sorted(steps)


def test_a_name_leads_to_no_folder_outside(tmp_path: Path) -> None:
    """What a page or a client may ask for is a name; only the command line takes a folder."""
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "config.json").write_text("{}", encoding="utf-8")
    assert runs.find(str(outside)).path == outside
    with pytest.raises(UserError, match="can't be a run's name"):
        runs.named(str(outside))


def test_the_same_base_is_told_by_folder_and_by_name_where_that_is_gone(tmp_path: Path) -> None:
    def made(name: str, base: Path | None, model: str = "m", quantization: str = "none") -> Run:
        settings = {"model": model, "quantization": quantization}
        return runs.create(name, "", {"settings": settings} | ({"base_model": str(base)} if base else {}))

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    one = made("one", here)
    assert runs.same_base(one, made("link", tmp_path / "there" / ".." / "here", model="./here"))
    assert not runs.same_base(one, made("two", there)) and not runs.same_base(one, made("int8", here, "m", "int8"))
    assert runs.same_base(one, made("moved", tmp_path / "gone")) and runs.same_base(one, made("queued", None))
    assert not runs.same_base(one, made("other", None, "n"))


def test_a_line_of_the_list_leads_with_the_metric_that_its_evaluation_leads_with(home: Path) -> None:
    run = runs.create("short", "short", {"settings": TrainConfig(data="x", name="short").to_json()})
    figures = {"exact_match": 0.5, "chrf": 40.0}
    scores = {"n": 2, "base": figures, "tuned": figures, "difference": {}, "leading": "exact_match"}
    files.write_json(run.path / "evaluations" / "one" / "scores.json", scores)
    assert runs.overview(run)["metric"] == "exact_match"
