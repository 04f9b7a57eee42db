"""Batches of source and target: both padded on the right, what is padding told by place and never by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sftdemo.encoding.rows import Encoded

IGNORED = -100  # in targets, where no token is learned


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """[rows, longest], filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def sources(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """What the encoder reads: `input_ids` and `attention_mask` [rows, longest]."""
    return {"input_ids": padded(rows, pad), "attention_mask": padded([[1] * len(row) for row in rows], 0)}


@dataclass(frozen=True)
class PairCollator:
    """Makes a batch of encoded pairs: `input_ids`, `attention_mask` [B, S] and `targets` [B, T], IGNORED behind each row's
    end; `labels` [K] are the targets that are learned, with their rows' `weights` [K] where these differ from 1.
    `row_tokens` counts all of the rows' tokens."""

    pad: int

    def __call__(self, rows: list[Encoded]) -> dict[str, Any]:
        targets = [row.ids[row.prompt_length :] for row in rows]
        batch: dict[str, Any] = sources([row.ids[: row.prompt_length] for row in rows], self.pad)
        batch["targets"] = padded(targets, IGNORED)
        batch["labels"] = torch.tensor([token for target in targets for token in target])
        if any(row.weight != 1 for row in rows):
            weights = [row.weight for row, target in zip(rows, targets, strict=True) for _ in target]
            batch["weights"] = torch.tensor(weights)
        return batch | {"row_tokens": sum(len(row.ids) for row in rows)}


def rows_of_batch(batch: dict[str, Any]) -> list[Encoded]:
    """The rows as the batch holds them."""
    lengths = batch["attention_mask"].sum(1).tolist()
    rows = []
    for ids, length, targets in zip(batch["input_ids"].tolist(), lengths, batch["targets"].tolist(), strict=True):
        target = [token for token in targets if token != IGNORED]
        rows.append(Encoded(ids[:length] + target, [False] * length + [True] * len(target)))
    return rows
