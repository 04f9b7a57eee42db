"""A model's layers as tables of sizes and addresses; what isn't built like Llama is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sftdemo.decode import packing, rows, tables
from sftdemo.decode.products import PACKED, WIDE
from sftdemo.decode.rows import BLOCK
from sftdemo.decode.simd import LANES
from sftdemo.decode.tables import Adapter, Layer, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = {"llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3"}
CHUNKS = 8  # of a phase for each thread, so that none waits long for another


class UnknownLayer(ValueError):
    """The model has something that the compiled step doesn't compute."""


@dataclass
class PackedWeight:
    """Weights of bitsandbytes in tiles, with NF4's table or a factor of each output."""

    kind: int
    tiles: Tensor
    table: Tensor | None = None
    scale: Tensor | None = None

    def part(self, start: int, end: int) -> PackedWeight:
        """Some of the outputs."""
        if start % PACKED or end % PACKED:
            raise UnknownLayer("parts of quantized layers")
        scale = None if self.scale is None else self.scale[start:end]
        return PackedWeight(self.kind, self.tiles[start // PACKED : end // PACKED], self.table, scale)


@dataclass
class LinearLayer:
    """y = xW + b and in an adapter's rows (y * factor + summand) + xAB; `adapters` has A [r, in], B [r, out] and DoRA's part."""

    weight: Tensor  # of the device meta where it is `packed`
    bias: Tensor | None
    adapters: list[tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None] | None]
    packed: PackedWeight | None = None

    def part(self, start: int, end: int) -> LinearLayer:
        """Some of the outputs, where several layers are one."""
        bias = None if self.bias is None else self.bias[start:end]
        parts = [
            None
            if each is None
            else (each[0], each[1][:, start:end], each[2] and (each[2][0][start:end], each[2][1][start:end]))
            for each in self.adapters
        ]
        packed = self.packed and self.packed.part(start, end)
        return LinearLayer(self.weight[start:end], bias, parts, packed)


@dataclass
class Tables:
    """What `program.run` is given of a model, and the tensors that its addresses are of."""

    sizes: dict[str, int]
    eps: float
    scaling: float
    layers: Any
    segments: Any
    phase_segments: Any
    adapters: Any
    widths: dict[int, int] = field(default_factory=dict)  # numbers of a row that each phase gives
    kept: list[Tensor] = field(default_factory=list)


class Reader:
    """Reads the layers of a model whose LoRA works by row, or that has none."""

    def __init__(self, model: PreTrainedModel, adapters: int, threads: int) -> None:
        self.model, self.count, self.threads = model, adapters, threads
        self.kept: list[Tensor] = []
        self.segments: list[list[int]] = []
        self.phase_segments: list[int] = []
        self.widths: dict[int, int] = {}

    def read(self) -> Tables:
        """Raises UnknownLayer, or what a model raises that has other parts."""
        config = self.model.config
        if config.model_type not in FAMILIES or self.model.device.type != "cpu":
            raise UnknownLayer(config.model_type)
        if self.model.dtype not in (torch.float32, torch.bfloat16):
            raise UnknownLayer(str(self.model.dtype))
        for name in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
            if getattr(config, name, None):
                raise UnknownLayer(name)
        decoder = self.model.get_decoder()
        if "dynamic" in str(getattr(decoder.rotary_emb, "rope_type", "")):  # by what was read before, of other rows too
            raise UnknownLayer("dynamic rotary embeddings")
        self.norms: set[float] = set()
        layers = np.zeros((len(decoder.layers), Layer.SIZE), np.int64)
        self.table = np.zeros((len(decoder.layers), 7, max(self.count, 1), Adapter.SIZE), np.int64)
        for number, layer in enumerate(decoder.layers):
            self._layer(number, layer, layers[number])
        final = self._norm(decoder.norm)
        head = _linear(self.model.get_output_embeddings(), self.count)
        if any(head.adapters):
            raise UnknownLayer("adapters on the head")
        self._phase([head], [])
        self.phase_segments.append(len(self.segments))
        attention, mlp = decoder.layers[0].self_attn, decoder.layers[0].mlp
        heads, key_heads, width = config.num_attention_heads, config.num_key_value_heads, attention.head_dim
        hidden = config.hidden_size
        inner = _linear(mlp.down_proj, self.count).weight.shape[1]
        for size in (width, hidden, inner, heads * width):
            if size % max(LANES, BLOCK if size != width else LANES):
                raise UnknownLayer(f"size {size}")
        scalings = {float(layer.self_attn.scaling) for layer in decoder.layers}
        if len(scalings) != 1 or len(self.norms) != 1:
            raise UnknownLayer("layers that differ")
        sizes = {
            "LAYERS": len(decoder.layers), "HIDDEN": hidden, "INNER": inner, "HEADS": heads, "KEY_HEADS": key_heads,
            "WIDTH": width, "ACTIVATION": _activation(mlp), "ADAPTERS": self.count, "FINAL_NORM": final,
            "LOGITS_WIDTH": head.weight.shape[0], "INPUTS": max(hidden, inner, heads * width),
            "BFLOAT16_CACHE": int(self.model.dtype == torch.bfloat16),
            "BLOCKS": int(any(segment[Segment.KIND] in tables.BY_BLOCKS for segment in self.segments)),
        }  # fmt: skip
        return Tables(
            sizes,
            self.norms.pop(),
            scalings.pop(),
            layers,
            np.array(self.segments, np.int64),
            np.array(self.phase_segments, np.int64),
            self.table,
            self.widths,
            self.kept,
        )

    def _layer(self, number: int, layer: Any, table: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        table[Layer.INPUT_NORM] = self._norm(layer.input_layernorm)
        if hasattr(layer, "pre_feedforward_layernorm"):
            table[Layer.AFTER_ATTENTION_NORM] = self._norm(layer.post_attention_layernorm)
            table[Layer.FEED_FORWARD_NORM] = self._norm(layer.pre_feedforward_layernorm)
            table[Layer.AFTER_FEED_FORWARD_NORM] = self._norm(layer.post_feedforward_layernorm)
        else:
            table[Layer.FEED_FORWARD_NORM] = self._norm(layer.post_attention_layernorm)
        for place, name in ((Layer.Q_NORM, "q_norm"), (Layer.K_NORM, "k_norm")):
            if getattr(attention, name, None) is not None:
                table[place] = self._norm(getattr(attention, name))
        config = self.model.config
        queries, keys = config.num_attention_heads * attention.head_dim, config.num_key_value_heads * attention.head_dim
        if hasattr(attention, "qkv_proj"):
            qkv = _split(_linear(attention.qkv_proj, self.count), [queries, keys, keys])
        else:
            qkv = [_linear(getattr(attention, name), self.count) for name in ("q_proj", "k_proj", "v_proj")]
        if hasattr(mlp, "gate_up_proj"):
            both = _linear(mlp.gate_up_proj, self.count)
            gate_up = _split(both, [len(both.weight) // 2] * 2)
        else:
            gate_up = [_linear(mlp.gate_proj, self.count), _linear(mlp.up_proj, self.count)]
        places = self.table[number]
        self._phase(qkv, [places[tables.Q], places[tables.K], places[tables.V]], tables.QKV)
        self.phase_segments.append(len(self.segments))  # attention has none
        self._phase([_linear(attention.o_proj, self.count)], [places[tables.O]], tables.OUTPUT)
        self._phase(gate_up, [places[tables.GATE], places[tables.UP]], tables.GATE_UP)
        self._phase([_linear(mlp.down_proj, self.count)], [places[tables.DOWN_PROJ]], tables.DOWN)

    def _phase(self, layers: list[LinearLayer], entries: list[Any], stage: int | None = None) -> None:
        """The segments of linear layers with one input, each behind the other, and behind all what adapters compute first."""
        self.phase_segments.append(len(self.segments))
        begin = len(self.segments)
        ends = np.cumsum([len(layer.weight) for layer in layers]).tolist()
        at = ends[-1]
        low: list[Tensor] = []  # adapters' first matrices
        for layer, table in zip(layers, entries, strict=False):
            for index, adapter in enumerate(layer.adapters):
                if adapter is None:
                    continue
                a, b, rescaling = adapter
                b = self._keep(b.float().contiguous())
                table[index, Adapter.INNER] = at + sum(len(a) for a in low)
                table[index, Adapter.RANK], table[index, Adapter.B] = len(b), b.data_ptr()
                table[index, Adapter.STRIDE] = 4 * b.shape[1]
                if rescaling is not None:
                    for place, part in zip((Adapter.FACTOR, Adapter.SUMMAND), rescaling, strict=True):
                        table[index, place] = self._keep(part.float().contiguous()).data_ptr()
                low.append(a)
        if low:  # they come first: their chunks differ from the others', which level that out
            inner = torch.cat([a.float() for a in low])
            inner = nn.functional.pad(inner, (0, 0, 0, len(inner) % 2)).contiguous()
            self._segment(inner, None, at)
            self.segments[-1][Segment.ADAPTED] = 1
            at += len(inner)
        for layer, end in zip(layers, ends, strict=True):
            self._segment(layer.weight, layer.bias, end - len(layer.weight), layer.packed)
        total = sum(segment[Segment.OUTPUTS] * segment[Segment.INPUTS] for segment in self.segments[begin:])
        for segment in self.segments[begin:]:
            self._cut(segment, max(1, total // (CHUNKS * self.threads)))
        if stage is not None:
            self.widths[stage] = max(self.widths.get(stage, 0), at)

    def _segment(self, weight: Tensor, bias: Tensor | None, at: int, packed: PackedWeight | None = None) -> None:
        segment = [0] * Segment.SIZE
        segment[Segment.OUTPUTS], segment[Segment.INPUTS] = weight.shape
        segment[Segment.AT] = at
        if bias is not None:
            segment[Segment.BIAS] = self._keep(bias.float().contiguous()).data_ptr()
        if packed:
            segment[Segment.KIND], segment[Segment.WEIGHTS] = packed.kind, self._keep(packed.tiles).data_ptr()
            for place, numbers in ((Segment.TABLE, packed.table), (Segment.SCALE, packed.scale)):
                segment[place] = 0 if numbers is None else self._keep(numbers).data_ptr()
            self.segments.append(segment)
            return
        for kind, pack in ((tables.FOUR_BITS, packing.four_bits), (tables.EIGHT_BITS, packing.eight_bits)):
            if (tiles := pack(weight)) is not None:
                segment[Segment.KIND], segment[Segment.WEIGHTS] = kind, self._keep(tiles).data_ptr()
                self.segments.append(segment)
                return
        half = weight.dtype == torch.bfloat16
        if weight.dtype not in (torch.float32, torch.bfloat16) or weight.device.type != "cpu":
            raise UnknownLayer(str(weight.dtype))
        outputs, inputs = weight.shape
        segment[Segment.WEIGHTS] = self._keep(weight).data_ptr()
        if weight.stride(1) == 1 and outputs % 2 == 0 and inputs % LANES == 0:
            segment[Segment.KIND] = tables.BY_OUTPUT_BF16 if half else tables.BY_OUTPUT_F32
            segment[Segment.STRIDE] = weight.stride(0) * weight.itemsize
        elif weight.stride(0) == 1 and outputs >= WIDE:
            segment[Segment.KIND] = tables.BY_INPUT_BF16 if half else tables.BY_INPUT_F32
            segment[Segment.STRIDE] = weight.stride(1) * weight.itemsize
        else:
            raise UnknownLayer(f"weights {list(weight.shape)} with strides {weight.stride()}")
        self.segments.append(segment)

    @staticmethod
    def _cut(segment: list[int], weights: int) -> None:
        """Cut a segment into chunks of about so many weights."""
        kind, outputs = segment[Segment.KIND], segment[Segment.OUTPUTS]
        size = 2
        if kind in tables.PACKED_KINDS:
            size = PACKED
        elif kind in (tables.BY_INPUT_F32, tables.BY_INPUT_BF16):
            size = WIDE
        tiles = -(-outputs // size)
        segment[Segment.TILES] = max(1, round(weights / (size * segment[Segment.INPUTS])))
        segment[Segment.CHUNKS] = -(-tiles // segment[Segment.TILES])

    def _norm(self, module: Any) -> int:
        """Where the factors of an RMS norm stand, some of which are stored less 1."""
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if eps is None or getattr(module, "bias", None) is not None:
            raise UnknownLayer(type(module).__name__)
        self.norms.add(float(eps))
        weight = module.weight.detach().float()
        gives = module(torch.ones(len(weight), dtype=module.weight.dtype)).float()
        for factors in (weight, weight + 1):
            if torch.allclose(factors, gives, rtol=1e-2, atol=1e-2):
                return self._keep(factors.contiguous()).data_ptr()
        raise UnknownLayer(type(module).__name__)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.kept.append(tensor)
        return tensor


def _linear(module: Any, adapters: int) -> LinearLayer:
    """A linear layer with its adapters, whether it stands in a stack or not."""
    if type(module) is nn.Linear:
        return LinearLayer(module.weight.detach(), module.bias, [None] * adapters)
    if type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
        return _quantized(module, [None] * adapters)
    stack, base = module.stack, module.base
    if stack is None:
        pairs = zip(module.adapters, module.rescalings, strict=True)
        parts = [pair and (pair[0].t(), pair[1], rescaling) for pair, rescaling in pairs]
        if type(base) is not nn.Linear:
            return _quantized(base, parts)
        return LinearLayer(base.weight.detach(), base.bias, parts)
    out = stack.outputs[module.place]
    bias = None if stack.bias is None else stack.bias[out]
    own = [[entry for entry in entries if entry[1] == out] for entries in stack.adapters]
    adapters_here = [(stack.weight[entry[0][0]], entry[0][2], entry[0][3]) if entry else None for entry in own]
    return LinearLayer(stack.weight[out], bias, adapters_here)


def _quantized(module: Any, adapters: list[Any]) -> LinearLayer:
    """A layer of bitsandbytes: NF4, or int8, whose inputs aren't rounded here."""
    packed: PackedWeight | None = None
    if type(module).__name__ == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit, dequantize_blockwise

        state = module.weight.quant_state
        scales = state.absmax
        if state.nested:  # quantized themselves
            scales = dequantize_blockwise(scales, state.state2) + state.offset
        if state.quant_type == "nf4" and state.blocksize == 64:
            weight = dequantize_4bit(module.weight.data, state).float().contiguous()
            table = state.code.float().contiguous()
            tiles = packing.nf4(weight, scales.float().contiguous(), table)
            packed = None if tiles is None else PackedWeight(tables.NF4, tiles, table)
    elif type(module).__name__ == "Linear8bitLt":
        scale = module.weight.SCB if getattr(module.weight, "SCB", None) is not None else module.state.SCB
        weight = module.weight.data
        tiles = packing.whole_rows(weight) if weight.dtype == torch.int8 else None
        packed = (
            None if tiles is None else PackedWeight(tables.EIGHT_BITS, tiles, scale=(scale / 127).float().flatten())
        )
    if packed is None:
        raise UnknownLayer(type(module).__name__)
    shape = module.out_features, module.in_features
    return LinearLayer(torch.empty(shape, device="meta"), module.bias, adapters, packed)


def _split(layer: LinearLayer, sizes: list[int]) -> list[LinearLayer]:
    ends = np.cumsum(sizes).tolist()
    return [layer.part(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _activation(mlp: Any) -> int:
    """By what it gives: names differ."""
    activation = getattr(mlp, "act_fn", None) or mlp.activation_fn
    x = torch.linspace(-6, 6, 64)
    if torch.allclose(activation(x), nn.functional.silu(x), atol=1e-6):
        return rows.SILU
    if torch.allclose(activation(x), nn.functional.gelu(x, approximate="tanh"), atol=1e-6):
        return rows.GELU_TANH
    raise UnknownLayer(type(activation).__name__)
