"""What only a GPU runs: FlashAttention over packed rows, and the estimate of a GPU's memory."""

from __future__ import annotations

import gc

import pytest
import torch

from sftdemo.config import TrainConfig
from sftdemo.model import loading
from sftdemo.model.masks import CAUSAL, LayerMask
from sftdemo.training import packed_attention
from sftdemo.training.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="asks for a CUDA device")


@pytest.mark.parametrize("packing", [(0, 50, 3, 90), (40, 50, 3, 90), (0, 60)])
def test_flash_attention_equals_plain_products(packing):
    """Forward and backward, in bfloat16, against row-by-row products in float32 on the CPU."""
    torch.manual_seed(0)
    total = sum(packing)
    on_cpu = [torch.randn(1, heads, total, 64).bfloat16().float().requires_grad_() for heads in (9, 3, 3)]
    on_gpu = [each.detach().to("cuda", torch.bfloat16).requires_grad_() for each in on_cpu]
    assert packed_attention._has_flash(on_gpu[0])
    way = torch.randn(1, total, 9, 64)
    found = []
    for given in (on_cpu, on_gpu):
        out, _ = packed_attention.packed_attention(torch.nn.Module(), *given, LayerMask(CAUSAL), packing=packing)
        out.backward(way.to(out.device, out.dtype))
        found.append([out, *(each.grad for each in given)])
    for wanted, got in zip(*found, strict=True):
        assert (got.float().cpu() - wanted).norm() <= 0.01 * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_packed_there(tiny, dtype):
    assert packed_attention.enable(loading.load_base(tiny, dtype))


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "full"},
        {},
        {"precision": "float32"},
        {"quantization": "int8"},
        {"quantization": "nf4"},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_every_mode_learns_there_within_its_estimate(labelled, tiny, settings):
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    found = train(TrainConfig(data=labelled, model=tiny, batch_size=8, checkpoint_every=0, **settings))
    assert found["eval_loss"] < found["first_eval_loss"]
    # Less is fine: smaller GPUs give their products less room.
    assert found["peak_memory"] < 1.2 * found["estimated_memory"]
