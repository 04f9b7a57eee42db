"""Seconds from the first step's start to the last step's end, and the tokens of the rows, as a peer's Trainer sees them."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback


class Clock(TrainerCallback):  # type: ignore[misc]
    """Hand it to any transformers Trainer."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.tokens = self.steps = 0
        self.loss: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens = sum(len(row["input_ids"]) for row in kwargs["train_dataloader"].dataset)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = self.began or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended = time.perf_counter()
        self.steps = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def result(self) -> dict[str, Any]:
        return {
            "seconds": self.ended - self.began,
            "row_tokens": self.tokens,
            "steps": self.steps,
            "last_loss": float(self.loss) if self.loss is not None else None,
        }
