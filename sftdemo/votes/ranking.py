"""Who leads among all systems that were voted on, runs and others, by Bradley–Terry over every vote that counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.runs.voting import Contest
from sftdemo.votes import preference
from sftdemo.votes.pairing import Sheet, unit
from sftdemo.votes.results import SCORES, Votes


@dataclass(frozen=True)
class Ranked:
    """A model's place among all that were voted on (see preference.Place); `name` is the run's, the base model's, or as
    `evaluate --against` names the system, and `kind` is "run", "base" or "system". `is_reference` marks whom the rates are
    against."""

    name: str
    is_base: bool
    rank: int
    rate: float
    low: float
    high: float
    votes: int
    raters: int = 0
    kind: str = "run"
    is_reference: bool = False
    few_votes: bool = False


def base_name(run: Run) -> str:
    """What the base of a run is called in a ranking."""
    config = run.config()
    settings = config.get("settings", {})
    name = str(settings.get("model") or config.get("base_model") or "base").rstrip("/").split("/")[-1]
    quantized = settings.get("quantization") or "none"
    return name if quantized == "none" else f"{name} · {quantized}"


def family(run: Run, names: Iterable[str]) -> list[Run]:
    """Those of the named runs that are still there and share the run's base."""
    members = []
    for name in names:
        try:
            candidate = runs.named(name)
            if runs.same_base(run, candidate):
                members.append(candidate)
        except UserError:
            continue  # deleted since, or damaged; its votes have no texts any more
    return members


Node = tuple[str, str]  # kind and name
BASE: Node = ("base", "")


def _node(run: Run, system: str, of: Run) -> Node | None:
    """Who a system of a run is; None for one that isn't the same in another run, as its linear model."""
    if system == "base":
        return BASE
    if system == "tuned":
        return "run", of.name
    if system.startswith("run:"):
        return "run", system.removeprefix("run:")
    return ("system", system) if of == run else None


def ranking(run: Run, voted: Sequence[tuple[Run, str, Sheet, Votes]]) -> list[Ranked]:
    """All models that met the run's, straight or through others; a tie or two bad answers count half for each.

    Rates are against the base, or where that isn't among them, against the run. Empty under three.
    """
    duels: list[tuple[str, Node, Node, float, str]] = []
    for of, key, sheet, votes in voted:
        contest = Contest.parse(key)
        base, tuned = (_node(run, system, of) for system in (contest.base_is, contest.tuned_is))
        if base is None or tuned is None or base == tuned:
            continue
        for vote in votes:
            if vote["look"] == 1 and vote["winner"] in SCORES and vote["pair"] in sheet.rows:
                row = sheet.rows[vote["pair"]]
                duels.append((unit(row), tuned, base, SCORES[vote["winner"]], vote["rater"]))
    met = _met(("run", run.name), [(tuned, base) for _, tuned, base, _, _ in duels])
    if len(met) < 3:
        return []
    reference = BASE if BASE in met else ("run", run.name)
    nodes = [reference, *(node for node in met if node != reference)]
    places = {node: place for place, node in enumerate(nodes)}
    drawn = [preference.Duel(prompt, places[i], places[j], score) for prompt, i, j, score, _ in duels if i in places]
    raters = {node: {rater for _, i, j, _, rater in duels if node in (i, j)} for node in nodes}
    ranked = []
    for place in preference.ranking(len(nodes), drawn):
        kind, name = node = nodes[place.model]
        figures = (place.rank, place.rate, place.low, place.high, place.votes, len(raters[node]))
        ranked.append(Ranked(name or base_name(run), node == BASE, *figures, kind, place.model == 0, place.few_votes))
    return ranked


def _met(start: Node, pairs: Sequence[tuple[Node, Node]]) -> list[Node]:
    """Everybody whom one has met, straight or through others, in the order of the votes; nobody without a vote."""
    met, grown = {start}, True
    while grown:
        joined = {node for pair in pairs if met & set(pair) for node in pair} - met
        met, grown = met | joined, bool(joined)
    everybody = dict.fromkeys(node for pair in pairs for node in pair)
    return [node for node in everybody if node in met]
