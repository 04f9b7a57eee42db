"""Which tokens of a batch each adapter answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class AdapterRouting:
    """Which tokens of a batch, row by row, each adapter answers: a span, their places, or None. Shared by a model's layers.

    `tokens` is how many a pass has, and `places` are each adapter's rows among `count`, where that is known.
    """

    chosen: list[slice | Tensor | None] = field(default_factory=list)
    tokens: int | None = None
    places: list[slice | Tensor | None] = field(default_factory=list)
    count: int = 0

    def read(self, places: list[slice | Tensor | None], lengths: list[int]) -> None:
        """The next pass has so many tokens in each row."""
        self.places, self.count, self.tokens = places, len(lengths), sum(lengths)
        self.chosen = [tokens_of(rows, lengths) for rows in places]

    def among(self, tokens: int) -> list[slice | Tensor | None]:
        """`chosen` for a layer that is given so many tokens: the pass's, or as many of every row, as of compressed keys."""
        if self.tokens in (None, tokens):
            return self.chosen
        each, rest = divmod(tokens, self.count)
        if rest:
            raise ValueError(f"{tokens} tokens of {self.count} rows")
        return [tokens_of(rows, [each] * self.count) for rows in self.places]


def tokens_of(rows: slice | Tensor | None, lengths: list[int]) -> slice | Tensor | None:
    """Where the tokens of some rows stand among those of all, row by row."""
    if rows is None or max(lengths) == 1:
        return rows
    if isinstance(rows, slice):
        return slice(sum(lengths[: rows.start]), sum(lengths[: rows.stop]))
    return torch.cat([torch.arange(lengths[row], device=rows.device) + sum(lengths[:row]) for row in rows.tolist()])
