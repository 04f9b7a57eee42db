"""Trials of a fast path: the model as it answers, how near its logits must stay, and windows short enough to be tried."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# How far a row's logits may be moved by rounding to 16 or 8 bits: up to 0.03 and 0.09 with 135M, by a look at its neighbour
# from 0.135.
ROUNDED = 0.12
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


def tolerance(model: PreTrainedModel) -> float:
    """How far, relatively, rounding alone may move logits."""
    exact = model.dtype == torch.float32 and not getattr(model, "is_loaded_in_8bit", False)
    return 1e-3 if exact else ROUNDED


@contextmanager
def trial(model: PreTrainedModel) -> Iterator[None]:
    """The model as it answers, without gradients; then as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
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
