"""Training, evaluating and answering in GPU calls of bounded length, against a stand-in with the package's rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.runs import starter
from sftdemo.system import hub, zero_gpu
from sftdemo.training import turns
from sftdemo.verbs import gpu_calls

ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, os, sys, threading, time
import sftdemo.inference.gpu_answers, sftdemo.verbs.gpu_calls as gpu_calls
from sftdemo import runs
from sftdemo.config import EvaluateConfig, GenerateConfig, TrainConfig
from sftdemo.inference import gpu_answers
from sftdemo.log import Reporter
from sftdemo.system import zero_gpu
from sftdemo.system.compute import device
from sftdemo.ui import work
from sftdemo.verbs import jobs

assert zero_gpu.without_gpu() and device().type == "cpu"
# So many seconds each slice has, the last of them all that come after: without any it has one step, however fast it is.
slices, seconds = gpu_calls.train_slice, [float(each) for each in sys.argv[3].split()]
gpu_calls.train_slice = lambda path, _: slices(path, seconds.pop(0) if seconds[1:] else seconds[0])
run = jobs.start(TrainConfig(data=sys.argv[1], model=sys.argv[2], name="zero", epochs=float(sys.argv[4]), batch_size=2))
second = jobs.start(TrainConfig(data=sys.argv[1], model=sys.argv[2], name="second"))
assert runs.ahead(second) == [run]
jobs.stop(second)
while second.path.exists():
    time.sleep(0.01)
for thread in threading.enumerate():
    if thread.name == "train zero":
        thread.join()
status = run.status()
found = {"state": status["state"], "step": status.get("steps"), "error": status.get("error"), "cut_off": status.get("cut_off")}
if status["state"] == "finished":
    answer = list(gpu_answers.stream([str(run.path)], [{"role": "user", "content": "the film"}], GenerateConfig(max_new_tokens=8)))
    found["sides"] = sorted({chunk.side for chunk in answer})
    found["ends"] = [chunk.finish_reason for chunk in answer if chunk.finish_reason]
    long = gpu_answers.stream([str(run.path)], [{"role": "user", "content": "the film"}], GenerateConfig(max_new_tokens=200))
    next(long)
    long.close()
    try:
        list(gpu_answers.stream([str(run.path)], [{"role": "user", "content": "film " * 5000}], GenerateConfig()))
    except Exception as error:
        found["fault"] = str(error)
    told = []
    reporter = Reporter()
    reporter.answered = lambda *done: told.append(done)
    scores = gpu_calls.evaluate_in_slices(run, EvaluateConfig(max_examples=6), reporter)
    found["n"], found["told"] = scores["n"], told
print(json.dumps(found))
"""


def on_zero_gpu(
    tmp_path: Path, labelled: str, tiny: str, seconds: str, epochs: float, **environment: str
) -> tuple[dict, list[str]]:
    """What a Space's process does with a training; and the calls that it made."""
    log = tmp_path / "calls"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, labelled, tiny, seconds, str(epochs)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env={
            **os.environ,
            "SPACES_ZERO_GPU": "true",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "zero_gpu")]),
            "STANDIN_LOG": str(log),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), log.read_text().split()


@pytest.mark.slow
def test_a_training_in_slices_ends_as_one(tmp_path, labelled, tiny, home):
    found, calls = on_zero_gpu(tmp_path, labelled, tiny, "0 0 60", 5)
    assert found["state"] == "finished", found
    assert calls.count("train_slice") == 3
    assert found["sides"] == ["base", "tuned"] and len(found["ends"]) == 2
    assert "25,000 characters" in found["fault"]
    assert found["n"] == 6 and found["told"][-1] == [6, 6]
    run = runs.named("zero")
    steps = [row["step"] for row in run.metrics() if "loss" in row]
    assert steps == sorted(set(steps)), "one curve"
    assert (run.model_path / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_a_call_that_is_killed_leaves_a_run_to_resume(tmp_path, labelled, tiny, home):
    """The time is over before the slice knows: the process is killed, and the run says so."""
    found, _ = on_zero_gpu(tmp_path, labelled, tiny, "60", 100, STANDIN_DURATION="7")
    assert (
        found["state"] == "failed" and found["cut_off"] and "No GPU could be had (GPU task aborted)" in found["error"]
    )


def test_without_quota_a_run_can_be_resumed(monkeypatch, labelled, tiny):
    def refuse(path: str, seconds: float) -> str:
        raise RuntimeError("You have exceeded your GPU quota")

    monkeypatch.setattr(gpu_calls, "train_slice", refuse)
    run = runs.create("zero", "zero", {"settings": TrainConfig(data=labelled, model=tiny).to_json()})
    turns.join(run)
    gpu_calls.train_in_slices(run)
    assert run.status()["state"] == "failed" and run.status()["cut_off"]
    assert "exceeded your GPU quota" in run.status()["error"]


def test_a_visitors_run_has_no_token_whoever_goes_on_with_it(monkeypatch, labelled, tiny):
    tokens = []
    monkeypatch.setattr("sftdemo.training.train.train", lambda *_, **__: tokens.append(hub.token()))
    for name, visitor in (("owners", ""), ("visitors", "key")):
        run = runs.create(name, name, {"settings": TrainConfig(data=labelled, model=tiny).to_json()})
        if visitor:
            starter.note(run, visitor, 5)
        turns.join(run)
        gpu_calls.train_slice(str(run.path), 1)  # by the app at its start, for whom the owner's token is there
    assert tokens == [None, False] and hub.token() is None


def test_slices_without_a_step_end(monkeypatch, labelled, tiny):
    def idle(path: str, seconds: float) -> str:
        run.write_status("stopped", step=0, total=9, cut_off=True)
        return ""

    monkeypatch.setattr(gpu_calls, "train_slice", idle)
    run = runs.create("zero", "zero", {"settings": TrainConfig(data=labelled, model=tiny).to_json()})
    turns.join(run)
    gpu_calls.train_in_slices(run)
    assert "No step of this training fits" in run.status()["error"]


def test_a_stop_between_two_slices_blocks_nobody(monkeypatch, labelled, tiny):
    def one(path: str, seconds: float) -> str:
        run.write_status("queued", turn=1, step=3, total=9)
        run.ask_to_stop()
        return ""

    monkeypatch.setattr(gpu_calls, "train_slice", one)
    run = runs.create("zero", "zero", {"settings": TrainConfig(data=labelled, model=tiny).to_json()})
    turns.join(run)
    gpu_calls.train_in_slices(run)
    status = run.status()
    assert (status["state"], status["step"], status["total"]) == ("stopped", 3, 9)
    assert runs.active() == [] and not run.stop_asked


def test_elsewhere_the_decorator_does_nothing(monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)

    def task() -> int:
        return 3

    assert zero_gpu.gpu_call(9)(task) is task and not zero_gpu.without_gpu()
    assert "spaces" not in sys.modules
