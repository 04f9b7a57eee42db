"""A LoRA linear layer as one autograd function for training: PEFT's parameters and result with fewer passes over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "default"


class LoraProduct(torch.autograd.Function):
    """y = xW' + bias + s (xA')B' with W and bias frozen (Hu et al. 2021, eq. 3), computed in the type of W.

    x is [..., in], W [out, in], A [r, in], B [out, r]; the gradients of A and B come in their own type.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low, high = a.to(x.dtype), b.to(x.dtype)
        inner = flat @ low.t()
        y = nn.functional.linear(flat, weight, bias).addmm_(inner, high.t(), alpha=scaling)
        ctx.save_for_backward(flat, weight, low, high, inner)
        ctx.scaling, ctx.types = scaling, (a.dtype, b.dtype)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, low, high, inner = ctx.saved_tensors
        flow = gradient.reshape(-1, gradient.shape[-1])
        to_inner = (flow @ high) * ctx.scaling
        to_low = (to_inner.t() @ flat).to(ctx.types[0])
        to_high = ((flow.t() @ inner) * ctx.scaling).to(ctx.types[1])
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (flow @ weight).addmm_(to_inner, low).view(*gradient.shape[:-1], -1)
        return to_x, None, None, to_low, to_high, None


class FusedLinear(lora.Linear):  # type: ignore[misc]
    """PEFT's layer with its usual forward pass fused; merged, switched off or under autocast it is PEFT's own."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or self.merged or self.disable_adapters or torch.is_autocast_enabled(x.device.type):
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        base, a, b = self.base_layer, self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        return LoraProduct.apply(x, base.weight, base.bias, a, b, self.scaling[ADAPTER])  # type: ignore[no-any-return, no-untyped-call]


def fuse(model: PeftModel) -> int:
    """Fuse every plain LoRA layer of the model in place; returns how many.

    The others (quantized weights, dropout, DoRA and other variants, several adapters) keep PEFT's forward pass.
    """
    plain = [module for module in model.modules() if _is_plain(module)]
    for module in plain:
        # The class, not the instance: such a layer can be copied, pickled and merged like any of PEFT's.
        module.__class__ = FusedLinear
    return len(plain)


def _is_plain(module: Any) -> bool:
    return (
        type(module) is lora.Linear
        and type(module.base_layer) is nn.Linear
        and list(module.lora_A) == list(module.active_adapters) == [ADAPTER]
        and isinstance(module.lora_dropout[ADAPTER], nn.Identity)
        and not module.lora_variant
        and not module.lora_bias[ADAPTER]
        and not any(parameter.requires_grad for parameter in module.base_layer.parameters())
    )
