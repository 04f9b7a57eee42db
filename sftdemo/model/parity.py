"""Fast paths are accepted if they give what the plain path gives: apply, compare, and undo where they differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# How far a row's logits may be moved by rounding to 16 or 8 bits: up to 0.03 and 0.09 with 135M, by a look at its neighbour
# from 0.135.
ROUNDED = 0.12
# What a model whose layers aren't those a fast path was written for raises under it.
REFUSALS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
TRIED_WINDOW = 5  # tokens
# The spans that transformers' mask factories read from the config at every pass.
SPANS = ("sliding_window", "attention_chunk_size")
# Other words for a span that attention is kept to; what isn't a length of it is named here.
OTHER_SPANS = re.compile(r"(^|_)(window|local_attention|local_window|span)(_|$)")
NO_SPANS = {
    "max_window_layers",
    "sliding_window_pattern",
    "use_sliding_window",
    "local_files_only",
    "_sliding_window_pattern",
}


def accept(trial: Callable[[], Iterable[tuple[Tensor, Tensor]]], undo: Callable[[], object], tolerance: float) -> bool:
    """Whether a fast path is taken; if not, it is undone.

    `trial` computes the plain path, applies the fast one and gives pairs (fast, plain) of what they give; the difference's
    norm may be `tolerance` of the plain one's. Anything a model raises on the way is a no.
    """
    try:
        with torch.no_grad():
            same = all(
                fast.dtype == plain.dtype and bool((fast - plain).norm() <= tolerance * plain.norm())
                for fast, plain in list(trial())  # to its end: what it changed meanwhile is restored there
            )
    except REFUSALS:
        same = False
    if not same:
        undo()
    return same


def rounding(model: PreTrainedModel) -> float:
    """How far, relatively, rounding alone may move logits."""
    exact = model.dtype == torch.float32 and not getattr(model, "is_loaded_in_8bit", False)
    return 1e-3 if exact else ROUNDED


@contextmanager
def answering(model: PreTrainedModel) -> Iterator[None]:
    """The model without dropout; then as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def short_spans(config: PreTrainedConfig) -> Iterator[None]:
    """Windows and chunks of TRIED_WINDOW tokens meanwhile, so that a trial's short rows are longer than each."""
    text = config.get_text_config()
    declared = {name: value for name in SPANS if (value := getattr(text, name, None))}
    try:
        for name in declared:
            setattr(text, name, TRIED_WINDOW)
        yield
    finally:
        for name, value in declared.items():
            setattr(text, name, value)


def unknown_spans(config: PreTrainedConfig) -> list[str]:
    """Spans that the config declares under other names than transformers' mask factories read."""
    return [
        name
        for name, value in config.get_text_config().to_dict().items()
        if isinstance(value, int) and not isinstance(value, bool) and value > 0
        if OTHER_SPANS.search(name) and name not in {*SPANS, *NO_SPANS}
    ]
