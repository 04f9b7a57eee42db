"""Encoders (BERT and its kin): which models are one, how many tokens they read, and loading them with a head for labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.errors import UserError
from sftdemo.model import validation
from sftdemo.model.loading import load_checked
from sftdemo.model.lora_targets import named
from sftdemo.system.compute import device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftdemo.config.train import TrainConfig

warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def window(path: Path, tokenizer: PreTrainedTokenizerBase, most: int) -> int:
    """How many tokens the encoder in a folder reads at once, special tokens included, `most` at most."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    positions = getattr(config, "max_position_embeddings", None) or most
    with torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if padding is not None:  # RoBERTa's kin count positions from behind that of padding
        positions -= padding + 1
    return int(min(most, positions, tokenizer.model_max_length))


def load(path: Path) -> PreTrainedModel:
    """The encoder alone, as it reads texts."""
    from transformers import AutoModel

    model, _ = load_checked(path, AutoModel, torch.float32)
    return model.to(device()).eval()  # type: ignore[no-any-return]


def load_with_head(
    path: Path, labels: Sequence[str], several: bool = False, new: bool = True, task: str = "classification"
) -> tuple[PreTrainedModel, list[str]]:
    """The encoder with a head that says how far each label applies, to a text or for task tokens to each token, and the names
    of its head's modules.

    `new` has the head begin anew, drawn by torch's seed, whatever the folder has of one; else one that lacks is refused.
    """
    options: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "ignore_mismatched_sizes": new,
    }
    if task == "classification":
        options["problem_type"] = "multi_label_classification" if several else "single_label_classification"
    model, info = load_checked(path, _class_of(task), torch.float32, **(options if new else {}))
    heads = head_modules(model, info["missing_keys"])
    inside = [
        name for name in info["missing_keys"] if not new or not any(name.startswith(f"{head}.") for head in heads)
    ]
    if inside:
        raise UserError(
            "The weights in {path} lack {n} tensors that its config.json asks for, such as {name}; fetch the model again.",
            path=path,
            n=len(inside),
            name=sorted(inside)[0],
        )
    return model.to(device()), heads


def has_linear_head(path: Path) -> bool:
    """Whether the family of the encoder in a folder tags tokens by one linear layer on what the encoder gives."""
    from transformers import AutoConfig, AutoModelForTokenClassification

    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    try:
        with torch.device("meta"):
            model = AutoModelForTokenClassification.from_config(config, trust_remote_code=False)
    except ValueError:  # the family has no such model
        return False
    heads = [model.get_submodule(name) for name in head_modules(model)]
    return len(heads) == 1 and isinstance(heads[0], torch.nn.Linear) and heads[0].bias is not None


def with_linear_head(path: Path, labels: Sequence[str], weight: torch.Tensor, bias: torch.Tensor) -> PreTrainedModel:
    """The encoder, which `has_linear_head`, with this head at each token: `weight` [labels, size] and `bias` [labels]."""
    with torch.random.fork_rng():
        model, (name,) = load_with_head(path, labels, task="tokens")
    head = model.get_submodule(name)
    head.load_state_dict({"weight": weight, "bias": bias})
    return model.eval()


def head_modules(model: PreTrainedModel, missing: Sequence[str] = ()) -> list[str]:
    """The modules between the encoder and the labels: all beside the encoder, and a pooler that the weights don't have."""
    prefix = model.base_model_prefix
    heads = [
        name for name, module in model.named_children() if name != prefix and any(True for _ in module.parameters())
    ]
    pooler = f"{prefix}.pooler"
    return [*heads, *([pooler] if any(name.startswith(f"{pooler}.") for name in missing) else [])]


def add_lora(model: PreTrainedModel, heads: Sequence[str], config: TrainConfig) -> Any:
    """Wrap the model so that rank-r matrices beside the encoder's linear layers are trained, and its head whole."""
    from peft import LoraConfig, get_peft_model

    spec = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_rslora=config.rslora,
        target_modules=_targets(model, heads, config),
        modules_to_save=list(heads),
        task_type="TOKEN_CLS" if config.task == "tokens" else "SEQ_CLS",
    )
    return get_peft_model(model, spec)


def check_targets(path: Path, config: TrainConfig) -> None:
    """Raise UserError for `lora_targets` that the encoder in a folder doesn't have; no weight is read."""
    from transformers import AutoConfig

    if config.lora_targets is None:
        return
    with torch.device("meta"):
        read = AutoConfig.from_pretrained(path, trust_remote_code=False)
        model = _class_of(config.task).from_config(read, trust_remote_code=False)
    stored = {name for file in path.glob("*.safetensors") for name in validation.header(file)}
    prefix = f"{model.base_model_prefix}."
    missing = [name for name in model.state_dict() if not {name, name.removeprefix(prefix)} & stored]
    _targets(model, head_modules(model, missing), config)


def _targets(model: PreTrainedModel, heads: Sequence[str], config: TrainConfig) -> list[str]:
    """The names of the linear layers that LoRA is put beside: all that aren't the head's, or the ones that were asked for."""
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(f"{name}.".startswith(f"{head}.") for head in heads)
    ]
    return named(linear, config.lora_targets)


def _class_of(task: str) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    return AutoModelForTokenClassification if task == "tokens" else AutoModelForSequenceClassification
