"""The sizes of a model, from its config.json and the headers of its safetensors; no weight is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from sftdemo.config.train import TrainConfig
from sftdemo.errors import UserError
from sftdemo.model import selection, validation

CROSS_ATTENTION = 1.5  # what a decoder's layer with cross-attention keeps for its backward pass, over one without


@dataclass(frozen=True)
class Model:
    """The sizes that a model's memory depends on, from its config.json and the headers of its safetensors."""

    hidden: int
    wide: int  # the feed-forward width
    layers: int
    heads: int
    key_heads: int
    head: int  # the width of one head
    vocabulary: int
    file_bytes: int
    parameters: int
    matrices: tuple[tuple[int, int], ...]  # [out, in] of the linear layers, embeddings and output layer not
    shapes: Mapping[str, list[int]] = field(default_factory=dict)  # of each tensor, by its name in the files

    @classmethod
    def read(cls, folder: Path) -> Model:
        """Read the sizes; raises UserError where a file isn't what its name says."""
        config = validation.read_json(folder / "config.json", validation.CONFIG_BYTES, str(folder))
        validation.check_config(config, str(folder))
        config = config.get("text_config") or config.get("decoder") or config
        shapes = _shapes(folder)

        def size(*names: str, default: int = 0) -> int:
            value = next((config[name] for name in names if config.get(name)), default)
            if not isinstance(value, int):
                raise UserError(
                    "The config.json of {path} has {name} {value!r}; it must be a whole number.",
                    path=folder,
                    name=names[0],
                    value=value,
                )
            return value

        hidden, heads, vocabulary = (
            size("hidden_size", "n_embd", "d_model", "dim"),
            size("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads", "n_heads"),
            size("vocab_size"),
        )
        return cls(
            hidden=hidden,
            wide=size("intermediate_size", "n_inner", "d_ff", "encoder_ffn_dim", "hidden_dim", default=4 * hidden),
            layers=max(
                size("num_hidden_layers", "n_layer", "encoder_layers", "num_layers", "n_layers"),
                # A decoder's row is another than its encoder's, and its layers look at both.
                math.ceil(CROSS_ATTENTION * size("decoder_layers", "num_decoder_layers")),
            ),
            heads=heads,
            key_heads=size("num_key_value_heads", default=heads),
            head=size("head_dim", "d_kv", default=hidden // max(heads, 1)),
            vocabulary=vocabulary,
            file_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
            parameters=sum(map(math.prod, shapes.values())),
            matrices=_matrices(shapes, vocabulary),
            shapes=shapes,
        )

    def as_both_parts(self) -> Model:
        """The sizes of an encoder with those of the decoder made of it, which has cross-attention in each layer."""
        return replace(
            self,
            layers=math.ceil(CROSS_ATTENTION * self.layers),
            parameters=2 * self.parameters + 4 * self.layers * self.hidden**2,
            file_bytes=2 * self.file_bytes,
            shapes={},
        )

    def without_layers(self, count: int) -> Model:
        """The model when so many of its layers are left out, in float32 as it is then made. Which ones go is known only once
        they are measured; the smallest are taken, so that no room is promised that isn't there."""
        by_layer: Counter[int] = Counter()
        for name, size in self.sizes.items():
            if (layer := selection.layer_of(name)) is not None:
                by_layer[layer] += size
        gone = {layer for layer, _ in by_layer.most_common()[::-1][:count]}
        shapes = {name: shape for name, shape in self.shapes.items() if selection.layer_of(name) not in gone}
        kept = sum(map(math.prod, shapes.values()))
        return replace(
            self,
            layers=max(self.layers - count, 0),
            parameters=kept,
            file_bytes=4 * kept,
            matrices=_matrices(shapes, self.vocabulary),
            shapes=shapes,
        )

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Parameters of each tensor, by its name in the files."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    @cached_property
    def linear(self) -> int:
        """Parameters of the linear layers."""
        return sum(out * into for out, into in self.matrices)

    def weights(self, size: int, quantization: str = "none") -> int:
        """Bytes of the loaded weights, `size` bytes a number where they aren't quantized."""
        plain = (self.parameters - self.linear) * size
        if quantization == "int8":  # a byte, and a float32 scale for each output
            return plain + self.linear + 4 * sum(out for out, _ in self.matrices)
        if quantization == "nf4":  # half a byte, and a float32 scale for each 64
            return plain + self.linear // 2 + self.linear // 16
        return plain + self.linear * size

    def trained(self, config: TrainConfig) -> int:
        """Parameters that are trained."""
        if config.method == "full":
            return sum(self.sizes[name] for name in selection.in_files(config, self.sizes)) or self.parameters
        return config.lora_r * sum(out + into for out, into in self.matrices) + self.saved_whole(config)

    def saved_whole(self, config: TrainConfig) -> int:
        """Parameters of the modules that are trained whole beside LoRA."""
        return sum(self.sizes[name] for name in selection.saved_in_files(config, self.sizes))


def _matrices(shapes: Mapping[str, list[int]], vocabulary: int) -> tuple[tuple[int, int], ...]:
    return tuple((shape[0], shape[1]) for shape in shapes.values() if len(shape) == 2 and vocabulary not in shape)


def _shapes(folder: Path) -> dict[str, list[int]]:
    headers = [validation.header(file) for file in sorted(folder.glob("*.safetensors"))]
    return {name: tensor["shape"] for header in headers for name, tensor in header.items()}


def parameters(folder: Path) -> int:
    """How many numbers the safetensors of a folder hold, whatever they are of."""
    return sum(map(math.prod, _shapes(folder).values()))
