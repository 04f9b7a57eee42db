"""The loss of the learned tokens, weighted by row, with the logits in chunks where they would dominate memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sftdemo.model import last_layer, memory_estimate
from sftdemo.model.parity import accept, answering

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftdemo.training.embedding_noise import EmbeddingNoise

LOGIT_FLOATS = memory_estimate.LOGITS_AT_ONCE


def summed(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, summed: logits [K, vocabulary], labels [K], a weight [K] for each where they differ.

    `smoothing` is the share of the target's probability that is spread over the vocabulary (Szegedy et al. 2016).
    """
    cross_entropy = partial(torch.nn.functional.cross_entropy, logits.float(), labels, label_smoothing=smoothing)
    return cross_entropy(reduction="sum") if weights is None else cross_entropy(reduction="none") @ weights


class HeadLoss(torch.autograd.Function):
    """`summed` of a linear head's logits, of which no more than LOGIT_FLOATS exist at once, in one copy.

    hidden is [K, width], the head's weight [vocabulary, width]. The gradient, softmax less the label (Bishop 2006, eq.
    4.109), is made in place of the logits as soon as they are there, so that nothing of their size is kept or made twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        weights: Tensor | None,
        smoothing: float,
        learn: bool,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        needs_grad = [learn and needed for needed in ctx.needs_input_grad[:3]]
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(tensor) if needed and tensor is not None else None
            for tensor, needed in zip((hidden, weight, bias), needs_grad, strict=True)
        )
        chunk = max(1, LOGIT_FLOATS // len(weight))
        for start in range(0, len(labels), chunk):
            span = slice(start, start + chunk)
            inputs, targets = hidden[span], labels[span, None]
            logits = torch.nn.functional.linear(inputs, weight, bias)
            dtype, probabilities = logits.dtype, logits.float()
            probabilities -= probabilities.amax(-1, keepdim=True)
            chosen = (1 - smoothing) * probabilities.gather(1, targets)
            if smoothing:
                chosen += smoothing * probabilities.mean(-1, keepdim=True)
            partition = probabilities.exp_().sum(-1, keepdim=True)
            nll = partition.log() - chosen
            scale = weights[span, None] if weights is not None else torch.ones_like(nll)
            total += (nll * scale).sum()
            if not any(needs_grad):
                continue
            probabilities.mul_(scale / partition).scatter_add_(1, targets, (smoothing - 1) * scale)
            if smoothing:
                probabilities -= scale * (smoothing / len(weight))
            grad_output = probabilities.to(dtype)
            if grad_hidden is not None:
                grad_hidden[span] = grad_output @ weight
            if grad_weight is not None and dtype == grad_weight.dtype:
                grad_weight.addmm_(grad_output.t(), inputs)
            elif grad_weight is not None:
                grad_weight += grad_output.t() @ inputs
            if grad_bias is not None:
                grad_bias += grad_output.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if each is None else each * gradient for each in ctx.saved_tensors), None, None, None, None


def enable(model: PreTrainedModel, smoothing: float = 0.0, noise: EmbeddingNoise | None = None) -> bool:
    """Let the model, given `labels`, return the summed loss of a Collator's batch; without labels it stays as it was.
    In training mode labels are smoothed, and the noise is told the rows' lengths.

    Returns whether the logits can be made in chunks: they must be the head's output as it is, which is tried. Models
    that scale or cap them get them whole.
    """
    last = last_layer.enable(model)
    plain = model.forward
    chunked = _head_alone(model)

    def forward(
        *ids: Tensor,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        row_lengths: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        smooth = smoothing if model.training else 0.0
        if noise:
            noise.lengths = row_lengths
        if last:
            last.ask(None if labels is None else inputs["logits_to_keep"].flatten().nonzero()[:, 0])
        if labels is None:
            return plain(*ids, **inputs)
        inputs.setdefault("use_cache", False)  # else every layer's keys and values are copied into a cache
        if not chunked:
            return summed(plain(**inputs).logits.flatten(0, -2), labels, weights, smooth)
        keep = inputs.pop("logits_to_keep")
        present = {name: value for name, value in inputs.items() if value is not None}
        hidden = model.get_decoder()(**present).last_hidden_state[keep]
        head = model.get_output_embeddings()
        if head.weight.shape[-1:] != hidden.shape[-1:]:  # spread over processes, whole only while its layer is called
            return summed(head(hidden), labels, weights, smooth)
        return HeadLoss.apply(hidden, head.weight, head.bias, labels, weights, smooth, torch.is_grad_enabled())  # type: ignore[no-untyped-call]

    model.forward = forward
    return chunked


def _head_alone(model: PreTrainedModel) -> bool:
    """Whether the logits are the decoder's output through the head and nothing else, by trial to the last bit."""

    def trial() -> Iterator[tuple[Tensor, Tensor]]:
        ids = torch.tensor([[5, 6, 7, 8]], device=model.device)
        with answering(model):
            hidden = model.get_decoder()(input_ids=ids).last_hidden_state
            yield model.get_output_embeddings()(hidden), model(input_ids=ids).logits

    return type(model.get_output_embeddings()) is torch.nn.Linear and accept(trial, lambda: None, 0.0)
