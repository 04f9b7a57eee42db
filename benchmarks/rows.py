"""The rows everyone trains on and the prompts everyone answers."""

from __future__ import annotations

import random
from typing import Any

from sftdemo import data
from sftdemo.errors import DataError

WORDS = """
the quick brown fox jumps over lazy dog market price product service customer today tomorrow never always great
poor quality delivery shipping phone screen battery camera movie plot actor scene music food restaurant waiter
table chair hotel room bed clean dirty loud quiet
""".split()  # noqa: SIM905 (fewer lines)
QUESTION_WORDS = (10, 15, 20, 30, 40, 60, 90)
ANSWER_WORDS = (1, 5, 10, 20, 40)
VALIDATION_SHARE = 8  # one validation row for so many: sftdemo then validates before and after training, not on the way

Row = dict[str, Any]


def mixed(count: int, seed: int = 0) -> list[Row]:
    """Chats of mixed length: 10 to 90 words asked, 1 to 40 answered, drawn by the seed; a larger draw begins like a smaller."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        asked, answered = draw.choice(QUESTION_WORDS), draw.choice(ANSWER_WORDS)
        question, answer = (" ".join(draw.choices(WORDS, k=words)) for words in (asked, answered))
        messages = [
            {"role": "user", "content": f"Classify or answer: {question}"},
            {"role": "assistant", "content": answer},
        ]
        rows.append({"messages": messages})
    return rows


def training_rows(source: str, count: int, seed: int = 0) -> list[Row]:
    """`count` rows to train on, then as many more to hold out as keep sftdemo from validating while the clock runs.

    `source` is "mixed" or anything sftdemo reads. Each row says its `split`; fewer rows come if the source has fewer.
    """
    held_out = max(1, count // VALIDATION_SHARE)
    wanted = count + 2 * held_out
    rows = mixed(wanted, seed) if source == "mixed" else data.take(_examples(source), wanted, seed)
    train = len(rows) - 2 * max(1, len(rows) * held_out // wanted)
    validation = (len(rows) - train) // 2
    splits = ["train"] * train + ["validation"] * validation + ["test"] * (len(rows) - train - validation)
    return [{"messages": row["messages"], "split": split} for row, split in zip(rows, splits, strict=True)]


def prompts(source: str, count: int, seed: int = 0) -> list[list[Any]]:
    """The conversations of `count` rows up to their last answer."""
    rows = mixed(count, seed) if source == "mixed" else data.take(_examples(source), count, seed)
    return [row["messages"][:-1] for row in rows]


def _examples(source: str) -> list[Any]:
    """All rows of a data set, whatever split they are in."""
    dataset = data.read(source)
    if dataset.faults:
        raise DataError(dataset.faults)
    return [example for examples in dataset.splits.values() for example in examples]
