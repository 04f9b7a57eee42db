"""What raters of a run are asked about, and when they are told which model wrote what: as the owner decided, or by itself."""

from __future__ import annotations

import contextlib

from sftdemo.errors import Text, UserError
from sftdemo.files import write_json
from sftdemo.runs.folder import DamagedRun, Run
from sftdemo.schema import Voting

ENOUGH_ROWS = 20  # of an evaluation for raters to be asked about it by itself


def open_evaluation(run: Run) -> str:
    """The evaluation that raters are asked about, or "" without one.

    It is the one that the owner opened; or else the newest with ENOUGH_ROWS rows (or as many as the largest has) that no
    visitor asked for, so that nobody takes the raters' pairs away by a small new one.
    """
    sizes = {}
    for name in run.evaluations():
        with contextlib.suppress(DamagedRun):
            scores = run.scores(name)
            sizes[name] = 0 if scores.get("by_visitor") else scores["n"]
    if (opened := _decided(run).get("evaluation", "")) in sizes:
        return opened
    enough = max(min(ENOUGH_ROWS, max(sizes.values(), default=0)), 1)
    return next((name for name, rows in sizes.items() if rows >= enough), "")


def open_for_votes(run: Run, evaluation: str) -> None:
    """Let raters be asked about this evaluation from now on, whatever others come."""
    if evaluation not in (known := run.evaluations()):
        raise UserError(
            "Run {name} has no evaluation {evaluation!r}; it has: {known}.",
            name=run.name,
            evaluation=str(evaluation)[:80],
            known=known or Text("none yet"),
        )
    write_json(run.path / "voting.json", _decided(run) | {"evaluation": evaluation}, parents=False)


def tells_each_vote(run: Run) -> bool:
    """Whether raters are told after each vote which model wrote what, and not at the end alone."""
    return _decided(run).get("tell_each_vote", False)


def tell_each_vote(run: Run, each: bool) -> None:
    """Tell raters from now on after each vote, or at the end."""
    write_json(run.path / "voting.json", _decided(run) | {"tell_each_vote": each}, parents=False)


def _decided(run: Run) -> Voting:
    """What the owner decided; nothing where the file is damaged, so that votes go on."""
    with contextlib.suppress(DamagedRun):
        return run.voting()
    return Voting()
