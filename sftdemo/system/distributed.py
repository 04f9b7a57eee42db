"""Several processes on one training, as `accelerate launch` starts them: which is the first, and how all end together."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from sftdemo.errors import Text, UserError, unexpected

T = TypeVar("T")


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_rank_zero() -> bool:
    """Whether this is rank zero, which alone writes the run's files and the standard output."""
    return count() == 1 or os.environ.get("RANK", "0") == "0"


def is_first_here() -> bool:
    """Whether this is the first process of its machine."""
    return count() == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def join(cpu: bool) -> None:
    """Meet the other processes; over gloo on a CPU, else over what the device uses."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=cpu)


def leave() -> None:
    """Part from the others in order, so that none waits for this process."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


def agree(work: Callable[[], T]) -> T:
    """Do `work` in every process and return this one's result, once all have done it; a fault in one ends all.

    The first process raises the fault and so tells it, the others leave without a word.
    """
    if count() == 1:
        return work()
    result: Any = None
    fault: BaseException | None = None
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 (told to all, then raised)
        fault = error
    reports = _gather(None if fault is None else (_text(fault), getattr(fault, "exit_code", 1)))
    faults = [(process, *report) for process, report in enumerate(reports) if report]
    if not faults:
        return result  # type: ignore[no-any-return]
    process, text, code = faults[0]
    leave()  # in order: a process that ends while another still listens may be aborted at its end
    if fault and (is_rank_zero() or not isinstance(fault, UserError | KeyboardInterrupt)):
        raise fault
    if not is_rank_zero():
        raise SystemExit(code)
    raise UserError("Process {process} of {count}: {text}", process=process, count=count(), text=text)


def from_rank_zero(work: Callable[[], T]) -> T:
    """Do `work` in the first process only; every process gets its result."""
    mine = agree(lambda: work() if is_rank_zero() else None)
    return _gather(mine)[0] if count() > 1 else mine  # type: ignore[no-any-return, return-value]


def lost(error: BaseException) -> bool:
    """Whether an error only says that another process has gone."""
    text = str(error).lower()
    return count() > 1 and isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl", "peer"))


def _text(error: BaseException) -> Text:
    return error.text if isinstance(error, UserError) else unexpected(error)


def _gather(value: Any) -> list[Any]:
    from accelerate.utils import gather_object

    return gather_object([value])  # type: ignore[no-any-return]
