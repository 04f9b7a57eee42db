"""Which visitor of the page asked for a run, and how many minutes it may train in all, however often it is resumed."""

from __future__ import annotations

from sftdemo.errors import UserError
from sftdemo.files import write_json
from sftdemo.runs.folder import Run
from sftdemo.schema.owner import Starter


def note(run: Run, visitor: str, minutes: float) -> None:
    """Keep who asked for a new run."""
    _write(run, {"visitor": visitor, "minutes": minutes, "used": 0.0})


def minutes_left(run: Run) -> float | None:
    """How many minutes the run may go on; None where nobody has limited it.

    Raises UserError where none is left.
    """
    if (starter := run.starter()) is None:
        return None
    left = starter["minutes"] - starter["used"]
    if starter["used"] and left <= 0:
        raise UserError(
            "Run {name} has had the {minutes:g} minutes that a visitor's training may take; clone it to train longer.",
            name=run.name,
            minutes=starter["minutes"],
        )
    return left


def book(run: Run, minutes: float) -> None:
    """Note that so many more minutes are over."""
    if starter := run.starter():
        _write(run, {**starter, "used": starter["used"] + minutes})


def _write(run: Run, starter: Starter) -> None:
    with run.unless_deleted():
        write_json(run.path / "started.json", starter, parents=False)
