"""Trainings started on the page: what a visitor may use is booked, and nobody's goes on longer than it may."""

from __future__ import annotations

import math
import sys
import threading
import time

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.ui import work
from sftdemo.ui.access import allowance, rights
from sftdemo.verbs import jobs


def start_training(config: TrainConfig, visitor: rights.Visitor, rows: int) -> Run:
    """Train on `rows` rows in the background, a visitor no longer than a visitor may; raises UserError."""
    seen = config.rows_seen(min(rows, config.max_examples or rows))
    if visitor.owner:
        seen = min(seen, sys.maxsize)  # nothing is booked for the owner
    elif seen == math.inf:
        raise UserError("A visitor's training is counted in steps; give max_steps beside max_minutes.")
    steps = math.ceil(seen / config.batch_size)
    minutes = float(rights.policy().config.visitor_minutes)
    with allowance.reserved(visitor, "steps", steps) as booked:
        allowance.spend(visitor, "minutes", minutes)
        try:
            work.release()
            run = jobs.start(config)
        except UserError:
            allowance.refund(visitor, "minutes", minutes)
            raise
        booked.used = steps
    rights.started(f"train {run.name}", visitor)
    if not visitor.owner:
        threading.Thread(target=_end_in_time, args=(run, visitor, minutes), name="limit", daemon=True).start()
    return run


def _end_in_time(run: Run, visitor: rights.Visitor, minutes: float) -> None:
    """Stop a training when its minutes are over; give back those that it didn't need."""
    begin = time.monotonic()
    while run.path.exists() and run.state in runs.ACTIVE:
        if time.monotonic() - begin > 60 * minutes:
            jobs.stop(run)
        time.sleep(1)
    allowance.refund(visitor, "minutes", max(minutes - (time.monotonic() - begin) / 60, 0))
