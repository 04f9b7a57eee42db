"""What each attention layer lets a token see, taken from transformers' mask factories instead of a mask tensor.

A mask tensor of [T, T] can't say how packed rows, a shared prefix or padding between tokens change distances. The pattern can:
it is evaluated at the positions of tokens in their own row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class UnknownAttention(ValueError):
    """An attention layer declares something that our attention functions don't compute."""


@dataclass(frozen=True)
class Pattern:
    """Causal attention, within a sliding window or chunks if it has them.

    With a window a token sees itself and the `window` - 1 tokens before it; with chunks only those of its own chunk.
    """

    window: int | None = None
    chunk: int | None = None

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether a query sees a key, by their positions in the row; the two shapes are broadcast."""
        seen = keys <= queries
        if self.window:
            seen = seen & (keys > queries - self.window)
        if self.chunk:
            seen = seen & (keys // self.chunk == queries // self.chunk)
        return seen

    def limits(self, length: int) -> bool:
        """Whether in a row of that many tokens anything but causality hides one."""
        return length > min(self.window or length, self.chunk or length)

    def within(self, length: int) -> Pattern:
        """The pattern as rows of that many tokens meet it: plainly causal where nothing else hides a token."""
        return self if self.limits(length) else CAUSAL


CAUSAL = Pattern()


@dataclass(frozen=True)
class Branches:
    """Continuations that follow the same prompt side by side, in the last T columns.

    `offsets` [T] is each token's distance from the prompt's end, `visible` [T, T] which of them see which.
    """

    offsets: Tensor
    visible: Tensor


@dataclass
class LayerMask:
    """Stands in for the mask tensor of a layer: its pattern, and `tokens` [B, S], true where a token stands (None: everywhere)."""

    pattern: Pattern
    tokens: Tensor | None = None
    _made: dict[Any, Tensor] = field(default_factory=dict)

    def __getitem__(self, index: tuple[slice, ...]) -> LayerMask:
        """The mask of the last queries alone, which is how models cut it; `additive` is told how many there are."""
        if len(index) != 4 or index[2].stop is not None or any(part != slice(None) for part in (*index[:2], index[3])):
            raise UnknownAttention("a layer takes its mask apart")
        return self

    def hides(self, queries: int, keys: int, ahead: int = 0) -> bool:
        """Whether anything but causality hides a key from the last `queries` of `keys` columns behind `ahead` tokens."""
        return self.tokens is not None or self.pattern.limits(ahead + keys) or (1 < queries < keys)

    def additive(
        self, queries: int, keys: int, like: Tensor, ahead: int = 0, branches: Branches | None = None
    ) -> Tensor:
        """[B or 1, 1, queries, ahead + keys]: 0 where a token is seen, the dtype's least number where not.

        `ahead` tokens stand before the columns in every row. Made once for all layers of a pattern.
        """
        made_for = (queries, keys, like.dtype, ahead, id(branches))
        if made_for not in self._made:
            visible = self._visible(queries, keys, like.device, ahead, branches)
            self._made[made_for] = additive(visible[:, None], like.dtype)
        return self._made[made_for]

    def _visible(self, queries: int, keys: int, device: torch.device, ahead: int, branches: Branches | None) -> Tensor:
        """[B or 1, queries, ahead + keys]."""
        places = torch.arange(keys, device=device)[None] if self.tokens is None else self.tokens.cumsum(1) - 1
        if branches:
            behind = places[:, -queries - 1 : -queries] + 1 + branches.offsets
            places = torch.cat([places[:, :-queries], behind], 1)
        query_places = places[:, -queries:, None]
        visible = self.pattern.visible(query_places, places[:, None])
        if self.tokens is not None:
            visible = visible & self.tokens[:, None]
        if branches:
            visible[:, :, -queries:] &= branches.visible
        if ahead:
            first = self.pattern.visible(query_places + ahead, torch.arange(ahead, device=device))
            visible = torch.cat([first, visible], 2)
        return visible


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask: 0 where a token may look, the least number where not."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)


def layer_mask(
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> LayerMask:
    """The mask function to register in transformers' AttentionMaskInterface.

    Raises UnknownAttention where the pattern is another than those of `Pattern`.
    """
    # Places around every edge that a window or chunk of local_size can have.
    edges = {
        start + step for start in (0, *([local_size, 2 * local_size] if local_size else [])) for step in (-1, 0, 1)
    }
    places = torch.tensor(sorted(place for place in edges if place >= 0), device=device)
    queries, keys = places[:, None], places[None]
    declared = None if use_vmap else mask_function(0, 0, queries, keys)
    for pattern in (Pattern(local_size), Pattern(None, local_size)):
        if declared is not None and torch.equal(declared, pattern.visible(queries, keys)):
            return LayerMask(pattern, attention_mask)
    raise UnknownAttention("a layer's mask is neither causal nor a sliding window nor chunks")
