"""The base with examples: training rows as earlier turns of the conversation, and no training at all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo import data
from sftdemo.errors import UserError
from sftdemo.systems.linear import Features
from sftdemo.systems.one_side import answer_alone
from sftdemo.systems.system import Answers, Row, Task, asked, prompt_text

if TYPE_CHECKING:
    from sftdemo.data import Example


@dataclass(frozen=True)
class FewShot:
    """The base model, shown `count` training rows before each question: the same ones for all, drawn by the seed and spread
    over the labels, or those `nearest` to the question by tf-idf, the nearest last."""

    count: int
    nearest: bool = False

    @property
    def name(self) -> str:
        return f"base+{self.count}" + (":nearest" if self.nearest else "")

    def check(self, task: Task) -> None:
        if len(task.train) < self.count:
            raise UserError(
                "{name} needs {count} training rows, and the run has {n}.",
                name=self.name,
                count=self.count,
                n=len(task.train),
            )

    def identity(self) -> Any:
        return None

    def answer(self, task: Task) -> Answers:
        began = time.perf_counter()
        shown = _nearest(task, self.count) if self.nearest else _spread(task, self.count)
        conversations = [_with_examples(row, examples) for row, examples in zip(task.rows, shown, strict=True)]
        texts = answer_alone(task.pair, "base", conversations, task, self.name)
        return Answers(texts, time.perf_counter() - began, 0.0)


def _kind(messages: Sequence[Row], source: str | None) -> tuple[str, str]:
    """What rows have in common that can be examples for each other: system message and part of a mixture."""
    return prompt_text([message for message in messages if message["role"] == "system"]), source or ""


def _pools(task: Task, forbidden: set[str]) -> dict[tuple[str, str], list[Example]]:
    """The training rows of each kind, but for those that ask what is `forbidden`."""
    pools: dict[tuple[str, str], list[Example]] = {}
    for example in task.train:
        if asked(example["messages"][:-1]) not in forbidden:
            kind = _kind(example["messages"], example.get("meta", {}).get("source"))
            pools.setdefault(kind, []).append(example)
    return pools


def _with_examples(row: Row, shown: Sequence[Example]) -> list[Any]:
    """The row's conversation with the examples as turns before its own, behind its system message."""
    system = [message for message in row["messages"] if message["role"] == "system"]
    asked = [message for message in row["messages"] if message["role"] != "system"]
    turns = [message for example in shown for message in example["messages"] if message["role"] != "system"]
    return [*system, *turns, *asked]


def _spread(task: Task, count: int) -> list[list[Example]]:
    """For each row the first training rows of each label in turn, in an order by the seed; none asks what a test row asks."""
    shown = {}
    for kind, examples in _pools(task, {asked(row["messages"]) for row in task.rows}).items():
        by_label: dict[str, list[Example]] = {}
        for example in data.take(examples, None, task.seed):
            by_label.setdefault(example.get("label") or "", []).append(example)
        turns = itertools.zip_longest(*by_label.values())
        shown[kind] = [example for turn in turns for example in turn if example is not None][:count]
    return [shown.get(_kind(row["messages"], row.get("task")), []) for row in task.rows]


def _nearest(task: Task, count: int) -> list[list[Example]]:
    """The training rows most like each row, the most like it last; none asks the very same."""
    import numpy as np

    pools = _pools(task, set())
    features = Features.of([prompt_text(example["messages"][:-1]) for example in task.train])
    known = {
        kind: features.values([prompt_text(example["messages"][:-1]) for example in pool])
        for kind, pool in pools.items()
    }
    shown: list[list[Example]] = []
    for row in task.rows:
        kind, question = _kind(row["messages"], row.get("task")), asked(row["messages"])
        pool = pools.get(kind, [])
        if not pool:
            shown.append([])
            continue
        likeness = (known[kind] @ features.values([prompt_text(row["messages"])]).T).toarray().ravel()
        order = [pool[int(place)] for place in np.argsort(likeness, kind="stable")]
        shown.append([example for example in order if asked(example["messages"][:-1]) != question][-count:])
    return shown
