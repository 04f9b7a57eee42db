"""Successive halving within a time: how many trials are trained to which share of their steps, and what that takes.

At each rung the better half goes on from its checkpoints to twice the share (Jamieson and Talwalkar 2016). All at once, rung by
rung: the asynchronous form that libraries have (optuna's pruner) is made for many workers, and one worker would train its first
trial to the end before anything is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sftdemo.runs.sweep_record import Rung

SHARES = (1.0, 0.5, 0.25, 0.125)  # of its steps that a trial is trained to at the first rung
LEAST_STEPS = 8  # of the shortest trial before its loss tells anything
SAFETY = 1.15  # times as long as expected, or the machine has other work


@dataclass(frozen=True)
class Plan:
    """The rungs, how many of the trials they take, and the seconds expected for them and for the best one from there on."""

    rungs: list[Rung]
    search_s: float
    last_s: float


def first_share(steps: Sequence[int]) -> float:
    """The smallest share at which losses of trials with so many steps can be compared."""
    return min((share for share in SHARES if share * min(steps) >= LEAST_STEPS), default=1.0)


def rungs(n: int, share: float) -> list[Rung]:
    """The rungs of `n` trials that begin at a share: half as many at twice the share, until one is left or all is trained."""
    ladder: list[Rung] = []
    while n > 1 and share <= 1:
        ladder.append({"share": share, "trials": n})
        n, share = math.ceil(n / 2), 2 * share
    return ladder


def expected(steps: Sequence[int], share: float, step_s: float, stretch_s: float) -> Plan:
    """What the rungs of trials with so many steps take, should the longest of them win throughout: in seconds, from a
    step's and from what each stretch takes beside its steps."""
    ladder, longest_first = rungs(len(steps), share), sorted(steps, reverse=True)
    search_s, done = 0.0, 0.0
    for rung in ladder:
        trained = (rung["share"] - done) * sum(longest_first[: rung["trials"]])
        search_s += trained * step_s + rung["trials"] * stretch_s
        done = rung["share"]
    last_s = stretch_s + (1 - done) * longest_first[0] * step_s if done < 1 else 0.0
    return Plan(ladder, search_s, last_s)


def plan(steps: Sequence[int], seconds: float, step_s: float, stretch_s: float) -> Plan | None:
    """The plan that fits into so many seconds: all trials, and of their steps as many as can be; else, of the first trials, as
    many as fit at the smallest share. None where two don't. `steps` are the trials' own, in their order."""
    smallest = first_share(steps)
    options = [(len(steps), share) for share in SHARES if share >= smallest]
    options += [(n, smallest) for n in range(len(steps) - 1, 1, -1)]
    for n, share in options:
        fitting = expected(steps[:n], share, step_s, stretch_s)
        if SAFETY * (fitting.search_s + fitting.last_s) <= seconds:
            return fitting
    return None
