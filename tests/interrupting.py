"""How tests cut a training off, in a process of its own, at a step, by a signal; and the curve by which they compare it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from typing import Any

from sftdemo.runs import Run
from tests.listener import Listener


def forked(work: Callable[[], object]) -> int:
    """Do it in a process of its own, which has torch already; returns its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def at_step(step: int, act: Callable[[], object]) -> Listener:
    def trained(row: Mapping[str, Any]) -> None:
        if row["step"] == step and "loss" in row:
            act()

    return Listener(trained)


def signal_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def curve(run: Run) -> list[tuple[Any, ...]]:
    names = ("step", "epoch", "loss", "learning_rate", "grad_norm", "eval_loss")
    return [tuple(row.get(name) for name in names) for row in run.metrics()]
