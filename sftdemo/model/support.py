"""Which models can be trained and answered at all, by their config alone: told before anything is downloaded or trained."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

from sftdemo.errors import Text, UserError
from sftdemo.model import validation


def check(config: Path, model: str) -> None:
    """Refuse a model that isn't known to transformers, or doesn't continue text with a cache of what it has read.

    `config` is its config.json, `model` what the user calls it. Raises UserError naming the model type and the reason.
    """
    read = validation.read_json(config, validation.CONFIG_BYTES, model)
    validation.check_config(read, model)
    kind = read.get("model_type")
    if reason := _reason(kind):
        raise UserError(
            "{model} is a model of the type {kind!r}, {reason}. Choose another model, such as a Llama, Qwen or Gemma.",
            model=model,
            kind=kind,
            reason=reason,
        )


def _reason(kind: Any) -> Text | None:
    """Why models of a type can't be used here; None if they can."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if kind not in CONFIG_MAPPING:
        return Text(
            "which transformers {version} doesn't know, and code that comes with a model is never run",
            version=transformers.__version__,
        )
    config = CONFIG_MAPPING[kind]
    both_ways = config in MODEL_FOR_MASKED_LM_MAPPING or getattr(config, "is_encoder_decoder", False)
    if both_ways or config not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return Text("which isn't a decoder that continues text")
    parameters = signature(MODEL_FOR_CAUSAL_LM_MAPPING[config].forward).parameters
    if "cache" not in parameters or kind in OWN_STATES:
        return Text("which keeps what it has read in a way of its own")
    return None


# By transformers 5.24: xLSTM's and MiniMax' caches are of their own classes, RecurrentGemma's states in the model itself.
OWN_STATES = {"xlstm", "minimax", "recurrent_gemma"}
