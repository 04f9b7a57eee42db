"""What a compiled decode step is tried with: rows of unlike lengths, padded and behind a common prefix, for every name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sftdemo.inference.batch import Batch
from sftdemo.inference.grouped_attention import SharedPrefix, takes_shared_prefix
from sftdemo.inference.request import Request, Side

if TYPE_CHECKING:
    from sftdemo.inference.kv_cache import CachedPrefix

PROMPT, COMMON, STEPS = 12, 8, 3  # tokens


def pairs(side: Side, use: Callable[[bool], None]) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [rows, vocabulary] of a few steps after random prompts: with the compiled step in use, and without."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = side.model.get_input_embeddings().num_embeddings  # type: ignore[union-attr]
    prompt, *fed = torch.randint(vocabulary, (1 + STEPS, PROMPT), generator=generator).tolist()
    common = _common(side, prompt[:COMMON]) if takes_shared_prefix(side.model) else None
    for prefix in (None, common) if common else (None,):
        lengths = (PROMPT, PROMPT - 3)
        rows = [Request(name, 0, prompt[:length], 0) for name in side.names for length in lengths]
        batch = Batch(side, rows, common=prefix)
        again = copy.copy(batch)
        again.cache = copy.deepcopy(batch.cache)
        for tokens in fed:
            logits = []
            for compiled, each in ((True, batch), (False, again)):
                use(compiled)
                each.advance(tokens[: len(rows)], list(range(len(rows))))
                logits.append(each.logits.float())
            yield logits[0], logits[1]


def _common(side: Side, ids: list[int]) -> SharedPrefix:
    batch = Batch(side, [Request(name, 0, ids, 0) for name in side.names], keep_prefixes=True)
    prefixes: dict[str, CachedPrefix] = {row.side: prefix for row, prefix in batch.close()}
    return SharedPrefix([prefixes[name] for name in side.names])
