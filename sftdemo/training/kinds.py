"""What `train` does for each kind of model: how its rows are prepared, and the model that learns from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftdemo.config import kinds
from sftdemo.config.train import TrainConfig
from sftdemo.data import Dataset
from sftdemo.log import Reporter
from sftdemo.training.continual import Predecessor
from sftdemo.training.label_prepare import PreparedLabels
from sftdemo.training.prepare import Prepared
from sftdemo.training.seq2seq_prepare import PreparedPairs
from sftdemo.training.token_prepare import PreparedTokens

if TYPE_CHECKING:
    import torch

    from sftdemo.training.learner import Learner

PREPARED: dict[str, type[Prepared]] = {
    kinds.CHAT: Prepared,
    "classification": PreparedLabels,
    "tokens": PreparedTokens,
    kinds.SEQ2SEQ: PreparedPairs,
}


def prepare(
    config: TrainConfig,
    reporter: Reporter,
    precision: tuple[torch.dtype, str] | None,
    dataset: Dataset | None,
    earlier: Predecessor | None = None,
) -> Prepared:
    """All that training needs, checked before anything is written."""
    return PREPARED[config.check().task](config, reporter, precision, dataset, earlier)


def learner(prepared: Prepared, reporter: Reporter) -> Learner:
    """The model in memory, ready to be trained."""
    from sftdemo.training import chat_learner, label_learner, seq2seq_learner, token_learner

    learners = {
        kinds.CHAT: chat_learner.learner,
        "classification": label_learner.learner,
        "tokens": token_learner.learner,
        kinds.SEQ2SEQ: seq2seq_learner.learner,
    }
    return learners[prepared.config.task](prepared, reporter)
