"""One decoding step of a batch, and the batches of all that is decoded at once by the same models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sftdemo.inference.batch import Batch
from sftdemo.inference.kv_cache import CachedPrefix
from sftdemo.inference.request import Request
from sftdemo.inference.sampling import choose


@dataclass(frozen=True)
class Chunk:
    """A piece of one side's answer. `tokens` counts from the answer's start, `tokens_per_s` since the prompt went in."""

    side: str
    text: str
    tokens: int
    tokens_per_s: float
    finish_reason: str | None = None  # "stop", "length" or "stopped"


@dataclass(frozen=True)
class Step:
    """What one row gained in one step; `token` is None when it ended without one to show."""

    row: Request
    token: int | None
    finish_reason: str | None


def decode(batch: Batch) -> Iterator[Step]:
    """The next token of every row; those that end with it leave the batch once all have been taken."""
    if not batch.rows:  # all of one side have ended while another's go on; the last logits are still there
        return
    tokens, keep = [], []
    for place, token in enumerate(choose(batch.logits, batch.rows)):
        step = _step(batch.rows[place], token)
        if step.finish_reason is None:
            tokens.append(token)
            keep.append(place)
        yield step
    batch.advance(tokens, keep)


def _step(row: Request, token: int) -> Step:
    if row.finish_reason:
        return Step(row, None, row.finish_reason)
    if token in row.stop_ids:
        return Step(row, None, "stop")
    row.tokens += 1
    return Step(row, token, "length" if row.tokens >= row.limit else None)


class Decoder:
    """All that is decoded at once: one batch for each side, or several that take turns where rows can't join."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def add(self, batch: Batch) -> None:
        """Decode the rows of a batch whose prompts have been read, too."""
        for other in self.batches:
            if other.side is batch.side and batch.side.can_join:
                other.join(batch)
                return
        self.batches.append(batch)

    def step(self) -> Iterator[Step]:
        """The next token of every row."""
        for batch in self.batches:
            yield from decode(batch)

    def take_ended(self) -> list[tuple[Request, CachedPrefix]]:
        """What the rows that have ended since the last call had computed; their batches go once they are empty."""
        ended = [each for batch in self.batches for each in batch.take_ended()]
        self.batches = [batch for batch in self.batches if batch.rows]
        return ended
