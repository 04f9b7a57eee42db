"""Parts of a decoder layer as one autograd function each, for LoRA training: the parameters and results of PEFT and
transformers with fewer passes over memory, and less saved for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sftdemo.model.parity import accept

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "default"
SAME = 1e-4  # relative; a part whose fused form is further from its own stays as it is


class LoraProduct(torch.autograd.Function):
    """y = xW' + bias + s (xA')B' with W and bias frozen (Hu et al. 2021, eq. 3), computed in the type of W.

    x is [..., in], W [out, in], A [r, in], B [out, r]; the gradients of A and B come in their own type.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        y, *saved = _product(flat, weight, bias, a, b, scaling)
        ctx.save_for_backward(flat, weight, *saved)
        ctx.scaling, ctx.types = scaling, (a.dtype, b.dtype)
        return y.resize_(*x.shape[:-1], len(weight))  # not a view: others may add to it in place

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, *saved = ctx.saved_tensors
        grad_x, grad_a, grad_b = _gradients(ctx, ctx.needs_input_grad[0], gradient, flat, *saved)
        return grad_x if grad_x is None else grad_x.view(*gradient.shape[:-1], -1), None, None, grad_a, grad_b, None


class GatedProduct(torch.autograd.Function):
    """LoraProduct of silu(gate) * up (SwiGLU, Shazeer 2020), recomputed in the backward pass instead of being saved."""

    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        x = nn.functional.silu(gate).mul_(up)
        y, *saved = _product(x.view(-1, x.shape[-1]), weight, bias, a, b, scaling)
        ctx.save_for_backward(gate, up, weight, *saved)
        ctx.scaling, ctx.types = scaling, (a.dtype, b.dtype)
        return y.resize_(*gate.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, *saved = ctx.saved_tensors
        activated = nn.functional.silu(gate)
        x = (activated * up).view(-1, up.shape[-1])
        grad_x, grad_a, grad_b = _gradients(ctx, True, gradient, x, *saved)
        assert grad_x is not None
        grad_x = grad_x.view_as(up)
        grad_up = activated.mul_(grad_x)
        grad_gate = torch.ops.aten.silu_backward(grad_x.mul_(up), gate)
        return grad_gate, grad_up, None, None, grad_a, grad_b, None


def _product(
    flat: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
) -> tuple[Tensor, ...]:
    """y, then what its gradients need: A and B in the type of flat, and flat A'."""
    cast_a, cast_b = a.to(flat.dtype), b.to(flat.dtype)
    x_a = flat @ cast_a.t()
    return nn.functional.linear(flat, weight, bias).addmm_(x_a, cast_b.t(), alpha=scaling), cast_a, cast_b, x_a


def _gradients(
    ctx: Any,
    needs_grad_x: bool,
    gradient: Tensor,
    flat: Tensor,
    weight: Tensor,
    cast_a: Tensor,
    cast_b: Tensor,
    x_a: Tensor,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Of flat, if asked for, of A and of B."""
    grad_output = gradient.reshape(-1, gradient.shape[-1])
    grad_x_a = (grad_output @ cast_b) * ctx.scaling
    grad_a = (grad_x_a.t() @ flat).to(ctx.types[0])
    grad_b = ((grad_output.t() @ x_a) * ctx.scaling).to(ctx.types[1])
    return (grad_output @ weight).addmm_(grad_x_a, cast_a) if needs_grad_x else None, grad_a, grad_b


class Norm(torch.autograd.Function):
    """Root mean square norm with a frozen weight (Zhang and Sennrich 2019, eq. 4), the mean in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        inverse = (
            torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        )
        ctx.save_for_backward(x, weight, inverse)
        y = (wide * inverse).to(x.dtype)
        return y.mul_(weight) if weight.dtype == y.dtype else weight * y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        wide = x.float()
        grad_output = gradient.float() * weight
        along = torch.linalg.vecdot(grad_output, wide)[..., None].mul_(inverse**3).div_(-x.shape[-1])
        return grad_output.mul_(inverse).addcmul_(wide, along).to(x.dtype), None, None


class FusedLinear(lora.Linear):  # type: ignore[misc]
    """PEFT's layer with its usual forward pass fused; merged, switched off or under autocast it is PEFT's own."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not self.usual(x):
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        return LoraProduct.apply(x, *self.factors())  # type: ignore[no-any-return, no-untyped-call]

    def usual(self, x: Tensor) -> bool:
        return not (self.merged or self.disable_adapters or torch.is_autocast_enabled(x.device.type))

    def factors(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, float]:
        """Weight, bias, A, B and scaling."""
        a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        return self.base_layer.weight, self.base_layer.bias, a, b, self.scaling[ADAPTER]


def fuse(model: PeftModel) -> int:
    """Fuse every plain LoRA layer of the model in place, and norms and gated layers that then give what they gave.

    Returns how many LoRA layers; the others (quantized weights, dropout, DoRA and other variants, several adapters) keep
    PEFT's forward pass.
    """
    plain = [module for module in model.modules() if _is_plain(module)]
    for module in plain:
        # The class, not the instance: such a layer can be copied, pickled and merged like any of PEFT's.
        module.__class__ = FusedLinear
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            _try(module, _normed, module.weight)  # type: ignore[arg-type]
        elif isinstance(getattr(module, "down_proj", None), FusedLinear) and hasattr(module, "gate_proj"):
            _try(module, _gated, module.down_proj.base_layer.weight)  # type: ignore[arg-type, union-attr]
    return len(plain)


def _try(module: nn.Module, fused: Callable[[Any, Tensor], Tensor], weight: Tensor) -> None:
    """Give the module the fused forward pass if it gives what its own does; `weight` has the type and, first, the width."""
    x = torch.randn(1, 3, weight.shape[0], generator=torch.Generator().manual_seed(0)).to(weight)
    exact = SAME if weight.dtype == torch.float32 else 100 * SAME
    if accept(lambda: [(fused(module, x), module(x))], lambda: None, exact):
        module.forward = partial(fused, module)


def _normed(norm: Any, x: Tensor) -> Tensor:
    if norm.weight.requires_grad:
        return type(norm).forward(norm, x)  # type: ignore[no-any-return]
    return Norm.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-any-return, no-untyped-call]


def _gated(layer: Any, x: Tensor) -> Tensor:
    down = layer.down_proj
    if not (isinstance(down, FusedLinear) and down.usual(x)):
        return type(layer).forward(layer, x)  # type: ignore[no-any-return]
    return GatedProduct.apply(layer.gate_proj(x), layer.up_proj(x), *down.factors())  # type: ignore[no-any-return, no-untyped-call]


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
