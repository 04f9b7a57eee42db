"""Which step had the lowest validation loss, and whether a training has gone on for long enough without a lower one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftdemo.schema import MetricsRow

if TYPE_CHECKING:
    from sftdemo.config import TrainConfig


@dataclass
class BestStep:
    """The step of lowest validation loss so far, in nats a token; untrained, step 0, is none."""

    patience: int | None  # measurements without a lower loss, after which training ends
    step: int | None = None
    loss: float = math.inf
    since: int = 0  # measurements since that step

    @classmethod
    def of(cls, config: TrainConfig, metrics: Iterable[MetricsRow]) -> BestStep | None:
        """That of a run by its metrics so far; None where the settings don't ask for it."""
        if not config.keeps_best:
            return None
        best = cls(config.patience)
        for row in metrics:
            if "eval_loss" in row:
                best.measure(row["step"], row["eval_loss"])
        return best

    def measure(self, step: int, loss: float) -> bool:
        """Whether this loss is the lowest so far; of equal ones the first counts."""
        if step == 0:
            return False
        if loss < self.loss:
            self.step, self.loss, self.since = step, loss, 0
            return True
        self.since += 1
        return False

    @property
    def patience_over(self) -> bool:
        return self.patience is not None and self.since >= self.patience
