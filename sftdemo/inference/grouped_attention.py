"""Attention for answering: rows decoded together, padded or packed, behind a prefix that is held once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo.encoding.packing import Packed
from sftdemo.inference.kv_cache import GROUPED, MASKED, CachedPrefix, can_share, expect, new, take
from sftdemo.model.attention import check_known, probabilities
from sftdemo.model.masks import Branches, LayerMask, UnknownAttention, layer_mask
from sftdemo.model.parity import accept, answering, rounding, short_spans, unknown_spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCORES_AT_ONCE = 2**24  # scores of a layer that grouped attention holds: 64 MB


@dataclass
class SharedPrefix:
    """What all rows of a batch begin with, computed before and held once: `prefixes` by set of weights, `rows` where each's stand.

    Attention to it is one product for all rows of a set, instead of one a row over as many copies.
    """

    prefixes: list[CachedPrefix]
    rows: list[slice | Tensor | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prefixes[0].ids)

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """Of queries [B, key heads, n, d]: [B, key heads, n, len(self)]."""
        return self._product(query, [past.layers[layer][0].transpose(1, 2) for past in self.prefixes])

    def mixed(self, layer: int, weights: Tensor) -> Tensor:
        """Values by weights [B, key heads, n, len(self)]: [B, key heads, n, d]."""
        return self._product(weights, [past.layers[layer][1] for past in self.prefixes])

    def before(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, key heads, S, d] with a copy of what is common before each row's own."""
        joined = []
        for part, own in enumerate((key, value)):
            copies = own.new_empty(*own.shape[:2], len(self), own.shape[3])
            for past, chosen in zip(self.prefixes, self.rows, strict=True):
                if chosen is not None:
                    copies[chosen] = past.layers[layer][part]
            joined.append(torch.cat([copies, own], 2))
        return joined[0], joined[1]

    def _product(self, x: Tensor, matrices: list[Tensor]) -> Tensor:
        """x [B, key heads, n, a] by each set's matrix [key heads, a, b], in the set's rows."""
        product = x.new_empty(*x.shape[:3], matrices[0].shape[2])
        for matrix, chosen in zip(matrices, self.rows, strict=True):
            if chosen is not None:
                mine = x[chosen].transpose(0, 1)
                block = mine.flatten(1, 2) @ matrix
                product[chosen] = block.view(*mine.shape[:3], -1).transpose(0, 1)
        return product


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    common: SharedPrefix | None = None,
    packed: Packed | None = None,
    branches: Branches | None = None,
    tokens: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Plain products of all queries that share a key head; the signature transformers asks, with a LayerMask for the mask.

    query is [B, heads, T, d], key and value [B, key heads, S, d]; returns [B, T, heads, d]. What is `common` stands before
    all keys, outside of S; `tokens` [B, S] is true where one of a padded row stands. Queries of rows that are `packed` are
    [1, heads, tokens, d], and so is what returns. `s_aux` [heads] are attention sinks. On a CPU SDPA copies keys and values for every query head where rows are padded; a single
    token is left to it, and so is a row with more scores than should be held.
    """
    mask = check_known(attention_mask, kwargs)
    if tokens is not None:
        mask.tokens = tokens
    if packed:
        query, mask.tokens = packed.spread(query), packed.mask
    attend = _Attend(
        module, mask, scaling if scaling is not None else query.shape[-1] ** -0.5, softcap, s_aux, common, branches
    )
    out = attend(query, key, value)
    return packed.gathered(out) if packed else out, None


@dataclass
class _Attend:
    """Attention of one layer in one pass."""

    module: torch.nn.Module
    mask: LayerMask
    scaling: float
    softcap: float | None
    sinks: Tensor | None
    common: SharedPrefix | None
    branches: Branches | None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [B, heads, T, d], key and value [B, key heads, S, d]; returns [B, T, heads, d]."""
        rows, heads, count, width = query.shape
        key_heads, own = key.shape[1:3]
        ahead = len(self.common) if self.common else 0
        plain = not self.softcap and self.sinks is None
        mask: Tensor | None = None
        if not plain or self.branches or ahead or self.mask.hides(count, own):
            mask = self.mask.additive(count, own, query, ahead, self.branches)
        if self.common:
            assert mask is not None
            layer = _cache_layer(self.module)
            if count == 1:
                return self._one_token(query, key, value, mask, self.common, layer)
            key, value = self.common.before(layer, key, value)
        at_once = SCORES_AT_ONCE // (heads * count * (ahead + own))  # rows
        if plain and (count == 1 or not at_once or query.device.type != "cpu"):
            from transformers.integrations.sdpa_attention import sdpa_attention_forward

            return sdpa_attention_forward(self.module, query, key, value, mask, 0.0, self.scaling)[0]  # type: ignore[no-any-return]
        if mask is None:
            mask = self.mask.additive(count, own, query)
        mask, at_once = mask.expand(rows, -1, -1, -1), max(1, at_once)
        query = query.reshape(rows, key_heads, -1, width) * self.scaling
        parts = [slice(start, start + at_once) for start in range(0, rows, at_once)]
        out = [self._products(query[part], key[part], value[part], mask[part]) for part in parts]
        return torch.cat(out).view(rows, heads, count, -1).transpose(1, 2)

    def _products(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """query [B, key heads, groups * T, d], scaled; key and value [B, key heads, S, d]; mask [B, 1, T, S]; like query."""
        scores = self._capped(query @ key.transpose(2, 3))
        scores.view(*query.shape[:2], -1, *mask.shape[2:]).add_(mask[:, :, None])
        return probabilities(scores, self.sinks, mask.shape[2]) @ value

    def _one_token(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, common: SharedPrefix, layer: int
    ) -> Tensor:
        """The next token of each row; what is common is read once for all rows."""
        query = query.reshape(len(query), key.shape[1], -1, query.shape[-1]) * self.scaling
        ahead = len(common)
        first, own = self._capped(common.scores(layer, query)), self._capped(query @ key.transpose(2, 3))
        if self.mask.pattern.limits(ahead + key.shape[2]):
            first = first + mask[..., :ahead]
        weights = probabilities(torch.cat([first, own.add_(mask[..., ahead:])], -1), self.sinks, 1)
        out = common.mixed(layer, weights[..., :ahead])
        out += weights[..., ahead:] @ value
        return out.flatten(1, 2)[:, None]

    def _capped(self, scores: Tensor) -> Tensor:
        return torch.tanh(scores / self.softcap) * self.softcap if self.softcap else scores


def _cache_layer(module: Any) -> int:
    """The cache's layer that holds a module's keys and values: its own, or that of an earlier layer which shares them."""
    index: int = module.layer_idx
    modes = getattr(module.config, "kv_sharing_modes", None)
    if not modes or modes[index] != "reuse":
        return index
    types = module.config.layer_types
    return max(before for before in range(index) if modes[before] == "store" and types[before] == types[index])


def group(model: PreTrainedModel) -> bool:
    """Let a model answer by grouped attention if it then gives the logits it gave before; else nothing changes."""
    from transformers import AttentionInterface, AttentionMaskInterface

    before = model.config._attn_implementation
    for name in (GROUPED, MASKED) if model.device.type == "cpu" else (MASKED,):
        AttentionInterface.register(name, grouped_attention)
        AttentionMaskInterface.register(name, layer_mask)
        undo = partial(model.set_attn_implementation, before)
        if not unknown_spans(model.config) and accept(partial(_trial, model, name), undo, rounding(model)):
            return True
    return False


def _trial(model: PreTrainedModel, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits of padded rows and of continuations side by side, and if it is to be GROUPED those of packed rows and behind a
    common prefix, each with the plain ones. Windows are shorter than the rows meanwhile."""
    ids = torch.randint(
        model.get_input_embeddings().num_embeddings, (2, 12), generator=torch.Generator().manual_seed(0)
    )  # type: ignore[arg-type]
    ids = ids.to(model.device)
    mask = (torch.arange(12, device=model.device) >= torch.tensor([[0], [3]], device=model.device)).long()
    with answering(model), short_spans(model.config), torch.inference_mode():
        wanted = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        model.set_attn_implementation(name)
        if not can_share(new(model.config)):
            raise UnknownAttention("a layer keeps more than keys and values")
        yield _padded(model, ids, mask), wanted[mask.bool()]
        yield _side_by_side(model, ids[:1]), wanted[0, 8:]
        if takes_shared_prefix(model):
            yield _behind_common(model, ids[:1]), wanted[0, 7:]
            yield _packed(model, ids, mask.bool()), wanted[mask.bool()]


def _padded(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The logits of padded rows' tokens, most of them read at first and the others behind them, the last by itself."""
    cache, places = new(model.config), (mask.cumsum(1) - 1).clamp(min=0)
    parts = [
        model(ids[:, start:end], tokens=mask[:, :end].bool(), position_ids=places[:, start:end], cache=cache).logits
        for start, end in ((0, 8), (8, 11), (11, 12))
    ]
    return torch.cat(parts, 1)[mask.bool()]


def _side_by_side(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The logits of one row's tokens from the ninth on, beside another continuation of its first eight."""
    cache = new(model.config)
    model(ids[:, :8], cache=cache)
    own = torch.cat([torch.zeros(2), torch.ones(4)]).to(ids.device)
    offsets = torch.tensor([0, 1, 0, 1, 2, 3], device=ids.device)
    together = (own[:, None] == own) & (offsets[:, None] >= offsets)
    both = torch.cat([ids[:, 1:3], ids[:, 8:]], 1)
    branch_inputs = {"position_ids": 8 + offsets[None], "branches": Branches(offsets, together)}
    return model(both, cache=cache, **branch_inputs).logits[0, 2:]  # type: ignore[no-any-return]


def _behind_common(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The logits of one row's tokens but the first seven, which are held as common; the last token by itself."""
    prefix_cache, cache = new(model.config), new(model.config)
    model(ids[:, :7], cache=prefix_cache)
    common = SharedPrefix(
        [take(prefix_cache, 0, torch.arange(7, device=ids.device), ids[0, :7].tolist())], [slice(0, 1)]
    )
    places = torch.arange(ids.shape[1], device=ids.device)[None]
    first = model(ids[:, 7:-1], position_ids=places[:, 7:-1], cache=cache, common=common).logits
    last = model(ids[:, -1:], position_ids=places[:, -1:], cache=cache, common=common).logits
    return torch.cat([first, last], 1)[0]


def _packed(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The logits of padded rows' tokens, read end to end."""
    packed, cache = Packed(mask), new(model.config)
    expect(cache, packed)
    places = (mask.cumsum(1) - 1)[mask][None]
    return model(ids[mask][None], cache=cache, packed=packed, position_ids=places).logits[0]  # type: ignore[no-any-return]


def masks_layers(model: PreTrainedModel) -> bool:
    """Whether the model's attention masks each layer by its own pattern, wherever padding and branches stand."""
    return model.config._attn_implementation in (GROUPED, MASKED)


def takes_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether the model's attention takes what all rows begin with apart from their own keys and values, and packed rows.

    On a GPU none does: its kernels read one tensor of keys.
    """
    return bool(model.config._attn_implementation == GROUPED)
