"""Trainings started on the page: what a visitor may use is booked, and nobody's goes on longer than it may."""

from __future__ import annotations

import math
import sys
import threading
import time

from sftdemo import runs
from sftdemo.config.sweep import SweepConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.runs.listing import created
from sftdemo.ui import models
from sftdemo.ui.access import allowance, rights
from sftdemo.verbs import jobs

POLL_S = 1.0


def start_training(config: TrainConfig, visitor: rights.Visitor, rows: int, expected_s: float | None = None) -> Run:
    """Train on `rows` rows in the background, when it is its turn, a visitor no longer than a visitor may; raises UserError.

    What a visitor uses is booked now; `expected_s` is how many seconds it will take, if known.
    """
    seen = config.rows_seen(min(rows, config.max_examples or rows))
    if visitor.owner:
        seen = min(seen, sys.maxsize)  # nothing is booked for the owner
    elif seen == math.inf:
        raise UserError("A visitor's training is counted in steps; give max_steps beside max_minutes.")
    steps = math.ceil(seen / config.batch_size)
    minutes = float(rights.policy().config.visitor_minutes)
    with allowance.reserved(visitor, "steps", steps) as booked:
        allowance.spend(visitor, "minutes", minutes)
        limit = () if visitor.owner else (minutes, visitor.key)
        try:
            run = jobs.start(config, expected_s, *limit)
        except UserError:
            allowance.refund(visitor, "minutes", minutes)
            raise
        booked.used = steps
    rights.started(f"train {run.name}", visitor)
    threading.Thread(target=_attend, args=(run, visitor, steps, minutes), name="limit", daemon=True).start()
    return run


def start_sweep(config: TrainConfig, sweep: SweepConfig) -> Run:
    """Try settings and train with the best in the background, for the owner; raises UserError."""
    run = jobs.start_sweep(config, sweep)
    threading.Thread(target=_make_room, args=(run,), name="room", daemon=True).start()
    return run


def resume_training(run: Run) -> None:
    """Go on with a run in the background; raises UserError."""
    jobs.resume(run)
    threading.Thread(target=_make_room, args=(run,), name="room", daemon=True).start()


def is_own(name: str, visitor: rights.Visitor) -> bool:
    """Whether the visitor started the run of this name, which may have ended since; not one that had the name before."""
    return rights.may_stop(f"train {name}", visitor) or rights.may_stop(_ended(runs.known(name)), visitor)


def _ended(run: Run) -> str:
    return f"ended {created(run.path)} {run.name}"


def _make_room(run: Run) -> bool:
    """When it is a run's turn, give it the memory of the models; returns whether its turn came."""
    while waits(run):
        time.sleep(POLL_S)
    if run.state not in runs.ACTIVE:
        return False
    models.release()
    return True


def waits(run: Run) -> bool:
    """Whether a run is queued behind another."""
    return run.path.exists() and run.state == "queued" and bool(runs.ahead(run))


def _attend(run: Run, visitor: rights.Visitor, steps: int, minutes: float) -> None:
    """Make room for a training when its turn comes, and stop a visitor's when its minutes are over; give back what it didn't
    need."""
    came = _make_room(run)
    begin = time.monotonic()
    if visitor.owner:
        return
    while run.path.exists() and run.state in runs.ACTIVE:
        if time.monotonic() - begin > 60 * minutes:
            jobs.stop(run)
        time.sleep(POLL_S)
    if run.path.exists():
        rights.ended(f"train {run.name}", _ended(run))
    allowance.refund(visitor, "minutes", max(minutes - (time.monotonic() - begin) / 60, 0))
    if not came and not run.metrics():  # cancelled, or killed while it waited
        allowance.refund(visitor, "steps", steps)
