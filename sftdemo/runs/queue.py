"""The queue as the runs' statuses tell it: which train, which wait, who comes before whom, when, and what was cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from sftdemo.files import stamp
from sftdemo.runs.folder import ACTIVE, DamagedRun, Run, dated, home
from sftdemo.schema.run import Status

QUEUE_NAME = "queue.lock"
LOCK_S = 30.0


@contextlib.contextmanager
def queue_lock() -> Iterator[None]:
    """Held for the moment that it takes to change the queue, or to delete a run that nobody may take up meanwhile."""
    from filelock import FileLock

    home().mkdir(parents=True, exist_ok=True)
    with FileLock(home() / QUEUE_NAME, timeout=LOCK_S, thread_local=False):
        yield


def active() -> list[Run]:
    """The runs that train now, or are about to, newest first."""
    # Asked for at every tick of every page: of a run that has ended nothing but its file's date is looked at.
    unknown = (path for stat, path in dated(home() / "runs", "status.json") if not _has_ended(path, stamp(stat)))
    return [run for run in map(Run, map(Path, unknown)) if run.state in ACTIVE]


@lru_cache(maxsize=4096)
def _has_ended(path: str, version: tuple[int, int, int]) -> bool:
    return Run(Path(path)).state not in ACTIVE


def training() -> list[Run]:
    """The runs that train now."""
    return [run for run in active() if run.state in ("running", "stopping")]


def waiting() -> list[Run]:
    """The runs that are queued, in the order of their turns; whose process is gone isn't among them."""
    return [run for run, _ in sorted((pair for pair in _statuses(active()) if pair[1]["state"] == "queued"), key=_turn)]


def next_turn() -> int:
    """The turn of who comes last, from 1."""
    return 1 + max((status["turn"] for _, status in _statuses(waiting())), default=0)


def ahead(run: Run) -> list[Run]:
    """What has to end before a queued run's turn: the runs that train, then those that wait before it."""
    line = waiting()
    index = _index(run, line)
    return [*training(), *line[:index]]


def place(run: Run) -> int | None:
    """A queued run's place in the queue, from 1; None of any other."""
    index = _index(run, waiting())
    return None if index is None else index + 1


def _index(run: Run, line: list[Run]) -> int | None:
    paths = [each.path.resolve() for each in line]
    return paths.index(run.path.resolve()) if run.path.resolve() in paths else None


def expected() -> list[tuple[Run, float | None]]:
    """The runs that wait, in the order of their turns, and in how many seconds each is expected to begin; None where nobody
    knows how long those before it take."""
    statuses = _statuses(active())
    seconds = _sum(status.get("eta_s") for _, status in statuses if status["state"] != "queued")
    begins = []
    for run, status in sorted((pair for pair in statuses if pair[1]["state"] == "queued"), key=_turn):
        begins.append((run, seconds))
        seconds = _sum((seconds, status.get("expected_s")))
    return begins


def _sum(seconds: Iterable[float | None]) -> float | None:
    known = list(seconds)
    return sum(value for value in known if value is not None) if None not in known else None


def _turn(pair: tuple[Run, Status]) -> tuple[int, str]:
    return pair[1]["turn"], pair[0].name


def cut_off() -> list[Run]:
    """The runs that were ended from outside, killed or by a machine that went down, in the order in which they would go on:
    the one that trained last, if it was, then those that waited and never had their turn."""
    dated_runs = [(Run(Path(path)), stamp(stat)) for stat, path in dated(home() / "runs", "status.json")]
    cut = {run.path: turn for run, version in dated_runs if (turn := _turn_lost(run, version)) is not None}
    queued = sorted((path for path, turn in cut.items() if turn), key=lambda path: (cut[path], path.name))
    last = next((run.path for run, _ in dated_runs if run.path not in queued), None)
    return [Run(path) for path in ([last] if last in cut else []) + queued]


def _turn_lost(run: Run, version: tuple[int, int, int]) -> int | None:
    """The turn of a run that was cut off, 0 if it had begun; None of any other."""
    return _turn_lost_for_good(str(run.path), version) if _has_ended(str(run.path), version) else _read_turn_lost(run)


@lru_cache(maxsize=4096)
def _turn_lost_for_good(path: str, version: tuple[int, int, int]) -> int | None:
    return _read_turn_lost(Run(Path(path)))


def _read_turn_lost(run: Run) -> int | None:
    with contextlib.suppress(DamagedRun):
        status = run.status()
        if status.get("cut_off"):
            return status.get("turn", 0)
    return None


def _statuses(chosen: list[Run]) -> list[tuple[Run, Status]]:
    """Those that can be read, with their statuses."""
    read = []
    for run in chosen:
        with contextlib.suppress(DamagedRun):
            status = run.status()
            status.setdefault("turn", 0)  # of an earlier version
            read.append((run, status))
    return read
