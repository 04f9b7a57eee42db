"""What answers are computed of: products, stacked layers, grouped attention, a shared prefix."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sftdemo.encoding.packing import Packed
from sftdemo.inference import grouped_attention as answering_attention
from sftdemo.inference import kv_cache
from sftdemo.inference.adapters import RoutedLinear, stack, store_by_input
from sftdemo.inference.batch import Batch
from sftdemo.inference.decoding import decode
from sftdemo.inference.grouped_attention import group
from sftdemo.inference.matmul import GemvStrategy, product
from sftdemo.inference.request import Request, Side
from sftdemo.inference.scheduler import KV_CACHE_MIN_BYTES, kv_token_budget
from sftdemo.model.adapter_routing import AdapterRouting
from sftdemo.model.loading import load_base
from sftdemo.system.compute import device


def test_storing_by_input_changes_no_value(babbler, monkeypatch):
    monkeypatch.setattr("sftdemo.inference.matmul.gemv_strategy", lambda: GemvStrategy(apart=True, by_input=True))
    model = load_base(Path(babbler), torch.float32).eval()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    ids = torch.tensor([[5, 6, 7]], device=device())
    with torch.no_grad():
        wanted = model(ids).logits
        store_by_input(model)
        torch.testing.assert_close(model(ids).logits, wanted, rtol=1e-5, atol=1e-5)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not model.model.layers[0].mlp.up_proj.weight.is_contiguous()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_one_token_a_thread_is_the_same_product(monkeypatch):
    x, weight, bias = torch.randn(2, 1, 8), torch.randn(5, 8), torch.randn(5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("sftdemo.inference.matmul.gemv_strategy", lambda: GemvStrategy(apart=True, by_input=True))
    for given in (None, bias):
        torch.testing.assert_close(product(x, weight, given), torch.nn.functional.linear(x, weight, given))
        torch.testing.assert_close(product(x[:1], weight, given), torch.nn.functional.linear(x[:1], weight, given))


@pytest.mark.parametrize("shape", [(2, 1, 8), (1, 7, 8), (3, 5, 8)])
def test_a_vocabulary_in_blocks_is_the_same_product(shape, monkeypatch):
    monkeypatch.setattr("sftdemo.inference.matmul.BLOCK", 4)
    x, weight = torch.randn(shape), torch.randn(4 * 16 + 3, 8)
    for laid_out in (weight, weight.t().contiguous().t()):
        torch.testing.assert_close(product(x, laid_out, None), torch.nn.functional.linear(x, weight))


def test_a_tokens_keys_and_values_are_counted_as_they_are_held(babbler, monkeypatch):
    model = load_base(Path(babbler), torch.float32).eval()
    held = kv_cache.new(model.config)
    with torch.inference_mode():
        model(torch.tensor([[5, 6, 7]], device=device()), cache=held)
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in held.layers) == 3 * kv_cache.token_bytes(model)
    for free in (4 * KV_CACHE_MIN_BYTES, KV_CACHE_MIN_BYTES):
        monkeypatch.setattr("sftdemo.system.resources.free", lambda free=free: free)
        assert kv_token_budget(model) == min(KV_CACHE_MIN_BYTES, free // 2) // kv_cache.token_bytes(model)


class Block(torch.nn.Module):
    """Three layers of one input, one of them with a bias and one untouched by the second adapter, and one behind them."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)

        def adapter(into: int, out: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.randn(into, rank, generator=draw), torch.randn(rank, out, generator=draw)

        self.rows = AdapterRouting([None, None])
        linear = torch.nn.Linear
        self.first = RoutedLinear(linear(8, 6, bias=False), [adapter(8, 6, 2), adapter(8, 6, 3)], self.rows)
        turned = (torch.rand(4, generator=draw), torch.randn(4, generator=draw))
        self.second = RoutedLinear(linear(8, 4), [adapter(8, 4, 2), None], self.rows, [turned, None])
        self.third = RoutedLinear(linear(8, 6, bias=False), [adapter(8, 6, 2), adapter(8, 6, 3)], self.rows)
        self.last = RoutedLinear(linear(16, 8, bias=False), [None, adapter(16, 8, 3)], self.rows)
        self.device = torch.device("cpu")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = ids if ids.is_floating_point() else torch.nn.functional.one_hot(ids, 8).float()
        return self.last(torch.cat([self.first(x), self.second(x), self.third(x)], -1))


@pytest.mark.parametrize(
    "chosen", [[slice(1, 3), slice(3, 5)], [torch.tensor([0, 4]), torch.tensor([1, 3])], [None, slice(0, 5)]]
)
@pytest.mark.parametrize("tokens", [1, 3])
def test_stacked_layers_are_the_same_products(chosen, tokens):
    block, x = Block(), torch.randn(5, tokens, 8)
    block.rows.chosen = chosen
    with torch.inference_mode():
        wanted = block(x)
        assert stack(block) == 2
        block.rows.chosen = chosen
        torch.testing.assert_close(block(x), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(block(x), wanted, rtol=1e-5, atol=1e-5)
    assert block.first.base.weight.untyped_storage().data_ptr() == block.third.base.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("at_once", [2**24, 700, 1])
def test_grouped_attention_is_the_models_own(babbler, monkeypatch, at_once):
    """Padded and not, behind tokens computed before; as plain products of all rows or of some at once, or left to SDPA."""
    monkeypatch.setattr(answering_attention, "SCORES_AT_ONCE", at_once)
    plain, grouped = (load_base(Path(babbler), torch.float32).eval().cpu() for _ in range(2))
    assert group(grouped) and grouped.config._attn_implementation == "grouped"
    ids = torch.randint(5, 300, (3, 9))
    padded = (torch.arange(9) >= torch.tensor([0, 2, 5])[:, None]).long()
    with torch.inference_mode():
        for mask in (torch.ones_like(ids), padded):
            past = grouped(ids[:, :6], attention_mask=mask[:, :6], use_cache=True).cache
            for end in (7, 9):
                got = grouped(ids[:, end - 1 if end == 7 else 7 : end], attention_mask=mask[:, :end], cache=past).logits
            wanted = plain(ids, attention_mask=mask).logits[:, 7:]
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at_once", [2**24, 700, 1])
def test_packed_rows_are_read_as_if_padded(babbler, monkeypatch, at_once):
    """Their logits, and their keys and values, to which the next token looks."""
    monkeypatch.setattr(answering_attention, "SCORES_AT_ONCE", at_once)
    model = load_base(Path(babbler), torch.float32).eval().cpu()
    assert group(model)
    ids = torch.randint(5, 300, (3, 9))
    packed = Packed(torch.arange(9) >= torch.tensor([0, 8, 5])[:, None])
    assert packed.ends.tolist() == [8, 9, 13] and packed.mask.sum(1).tolist() == packed.lengths == [9, 1, 4]
    positions = (packed.mask.cumsum(-1) - 1).clamp(min=0)
    padded, dense = kv_cache.new(model.config), kv_cache.new(model.config)
    with torch.inference_mode():
        wanted = model(ids, attention_mask=packed.mask.long(), position_ids=positions, cache=padded).logits
        kv_cache.expect(dense, packed)
        flat = positions[packed.mask][None]
        got = model(ids[packed.mask][None], cache=dense, packed=packed, position_ids=flat).logits[0]
        torch.testing.assert_close(got, wanted[packed.mask], rtol=1e-4, atol=1e-4)
        kv_cache.expect(dense, None)
        mask = torch.cat([packed.mask, torch.ones(3, 1, dtype=torch.bool)], 1).long()
        more = {"attention_mask": mask, "position_ids": positions[:, -1:] + 1}
        after = [model(ids[:, :1], cache=each, **more).logits for each in (padded, dense)]
        torch.testing.assert_close(*after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at_once", [2**24, 700, 1])
def test_a_common_beginning_held_once_is_as_if_in_every_row(babbler, monkeypatch, at_once):
    """Two beginnings, rows of either scattered, one padded; several tokens and then one behind them."""
    monkeypatch.setattr(answering_attention, "SCORES_AT_ONCE", at_once)
    plain, grouped = (load_base(Path(babbler), torch.float32).eval().cpu() for _ in range(2))
    assert (
        group(grouped)
        and answering_attention.takes_shared_prefix(grouped)
        and not answering_attention.takes_shared_prefix(plain)
    )
    beginnings, rows = torch.randint(5, 300, (2, 6)), torch.randint(5, 300, (3, 5))
    mask = (torch.arange(5) >= torch.tensor([0, 2, 0])[:, None]).long()
    owner = torch.tensor([1, 0, 1])
    with torch.inference_mode():
        begun = grouped(beginnings, use_cache=True).cache
        prefixes = [
            kv_cache.take(begun, number, torch.arange(6), ids.tolist()) for number, ids in enumerate(beginnings)
        ]
        common = answering_attention.SharedPrefix(prefixes, [slice(1, 2), torch.tensor([0, 2])])
        for given in (mask, None):
            here = given if given is not None else torch.ones_like(mask)
            positions = 6 + (here.cumsum(-1) - 1).clamp(min=0)
            first = grouped(
                rows[:, :4], attention_mask=None if given is None else given[:, :4], position_ids=positions[:, :4],
                use_cache=True, common=common,
            )  # fmt: skip
            last = grouped(
                rows[:, 4:], attention_mask=given, position_ids=positions[:, 4:], cache=first.cache, common=common
            )
            whole = torch.cat([torch.ones(3, 6, dtype=torch.long), here], 1)
            wanted = plain(
                torch.cat([beginnings[owner], rows], 1), attention_mask=whole,
                position_ids=torch.cat([torch.arange(6).expand(3, -1), positions], 1),
            ).logits[:, 6:]  # fmt: skip
            got = torch.cat([first.logits, last.logits], 1)
            torch.testing.assert_close(got[here.bool()], wanted[here.bool()], rtol=1e-4, atol=1e-4)


def test_a_side_whose_rows_have_all_ended_waits_for_the_other(babbler, tokenizer):
    """Its batch is empty, though its last logits are still there."""
    model = load_base(Path(babbler), torch.float32).eval()
    batch = Batch(Side(model, ("base",)), [Request("base", index, [5, 6, 7], 1) for index in range(3)])
    assert [step.finish_reason for step in decode(batch)] == ["length"] * 3
    assert not batch.rows and list(decode(batch)) == []
