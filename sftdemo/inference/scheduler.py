"""Continuous batching: rows join a batch as others end, within a budget of KV-cache tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo.inference.batch import Batch
from sftdemo.inference.grouped_attention import SharedPrefix, takes_shared_prefix
from sftdemo.inference.kv_cache import CachedPrefix, token_bytes
from sftdemo.inference.request import Request, Side
from sftdemo.system import resources

if TYPE_CHECKING:
    from transformers import PreTrainedModel


KV_CACHE_MIN_BYTES = 2**30  # bytes of keys and values, at least, that rows answered together may take
PREFILL_ROWS = (
    32  # prompts in one forward pass; products gain nothing from more, and blocks over 32 MiB are mapped anew
)


@dataclass
class Scheduler:
    """Batches that others join, one a side, within a bound of rows and conversations.

    What all prompts begin with is held once for all rows or, as one of `prefixes`, copied into each.
    """

    batches: list[Batch]
    names: int  # rows of a conversation in the batch that has most of them
    rows: int
    conversations: int
    prefixes: Mapping[str, CachedPrefix]

    @classmethod
    def of(
        cls,
        sides: list[Side],
        answering: Sequence[str],
        common: Mapping[str, CachedPrefix],
        longest: int,
        conversations: int,
    ) -> Scheduler:
        """`answering` are the names that answer; `longest` is the length of a prompt with its answer, in tokens."""
        names = max(sum(name in side.names for name in answering) for side in sides)
        held_once = bool(common) and all(takes_shared_prefix(side.model) for side in sides)
        longest -= len(next(iter(common.values())).ids) if held_once else 0
        rows = min(min(kv_token_budget(side.model) for side in sides) // (longest * len(sides)), conversations * names)
        shared = [SharedPrefix([common[name] for name in side.names]) if held_once else None for side in sides]
        batches = [
            Batch(side, [], room=(rows, longest), common=prefix) for side, prefix in zip(sides, shared, strict=True)
        ]
        return cls(batches, names, rows, conversations, {} if held_once else common)

    def room(self, open_: int) -> int:
        """How many conversations may be read next, while `open_` are answered; 0 while too many are."""
        taken = max(len(batch.rows) for batch in self.batches)
        if not self.batches[0].side.can_join:
            return 0 if taken else 1
        count = max(1, min(self.conversations, min(self.rows, PREFILL_ROWS) // self.names))
        fits = taken + count * self.names <= self.rows and open_ + count <= self.conversations
        return count if fits or not taken else 0

    def read(self, rows: list[Request]) -> list[Batch]:
        """Read the rows' prompts, to be scored, and decode them with the others from now on."""
        parts = [
            Batch(
                batch.side,
                [row for row in rows if row.side in batch.side.names],
                self.prefixes,
                beside=batch,
                common=batch.common,
            )
            for batch in self.batches
        ]
        if self.batches[0].side.can_join:
            for batch, part in zip(self.batches, parts, strict=True):
                batch.join(part)
        else:
            self.batches = parts
        return parts


def _scored(
    batches: list[Batch], chosen: list[int], labels: Sequence[list[int]], references: Sequence[list[int]]
) -> dict[int, dict[str, Any]]:
    """The likelihoods of labels and references after each prompt, before anything is generated."""
    scores: dict[int, dict[str, Any]] = {index: {} for index in chosen}
    for batch in batches:
        if labels:
            for row, label_scores in zip(batch.rows, batch.score(labels).tolist(), strict=True):
                scores[row.index][f"{row.side}_likelihoods"] = label_scores
        if references:
            log_probs = batch.likelihood([references[row.index] for row in batch.rows])
            for row, tokens in zip(batch.rows, log_probs, strict=True):
                scores[row.index][f"{row.side}_nll"] = -tokens.sum().item()
    return scores


def kv_token_budget(model: PreTrainedModel) -> int:
    """As many as have keys and values of the size of the model's weights, or of 1 GB where these are smaller, within half
    of the memory that is free."""
    return int(min(max(KV_CACHE_MIN_BYTES, model.get_memory_footprint()), resources.free() // 2)) // token_bytes(model)
