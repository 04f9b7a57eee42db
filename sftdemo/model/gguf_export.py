"""A model's folder as one GGUF file, with chat template and stop tokens, for llama.cpp, Ollama and their kin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo.errors import UserError
from sftdemo.model.gguf_vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedConfig

# transformers' name of an architecture, and GGUF's; those whose weights differ by no more than the order of rows, and
# of Gemma the 1 that its norms add.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
}
FILE_TYPES = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
# What llama.cpp takes for granted of Gemma 3: each sixth layer sees everything, the others turn positions by this base.
GEMMA_PERIOD, GEMMA_LOCAL_BASE = 6, 10_000.0
GEMMA_27B_LAYERS = 62  # by which llama.cpp knows that the scores of this one are scaled by the hidden size
# Rows whose order may change, by the ending of their names.
_TURNED = re.compile(r"\.([qk])_proj\.")


def check(folder: Path) -> None:
    """Raise UserError where the model in a folder can't be written as GGUF here; no weights are read."""
    Vocabulary.read(folder)
    _architecture(_config(folder))


def check_opened_by(folder: Path, runtime: str) -> None:
    """Raise UserError where this runtime would read the GGUF file otherwise than it is written: transformers knows no slowed or
    partial rotations in one, no biases of Llama, and not Gemma 3."""
    config = _config(folder)
    rope, width = _rope(config), config.hidden_size // config.num_attention_heads
    alike = (
        _architecture(config) != "gemma3"
        and rope["rope_type"] == "default"
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and (getattr(config, "head_dim", None) or width) == width
        and not (getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False))
    )
    if runtime != "llama.cpp" and not alike:
        raise UserError(
            "Only llama.cpp opens the GGUF file of this model, and it isn't here: pip install xllamacpp, or give --no-verify."
        )


def write(folder: Path, target: Path, kind: str, template: str, stop_ids: list[int], name: str) -> None:
    """Write the float32 model in `folder` as `target`, its matrices as `kind` (f16, q8_0, q4_0).

    The embedding and output matrices of q4_0 stay in 8 bits. Raises UserError for an architecture or a tokenizer that isn't
    known here.
    """
    import gguf

    config, vocabulary = _config(folder), Vocabulary.read(folder)
    architecture = _architecture(config)
    if vocabulary.hint:
        name = f"{name} ({vocabulary.hint})"
    writer = gguf.GGUFWriter(target, architecture)
    try:
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[kind]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_shape(writer, config, architecture)
        vocabulary.add(writer, config.vocab_size, stop_ids)
        writer.add_chat_template(template)
        for tensor_name, values, stored_as in _tensors(folder, architecture, config, kind):
            writer.add_tensor(tensor_name, values, raw_dtype=stored_as)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _config(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()


def _architecture(config: PreTrainedConfig) -> str:
    """GGUF's name; UserError where llama.cpp would compute something else."""
    if config.model_type not in ARCHITECTURES:
        raise UserError(
            "A model of kind {kind} can't be written as GGUF here, only {known}; export it as merged instead.",
            kind=config.model_type,
            known=list(ARCHITECTURES),
        )
    architecture = ARCHITECTURES[config.model_type]
    if (positions := _rope(config)["rope_type"]) not in _POSITIONS.get(architecture, ("default", "linear")):
        raise UserError(
            "A model with {kind} positions can't be written as GGUF here; export it as merged instead.", kind=positions
        )
    if odd := _oddity(config, architecture):
        raise UserError(
            "A model of kind {kind} with {setting} can't be written as GGUF here; export it as merged instead.",
            kind=config.model_type,
            setting=odd,
        )
    return architecture


_POSITIONS = {"llama": ("default", "linear", "llama3"), "phi3": ("default",)}


def _rope(config: PreTrainedConfig) -> dict[str, Any]:
    """How positions are turned, of Gemma 3 in the layers that see everything."""
    rope = config.rope_parameters
    return dict(rope.get("full_attention", rope))


def _oddity(config: PreTrainedConfig, architecture: str) -> str:
    """A setting that llama.cpp takes otherwise, as "name value"; "" where there is none."""
    gemma = architecture == "gemma3"
    wanted: dict[str, Any] = {"hidden_activation": "gelu_pytorch_tanh"} if gemma else {"hidden_act": "silu"}
    if gemma:
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        is_27b = layers == GEMMA_27B_LAYERS
        kinds = [
            "full_attention" if place % GEMMA_PERIOD == 0 else "sliding_attention" for place in range(1, layers + 1)
        ]
        wanted |= {"layer_types": kinds, "final_logit_softcapping": None, "attn_logit_softcapping": None}
        wanted |= {"query_pre_attn_scalar": config.hidden_size // heads if is_27b else config.head_dim}
        wanted |= {"use_bidirectional_attention": False, "attention_bias": False}
        local = config.rope_parameters["sliding_attention"]
        if (local["rope_type"], local["rope_theta"]) != ("default", GEMMA_LOCAL_BASE):
            return f"rope_parameters {local}"
    values = {name: getattr(config, name, value) for name, value in wanted.items()}
    return next(
        (f"{name} {values[name]}" for name, value in wanted.items() if (values[name] or None) != (value or None)), ""
    )


def _context(config: PreTrainedConfig, architecture: str) -> int:
    """How many tokens it reads: no more than its window, where llama.cpp has none for it."""
    window = getattr(config, "sliding_window", None)
    windowed = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    most: int = config.max_position_embeddings
    return min(most, window) if window and windowed and architecture != "gemma3" else most


def _add_shape(writer: Any, config: PreTrainedConfig, architecture: str) -> None:
    import gguf

    heads, rope = config.num_attention_heads, _rope(config)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(_context(config, architecture))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)


def _tensors(
    folder: Path, architecture: str, config: PreTrainedConfig, kind: str
) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Each tensor by GGUF's name, as stored, with its type; vectors stay in float32, as llama.cpp wants them."""
    import gguf
    from safetensors import safe_open

    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    change = _change(architecture, config)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                if _sees(name):
                    continue
                known = names.get_name(_of_text(name), (".weight", ".bias"))
                if known is None:
                    raise UserError("GGUF has no place for the tensor {name}; export it as merged instead.", name=name)
                values = change(name, file.get_tensor(name).float()).numpy()
                stored_as = _stored_as(known, values, kind)
                yield known, gguf.quantize(values, stored_as), stored_as
    if _rope(config)["rope_type"] == "llama3":
        yield "rope_freqs.weight", _slowed(config), gguf.GGMLQuantizationType.F32


def _of_text(name: str) -> str:
    """What a tensor would be called if the model were the part that reads and writes text."""
    return name.removeprefix("language_model.").replace("model.language_model.", "model.")


def _sees(name: str) -> bool:
    """Whether a tensor is of the part of Gemma 3 that reads pictures."""
    return "vision_tower." in name or "multi_modal_projector." in name


def _slowed(config: PreTrainedConfig) -> np.ndarray:
    """By how much Llama 3 slows each rotation down."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    width, base = 2 * len(frequencies), _rope(config)["rope_theta"]
    plain = 1.0 / base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    return (plain / frequencies).numpy()  # type: ignore[no-any-return]


def _stored_as(name: str, values: np.ndarray, kind: str) -> Any:
    """A tensor's type: whole rows are quantized in blocks of 32, and rows of another length stay in 16 bits."""
    from gguf import GGMLQuantizationType as Type

    if values.ndim == 1:
        return Type.F32
    if kind == "f16" or values.shape[-1] % 32:
        return Type.F16
    return Type.Q8_0 if name in ("token_embd.weight", "output.weight") else Type[kind.upper()]


def _change(architecture: str, config: PreTrainedConfig) -> Callable[[str, Tensor], Tensor]:
    """What is written of a tensor: Llama's queries and keys have the two halves of each rotation side by side there, and Gemma's
    norms the 1 that transformers adds."""
    heads = config.num_attention_heads
    keys = config.num_key_value_heads or heads

    def change(name: str, values: Tensor) -> Tensor:
        if architecture == "gemma3" and name.endswith("norm.weight"):
            return values + 1
        turned = _TURNED.search(name)
        if architecture != "llama" or not turned:
            return values
        count = heads if turned[1] == "q" else keys
        halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape).contiguous()

    return change
