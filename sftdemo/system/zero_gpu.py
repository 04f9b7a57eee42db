"""ZeroGPU: a Space without a GPU of its own, which gets one for a call of bounded length, in a forked process.

Elsewhere every function here does nothing. There, CUDA may not be touched outside such a call; arguments and results are
pickled; the process may be kept for the next call, or killed once the call's time is over.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

CALL_SECONDS = (
    60  # of the GPU for a call; longer ones wait longer in line, and a visitor's share is a few minutes a day
)
MARGIN_SECONDS = 15.0  # for what comes before and after the work: a model is loaded, or saved

F = TypeVar("F", bound=Callable[..., Any])
_in_call = False


def is_here() -> bool:
    """Whether this is such a Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def in_call() -> bool:
    """Whether this process is one that was forked for a call."""
    return _in_call


def without_gpu() -> bool:
    """Whether this process may not touch the GPU, since it isn't in a call."""
    return is_here() and not _in_call


def gpu_call(seconds: int = CALL_SECONDS) -> Callable[[F], F]:
    """Run a function, or a generator, with a GPU for so many seconds; elsewhere it stays as it is."""

    def decorate(task: F) -> F:
        if not is_here():
            return task
        return cast("F", importlib.import_module("spaces").GPU(duration=seconds)(_inside(task)))

    return decorate


def _inside(task: Callable[..., Any]) -> Callable[..., Any]:
    """The task, which says that it is in a call: it runs in a process of its own."""

    def enter() -> None:
        global _in_call
        _in_call = True

    @functools.wraps(task)
    def call(*arguments: Any, **named: Any) -> Any:
        enter()
        return task(*arguments, **named)

    @functools.wraps(task)
    def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
        enter()
        yield from task(*arguments, **named)

    return generate if inspect.isgeneratorfunction(task) else call
