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

    Trial = Callable[[Callable[[bool], None]], Iterator[tuple[Tensor, Tensor]]]


class CompiledStep:
    """`trial` gives a few steps' logits twice (compiled, torch); its argument is called with whether `ready` gives a step.

    While it is `deferred`, nothing is compiled for it or tried.
    """

    def __init__(self, model: PreTrainedModel, adapters: int, deferred: bool = False) -> None:
        self.model, self.adapters, self.deferred = model, adapters, deferred
        self.trial: Trial | None = None
        self._step: Any = None
        if not deferred:
            kernels.begin()

    def ready(self) -> Any:
        """The DecodeStep, once there is one; whoever asks holds the model's lock."""
        if self.trial and not self.deferred and (module := kernels.ready()):
            trial, self.trial = self.trial, None
            self._take(module, trial)
        return self._step

    def _take(self, module: Any, trial: Trial) -> None:
        if not _fits(self.model):
            LOG.info("Answers are decoded by torch: memory is short")
            return
        try:
            step = module.DecodeStep(self.model, self.adapters)
        except REFUSALS as error:
            LOG.info("Answers are decoded by torch: %s: %s", type(error).__name__, error)
            return

        def use(compiled: bool) -> None:
            self._step = step if compiled else None

        with answering(self.model), short_spans(self.model.config):
            if accept(lambda: trial(use), lambda: use(False), rounding(self.model)):
                use(True)
            else:
                LOG.info("Answers are decoded by torch: the compiled step gives other logits")


def _fits(model: PreTrainedModel) -> bool:
    """Whether there is memory to spare: twice what tiles of the weights can take."""
    most = 1.1 * sum(parameter.numel() * min(parameter.itemsize, 2) for parameter in model.parameters())
    return bool(resources.free() > 2 * most)
