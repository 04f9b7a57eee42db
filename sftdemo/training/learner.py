"""What the Trainer trains: a model of any kind, the batches it reads, and what is saved beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftdemo.data import Example


@dataclass(frozen=True)
class Learner:
    """`model(**batch)` is the sum of its learned labels' losses, each times its weight.

    `collator` makes a batch of rows: what the model takes, `labels` (as many as there are losses) with `weights` where these
    differ from 1, and `row_tokens`, the tokens of its rows. `save` adds to a folder with the trained weights all else that is
    needed to load and to answer. `answer` gives what the model, as it is by then, answers to examples.
    """

    model: Any
    collator: Callable[[list[Any]], dict[str, Any]]
    save: Callable[[Path], None]
    answer: Callable[[Sequence[Example]], list[str]] | None = None
