"""How much visitors may use up: one ledger by visitor, by address and in all, refilled steadily over an hour."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sftdemo.errors import UserError

HOUR_S = 3600.0
MOST_KEPT = 20_000  # levels; one that is full again is as good as none
ADDRESS_SHARE = 8  # visitors that may share an address: new cookies and sessions gain no more than that


@dataclass(frozen=True)
class Limit:
    """What of a kind one bucket holds, and refills in an hour."""

    bucket: str
    amount: float


class Ledger:
    """Token buckets. Memory is bounded: the ones longest unused go first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._levels: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # (level, when)

    def _level(self, kind: str, limit: Limit) -> float:
        level, when = self._levels.get((kind, limit.bucket), (limit.amount, 0.0))
        return min(level + (self._clock() - when) * limit.amount / HOUR_S, limit.amount)

    def take(self, kind: str, limits: list[Limit], amount: float, scarce: Callable[[Limit, float], UserError]) -> None:
        """Take from all buckets or none; else raises what `scarce` makes of the limit and the seconds to wait."""
        with self._lock:
            for limit in limits:
                if (missing := amount - self._level(kind, limit)) > 1e-9:
                    wait = missing / limit.amount * HOUR_S
                    raise scarce(limit, wait if amount <= limit.amount else math.inf)
            self._add(kind, limits, -amount)

    def give_back(self, kind: str, limits: list[Limit], amount: float) -> None:
        """Return what wasn't used, or with a negative amount book what was used beyond what was taken."""
        with self._lock:
            self._add(kind, limits, amount)

    def _add(self, kind: str, limits: list[Limit], amount: float) -> None:
        for limit in limits:
            level = min(self._level(kind, limit) + amount, limit.amount)
            self._levels[(kind, limit.bucket)] = (level, self._clock())
            self._levels.move_to_end((kind, limit.bucket))
        while len(self._levels) > MOST_KEPT:
            self._levels.popitem(last=False)
