"""An encoder as it is trained to label texts, and what is fitted beside it: the frozen head that it is compared with, and
the temperatures of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from sftdemo.encoding.label_rows import LabelCollator, windows
from sftdemo.encoding.own_text import own_text
from sftdemo.log import Reporter
from sftdemo.model import calibration, encoders, frozen_head
from sftdemo.model.frozen_head import FrozenHead
from sftdemo.model.label_facts import LabelFacts
from sftdemo.system import distributed
from sftdemo.training.label_prepare import PreparedLabels
from sftdemo.training.learner import Learner

if TYPE_CHECKING:
    from sftdemo.data import Example
    from sftdemo.encoding.label_rows import LabelRows
    from sftdemo.training.prepare import Prepared


def learner(prepared: Prepared, reporter: Reporter) -> Learner:
    """The model in memory, ready to be trained."""
    prepared = cast("PreparedLabels", prepared)
    config, labels = prepared.config, prepared.labels
    model, heads = encoders.load_with_head(prepared.base, labels, prepared.several)
    enable_loss(model, prepared.several)
    trained = model if config.method == "full" else encoders.add_lora(model, heads, config)
    pad = prepared.tokenizer.pad_token_id or 0
    collator = LabelCollator(pad, len(labels) if prepared.several else 0)
    fit_frozen(prepared)
    return Learner(trained, collator, partial(_save, prepared, trained), partial(_answer, prepared, trained))


def enable_loss(model: Any, several: bool) -> None:
    """Let the model, given `labels`, return the summed loss of a LabelCollator's batch; without it stays as it was."""
    plain = model.forward

    def forward(*inputs: Tensor, labels: Tensor | None = None, weights: Tensor | None = None, **options: Any) -> Any:
        output = plain(*inputs, **options)
        if labels is None:
            return output
        losses = frozen_head.losses_of(output.logits, labels, several)
        return (losses if weights is None else losses * weights).sum()

    model.forward = forward


def _answer(prepared: PreparedLabels, trained: Any, examples: Sequence[Example]) -> list[str]:
    """The likeliest label of each text."""
    places, ids = [], []
    for place, example in enumerate(examples):
        text = own_text(example["messages"][:-1], prepared.templates)
        for window in windows(prepared.tokenizer, text, prepared.window, prepared.config.chunk_overlap):
            places.append(place)
            ids.append(window)
    was_training = trained.training
    logits = frozen_head.logits_of(trained, ids, prepared.tokenizer.pad_token_id or 0)
    trained.train(was_training)
    likeliest = calibration.probabilities(logits, places, 1.0, prepared.several).argmax(-1).tolist()
    return [prepared.labels[number] for number in likeliest]


def fit_frozen(prepared: PreparedLabels) -> None:
    """Fit the head on the encoder as it is, and keep it with its logits of the validation rows.

    Before the first step: a training that is told to stop, or whose time is over, has none left for it. Torch's random state
    stays as it was.
    """
    if prepared.frozen or not distributed.is_rank_zero():
        return
    with torch.random.fork_rng():
        values = features(prepared)
    head = fit_head(prepared, values)
    logits = head.logits(values["validation"]) if prepared.rows["validation"] else values["validation"]
    prepared.frozen.append((head, logits))


def _save(prepared: PreparedLabels, trained: Any, folder: Path) -> None:
    """Tokenizer, labels, the frozen head of the same encoder, and both temperatures, fitted on the validation rows."""
    ((head, base_logits),) = prepared.frozen
    head.save(folder)
    logits = {}
    if validation := prepared.rows["validation"]:
        pad, ids = prepared.tokenizer.pad_token_id or 0, [row.ids for row in validation]
        logits = {"base": base_logits, "tuned": frozen_head.logits_of(trained, ids, pad)}
    save_facts(prepared, folder, logits)


def features(prepared: PreparedLabels) -> dict[str, Tensor]:
    """What the encoder, as it is, makes of what is labelled in each split: [windows or words, size]."""
    encoder = encoders.load(prepared.base)
    return {
        split: prepared.features(encoder, split) if rows else torch.zeros(0, 1) for split, rows in prepared.rows.items()
    }


def fit_head(prepared: PreparedLabels, values: Mapping[str, Tensor]) -> FrozenHead:
    """The logistic head on these features, tuned on the validation rows."""
    train, validation = prepared.targets("train"), prepared.targets("validation")
    count, several = len(prepared.labels), prepared.several
    return frozen_head.fit(train, values["train"], validation, values["validation"], count, several)


def save_facts(prepared: PreparedLabels, folder: Path, logits: Mapping[str, Tensor]) -> None:
    """Tokenizer, and what is known of the labels; temperatures are of the sides with `logits` of the validation rows."""
    prepared.tokenizer.save_pretrained(folder)
    validation = prepared.targets("validation")
    fitted = {side: _temperature(own, validation, prepared.several) for side, own in logits.items()}
    LabelFacts(
        prepared.labels,
        prepared.several,
        prepared.window,
        prepared.config.chunk_overlap,
        prepared.config.pooling,
        prepared.templates,
        {"base": 1.0, "tuned": 1.0, **fitted},
    ).save(folder)


def _temperature(logits: Tensor, rows: LabelRows, several: bool) -> float:
    first = [rows[rows.texts.index(text)] for text in dict.fromkeys(rows.texts)]
    labels = frozen_head.targets(first, logits.shape[1], several)
    return calibration.temperature(logits, rows.texts, labels, several)
