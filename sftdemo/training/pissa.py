"""PiSSA: LoRA that begins with the principal parts of the weights (Meng et al. 2024), given back as plain LoRA.

While it trains the base lacks what the matrices began with: W = R + sB_0A_0. The model of a run is to work beside the base as
it is, so it gets the difference, sBA - sB_0A_0, as matrices of twice the rank.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sftdemo import files

ADAPTER = ".default."


def start_of(model: nn.Module) -> dict[str, Tensor]:
    """The matrices that a training begins with, by their names in an adapter's file."""
    return {
        name.replace(ADAPTER, "."): parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def make_plain(folder: Path, start: dict[str, Tensor]) -> None:
    """Rewrite a saved adapter as plain LoRA beside the whole base; its A are [r, in], its B [out, r]."""
    path, config_path = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    weights = load_file(path)
    for name, first in start.items():
        last = weights[name]
        is_high = ".lora_B." in name
        weights[name] = torch.cat(
            [last, (-first if is_high else first).to(last.dtype)], 1 if is_high else 0
        ).contiguous()
    save_file(weights, path, metadata={"format": "pt"})
    config = files.read_json(config_path)
    rank = config["r"]
    scaling = config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)
    plain = {"r": 2 * rank, "lora_alpha": scaling * 2 * rank, "use_rslora": False, "init_lora_weights": True}
    files.write_json(config_path, {**config, **plain})
