"""The loss of the learned tokens, weighted by row, with the logits in chunks where they would dominate memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
COPIES = 4  # of a chunk of logits stand beside each other while a student learns from its teacher's


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of the learned tokens of a batch: `logits` gives those of a slice of them, [k, vocabulary].

    The loss of a token is `ratio` times the divergence KL(teacher || student) of both distributions softened by
    `temperature`, times its square so that its gradient keeps its size (Hinton et al. 2015), and the rest the label's
    cross-entropy.
    """

    logits: Callable[[slice], Tensor]
    ratio: float
    temperature: float


def summed(
    logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float = 0.0, lesson: Lesson | None = None
) -> Tensor:
    """Cross-entropy in nats, summed: logits [K, vocabulary], labels [K], a weight [K] for each where they differ; with a
    `lesson` mixed with the divergence from the teacher.

    `smoothing` is the share of the target's probability that is spread over the vocabulary (Szegedy et al. 2016).
    """
    cross_entropy = partial(torch.nn.functional.cross_entropy, logits.float(), labels, label_smoothing=smoothing)
    if lesson is None:
        return cross_entropy(reduction="sum") if weights is None else cross_entropy(reduction="none") @ weights
    student, teacher = (
        (each.float() / lesson.temperature).log_softmax(-1) for each in (logits, lesson.logits(slice(None)))
    )
    divergence = lesson.temperature**2 * (teacher.exp() * (teacher - student)).sum(-1)
    each = lesson.ratio * divergence + (1 - lesson.ratio) * cross_entropy(reduction="none")
    return each.sum() if weights is None else each @ weights


def _cross_entropy(
    logits: Tensor, targets: Tensor, scale: Tensor, smoothing: float, learn: bool
) -> tuple[Tensor, Tensor]:
    """`scale` [k, 1] times the cross-entropy, summed, and if asked for its gradient, in place of `logits` [k, vocabulary].

    The gradient is softmax less the label (Bishop 2006, eq. 4.109).
    """
    probabilities = logits.sub_(logits.amax(-1, keepdim=True))
    chosen = (1 - smoothing) * probabilities.gather(1, targets)
    if smoothing:
        chosen += smoothing * probabilities.mean(-1, keepdim=True)
    partition = probabilities.exp_().sum(-1, keepdim=True)
    total = ((partition.log() - chosen) * scale).sum()
    if learn:
        probabilities.mul_(scale / partition).scatter_add_(1, targets, (smoothing - 1) * scale)
        if smoothing:
            probabilities -= scale * (smoothing / logits.shape[-1])
    return total, probabilities


def _distilled(
    logits: Tensor, taught: Tensor, targets: Tensor, scale: Tensor, smoothing: float, lesson: Lesson, learn: bool
) -> tuple[Tensor, Tensor]:
    """The same of a lesson's mixture, where the teacher's logits are `taught`."""
    ratio, temperature = lesson.ratio, lesson.temperature
    student, teacher = ((each / temperature).log_softmax(-1) for each in (logits, taught))
    probabilities = teacher.exp()
    divergence = teacher.sub_(student).mul_(probabilities).sum(-1, keepdim=True)
    total, gradient = _cross_entropy(logits, targets, (1 - ratio) * scale, smoothing, learn)
    total += ratio * temperature**2 * (divergence * scale).sum()
    if learn:
        gradient += student.exp_().sub_(probabilities).mul_(ratio * temperature * scale)
    return total, gradient


class HeadLoss(torch.autograd.Function):
    """`summed` of a linear head's logits, of which no more than LOGIT_FLOATS exist at once, in one copy; with a lesson in a
    few, its teacher's among them.

    hidden is [K, width], the head's weight [vocabulary, width]. The gradient is made in place of the logits as soon as they
    are there, so that nothing of their size is kept or made twice.
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
        lesson: Lesson | None,
        learn: bool,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        needs_grad = [learn and needed for needed in ctx.needs_input_grad[:3]]
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(tensor) if needed and tensor is not None else None
            for tensor, needed in zip((hidden, weight, bias), needs_grad, strict=True)
        )
        chunk = max(1, LOGIT_FLOATS // len(weight) // (COPIES if lesson else 1))
        for start in range(0, len(labels), chunk):
            span = slice(start, start + chunk)
            inputs, targets = hidden[span], labels[span, None]
            logits = torch.nn.functional.linear(inputs, weight, bias)
            dtype, logits = logits.dtype, logits.float()
            scale = weights[span, None] if weights is not None else logits.new_ones(len(targets), 1)
            if lesson:
                taught = lesson.logits(span).float()
                loss, gradient = _distilled(logits, taught, targets, scale, smoothing, lesson, any(needs_grad))
            else:
                loss, gradient = _cross_entropy(logits, targets, scale, smoothing, any(needs_grad))
            total += loss
            if not any(needs_grad):
                continue
            grad_output = gradient.to(dtype)
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
        return *(None if each is None else each * gradient for each in ctx.saved_tensors), None, None, None, None, None


def enable(
    model: PreTrainedModel,
    smoothing: float = 0.0,
    noise: EmbeddingNoise | None = None,
    teach: Callable[[dict[str, Any]], Lesson] | None = None,
) -> bool:
    """Let the model, given `labels`, return the summed loss of a Collator's batch; without labels it stays as it was.
    In training mode labels are smoothed, a teacher is asked, and the noise is told the rows' lengths.

    Returns whether the logits can be made in chunks: they must be the head's output as it is, which is tried. Models
    that scale or cap them get them whole.
    """
    last = last_layer.enable(model)
    plain = model.forward
    chunked = head_alone(model)

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
        lesson = teach(inputs) if teach and model.training else None
        if not chunked:
            return summed(plain(**inputs).logits.flatten(0, -2), labels, weights, smooth, lesson)
        hidden = kept_states(model, inputs)
        head = model.get_output_embeddings()
        if head.weight.shape[-1:] != hidden.shape[-1:]:  # spread over processes, whole only while its layer is called
            return summed(head(hidden), labels, weights, smooth, lesson)
        weight = head.weight
        if not torch.is_autocast_enabled(hidden.device.type):  # one that is trained beside LoRA is kept in float32
            weight = weight.to(hidden.dtype)
        return HeadLoss.apply(hidden, weight, head.bias, labels, weights, smooth, lesson, torch.is_grad_enabled())  # type: ignore[no-untyped-call]

    model.forward = forward
    return chunked


def kept_states(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """The decoder's output [K, width] at the places of a batch whose next token is learned."""
    present = {name: value for name, value in inputs.items() if value is not None and name != "logits_to_keep"}
    return model.get_decoder()(**present).last_hidden_state[inputs["logits_to_keep"]]  # type: ignore[no-any-return]


def head_alone(model: PreTrainedModel) -> bool:
    """Whether the logits are the decoder's output through the head and nothing else, by trial to the last bit."""

    def trial() -> Iterator[tuple[Tensor, Tensor]]:
        ids = torch.tensor([[5, 6, 7, 8]], device=model.device)
        with answering(model):
            hidden = model.get_decoder()(input_ids=ids).last_hidden_state
            yield model.get_output_embeddings()(hidden), model(input_ids=ids).logits

    return type(model.get_output_embeddings()) is torch.nn.Linear and accept(trial, lambda: None, 0.0)
