"""Training and evaluating on ZeroGPU: in GPU calls of bounded length, each of which goes on where the last one ended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.errors import Text, UserError
from sftdemo.log import LOG, TO_LOG, Reporter
from sftdemo.system import hub
from sftdemo.system.zero_gpu import CALL_SECONDS, MARGIN_SECONDS, gpu_call
from sftdemo.training import lock, turns
from sftdemo.training.signals import Interruption

if TYPE_CHECKING:
    from sftdemo.schema.evaluation import Scores

MOST_IDLE = 2  # slices in a row without a step, after which no slice will ever have one


@gpu_call()
def train_slice(path: str, seconds: float) -> str:
    """Train a run for so many seconds, its checkpoint or model on disk at the end; returns what went wrong, or ""."""
    from sftdemo.training import resume
    from sftdemo.training.train import train

    run = runs.Run(Path(path))
    turn = run.written_status().get("turn", 0)  # kept until its last slice, so that nobody comes between
    turns.hand_over(run, os.getpid())
    try:
        with hub.for_visitor(run.starter() is not None):  # also where the app itself goes on with it
            train(resume.settings(run), run, time_limit=seconds, wait=False)
    except UserError as error:
        if not isinstance(error, lock.Busy):
            turns.leave(run, error.text)
        return str(error)  # it stands in the run's status too; a package's own error would hide it
    except KeyboardInterrupt:
        LOG.info("Run %s: the GPU call ended before a step.", run.name)
    if goes_on(run):  # at once, so that nobody takes it for stopped
        status = run.status()
        step, total = status.get("step") or 0, status.get("total") or 0
        run.write_status("queued", os.getppid(), turn=turn, step=step, total=total)
    return ""


def goes_on(run: runs.Run) -> bool:
    """Whether a slice ended by its time alone."""
    return run.status()["state"] in ("stopped", "queued") and not run.stop_asked


def train_in_slices(run: runs.Run, seconds: float = CALL_SECONDS - MARGIN_SECONDS) -> None:
    """Train a run to its end, call by call, when it is its turn. Between two calls it is queued; where no GPU is given it can be resumed."""
    idle = 0
    try:
        with contextlib.ExitStack() as held:
            turns.wait(run, held, Interruption(), TO_LOG)
    except KeyboardInterrupt:  # cancelled
        turns.leave(run)
        return
    except UserError as error:
        LOG.warning("%s", error)
        return
    while True:
        before = run.status().get("step") or 0
        try:
            train_slice(str(run.path), seconds)
        except Exception as error:  # noqa: BLE001 (quotas, limits and lost workers come as the package's own errors)
            _lose(run, error)
            return
        if not goes_on(run):
            _stop_between(run)
            return
        idle = idle + 1 if (run.status().get("step") or 0) <= before else 0
        if idle >= MOST_IDLE:
            run.write_status(
                "failed",
                error=Text("No step of this training fits into a GPU call of {n} seconds.", n=CALL_SECONDS),
                cut_off=False,
            )
            return


def _stop_between(run: runs.Run) -> None:
    """Take a run that was asked to stop between two slices out of the queue."""
    if run.state == "queued":
        status = run.status()
        run.clear_words()
        run.write_status("stopped", step=status.get("step") or 0, total=status.get("total") or 0)


def _lose(run: runs.Run, error: Exception) -> None:
    """Note that a slice came to nothing; what the ones before it saved is there."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    LOG.warning("Run %s: no GPU (%s).", run.name, reason)
    status = run.status()
    run.write_status(
        "failed",
        error=Text("No GPU could be had ({reason}); resume the run later.", reason=reason),
        cut_off=True,
        step=status.get("step") or 0,
        total=status.get("total") or 0,
    )


class Slice(Reporter):
    """Stops an evaluation after so many seconds, and keeps how far it came."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.done = self.total = 0

    def answered(self, rows: int, total: int) -> None:
        self.done, self.total = rows, total

    def should_stop(self) -> bool:
        return time.monotonic() > self.ends


@gpu_call()
def evaluate_slice(
    path: str, config: Mapping[str, Any], seconds: float, by_visitor: bool
) -> tuple[Scores | None, int, int, str]:
    """Evaluate for so many seconds: the scores, or None where it isn't done; rows answered, of how many; what went wrong."""
    from sftdemo.inference import gpu_answers
    from sftdemo.verbs.evaluate import evaluate

    part = Slice(seconds)
    try:
        run = runs.Run(Path(path))
        with hub.for_visitor(by_visitor):
            pair = None if run.kind in kinds.LABELLING else gpu_answers.loaded((path,))
            scores = evaluate(run, EvaluateConfig.from_json(dict(config)), pair, part, by_visitor)
        return scores, part.done, part.total, ""
    except UserError as error:
        return None, part.done, part.total, "" if part.should_stop() else str(error)


def evaluate_in_slices(
    run: runs.Run,
    config: EvaluateConfig,
    reporter: Reporter,
    by_visitor: bool = False,
    seconds: float = CALL_SECONDS - MARGIN_SECONDS,
) -> Scores:
    """Evaluate a run call by call; UserError where it is stopped, gets no GPU, or no row fits into a call."""
    if config.against:
        raise UserError("Other systems aren't asked in GPU calls; compare with them on another machine.")
    before = -1
    while True:
        scores, done, total, fault = evaluate_slice(str(run.path), config.to_json(), seconds, by_visitor)
        if fault:
            raise UserError("{reason}", reason=fault)
        reporter.answered(done, total)
        if scores is not None:
            return scores
        if reporter.should_stop():
            raise UserError(
                "Stopped after {done} of {n} rows; the same evaluation asked again goes on from there.",
                done=done,
                n=total,
            )
        if done <= before:
            raise UserError("No row of this evaluation fits into a GPU call of {n} seconds.", n=CALL_SECONDS)
        before = done
