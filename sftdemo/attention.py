"""Two attention functions: for training over packed rows, and for answering on a CPU.

Packed rows stand end to end without padding; neighbours never see each other, and a prefix may be shared: a row's tokens
see the prefix and what stands before them in their own row. Computing a common prefix once gives the same loss and
gradients as computing it in every row, since its hidden states depend on nothing behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import varlen

from sftdemo.cache import Past, can_share, expect, new, take
from sftdemo.packing import Packed, Packing, pack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "packed"
GROUPED = "grouped"
SCORES_AT_ONCE = 2**24  # scores of a layer that grouped attention holds: 64 MB
UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some models' attention has beside products and a mask
# How far a row's logits may be moved by rounding to 16 or 8 bits: up to 0.03 and 0.09 with 135M, by a look at its neighbour
# from 0.135.
ROUNDED = 0.12
AMPERE = (8, 0)  # the first GPUs that FlashAttention runs on


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing = (),
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The signature transformers asks of an attention function.

    query is [1, heads, T, d], key and value [1, key heads, T, d]; returns [1, T, heads, d].
    """
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    packing = packing or (0, query.shape[2])
    if query.device.type == "cpu":
        return _by_row(query[0], key[0], value[0], scaling, dropout, packing)[None], None
    if not dropout and _has_flash(query):
        return _flash(query[0], key[0], value[0], scaling, packing)[None], None
    mask = _block_mask(packing, query.device)
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


def _by_row(query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, packing: Packing) -> Tensor:
    """Plain products row by row: on a CPU their backward pass is faster than SDPA's for rows of this length."""
    heads, total, width = query.shape
    groups, prefix = heads // key.shape[0], packing[0]
    lengths = [length for length in packing if length]
    if sum(lengths) != total:
        raise ValueError(f"packing {packing} covers {sum(lengths)} of {total} tokens")
    # Split, not sliced: the gradient is then put together once, not added up from as many tensors of its size as rows.
    queries, keys, values = (torch.split(each, lengths, 1) for each in (query, key, value))  # type: ignore[no-untyped-call]
    parts = []
    for number, (length, q, k, v) in enumerate(zip(lengths, queries, keys, values, strict=True)):
        seen = prefix if number else 0
        if seen:
            k, v = torch.cat([keys[0], k], 1), torch.cat([values[0], v], 1)
        bias = _causal_bias(length, seen, query.dtype).repeat(groups, 1)
        scores = torch.baddbmm(
            bias.expand(key.shape[0], -1, -1),
            q.reshape(key.shape[0], groups * length, width),
            k.transpose(1, 2),
            alpha=scaling,
        )
        weights = torch.softmax(scores, -1)
        if dropout:
            weights = torch.nn.functional.dropout(weights, dropout)
        parts.append((weights @ v).view(heads, length, width).transpose(0, 1))
    return torch.cat(parts)


def _has_flash(query: Tensor) -> bool:
    """Whether torch's FlashAttention takes such queries: 16 bits, and a GPU of 2020 or later."""
    return (
        query.is_cuda
        and query.element_size() == 2
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(query.device) >= AMPERE
    )


def _flash(query: Tensor, key: Tensor, value: Tensor, scaling: float, packing: Packing) -> Tensor:
    """FlashAttention's kernel for rows of unlike length (Dao 2023); returns [T, heads, d].

    Keys and values of the prefix are put before each row's own. Where a row has fewer queries than keys the kernel aligns its
    causal mask at their end, which is what is wanted.
    """
    queries, keys, seen = _flash_spans(packing, query.device)
    longest = max(packing[1:])
    return varlen.varlen_attn(  # type: ignore[return-value]
        query.transpose(0, 1),
        key.transpose(0, 1)[seen],
        value.transpose(0, 1)[seen],
        queries,
        keys,
        max(longest, packing[0]),
        packing[0] + longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[0] != key.shape[0],
    )


@lru_cache(maxsize=2)
def _flash_spans(packing: Packing, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where each row's queries and keys begin and the last end (int32 [rows + 1]), and the places of all its keys."""
    prefix, *own = packing
    rows = [prefix, *own] if prefix else own
    seen, start = list(range(prefix)), prefix
    for length in own:
        seen += [*range(prefix), *range(start, start + length)]
        start += length
    ends = [itertools.accumulate(rows), itertools.accumulate([prefix] * bool(prefix) + [prefix + n for n in own])]
    queries, keys = (torch.tensor([0, *each], dtype=torch.int32, device=device) for each in ends)
    return queries, keys, torch.tensor(seen, device=device)


def _causal(length: int, seen: int, dtype: torch.dtype) -> Tensor:
    """[length, seen + length]: 0 where a token may look, -inf where not."""
    return torch.full((length, seen + length), float("-inf"), dtype=dtype).triu(seen + 1)


@lru_cache(maxsize=64)
def _causal_bias(length: int, seen: int, dtype: torch.dtype) -> Tensor:
    """The same, kept for the rows of a training."""
    with torch.inference_mode(False):
        return _causal(length, seen, dtype)


@lru_cache(maxsize=2)
def _block_mask(packing: Packing, device: torch.device) -> Tensor:
    """[1, 1, T, T]: True where a token may look."""
    with torch.inference_mode(False):
        lengths = torch.tensor(packing, device=device)
        row = torch.repeat_interleave(torch.arange(len(packing), device=device), lengths)
        same = (row[:, None] == row[None, :]) | (row[None, :] == 0)
        return (same & torch.ones_like(same).tril())[None, None]


@dataclass
class Common:
    """What all rows of a batch begin with, computed before and held once: `pasts` by set of weights, `rows` where each's stand.

    Attention to it is one product for all rows of a set, instead of one a row over as many copies.
    """

    pasts: list[Past]
    rows: list[slice | Tensor | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pasts[0].ids)

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """Of queries [B, key heads, n, d]: [B, key heads, n, len(self)]."""
        return self._product(query, [past.layers[layer][0].transpose(1, 2) for past in self.pasts])

    def mixed(self, layer: int, weights: Tensor) -> Tensor:
        """Values by weights [B, key heads, n, len(self)]: [B, key heads, n, d]."""
        return self._product(weights, [past.layers[layer][1] for past in self.pasts])

    def before(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, key heads, S, d] with a copy of what is common before each row's own."""
        found = []
        for part, own in enumerate((key, value)):
            copies = own.new_empty(*own.shape[:2], len(self), own.shape[3])
            for past, chosen in zip(self.pasts, self.rows, strict=True):
                if chosen is not None:
                    copies[chosen] = past.layers[layer][part]
            found.append(torch.cat([copies, own], 2))
        return found[0], found[1]

    def _product(self, x: Tensor, matrices: list[Tensor]) -> Tensor:
        """x [B, key heads, n, a] by each set's matrix [key heads, a, b], in the set's rows."""
        found = x.new_empty(*x.shape[:3], matrices[0].shape[2])
        for matrix, chosen in zip(matrices, self.rows, strict=True):
            if chosen is not None:
                mine = x[chosen].transpose(0, 1)
                made = mine.flatten(1, 2) @ matrix
                found[chosen] = made.view(*mine.shape[:3], -1).transpose(0, 1)
        return found


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    common: Common | None = None,
    packed: Packed | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Plain products of all queries that share a key head; the signature transformers asks.

    query is [B, heads, T, d], key and value [B, key heads, S, d], the mask [B, 1, T, S] is added to the scores; returns
    [B, T, heads, d]. What is `common` stands before all keys, outside of S. Queries of rows that are `packed` are
    [1, heads, tokens, d], and so is what returns. On a CPU SDPA copies keys and values for every query head where rows are
    padded; a single token is left to it, and so is a row with more scores than should be held.
    """
    if any(kwargs.get(name) is not None for name in UNKNOWN):
        raise ValueError(f"grouped attention knows none of {', '.join(UNKNOWN)}")
    if packed:
        query = packed.spread(query)
    out = _grouped(module, query, key, value, attention_mask, scaling, common, dropout, **kwargs)
    return packed.gathered(out) if packed else out, None


def _grouped(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    common: Common | None,
    dropout: float,
    **kwargs: Any,
) -> Tensor:
    rows, heads, count, width = query.shape
    key_heads, own = key.shape[1:3]
    scaling = scaling if scaling is not None else width**-0.5
    if common:
        layer: int = module.layer_idx  # type: ignore[assignment]
        bias = attention_mask if attention_mask is not None else _causal(count, own - count, query.dtype)[None, None]
        if count == 1:
            return _one_token(query, key, value, bias, scaling, common, layer)
        key, value = common.before(layer, key, value)
        attention_mask = torch.nn.functional.pad(bias, (len(common), 0))
    seen = key.shape[2]
    most = SCORES_AT_ONCE // (heads * count * seen)  # rows at once
    if count == 1 or not most:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)[0]  # type: ignore[no-any-return]
    if attention_mask is None:
        attention_mask = _causal(count, seen - count, query.dtype)[None, None]
    attention_mask = attention_mask.expand(rows, -1, -1, -1)
    query = query.reshape(rows, key_heads, -1, width) * scaling
    parts = [slice(start, start + most) for start in range(0, rows, most)]
    out = [_products(query[part], key[part], value[part], attention_mask[part]) for part in parts]
    return torch.cat(out).view(rows, heads, count, width).transpose(1, 2)


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """query [B, key heads, groups * T, d], scaled; key and value [B, key heads, S, d]; mask [B, 1, T, S]; returns like query."""
    scores = query @ key.transpose(2, 3)
    scores.view(*query.shape[:2], -1, *mask.shape[2:]).add_(mask[:, :, None])
    return torch.softmax(scores, -1) @ value


def _one_token(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, common: Common, layer: int
) -> Tensor:
    """Grouped attention for the next token of each row; what is common is read once for all rows."""
    query = query.reshape(len(query), key.shape[1], -1, query.shape[-1]) * scaling
    scores = torch.cat([common.scores(layer, query), (query @ key.transpose(2, 3)).add_(mask)], -1)
    weights = torch.softmax(scores, -1)
    out = common.mixed(layer, weights[..., : len(common)])
    out += weights[..., len(common) :] @ value
    return out.flatten(1, 2)[:, None]


def added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where a token may look, the least number where not."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def _added_mask(*args: Any, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Tensor | None:
    """SDPA's mask as numbers to add to the scores; None where it is plainly causal."""
    from transformers.masking_utils import sdpa_mask

    mask = sdpa_mask(*args, **kwargs)
    return None if mask is None else added(mask, dtype)


def group(model: PreTrainedModel) -> bool:
    """Let a model on a CPU answer by grouped attention if it then gives the logits it gave before; else nothing changes."""
    from transformers import AttentionInterface, AttentionMaskInterface

    before = model.config._attn_implementation
    if model.device.type != "cpu" or before != "sdpa":
        return False
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, _added_mask)
    ids = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 5, 6, 11]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    with torch.inference_mode():
        wanted = model(ids, attention_mask=mask).logits[mask.bool()]
        try:
            model.set_attn_implementation(GROUPED)
            pairs = [(model(ids, attention_mask=mask).logits[mask.bool()], wanted)]
            if holds_common(model):
                pairs += [(_behind_common(model, ids[:1]), wanted[2:5]), (_packed(model, ids, mask.bool()), wanted)]
            same = all(bool((found - asked).norm() <= 1e-3 * asked.norm()) for found, asked in pairs)
        except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
            same = False
    if not same:
        model.set_attn_implementation(before)
    return same


def _behind_common(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The logits of one row's tokens but the first two, which are held as common."""
    begun = model(ids[:, :2], use_cache=True).cache
    common = Common([take(begun, 0, torch.arange(2), ids[0, :2].tolist())], [slice(0, 1)])
    return model(ids[:, 2:], position_ids=torch.arange(2, ids.shape[1])[None], common=common).logits[0]  # type: ignore[no-any-return]


def _packed(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The logits of padded rows' tokens, read end to end."""
    packed, made = Packed(mask), new(model.config)
    expect(made, packed)
    given = {"position_ids": (mask.cumsum(1) - 1)[mask][None], "attention_mask": added(packed.seen, model.dtype)}
    return model(ids[mask][None], cache=made, packed=packed, **given).logits[0]  # type: ignore[no-any-return]


def holds_common(model: PreTrainedModel) -> bool:
    """Whether the model's attention takes what all rows begin with apart from their own keys and values, and packed rows."""
    return model.config._attn_implementation == GROUPED and can_share(new(model.config))


def near(model: PreTrainedModel) -> float:
    """How far, relatively, rounding alone may move logits."""
    exact = model.dtype == torch.float32 and not getattr(model, "is_loaded_in_8bit", False)
    return 1e-3 if exact else ROUNDED


@contextmanager
def trial(model: PreTrainedModel) -> Iterator[None]:
    """The model as it answers, without gradients; then as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _trial_rows(model: PreTrainedModel) -> list[list[int]]:
    """Rows of any tokens that begin alike; a vocabulary's first, often unused, make a bfloat16 model's rounding grow."""
    drawn = torch.Generator().manual_seed(0)
    first, *rows = [
        torch.randint(model.get_input_embeddings().num_embeddings, (count,), generator=drawn).tolist()  # type: ignore[arg-type]
        for count in (2, 15, 16, 3)
    ]
    return [first + row for row in rows]


def enable(model: PreTrainedModel) -> bool:
    """Switch a model to packed attention if it then gives the logits it gave before; False leaves it unchanged.

    Models with a window, soft-capping or attention of their own fail the trial and are trained padded.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    before = model.config._attn_implementation
    try:
        with trial(model):
            rows, ask = _trial_rows(model), {"device": model.device}
            wanted = [model(torch.tensor([row], **ask)).logits[0, 3:] for row in rows]
            ids, positions, packing = pack(rows, sharable=2)
            model.set_attn_implementation(NAME)
            got = model(
                torch.tensor([ids], **ask), position_ids=torch.tensor([positions], **ask), packing=packing
            ).logits
            own = [chunk[3 - packing[0] :] for chunk in got[0, packing[0] :].split(list(packing[1:]))]
        same = all(bool((a - b).norm() <= near(model) * b.norm()) for a, b in zip(own, wanted, strict=True))
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        same = False
    if not same:
        model.set_attn_implementation(before)
    return same
