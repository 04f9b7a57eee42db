"""What raters of a run are asked about, and when they are told which model wrote what: as the owner decided, or by itself."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlencode

from sftdemo.config.kinds import LABELLING
from sftdemo.errors import Text, UserError
from sftdemo.files import write_json
from sftdemo.runs.answers import answers_path
from sftdemo.runs.folder import DamagedRun, Run
from sftdemo.runs.listing import known
from sftdemo.schema.owner import Voting

SIDES = ("base", "tuned")
ENOUGH_ROWS = 20  # of an evaluation for raters to be asked about it by itself


@dataclass(frozen=True)
class Contest:
    """What ballots are about: the rows of an evaluation as two systems answered them, one in the base's part and one in the
    tuned model's.

    The votes file has its `key` where an evaluation is named: of base and tuned that is the evaluation's name, as ever.
    """

    evaluation: str
    base_is: str = "base"
    tuned_is: str = "tuned"

    @property
    def is_usual(self) -> bool:
        return (self.base_is, self.tuned_is) == SIDES

    @property
    def key(self) -> str:
        systems = {"base": self.base_is, "tuned": self.tuned_is}
        return self.evaluation if self.is_usual else f"{self.evaluation}?{urlencode(systems)}"

    @classmethod
    def parse(cls, key: str) -> Self:
        """The contest of a key; one of typed prompts is the usual one."""
        evaluation, _, query = key.partition("?")
        systems = dict(parse_qsl(query))
        return cls(evaluation, systems.get("base") or "base", systems.get("tuned") or "tuned")


def open_contest(run: Run) -> str:
    """The key of the contest that raters are asked about, or "" without an evaluation, or of a run that isn't voted on: base
    against tuned, or the two systems that the owner decided on, as long as both have answers."""
    if refusal(run):
        return ""
    evaluation, systems = open_evaluation(run), _decided(run).get("systems", [])
    if not evaluation or len(systems) != len(SIDES) or not all(_has_answers(run, evaluation, name) for name in systems):
        return evaluation
    return Contest(evaluation, *systems).key


def _has_answers(run: Run, evaluation: str, system: str) -> bool:
    with contextlib.suppress(UserError):
        if system in SIDES:
            return True
        if facts := run.scores(evaluation).get("systems", {}).get(system):
            return answers_path(run, facts["answers"]).is_file()
        return system.startswith("run:") and bool(open_evaluation(known(system.removeprefix("run:"))))
    return False


def open_between(run: Run, base_is: str, tuned_is: str) -> None:
    """Let raters be asked which of these two systems answers better from now on."""
    if base_is == tuned_is:
        raise UserError("{name!r} can't be voted on against itself; choose two systems.", name=base_is)
    systems = [base_is, tuned_is] if {base_is, tuned_is} != set(SIDES) else []
    _decide(run, systems=systems)


def check_kind(run: Run) -> None:
    """Raise UserError where a run's answers aren't voted on."""
    if refused := refusal(run):
        raise UserError(refused)


def refusal(run: Run) -> Text | None:
    """Why a run's answers aren't voted on, if they aren't."""
    if run.kind not in LABELLING:
        return None
    return Text(
        "Run {name} gives labels, which are right or wrong: there is nothing to vote on. Evaluate it instead.",
        name=run.name,
    )


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
    _decide(run, evaluation=evaluation)


def tells_each_vote(run: Run) -> bool:
    """Whether raters are told after each vote which model wrote what, and not at the end alone."""
    return _decided(run).get("tell_each_vote", False)


def tell_each_vote(run: Run, each: bool) -> None:
    """Tell raters from now on after each vote, or at the end."""
    _decide(run, tell_each_vote=each)


def _decide(run: Run, **changes: object) -> None:
    check_kind(run)
    write_json(run.path / "voting.json", _decided(run) | changes, parents=False)


def _decided(run: Run) -> Voting:
    """What the owner decided; nothing where the file is damaged, so that votes go on."""
    with contextlib.suppress(DamagedRun):
        return run.voting()
    return Voting()
