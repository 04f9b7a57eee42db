"""The base with examples: training rows as earlier turns of the conversation, and no training at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo import data
from sftdemo.encoding.encode import encode_prompt
from sftdemo.errors import UserError
from sftdemo.systems.linear import Features
from sftdemo.systems.one_side import answer_alone
from sftdemo.systems.system import Answers, Row, Task, prompt_text

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

    def check(self, labels: Sequence[str], train: Sequence[Example]) -> None:
        if len(train) < self.count:
            raise UserError(
                "{name} needs {count} training rows, and the run has {n}.",
                name=self.name,
                count=self.count,
                n=len(train),
            )

    def identity(self) -> Any:
        return None

    def answer(self, task: Task) -> Answers:
        began = time.perf_counter()
        conversations = [_with_examples(row, shown) for row, shown in zip(task.rows, self._shown(task), strict=True)]
        self._check_context(task, conversations)
        texts = answer_alone(task.pair, "base", conversations, task, self.name)
        return Answers(texts, time.perf_counter() - began, 0.0)

    def _shown(self, task: Task) -> Sequence[Sequence[Example]]:
        """The examples for each row."""
        if self.nearest:
            return _nearest(task, self.count)
        return [_spread(data.take(task.train, None, task.seed), self.count)] * len(task.rows)

    def _check_context(self, task: Task, conversations: Sequence[Sequence[Any]]) -> None:
        base = task.pair
        longest = max(conversations, key=lambda messages: len(prompt_text(messages)))
        tokens = len(encode_prompt(base.tokenizer, longest, None))
        if tokens + task.longest > base.context:
            raise UserError(
                "{name} makes prompts of up to {tokens} tokens, and the model takes {context} with the answer; show it fewer "
                "examples.",
                name=self.name,
                tokens=tokens,
                context=base.context,
            )


def _with_examples(row: Row, shown: Sequence[Example]) -> list[Any]:
    """The row's conversation with the examples as turns before its own, behind its system message."""
    system = [message for message in row["messages"] if message["role"] == "system"]
    asked = [message for message in row["messages"] if message["role"] != "system"]
    turns = [message for example in shown for message in example["messages"] if message["role"] != "system"]
    return [*system, *turns, *asked]


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """The first of each label in turn, so that each label is shown as often as the others."""
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.get("label") or "", []).append(example)
    turn = [
        examples_of[place] for place in range(count) for examples_of in by_label.values() if place < len(examples_of)
    ]
    return turn[:count]


def _nearest(task: Task, count: int) -> list[list[Example]]:
    """The training rows most like each row, the most like it last."""
    import numpy as np

    prompts = [prompt_text(example["messages"][:-1]) for example in task.train]
    features = Features.of(prompts)
    known = features.values(prompts)
    shown = []
    for row in task.rows:
        likeness = (known @ features.values([prompt_text(row["messages"])]).T).toarray().ravel()
        order = np.argsort(likeness, kind="stable")[-count:]
        shown.append([task.train[int(place)] for place in order])
    return shown
