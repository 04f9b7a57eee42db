"""A budget of minutes: how much of it is used, when a training has to end, and the learning rate that fits it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text
from sftdemo.schema.run import BudgetState

LEAST_RATE = 0.1  # of the peak, at the start of the warm-up: no step is spent on a rate of 0
POINTS = 1000  # of a curve, spread over the time
EVALUATIONS, EVALUATION_SHARE = 8, 0.1  # validations on the way, and what of the time they take, at most
SAVING_S = 1.0  # what saving takes at least, until it was measured


@dataclass
class Budget:
    """The time that a training may take; `used` seconds were spent before this stretch, which `began` at a monotonic time."""

    seconds: float
    used: float
    began: float
    share: float = 0.0  # of the training's own time at the end of this step; all processes take rank zero's
    evaluation: float = 0.0  # seconds that the validation loss takes

    @classmethod
    def of(cls, minutes: float | None, began: float, state: BudgetState | None) -> Budget | None:
        """The budget, if there is one; `state` is what a checkpoint keeps of it."""
        if minutes is None:
            return None
        kept = state or {"spent": 0.0, "share": 0.0, "evaluation": 0.0}
        return cls(60 * minutes, kept["spent"], began, kept["share"], kept["evaluation"])

    def state(self, step: float, saving: float) -> BudgetState:
        """With the seconds that the last step and the last saving took."""
        return {"spent": self.spent, "share": self.share, "evaluation": self.evaluation, "step": step, "saving": saving}

    @property
    def spent(self) -> float:
        """Seconds of all stretches, with loading."""
        return self.used + time.monotonic() - self.began

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def room(self, saving: float) -> float:
        """Seconds left for training: without the last validation loss and the saving, as long as it took so far."""
        return max(self.left - max(saving, SAVING_S) - self.evaluation, 0.0)

    def share_after(self, trained: float, step: float, saving: float) -> float:
        """The share of the training time that is over after a step of so many seconds, `trained` of which are over now."""
        whole = trained + self.room(saving)
        return min((trained + step) / whole, 1.0) if whole > 0 else 1.0

    def evaluation_due(self, share: float, all_of_them: bool) -> bool:
        """Whether the next of the validations on the way, spread evenly over the time, lies before this share.

        There are fewer where they would take long, unless `all_of_them` are wanted."""
        between = int(EVALUATION_SHARE * self.seconds / self.evaluation) - 2 if self.evaluation > 0 else 0
        parts = (EVALUATIONS if all_of_them else min(EVALUATIONS, max(between, 0))) + 1
        return share < 1 and int(share * parts) > int(self.share * parts)

    def log_due(self, share: float) -> bool:
        """Whether the curve's next point lies before this share."""
        return self.share == 0 or share >= 1 or int(share * POINTS) > int(self.share * POINTS)

    def rate(self, config: TrainConfig, step: int) -> float:
        """The factor of the peak learning rate: up over a share of the time, or so many steps, then as the schedule falls."""
        share, warmup = self.share, config.warmup_ratio
        if config.warmup_steps is not None:  # how much of the time they take isn't known before
            warmed = step / config.warmup_steps if step < config.warmup_steps else 1.0
            return max(LEAST_RATE, warmed) * _falling(config.schedule, share)
        if share < warmup:
            return max(LEAST_RATE, share / warmup)
        return _falling(config.schedule, (share - warmup) / (1.0 - warmup) if warmup < 1 else 0.0)


def warmup_note(config: TrainConfig) -> Text | None:
    """What a plan says of a warm-up that lasts until the training ends, or may: nobody knows yet how many steps fit."""
    if config.warmup_steps is None and config.warmup_ratio == 1:
        return Text("warmup_ratio is 1: the learning rate rises until the training ends; give less.")
    if config.warmup_steps and config.max_minutes is not None:
        return Text(
            "warmup_steps is {warmup}: where fewer steps fit into {minutes} min, the warm-up never ends; with warmup_ratio it "
            "takes a share of the time.",
            warmup=config.warmup_steps,
            minutes=f"{config.max_minutes:.10g}",
        )
    return None


def _falling(schedule: str, progress: float) -> float:
    """The factor after the share `progress` of the way from the peak to the end."""
    return {"linear": 1.0 - progress, "cosine": (1.0 + math.cos(math.pi * progress)) / 2, "constant": 1.0}[schedule]
