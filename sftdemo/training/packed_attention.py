"""Attention over packed rows, for training.

Packed rows stand end to end without padding; neighbours never see each other, and a prefix may be shared: a row's tokens
see the prefix and what stands before them in their own row, as far as the layer's window lets them. Computing a common prefix
once gives the same loss and gradients as computing it in every row, since its hidden states depend on nothing behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo.encoding.packing import Packing, pack
from sftdemo.inference.kv_cache import is_recurrent
from sftdemo.model.attention import check_known, probabilities
from sftdemo.model.masks import CAUSAL, Pattern, layer_mask
from sftdemo.model.parity import accept, answering, rounding, short_spans, unknown_spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "packed"
AMPERE = (8, 0)  # the first GPUs that FlashAttention runs on
varlen: Any = None
with suppress(ImportError):  # torch has it since 2.10
    from torch.nn.attention import varlen
# What it takes differs from version to version of torch.
VARLEN_OPTIONS = set(signature(varlen.varlen_attn).parameters) if varlen else set[str]()


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    packing: Packing = (),
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The signature transformers asks of an attention function; `attention_mask` is the layer's LayerMask.

    query is [1, heads, T, d], key and value [1, key heads, T, d]; returns [1, T, heads, d]. `s_aux` [heads] are attention
    sinks: logits that take their share of the softmax. Raises UnknownAttention for a layer that asks for more.
    """
    pattern = check_known(attention_mask, kwargs).pattern
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    packing = packing or (0, query.shape[2])
    pattern = pattern.within(packing[0] + max(packing[1:]))
    if query.device.type == "cpu" or softcap or s_aux is not None:
        return _by_row(query[0], key[0], value[0], scaling, dropout, packing, pattern, softcap, s_aux)[None], None
    if not dropout and not pattern.chunk and query.shape[-1] == value.shape[-1] and _has_flash(query):
        return _flash(query[0], key[0], value[0], scaling, packing, pattern.window)[None], None
    mask = _block_mask(packing, pattern, query.device)
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


def _by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    dropout: float,
    packing: Packing,
    pattern: Pattern = CAUSAL,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
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
        bias = _bias(length, seen, pattern.within(seen + length), query.dtype, query.device).repeat(groups, 1)
        q, k = q.reshape(key.shape[0], groups * length, width), k.transpose(1, 2)
        if softcap:
            scores = torch.tanh(q @ k * (scaling / softcap)) * softcap + bias
        else:
            scores = torch.baddbmm(bias.expand(key.shape[0], -1, -1), q, k, alpha=scaling)
        weights = probabilities(scores, sinks, length)
        if dropout:
            weights = torch.nn.functional.dropout(weights, dropout)
        parts.append((weights @ v).view(heads, length, -1).transpose(0, 1))
    return torch.cat(parts)


def _has_flash(query: Tensor) -> bool:
    """Whether torch's FlashAttention takes such queries: 16 bits, and a GPU of 2020 or later."""
    return (
        {"scale", "window_size"} <= VARLEN_OPTIONS
        and query.is_cuda
        and query.element_size() == 2
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(query.device) >= AMPERE
    )


def _flash(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, packing: Packing, window: int | None = None
) -> Tensor:
    """FlashAttention's kernel for rows of unlike length (Dao 2023); returns [T, heads, d].

    Keys and values of the prefix are put before each row's own. Where a row has fewer queries than keys the kernel aligns its
    causal mask, and its window, at their end, which is what is wanted.
    """
    queries, keys, seen = _flash_spans(packing, query.device)
    longest = max(packing[1:])
    groups = query.shape[0] // key.shape[0]
    options = {"enable_gqa": groups > 1} if "enable_gqa" in VARLEN_OPTIONS else {}
    if not options and groups > 1:
        key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    out: Tensor = varlen.varlen_attn(
        query.transpose(0, 1),
        key.transpose(0, 1)[seen],
        value.transpose(0, 1)[seen],
        queries,
        keys,
        max(longest, packing[0]),
        packing[0] + longest,
        scale=scaling,
        window_size=(window - 1 if window else -1, 0),
        **options,
    )
    return out


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


@lru_cache(maxsize=64)
def _bias(length: int, seen: int, pattern: Pattern, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[length, seen + length]: 0 where a row's own token may look behind a prefix of `seen`, -inf where not.

    Kept for the rows of a training.
    """
    with torch.inference_mode(False):
        places = torch.arange(seen + length, device=device)
        hidden = ~pattern.visible(places[seen:, None], places)
        return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))


@lru_cache(maxsize=4)
def _block_mask(packing: Packing, pattern: Pattern, device: torch.device) -> Tensor:
    """[1, 1, T, T]: True where a token may look."""
    with torch.inference_mode(False):
        lengths = torch.tensor(packing, device=device)
        row = torch.repeat_interleave(torch.arange(len(packing), device=device), lengths)
        places = torch.cat(
            [torch.arange(packing[0], device=device)]
            + [torch.arange(packing[0], packing[0] + own, device=device) for own in packing[1:]]
        )
        same = (row[:, None] == row) | (row == 0)
        return (same & pattern.visible(places[:, None], places))[None, None]


def _trial_rows(model: PreTrainedModel) -> list[list[int]]:
    """Rows of any tokens that begin alike; a vocabulary's first, often unused, make a bfloat16 model's rounding grow."""
    drawn = torch.Generator().manual_seed(0)
    prefix, *rows = [
        torch.randint(model.get_input_embeddings().num_embeddings, (count,), generator=drawn).tolist()  # type: ignore[arg-type]
        for count in (7, 10, 11, 3)
    ]
    return [prefix + row for row in rows]


def enable(model: PreTrainedModel) -> bool:
    """Switch a model to packed attention if it then gives the logits it gave before; False leaves it unchanged.

    What its layers declare is honoured (windows, chunks, soft caps, sinks); a model that declares anything else, or mixes
    neighbours in other ways, is trained padded. In the trial windows are shorter than the rows and the prefix.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, layer_mask)
    before = model.config._attn_implementation
    # A recurrent layer may pass on too little of a neighbour for the trial of rounded numbers to see.
    return not (unknown_spans(model.config) or is_recurrent(model.config)) and accept(
        lambda: _packed_and_alone(model), lambda: model.set_attn_implementation(before), rounding(model)
    )


def enable_all(*models: PreTrainedModel) -> bool:
    """The same for models that read the same batches: all of them, or none."""
    before = [model.config._attn_implementation for model in models]
    if all(enable(model) for model in models):
        return True
    for model, attention in zip(models, before, strict=True):
        model.set_attn_implementation(attention)
    return False


def _packed_and_alone(model: PreTrainedModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits of packed rows, with a shared prefix and without, and those that each row has alone."""
    with answering(model), short_spans(model.config):
        rows = _trial_rows(model)
        expected = [_last_logits(model, row, 3) for row in rows]
        model.set_attn_implementation(NAME)
        for sharable in (0, 7):
            ids, positions, packing = pack(rows, sharable)
            ends = list(itertools.accumulate(packing))[1:]
            keep = [place for end in ends for place in range(end - 3, end)]
            logits = _last_logits(model, ids, keep, positions, packing).split(3)  # type: ignore[no-untyped-call]
            yield from zip(logits, expected, strict=True)


def _last_logits(
    model: PreTrainedModel,
    ids: list[int],
    keep: int | list[int],
    positions: list[int] | None = None,
    packing: Packing = (),
) -> Tensor:
    """Logits [len(keep), vocabulary] of one sequence's last tokens, or of those at the given places."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    if positions:
        inputs |= {
            "position_ids": torch.tensor([positions]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        }
    if isinstance(keep, list):
        inputs["logits_to_keep"] = torch.tensor(keep)
    else:
        inputs["logits_to_keep"] = keep
    inputs = {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return model(**inputs, use_cache=False, **({"packing": packing} if packing else {})).logits[0]  # type: ignore[no-any-return]
