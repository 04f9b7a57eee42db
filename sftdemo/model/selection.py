"""Which of a model's parameters are trained, where not all are: chosen by the names that `train_only` has."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sftdemo.config.kinds import SEQ2SEQ
from sftdemo.config.start import GROUPS, LAST, LAYERS
from sftdemo.errors import Text, UserError
from sftdemo.log import Reporter
from sftdemo.model import saved_modules

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from transformers import PreTrainedModel

    from sftdemo.config.train import TrainConfig

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")  # the first number in a name is its layer's; experts come after it
_NORM = re.compile(r"(^|[._])(\w*norm(_?(\d+|f))?|ln_\w+|ln)\.(weight|bias)$", re.IGNORECASE)
_OTHER_SENSES = re.compile(
    r"(^|\.)(vision|visual|audio|multi_modal)"
)  # what sees and hears has layers and norms of its own
# What families call them; the model itself is asked where it is loaded.
EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|embeddings|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.(weight|bias)$")


def layer_of(name: str) -> int | None:
    """The number of the decoder's layer that a parameter belongs to; None for embeddings, head and the last norm."""
    number = None if _OTHER_SENSES.search(name) else _LAYER.search(name)
    return int(number[1]) if number else None


def select(
    parts: Iterable[str], names: Collection[str], embeddings: Collection[str] = (), head: Collection[str] = ()
) -> set[str]:
    """Those of the parameters' names that any part of `train_only` names.

    `embeddings` and `head` are what these two groups mean; default: what families call them. With tied embeddings the head
    has no parameter of its own and means the embeddings. Raises UserError for a part that no parameter is named by.
    """
    embeddings = embeddings or [name for name in names if EMBEDDINGS.search(name)]
    head = head or [name for name in names if HEAD.search(name)] or embeddings
    layers = {number for name in names if (number := layer_of(name)) is not None}
    chosen: set[str] = set()
    for part in parts:
        named = {name for name in names if _chooser(part, layers, embeddings, head)(name)}
        span = LAYERS.fullmatch(part)
        count = int(span[2] or span[1]) + 1 if span else int(last[1]) if (last := LAST.fullmatch(part)) else 0
        if not named or count > len(layers):
            raise UserError(
                "train_only names {part!r}, which the model doesn't have; it has the layers 0 to {last}, and: {known}.",
                part=part,
                last=max(layers, default=0),
                known=[*GROUPS[:3], *_leaves(names)],
            )
        chosen |= named
    return chosen


def _chooser(
    part: str, layers: set[int], embeddings: Collection[str], head: Collection[str]
) -> Callable[[str], object]:
    """What says of a parameter's name whether a part of `train_only` means it."""
    groups: dict[str, Callable[[str], object]] = {
        "embeddings": embeddings.__contains__,
        "head": head.__contains__,
        "norms": lambda name: _NORM.search(name) and not _OTHER_SENSES.search(name),
    }
    if part in groups:
        return groups[part]
    if span := LAYERS.fullmatch(part):
        wanted = set(range(int(span[1]), int(span[2] or span[1]) + 1))
        return lambda name: layer_of(name) in wanted
    if last := LAST.fullmatch(part):
        wanted = set(sorted(layers)[-int(last[1]) :])
        return lambda name: layer_of(name) in wanted
    return lambda name: fnmatchcase(name, part) or f".{part.strip('.')}." in f".{name}."


def _leaves(names: Iterable[str]) -> list[str]:
    """The parts of names that are no numbers and stand inside layers, as examples of what may be named."""
    inside = (name.split(".") for name in names if layer_of(name) is not None)
    return sorted({piece for pieces in inside for piece in pieces[:-1] if not piece.isdecimal()} - {"model", "layers"})


def train_only(model: PreTrainedModel, config: TrainConfig, reporter: Reporter) -> None:
    """Freeze all parameters but those that `config.train_only` names; what that means for tied embeddings is told."""
    if config.train_only is None:
        return
    chosen, tied = _chosen(model, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    if chosen.intersection(tied):
        reporter.info(Text("The model's embeddings are its head, too (tied weights), and are trained as both."))


def _chosen(model: PreTrainedModel, config: TrainConfig) -> tuple[set[str], list[str]]:
    """The names of what is trained, and of embeddings that are the head, too."""
    parameters = dict(model.named_parameters())
    embeddings = _names_of(model.get_input_embeddings(), parameters)
    head = _names_of(model.get_output_embeddings(), parameters)
    chosen = select(config.trained_parts, parameters, embeddings, head)
    return chosen, embeddings if embeddings == head else []


def _names_of(module: nn.Module | None, parameters: dict[str, nn.Parameter]) -> list[str]:
    own = {id(parameter) for parameter in module.parameters()} if module is not None else set()
    return [name for name, parameter in parameters.items() if id(parameter) in own]


def in_files(config: TrainConfig, sizes: Collection[str]) -> set[str]:
    """The tensors of a model's files that `train_only` names; none where all are trained, or the files call them otherwise:
    the loaded model is asked before anything is written."""
    with contextlib.suppress(UserError):
        return select(config.trained_parts, sizes) if config.trained_parts else set()
    return set()


def saved_in_files(config: TrainConfig, sizes: Collection[str]) -> set[str]:
    """The tensors of a model's files that `modules_to_save` names."""
    parts = {"none": [], "both": ["embeddings", "head"]}.get(config.modules_to_save, [config.modules_to_save])
    with contextlib.suppress(UserError):
        return select(parts, sizes)
    return set()


def layers_kept(chosen: Collection[str], layers: int) -> int:
    """How many layers keep tensors for the backward pass, which ends at the first weight that is trained."""
    if not chosen or any(EMBEDDINGS.search(name) for name in chosen):
        return layers
    return layers - min((number for name in chosen if (number := layer_of(name)) is not None), default=layers)


def holds_head(chosen: Collection[str]) -> bool:
    """Whether the output layer is among what is trained, which tied embeddings are, too."""
    return not chosen or any(HEAD.search(name) or EMBEDDINGS.search(name) for name in chosen)


def check(base: Path, config: TrainConfig) -> None:
    """Raise UserError for a part of `train_only` or `lora_targets` that the model in a folder doesn't have,
    `modules_to_save` that can't be saved, or a rank that PiSSA can't take; no weight is read."""
    asked = config.train_only, config.lora_targets, config.modules_to_save, config.pissa
    if asked == (None, None, "none", False):
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from sftdemo.model import lora_targets

    kind = AutoModelForSeq2SeqLM if config.task == SEQ2SEQ else AutoModelForCausalLM
    with torch.device("meta"):
        read = AutoConfig.from_pretrained(base, trust_remote_code=False)
        model = kind.from_config(read, trust_remote_code=False)
        model.tie_weights()
    if config.train_only is not None:
        _chosen(model, config)
    if config.method == "lora":
        lora_targets.targets(model, config)
    saved_modules.chosen(model, config)


def counts(model: nn.Module) -> tuple[int, int]:
    """How many numbers are trained, and how many there are."""
    if packed := getattr(model, "get_nb_trainable_parameters", None):  # PEFT knows how many are packed into a byte
        trained, whole = packed()
        return trained, whole
    parameters = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trained in parameters if trained), sum(count for count, _ in parameters)
