"""Rows put end to end in one sequence without padding, and the batches that training and evaluation make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from sftdemo.encoding.rows import Encoded, common_prefix

Packing = tuple[int, ...]
"""(prefix, n_1, n_2, …): how many tokens all rows begin with, computed once, then how many more each row has."""


@dataclass(frozen=True)
class Packed:
    """Rows of unlike length end to end in one pass, which attention spreads to [rows, width], padding on the left."""

    mask: Tensor
    """[rows, width]: true where a token stands."""

    @cached_property
    def lengths(self) -> list[int]:
        """How many tokens each row has."""
        return self.mask.sum(1).tolist()  # type: ignore[no-any-return]

    @cached_property
    def places(self) -> Tensor:
        """[tokens]: where each stands among rows * width places."""
        return self.mask.flatten().nonzero()[:, 0]

    @property
    def ends(self) -> Tensor:
        """[rows]: which token is each row's last."""
        return self.mask.sum(1).cumsum(0) - 1

    def spread(self, x: Tensor) -> Tensor:
        """[1, heads, tokens, d] to [rows, heads, width, d], zeros where no token stands."""
        _, heads, _, size = x.shape
        padded = x.new_zeros(self.mask.numel(), heads, size).index_copy_(0, self.places, x[0].transpose(0, 1))
        return padded.view(*self.mask.shape, heads, size).transpose(1, 2)

    def gathered(self, x: Tensor) -> Tensor:
        """[rows, width, heads, d] to [1, tokens, heads, d]."""
        return x.flatten(0, 1)[self.places][None]


def pack(rows: list[list[int]], sharable: int) -> tuple[list[int], list[int], Packing]:
    """Put rows end to end; returns (ids, positions, packing). At most `sharable` tokens may become the common prefix."""
    prefix = 0
    if len(rows) > 1:
        prefix = min(common_prefix(rows), sharable, *(len(row) - 1 for row in rows))
    ids, positions = rows[0][:prefix], list(range(prefix))
    for row in rows:
        ids = ids + row[prefix:]
        positions.extend(range(prefix, len(row)))
    return ids, positions, (prefix, *(len(row) - prefix for row in rows))


@dataclass(frozen=True)
class Collator:
    """Makes a batch of encoded rows: packed, or padded for a model that can't keep packed rows apart.

    The batch has input_ids and position_ids [B, T] (B = 1 when packed), `logits_to_keep` [B, T] true where the next token
    is learned, and `labels` [K]: those next tokens, with their rows' `weights` [K] where these differ from 1. A row's last
    learned token is only a label, and what follows it is left out. `row_tokens` counts all of the rows' tokens.

    For a `noisy` training each row has tokens of its own, none shared, and `row_lengths` [B, T] says of each how many its
    row has.
    """

    packed: bool
    noisy: bool = False

    def __call__(self, rows: list[Encoded]) -> dict[str, Any]:
        batch = self._pack(rows) if self.packed else self._pad(rows)
        learned = [(index, token) for index, token in enumerate(batch.pop("next")) if token is not None]
        keep = torch.zeros(batch["input_ids"].numel(), dtype=torch.bool)
        keep[[index for index, _ in learned]] = True
        batch |= {
            "logits_to_keep": keep.view_as(batch["input_ids"]),
            "labels": torch.tensor([token for _, token in learned]),
            "row_tokens": sum(len(row.ids) for row in rows if row.weight),
        }
        if self.noisy:
            counts = torch.tensor([len(row.inputs) for row in rows])
            lengths = counts.repeat_interleave(counts)[None] if self.packed else counts[:, None]
            batch["row_lengths"] = lengths.expand_as(batch["input_ids"])
        if any(row.weight != 1 for row in rows):
            # Learned tokens stand in the order of their rows, packed or padded; a row's first token is never learned.
            batch["weights"] = torch.tensor([row.weight for row in rows for learned in row.supervised[1:] if learned])
        return batch

    def _pack(self, rows: list[Encoded]) -> dict[str, Any]:
        # The first token of a row's own part isn't learned, else the prefix's last token would need a label for each row.
        sharable = 0 if self.noisy else min(row.prompt_length for row in rows) - 1
        ids, positions, packing = pack([row.inputs for row in rows], sharable)
        prefix = packing[0]
        following: list[int | None] = [None] * prefix
        for row in rows:
            following += _next(row)[prefix:]
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": torch.tensor([positions]),
            # Without it transformers would look for rows in the positions itself.
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
            "packing": packing,
            "next": following,
        }

    def _pad(self, rows: list[Encoded]) -> dict[str, Any]:
        inputs = [row.inputs for row in rows]
        width = max(map(len, inputs))
        following: list[int | None] = []
        for row in rows:
            read = _next(row)
            following += read + [None] * (width - len(read))
        return {
            # Padding stands behind a row, where a causal model can't see it; its id doesn't matter.
            "input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids in inputs]),
            "position_ids": torch.arange(width)[None].repeat(len(rows), 1),
            "next": following,
        }


def _next(row: Encoded) -> list[int | None]:
    """For each of the row's inputs the token that is learned to follow it, or None."""
    places = range(1, len(row.inputs) + 1)
    return [row.ids[place] if row.supervised[place] else None for place in places]


class ShardedBatchSampler(Sampler[list[int]]):
    """One process's share of every batch of an epoch, as row numbers.

    A step has the same rows, in the same order, on any number of processes; each has equally many batches, of which the
    last may be empty. With a seed the order is drawn anew for every epoch.
    """

    def __init__(
        self, rows: int, size: int, seed: int | None = None, process: int = 0, processes: int = 1, done: int = 0
    ) -> None:
        """`size` is each process's batch size, `done` how many epochs have been trained on before."""
        self.rows, self.size, self.process, self.processes = rows, size, process, processes
        self.draw = None if seed is None else torch.Generator().manual_seed(seed)
        for _ in range(done):
            torch.randperm(rows, generator=self.draw)

    def __len__(self) -> int:
        return -(-self.rows // (self.size * self.processes))

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.rows) if self.draw is None else torch.randperm(self.rows, generator=self.draw)
        for batch in torch.split(order, self.size * self.processes):
            yield batch[self.process :: self.processes].tolist()


def batches(
    rows: Sequence[Encoded], collator: Callable[[list[Encoded]], dict[str, Any]], shares: ShardedBatchSampler
) -> DataLoader[Any]:
    """One process's batches; where its share is empty it gets a row without weight, so that it keeps step with the others."""
    idle = replace(rows[0], weight=0.0)
    own = torch.Generator()  # else each pass would draw a number from those that dropout draws from
    return DataLoader(rows, batch_sampler=shares, collate_fn=lambda share: collator(share or [idle]), generator=own)  # type: ignore[arg-type]
