"""An interrupted training goes on to the curve and the weights of one that wasn't: killed, stopped, out of disk or of time."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import label_rows
from listener import Listener
from safetensors.torch import load_file

from sftdemo import files, runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.runs import Run
from sftdemo.training import chat_learner, checkpoints, trainer
from sftdemo.training import resume as resumption
from sftdemo.training.train import train
from sftdemo.verbs import jobs
from tests.interrupting import at_step, curve, forked, signal_self

# Dropout draws random numbers, and two batches make a step, so that every state there is has to be the same.
LORA = {"lora_dropout": 0.2, "gradient_accumulation": 2, "batch_size": 4}
KINDS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "full": {"method": "full"},
    "padded": {"lora_dropout": 0.2},
    "int8": {"quantization": "int8"},
    "nf4": {"quantization": "nf4"},
}
STEPS = 18  # two epochs of 72 rows by 8
EVERY = 4


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("moods") / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(100)), encoding="utf-8")
    return str(path)


def config(moods: str, tiny: str, kind: str = "lora", **changes: Any) -> TrainConfig:
    settings = {"data": moods, "model": tiny, "epochs": 2.0, "learning_rate": 5e-3, "precision": "float32", "name": "r"}
    return TrainConfig.from_json({**settings, "checkpoint_every": EVERY, **KINDS[kind], **changes})


@pytest.fixture(scope="module")
def whole(moods: str, tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """The uninterrupted run of each kind, trained once."""
    trained: dict[str, Run] = {}

    def run(kind: str) -> Run:
        if kind not in trained:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SFTDEMO_HOME", str(tmp_path_factory.mktemp("whole")))
                if kind == "padded":
                    patch.setattr(chat_learner.packed_attention, "enable", lambda model: False)
                train(config(moods, tiny, kind))
                trained[kind] = runs.find("r")
        return trained[kind]

    return run


@pytest.fixture
def run(home: Path) -> Run:
    return Run(home / "runs" / "r")


def assert_same(run: Run, whole: Run) -> None:
    """The same curve to the last digit, each step once, the same weights, and nothing left behind."""
    assert curve(run) == curve(whole)
    steps = [row["step"] for row in run.metrics() if "loss" in row]
    assert steps == list(range(1, STEPS + 1))
    weights, expected = (load_file(next(each.model_path.glob("*.safetensors"))) for each in (run, whole))
    assert weights.keys() == expected.keys() and all(torch.equal(weights[key], expected[key]) for key in weights)
    status, reference = run.status(), whole.status()
    for key in ("state", "step", "total", "steps", "train_loss", "eval_loss", "first_eval_loss"):
        assert status[key] == reference[key], key
    assert status["tokens_per_s"] > 0 and "cut_off" not in status
    assert not checkpoints.folder(run).exists() and not list(run.path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_goes_on_to_the_same_curve(moods, tiny, run, whole, kind, monkeypatch):
    if kind == "padded":
        monkeypatch.setattr(chat_learner.packed_attention, "enable", lambda model: False)
    settings = config(moods, tiny, kind)
    assert forked(lambda: train(settings, reporter=at_step(14, signal_self(signal.SIGKILL)))) == -signal.SIGKILL
    assert run.status()["state"] == "failed" and run.status()["cut_off"]
    assert runs.cut_off() == [run] and jobs.can_resume(run)
    listener = Listener()
    summary = train(TrainConfig(resume="r"), reporter=listener)
    assert "Run r goes on after step 12 of 18." in listener.notes and summary["resumed"] == [12]
    assert_same(run, whole(kind))


def test_what_killed_processes_were_writing_goes(run):
    run.path.mkdir(parents=True)
    gone = forked(lambda: (run.path / f".status.json.{os.getpid()}.1.part").touch())
    (run.path / f".voting.json.{os.getpid()}.1.part").touch()
    assert gone == 0 and len(list(run.path.glob(".*.part"))) == 2
    run.remove_unfinished()
    assert [path.name for path in run.path.iterdir()] == [f".voting.json.{os.getpid()}.1.part"]


@pytest.mark.slow
def test_sigterm_saves_before_it_goes(moods, tiny, run, whole):
    summary = train(config(moods, tiny), reporter=at_step(7, signal_self(signal.SIGTERM)))
    assert (summary["status"], summary["steps"], summary["eval_loss"]) == ("stopped", 7, None)
    assert run.status()["cut_off"] and run.model_path.is_dir()
    train(TrainConfig(resume="r"))
    assert_same(run, whole("lora"))


@pytest.mark.slow
def test_signals_while_it_saves_change_nothing(moods, tiny, run, whole, monkeypatch):
    save = trainer._save

    def impatient(*arguments: Any) -> None:
        for _ in range(4):
            os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "_save", impatient)
    summary = train(config(moods, tiny), reporter=at_step(9, signal_self(signal.SIGINT)))
    assert summary["status"] == run.status()["state"] == "stopped" and run.model_path.is_dir()
    monkeypatch.setattr(trainer, "_save", save)
    # Step 9 is an epoch's last; the order of the next one is the same, too.
    train(TrainConfig.from_json(run.config()["settings"]), run)
    assert_same(run, whole("lora"))


def test_a_third_signal_ends_a_step_and_says_what_is_left(moods, tiny, run):
    def thrice() -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config(moods, tiny), reporter=at_step(6, thrice))
    assert run.status()["error"] == "Stopped between two checkpoints; --resume goes on from the last one."
    assert resumption.start(run).checkpoint.step == 4


@pytest.mark.slow
def test_slices_of_time_make_one_run(moods, tiny, run, whole):
    """Without any time a slice has one step, else it would never end."""
    settings = config(moods, tiny)
    assert train(settings, time_limit=0)["steps"] == 1
    assert run.status()["state"] == "stopped" and run.status()["cut_off"] and run.model_path.is_dir()
    assert train(settings, run, time_limit=0)["steps"] == 2
    assert train(settings, run, time_limit=3600)["resumed"] == [1, 2]
    assert_same(run, whole("lora"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["_digest", "_sync", "_remove_older"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_last_one(moods, tiny, run, place):
    """The second of them: what is half there isn't gone on from, and goes."""

    def dying() -> None:
        work = getattr(checkpoints, place)

        def last_call(*arguments: Any) -> Any:
            if (checkpoints.folder(run) / "checkpoint-4").exists() and list(
                checkpoints.folder(run).glob("*/*-8")
            ) + list(checkpoints.folder(run).glob("*-8")):
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*arguments)

        setattr(checkpoints, place, last_call)
        train(config(moods, tiny))

    assert forked(dying) == -signal.SIGKILL
    start = resumption.start(run)
    assert start.checkpoint.step == (8 if place == "_remove_older" else 4)
    assert train(TrainConfig(resume="r"), time_limit=0)["steps"] == start.checkpoint.step + 1
    assert not checkpoints.part(run).exists()


@pytest.fixture
def stopped(moods: str, tiny: str, run: Run) -> Run:
    """A run stopped after step 9, with the checkpoints of steps 8 and 9."""
    train(config(moods, tiny), reporter=at_step(9, run.ask_to_stop))
    assert {path.name for path in checkpoints.folder(run).iterdir()} == {"checkpoint-8", "checkpoint-9"}
    return run


def damage_file(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of the optimizer": lambda path: damage_file(path / "optimizer.pt"),
    "cut weights": lambda path: os.truncate(path / "adapter_model.safetensors", 100),
    "no random states": lambda path: (path / "rng_state.pth").unlink(),
    "no manifest": lambda path: (path / checkpoints.MANIFEST).unlink(),
    "a manifest of rubbish": lambda path: (path / checkpoints.MANIFEST).write_text('{"step": '),
    "a manifest of another kind": lambda path: (path / checkpoints.MANIFEST).write_text("[]"),
}


def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(stopped, whole):
    newest, older = (checkpoints.folder(stopped) / f"checkpoint-{step}" for step in (9, 8))
    for number, (name, damage) in enumerate(DAMAGE.items()):
        shutil.copytree(newest, kept := stopped.path / f"kept-{number}")
        damage(newest)
        start = resumption.start(stopped)
        assert start.checkpoint.step == 8 and "checkpoint-9 is damaged" in start.notes[0], name
        shutil.rmtree(newest)
        kept.rename(newest)
    damage_file(newest / "scheduler.pt")
    damage_file(older / "optimizer.pt")
    before = files.read_json(stopped.path / "status.json"), curve(stopped)
    with pytest.raises(
        UserError, match=r"no whole checkpoint to go on from: checkpoint-9 is damaged: scheduler\.pt"
    ) as caught:
        train(TrainConfig(resume="r"))
    assert "\n" not in str(caught.value)
    assert (files.read_json(stopped.path / "status.json"), curve(stopped)) == before


def test_what_would_make_another_curve_is_refused_and_the_run_left_as_it_is(stopped, tiny, tmp_path, monkeypatch):
    status = files.read_json(stopped.path / "status.json")
    with pytest.raises(UsageError, match="own settings; leave out seed, epochs"):
        train(TrainConfig(resume="r", epochs=3, seed=1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="trained by 1 processes, and now there are 2"):
        resumption.start(stopped)
    monkeypatch.delenv("WORLD_SIZE")
    data = stopped.path / "data" / "train.jsonl"
    text = data.read_text()
    data.write_text(text.replace("good", "fine"))
    with pytest.raises(UserError, match=r"data/train.jsonl of run r isn't what the run was trained on"):
        train(TrainConfig(resume="r"))
    data.write_text(text)
    assert files.read_json(stopped.path / "status.json") == status
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    damage_file(other / "model.safetensors")
    stored = files.read_json(stopped.path / "config.json")
    files.write_json(stopped.path / "config.json", {**stored, "settings": {**stored["settings"], "model": str(other)}})
    with pytest.raises(UserError, match="can't go on: the weights of the base model are not what they were"):
        train(TrainConfig(resume="r"))
    # It was stopped with a model that is as good as it was.
    assert stopped.status()["state"] == "stopped" and "weights of the base" in stopped.status()["error"]
    assert resumption.start(stopped).checkpoint.step == 9


@pytest.mark.slow
def test_the_child_never_begins_a_second_curve(moods, tiny, run, whole):
    """A run without a checkpoint begins anew, said so, and its source need not be there any more."""
    copied = run.path.parent.parent / "upload.jsonl"
    copied.parent.mkdir(parents=True)
    shutil.copy(moods, copied)
    settings = config(str(copied), tiny, checkpoint_every=0)
    assert forked(lambda: train(settings, reporter=at_step(5, signal_self(signal.SIGKILL)))) == -signal.SIGKILL
    copied.unlink()
    listener = Listener()
    train(settings, run, listener)
    assert "Run r has no checkpoint to go on from; it begins at step 0." in listener.notes
    assert_same(run, whole("lora"))
    with pytest.raises(UserError, match="Run r is finished after 18 steps; there is nothing to resume"):
        train(settings, run)
    assert_same(run, whole("lora"))


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_a_word(moods, tiny, run, whole, monkeypatch):
    write = files.write_text
    usage = shutil.disk_usage(run.path.parents[3])

    def full() -> None:
        def refuse(path: Path, *rest: Any, **named: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(files, "write_text", refuse)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))

    with pytest.raises(UserError, match="is full; make room and try again"):
        train(config(moods, tiny), reporter=at_step(10, full))
    monkeypatch.setattr(files, "write_text", write)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert run.status()["state"] == "failed" and "is full" in run.status()["error"]
    assert resumption.start(run).checkpoint.step == 8
    train(TrainConfig(resume="r"))
    assert_same(run, whole("lora"))


@pytest.mark.slow
def test_thirty_kills_at_any_moment_lose_nothing(moods, tiny, run, whole):
    """Each kill comes as late after the start as chance will have it; then the run goes on."""
    draw = random.Random(7)
    settings = config(moods, tiny, checkpoint_every=1)
    finished = 0
    for _ in range(30):
        after = draw.uniform(0, 2)

        def dying(after: float = after) -> None:
            threading.Timer(after, signal_self(signal.SIGKILL)).start()
            train(settings, run if run.path.exists() else None)

        forked(dying)
        finished += ended_well(run, whole("lora"))
    if run.path.exists():
        train(settings, run)
        finished += ended_well(run, whole("lora"))
    assert finished


def ended_well(run: Run, whole: Run) -> bool:
    """Whether the run is finished; then it is as it should be, and makes room for the next."""
    if not run.path.exists() or run.status()["state"] != "finished":
        return False
    shutil.rmtree(checkpoints.folder(run), ignore_errors=True)  # the kill may have come just before that
    run.remove_unfinished()
    assert_same(run, whole)
    run.delete()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("pissa", [True, False])
def test_another_kind_of_device_is_told_and_pissa_refuses_it(moods, tiny, pissa):
    train(
        config(moods, tiny, lora_r=4, pissa=pissa, max_steps=4),
        reporter=at_step(2, lambda: runs.find("r").ask_to_stop()),
    )
    path = runs.find("r").path / "checkpoints" / "checkpoint-2" / "checkpoint.json"
    files.write_json(path, {**files.read_json(path), "device": "cuda"})
    heard = Listener()
    if pissa:
        with pytest.raises(
            UserError, match="Run r began with pissa on cuda, and on cpu the weights would be taken apart"
        ):
            train(TrainConfig(resume="r"))
        assert runs.find("r").model_path.is_dir(), "what was learned until then is as good as it was"
    else:
        assert train(TrainConfig(resume="r"), reporter=heard)["resumed"] == [2]
        assert any("Trained on cuda before, now on cpu" in text for text in heard.notes)
