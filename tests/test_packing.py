"""Packed rows give the loss and gradients that padded rows give, and neighbours never see each other."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import on

from sftdemo.encoding.encode import encode
from sftdemo.encoding.packing import Collator, ShardedBatchSampler, batches, pack
from sftdemo.encoding.rows import EncodedRows
from sftdemo.model.loading import load_base
from sftdemo.model.masks import CAUSAL, LayerMask, Pattern
from sftdemo.training import loss, packed_attention

QUESTIONS = [("the film was good", "nice"), ("the film was bad and the song too", "poor . sad"), ("the room", "fine")]


@pytest.fixture
def rows(tokenizer):
    chats = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in QUESTIONS]
    return [encode(tokenizer, chat) for chat in chats]


@pytest.fixture
def model(tiny):
    model = load_base(Path(tiny), torch.float32)
    loss.enable(model)
    return model


def backward(model, batch, over: float) -> float:
    """Add a batch's gradients; returns its loss over that many tokens."""
    total = model(**on(model, batch)) / over
    total.backward()
    return total.item()


def loss_and_gradients(model, batch):
    model.zero_grad()
    total = backward(model, batch, len(batch["labels"]))
    return total, [parameter.grad.clone() for parameter in model.parameters()]


def assert_close(gradients, others):
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_common_prefix_is_kept_once():
    assert pack([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]], 9) == ([1, 2, 3, 4, 5, 3], [0, 1, 2, 3, 2, 2], (2, 2, 1, 1))
    assert pack([[1, 2, 3], [1, 2, 4]], 1) == ([1, 2, 3, 2, 4], [0, 1, 2, 1, 2], (1, 2, 2))
    assert pack([[1, 2, 3]], 9) == ([1, 2, 3], [0, 1, 2], (0, 3))
    assert pack([[7, 1], [8, 1]], 9) == ([7, 1, 8, 1], [0, 1, 0, 1], (0, 2, 2))


def test_only_learned_tokens_are_asked_for(rows):
    batch = Collator(packed=True)(rows)
    assert batch["labels"].tolist() == [
        token for row in rows for token, keep in zip(row.ids, row.supervised, strict=True) if keep
    ]
    assert int(batch["logits_to_keep"].sum()) == len(batch["labels"])
    assert batch["row_tokens"] == sum(len(row.ids) for row in rows)
    assert batch["packing"][0] > 2, "the rows begin alike"


def test_packed_equals_padded(model, rows):
    plain, gradients = loss_and_gradients(model, Collator(packed=False)(rows))
    assert packed_attention.enable(model)
    packed, packed_gradients = loss_and_gradients(model, Collator(packed=True)(rows))
    assert packed == pytest.approx(plain, rel=1e-6)
    assert_close(gradients, packed_gradients)


@pytest.mark.parametrize("packed", [True, False])
def test_what_nobody_asks_about_is_not_computed(model, rows, packed):
    """A row ends before its last learned token; loss and gradients are those of the whole row, computed plainly."""
    assert not packed or packed_attention.enable(model)
    batch = Collator(packed)(rows[:1])
    [row] = rows[:1]
    end = max(place for place, learned in enumerate(row.supervised) if learned)
    assert row.ids[end + 1 :], "the template goes on behind the end of turn"
    assert batch["input_ids"].tolist() == [row.ids[:end]]
    total, gradients = loss_and_gradients(model, batch)
    model.zero_grad()
    places = [place for place, learned in enumerate(row.supervised) if learned]
    ids = torch.tensor([row.ids], device=model.device)
    logits = model(ids).logits[0, [place - 1 for place in places]]
    wanted = torch.nn.functional.cross_entropy(logits, ids[0, places])
    wanted.backward()
    assert total == pytest.approx(wanted.item(), rel=1e-6)
    assert_close(gradients, [parameter.grad for parameter in model.parameters()])


@pytest.mark.parametrize("packed", [True, False])
def test_a_rows_weight_multiplies_its_loss(model, rows, packed):
    """Against the rows one by one; weighted rows keep packing's shared prefix."""
    weights = [0.5, 2.0, 1.0]
    model.zero_grad()
    each = [
        backward(model, Collator(packed=False)([row]), 16 / weight) for row, weight in zip(rows, weights, strict=True)
    ]
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    assert not packed or packed_attention.enable(model)
    model.zero_grad()
    weighted = [replace(row, weight=weight) for row, weight in zip(rows, weights, strict=True)]
    batch = Collator(packed)(weighted)
    assert backward(model, batch, 16) == pytest.approx(sum(each), rel=1e-5)
    assert_close(wanted, [parameter.grad for parameter in model.parameters()])
    assert "weights" not in Collator(packed)(rows)
    assert batch["weights"].sum().item() == sum(
        weight * sum(row.supervised) for row, weight in zip(rows, weights, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_rounded_weights_are_packed_too(babbler, quantization, dtype, monkeypatch):
    """Rounding is no other attention; a leak between rows is."""
    rounded = load_base(Path(babbler), dtype, quantization)
    assert packed_attention.enable(rounded)
    monkeypatch.setattr(packed_attention, "packed_attention", leaking)
    rounded.set_attn_implementation("sdpa")
    assert not packed_attention.enable(rounded)


def leaking(module, query, key, value, attention_mask, **kwargs):
    """Packed attention that takes all rows for one."""
    scaling = query.shape[-1] ** -0.5
    return packed_attention._by_row(query[0], key[0], value[0], scaling, 0.0, (0, query.shape[2]))[None], None


def test_rows_are_kept_small_and_come_back_whole(rows):
    weighted = [replace(row, weight=0.25 * index) for index, row in enumerate(rows)]
    kept = EncodedRows(weighted)
    assert list(kept) == weighted and kept[-1] == weighted[-1] and kept[1:] == weighted[1:]
    with pytest.raises(IndexError):
        kept[len(rows)]
    many = EncodedRows(rows * 2000)
    held = sum(sys.getsizeof(part) for part in (many.ids, many.supervised, many.ends, many.weights))
    assert held < 7 * len(many.ids), "5 bytes a token, 16 a row, and the room that growing lists keep"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_process_has_its_share_of_the_same_steps(processes):
    def epochs(process, size):
        shares = ShardedBatchSampler(25, size, seed=7, process=process, processes=processes)
        return [list(shares), list(shares)], len(shares)

    size = 12 // processes
    alone, steps = list(ShardedBatchSampler(25, 12, seed=7)), 3
    found = [epochs(process, size) for process in range(processes)]
    assert {length for _, length in found} == {steps}
    for step in range(steps):
        together = sorted(row for (first, _), _ in found for row in first[step])
        assert together == sorted(alone[step]), "an empty share at the end is one too"
    first, second = found[0][0]
    assert first != second, "each epoch is drawn anew"


def test_an_empty_share_keeps_step_without_weight(model, rows):
    assert packed_attention.enable(model)
    shares = ShardedBatchSampler(3, 1, process=1, processes=2)
    full, empty = batches(rows, Collator(packed=True), shares)
    assert full["row_tokens"] == len(rows[1].ids) and empty["row_tokens"] == 0
    total, gradients = loss_and_gradients(model, empty)
    assert total == 0 and not any(gradient.any() for gradient in gradients) and not empty["weights"].any()


def test_accumulation_by_tokens_equals_one_batch(model, rows):
    """1 x 3 rows and 3 x 1 row: the same gradients, though the rows differ in their number of learned tokens."""
    assert packed_attention.enable(model)
    _, whole = loss_and_gradients(model, Collator(packed=True)(rows))
    learned = sum(sum(row.supervised) for row in rows)
    model.zero_grad()
    for row in rows:
        backward(model, Collator(packed=True)([row]), learned)
    assert_close(whole, [parameter.grad for parameter in model.parameters()])


def test_neighbours_are_invisible(model, rows):
    assert packed_attention.enable(model)
    first, second, third = (row.ids for row in rows)
    outputs = []
    for neighbour in (second, [token + 1 for token in second]):
        ids, positions, packing = pack([first, neighbour, third], 0)
        given = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions]), "packing": packing}
        given["attention_mask"] = torch.ones(1, len(ids), dtype=torch.long)
        out = model(**on(model, given)).logits[0]
        outputs.append(torch.cat([out[: len(first)], out[-len(third) :]]))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("pattern", [CAUSAL, Pattern(window=3), Pattern(chunk=4)])
@pytest.mark.parametrize("packing", [(0, 12), (0, 5, 7), (3, 4, 5), (4, 1, 7)])
def test_row_by_row_equals_a_block_mask(packing, pattern):
    """The CPU's path against SDPA with the mask other devices get."""
    torch.manual_seed(1)
    query, key, value = torch.randn(1, 4, 12, 8), torch.randn(1, 2, 12, 8), torch.randn(1, 2, 12, 8)
    got, _ = packed_attention.packed_attention(
        torch.nn.Module(), query, key, value, LayerMask(pattern), packing=packing
    )
    mask = packed_attention._block_mask(packing, pattern, torch.device("cpu"))
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(got, wanted.transpose(1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("packing", [(0, 5, 3, 9), (4, 5, 3, 9), (0, 6)])
def test_what_flash_attention_is_given(packing, window, grouped, monkeypatch):
    """Its kernel runs on a GPU only; here plain products stand in for it, with its rule for unlike lengths."""

    def varlen(query, key, value, queries, keys, longest_query, longest_key, scale, window_size, **options):
        assert (
            window_size == (window - 1 if window else -1, 0)
            and options == ({"enable_gqa": True} if grouped else {})
            and queries.dtype == keys.dtype == torch.int32
        )
        assert queries[-1] == len(query) and keys[-1] == len(key)
        parts = []
        for number in range(len(queries) - 1):
            q = query[queries[number] : queries[number + 1]].transpose(0, 1)
            k, v = (
                each[keys[number] : keys[number + 1]].transpose(0, 1).repeat_interleave(2 if grouped else 1, 0)
                for each in (key, value)
            )
            assert q.shape[1] <= longest_query and k.shape[1] <= longest_key
            hidden = torch.full((q.shape[1], k.shape[1]), float("-inf")).triu(k.shape[1] - q.shape[1] + 1)
            if window:  # so many to the left of the diagonal that ends with the keys
                hidden += torch.full_like(hidden, float("-inf")).tril(k.shape[1] - q.shape[1] - window_size[0] - 1)
            parts.append((torch.softmax(q @ k.transpose(1, 2) * scale + hidden, -1) @ v).transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(packed_attention, "varlen", SimpleNamespace(varlen_attn=varlen))
    monkeypatch.setattr(packed_attention, "VARLEN_OPTIONS", {"enable_gqa"} if grouped else set())
    torch.manual_seed(0)
    query, key, value = (torch.randn(heads, sum(packing), 8) for heads in (4, 2, 2))
    wanted = packed_attention._by_row(query, key, value, 0.3, 0.0, packing, Pattern(window))
    torch.testing.assert_close(packed_attention._flash(query, key, value, 0.3, packing, window), wanted)


def test_the_trial_asks_for_tokens_that_the_model_has(tiny):
    """Whatever its config says."""
    model = load_base(Path(tiny), torch.float32)
    model.config.vocab_size = 10**6
    assert packed_attention.enable(model)
