"""Runs take turns, whoever started them: each waits in a process of its own, and a process that is gone waits no more."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftdemo import files, runs
from sftdemo.config.train import TrainConfig
from sftdemo.data import edits, mixture
from sftdemo.errors import Text, UserError, unexpected
from sftdemo.log import Reporter
from sftdemo.runs import ACTIVE, Run, error_keys, sweep_record
from sftdemo.runs.queue import queue_lock
from sftdemo.schema.run import Status
from sftdemo.training import continual, lock, resume, students
from sftdemo.training.signals import Interruption

POLL_S = 0.5
PLACE_S = 5.0  # the places of all are looked up at most so often


# Settings on which it rests how long a row takes, and how many there are.
SAME_SPEED = ("max_examples", "task", "model", "method", "quantization", "precision", "max_length")
KEPT = ("turn", "expected_s", "before", "step", "total")  # of a queued run's status, whoever writes it


def new_run(config: TrainConfig) -> Run:
    """The folder of a run whose data nobody has read yet."""
    own_edits = config.edits if config.teacher is None else None
    if own_edits:
        edits.read(own_edits)  # a fault in them is told before there is a run
    earlier = continual.find(config)
    config = continual.inherited(config, earlier)
    kept = dataclasses.replace(config, data=mixture.anchored(config.data))  # trained later, perhaps from another folder
    if any((Path(config.model) / name).is_file() for name in ("config.json", "adapter_config.json")):
        kept = dataclasses.replace(kept, model=str(Path(config.model).absolute()))
    run = runs.create(config.name, students.name_hint(config, Path(config.data).stem), {"settings": kept.to_json()})
    continual.keep(earlier, run)
    if own_edits:  # the page may change its own until the training reads them
        edits.keep(own_edits, run.path)
    return run


def require_ended(run: Run) -> None:
    """Raise UserError where a run waits or trains, in whatever process."""
    status = run.status()
    if status["state"] == "queued":
        raise UserError("Run {name} waits for its turn already (process {pid}).", name=run.name, pid=status.get("pid"))
    if status["state"] in ACTIVE:
        raise UserError("Run {name} is training now, in process {pid}.", name=run.name, pid=status.get("pid"))


def join(run: Run, expected_s: float | None = None) -> None:
    """Put a run at the end of the queue; `expected_s` is how many seconds it will train, where that is known.

    Raises UserError where it waits or trains already.
    """
    with queue_lock():
        require_ended(run)
        run.clear_words()
        status = run.status()
        values: dict[str, Any] = {key: status.get(key) or 0 for key in ("step", "total")}
        if (steps := status.get("steps")) and (seconds := status.get("seconds")):
            expected_s = seconds / steps * max(values["total"] - steps, 0)
        if "before" in status:  # it was cut off as it waited
            values["before"] = status["before"]
        elif (run.path / "status.json").exists() and ("turn" not in status or status.get("step")):  # it has begun
            error = status.get("error")
            values["before"] = {**status, **(error_keys(Text(error)) if error else {})}
        with run.unless_deleted():
            run.write_status("queued", turn=runs.next_turn(), expected_s=expected_s, **values)


def usual_seconds(config: TrainConfig) -> float | None:
    """About how many seconds a training takes whose data nobody has read yet: its minutes, or by what the newest one of the
    same model on the same data took; None where there was none."""
    if config.max_minutes is not None:
        return 60 * config.max_minutes
    for run in runs.list_runs():
        with contextlib.suppress(UserError):
            status, known = run.status(), run.config()
            settings, seconds = known.get("settings", {}), status.get("seconds")
            rows = known.get("data", {}).get("sizes", {}).get("train")
            if status["state"] != "finished" or not (seconds and rows) or settings.get("max_minutes"):
                continue
            same_data = mixture.anchored(str(settings.get("data"))) == mixture.anchored(config.data)
            if same_data and all(settings.get(name) == getattr(config, name) for name in SAME_SPEED):
                return seconds * config.rows_seen(rows) / TrainConfig.from_json(settings).rows_seen(rows)
    return None


def hand_over(run: Run, pid: int, by: int | None = None) -> None:
    """Let that process wait for the run's turn from now on; with `by` only if that one has waited so far."""
    with queue_lock():
        status = run.written_status()
        if status["state"] == "queued" and by in (None, status.get("pid")):
            run.write_status("queued", pid, **_kept(status))


def _kept(status: Status) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key in KEPT}


def waits_here(run: Run) -> bool:
    """Whether it is this process that waits for the run's turn."""
    status = run.written_status()
    return status["state"] == "queued" and status.get("pid") == os.getpid()


def leave(run: Run, error: Text | None = None) -> None:
    """Take a run that waits here out of the queue, and no other: one that was to be resumed is as it was before, and says
    `error` where that is why it can't go on; a new one is gone, and its name is free. What was cancelled is resumed by hand
    alone."""
    with queue_lock():
        if not waits_here(run):
            return
        run.clear_words()
        if before := run.written_status().get("before"):
            by_itself = () if error else ("cut_off", "turn")
            before = {key: value for key, value in before.items() if key not in by_itself}
            files.write_json(run.path / "status.json", before | (error_keys(error) if error else {}), parents=False)
            return
        run.write_status(
            "failed" if error else "stopped", error=error or Text("Cancelled while it waited for its turn.")
        )
        if not error:
            run.delete()


@contextlib.contextmanager
def _in_queue(run: Run, interruption: Interruption) -> Iterator[None]:
    """Takes the run out of the queue where it comes to no training; after SIGTERM it stays there as cut off."""
    try:
        yield
    except KeyboardInterrupt:
        interruption.phase = "saving"  # a second signal changes nothing
        if interruption.terminated:
            with queue_lock():
                if waits_here(run):
                    error = Text("It was ended while it waited for its turn.")
                    run.write_status("failed", error=error, cut_off=True, **_kept(run.written_status()))
        else:
            leave(run)
        raise
    except Exception as error:
        leave(run, error.text if isinstance(error, UserError) else unexpected(error))
        raise


@contextlib.contextmanager
def _taken_up(run: Run) -> Iterator[None]:
    """The run belongs to this process from now on; where it comes to no training it is as it was."""
    path = run.path / "status.json"
    before = files.read_json(path) if path.exists() else None
    try:
        join(run)
        yield
    except BaseException:
        with queue_lock():
            if waits_here(run):
                files.write_json(path, before, parents=False) if before else path.unlink()
        raise


def take(
    config: TrainConfig,
    run: Run | None,
    held: contextlib.ExitStack,
    interruption: Interruption,
    reporter: Reporter,
) -> Run | None:
    """Wait for the turn of a training and let `held` hold the home's lock; returns the run, made here if it had to wait.

    A word to stop takes it out of the queue and raises KeyboardInterrupt; after SIGTERM it stays there as cut off. Raises
    lock.Busy where this very process trains.
    """
    if run is None or run.state != "queued":
        if run:
            resume.check(run)
        if not runs.waiting():
            with contextlib.suppress(lock.Busy):
                held.enter_context(lock.attempt(run))
                if run:  # who comes now has to see that it is taken
                    held.enter_context(_taken_up(run))
                return run
        if any(other.status().get("pid") == os.getpid() for other in runs.training()):
            held.enter_context(lock.alone(run))
        run = run or new_run(config)
        held.enter_context(_in_queue(run, interruption))
        sweep = sweep_record.read(run)
        join(run, 60 * sweep["minutes"] - sweep["spent"] if sweep else usual_seconds(config))
    else:
        held.enter_context(_in_queue(run, interruption))
        hand_over(run, os.getpid())
    wait(run, held, interruption, reporter)
    return run


def wait(run: Run, held: contextlib.ExitStack, interruption: Interruption, reporter: Reporter) -> None:
    """Wait for the turn of a run that is queued here; raises KeyboardInterrupt where it is asked to stop, UserError where
    another process has taken it up."""
    announced: list[str] = []
    looked = -PLACE_S
    while not _has_turn(run, held):
        if time.monotonic() - looked >= PLACE_S:
            looked = time.monotonic()
            before = [each.name for each in runs.ahead(run)]
            if before != announced or not announced:
                announced = before or [""]
                reporter.info(_place(run, before))
        time.sleep(POLL_S)
        # A signal that comes amid the clearing away of an object is noted, and what it raises is lost.
        if interruption.asked or run.stop_asked or not run.path.exists():
            raise KeyboardInterrupt
        _require_here(run)
    _require_here(run)


def _require_here(run: Run) -> None:
    if not waits_here(run):
        raise UserError("Run {name} waits here no longer; another process has taken it up.", name=run.name)


def _has_turn(run: Run, held: contextlib.ExitStack) -> bool:
    """Whether nobody trains and nobody waits before it; the lock is held then."""
    with contextlib.ExitStack() as attempt, contextlib.suppress(lock.Busy):
        attempt.enter_context(lock.attempt(run))
        if not runs.ahead(run):
            held.enter_context(attempt.pop_all())
            return True
    return False


def _place(run: Run, before: list[str]) -> Text:
    """What is said to who waits; `before` are the names of the runs that come first."""
    place, other = runs.place(run) or 1, before[0] if before else Text("another process")
    seconds = next((seconds for each, seconds in runs.expected() if each.name == run.name), None)
    if seconds and before:
        return Text(
            "Run {name} waits for its turn: place {place} in the queue, behind {other}; about {minutes} min.",
            name=run.name,
            place=place,
            other=other,
            minutes=math.ceil(seconds / 60),
        )
    return Text(
        "Run {name} waits for its turn: place {place} in the queue, behind {other}.",
        name=run.name,
        place=place,
        other=other,
    )
