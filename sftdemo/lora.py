"""LoRA by row: in one batch the same weights answer as the base in some rows and as the tuned model in the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sftdemo.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass
class Rows:
    """Which rows of the batch are tuned: those from `tuned_from` on. Shared by all layers of a model."""

    tuned_from: int = 0


class RowLinear(nn.Module):
    """base(x), plus the LoRA product in the tuned rows: y = xW + (alpha / r) xAB (Hu et al. 2021, eq. 3)."""

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scaling: float, rows: Rows) -> None:
        """a is [r, in], b is [out, r]; both are kept transposed and contiguous, b with the scaling in it."""
        super().__init__()
        self.a: Tensor
        self.b: Tensor
        self.base = base
        self.rows = rows
        self.register_buffer("a", a.detach().t().contiguous(), persistent=False)
        self.register_buffer("b", (b.detach().float() * scaling).to(b.dtype).t().contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        start = self.rows.tuned_from
        if start < x.shape[0]:
            y[start:] += ((x[start:].to(self.a.dtype) @ self.a) @ self.b).to(y.dtype)
        return y  # type: ignore[no-any-return]


def by_row(model: PeftModel, dtype: torch.dtype) -> Rows:
    """Swap every LoRA layer of a loaded adapter for one that works by row; returns the switch they share."""
    from peft.tuners.lora import LoraLayer

    rows = Rows()
    config = model.peft_config["default"]
    if config.use_dora or config.bias != "none" or config.modules_to_save:
        raise UserError(
            "This adapter uses DoRA, biases or whole saved modules; only plain LoRA can answer beside its base."
        )
    base = model.get_base_model()
    for name, layer in list(base.named_modules()):
        if not isinstance(layer, LoraLayer):
            continue
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        swapped = RowLinear(layer.get_base_layer(), a.to(dtype), b.to(dtype), layer.scaling["default"], rows)
        parent, _, attribute = name.rpartition(".")
        setattr(base.get_submodule(parent), attribute, swapped)
    return rows
