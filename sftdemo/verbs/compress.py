"""A smaller student of a run: some of its layers left out, or another model of the same tokens; healed by the run itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from sftdemo import runs
from sftdemo.config.read import ReadConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UsageError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.schema.run import Summary

# The settings that a student can't be given: they are its teacher's.
TEACHERS = ("teacher", "resume", *(spec.name for spec in dataclasses.fields(ReadConfig) if spec.name != "seed"))
SHARED = ("thinking", "max_length", "on_long", "chunk_overlap", "seed")  # as the teacher has it, unless said otherwise


def student_settings(teacher: runs.Run, changes: dict[str, Any]) -> TrainConfig:
    """The settings of a student; `changes` are those that were asked for. Raises UsageError where nothing gets smaller."""
    if not changes.get("drop_layers") and not changes.get("model"):
        raise UsageError("Nothing gets smaller; give drop_layers, or as model a smaller one with the same tokens.")
    own = TrainConfig.from_json(teacher.trained_config()["settings"])
    shared = {name: getattr(own, name) for name in SHARED}
    return TrainConfig.from_json({**shared, "method": "full", **changes, "teacher": teacher.name})


def compress(
    run: runs.Run | str, drop_layers: int = 0, reporter: Reporter = TO_LOG, wait: bool = True, **settings: Any
) -> Summary:
    """Train a student of a run on the run's own training rows, and return what `train` returns; the student is a run.

    It begins as the run without `drop_layers` of its layers, or as another `model` with the same tokens. `settings` are those
    of TrainConfig, such as name, epochs, learning_rate, kd_ratio and kd_temperature. Raises UserError as `train` does.
    """
    from sftdemo.training.train import train

    teacher = runs.find(run) if isinstance(run, str) else run
    return train(student_settings(teacher, {"drop_layers": drop_layers, **settings}), None, reporter, wait=wait)
