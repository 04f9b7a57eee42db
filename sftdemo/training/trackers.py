"""Trackers that a training's curves also go to, by the Trainer's own names."""

from __future__ import annotations

import importlib.util
import os

from sftdemo import runs
from sftdemo.config import TRACKERS, TrainConfig
from sftdemo.errors import UserError


def check(config: TrainConfig) -> None:
    """Raise UserError where the package of a tracker isn't installed."""
    for name in config.trackers:
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise UserError(
                "report_to {name} needs a package that isn't here; run: pip install {package}.",
                name=name,
                package=TRACKERS[name],
            )


def use(config: TrainConfig, run: runs.Run) -> list[str]:
    """The Trainer's `report_to`; TensorBoard's files lie in the run's folder, the others take the run's name."""
    if "tensorboard" in config.trackers:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.path / "tensorboard")
    return list(config.trackers) or ["none"]
