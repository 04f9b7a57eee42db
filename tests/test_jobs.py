"""Training processes: started, found again, stopped, killed; with small real children in the trainer's place."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sftdemo import files, runs
from sftdemo.__main__ import parser
from sftdemo.cli.flags import from_flags
from sftdemo.config import TrainConfig
from sftdemo.config.settings import value_type
from sftdemo.errors import UsageError, UserError
from sftdemo.runs import Run, starter
from sftdemo.verbs import jobs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# Speaks to its run as the trainer does: running, a step at a time, stopped when asked.
CHILD = """
import os, sys, time
from pathlib import Path
from sftdemo.runs import Run
run = Run(Path(sys.argv[1]))
print("hello from", os.getcwd())
print("and a warning", file=sys.stderr)
for step in range(1, 1201):
    run.write_status("running", step=step, total=1200)
    if run.stop_asked:
        run.write_status("stopped", step=step, total=1200)
        break
    time.sleep(0.05)
"""
# An app: starts the child, says its pid, and lives on.
APP = """
import sys, time
from sftdemo import runs
from sftdemo.verbs import jobs
print(jobs.spawn(runs.find("first"), [sys.executable, "-c", sys.argv[1], sys.argv[2]]), flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _nothing_runs_on(home: Path) -> Iterator[None]:
    """What still trains under this test's home when it ends is killed."""
    yield
    for run in runs.active():
        pid = run.status()["pid"]
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def run() -> Run:
    return runs.create("first", "unused", {"settings": {}})


def spawn(run: Run, code: str = CHILD) -> int:
    return jobs.spawn(run, [sys.executable, "-c", code, str(run.path)])


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} took more than {seconds} s"
        time.sleep(0.01)


def wait_for_state(run: Run, state: str) -> None:
    wait_for(lambda: run.status()["state"] == state, f"{run.name} to be {state}")


def test_a_child_runs_writes_its_log_and_stops_when_asked(run: Run) -> None:
    pid = spawn(run)
    status = run.status()
    assert status["state"] in ("queued", "running")
    assert (status["pid"], status["process_start"]) == (pid, runs.process_start(pid))
    wait_for_state(run, "running")
    assert run.status()["pid"] == pid
    assert runs.active() == [run]
    jobs.stop(run)
    wait_for_state(run, "stopped")
    assert runs.active() == []
    assert set(run.log_path.read_text().splitlines()) == {f"hello from {os.getcwd()}", "and a warning"}


def test_a_killed_child_reads_as_failed_with_the_reason_and_is_reaped(run: Run) -> None:
    pid = spawn(run)
    wait_for_state(run, "running")
    os.kill(pid, signal.SIGKILL)
    wait_for_state(run, "failed")
    assert "killed" in run.status()["error"]
    wait_for(lambda: not psutil.pid_exists(pid), "reaping the child")
    wait_for(lambda: "SIGKILL" in run.status()["error"], "the signal's name")
    assert run.status()["step"] >= 1
    jobs.stop(run)
    assert not run.stop_asked
    run.delete()


def test_a_child_that_dies_before_its_first_word_reads_as_failed(run: Run) -> None:
    spawn(run, "import sys; sys.exit('no room for the model')")
    wait_for(lambda: "no room for the model" in run.status().get("error", ""), "the reason")
    assert run.status()["error"] == "The training process ended with exit status 1: no room for the model"
    assert run.status()["error"].values == {"code": 1, "reason": "no room for the model"}
    assert files.read_json(run.path / "status.json")["state"] == "failed"


def test_a_child_quicker_than_its_parent_keeps_its_word(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child has written is not overwritten, however late the parent comes to it."""
    hand_over = jobs.turns.hand_over

    def late(run: Run, pid: int, by: int) -> None:
        wait_for(lambda: files.read_json(run.path / "status.json")["state"] == "finished", "the child's word")
        hand_over(run, pid, by)

    monkeypatch.setattr(jobs.turns, "hand_over", late)
    spawn(run, CHILD.split("for step")[0] + "run.write_status('finished', steps=5)")
    assert (run.status()["state"], run.status()["steps"]) == ("finished", 5)


def test_the_child_survives_the_app_and_is_found_again(run: Run) -> None:
    command = [sys.executable, "-c", APP, CHILD, str(run.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as app:
        assert app.stdout
        pid = int(app.stdout.readline())
        wait_for_state(run, "running")
        # The whole group, as a closed terminal would.
        os.killpg(app.pid, signal.SIGKILL)
    step = run.status()["step"]
    wait_for(lambda: run.status()["step"] > step + 2, "steps after the app's end")
    assert runs.active() == [run] and run.status()["pid"] == pid
    jobs.stop(run)
    wait_for_state(run, "stopped")


def test_the_childs_surroundings(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is found from any folder, output is not held back, there is no terminal, the rest is inherited."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("KEPT", "yes")
    code = (
        "import os, sys, sftdemo.runs\n"
        "print([os.environ[k] for k in ('KEPT', 'PYTHONUNBUFFERED', 'PYTHONPATH')], sys.stdin.read(), os.getsid(0))\n"
        + CHILD.split("print")[0]
        + "run.write_status('finished')"
    )
    pid = spawn(run, code)
    wait_for_state(run, "finished")
    paths = os.pathsep.join([str(ROOT), "/somewhere/else"])
    assert run.log_path.read_text() == f"{['yes', '1', paths]}  {pid}\n"


def test_a_child_leaves_the_cores_to_the_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("SFTDEMO_NICENESS")
    child = psutil.Process(spawn(run, CHILD))
    assert child.nice() == jobs.NICENESS
    if (session := Path(f"/proc/{child.pid}/autogroup")).exists():  # Linux weighs whole sessions where it is on
        assert session.read_text().endswith(f"nice {jobs.NICENESS}\n")
    wait_for_state(run, "running")
    environment = child.environ()
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE" and environment["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize("asked", ["much", "-1", "20"])
def test_a_niceness_that_there_is_not_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("SFTDEMO_NICENESS", asked)
    with pytest.raises(UserError, match=rf"SFTDEMO_NICENESS is '{asked}'; give a whole number from 0 to 19"):
        spawn(run, CHILD)
    assert run.status()["state"] == "failed" and not run.log_path.exists()


def test_a_program_that_is_not_there_is_said(run: Run) -> None:
    with pytest.raises(UserError, match=r"could not start.*no-such-program"):
        jobs.spawn(run, ["/no-such-program"])
    assert run.status()["state"] == "failed" and "no-such-program" in run.status()["error"]


def test_a_run_started_while_another_trains_waits_and_is_cancelled_without_a_trace(run: Run) -> None:
    spawn(run)
    wait_for_state(run, "running")
    second = jobs.start(TrainConfig(data="no such file.jsonl", name="second"), expected_s=60.0)
    assert runs.waiting() == [second] and runs.training() == [run] and runs.ahead(second) == [run]
    assert runs.overview(second)["place"] == 1 and runs.overview(run)["place"] is None
    wait_for(lambda: "place 1 in the queue, behind first" in second.log_path.read_text(), "its place in the log")
    with pytest.raises(UserError, match=r"second waits for its turn already \(process"):
        jobs.resume(second)
    with pytest.raises(UserError, match="second waits for its turn; cancel it first"):
        second.delete()
    jobs.stop(second)
    wait_for(lambda: not second.path.exists(), "the end of the wait")
    again = jobs.start(TrainConfig(data="no such file.jsonl", name="second"))
    jobs.stop(run)
    wait_for_state(again, "failed")
    assert "There is no file" in again.status()["error"] and run.state == "stopped"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (TrainConfig(), "data is empty"),
        (TrainConfig(data="x", epochs=0), "epochs is 0"),
        (TrainConfig(data="x", method="full", quantization="int8"), "can't train int8"),
    ],
)
def test_a_wrong_setting_leaves_nothing(config: TrainConfig, says: str, home: Path) -> None:
    with pytest.raises(UsageError, match=says):
        jobs.start(config)
    assert not home.exists()


def test_start_makes_the_run_and_its_process() -> None:
    config = TrainConfig(data="no such file.jsonl", epochs=2)
    run = jobs.start(config, most_minutes=7.5, visitor="ann")
    assert run.name.startswith("no-such-file-lora-")
    assert run.config()["settings"] == config.to_json()
    process = psutil.Process(run.status()["pid"])
    words = process.cmdline()
    process.kill()
    wait_for_state(run, "failed")
    assert words[1:] == ["-m", "sftdemo", "train", "--run", str(run.path), "--stop-after", "7.5"]
    options = parser().parse_args(words[3:])
    assert (options.run, options.stop_after) == (str(run.path), 7.5)


def test_a_visitors_run_keeps_its_minutes_when_it_is_resumed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    starter.note(run, "ann", 20.0)
    files.write_json(run.path / "config.json", {"settings": TrainConfig(data="no such file.jsonl").to_json()})
    begun: list[list[str]] = []
    monkeypatch.setattr(jobs, "spawn", lambda run, argv, expected_s: begun.append(argv))
    monkeypatch.setattr(jobs, "BOOKING_S", 0.0)
    run.write_status("running", step=1, total=9)
    limit = threading.Thread(target=jobs.stop_after, args=(run, 0.0), daemon=True)
    limit.start()
    wait_for(lambda: run.starter()["used"] > 0 and run.stop_asked, "the booking and the end of the minutes")
    run.write_status("failed", cut_off=True, step=1, total=9)
    limit.join()
    jobs.resume_cut_off()
    (argv,) = begun
    assert argv[-2] == "--stop-after" and 19 < float(argv[-1]) < 20
    starter.book(run, 20.0)
    with pytest.raises(UserError, match="had the 20 minutes"):
        jobs.resume(run)
    assert len(begun) == 1


def test_a_training_whose_minutes_are_over_stops_by_itself(tiny: str, tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"p {k}", "completion": "a"} for k in range(40)])
    config = TrainConfig(data=str(tmp_path / "rows.jsonl"), model=tiny, epochs=100, batch_size=1)
    run = jobs.start(config, most_minutes=0)
    wait_for(lambda: run.state not in runs.ACTIVE, "the training's end", 120)
    assert run.state == "stopped", run.status()
    assert not run.status().get("cut_off"), "nothing goes on with it at the next start"


def test_the_command_names_only_what_differs() -> None:
    assert jobs.command(TrainConfig(data="tickets")) == "python -m sftdemo train --data tickets"
    config = TrainConfig(
        data="my data.jsonl", system="-Answer briefly; it's late", learning_rate=3e-4, max_examples=640, lora_r=8
    )
    assert jobs.command(config) == (
        "python -m sftdemo train --data 'my data.jsonl' '--system=-Answer briefly; it'\"'\"'s late' "
        "--max-examples 640 --learning-rate 0.0003 --lora-r 8"
    )


SPECIAL = {
    "clean": "html,leaks",
    "encoding": "cp1252",
    "header": "3",
    "lora_plus_ratio": 2.5,
    "report_to": "tensorboard",
}


NEEDS: dict[str, dict[str, Any]] = {  # settings that mean nothing without others
    "drop_layers": {"teacher": "t", "method": "full"},
    "kd_ratio": {"teacher": "t"},
    "kd_temperature": {"teacher": "t"},
    "rehearsal": {"from_run": "r"},
    "task": {"model": "m"},
    "pooling": {"task": "classification", "model": "m"},
    **{key: {"task": "seq2seq", "model": "m"} for key in ("source_prefix", "source_language", "target_language")},
    "train_only": {"method": "full"},
}


def test_the_command_gives_every_setting_back() -> None:
    """Each by itself: some can't be combined."""
    for spec in dataclasses.fields(TrainConfig):
        kind, _ = value_type(spec, TrainConfig)
        other = next((choice for choice in spec.metadata["choices"] or () if choice != spec.default), None)
        value = SPECIAL.get(spec.name) or other or {str: f"-some {spec.name}", int: 17, float: 0.25, bool: True}[kind]
        if kind is bool and spec.default:
            value = False
        if spec.name == "resume":  # not beside data
            continue
        config = TrainConfig(**{"data": "-some data", **NEEDS.get(spec.name, {}), spec.name: value})
        assert from_flags(parser().parse_args(shlex.split(jobs.command(config))[3:]), TrainConfig) == config, spec.name


def test_a_run_that_was_cut_off_is_offered_on_the_page_and_goes_on(run: Run) -> None:
    """On Train as the page opens, and under Runs; not one that failed by itself. Here the data are gone meanwhile."""
    gr = pytest.importorskip("gradio")
    from sftdemo.ui.parts.page import Page
    from sftdemo.ui.tabs.runs import RunsTab
    from sftdemo.ui.tabs.train import TrainTab
    from tests.test_tabs import pick, request

    files.write_json(run.path / "config.json", {"settings": TrainConfig(data="no such file.jsonl").to_json()})
    with gr.Blocks() as blocks:
        page = Page(blocks, run=gr.State(None), data=gr.State({}), timer=gr.Timer(active=False), tabs=gr.Tabs())
        tab, listed = TrainTab(page), RunsTab(page, gr.Tab())
    run.write_status("failed", error="The data has no rows.")
    assert tab.watched in (shown := tab.open_page(request())) and shown[tab.watched] == ""
    run.write_status("running", pid=spawn(run, "import os; os._exit(1)"))
    wait_for(lambda: run.status().get("error"), "the child's end")
    run.write_status("running", step=3, total=9, pid=spawn(run, "import os; os.kill(os.getpid(), 9)"))
    wait_for(lambda: run.status().get("cut_off"), "the kill")
    shown = tab.open_page(request())
    assert shown[tab.watched] == "first" and shown[tab.resume]["visible"]
    assert listed.pick(pick("first"), request())[listed.resume]["visible"]
    shown = tab.resume_run("first", request())
    assert not shown[tab.resume]["visible"]
    wait_for_state(run, "failed")
    wait_for(lambda: "There is no file" in run.status()["error"], "the reason")
    assert "cut_off" not in run.status() and tab.open_page(request())[tab.watched] == ""


def test_at_start_the_app_goes_on_with_what_was_cut_off_if_it_is_told_to(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.resume_cut_off()  # nothing was
    files.write_json(run.path / "config.json", {"settings": TrainConfig(data="no such file.jsonl").to_json()})
    run.write_status("stopped", cut_off=True)
    jobs.resume_cut_off()
    wait_for(lambda: "There is no file" in run.status().get("error", ""), "the child's word")
    assert runs.cut_off() == []
