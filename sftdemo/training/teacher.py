"""The run that a student learns from, and what it takes in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text, UserError

if TYPE_CHECKING:
    from sftdemo.model.memory_estimate import Beside


def teacher_of(config: TrainConfig) -> runs.Run:
    """The run that a student learns from; raises UserError where it isn't there, or has no model."""
    teacher = runs.find(config.teacher or "")
    if not teacher.model_path.is_dir():
        raise UserError("Run {name} has no model to learn from; finish its training first.", name=teacher.name)
    if teacher.kind != kinds.CHAT:
        raise UserError(
            "Run {name} is of the kind {kind}; only runs of the kind chat have students.",
            name=teacher.name,
            kind=Text(teacher.kind),
        )
    return teacher


def beside(config: TrainConfig) -> Beside:
    """What a student's training holds beside the student: its teacher, as large as the teacher's base, quantized as that was."""
    from sftdemo.inference.merged import adapter_base
    from sftdemo.model import memory_estimate

    teacher = teacher_of(config)
    base = adapter_base(teacher)
    quantization = TrainConfig.from_json(teacher.trained_config()["settings"]).quantization if base else "none"
    model = memory_estimate.Model.read(base or teacher.model_path)
    return memory_estimate.Beside(model, quantization, cut=config.drop_layers > 0)
