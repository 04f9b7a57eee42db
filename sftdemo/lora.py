"""LoRA by row: in one batch the same weights answer as the base in some rows and as tuned models in the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sftdemo.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """xW + bias. As many single tokens as a CPU has threads go one to a thread, all over the same weights.

    A product of two rows takes a thread nearly twice as long as one of one row, and gains nothing from a second thread.
    """
    rows = x.shape[0]
    if rows > 1 and x.shape[1:-1] == (1,) and x.device.type == "cpu" and rows == torch.get_num_threads():
        y = torch.bmm(x, weight.t().expand(rows, -1, -1))
        return y if bias is None else y + bias
    return linear(x, weight, bias)


@dataclass
class Rows:
    """Which rows of the batch each adapter answers: spans[k] is (first, end) for adapter k. Shared by a model's layers."""

    spans: list[tuple[int, int]] = field(default_factory=list)


class RowLinear(nn.Module):
    """base(x), plus each adapter's product in its rows: y = xW + (alpha / r) xAB (Hu et al. 2021, eq. 3)."""

    def __init__(self, base: nn.Module, adapters: list[tuple[Tensor, Tensor] | None], rows: Rows) -> None:
        """adapters[k] is a [in, r] and b [r, out] with the scaling in it, or None where adapter k has none here."""
        super().__init__()
        self.base = base
        self.rows = rows
        self.adapters = adapters
        # A plain layer is called without the way through its module: 210 calls a token.
        self.plain = type(base) is nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        y = product(x, self.base.weight, self.base.bias) if self.plain else self.base(x)  # type: ignore[arg-type]
        for (first, end), adapter in zip(self.rows.spans, self.adapters, strict=True):
            if first < end and adapter is not None:
                a, b = adapter
                part = (x[first:end] if x.dtype == a.dtype else x[first:end].to(a.dtype)).flatten(0, -2) @ a
                out = y[first:end].view(-1, y.shape[-1])
                if out.dtype == b.dtype:
                    out.addmm_(part, b)
                else:
                    out += part @ b
        return y


def by_row(model: PeftModel, names: list[str], dtype: torch.dtype) -> Rows:
    """Swap every LoRA layer of the loaded adapters for one that works by row; returns the switch they share.

    Adapter k of `Rows.spans` is names[k].
    """
    from peft.tuners.lora import LoraLayer

    rows = Rows()
    for name in names:
        config = model.peft_config[name]
        if config.use_dora or config.bias != "none" or config.modules_to_save:
            raise UserError(
                "This adapter uses DoRA, biases or whole saved modules; only plain LoRA can answer beside its base."
            )
    base = model.get_base_model()
    for path, layer in list(base.named_modules()):
        if not isinstance(layer, LoraLayer):
            continue
        adapters = [_transposed(layer, name, dtype) if name in layer.lora_A else None for name in names]
        parent, _, attribute = path.rpartition(".")
        setattr(base.get_submodule(parent), attribute, RowLinear(layer.get_base_layer(), adapters, rows))
    head = base.get_output_embeddings()
    if type(head) is nn.Linear:
        base.set_output_embeddings(RowLinear(head, [None] * len(names), rows))
    return rows


def _transposed(layer: nn.Module, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    a, b = (getattr(layer, part)[name].weight.detach().float() for part in ("lora_A", "lora_B"))
    return a.t().contiguous().to(dtype), (b * layer.scaling[name]).t().contiguous().to(dtype)  # type: ignore[index]


@torch.no_grad()
def store_by_input(model: nn.Module) -> None:
    """Lay float32 weights out [in, out] in memory; shapes, values and tied embeddings stay.

    Products of one to three rows, a step of a chat, then read memory in order: 58 ms against 79 for two rows on one core
    without AVX512. Larger ones don't care.
    """
    weights = {
        id(m.weight): m.weight for m in model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.float32
    }
    for parameter in model.parameters():
        if id(parameter) in weights:
            parameter.data = parameter.data.t().contiguous().t()
        else:
            # A copy too: one tensor left in the mapped file keeps all of it in memory.
            parameter.data = parameter.data.clone()
