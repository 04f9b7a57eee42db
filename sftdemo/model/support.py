"""Which models can be trained and answered at all, by their config alone: told before anything is downloaded or trained."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

from sftdemo.config.kinds import LABELLING
from sftdemo.errors import Text, UserError
from sftdemo.model import validation


def check(config: Path, model: str, task: str = "chat") -> None:
    """Refuse a model that isn't known to transformers, or doesn't do what the `task` asks: for chat, continue text with a
    cache of what it has read.

    `config` is its config.json, `model` what the user calls it. Raises UserError naming the model type and the reason.
    """
    read = validation.read_json(config, validation.CONFIG_BYTES, model)
    validation.check_config(read, model)
    kind = read.get("model_type")
    if reason := _reason(kind, task):
        raise UserError(
            "{model} is a model of the type {kind!r}, {reason}. Choose another model, such as a {examples}.",
            model=model,
            kind=kind,
            reason=reason,
            examples=EXAMPLES[task],
        )


EXAMPLES = {"chat": Text("Llama, Qwen or Gemma"), "seq2seq": Text("T5, BART or Marian")} | dict.fromkeys(
    LABELLING, Text("BERT, RoBERTa, DeBERTa or ModernBERT")
)


def _reason(kind: Any, task: str) -> Text | None:
    """Why models of a type can't be used for a task; None if they can."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
    )

    from sftdemo.model import seq2seq  # torch, which the page doesn't wait for

    if kind not in CONFIG_MAPPING:
        return Text(
            "which transformers {version} doesn't know, and code that comes with a model is never run",
            version=transformers.__version__,
        )
    if task == "seq2seq":
        return seq2seq.reason_against(kind)
    config = CONFIG_MAPPING[kind]
    if task in LABELLING:
        encoder = config in MODEL_FOR_MASKED_LM_MAPPING and config not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
        heads = (
            MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING if task == "tokens" else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        )
        with_labels = config in heads
        if not (encoder and with_labels):
            return Text("which isn't an encoder")
        models = MODEL_MAPPING[config]
        for model in models if isinstance(models, tuple) else (models,):
            if not {"input_ids", "attention_mask"} <= set(signature(model.forward).parameters):
                return Text("which can't be told which tokens are padding")
        return None
    both_ways = config in MODEL_FOR_MASKED_LM_MAPPING or getattr(config, "is_encoder_decoder", False)
    if both_ways or config not in MODEL_FOR_CAUSAL_LM_MAPPING:
        if seq2seq.reason_against(kind) is None and not seq2seq.is_encoder(kind):
            return Text("which reads one text and writes another; train it with --task seq2seq")
        return Text("which isn't a decoder that continues text")
    parameters = signature(MODEL_FOR_CAUSAL_LM_MAPPING[config].forward).parameters
    if "cache" not in parameters or kind in OWN_STATES:
        return Text("which keeps what it has read in a way of its own")
    return None


# By transformers 5.24: xLSTM's and MiniMax' caches are of their own classes, RecurrentGemma's states in the model itself.
OWN_STATES = {"xlstm", "minimax", "recurrent_gemma"}
