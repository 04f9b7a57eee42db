"""Trackers that a training's curves also go to, by the Trainer's own names."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import netrc
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sftdemo import runs
from sftdemo.config.train import TRACKERS, TrainConfig
from sftdemo.errors import Text, UserError, unexpected
from sftdemo.log import Reporter

SECONDS = 10  # that a server is waited for

_own: dict[str, str] = {}  # variables that were set here, which the next training may set otherwise


def check(config: TrainConfig, reporter: Reporter) -> None:
    """Raise UserError where the package of a tracker isn't installed; say where curves stay on this machine."""
    for name in config.trackers:
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise UserError(
                "report_to {name} needs a package that isn't here; run: pip install {package}.",
                name=name,
                package=TRACKERS[name],
            )
    if "wandb" in config.trackers and _variables("wandb").get("WANDB_MODE") == "offline":
        reporter.info(
            Text(
                "wandb has no account here (wandb login, or WANDB_API_KEY): its curves are kept in {folder}, for wandb sync.",
                folder=runs.home() / "wandb",
            )
        )


def use(config: TrainConfig, run: runs.Run) -> list[str]:
    """The Trainer's `report_to`; TensorBoard's files lie in the run's folder, the others take the run's name and keep what
    stays on this machine beside the runs, unless their own variables say otherwise."""
    if "tensorboard" in config.trackers:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.path / "tensorboard")
    for name in config.trackers:
        for key, value in _variables(name).items():
            _own[key] = os.environ[key] = value
    return list(config.trackers) or ["none"]


@contextlib.contextmanager
def kept_open(trainer: Any, reporter: Reporter) -> Iterator[None]:
    """Within this block curves go on after the Trainer's last step, for the last validation: MLflow would begin another curve
    with that. At its end they are closed, as failed where something is raised; one that the caller has begun stays open."""
    from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

    names = list(trainer.args.report_to)
    kinds = tuple(get_reporting_integration_callbacks(names))
    callbacks = [each for each in trainer.callback_handler.callbacks if isinstance(each, kinds)]
    ends = [callback.on_train_end for callback in callbacks]
    opened_here = [name for name in names if not _is_open(name)]
    for callback in callbacks:
        callback.on_train_end = lambda *_, **__: None
        if isinstance(callback, TensorBoardCallback) and trainer.is_world_process_zero():
            _write_on(callback, trainer.watch.saved_step)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # what was raised first is told
            _close(opened_here, "FAILED")
            _end(ends, trainer)
        raise
    try:
        _end(ends, trainer)
        _close(opened_here, "FINISHED")
    except Exception as error:  # noqa: BLE001 (the model is saved by now)
        reporter.info((fault(error) or UserError(unexpected(error))).text)


def _write_on(callback: Any, step: int) -> None:
    """Let TensorBoard drop what the run's files have of later steps than the one it goes on after: these come again."""
    from torch.utils.tensorboard import SummaryWriter

    callback.tb_writer = SummaryWriter(callback.logging_dir, purge_step=step + 1 if step else 0)


def _end(ends: Sequence[Callable[..., Any]], trainer: Any) -> None:
    for end in ends:
        end(trainer.args, trainer.state, trainer.control, model=trainer.model)
        end.__self__._auto_end_run = False  # type: ignore[attr-defined]  # MLflow's, once collected, would end the next curve


def _is_open(name: str) -> bool:
    """Whether this process has a curve open that the Trainer would go on with."""
    if name not in ("wandb", "mlflow"):
        return False
    package: Any = importlib.import_module(name)
    return (package.run if name == "wandb" else package.active_run()) is not None


def _close(names: Collection[str], state: str) -> None:
    """Close what the Trainer leaves open, in MLflow's word for how it ended, so that the next training has its own curve."""
    if "mlflow" in names:
        importlib.import_module("mlflow").end_run(state)
    if "wandb" in names:
        importlib.import_module("wandb").finish(exit_code=int(state == "FAILED"))


def _variables(name: str) -> dict[str, str]:
    """What a tracker is told where the user's own environment says nothing."""
    home = runs.home().absolute()
    wanted = {
        "trackio": {"TRACKIO_DIR": str(home / "trackio")},
        "mlflow": {
            "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SECONDS),
        },
        "wandb": {
            "WANDB_DIR": str(home),
            "WANDB_INIT_TIMEOUT": str(SECONDS),
            "WANDB_SILENT": "true",
            **({} if _wandb_account() else {"WANDB_MODE": "offline"}),
        },
    }.get(name, {})
    return {key: value for key, value in wanted.items() if os.environ.get(key) in (None, _own.get(key))}


def _wandb_account() -> bool:
    """Whether somebody has signed in; without that wandb would ask on the terminal, or end the training."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"):
        try:
            if path and netrc.netrc(str(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def fault(error: BaseException) -> UserError | None:
    """A tracker's own error in one line; None for any other."""
    package = type(error).__module__.partition(".")[0]
    name = next((name for name, own in TRACKERS.items() if own == package), None)
    if name is None:
        return None
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return UserError(
        "report_to {name} doesn't work: {reason}. Fix that, or leave it out.",
        name=name,
        reason=reason.rstrip("."),
    )
