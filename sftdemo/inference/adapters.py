"""LoRA by row: in one batch the same weights answer as the base in some rows and as tuned models in the others."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sftdemo.errors import UserError
from sftdemo.inference import matmul
from sftdemo.inference.matmul import _empty, product
from sftdemo.model import saved_modules
from sftdemo.model.adapter_routing import AdapterRouting

if TYPE_CHECKING:
    from peft import PeftModel


Rescaling = tuple[Tensor, Tensor]
"""What DoRA does to a base's output [out]: a factor and a summand, so that a bias stays as it is."""


class RoutedLinear(nn.Module):
    """base(x), plus each adapter's product in its rows: y = xW + (alpha / r) xAB (Hu et al. 2021, eq. 3).

    With DoRA an adapter's rows have y = g (xW + (alpha / r) xAB), g = m / norm(W + (alpha / r) AB) (Liu et al. 2024, eq. 5).
    """

    def __init__(
        self,
        base: nn.Module,
        adapters: list[tuple[Tensor, Tensor] | None],
        rows: AdapterRouting,
        rescalings: list[Rescaling | None] | None = None,
    ) -> None:
        """adapters[k] is a [in, r] and b [r, out] with the scaling in it, g too, or None where adapter k has none here."""
        super().__init__()
        self.rescalings = rescalings or [None] * len(adapters)
        self.base = base
        self.rows = rows
        self.adapters = adapters
        # A plain layer is called without the way through its module: 210 calls a token.
        self.plain = type(base) is nn.Linear
        self.stack: Stack | None = None
        self.place = 0

    @property
    def weight(self) -> Tensor:
        """The base's; some models look what type their last layer has."""
        return self.base.weight  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        if self.stack is not None:
            return self.stack.part(x, self.place)
        y = product(x, self.base.weight, self.base.bias) if self.plain else self.base(x)  # type: ignore[arg-type]
        if not any(self.adapters):  # the last layer, which is given what is asked for
            return y
        tokens, into = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for chosen, adapter, rescaling in zip(
            self.rows.among(len(tokens)), self.adapters, self.rescalings, strict=True
        ):
            if adapter is None or chosen is None:
                continue
            if rescaling is not None:
                into[chosen] = _rescaled(into[chosen], rescaling)
            a, b = adapter
            part = tokens[chosen].to(a.dtype) @ a
            if isinstance(chosen, Tensor):
                into.index_add_(0, chosen, (part @ b).to(y.dtype))
            elif y.dtype == b.dtype:
                into[chosen].addmm_(part, b)
            else:
                into[chosen] += part @ b
        return y


class Stack:
    """Linear layers of one input as one product: y = x[W_1 W_2 … A_1 A_2 …], and in an adapter's rows xA_1 B_1 and so on more.

    One weight [in, outputs and ranks], of which the layers' own weights become views.
    """

    @torch.no_grad()
    def __init__(self, layers: list[RoutedLinear], room: Tensor) -> None:
        """`room` is where the weight goes."""
        weights: list[Tensor] = [layer.base.weight.detach() for layer in layers]  # type: ignore[misc, operator]
        self.rows, self.places = layers[0].rows, len(layers)
        self.outputs = _spans(weights, 0)
        parts = list(weights)
        # For each adapter of each layer that it has: where xA stands, where the layer's output does, B, and DoRA's part.
        self.adapters: list[list[tuple[slice, slice, Tensor, Rescaling | None]]] = []
        all_rescalings = zip(*(layer.rescalings for layer in layers), strict=True)
        for layer_adapters, rescalings in zip(
            zip(*(layer.adapters for layer in layers), strict=True), all_rescalings, strict=True
        ):
            low = [a.t() for a, _ in filter(None, layer_adapters)]
            inner = iter(_spans(low, sum(map(len, parts))))
            parts += low
            self.adapters.append(
                [
                    (next(inner), out, pair[1], rescaling)
                    for out, pair, rescaling in zip(self.outputs, layer_adapters, rescalings, strict=True)
                    if pair
                ]
            )
        # Laid out [in, out]: as fast as [out, in] for two rows, and faster for many.
        self.weight = torch.cat([part.t() for part in parts], 1, out=room.view(parts[0].shape[1], -1)).t()
        biases: list[Tensor | None] = [layer.base.bias for layer in layers]  # type: ignore[misc]
        self.bias = self.weight.new_zeros(len(self.weight)) if any(bias is not None for bias in biases) else None
        for place, (layer, out, bias) in enumerate(zip(layers, self.outputs, biases, strict=True)):
            layer.base.register_parameter("weight", nn.Parameter(self.weight[out], requires_grad=False))
            layer.stack, layer.place, layer.adapters = self, place, []
            if self.bias is not None and bias is not None:
                self.bias[out] = bias
        self.last: tuple[Tensor, Tensor] | None = None  # the input at hand and its product

    def part(self, x: Tensor, place: int) -> Tensor:
        """The output of the layer at a place; all are computed when one is asked for, and let go with the last."""
        y = self.last[1] if self.last and self.last[0] is x else self._product(x)
        self.last = (x, y) if place < self.places - 1 else None
        return y[..., self.outputs[place]]

    def _product(self, x: Tensor) -> Tensor:
        y = product(x, self.weight, self.bias)
        flat = y.view(-1, y.shape[-1])
        for chosen, adapter in zip(self.rows.among(len(flat)), self.adapters, strict=True):
            if chosen is None:
                continue
            for inner, out, high, rescaling in adapter:
                if rescaling is not None:
                    flat[chosen, out] = _rescaled(flat[chosen, out], rescaling)
                if isinstance(chosen, slice):
                    flat[chosen, out].addmm_(flat[chosen, inner], high)
                else:
                    flat[:, out].index_add_(0, chosen, flat[chosen, inner] @ high)
        return y


def _spans(parts: list[Tensor], start: int) -> list[slice]:
    """Where each part stands, put one behind the other."""
    ends = itertools.accumulate(map(len, parts), initial=start)
    return [slice(first, end) for first, end in itertools.pairwise(ends)]


def stack(model: nn.Module) -> int:
    """Let layers of one input be one product; returns how many products. Which have one input is seen in a trial."""
    seen: list[tuple[RoutedLinear, Tensor]] = []
    layers = [
        layer for layer in model.modules() if isinstance(layer, RoutedLinear) and layer.plain and any(layer.adapters)
    ]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, arguments: seen.append((layer, arguments[0]))) for layer in layers
    ]
    for layer in layers:
        layer.rows.chosen = [None] * len(layer.adapters)
    with torch.inference_mode():
        model(torch.tensor([[5, 6, 7]], device=model.device))  # type: ignore[arg-type]
    for hook in hooks:
        hook.remove()
    together = itertools.groupby(seen, key=lambda pair: id(pair[1]))
    groups = [list(dict.fromkeys(layer for layer, _ in same)) for _, same in together]
    # A layer that is used in two places stays as it is.
    used = Counter(layer for group in groups for layer in group)
    groups = [group for group in groups if all(used[layer] == 1 for layer in group)]
    kinds: dict[tuple[torch.dtype, torch.device], list[list[RoutedLinear]]] = {}
    for group in groups:
        dtypes_and_devices = {(part.dtype, part.device) for layer in group for part in _parts(layer)}
        if len(dtypes_and_devices) == 1:
            kinds.setdefault(dtypes_and_devices.pop(), []).append(group)
    for kind, alike in kinds.items():
        sizes = [sum(part.numel() for layer in group for part in _parts(layer)) for group in alike]
        for group, room in zip(alike, torch.split(_empty(sum(sizes), *kind), sizes), strict=True):  # type: ignore[no-untyped-call]
            Stack(group, room)
    return sum(map(len, kinds.values()))


def _parts(layer: RoutedLinear) -> list[Tensor]:
    """What a layer brings into its stack: its weight and its adapters' first matrices."""
    return [layer.base.weight, *(low for low, _ in filter(None, layer.adapters))]  # type: ignore[list-item]


def route_adapters(model: PeftModel, names: list[str], dtype: torch.dtype) -> AdapterRouting:
    """Swap every LoRA layer of the loaded adapters for one that works by row; returns the switch they share.

    Adapter k of `AdapterRouting.chosen` is names[k]. Embeddings or a head that one alone brings replace the base's.
    """
    from peft.tuners.lora import LoraLayer

    rows = AdapterRouting([None] * len(names))
    for name in names:
        config = model.peft_config[name]
        if config.bias != "none" or config.target_parameters or (config.modules_to_save and len(names) > 1):
            raise UserError(
                "This adapter uses biases, whole saved modules or experts; only LoRA beside linear layers can answer "
                "together with its base."
            )
    saved_modules.unwrap(model)
    base = model.get_base_model()
    for path, layer in list(base.named_modules()):
        if not isinstance(layer, LoraLayer):
            continue
        adapters = [_transposed(layer, name, dtype) if name in layer.lora_A else None for name in names]
        rescalings = [
            _rescale(layer, name, adapter) if adapter and model.peft_config[name].use_dora else None
            for name, adapter in zip(names, adapters, strict=True)
        ]
        parent, _, attribute = path.rpartition(".")
        routed = RoutedLinear(layer.get_base_layer(), adapters, rows, rescalings)
        setattr(base.get_submodule(parent), attribute, routed)
    head = base.get_output_embeddings()
    if type(head) is nn.Linear:
        base.set_output_embeddings(RoutedLinear(head, [None] * len(names), rows))
    return rows


def _transposed(layer: nn.Module, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    a, b = (getattr(layer, part)[name].weight.detach().float() for part in ("lora_A", "lora_B"))
    return a.t().contiguous().to(dtype), (b * layer.scaling[name]).t().contiguous().to(dtype)  # type: ignore[index]


def _rescaled(output: Tensor, rescaling: Rescaling) -> Tensor:
    """In float32: what a short training learns of sizes near 1 is lost in bfloat16."""
    factor, summand = rescaling
    return (output.float() * factor + summand).to(output.dtype)


@torch.no_grad()
def _rescale(layer: Any, name: str, adapter: tuple[Tensor, Tensor]) -> Rescaling:
    """What DoRA does to the base's output; it does the same to the adapter's B, in place."""
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer.get_base_layer()).float()
    if getattr(layer, "fan_in_fan_out", False):
        weight = weight.t()
    low, high = (layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float())
    norm = torch.linalg.norm(weight + layer.scaling[name] * (high @ low), dim=1)
    factor = layer.lora_magnitude_vector[name].weight.float() / norm
    adapter[1].copy_((high * layer.scaling[name]).t() * factor)
    bias = layer.get_base_layer().bias
    summand = torch.zeros_like(factor) if bias is None else bias.float() * (1 - factor)
    return factor, summand


@torch.no_grad()
def store_by_input(model: nn.Module) -> None:
    """Lay float32 weights out [in, out] in memory where few rows are faster so; shapes, values and tied embeddings stay.

    Products of one to three rows, a step of a chat, then read memory in order. Larger ones don't care.
    """
    stacked = {id(m.base.weight) for m in model.modules() if isinstance(m, RoutedLinear) and m.stack}
    linear = {id(m.weight) for m in model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.float32}
    for parameter in model.parameters():
        if id(parameter) in stacked:
            continue
        by_input = id(parameter) in linear and matmul.gemv_strategy().by_input
        # A copy in any case: one tensor left in the mapped file keeps all of it in memory.
        room = _empty(parameter.numel(), parameter.dtype, parameter.device)
        stored = room.view(parameter.shape[::-1]).t() if by_input else room.view(parameter.shape)
        parameter.data = stored.copy_(parameter.data)
