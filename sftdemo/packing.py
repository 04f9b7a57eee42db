"""Rows put end to end in one sequence without padding, and the batches that training and evaluation make of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sftdemo.encoding import Encoded

Packing = tuple[int, ...]
"""(prefix, n_1, n_2, …): how many tokens all rows begin with, computed once, then how many more each row has."""


def pack(rows: list[list[int]], sharable: int) -> tuple[list[int], list[int], Packing]:
    """Put rows end to end; returns (ids, positions, packing). At most `sharable` tokens may become the common prefix."""
    prefix = 0
    if len(rows) > 1:
        limit = min(sharable, *(len(row) - 1 for row in rows))
        first, last = min(rows), max(rows)
        while prefix < limit and first[prefix] == last[prefix]:
            prefix += 1
    ids, positions = rows[0][:prefix], list(range(prefix))
    for row in rows:
        ids = ids + row[prefix:]
        positions.extend(range(prefix, len(row)))
    return ids, positions, (prefix, *(len(row) - prefix for row in rows))


@dataclass(frozen=True)
class Collator:
    """Makes a batch of encoded rows: packed, or padded for a model that can't keep packed rows apart.

    The batch has input_ids and position_ids [B, T] (B = 1 when packed), `logits_to_keep` [B, T] true where the next token
    is learned, and `labels` [K]: those next tokens. `row_tokens` counts the rows' tokens, common prefix in each.
    """

    packed: bool

    def __call__(self, rows: list[Encoded]) -> dict[str, Any]:
        batch = self._pack(rows) if self.packed else self._pad(rows)
        learned = [(index, token) for index, token in enumerate(batch.pop("next")) if token is not None]
        keep = torch.zeros(batch["input_ids"].numel(), dtype=torch.bool)
        keep[[index for index, _ in learned]] = True
        labels = torch.tensor([token for _, token in learned])
        # The Trainer counts `shift_labels` as they are; `labels` it would count from the second on.
        return batch | {
            "logits_to_keep": keep.view_as(batch["input_ids"]),
            "labels": labels,
            "shift_labels": labels,
            "row_tokens": sum(len(row.ids) for row in rows),
        }

    def _pack(self, rows: list[Encoded]) -> dict[str, Any]:
        # The first token of a row's own part isn't learned, else the prefix's last token would need a label for each row.
        sharable = min(row.prompt_length for row in rows) - 1
        ids, positions, packing = pack([row.ids for row in rows], sharable)
        prefix = packing[0]
        following: list[int | None] = [None] * prefix
        for row in rows:
            following += _next(row)[prefix:]
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": torch.tensor([positions]),
            "packing": packing,
            "next": following,
        }

    def _pad(self, rows: list[Encoded]) -> dict[str, Any]:
        width = max(len(row.ids) for row in rows)
        following: list[int | None] = []
        for row in rows:
            following += _next(row) + [None] * (width - len(row.ids))
        return {
            # Padding stands behind a row, where a causal model can't see it; its id doesn't matter.
            "input_ids": torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows]),
            "position_ids": torch.arange(width)[None].repeat(len(rows), 1),
            "next": following,
        }


def _next(row: Encoded) -> list[int | None]:
    """For each position the token that is learned to follow it, or None."""
    pairs = zip(row.ids[1:], row.supervised[1:], strict=True)
    return [token if learned else None for token, learned in pairs] + [None]
