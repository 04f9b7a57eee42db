"""The next token: the likeliest, or one drawn from the nucleus."""

from __future__ import annotations

import torch
from torch import Tensor

from sftdemo.inference.request import Request


@torch.inference_mode()
def choose(logits: Tensor, rows: list[Request]) -> list[int]:
    """The next token of each row: the likeliest, or one drawn by the row's own settings and generator."""
    tokens: list[int] = logits.argmax(-1).tolist()
    for place, row in enumerate(rows):
        if row.config.temperature:
            tokens[place] = _drawn(logits[place], row)
    return tokens


def _drawn(logits: Tensor, row: Request) -> int:
    """A token from the nucleus (Holtzman et al. 2020). Each row is drawn alone and in the vocabulary's order, so that who else
    is in the batch changes nothing: sorted, two tokens nearly alike would change places by rounding."""
    probabilities = torch.softmax(logits.float().cpu() / row.config.temperature, -1)
    if row.config.top_p < 1:
        ordered, index = probabilities.sort(descending=True)
        # A token stays while the likelier ones before it haven't reached top_p, so the first always does.
        probabilities[index[ordered.cumsum(-1) - ordered >= row.config.top_p]] = 0
    return int(torch.multinomial(probabilities, 1, generator=row.generator))
