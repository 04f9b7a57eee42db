"""Which rows a run has learned from, whatever words it puts around them: those that one of two runs alone has favour it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, cast

from sftdemo.data import rehearsal
from sftdemo.data.cleaning.duplicates import leak_keys
from sftdemo.runs import Run, ancestry
from sftdemo.systems.system import Row, asked

if TYPE_CHECKING:
    from sftdemo.data import Example, Message

SPLITS = ("train", "validation", "rehearsal")


def learned_by(run: Run) -> set[str]:
    """What names the rows that a run, those that it came from and its teacher have learned from, as far as it keeps them."""
    before = ancestry.read(run)
    kept = [split for split in SPLITS if (run.path / "data" / f"{split}.jsonl").is_file()]
    rows = cast("list[Example]", [row for split in kept for row in run.examples(split)])
    return {*names_of(rows), *before["trained"], *before["validation"]}


def names_of(examples: Sequence[Example]) -> set[str]:
    """What names these rows: what each asks, with the words around it and without, and the whole of it."""
    questions = [example["messages"][:-1] for example in examples]
    return {*map(asked, questions), *filter(None, _questions(questions)), *rehearsal.hashes(examples)}


def seen(rows: Sequence[Row], *learned: AbstractSet[str]) -> list[list[bool]]:
    """Of each row of an evaluation, whether it is among those learned by one run, and by the next."""
    named = zip(rows, _questions([row["messages"] for row in rows]), strict=True)
    names = [{question, asked(row["messages"]), *_hashes(row)} for row, question in named]
    return [[not known.isdisjoint(own) for known in learned] for own in names]


def _hashes(row: Row) -> list[str]:
    """A row as data/ancestry.json names it, with each of its right answers."""
    answers: list[Message] = [{"role": "assistant", "content": reference} for reference in row["references"]]
    if "answer" in row:
        answers.append(row["answer"])
    return rehearsal.hashes([{"messages": [*row["messages"], answer]} for answer in answers])


def _questions(conversations: Iterable[Any]) -> list[str]:
    """What is asked, whatever instruction a run puts around it; "" where so little is left that it may coincide by chance."""
    answer: Message = {"role": "assistant", "content": ""}
    keys = leak_keys([{"messages": [*messages, answer], "label": ""} for messages in conversations])
    return [key if len(key) >= rehearsal.LEAST_KEY else "" for key in keys]
