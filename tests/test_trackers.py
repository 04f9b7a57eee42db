"""The curves beside the run's folder: TensorBoard reads them; what isn't there or isn't allowed is refused."""

from __future__ import annotations

import pytest

from sftdemo import runs, train
from sftdemo.config import TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.training import trackers
from sftdemo.ui.access import rights, sources


def test_tensorboard_reads_the_curves(labelled: str, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    train(TrainConfig(data=labelled, model=tiny, name="r", max_steps=4, report_to="tensorboard"))
    run = runs.find("r")
    curves = EventAccumulator(str(run.path / "tensorboard"))
    curves.Reload()
    losses = {event.step: event.value for event in curves.Scalars("train/loss")}
    assert losses == pytest.approx({row["step"]: row["loss"] for row in run.metrics() if "loss" in row})
    assert [event.step for event in curves.Scalars("eval/loss")]


def test_a_tracker_that_is_not_there_is_refused_before_training(labelled: str, tiny: str) -> None:
    with pytest.raises(UsageError, match="report_to has 'comet', which is no tracker; there are: tensorboard"):
        TrainConfig(data=labelled, report_to="tensorboard,comet").check()
    with pytest.raises(UserError, match="needs a package that isn't here; run: pip install mlflow"):
        train(TrainConfig(data=labelled, model=tiny, name="m", report_to="mlflow"))
    assert trackers.use(TrainConfig(data=labelled), runs.Run(runs.home() / "any")) == ["none"]


def test_only_the_owner_says_where_curves_go() -> None:
    stranger = rights.Visitor("visitor", "k")
    with pytest.raises(UserError, match="the owner's choice"):
        sources.check(TrainConfig(data="support_tickets", report_to="wandb"), stranger)
