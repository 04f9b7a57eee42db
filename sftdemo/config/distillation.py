"""The settings of a student: a run that learns from another run, its teacher."""

from __future__ import annotations

from dataclasses import dataclass

from sftdemo.config.read import ReadConfig
from sftdemo.config.settings import setting
from sftdemo.errors import Text


@dataclass(frozen=True)
class DistillationConfig(ReadConfig):
    """What a run learns from a teacher."""

    teacher: str | None = setting(
        None,
        "Distil this run: learn the probabilities that it gives each token, on its own training rows.",
        group="Distillation",
        rare=True,
    )
    drop_layers: int = setting(
        0,
        "Begin as the teacher without so many of its layers, those that change the hidden states least; needs teacher.",
        group="Distillation",
        rare=True,
        low=0,
        high=1000,
    )
    kd_ratio: float = setting(
        0.5,
        "Share of the loss that is the distance to the teacher (KL divergence); the rest is the labels' own loss.",
        group="Distillation",
        rare=True,
        low=0,
        high=1,
    )
    kd_temperature: float = setting(
        2.0,
        "Both distributions are softened by it before they are compared; 1 leaves them as they are.",
        group="Distillation",
        rare=True,
        low=0.1,
        high=100,
    )

    def problems(self) -> list[Text]:
        problems = super().problems()
        if not self.are_typed():
            return problems
        if not self.teacher:
            problems += [
                Text("{name} is for a student; give its teacher, too.", name=Text(name))
                for name in ("drop_layers", "kd_ratio", "kd_temperature")
                if getattr(self, name) != getattr(DistillationConfig, name)
            ]
        elif self.drop_layers and (getattr(self, "method", "full") != "full" or getattr(self, "train_only", None)):
            problems.append(
                Text(
                    "drop_layers changes the model itself, so all its weights are trained; use method full without train_only."
                )
            )
        return problems
