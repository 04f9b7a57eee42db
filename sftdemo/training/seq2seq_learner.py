"""A sequence-to-sequence model as it is trained: the loss of its targets, and LoRA on both its parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo.config.kinds import SEQ2SEQ
from sftdemo.encoding.source_target_batch import IGNORED, PairCollator
from sftdemo.log import Reporter
from sftdemo.model import loading, seq2seq
from sftdemo.training import validation_answers
from sftdemo.training.learner import Learner
from sftdemo.training.loss import summed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftdemo.config.train import TrainConfig
    from sftdemo.training.prepare import Prepared


def learner(prepared: Prepared, reporter: Reporter) -> Learner:
    """The model in memory, ready to be trained."""
    config = prepared.config
    # As of a chat model: full tuning keeps float32 master weights.
    dtype = torch.float32 if config.method == "full" else prepared.dtype
    model = loading.load_base(prepared.base, dtype, config.quantization, SEQ2SEQ)
    trained, collator = trainable(model, config, prepared.tokenizer)
    plain = seq2seq.plain_generation(model, prepared.tokenizer)
    answer = partial(validation_answers.written_answers, model, prepared.tokenizer, None, plain, config.max_length)
    return Learner(trained, collator, partial(_save, model, prepared.tokenizer), answer)


def trainable(
    model: PreTrainedModel, config: TrainConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[Any, PairCollator]:
    """The model with our loss and, for LoRA, its added matrices, and what makes its batches."""
    seq2seq.complete_config(model, tokenizer)
    enable_loss(model, config.label_smoothing)
    return model if config.method == "full" else loading.add_lora(model, config), PairCollator(
        model.config.pad_token_id
    )


def enable_loss(model: PreTrainedModel, smoothing: float = 0.0) -> None:
    """Let the model, given `labels` and `targets`, return the summed loss of a PairCollator's batch; without labels it stays
    as it was. In training mode labels are smoothed."""
    plain = model.forward

    def forward(
        *ids: Tensor,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        if labels is None or targets is None:
            return plain(*ids, **inputs)
        options = {name: value for name, value in inputs.items() if value is not None}
        read = seq2seq.decoder_inputs(model, targets)
        logits = plain(*ids, **options, decoder_input_ids=read, use_cache=False).logits[targets != IGNORED]
        return summed(logits, labels, weights, smoothing if model.training else 0.0)

    model.forward = forward


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The tokenizer, and the tokens that a target begins and ends with."""
    tokenizer.save_pretrained(folder)
    seq2seq.plain_generation(model, tokenizer).save_pretrained(folder)
