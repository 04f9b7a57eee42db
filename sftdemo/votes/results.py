"""What the votes on a run come to: totals, how far raters agree, leanings, reasons, metrics, and the ranking of runs."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sftdemo.encoding.thoughts import answers_only
from sftdemo.evaluation.outputs_table import row_gains
from sftdemo.evaluation.significance import wilson
from sftdemo.votes import preference
from sftdemo.votes.exports import lean, marks, record
from sftdemo.votes.pairing import Row, Sheet, same, unit
from sftdemo.votes.storage import SCALES, TAGS, WINNERS

Votes = Sequence[sqlite3.Row]
DECISIVE = ("base", "tuned")
SCORES = {"base": 0.0, "tie": 0.5, "bad": 0.5, "tuned": 1.0}


@dataclass(frozen=True)
class Rate:
    """k of n, with the 95 % Wilson interval; `rate` is None when n is 0."""

    k: int
    n: int
    rate: float | None
    low: float
    high: float

    @classmethod
    def of(cls, k: int, n: int) -> Rate:
        return cls(k, n, k / n if n else None, *wilson(k, n))


@dataclass(frozen=True)
class Totals:
    """Votes by winner, second looks aside. `n` leaves skips out; `same` counts rows with equal answers, which nobody is
    asked about.

    `win_rate` is tuned's share of the votes for one side, with its 95 % interval by bootstrap over prompts, rows of one
    `group` together as if of one prompt; None without such votes. `e_value` is the evidence against one half, which may be watched live: it counts the first decisive vote on
    each of the `prompts`, of the `rows` that can be asked about. `needed` is about how many more such votes it takes: 0 is
    enough, None too even to say. `unblinded` of the votes came after their raters had been told which model wrote which of
    earlier answers.
    """

    base: int
    tuned: int
    tie: int
    bad: int
    skip: int
    same: int
    raters: int
    n: int
    win_rate: float | None
    low: float | None
    high: float | None
    rows: int
    prompts: int
    e_value: float
    needed: int | None
    unblinded: int = 0

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class Rater:
    """One rater: votes (skips aside), the share for tuned and for the left answer, how often a second look agreed, and
    how many votes came after the rater had been told sides."""

    name: str
    votes: int
    tuned: Rate
    left: Rate
    again: Rate
    excluded: bool
    unblinded: int = 0


@dataclass(frozen=True)
class Report:
    """All that the votes on a run say. Excluded raters count in `by_rater` alone.

    `alpha` is Krippendorff's, over `shared` pairs that two raters or more voted on. `metrics` says of each metric how often
    it takes the same side as the people, where both take one, and on how many of their rows it takes none.
    """

    totals: Totals
    left: Rate
    again: Rate
    alpha: float | None
    shared: int
    changed: int
    by_rater: list[Rater]
    tags: dict[str, dict[str, int]]
    scales: dict[str, dict[str, float]]
    metrics: dict[str, tuple[Rate, int]]

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        metrics = {name: {**asdict(rate), "silent": silent} for name, (rate, silent) in self.metrics.items()}
        return {**value.pop("totals"), **value, "metrics": metrics}


def totals(sheet: Sheet, votes: Votes) -> Totals:
    """The votes that count on these rows, summed."""
    votes = [vote for vote in votes if vote["look"] == 1]
    count = Counter(vote["winner"] for vote in votes)
    by_prompt: dict[str, list[str]] = defaultdict(list)
    for vote in votes:
        if vote["winner"] in DECISIVE:
            by_prompt[unit(sheet.rows[vote["pair"]])].append(vote["winner"])
    wins = [winners.count("tuned") for winners in by_prompt.values()]
    decisive = sum(map(len, by_prompt.values()))
    low, high = preference.win_rate_interval(wins, [*map(len, by_prompt.values())]) if decisive else (None, None)
    first = sum(winners[0] == "tuned" for winners in by_prompt.values())
    evidence = first, len(by_prompt) - first
    return Totals(
        **{winner: count[winner] for winner in WINNERS},
        same=sum(map(same, sheet.rows.values())),
        raters=len({vote["rater"] for vote in votes}),
        n=len(votes) - count["skip"],
        win_rate=count["tuned"] / decisive if decisive else None,
        low=low,
        high=high,
        rows=len(sheet.asked),
        prompts=len(by_prompt),
        e_value=preference.e_value(*evidence),
        needed=preference.votes_needed(*evidence),
        unblinded=unblinded(votes),
    )


def report(sheet: Sheet, votes: Votes, excluded: set[str], changed: int) -> Report:
    """The report on votes that stand; those of the excluded are shown by rater and count nowhere else."""
    counted = [vote for vote in votes if vote["rater"] not in excluded]
    alpha, shared = agreement(counted)
    by_rater: dict[str, list[sqlite3.Row]] = defaultdict(list)
    for vote in votes:
        by_rater[vote["rater"]].append(vote)
    return Report(
        totals=totals(sheet, counted),
        left=left_share(counted),
        again=steadiness(counted),
        alpha=alpha,
        shared=shared,
        changed=changed,
        by_rater=[_rater(name, own, name in excluded) for name, own in by_rater.items()],
        tags=_tags(counted),
        scales=_scales(counted),
        metrics=against_metrics(sheet.rows, counted),
    )


def _rater(name: str, votes: Votes, excluded: bool) -> Rater:
    first = [vote for vote in votes if vote["look"] == 1]
    won = Counter(vote["winner"] for vote in first)
    tuned = Rate.of(won["tuned"], won["tuned"] + won["base"])
    votes_cast = len(first) - won["skip"]
    return Rater(name, votes_cast, tuned, left_share(votes), steadiness(votes), excluded, unblinded(first))


def unblinded(votes: Votes) -> int:
    """How many of the votes (skips aside) came after their rater had been told sides."""
    return sum(bool(vote["unblinded"]) for vote in votes if vote["winner"] != "skip")


def left_share(votes: Votes) -> Rate:
    """How often the left answer won a decided vote; sides are balanced, so that fair raters choose it half the time."""
    count = Counter(vote["choice"] for vote in votes)
    return Rate.of(count["a"], count["a"] + count["b"])


def steadiness(votes: Votes) -> Rate:
    """How often a rater who saw a pair again gave the same verdict."""
    first = {(vote["rater"], vote["pair"]): vote["winner"] for vote in votes if vote["look"] == 1}
    again = [vote for vote in votes if vote["look"] == 2 and vote["winner"] != "skip"]
    pairs = [(vote["winner"], first.get((vote["rater"], vote["pair"]), "skip")) for vote in again]
    pairs = [(second, earlier) for second, earlier in pairs if earlier != "skip"]
    return Rate.of(sum(second == earlier for second, earlier in pairs), len(pairs))


def agreement(votes: Votes) -> tuple[float | None, int]:
    """Krippendorff's alpha of the four verdicts, and on how many pairs two raters or more gave one."""
    units: dict[str, list[str]] = defaultdict(list)
    for vote in votes:
        if vote["look"] == 1 and vote["winner"] != "skip":
            units[vote["pair"]].append(vote["winner"])
    return preference.krippendorff_alpha([*units.values()]), sum(len(unit) > 1 for unit in units.values())


def _tags(votes: Votes) -> dict[str, dict[str, int]]:
    count = Counter((tag, vote["winner"]) for vote in votes for tag in record(vote)["tags"])
    by_tag = {tag: {winner: count[tag, winner] for winner in WINNERS if count[tag, winner]} for tag in TAGS}
    return {tag: winners for tag, winners in by_tag.items() if winners}


def _scales(votes: Votes) -> dict[str, dict[str, float]]:
    """{scale: {"base", "tuned", "n"}}: mean marks over the votes that mark both answers."""
    means = {}
    for scale in SCALES:
        marked = [marks(vote) for vote in votes]
        mark_pairs = [
            [by_side[side][scale] for side in DECISIVE]
            for by_side in marked
            if all(scale in by_side.get(s, {}) for s in DECISIVE)
        ]
        if mark_pairs:
            base, tuned = (sum(column) / len(mark_pairs) for column in zip(*mark_pairs, strict=True))
            means[scale] = {"base": base, "tuned": tuned, "n": len(mark_pairs)}
    return means


def against_metrics(rows: Mapping[str, Row], votes: Votes) -> dict[str, tuple[Rate, int]]:
    """Of the rows where people lean to one side: on how many a metric takes the same one, and on how many it takes none.

    `longer` is no metric: it tells whether people simply chose the longer answer.
    """
    leaning = [(answers_only(rows[key]), margin) for key, margin in lean(votes).items() if margin]
    scored = [(row, margin) for row, margin in leaning if row["references"]]
    gains: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for group in (
        [pair for pair in scored if pair[0].get("label")],
        [pair for pair in scored if not pair[0].get("label")],
    ):
        for name, values in row_gains([row for row, _ in group]).items():
            gains[name] += zip(values, (margin for _, margin in group), strict=True)
    gains["longer"] = [(len(row["tuned"].strip()) - len(row["base"].strip()), margin) for row, margin in leaning]
    by_metric = {}
    for name, pairs in gains.items():
        spoken = [gain * margin > 0 for gain, margin in pairs if abs(gain) > 1e-9]
        by_metric[name] = Rate.of(sum(spoken), len(spoken)), len(pairs) - len(spoken)
    return {name: by_metric[name] for name in by_metric if by_metric[name][0].n}
