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


def _pools(task: Task) -> dict[tuple[str, str], list[int]]:
    """The places of the training rows of each kind."""
    pools: dict[tuple[str, str], list[int]] = {}
    for place, example in enumerate(task.train):
        kind = _kind(example["messages"], example.get("meta", {}).get("source"))
        pools.setdefault(kind, []).append(place)
    return pools


def _with_examples(row: Row, shown: Sequence[Example]) -> list[Any]:
    """The row's conversation with the examples as turns before its own, behind its system message."""
    system = [message for message in row["messages"] if message["role"] == "system"]
    own = [message for message in row["messages"] if message["role"] != "system"]
    turns = [message for example in shown for message in example["messages"] if message["role"] != "system"]
    return [*system, *turns, *own]


def _spread(task: Task, count: int) -> list[list[Example]]:
    """For each row the first training rows of each label in turn, in an order by the seed; none asks what a test row asks."""
    shown = {}
    tested = {asked(row["messages"]) for row in task.rows}
    for kind, places in _pools(task).items():
        examples = [task.train[place] for place in places if asked(task.train[place]["messages"][:-1]) not in tested]
        by_label: dict[str, list[Example]] = {}
        for example in data.take(examples, None, task.seed):
            by_label.setdefault(example.get("label") or "", []).append(example)
        turns = itertools.zip_longest(*by_label.values())
        shown[kind] = [example for turn in turns for example in turn if example is not None][:count]
    return [shown.get(_kind(row["messages"], row.get("task")), []) for row in task.rows]


def _nearest(task: Task, count: int) -> list[list[Example]]:
    """The training rows most like each row, the most like it last; none asks the very same."""
    import numpy as np

    pools, questions = _pools(task), [asked(example["messages"][:-1]) for example in task.train]
    features, known = Features.fitted([prompt_text(example["messages"][:-1]) for example in task.train])
    shown: list[list[Example]] = []
    for row in task.rows:
        places, question = pools.get(_kind(row["messages"], row.get("task")), []), asked(row["messages"])
        likeness = (
            (known[np.array(places, np.int64)] @ features.values([prompt_text(row["messages"])]).T).toarray().ravel()
        )
        nearest = [places[place] for place in np.argsort(likeness, kind="stable")]
        shown.append([task.train[place] for place in nearest if questions[place] != question][-count:])
    return shown
