"""Which pair a rater sees next, and on which sides: spread evenly, balanced, now and then one again, nothing told."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from sftdemo import runs
from sftdemo.errors import Text, UserError
from sftdemo.evaluation.system_answers import paired_rows
from sftdemo.runs import Run, voting
from sftdemo.runs.voting import Contest

TYPED = "typed"  # stands for an evaluation's name where the prompts were typed
REPEAT_EVERY = 20  # of so many pairs one comes again,
APART = 10  # after at least so many others
EARLIEST = APART + 2  # in a part, after so many pairs of it
OTHER = {"base": "tuned", "tuned": "base"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """What a rater may see before the vote: nothing in it tells the sides."""

    ballot: str
    position: int
    total: int
    prompt: list[dict[str, str]]
    answer_a: str
    answer_b: str


@dataclass(frozen=True)
class Sheet:
    """The rows votes are on, by the digest of what a rater reads; `asked` are those whose answers differ."""

    rows: Mapping[str, Row]
    asked: tuple[str, ...]

    @classmethod
    def of(cls, rows: Mapping[str, Row]) -> Sheet:
        return cls(rows, tuple(key for key, row in rows.items() if not same(row)))


def same(row: Row) -> bool:
    return bool(row["base"].strip() == row["tuned"].strip())


def digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def unit(row: Row) -> str:
    """What names the rows that aren't independent of this one: of one prompt, or of one `group`."""
    if row.get("group") is not None:
        return digest("group", row.get("task"), row["group"])
    return digest(row["messages"])


def sheet(run: Run, key: str) -> Sheet:
    """The rows of a contest, by its key; when its evaluation is made anew, votes on the old texts don't count."""
    contest = Contest.parse(key)
    evaluation = contest.evaluation
    evaluations = run.evaluations()
    if evaluation not in evaluations:
        raise UserError(
            "Run {name} has no evaluation {evaluation!r}; it has: {known}.",
            name=run.name,
            evaluation=evaluation,
            known=evaluations or Text("none yet"),
        )
    return _read(
        run,
        key,
        run.outputs_stamp(evaluation),
        *(_other_stamp(run, evaluation, name) for name in (contest.base_is, contest.tuned_is)),
    )


def _other_stamp(run: Run, evaluation: str, system: str) -> tuple[str, tuple[int, int, int]] | None:
    """Which version of another run's answers a contest has; None where the run has all answers itself."""
    if not system.startswith("run:") or system in run.scores(evaluation).get("systems", {}):
        return None
    other = runs.known(system.removeprefix("run:"))
    theirs = voting.open_evaluation(other)
    return (theirs, other.outputs_stamp(theirs)) if theirs else None


@lru_cache(maxsize=4)
def _read(run: Run, key: str, *_versions: Any) -> Sheet:
    contest = Contest.parse(key)
    if contest.is_usual:
        rows = cast("list[Row]", run.outputs(contest.evaluation))
    else:
        rows = paired_rows(run, contest.evaluation, contest.base_is, contest.tuned_is)
        if {contest.base_is, contest.tuned_is} & run.scores(contest.evaluation).get("systems", {}).keys():
            # Which of a system's answers were cut isn't known: a mark on the other one's alone would tell the sides.
            rows = [{key: value for key, value in row.items() if not key.endswith("_cut")} for row in rows]
    keys = (digest(key, row["row"], row["messages"], row["base"], row["tuned"]) for row in rows)
    return Sheet.of(dict(zip(keys, rows, strict=True)))


def open_contest(run: Run, base_is: str, tuned_is: str) -> None:
    """Let raters be asked which of two systems answers better, from the next pair on.

    Raises UserError where there is no evaluation, a system has no answers to its rows, or both gave the same ones.
    """
    voting.check_kind(run)
    if not (evaluation := voting.open_evaluation(run)):
        raise UserError("Run {name} has no evaluation yet; evaluate it first.", name=run.name)
    if base_is != tuned_is and not sheet(run, Contest(evaluation, base_is, tuned_is).key).asked:
        raise UserError(
            "{first!r} and {second!r} gave no different answers to the same rows; choose other systems.",
            first=base_is,
            second=tuned_is,
        )
    voting.open_between(run, base_is, tuned_is)


def typed_sheet(db: sqlite3.Connection, run: str, rater: str | None = None) -> Sheet:
    """The prompts typed for a run, by everybody or by one rater."""
    prompts = db.execute("SELECT * FROM typed WHERE run = ? AND rater = ifnull(?, rater) ORDER BY id", (run, rater))
    return Sheet.of(
        {
            prompt["pair"]: {
                "row": prompt["id"],
                "messages": json.loads(prompt["messages"]),
                "references": [],
                "label": None,
                "base": prompt["base"],
                "tuned": prompt["tuned"],
                **{name: value for name, value in json.loads(prompt["settings"]).items() if name.endswith("_cut")},
            }
            for prompt in prompts
        }
    )


def draw_side(sides: Sequence[str], total: int | None) -> str:
    """What stands left in a rater's next pair, drawn without replacement: over `total` the sides differ by one or none.

    Without a known end, Efron's (1971) biased coin: the side that is behind comes with a chance of 2/3.
    """
    chance = secrets.SystemRandom().random()
    ahead = 2 * sides.count("base") - len(sides)
    if total is None:
        return "base" if chance < (1 / 2 if not ahead else 1 / 3 if ahead > 0 else 2 / 3) else "tuned"
    # All rows are one block, as the end of a shorter one could be foretold: each vote reveals its sides.
    return "base" if chance * (total - len(sides)) < total / 2 - sides.count("base") else "tuned"


def _order(*seed: str) -> bytes:
    """A fixed but arbitrary order, a different one for each rater."""
    return hashlib.blake2b("\0".join(seed).encode(), digest_size=8).digest()


def repeated(total: int) -> range:
    """Where the parts of `total` pairs begin in which one comes again; the last is one where it is long enough."""
    return range(0, total - EARLIEST, REPEAT_EVERY)


def looks(total: int) -> int:
    """How often a rater is asked about `total` pairs, those that come again included."""
    return total + len(repeated(total))


def repeats(rater: str, evaluation: str, total: int) -> list[int]:
    """After how many pairs of `total` one comes again: once in each part, at a place that differs by rater."""
    places = []
    for start in repeated(total):
        room = min(REPEAT_EVERY, total - start) - EARLIEST
        places.append(start + EARLIEST + int.from_bytes(_order(rater, evaluation, str(start))) % room)
    return places


@dataclass(frozen=True)
class Next:
    """A pair to ask about: its key and sides, and whether it is the rater's second look."""

    pair: str
    side_a: str
    look: int


def choose(
    rater: str,
    evaluation: str,
    asked: Iterable[str],
    own: Sequence[sqlite3.Row],
    sides: Mapping[tuple[str, int], str],
    votes: Mapping[str, int],
) -> Next | None:
    """What to ask a rater next, or None at the end.

    `own` are the rater's votes that stand, oldest first; `sides` what stood left on every ballot so far by (pair, look);
    `votes` how many raters have voted on a pair. The pairs with the fewest votes come first, ties in the rater's own order.
    """
    keys = set(asked)
    seen = {vote["pair"] for vote in own if vote["look"] == 1}
    again = {vote["pair"] for vote in own if vote["look"] == 2}
    places = repeats(rater, evaluation, len(keys)) if evaluation != TYPED else []
    # Balanced among the first looks, which count, and among the second ones.
    earlier_sides = {look: [side for (_, at), side in sides.items() if at == look] for look in (1, 2)}
    if sum(place <= len(seen) for place in places) > len(again):
        old = [vote for vote in own[:-APART] if vote["look"] == 1 and vote["choice"] != "skip"]
        old = [vote for vote in old if vote["pair"] not in again]
        drawn_side = draw_side(earlier_sides[2], len(places))
        # Always on the other sides than the first time, so that whoever votes by place is found out; where all stood on
        # the side that is drawn, the next draws make up for it.
        if old := [vote for vote in old if vote["side_a"] != drawn_side] or old:
            vote = min(old, key=lambda vote: _order(rater, vote["pair"], "again"))
            return Next(vote["pair"], OTHER[vote["side_a"]], 2)
    if not (left := keys - seen):
        return None
    fewest = min(votes.get(key, 0) for key in left)
    pair = min((key for key in left if votes.get(key, 0) == fewest), key=lambda key: _order(rater, key))
    return Next(pair, draw_side(earlier_sides[1], None if evaluation == TYPED else len(keys)), 1)
