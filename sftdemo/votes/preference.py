"""What blind votes say: which side is preferred and how surely, whether raters agree, and who leads among several models.

A vote is decisive when it is for one side. Votes on one prompt aren't independent, so intervals draw prompts, and the
evidence counts one vote a prompt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo.evaluation.significance import CONFIDENCE, RESAMPLES, percentiles, wilson

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

ENOUGH = 20.0  # an e-value this high comes by chance to 1 in 20 at most, however often one looks (Ville 1939)
FEW_PROMPTS = 5  # a pair that met on fewer ties nobody to the rest: resamples know nothing of other prompts
MOST_VOTES = 2000  # a lean that needs more votes than this isn't worth asking for


def log_e_value(wins: Any, losses: Any) -> Any:
    """The natural logarithm of the e-value against a win rate of one half; takes numbers or arrays of one shape.

    A bet on every win rate at once, Beta(1, 1): 2^n B(wins + 1, losses + 1), a martingale when the votes are fair coins.
    """
    from scipy.special import betaln

    return (wins + losses) * math.log(2) + betaln(wins + 1, losses + 1)


def e_value(wins: int, losses: int) -> float:
    """Evidence against a win rate of one half, valid at every look; 1 is none, 20 is enough."""
    return math.exp(min(float(log_e_value(wins, losses)), 700.0))  # 10^304: more isn't a float


def votes_needed(wins: int, losses: int) -> int | None:
    """How many more decisive votes until the evidence is enough if the lean stays; 0 when it is, None when too even.

    The lean is the posterior mean (wins + 1) / (n + 2), so that a first vote or two promise nothing.
    """
    import numpy as np

    if log_e_value(wins, losses) >= math.log(ENOUGH):
        return 0
    extra = np.arange(1, MOST_VOTES + 1)
    share = (wins + 1) / (wins + losses + 2)
    enough = log_e_value(wins + share * extra, losses + (1 - share) * extra) >= math.log(ENOUGH)
    return int(extra[enough.argmax()]) if enough.any() else None


def win_rate_interval(wins: Sequence[int], votes: Sequence[int], seed: int = 42) -> tuple[float, float]:
    """The 95 % interval of sum(wins) / sum(votes) by bootstrap over prompts; each prompt has `votes` ≥ 1 decisive votes.

    Tails as wide as Student's t asks for (Hesterberg 2015). Where all prompts agree, resamples know nothing of others,
    and Wilson's interval over the prompts stands in.
    """
    import numpy as np

    n = len(votes)
    if not n:
        return 0.0, 1.0
    won, counted = np.asarray(wins, dtype=float), np.asarray(votes, dtype=float)
    rates = won / counted
    if np.ptp(rates) == 0:
        return wilson(float(rates[0]) * n, n)
    resampled = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    spread = (resampled @ won) / (resampled @ counted)
    return percentiles(spread, n)


def krippendorff_alpha(units: Sequence[Sequence[object]]) -> float | None:
    """Krippendorff's alpha for nominal values: 1 is full agreement, 0 is chance (Krippendorff 2011).

    Each unit holds the values its raters gave; units with one value can't disagree and are left out. None where there
    is nothing to compare, or all values are the same.
    """
    pairable = [Counter(unit) for unit in units if len(unit) > 1]
    pooled = sum(pairable, Counter[object]())
    n = pooled.total()
    chance = n * n - sum(count * count for count in pooled.values())
    if not chance:
        return None
    observed = sum(
        (unit.total() ** 2 - sum(count * count for count in unit.values())) / (unit.total() - 1) for unit in pairable
    )
    return 1 - (n - 1) * observed / chance


@dataclass(frozen=True)
class Duel:
    """One vote between models i and j (by number) on a prompt; `score` is i's: 1 won, 0.5 tied, 0 lost."""

    prompt: str
    i: int
    j: int
    score: float


@dataclass(frozen=True)
class Place:
    """A model in the ranking. `rate` is its expected score against model 0 (ties half) with its 95 % interval; `rank` is
    1 + the number of models that are clearly stronger. Where `few_votes` says so, no FEW_PROMPTS prompts tie it to model 0,
    straight or through others: its interval is everything, and its rank is among those it is tied to."""

    model: int
    rank: int
    rate: float
    low: float
    high: float
    votes: int
    few_votes: bool = False


def bradley_terry(wins: Array, prior: float = 0.5, met: Any = None) -> Array:
    """Log strengths (…, m) of m models, model 0 at 0, from wins (…, m, m): how often row beat column, ties half.

    Maximum likelihood by Hunter's (2004) MM steps. `prior` adds so many wins each way to every pair that met, or a model
    that won every vote would be infinitely strong. `met` (m, m) names those pairs where a resample may have lost one.
    """
    import numpy as np

    paired = (wins + np.swapaxes(wins, -1, -2)) > 0 if met is None else met
    wins = wins + prior * paired
    games = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(-1)
    strengths = np.ones(won.shape)
    for _ in range(10_000):
        pair_sums = strengths[..., :, None] + strengths[..., None, :]
        after = won / np.maximum((games / pair_sums).sum(-1), 1e-300)
        after = after / np.maximum(after[..., :1], 1e-300)
        done = np.abs(after - strengths).max() <= 1e-9 * strengths.max()
        strengths = after
        if done:
            break
    logs: Array = np.log(np.maximum(strengths, 1e-300))
    return logs


def ranking(models: int, duels: Sequence[Duel], resamples: int = 500, seed: int = 42) -> list[Place]:
    """All models, the strongest first; every model must have met model 0, straight or through others.

    Intervals by bootstrap over prompts: all votes on a prompt, in whatever run, are drawn together.
    """
    import numpy as np
    from scipy.special import expit

    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(duel.prompt for duel in duels))}
    wins = np.zeros((len(prompts), models, models))
    for duel in duels:
        wins[prompts[duel.prompt], duel.i, duel.j] += duel.score
        wins[prompts[duel.prompt], duel.j, duel.i] += 1 - duel.score
    n = len(prompts)
    resampled = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples).astype(float)
    games = wins.sum(0) + wins.sum(0).T
    met = games > 0
    strengths = bradley_terry(wins.sum(0))
    spread = bradley_terry(np.einsum("bp,pij->bij", resampled, wins), met=met)
    island = _islands(((wins + np.swapaxes(wins, 1, 2)) > 0).sum(0) >= FEW_PROMPTS)
    edges = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.quantile(spread, edges, axis=0)
    # [i, j]: what j is ahead of i by, at the low end.
    ahead = np.quantile(spread[:, None, :] - spread[:, :, None], edges[0], axis=0)
    counts = games.sum(1)
    places = []
    for model in range(models):
        rate, least, most = (float(expit(edge[model])) for edge in (strengths, low, high))
        if few := bool(island[model] != island[0]):
            least, most = 0.0, 1.0
        stronger = int(((ahead[model] > 0) & (island == island[model])).sum())
        places.append(Place(model, 1 + stronger, rate, least, most, round(float(counts[model])), few))
    return sorted(places, key=lambda place: (-place.rate, place.model))


def _islands(tied: Array) -> Array:
    """The number of the connected part that each model is in."""
    from scipy.sparse.csgraph import connected_components

    parts: Array = connected_components(tied, directed=False)[1]
    return parts
