"""An interrupted training goes on to the curve and the weights of one that wasn't: killed, stopped, out of disk or of time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.runs import Run
from sftdemo.training import checkpoints
from sftdemo.training.train import train
from tests.listener import Listener

STEPS = 18  # two epochs of 72 rows by 8


def config(labelled: str, tiny: str, **changes: Any) -> TrainConfig:
    settings = {"data": labelled, "model": tiny, "epochs": 2.0, "learning_rate": 5e-3, "precision": "float32"}
    return TrainConfig.from_json({**settings, "checkpoint_every": 4, **changes})


def forked(work: Callable[[], object]) -> multiprocessing.Process:
    """A process of its own for the work; torch is imported already."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def train_and_die(settings: TrainConfig, step: int, word: int = signal.SIGKILL) -> int:
    """Train in another process, which gets the signal after that step; returns its exit code."""

    def die(row: dict[str, Any]) -> None:
        if row["step"] == step and "loss" in row:
            os.kill(os.getpid(), word)

    process = forked(lambda: train(settings, reporter=Listener(die)))
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def curve(run: Run) -> list[tuple[Any, ...]]:
    return [tuple(row.get(key) for key in ("step", "loss", "learning_rate", "grad_norm", "eval_loss")) for row in run.metrics()]  # fmt: skip


def assert_same(run: Run, whole: Run) -> None:
    assert curve(run) == curve(whole)
    steps = [row["step"] for row in run.metrics() if "loss" in row]
    assert steps == sorted(set(steps))
    weights, expected = (load_file(next(each.model_path.glob("*.safetensors"))) for each in (run, whole))
    assert weights.keys() == expected.keys() and all(torch.equal(weights[key], expected[key]) for key in weights)
    status, reference = run.status(), whole.status()
    for key in ("state", "step", "total", "steps", "train_loss", "eval_loss", "first_eval_loss"):
        assert status[key] == reference[key], key
    assert not checkpoints.folder(run).exists() and not list(run.path.glob(".*"))


KINDS = {
    "lora": {},
    "lora-dropout": {"lora_dropout": 0.2, "gradient_accumulation": 2, "batch_size": 4},
    "full": {"method": "full"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_goes_on_to_the_same_curve(labelled, tiny, kind):
    train(config(labelled, tiny, name="whole", **KINDS[kind]))
    settings = config(labelled, tiny, name="r", **KINDS[kind])
    assert train_and_die(settings, 6) == -signal.SIGKILL
    run = runs.find("r")
    assert run.status()["state"] == "failed" and checkpoints.exists(run)
    listener = Listener()
    summary = train(TrainConfig(resume="r"), reporter=listener)
    assert "Run r goes on after step 4 of 18." in listener.notes and summary["resumed"] == [4]
    assert_same(run, runs.find("whole"))
