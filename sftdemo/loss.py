"""The loss of the learned tokens, weighted by row, with the logits in chunks where they would dominate memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sftdemo import memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGIT_FLOATS = memory.LOGITS_AT_ONCE  # 256 MB; the loss and its gradient need as much again, each


def summed(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy in nats, summed: logits [K, vocabulary], labels [K], a weight [K] for each where they differ."""
    logits = logits.float()
    if weights is None:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none") @ weights


def enable(model: PreTrainedModel) -> bool:
    """Let the model, given `labels`, return the summed loss of a Collator's batch; without labels it stays as it was.

    Returns whether the logits can be made in chunks: they must be the head's output as it is, which is tried. Models
    that scale or cap them get them whole.
    """
    plain = model.forward
    chunked = _head_alone(model)

    def forward(*ids: Tensor, labels: Tensor | None = None, weights: Tensor | None = None, **inputs: Any) -> Any:
        if labels is None:
            return plain(*ids, **inputs)
        head = model.get_output_embeddings()
        room = max(1, LOGIT_FLOATS // head.weight.shape[0])
        if not chunked or len(labels) <= room:
            return summed(plain(**inputs).logits.flatten(0, -2), labels, weights)
        keep = inputs.pop("logits_to_keep")
        given = {name: value for name, value in inputs.items() if value is not None}
        hidden = model.get_decoder()(**given).last_hidden_state[keep]

        def part(hidden: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
            return summed(head(hidden), labels, weights)

        # A chunk's logits are made again on the way back instead of being kept.
        loss = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(labels), room):
            span = slice(start, start + room)
            some = None if weights is None else weights[span]
            loss = loss + checkpoint(
                part, hidden[span], labels[span], some, use_reentrant=False, preserve_rng_state=False
            )
        return loss

    model.forward = forward
    return chunked


def _head_alone(model: PreTrainedModel) -> bool:
    """Whether the logits are the decoder's output through the head and nothing else, by trial to the last bit."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            ids = torch.tensor([[5, 6, 7, 8]], device=model.device)
            logits = model.get_output_embeddings()(model.get_decoder()(input_ids=ids).last_hidden_state)
            return torch.equal(logits, model(input_ids=ids).logits)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False
    finally:
        model.train(was_training)
