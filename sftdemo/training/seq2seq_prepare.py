"""What is checked of a sequence-to-sequence training before anything is written: the model's kind, its limits, its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftdemo.errors import Text, UserError
from sftdemo.log import Reporter
from sftdemo.training.prepare import Prepared

if TYPE_CHECKING:
    from sftdemo.model.memory_estimate import Estimate


class PreparedPairs(Prepared):
    """Sources and targets, checked and encoded."""

    def limits(self) -> Text:
        from sftdemo.encoding import encode

        return encode.limits_in_words(self.tokenizer, self.config.max_length)

    def check_parts(self) -> None:
        from sftdemo.model import seq2seq

        self.is_warm_start = seq2seq.is_warm_start(self.base)
        if self.is_warm_start and self.config.method == "lora":
            raise UserError(
                "{model} is an encoder alone; the decoder made of it has cross-attention that LoRA can't teach. Choose method "
                "full.",
                model=self.config.model,
            )
        super().check_parts()

    def estimate_memory(self, reporter: Reporter) -> Estimate:
        from sftdemo.model import memory_estimate

        model, sizes = memory_estimate.Model.read(self.base), memory_estimate.LengthStatistics.of(self.rows["train"])
        model = model.as_both_parts() if self.is_warm_start else model
        memory, note = memory_estimate.check_training(model, self.config, sizes, self.dtype.itemsize)
        reporter.info(note)
        return memory
