"""The last layer's feed-forward for those tokens alone whose next one is asked for; nobody looks at the others' output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sftdemo.model.parity import accept, answering, rounding

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftdemo.model.adapter_routing import AdapterRouting


class LastLayer:
    """Cuts what a model's last feed-forward is given down to the tokens asked for, and fills its output up with zeros."""

    def __init__(self, feed_forward: nn.Module, rows: AdapterRouting | None = None) -> None:
        self.rows = rows
        self.chosen: list[slice | Tensor | None] = []
        self.tokens: int | None = None
        self.indices: Tensor | None = None
        self._shape = torch.Size()
        self._hooks = [
            feed_forward.register_forward_pre_hook(self._cut),
            feed_forward.register_forward_hook(self._fill),
        ]

    def ask(self, indices: Tensor | None, chosen: Sequence[slice | Tensor | None] = ()) -> None:
        """Of the passes from now on, only these tokens: [K] places among [B * T], or None for all. `chosen` says which of
        the K tokens each adapter answers, where adapters work by row."""
        self.indices, self.chosen = indices, list(chosen)
        self.tokens = None if indices is None else len(indices)

    def leave(self) -> None:
        """Compute all tokens, for good."""
        for hook in self._hooks:
            hook.remove()

    def _cut(self, feed_forward: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        if self.indices is None:
            return None
        (x,) = arguments
        self._shape = x.shape
        self._swap()
        return (x.flatten(0, 1)[self.indices][None],)

    def _fill(self, feed_forward: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        if self.indices is None:
            return None
        self._swap()
        whole = output.new_zeros(self._shape[0] * self._shape[1], output.shape[-1])
        return whole.index_copy(0, self.indices, output[0]).view(*self._shape[:2], -1)

    def _swap(self) -> None:
        if self.rows:
            self.rows.chosen, self.chosen = self.chosen, self.rows.chosen
            self.rows.tokens, self.tokens = self.tokens, self.rows.tokens


def enable(model: PreTrainedModel, rows: AdapterRouting | None = None) -> LastLayer | None:
    """Let the model's last feed-forward be asked for some tokens only, if they then get the logits that they had before."""
    ids = torch.tensor([[5, 6, 7, 8, 9], [7, 5, 6, 9, 8]], device=model.device)
    indices = torch.tensor([1, 4, 7, 8], device=model.device)
    try:
        last = LastLayer(model.get_decoder().layers[-1].mlp, rows)
    except (AttributeError, TypeError, IndexError):
        return None

    def trial() -> Iterator[tuple[Tensor, Tensor]]:
        with answering(model):
            wanted = model(ids).logits.flatten(0, 1)[indices]
            last.ask(indices, rows.chosen if rows else ())
            yield model(ids).logits.flatten(0, 1)[indices], wanted

    same = accept(trial, last.leave, rounding(model))
    last.ask(None)
    return last if same else None
