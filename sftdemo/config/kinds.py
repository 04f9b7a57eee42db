"""The kinds of model that can be trained, and the settings that only some of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftdemo.errors import Text

CHAT = "chat"
SEQ2SEQ = "seq2seq"
KINDS = (CHAT, "classification", "tokens", SEQ2SEQ)
LABELLING = ("classification", "tokens")  # by an encoder; they answer a text at once and don't talk

# What a model of the kind is, where the default model isn't one.
MODELS = {
    "classification": Text("an encoder, such as a BERT or RoBERTa"),
    "tokens": Text("an encoder, such as a BERT or RoBERTa"),
    SEQ2SEQ: Text("an encoder-decoder, such as a T5 or BART"),
}

_LANGUAGE_MODELS = (CHAT, SEQ2SEQ)
# The kinds that have a setting; one that isn't named here is for all.
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "thinking": (CHAT,),
    "train_only": (CHAT,),
    "modules_to_save": (CHAT,),
    "best_by": (CHAT, "classification", SEQ2SEQ),
    "source_prefix": (SEQ2SEQ,),
    "source_language": (SEQ2SEQ,),
    "target_language": (SEQ2SEQ,),
    "from_run": (CHAT,),
    "rehearsal": (CHAT,),
    "system": (CHAT,),
    "on_long": _LANGUAGE_MODELS,
    "label_smoothing": _LANGUAGE_MODELS,
    "neftune_alpha": (CHAT,),
    "dora": (CHAT,),
    "teacher": (CHAT,),
    "drop_layers": (CHAT,),
    "kd_ratio": (CHAT,),
    "kd_temperature": (CHAT,),
    "pissa": (CHAT,),
    "quantization": _LANGUAGE_MODELS,
    "packing": (CHAT,),
    "pooling": ("classification",),
}

# Beside the groups Length, Optimizer and LoRA what method frozen, which fits a head in one go, has no use for.
_OF_STEPS = (
    "batch_size",
    "gradient_accumulation",
    "gradient_checkpointing",
    "precision",
    "checkpoint_every",
    "report_to",
)


def problems(task: str, changed: Mapping[str, Any]) -> list[Text]:
    """What a run of this kind can't be asked for; `changed` are the settings that aren't their defaults, with these."""
    if task not in KINDS:
        return []  # told already, as a choice that isn't there
    told = []
    if task in MODELS and "model" not in changed:
        told.append(Text("task {task} needs a model of its own: {kind}.", task=task, kind=MODELS[task]))
    return told + [
        Text("task {task} has no {name}; leave it at {default}.", task=task, name=Text(name), default=default)
        for name, default in changed.items()
        if task not in ONLY_FOR.get(name, KINDS)
    ]


def problems_of_frozen(task: str, changed: Mapping[str, Any], groups: Mapping[str, str]) -> list[Text]:
    """What method frozen can't be asked for; `changed` as above, `groups` of settings by name."""
    if task in KINDS and task not in LABELLING:
        return [Text("method frozen fits a head for labels; it is for task classification or tokens.")]
    return [
        Text("method frozen has no {name}; leave it at {default}.", name=Text(name), default=default)
        for name, default in changed.items()
        if name in _OF_STEPS or groups[name] in ("Length", "Optimizer", "LoRA")
    ]
