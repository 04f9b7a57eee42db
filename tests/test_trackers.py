"""The curves beside the run's folder: TensorBoard reads them; what isn't there or isn't allowed is refused."""

from __future__ import annotations

import importlib
import signal

import pytest
from test_resume import at_step, forked, signal_self

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
    assert len(list((run.path / "tensorboard").iterdir())) == 1, "the last validation belongs to the same curve"
    curves = EventAccumulator(str(run.path / "tensorboard"))
    curves.Reload()
    losses = {event.step: event.value for event in curves.Scalars("train/loss")}
    assert losses == pytest.approx({row["step"]: row["loss"] for row in run.metrics() if "loss" in row})
    assert [event.step for event in curves.Scalars("eval/loss")]


@pytest.mark.slow
@pytest.mark.parametrize("every", [4, 0])
def test_tensorboard_has_each_step_once_where_a_killed_run_goes_on(labelled: str, tiny: str, every: int) -> None:
    """After a checkpoint, or from the start where there is none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"data": labelled, "model": tiny, "name": "r", "batch_size": 4, "evaluate_every": 3}
    config = TrainConfig(**settings, checkpoint_every=every, report_to="tensorboard")
    for at in (6, 10):
        asked = config if at == 6 else TrainConfig(resume="r")
        kill = at_step(at, signal_self(signal.SIGKILL))
        assert forked(lambda asked=asked, kill=kill: train(asked, reporter=kill)) == -signal.SIGKILL
    run = runs.find("r")
    train(TrainConfig(resume="r"))
    curves = EventAccumulator(str(run.path / "tensorboard"))
    curves.Reload()
    for tag, key in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        shown = [(event.step, pytest.approx(event.value)) for event in curves.Scalars(tag)]
        assert [(row["step"], row[key]) for row in run.metrics() if key in row] == shown


def mlflow_curves(runs_named: str) -> list[dict[int, float]]:
    client = importlib.import_module("mlflow").MlflowClient()
    kept = [each for each in client.search_runs(["0"]) if each.info.run_name == runs_named]
    assert all(each.info.status == "FINISHED" for each in kept)
    return [{row.step: row.value for row in client.get_metric_history(each.info.run_id, "eval_loss")} for each in kept]


def trackio_curves(runs_named: str) -> list[dict[int, float]]:
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    kept = [each for each in importlib.import_module("trackio").Api().runs("huggingface") if each.name == runs_named]
    rows = [storage.get_logs("huggingface", each.name, run_id=each.id) for each in kept]
    return [{row["train/global_step"]: row["eval/loss"] for row in each if "eval/loss" in row} for each in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "curves"), [("mlflow", mlflow_curves), ("trackio", trackio_curves)])
def test_each_training_is_one_curve_with_its_last_validation(labelled, tiny, name, curves):
    """Two in one process; what isn't among the requirements is tried where it is installed."""
    pytest.importorskip(name)
    for run_name in ("first", "second"):
        settings = {"name": run_name, "max_steps": 4, "evaluate_every": 3, "report_to": name}
        train(TrainConfig(data=labelled, model=tiny, **settings))
        measured = {row["step"]: row["eval_loss"] for row in runs.find(run_name).metrics() if "eval_loss" in row}
        assert list(measured) == [0, 3, 4] and curves(run_name) == [pytest.approx(measured)]


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
