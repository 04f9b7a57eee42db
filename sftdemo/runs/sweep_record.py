"""sweep.json: the settings that a run tries before its training, what each came to, and which of them it took."""

from __future__ import annotations

import os
from typing import Annotated as Doc
from typing import Literal, NotRequired, TypedDict

from sftdemo import files
from sftdemo.runs.folder import DamagedRun, Run
from sftdemo.schema.json_types import ALWAYS

NAME = "sweep.json"
TRIALS = "trials"


class Measured(TypedDict):
    """The validation loss of a trial at a rung."""

    share: Doc[float, "of the trial's own steps", ALWAYS]
    step: Doc[int, "optimizer steps done", ALWAYS]
    eval_loss: Doc[float | None, "as in `metrics.jsonl`; none where it is no finite number", ALWAYS]
    whole: NotRequired[Doc[bool, "that its training ended there, early by `patience` or at its last step"]]


class Trial(TypedDict):
    """One combination of settings, in the order in which they are tried; its curve is in `trials/NUMBER/metrics.jsonl`."""

    number: Doc[int, "from 1", ALWAYS]
    settings: Doc[
        dict[str, float], "`learning_rate`, `epochs` and, with LoRA, `lora_r` and `lora_alpha` of this trial", ALWAYS
    ]
    steps: Doc[int, "optimizer steps of its whole training; 0 until the data are read", ALWAYS]
    measured: Doc[list[Measured], "what it came to at each rung, see below", ALWAYS]
    curve: Doc[list[list[float]], "training loss by step, 100 points at most", ALWAYS]
    seconds: Doc[float, "spent on it, with loading", ALWAYS]
    ended: Doc[
        Literal["waiting", "beaten", "diverged", "no_time", "not_tried", "chosen"],
        "why it ended: `beaten` by others at the last rung it came to, `diverged`, `no_time` for its next stretch, "
        "`not_tried` as the minutes are too few for all, or `chosen`; `waiting` where it may go on",
        ALWAYS,
    ]


class Rung(TypedDict):
    """How many trials are trained to which share of their steps."""

    share: Doc[float, "of each trial's own steps", ALWAYS]
    trials: Doc[int, "the best so many of the rung before", ALWAYS]


class Sweep(TypedDict):
    """Written before the first trial and after each stretch of one."""

    minutes: Doc[float, "for all of it, the best trial's training to its end included", ALWAYS]
    spent: Doc[float, "seconds of them so far", ALWAYS]
    search_s: Doc[float, "seconds that the trials were expected to take", ALWAYS]
    last_s: Doc[float, "and the best one's training from there to its end", ALWAYS]
    step_s: Doc[float, "seconds a step, as measured so far", ALWAYS]
    stretch_s: Doc[
        float, "seconds that each stretch of a trial takes beside its steps: loading, validation, saving", ALWAYS
    ]
    rungs: Doc[list[Rung], "the plan, see below; none before the first trial's speed is known", ALWAYS]
    trials: Doc[list[Trial], "see below", ALWAYS]
    chosen: Doc[int | None, "the number of the trial whose settings the run has; none while they are tried", ALWAYS]


def read(run: Run) -> Sweep | None:
    """The sweep of a run, if it has one; raises DamagedRun."""
    return run._json(NAME, Sweep) if os.path.lexists(run.path / NAME) else None


def write(run: Run, sweep: Sweep) -> None:
    with run.unless_deleted():
        files.write_json(run.path / NAME, sweep, parents=False)


def is_open(run: Run) -> bool:
    """Whether the run still tries settings, or would where it goes on."""
    try:
        sweep = read(run)
    except DamagedRun:  # said where somebody wants to go on with it
        return False
    return sweep is not None and sweep["chosen"] is None


def folder(run: Run, trial: Trial) -> Run:
    """Where a trial is trained: metrics, status, checkpoints and model as in any run, and no data."""
    return Run(run.path / TRIALS / f"{trial['number']:02}")


def last_loss(trial: Trial) -> float | None:
    """The validation loss at the last rung that it came to; none where it came to none, or diverged."""
    return trial["measured"][-1]["eval_loss"] if trial["measured"] else None
