"""Which linear layers LoRA is put beside."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import nn

from sftdemo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftdemo.config.train import TrainConfig


ROUTERS = {"router", "gate", "shared_expert_gate"}  # names of what chooses and weighs experts


def targets(model: PreTrainedModel, config: TrainConfig) -> list[str]:
    """The names of the linear layers that LoRA is put beside: all in the decoder, or in encoder and decoder, but routers of experts, Mamba's layers
    whose weights its kernels read themselves, and layers that PEFT takes for experts.

    Of these only the ones asked for; raises UserError for one that no layer bears, and for a rank that PiSSA can't take."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    from transformers.pytorch_utils import Conv1D

    whole = getattr(model.config, "is_encoder_decoder", False)
    decoder, head = model if whole else model.get_decoder(), model.get_output_embeddings()
    prefix = next(f"{name}." if name else "" for name, module in model.named_modules() if module is decoder)
    names = []
    for name, module in decoder.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or module is head or ROUTERS.intersection(name.split(".")):
            continue
        parent, _, leaf = name.rpartition(".")
        if leaf not in _read_by_kernels(decoder.get_submodule(parent)):
            names.append(prefix + name)
    # PEFT still knows experts by the names of the linear layers they once were, and would put LoRA on the tensors that hold
    # them all, where shared experts or dense layers bear these names.
    probe = LoraConfig(target_modules=names)
    convert_peft_config_for_transformers(probe, model, None)
    names = [name for name in names if name in probe.target_modules]
    chosen = named(names, config.lora_targets)
    if config.pissa:  # its matrices are parts of the weights, which have no more than so many
        most = min(min(model.get_submodule(name).weight.shape) for name in chosen)
        if config.lora_r > most:
            raise UserError(
                "lora_r is {r}, and pissa takes at most {most} of this model's weights.", r=config.lora_r, most=most
            )
    return chosen


def named(names: Collection[str], asked: str | None) -> list[str]:
    """Of the layers' names the `asked` ones, by their ends; raises UserError for one that no layer bears."""
    if asked is None:
        return list(names)
    ends = [end.strip().strip(".") for end in asked.split(",") if end.strip()]
    chosen = {end: [name for name in names if f".{name}".endswith(f".{end}")] for end in ends}
    if unknown := [end for end in ends if not chosen[end]] or ([] if ends else [asked]):
        known = sorted({name.rpartition(".")[2] for name in names})
        raise UserError(
            "lora_targets names {names}; the model's linear layers are: {known}.", names=unknown, known=known
        )
    return [name for name in names if any(name in group for group in chosen.values())]


def _read_by_kernels(module: nn.Module) -> set[str]:
    """Layers of a state-space mixer whose weights are read instead of the layers being called, at least on some machines."""
    if not hasattr(module, "A_log"):
        return set()
    return set(re.findall(r"self\.(\w+)\.weight\b", inspect.getsource(type(module))))
