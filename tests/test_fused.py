"""The fused LoRA layer gives PEFT's outputs and gradients, is used only where it does, and leaves PEFT's adapter."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners import lora
from safetensors.torch import load_file
from torch import nn

from sftdemo.config import TrainConfig
from sftdemo.model.loading import add_lora, load_base
from sftdemo.system.compute import device
from sftdemo.training import fused_layers


class Two(nn.Module):
    """Two linear layers, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(24, 40), nn.Linear(40, 8, bias=False)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


def adapted(**changes):
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["one", "two"], "init_lora_weights": False, **changes}
    return get_peft_model(Two(), LoraConfig(**settings))


def learned(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_outputs_and_gradients_are_pefts():
    plain = adapted()
    quick = copy.deepcopy(plain)
    assert fused_layers.fuse(quick) == 2
    results = []
    for model in (plain, quick):
        x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = model(x)
        out.square().sum().backward()
        results.append((out, x.grad, *learned(model).values()))
    assert len(results[0]) == 2 + 4
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_derivative():
    """Against finite differences, in float64."""
    draw = torch.Generator().manual_seed(0)
    x, weight, bias, a, b = (
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((2, 3, 6), (5, 6), (5,), (2, 6), (5, 2))
    )
    for tensor in (x, a, b):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, a, b: fused_layers.LoraProduct.apply(x, weight, bias, a, b, 0.7), (x, a, b)
    )


def test_bfloat16_weights_with_float32_adapters():
    model = adapted()
    fused_layers.fuse(model)
    wanted = model(x := torch.ones(4, 24))
    for layer in (model.base_model.model.one, model.base_model.model.two):
        layer.base_layer.to(torch.bfloat16)
    out = model(x.bfloat16())
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), wanted, rtol=0.05, atol=0.05)
    assert {gradient.dtype for gradient in learned(model).values()} == {torch.float32}


@pytest.mark.parametrize(
    "changes", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True, "target_modules": ["one"]}]
)
def test_other_layers_keep_pefts_forward(changes):
    model = adapted(**changes)
    before = {name: type(module) for name, module in model.named_modules()}
    assert fused_layers.fuse(model) == 0
    assert before == {name: type(module) for name, module in model.named_modules()}


def test_switched_off_merged_and_copied_it_is_pefts():
    model = adapted()
    fused_layers.fuse(model)
    x = torch.randn(2, 24, generator=torch.Generator().manual_seed(1))
    tuned = model(x)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), adapted().get_base_model().two.base_layer(torch.tanh(
            adapted().get_base_model().one.base_layer(x))))  # fmt: skip
    torch.testing.assert_close(copy.deepcopy(model).eval()(x), tuned)
    torch.testing.assert_close(model.merge_and_unload()(x), tuned, rtol=1e-5, atol=1e-5)


def test_a_model_trains_and_saves_as_with_peft(tiny, tmp_path):
    """Every layer of a real model, under gradient checkpointing; the saved adapter is PEFT's, name for name."""
    from pathlib import Path

    ids = torch.tensor([[5, 6, 7, 8, 9]], device=device())
    saved, gradients = [], []
    for name in ("plain", "fused"):
        torch.manual_seed(3)
        model = add_lora(load_base(Path(tiny), torch.float32), TrainConfig())
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                nn.init.normal_(parameter, std=0.02)
        if name == "fused":
            assert fused_layers.fuse(model) == 14 == sum(isinstance(layer, lora.Linear) for layer in model.modules())
            assert sum("forward" in vars(module) for module in model.modules()) == 2 + 5, "gated layers and norms"
            model.enable_input_require_grads()
            model.activation_checkpointing_enable()
        model.train()(input_ids=ids, labels=ids).loss.backward()
        gradients.append(learned(model))
        model.save_pretrained(tmp_path / name)
        saved.append(load_file(tmp_path / name / "adapter_model.safetensors"))
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_gated_product_equal_the_formulas(dtype):
    torch.manual_seed(0)
    x, gate, up = (torch.randn(2, 5, 24, dtype=dtype, requires_grad=True) for _ in range(3))
    weight, wide = torch.randn(24, dtype=dtype), torch.randn(8, 24, dtype=dtype)
    a, b = torch.randn(3, 24, requires_grad=True), torch.randn(8, 3, requires_grad=True)

    def norm():
        y = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5)
        return weight * y.to(dtype)

    def gated():
        return fused_layers.LoraProduct.apply(nn.functional.silu(gate) * up, wide, None, a, b, 0.5)

    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.1}
    for plain, quick, inputs in (
        (norm, lambda: fused_layers.Norm.apply(x, weight, 1e-5), [x]),
        (gated, lambda: fused_layers.GatedProduct.apply(gate, up, wide, None, a, b, 0.5), [gate, up, a, b]),
    ):
        wanted, got = plain(), quick()
        way = torch.randn_like(wanted)
        torch.testing.assert_close(got, wanted, **tolerance)
        for one, other in zip(
            torch.autograd.grad(got, inputs, way), torch.autograd.grad(wanted, inputs, way), strict=True
        ):
            torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("family", ["Gemma", "Phi3"])
def test_other_norms_and_gates_stay_as_they_are(family):
    """Gemma's norm multiplies by 1 + weight and its gate is a GELU; Phi3 has gate and up in one layer."""
    import transformers

    torch.manual_seed(0)
    settings = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "pad_token_id": 0}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{family}Config")(**settings, **heads)
    base = getattr(transformers, f"{family}ForCausalLM")(config)
    for module in base.modules():
        if type(module).__name__.endswith("RMSNorm"):
            nn.init.normal_(module.weight)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    model = add_lora(base, TrainConfig())
    wanted = model(input_ids=ids).logits
    fused_layers.fuse(model)
    torch.testing.assert_close(model(input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-5)
    gated = [module for module in model.modules() if "forward" in vars(module) and hasattr(module, "down_proj")]
    assert not gated
