"""The model of the lowest validation loss is kept, and a training that gets no better ends; interrupted or not."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import label_rows
from listener import Listener
from safetensors.torch import load_file
from test_resume import at_step, damage_file, forked, signal_self

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.runs import Run
from sftdemo.training import checkpoints
from sftdemo.training.early_stopping import BestStep
from sftdemo.training.train import train


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    """At so high a rate the validation loss soon rises again."""
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)), encoding="utf-8")
    return {
        "data": str(path), "model": tiny, "name": "r", "precision": "float32", "epochs": 6.0, "learning_rate": 0.008,
        "lora_dropout": 0.2, "evaluate_every": 2, "patience": 2, "checkpoint_every": 3,
    }  # fmt: skip


def losses(run: Run) -> dict[int, float]:
    """The validation loss by step; untrained, step 0, is left out."""
    return {row["step"]: row["eval_loss"] for row in run.metrics() if "eval_loss" in row and row["step"]}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def assert_equal(some: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> None:
    assert some.keys() == others.keys() and all(torch.equal(some[key], others[key]) for key in some)


# What the model of the best step is put back into.
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"method": "full", "lora_dropout": 0.0},
    "nf4": {"quantization": "nf4"},
    "dora": {"dora": True},
    "embeddings": {"modules_to_save": "both"},
    "noisy": {"neftune_alpha": 5.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_early_with_the_best_model_and_resumed_as_uninterrupted(settings, home, tmp_path, kind):
    config = TrainConfig(**settings | KINDS[kind])
    run, copies = Run(home / "runs" / "r"), tmp_path / "copies"

    def copy(row: Mapping[str, Any]) -> None:
        for path in checkpoints.folder(run).glob("checkpoint-*"):
            shutil.copytree(path, copies / path.name, dirs_exist_ok=True)

    summary = train(config, reporter=Listener(copy))
    measured = losses(run)
    best = min(measured, key=lambda step: measured[step])
    assert summary["best_step"] == run.status()["best_step"] == best and summary["eval_loss"] == measured[best]
    assert summary["early_stopped"] and summary["status"] == "finished"
    assert summary["steps"] == run.status()["step"] == run.status()["total"] == list(measured)[-1] == best + 4
    kept = weights(run.model_path)
    assert_equal(kept, weights(copies / f"checkpoint-{best}"))
    assert f"the model of step {best}, kept for its validation loss" in (run.path / "README.md").read_text()
    curve = run.metrics()
    run.delete()
    # Killed after the best step, whose checkpoint is not among the newest two any more.
    assert forked(lambda: train(config, reporter=at_step(best + 4, signal_self(signal.SIGKILL)))) == -signal.SIGKILL
    again = train(TrainConfig(resume="r"))
    names = ("steps", "best_step", "eval_loss", "early_stopped", "train_loss")
    assert [again[name] for name in names] == [summary[name] for name in names] and again["resumed"]
    assert [row.get("loss") for row in run.metrics()] == [row.get("loss") for row in curve]
    assert_equal(weights(run.model_path), kept)


@pytest.mark.slow
def test_stopped_by_hand_it_keeps_the_best_and_the_last_where_that_is_damaged(settings, home):
    run = Run(home / "runs" / "r")
    config = TrainConfig(
        **settings | {"patience": None, "keep_best": True, "checkpoint_every": 1, "learning_rate": 0.02}
    )

    def stop(row: Mapping[str, Any]) -> None:
        if row["step"] == 8 and "loss" in row:
            run.ask_to_stop()

    summary = train(config, reporter=Listener(stop))
    best = min(losses(run), key=losses(run).__getitem__)
    assert (summary["status"], summary["steps"], summary["best_step"]) == ("stopped", 8, best) and best < 6
    names = {path.name for path in checkpoints.folder(run).iterdir()}
    assert names == {"checkpoint-8", "checkpoint-7", f"checkpoint-{best}"}
    assert_equal(weights(run.model_path), weights(checkpoints.folder(run) / f"checkpoint-{best}"))
    # It goes on from the last step's model, not from the one that was kept.
    damage_file(checkpoints.folder(run) / f"checkpoint-{best}" / "adapter_model.safetensors")
    listener = Listener(stop)
    again = train(TrainConfig(resume="r"), reporter=listener, time_limit=0)
    assert (again["steps"], again["best_step"], again["eval_loss"]) == (9, 9, None)
    assert any(f"checkpoint-{best}, the best, is damaged: adapter_model" in note for note in listener.notes)


def test_what_is_the_best_step():
    rows = [{"step": step, "eval_loss": loss} for step, loss in ((0, 0.1), (1, 3.0), (2, 2.0), (3, 2.0))]
    best = BestStep.of(TrainConfig(patience=2), [*rows, {"step": 3, "loss": 1.0}])
    assert best and (best.step, best.since, best.patience_over) == (2, 1, False)
    assert not best.measure(4, float("nan")) and best.patience_over
    assert best.measure(5, 1.5) and not best.patience_over
    assert BestStep.of(TrainConfig(evaluate_every=1), rows) is None
    scored = [{"step": s, "eval_loss": 3.0 - s, "eval_score": score} for s, score in ((1, 0.5), (2, 0.75), (3, 0.75))]
    by_score = BestStep.of(TrainConfig(patience=1, best_by="accuracy"), scored)
    assert by_score and (by_score.step, by_score.loss, by_score.score) == (3, 0.0, 0.75), "of equal ones the lower loss"
    assert not by_score.measure(4, 0.0, 0.75) and by_score.patience_over and by_score.step == 3
    assert not by_score.measure(5, -1.0, 0.5) and by_score.measure(6, 9.0, 1.0)


def test_where_it_could_not_be_kept_it_is_refused(settings, tmp_path):
    with pytest.raises(UsageError, match="patience keeps the best model in a checkpoint, and checkpoint_every is 0"):
        TrainConfig(**settings | {"checkpoint_every": 0}).check()
    rows = label_rows(20)
    long = [{**row, "text": row["text"] * 30, "split": "validation"} for row in rows[:2]]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *long]), encoding="utf-8")
    for name, value in (("patience", 1), ("keep_best", True), ("evaluate_every", 5)):
        others = {"patience": None, "evaluate_every": None, name: value, "data": str(path), "max_length": 128}
        with pytest.raises(UserError, match=f"{name} needs validation rows, and none fits into max_length 128"):
            train(TrainConfig(**settings | others))
    assert not runs.list_runs()
