"""A model's folder as one GGUF file, with chat template and stop tokens, for llama.cpp, Ollama and their kin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo import files
from sftdemo.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# transformers' name of an architecture, and GGUF's; those whose weights differ by no more than the order of rows.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
FILE_TYPES = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
# How text is cut before BPE: what only this way of cutting has in tokenizer.json, and llama.cpp's name for it.
CUTS = {r"\p{N}{1,3}": "llama-bpe", r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|": "qwen2", "Digits": "smollm"}


def check(folder: Path) -> None:
    """Raise UserError where the model in a folder can't be written as GGUF here; no weights are read."""
    _cut(_tokenizer(folder))
    _architecture(files.read_json(folder / "config.json"))


def write(folder: Path, target: Path, kind: str, template: str, stop_ids: list[int], name: str) -> None:
    """Write the float32 model in `folder` as `target`, its matrices as `kind` (f16, q8_0, q4_0).

    The embedding and output matrices of q4_0 stay in 8 bits. Raises UserError for an architecture or a tokenizer that isn't
    known here.
    """
    import gguf

    config = files.read_json(folder / "config.json")
    architecture = _architecture(config)
    writer = gguf.GGUFWriter(target, architecture)
    try:
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[kind]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_shape(writer, config)
        _add_vocabulary(writer, _tokenizer(folder), config["vocab_size"], stop_ids)
        writer.add_chat_template(template)
        for tensor_name, values, stored_as in _tensors(folder, architecture, config, kind):
            writer.add_tensor(tensor_name, values, raw_dtype=stored_as)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _architecture(config: dict[str, Any]) -> str:
    kind, rope = config.get("model_type"), config.get("rope_parameters") or {}
    if kind not in ARCHITECTURES:
        raise UserError(
            "A model of kind {kind} can't be written as GGUF here, only {known}; export it as merged instead.",
            kind=kind,
            known=list(ARCHITECTURES),
        )
    if rope.get("rope_type", "default") != "default":
        raise UserError(
            "A model with {kind} positions can't be written as GGUF here; export it as merged instead.",
            kind=rope["rope_type"],
        )
    return ARCHITECTURES[kind]


def _tokenizer(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    tokenizer: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return tokenizer


def _cut(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for the way in which a byte-level BPE tokenizer cuts text."""
    before = json.dumps(tokenizer.get("pre_tokenizer"), ensure_ascii=False).replace("\\\\", "\\")
    if tokenizer.get("model", {}).get("type") == "BPE" and '"ByteLevel"' in before:
        for sign, name in CUTS.items():
            if sign in before:
                return name
        if '"Split"' not in before and '"use_regex": true' in before:
            return "gpt-2"
    raise UserError(
        "This model's tokenizer can't be written as GGUF here, only byte-level BPE; export it as merged instead."
    )


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(width)
    rope = config.get("rope_parameters") or {}
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    writer.add_vocab_size(config["vocab_size"])


def _add_vocabulary(writer: Any, tokenizer: dict[str, Any], size: int, stop_ids: list[int]) -> None:
    """Tokens, merges and the tokens that end an answer; rows of the embedding without a token get a name of their own."""
    from gguf import TokenType

    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [TokenType.UNUSED] * size
    for text, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = text, TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    for number in stop_ids:
        types[number] = TokenType.CONTROL
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cut(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)  # the chat template writes it, where there is one
    writer.add_bos_token_id(stop_ids[0])  # llama.cpp wants one, and never adds it
    writer.add_eos_token_id(stop_ids[0])
    writer.add_eot_token_id(stop_ids[-1])
    writer.add_pad_token_id(stop_ids[0])


def _tensors(
    folder: Path, architecture: str, config: dict[str, Any], kind: str
) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Each tensor by GGUF's name, as stored, with its type; vectors stay in float32, as llama.cpp wants them."""
    import gguf
    from safetensors import safe_open

    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    order = _order(architecture, config)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                known = names.get_name(name, (".weight", ".bias"))
                if known is None:
                    raise UserError("GGUF has no place for the tensor {name}; export it as merged instead.", name=name)
                values = order(name, file.get_tensor(name).float()).numpy()
                stored_as = _stored_as(known, values, kind)
                yield known, gguf.quantize(values, stored_as), stored_as


def _stored_as(name: str, values: np.ndarray, kind: str) -> Any:
    """A tensor's type: whole rows are quantized in blocks of 32, and rows of another length stay in 16 bits."""
    from gguf import GGMLQuantizationType as Type

    if values.ndim == 1:
        return Type.F32
    if kind == "f16" or values.shape[-1] % 32:
        return Type.F16
    return Type.Q8_0 if name in ("token_embd.weight", "output.weight") else Type[kind.upper()]


def _order(architecture: str, config: dict[str, Any]) -> Callable[[str, Tensor], Tensor]:
    """How rows are put for GGUF: Llama's queries and keys have the two halves of each rotation side by side there."""
    heads = config["num_attention_heads"]
    keys = config.get("num_key_value_heads") or heads

    def order(name: str, values: Tensor) -> Tensor:
        count = heads if ".q_proj." in name else keys if ".k_proj." in name else 0
        if architecture != "llama" or not count:
            return values
        halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape).contiguous()

    return order
