"""Deleted runs: they lie in the home's trash for a week, and can be brought back until then."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.files import tree_bytes
from sftdemo.runs.folder import Run, home
from sftdemo.runs.queue import queue_lock

KEPT_DAYS = 7


@dataclass(frozen=True)
class Deleted:
    """One run in the trash: a folder of its own there, named after the moment, holds the run's folder."""

    path: Path
    when: float  # seconds since 1970

    @property
    def id(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def until(self) -> float:
        return self.when + KEPT_DAYS * 86_400

    def to_json(self) -> dict[str, Any]:
        """{"name", "deleted", "until", "bytes"}; times in seconds since 1970."""
        return {"name": self.name, "deleted": self.when, "until": self.until, "bytes": tree_bytes(self.path)}


def folder() -> Path:
    return home() / "trash"


def is_in_home(run: Run) -> bool:
    """Whether it is one of the home's runs, and not a folder elsewhere that the command line was given."""
    return run.path.parent.resolve() == (home() / "runs").resolve()


def discard(run: Run) -> Deleted:
    """Move a run of this home to the trash in one step; refused while it trains."""
    sweep()
    place = folder() / f"{time.time_ns()}-{secrets.token_hex(4)}"
    try:
        with queue_lock():
            run.require_ended()
            place.mkdir(parents=True)
            run.path.rename(place / run.name)
    except OSError as error:
        with contextlib.suppress(OSError):
            place.rmdir()
        if error.errno == errno.EXDEV:
            raise UserError(
                "Run {name} can't be moved to the trash, which is on another disk; delete it with "
                "`runs delete --for-good`.",
                name=run.name,
            ) from error
        raise UserError("Run {name} can't be deleted: {problem}.", name=run.name, problem=error.strerror) from error
    return _deleted(place / run.name)


def trashed() -> list[Deleted]:
    """What can be brought back, the latest first."""
    entries = [_deleted(path) for place in folder().glob("[!.]*") for path in place.glob("*")]
    return sorted(entries, key=lambda entry: entry.when, reverse=True)


def _deleted(path: Path) -> Deleted:
    moment = path.parent.name.partition("-")[0]
    return Deleted(path, int(moment) / 1e9 if moment.isdecimal() else path.parent.stat().st_mtime)


def find_deleted(name: str) -> Deleted:
    """The run in the trash of that name, the latest, or of that id."""
    entry = next((entry for entry in trashed() if name in (entry.id, entry.name)), None)
    if entry is None:
        raise _absent(name)
    return entry


def restore(entry: Deleted) -> Run:
    """Bring a run back under its name; refused where another has it meanwhile."""
    run = Run(home() / "runs" / entry.name)
    if not os.path.lexists(entry.path):  # restored or removed on another page
        raise _absent(entry.name)
    if os.path.lexists(run.path):
        raise UserError("There is another run named {name!r} now; delete that one, then restore this.", name=entry.name)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        entry.path.rename(run.path)
    except FileNotFoundError:
        raise _absent(entry.name) from None
    with contextlib.suppress(OSError):
        entry.path.parent.rmdir()
    return run


def _absent(name: str) -> UserError:
    problem = "There is no deleted run {name!r}; runs can be restored for {days} days."
    return UserError(problem, name=str(name)[:80], days=KEPT_DAYS)


def remove(entry: Deleted) -> None:
    """Delete a run in the trash for good; of a linked one the link alone."""
    _remove(entry.path.parent)


def sweep(now: float | None = None) -> None:
    """Delete for good what has been in the trash for KEPT_DAYS, and what a killed process left."""
    oldest = (now or time.time()) - KEPT_DAYS * 86_400
    for place in folder().glob("*"):
        with contextlib.suppress(FileNotFoundError):
            entries = list(place.glob("*"))
            if place.name.startswith(".") or (not entries and place.stat().st_mtime < oldest):
                shutil.rmtree(place, ignore_errors=True)
            elif entries and all(_deleted(path).when < oldest for path in entries):
                _remove(place)


def _remove(place: Path) -> None:
    gone = place.with_name(f".gone-{secrets.token_hex(8)}")  # out of sight in one step: nothing is restored by half
    with contextlib.suppress(FileNotFoundError):
        place.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
