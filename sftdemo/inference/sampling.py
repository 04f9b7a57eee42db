"""The next token: the likeliest, or one drawn from the nucleus."""

from __future__ import annotations

import torch
from torch import Tensor

from sftdemo.config import GenerateConfig
from sftdemo.inference.batch import Request


@torch.inference_mode()
def choose(logits: Tensor, rows: list[Request], config: GenerateConfig) -> list[int]:
    """The next token of each row: the likeliest, or one drawn from the nucleus (Holtzman et al. 2020) by the row's generator."""
    if not config.temperature:
        return logits.argmax(-1).tolist()  # type: ignore[no-any-return]
    probabilities = torch.softmax(logits.float().cpu() / config.temperature, -1)
    ordered, index = probabilities.sort(-1, descending=True)
    # A token stays while the likelier ones before it haven't reached top_p, so the first always does.
    ordered[ordered.cumsum(-1) - ordered >= config.top_p] = 0
    drawn = [torch.multinomial(weights, 1, generator=row.generator) for weights, row in zip(ordered, rows, strict=True)]
    return index.gather(1, torch.stack(drawn))[:, 0].tolist()  # type: ignore[no-any-return]
