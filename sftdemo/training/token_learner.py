"""An encoder as it is trained to tag the words of a text, and the frozen head that it is compared with."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor
from torch.nn.functional import cross_entropy

from sftdemo.encoding.token_rows import IGNORED, TokenCollator
from sftdemo.log import Reporter
from sftdemo.model import encoders
from sftdemo.training import label_learner
from sftdemo.training.learner import Learner

if TYPE_CHECKING:
    from sftdemo.training.prepare import Prepared
    from sftdemo.training.token_prepare import PreparedTokens


def learner(prepared: Prepared, reporter: Reporter) -> Learner:
    """The model in memory, ready to be trained."""
    prepared = cast("PreparedTokens", prepared)
    config = prepared.config
    model, heads = encoders.load_with_head(prepared.base, prepared.labels, task=config.task)
    enable_loss(model)
    trained = model if config.method == "full" else encoders.add_lora(model, heads, config)
    label_learner.fit_frozen(prepared)
    return Learner(trained, TokenCollator(prepared.tokenizer.pad_token_id or 0), partial(_save, prepared))


def enable_loss(model: Any) -> None:
    """Let the model, given `labels` and `targets`, return the summed loss of a TokenCollator's batch; without labels it stays
    as it was."""
    plain = model.forward

    def forward(
        *inputs: Tensor,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        **options: Any,
    ) -> Any:
        output = plain(*inputs, **options)
        if labels is None or targets is None:
            return output
        losses = cross_entropy(output.logits[targets != IGNORED].float(), labels, reduction="none")
        return (losses if weights is None else losses * weights).sum()

    model.forward = forward


def _save(prepared: PreparedTokens, folder: Path) -> None:
    """Tokenizer, tags, and the frozen head of the same encoder."""
    ((head, _),) = prepared.frozen
    head.save(folder)
    label_learner.save_facts(prepared, folder, {})
