"""Does an adapter belong to a base? Its tensors beside those that PEFT would make on that model; no weight is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.model import validation

FILE = "adapter_model.safetensors"


def adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a plain LoRA adapter; UserError for any other, and for settings that PEFT here doesn't know."""
    from peft import LoraConfig

    validation.check_adapter(folder)
    config = validation.read_json(folder / "adapter_config.json", validation.CONFIG_BYTES, str(folder))
    known = {spec.name for spec in dataclasses.fields(LoraConfig)}
    if unknown := sorted(key for key, value in config.items() if key not in known and value):
        raise UserError(
            "The adapter in {folder} asks for {names}, which PEFT doesn't know here, so it isn't loaded.",
            folder=folder,
            names=unknown,
        )
    return {key: value for key, value in config.items() if key in known}


def check_fits(folder: Path, base: Path) -> None:
    """Raise UserError unless the adapter has just the tensors, by name and shape, that LoRA has on this base."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    # Where it was trained and how its matrices began changes no shape.
    began = {"base_model_name_or_path": None, "inference_mode": False, "init_lora_weights": True}
    settings = adapter_config(folder) | began
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            model = get_peft_model(model, LoraConfig(**settings))
        wanted = {
            name: list(tensor.shape)
            for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
        }
    except Exception as error:  # a layer that isn't there, a setting that isn't one: PEFT has many words for it
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError("The adapter doesn't fit {base}: {reason}", base=base.name, reason=reason) from error
    stored = {name: tensor["shape"] for name, tensor in validation.header(folder / FILE).items()}
    if odd := sorted(name for name in {*wanted, *stored} if wanted.get(name) != stored.get(name)):
        raise UserError(
            "The adapter doesn't fit {base}: {n} of its tensors are others there, such as {name}; give --base the model that "
            "it was trained on.",
            base=base.name,
            n=len(odd),
            name=odd[0],
        )
