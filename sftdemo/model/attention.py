"""What attention functions share: what they accept of a layer, and the softmax with attention sinks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sftdemo.model.masks import LayerMask, UnknownAttention

# What models pass to every attention function beside what it computes with; the window is in the mask already.
IGNORED = frozenset(
    {"sliding_window", "position_ids", "position_embeddings", "use_cache", "cache", "output_attentions"}
    | {"output_hidden_states", "output_router_logits", "shared_kv_states", "logits_to_keep", "layer_idx"}
)


def check_known(mask: Any, kwargs: dict[str, Any]) -> LayerMask:
    """The layer's mask; raises UnknownAttention if it isn't declared, or if the layer asks for anything beside it."""
    if not isinstance(mask, LayerMask):
        raise UnknownAttention("a layer makes its own mask")
    if kwargs.get("is_causal") is False or kwargs.get("output_attentions"):
        raise UnknownAttention("a layer asks for attention in both directions, or for its weights")
    unknown = [name for name, value in kwargs.items() if value is not None and name not in IGNORED | {"is_causal"}]
    if unknown:
        raise UnknownAttention(f"a layer's attention takes {', '.join(unknown)}")
    return mask


def probabilities(scores: Tensor, sinks: Tensor | None, queries: int) -> Tensor:
    """Softmax of scores [..., key heads, groups * queries, S]; a sink [heads] takes its share and is left out."""
    if sinks is None:
        return torch.softmax(scores, -1)
    column = sinks.to(scores.dtype).view(scores.shape[-3], -1, 1, 1).expand(-1, -1, queries, -1)
    column = column.reshape(*scores.shape[-3:-1], 1).expand(*scores.shape[:-1], 1)
    return torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1]
