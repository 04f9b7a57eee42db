"""A model's compiled step: compiled behind the page, tried on the model, then taken or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sftdemo.decode import kernels
from sftdemo.log import LOG
from sftdemo.model.parity import REFUSALS, accept, answering, rounding, short_spans
from sftdemo.system import resources

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CompiledStep:
    """`trial` gives a few logits of the model, decoded step by step: by torch where `ready` gives None."""

    def __init__(self, model: PreTrainedModel, adapters: int) -> None:
        self.model, self.adapters = model, adapters
        self.trial: Callable[[], Iterator[Tensor]] | None = None
        self._step: Any = None
        kernels.begin()

    def ready(self) -> Any:
        """The DecodeStep, once there is one; whoever asks holds the model's lock."""
        if self.trial and (module := kernels.ready()):
            trial, self.trial = self.trial, None
            self._take(module, trial)
        return self._step

    def _take(self, module: Any, trial: Callable[[], Iterator[Tensor]]) -> None:
        if not _fits(self.model):
            LOG.info("Answers are decoded by torch: memory is short")
            return
        try:
            step = module.DecodeStep(self.model, self.adapters)
        except REFUSALS as error:
            LOG.info("Answers are decoded by torch: %s: %s", type(error).__name__, error)
            return

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            plain = [logits.float() for logits in trial()]
            self._step = step
            yield from zip((logits.float() for logits in trial()), plain, strict=True)

        with answering(self.model), short_spans(self.model.config):
            if not accept(pairs, self._refuse, rounding(self.model)):
                LOG.info("Answers are decoded by torch: the compiled step gives other logits")

    def _refuse(self) -> None:
        self._step = None


def _fits(model: PreTrainedModel) -> bool:
    """Whether there is memory to spare: twice what tiles of the weights can take."""
    most = 1.1 * sum(parameter.numel() * min(parameter.itemsize, 2) for parameter in model.parameters())
    return bool(resources.free() > 2 * most)
