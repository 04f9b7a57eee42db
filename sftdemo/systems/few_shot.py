"""The base with examples: training rows as earlier turns of the conversation, and no training at all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo import data
from sftdemo.encoding import source_target
from sftdemo.errors import UserError
from sftdemo.systems.linear import Features
from sftdemo.systems.one_side import answer_alone, check_room
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
        if task.pair is None:
            raise UserError("{name} needs a base that chats, and this run has none; leave it out.", name=self.name)
        if source_target.of(task.pair.tokenizer):
            raise UserError(
                "{name} shows examples as earlier turns, and a sequence-to-sequence model reads one text alone; leave it out.",
                name=self.name,
            )
        check_room(task.pair, self.conversations(task), task, self.name, 1)

    def identity(self) -> Any:
        return None

    def answer(self, task: Task) -> Answers:
        began = time.perf_counter()
        assert task.pair
        texts = answer_alone(task.pair, "base", self.conversations(task), task, self.name)
        return Answers(texts, time.perf_counter() - began, 0.0)

    def conversations(self, task: Task) -> list[list[Any]]:
        """Each row's conversation with its examples before it. Raises UserError where a row has fewer than asked for."""
        shown = _nearest(task, self.count) if self.nearest else _spread(task, self.count)
        if (n := min(map(len, shown), default=0)) < self.count:
            raise UserError(
                "{name} needs {count} training rows of the same system message and data set that don't repeat a test row, and "
                "there are {n}; show fewer examples, or leave it out.",
                name=self.name,
                count=self.count,
                n=n,
            )
        return [_with_examples(row, examples) for row, examples in zip(task.rows, shown, strict=True)]


def _system(messages: Sequence[Row]) -> str:
    return prompt_text([message for message in messages if message["role"] == "system"])


def _pool(task: Task, row: Row) -> list[int]:
    """The places of the training rows that can be examples for a row: of its system message and, where that is known, its
    part of a mixture."""
    system, part = _system(row["messages"]), row.get("task")
    return [
        place
        for place, example in enumerate(task.train)
        if _system(example["messages"]) == system and part in (None, example.get("meta", {}).get("source"))
    ]


def _with_examples(row: Row, shown: Sequence[Example]) -> list[Any]:
    """The row's conversation with the examples as turns before its own, behind its system message."""
    system = [message for message in row["messages"] if message["role"] == "system"]
    own = [message for message in row["messages"] if message["role"] != "system"]
    turns = [message for example in shown for message in example["messages"] if message["role"] != "system"]
    return [*system, *turns, *own]


def _spread(task: Task, count: int) -> list[list[Example]]:
    """For each row the first training rows of each label in turn, in an order by the seed; none asks what a test row asks."""
    tested = {asked(row["messages"]) for row in task.rows}
    questions = [asked(example["messages"][:-1]) for example in task.train]
    shown: dict[tuple[str, str | None], list[Example]] = {}
    for row in task.rows:
        kind = _system(row["messages"]), row.get("task")
        if kind not in shown:
            examples = [task.train[place] for place in _pool(task, row) if questions[place] not in tested]
            by_label: dict[str, list[Example]] = {}
            for example in data.take(examples, None, task.seed):
                by_label.setdefault(example.get("label") or "", []).append(example)
            turns = itertools.zip_longest(*by_label.values())
            shown[kind] = [example for turn in turns for example in turn if example is not None][:count]
    return [shown[_system(row["messages"]), row.get("task")] for row in task.rows]


def _nearest(task: Task, count: int) -> list[list[Example]]:
    """The training rows most like each row, the most like it last; none asks the very same."""
    import numpy as np

    questions = [asked(example["messages"][:-1]) for example in task.train]
    texts = [prompt_text(example["messages"][:-1]) for example in task.train]
    features, known = Features.fitted(texts, f"base+{count}:nearest")
    likenesses = (known @ features.values([prompt_text(row["messages"]) for row in task.rows]).T).tocsc()
    pools: dict[tuple[str, str | None], list[int]] = {}
    shown: list[list[Example]] = []
    for number, row in enumerate(task.rows):
        kind = _system(row["messages"]), row.get("task")
        pools[kind] = places = pools[kind] if kind in pools else _pool(task, row)
        likeness = likenesses[:, [number]].toarray().ravel()[np.array(places, np.int64)]
        nearest = [places[place] for place in np.argsort(likeness, kind="stable")]
        shown.append([task.train[place] for place in nearest if questions[place] != asked(row["messages"])][-count:])
    return shown
