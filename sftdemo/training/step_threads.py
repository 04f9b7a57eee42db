"""A training's threads follow what its steps take, so that a busy neighbour costs a thread and not the wait for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from sftdemo.system import compute, distributed
from sftdemo.system.thread_count import Others, ThreadCount

if TYPE_CHECKING:
    from sftdemo.training.callback import Tally

STEPS, SECONDS = 2, 1.0  # at least, whose mean is compared


class StepThreads(TrainerCallback):  # type: ignore[misc]
    """Between steps, as many threads as make a token fastest."""

    def __init__(self, tally: Tally, count: ThreadCount) -> None:
        self.tally, self.count = tally, count
        self._tokens = tally.row_tokens

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch.set_num_threads(self.count.now)
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds, tokens = time.perf_counter() - self._began, self.tally.row_tokens - self._tokens
        self._tokens = self.tally.row_tokens
        self.count.took(0, seconds, tokens)
        torch.set_num_threads(self.count.chosen)


@contextmanager
def follow_steps(trainer: Any) -> Iterator[None]:
    """While it trains. One process on a CPU alone; who set OMP_NUM_THREADS keeps that number, and equal sums to the last bit.

    A product by one thread more or less may round its sums otherwise.
    """
    most = torch.get_num_threads()
    alone = distributed.count() == 1 and compute.device().type == "cpu"
    if alone and most > 1 and "OMP_NUM_THREADS" not in os.environ:
        trainer.add_callback(StepThreads(trainer.watch.tally, ThreadCount(most, STEPS, SECONDS, Others())))
    try:
        yield
    finally:
        torch.set_num_threads(most)
