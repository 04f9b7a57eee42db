"""What a model's files must be before a library reads them: only safetensors, no code, nothing larger than it may be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftdemo.errors import Text, UserError
from sftdemo.files import parsed, regular, why

CONFIG_BYTES = 2**20
INDEX_BYTES = 2**25
HEADER_BYTES = 100_000_000  # as safetensors itself has it
TOKENIZER_BYTES = 2**27  # the largest in use have 35 MB
LAYERS = 1000
LABELS = 2**16
SIZE = 2**26  # of any dimension: the largest vocabularies have 2**18 tokens
LORA_RANK = 2**12
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
         "C64": 64, "I8": 8, "U8": 8, "BOOL": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
         "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}  # fmt: skip
# What makes LoRA something else when it answers, or leads to other files.
NOT_PLAIN = ("target_parameters", "trainable_token_indices",
             "megatron_config", "layer_replication", "loftq_config", "auto_mapping", "alora_invocation_tokens",
             "arrow_config", "kasa_config", "monteclora_config", "use_bdlora", "use_qalora", "lora_bias")  # fmt: skip
# Beginnings that leave the base's weights as they are; PiSSA, OLoRA, CorDA and their like change them when loaded.
BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva", "lora_ga")
# A repetition inside a repeated group, which can take a time that doubles with every character.
_GROUP_REPEATED = re.compile(r"[*+]|\{\d*,\d*\}")


def read_json(path: Path, most: int, name: str) -> dict[str, Any]:
    """A file that must hold one JSON object of at most `most` bytes; UserError naming it where it doesn't."""
    try:
        if regular(path).st_size > most:
            raise ValueError(f"it has more than {most:,} bytes")
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            "The {file} of {model} can't be read: {reason}.",
            file=path.name,
            model=name,
            reason=getattr(error, "strerror", error),
        ) from error
    return value


def check_kind(folder: Path, name: str) -> None:
    """Refuse an adapter, whose model is elsewhere, and weights in pickles; `name` is what the user calls the model."""
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json", CONFIG_BYTES, name).get("base_model_name_or_path")
        raise UserError(
            "{model} holds an adapter of {base!r}, not a model; give that model, or merge the adapter into it first.",
            model=name,
            base=str(base)[:200],
        )
    pickled = next((path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES), None)
    if pickled and not any(folder.glob("*.safetensors")):
        raise UserError(
            "{model} has its weights in {file}, and only safetensors are loaded; choose another model, or save it with "
            "save_pretrained.",
            model=name,
            file=pickled,
        )


def check_weights(folder: Path) -> None:
    """Refuse a folder without sound safetensors."""
    name = str(folder)
    check_kind(folder, name)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            "{model} holds no weights in safetensors, and only those are loaded; choose another model.", model=name
        )
    for file in files:
        header(file)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        parts = read_json(index, INDEX_BYTES, name).get("weight_map")
        present = {file.name for file in files}
        if not isinstance(parts, dict) or not all(isinstance(part, str) and part in present for part in parts.values()):
            raise UserError("The {file} of {model} names files that aren't there.", file=index.name, model=name)


def header(file: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file by name, each with dtype, shape and data_offsets; UserError where it lies."""
    try:
        return _header(file)
    except (OSError, ValueError) as error:
        reason = why(error)
    except (TypeError, KeyError, AttributeError):
        reason = Text("the header doesn't describe tensors")
    raise UserError(
        "The weights in {file} are damaged: {reason}; fetch or save the model again.", file=file, reason=reason
    )


def _header(file: Path) -> dict[str, dict[str, Any]]:
    size = regular(file).st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(HEADER_BYTES, size - 8):
            raise ValueError(Text("the header is longer than the file"))
        tensors = parsed(stream.read(length).decode())
    tensors.pop("__metadata__", None)
    for name, tensor in tensors.items():
        shape, (begin, end) = tensor["shape"], tensor["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or end > size - 8 - length:
            raise ValueError(Text("the tensor {name!r} isn't in the file", name=name[:100]))
        if (end - begin) * 8 != math.prod(shape) * _BITS[tensor["dtype"]]:
            raise ValueError(Text("the tensor {name!r} has another size than its shape says", name=name[:100]))
    return tensors  # type: ignore[no-any-return]


def check_config(config: dict[str, Any], name: str) -> None:
    """Refuse sizes that would fill the memory before a weight is read."""
    for key, value in _numbers(config):
        most = SIZE if re.search(r"size|dim|heads|experts|rank|embd|inner|_n$|^n_|num_", key) else 2**62
        most = LAYERS if re.search(r"layers?$|blocks?$|depth", key) and "last" not in key else most
        most = LABELS if key == "num_labels" else most
        if abs(value) > most:
            raise UserError(
                "The config.json of {model} has {key} {value}, which no model has; choose another model.",
                model=name,
                key=key,
                value=value if abs(value) < 10**30 else Text("of more than 30 digits"),
            )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """All whole numbers of a config, each with the key that it or its list stands under."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, key)
    elif type(value) is int:
        yield key, value


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer whose files are too large, or whose regular expressions could run for ever."""
    names = ("tokenizer*", "*.jinja", "vocab*", "merges*", "*.spm", "*.model")
    for path in (path for name in names for path in folder.glob(name)):
        if path.is_file() and path.stat().st_size > TOKENIZER_BYTES:
            raise UserError(
                "The {file} of {model} has more than {count} MB; choose another model.",
                file=path.name,
                model=folder,
                count=TOKENIZER_BYTES // 2**20,
            )
    file = folder / "tokenizer.json"
    if file.is_file():
        status = file.stat()
        _check_patterns(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _check_patterns(file: Path, size: int, changed: int) -> None:
    """Once for each content of a file."""
    whole = read_json(file, TOKENIZER_BYTES, str(file.parent))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        for pattern in _patterns(whole.get(part)):
            if len(pattern) > 10_000 or repeats_a_repetition(pattern):
                raise UserError(
                    "The tokenizer.json of {model} cuts text by a regular expression that could run for ever ({pattern!r}); "
                    "choose another model.",
                    model=file.parent,
                    pattern=pattern[:60],
                )


def _patterns(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("Regex"), str):
            yield value["Regex"]
        for part in value.values():
            yield from _patterns(part)
    elif isinstance(value, list):
        for part in value:
            yield from _patterns(part)


def repeats_a_repetition(pattern: str) -> bool:
    """Whether a group that repeats something is itself repeated without bound, as in (a+)+."""
    repeats: list[bool] = [False]  # of each group that is open, whether something in it is repeated
    closed = False  # whether a group that repeats something has just ended
    at = 0
    while at < len(pattern):
        unbounded = _GROUP_REPEATED.match(pattern, at)
        if unbounded:
            if closed:
                return True
            repeats[-1] = True
            at, closed = unbounded.end(), False
            continue
        closed = False
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            at = _end_of_class(pattern, at)
        elif pattern[at] == "(":
            repeats.append(False)
        elif pattern[at] == ")" and len(repeats) > 1:
            closed = repeats.pop()
            repeats[-1] |= closed
        at += 1
    return False


def _end_of_class(pattern: str, at: int) -> int:
    """Where a class of characters that begins at `at` ends."""
    depth, at = 1, at + 1
    at += pattern.startswith("^", at)
    at += pattern.startswith("]", at)
    while at < len(pattern) and depth:
        if pattern[at] == "\\":
            at += 1
        else:
            depth += {"[": 1, "]": -1}.get(pattern[at], 0)
        at += 1
    return at - 1


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that isn't plain LoRA in safetensors, such as a pickle or one that asks for other modules."""
    config = read_json(folder / "adapter_config.json", CONFIG_BYTES, str(folder))
    rank = config.get("r")
    odd = {key: config.get(key) for key in NOT_PLAIN if config.get(key)}
    odd |= {} if config.get("peft_type") == "LORA" else {"peft_type": config.get("peft_type")}
    odd |= {} if config.get("bias", "none") == "none" else {"bias": config.get("bias")}
    odd |= {} if type(rank) is int and 0 < rank <= LORA_RANK else {"r": rank}
    if odd:
        name, value = next(iter(odd.items()))
        raise UserError(
            "The adapter in {folder} isn't plain LoRA: it has {name} {value}. It isn't loaded; merge it into its base with PEFT, "
            "and take the merged model.",
            folder=folder,
            name=name,
            value=str(value)[:80],
        )
    if (began := config.get("init_lora_weights", True)) not in BEGINNINGS:
        raise UserError(
            "The adapter in {folder} began as {value!r}, which changes the base's own weights, so it isn't loaded; have PEFT "
            "save it as plain LoRA (path_initial_model_for_weight_conversion).",
            folder=folder,
            value=str(began)[:40],
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError("The adapter in {folder} isn't in safetensors, and only those are loaded.", folder=folder)
    header(folder / "adapter_model.safetensors")
