"""Embeddings and head that are trained whole beside LoRA and saved with its matrices (PEFT's `modules_to_save`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo import files
from sftdemo.errors import UserError
from sftdemo.runs import Run

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from sftdemo.config.train import TrainConfig

TIED_BY_PEFT = "embed_tokens"  # the only name of embeddings under which PEFT ties a head to them


def chosen(model: PreTrainedModel, config: TrainConfig) -> tuple[list[str], bool]:
    """The names of the modules that `config.modules_to_save` means, and whether they share one weight, which each of them
    then means. Raises UserError for tied ones that PEFT would part when it opens the adapter."""
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = head.weight is embeddings.weight
    wanted = {"none": [], "embeddings": [embeddings], "head": [head]}.get(config.modules_to_save, [embeddings, head])
    if not wanted:
        return [], False
    names = [name for name, module in model.named_modules() for each in (embeddings, head) if module is each]
    if not tied:
        return [name for name in names if any(model.get_submodule(name) is each for each in wanted)], False
    if names[0].rpartition(".")[2] != TIED_BY_PEFT:
        raise UserError(
            "modules_to_save is {value}, and this model's embeddings, {name}, are its head, too, which PEFT can't keep so; use "
            "method full with train_only embeddings, or leave it out.",
            value=config.modules_to_save,
            name=names[0],
        )
    return names, True


def are_in(adapter: Path) -> bool:
    """Whether the adapter in a folder brings whole modules of its own."""
    return bool(files.read_json(adapter / "adapter_config.json").get("modules_to_save"))


def shares_base(run: Run) -> bool:
    """Whether a run answers from its base's own weights: it is an adapter, and nothing of the base is replaced by it."""
    try:
        return run.has_adapter and not are_in(run.model_path)
    except (OSError, ValueError, AttributeError):  # said where it is loaded
        return False


def learn_in_float32(model: Any) -> None:
    """Let saved modules of 16 bits learn in float32, as LoRA's matrices do, and read and give what they did before."""
    import torch

    for _, wrapper in _wrappers(model):
        dtype, trained = wrapper.original_module.weight.dtype, wrapper.modules_to_save[wrapper.active_adapters[0]]
        if dtype == torch.float32:
            continue
        trained.float()
        if isinstance(trained, torch.nn.Embedding):
            trained.register_forward_hook(lambda module, inputs, output, dtype=dtype: output.to(dtype))
        else:
            trained.register_forward_pre_hook(_in_float32)


def _in_float32(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)


def unwrap(model: Any) -> None:
    """Put an adapter's own modules into the place of the base's; it then is no model of the base any more."""
    from torch import nn

    base = model.get_base_model()
    for name, wrapper in list(_wrappers(base)):
        own = wrapper.modules_to_save[wrapper.active_adapters[0]]
        if isinstance(own, nn.Linear):  # PEFT's tied head has them the other way round
            own.out_features, own.in_features = own.weight.shape
        base.set_submodule(name, own)


def _wrappers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.utils import ModulesToSaveWrapper

    return ((name, module) for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper))
