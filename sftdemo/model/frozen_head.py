"""A logistic head on an encoder's frozen features: fitted in seconds, tuned on the validation rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from sftdemo.encoding.label_rows import padded
from sftdemo.errors import UserError
from sftdemo.model.encoder_memory import FROZEN_BATCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftdemo.encoding.label_rows import LabelRows

# Inverse strength of the penalty on features of variance 1: the likeliest to the validation rows is taken, the middle one
# where there are none.
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
FILE = "frozen_head.safetensors"
PRIOR = "prior.safetensors"  # of a run of nothing but such a head: what it is compared with
BATCH = FROZEN_BATCH


@dataclass(frozen=True)
class FrozenHead:
    """Logits from pooled features: `weight` [labels, size] and `bias` [labels]."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """[rows, size] to [rows, labels]."""
        return features @ self.weight.T + self.bias

    @property
    def parameters(self) -> int:
        return self.weight.numel() + self.bias.numel()

    def save(self, folder: Path, file: str = FILE) -> None:
        from safetensors.torch import save_file

        save_file({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, folder / file)

    @classmethod
    def prior(cls, rows: LabelRows, count: int, size: int, several: bool = False) -> Self:
        """The head that gives each label the share of the training texts that has it, whatever the features; `several` may
        apply to one."""
        by_text = {text: row.labels for text, row in zip(rows.texts, rows, strict=True)}
        every = torch.tensor([label for labels in by_text.values() for label in labels], dtype=torch.long)
        shares = torch.bincount(every, minlength=count).clamp_min(0.5)
        if several:
            return cls(torch.zeros(count, size), (shares / len(by_text)).clamp(max=1 - 0.5 / len(by_text)).logit())
        return cls(torch.zeros(count, size), (shares / shares.sum()).log())

    @classmethod
    def read(cls, folder: Path, file: str = FILE) -> Self:
        """Raises UserError where the file is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(folder / file)
            return cls(tensors["weight"], tensors["bias"])
        except (OSError, KeyError, SafetensorError) as error:
            raise UserError("The head in {folder} can't be read: {reason}.", folder=folder, reason=error) from error


def by_length(
    rows: Sequence[Sequence[int]],
    forward: Callable[[dict[str, Tensor]], Tensor],
    pad: int,
    batch: int,
    places: Sequence[Sequence[int]] | None = None,
) -> list[Tensor]:
    """What `forward` makes of each row of token ids: rows of like length together, in the order given.

    With `places` only the values of these tokens of each row are kept.
    """
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    values: dict[int, Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            of_each = forward(padded([rows[place] for place in part], pad)).float().cpu().unbind()
            if places is not None:
                of_each = tuple(
                    value[torch.tensor(places[place], dtype=torch.long)]
                    for value, place in zip(of_each, part, strict=True)
                )
            values |= dict(zip(part, of_each, strict=True))
    return [values[place] for place in range(len(rows))]


def pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """[rows, tokens, size] to [rows, size]: the mean over the tokens that aren't padding, or the first token's."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def features(encoder: PreTrainedModel, rows: Sequence[Sequence[int]], pad: int, pooling: str) -> Tensor:
    """[windows, size] of rows of token ids."""

    def forward(batch: dict[str, Tensor]) -> Tensor:
        batch = {name: value.to(encoder.device) for name, value in batch.items()}
        return pooled(encoder(**batch).last_hidden_state, batch["attention_mask"], pooling)

    return torch.stack(by_length(rows, forward, pad, BATCH))


def features_at(
    encoder: PreTrainedModel, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]], pad: int
) -> Tensor:
    """[all places, size]: what the encoder makes of some tokens of each row, as they are, row by row."""

    def forward(batch: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = encoder(**{name: value.to(encoder.device) for name, value in batch.items()}).last_hidden_state
        return hidden

    return torch.cat(by_length(rows, forward, pad, BATCH, places))


def logits_of(model: Any, rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """[windows, labels] that a model with a head gives rows of token ids."""
    return torch.stack(_logits(model, rows, pad))


def logits_at(model: Any, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]], pad: int) -> Tensor:
    """[all places, labels] that a model with a head for each token gives some of each row."""
    return torch.cat(_logits(model, rows, pad, places))


def _logits(
    model: Any, rows: Sequence[Sequence[int]], pad: int, places: Sequence[Sequence[int]] | None = None
) -> list[Tensor]:
    def forward(batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = model(**{name: value.to(model.device) for name, value in batch.items()}).logits
        return logits

    model.eval()
    return by_length(rows, forward, pad, BATCH, places)


def fit(
    train: LabelRows, values: Tensor, validation: LabelRows, held_out: Tensor, count: int, several: bool
) -> FrozenHead:
    """The head of `count` labels for windows with these features [windows, size], by the penalty best on validation.

    Where `several` labels may apply each has a logistic regression of its own.
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = values.mean(0), values.std(0).clamp_min(1e-6)
    inputs = ((values - mean) / scale).double().numpy()
    weights = [row.weight for row in train]
    best: tuple[float, FrozenHead] | None = None
    for strength in STRENGTHS if len(validation) else STRENGTHS[len(STRENGTHS) // 2 : len(STRENGTHS) // 2 + 1]:
        model: Any = LogisticRegression(C=strength, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weight, bias = _fitted(model, inputs, train, weights, count, several)
        head = FrozenHead(weight.float() / scale, (bias - weight @ (mean / scale).double()).float())
        loss = loss_of(head.logits(held_out), validation, several) if len(validation) else 0.0
        if best is None or loss < best[0]:
            best = (loss, head)
    assert best
    return best[1]


def _fitted(
    model: Any, inputs: Any, train: LabelRows, weights: list[float], count: int, several: bool
) -> tuple[Tensor, Tensor]:
    """Weight [count, size] and bias [count] in float64; a label that no row or every row has gets its constant."""
    weight = torch.zeros(count, inputs.shape[1], dtype=torch.float64)
    bias = torch.full((count,), -20.0, dtype=torch.float64)
    if not several:
        if len(present := {row.labels[0] for row in train}) < 2:
            bias[list(present)] = 20.0
            return weight, bias
        model.fit(inputs, [row.labels[0] for row in train], sample_weight=weights)
        classes = torch.tensor(model.classes_)
        coefficients, intercepts = torch.tensor(model.coef_), torch.tensor(model.intercept_)
        if len(classes) == 2:  # one row of coefficients tells both
            coefficients, intercepts = (
                torch.cat([-coefficients, coefficients]) / 2,
                torch.cat([-intercepts, intercepts]) / 2,
            )
        weight[classes], bias[classes] = coefficients, intercepts
        return weight, bias
    for label in range(count):
        applies = [label in row.labels for row in train]
        if len(set(applies)) < 2:
            bias[label] = 20.0 if applies[0] else -20.0
            continue
        model.fit(inputs, applies, sample_weight=weights)
        weight[label], bias[label] = torch.tensor(model.coef_[0]), torch.tensor(float(model.intercept_[0]))
    return weight, bias


def loss_of(logits: Tensor, rows: LabelRows, several: bool) -> float:
    """Mean cross-entropy of windows' logits [windows, labels], by their weights."""
    losses = losses_of(logits, targets(rows, logits.shape[1], several), several)
    weights = torch.tensor([row.weight for row in rows])
    return float((losses * weights).sum() / weights.sum())


def targets(rows: Sequence[Any], count: int, several: bool) -> Tensor:
    """[rows] label numbers, or [rows, count] ones and zeros where several may apply."""
    if not several:
        return torch.tensor([row.labels[0] for row in rows])
    applies = torch.zeros(len(rows), count)
    for place, row in enumerate(rows):
        applies[place, row.labels] = 1.0
    return applies


def losses_of(logits: Tensor, labels: Tensor, several: bool) -> Tensor:
    """[rows]: each row's cross-entropy, in nats; of several labels the mean over all, as transformers has it."""
    if several:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none").mean(-1)
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
