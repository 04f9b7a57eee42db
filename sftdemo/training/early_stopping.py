"""Which step had the best validation loss or metric, and whether a training has gone on for long enough without a better one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftdemo.schema.run import MetricsRow

if TYPE_CHECKING:
    from sftdemo.config.train import TrainConfig


@dataclass
class BestStep:
    """The step of lowest validation loss so far, in nats a token, or of the highest score; untrained, step 0, is none."""

    patience: int | None  # measurements that are no better, after which training ends
    by_score: bool = False
    step: int | None = None
    loss: float = math.inf
    score: float | None = None
    since: int = 0  # measurements since that step

    @classmethod
    def of(cls, config: TrainConfig, metrics: Iterable[MetricsRow]) -> BestStep | None:
        """That of a run by its metrics so far; None where the settings don't ask for it."""
        if not config.keeps_best:
            return None
        best = cls(config.patience, config.best_by != "loss")
        for row in metrics:
            if "eval_loss" in row:
                best.measure(row["step"], row["eval_loss"], row.get("eval_score"))
        return best

    def measure(self, step: int, loss: float, score: float | None = None) -> bool:
        """Whether this is the best so far; of equal scores the one of lower loss, of equal ones the first."""
        if step == 0:
            return False
        is_better = loss < self.loss
        if self.by_score:
            is_better = score is not None and (
                self.score is None or score > self.score or (score == self.score and is_better)
            )
        if is_better:
            self.step, self.loss, self.score, self.since = step, loss, score, 0
            return True
        self.since += 1
        return False

    @property
    def patience_over(self) -> bool:
        return self.patience is not None and self.since >= self.patience
