"""Rows that stand twice inside a split, and held-out rows that also stand in train, exactly or nearly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sftdemo.data.cleaning.minhash import near, near_earlier
from sftdemo.data.text.normalisation import normalise
from sftdemo.data.types import SPLITS, Dataset, Example, place_of, turn_text
from sftdemo.errors import Fault, Text


def _asked(example: Example) -> str:
    """All that is said before the last answer, the system prompt aside."""
    return "\n".join(turn_text(turn) for turn in example["messages"][:-1] if turn["role"] != "system")


def _shared(left: str, right: str) -> int:
    """How many characters two texts have in common from the start."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def leak_keys(examples: Sequence[Example]) -> list[str]:
    """What must not be seen before the test, normalised: the question's variable part and, unless it is a label, the
    answer. What all questions of a source begin or end with (the instruction) says nothing about a row, and is cut off."""
    keys = [""] * len(examples)
    for rows in _by(examples, lambda example: example.get("meta", {}).get("source")).values():
        questions = [_asked(examples[index]) for index in rows]
        if len(set(questions)) > 1:
            head = _shared(min(questions), max(questions))
            # One reversed text at a time: all of them would take the data's memory once more.
            tail = _shared(min(text[head:][::-1] for text in questions), max(text[head:][::-1] for text in questions))
            questions = [text[head : len(text) - tail] for text in questions]
        for index, text in zip(rows, questions, strict=True):
            answer = "" if "label" in examples[index] else " " + normalise(turn_text(examples[index]["messages"][-1]))
            keys[index] = normalise(text) + answer
    return keys


def row_keys(examples: Sequence[Example], keys: Sequence[str] | None = None) -> list[str]:
    """Question and answer, normalised: equal keys are the same row. `keys` are their leak_keys, if they are at hand."""
    return [
        f"{key}\n{_short(example['label'])}" if "label" in example else key
        for example, key in zip(examples, leak_keys(examples) if keys is None else keys, strict=True)
    ]


def whole_keys(examples: Sequence[Example]) -> list[str]:
    """Question and answer with all their words, normalised: these can be compared between sources."""
    return [f"{normalise(_asked(example))}\n{normalise(turn_text(example['messages'][-1]))}" for example in examples]


_short = lru_cache(4096)(normalise)  # for labels, of which there are few


def _by(examples: Sequence[Example], key: Callable[[Example], Any]) -> dict[Any, list[int]]:
    """Indices of the examples by what `key` says of each."""
    indices: dict[Any, list[int]] = {}
    for index, example in enumerate(examples):
        indices.setdefault(key(example), []).append(index)
    return indices


def duplicates(examples: Sequence[Example], keys: Sequence[str] | None = None) -> list[tuple[int, int]]:
    """(surplus row, the row it repeats) as indices."""
    first: dict[str, int] = {}
    rows = enumerate(row_keys(examples, keys))
    return [(index, first[key]) for index, key in rows if first.setdefault(key, index) != index]


def near_duplicates(examples: Sequence[Example], keys: Sequence[str] | None = None) -> list[tuple[int, int]]:
    """(surplus row, an earlier row it repeats exactly or nearly) as indices; near as in `leaks`."""
    keys = leak_keys(examples) if keys is None else keys
    # Rows with the same question and another label contradict each other; that is no repetition.
    labels = [example.get("label") for example in examples]
    first: dict[tuple[str | None, str], int] = {}
    exact = {
        index: earlier
        for index, row in enumerate(zip(labels, keys, strict=True))
        if (earlier := first.setdefault(row, index)) != index
    }
    distinct = [index for index in range(len(examples)) if index not in exact]
    pairs = near_earlier([keys[index] for index in distinct], [labels[index] for index in distinct])
    return sorted((exact | {distinct[later]: distinct[earlier] for later, earlier in pairs.items()}).items())


def leaks(
    train: Sequence[Example], held_out: Sequence[Example], keys: Sequence[str] | None = None
) -> list[tuple[int, int]]:
    """(held-out row, a train row it repeats) as indices, one pair for each held-out row that leaked.

    `keys` are the leak_keys of train and held-out rows together, if they are at hand.

    Near means: Jaccard similarity of the character shingles (5 letters, or 2 in Chinese) at least 0.8, and the same
    numbers and label: "Chapter 3" is not "Chapter 4", and "mute" is not "unmute" where the label tells them apart.
    Near pairs come from MinHash and are then verified exactly.
    """
    if not train or not held_out:
        return []
    keys = leak_keys([*train, *held_out]) if keys is None else keys
    train_keys, held_out_keys = keys[: len(train)], keys[len(train) :]
    exact: dict[str, int] = {}
    for index, key in enumerate(train_keys):
        exact.setdefault(key, index)
    train_row_of = {index: exact[key] for index, key in enumerate(held_out_keys) if key in exact}
    unmatched = [index for index in range(len(held_out)) if index not in train_row_of]
    labels = [held_out[index].get("label") for index in unmatched]
    pairs = near(
        [held_out_keys[index] for index in unmatched], train_keys, labels, [example.get("label") for example in train]
    )
    train_row_of |= {unmatched[query]: match for query, match in pairs.items()}
    return sorted(train_row_of.items())


def contradictions(examples: Sequence[Example], keys: Sequence[str]) -> list[tuple[int, int]]:
    """(row, an earlier row that asks the same and has another label) as indices; `keys` are their leak_keys."""
    first: dict[str, int] = {}
    return [
        (index, first[key])
        for index, key in enumerate(keys)
        if key and "label" in examples[index]
        if _short(examples[first.setdefault(key, index)].get("label", "")) != _short(examples[index]["label"])
    ]


def count(dataset: Dataset, first_time: bool = False, keys: Sequence[str] | None = None) -> None:
    """Set `duplicates` and `leaked` from the splits as they are.

    The first time also `near_duplicates`, which splitting doesn't change, and warnings of rows that contradict others.
    `keys` are the leak_keys of all rows, if they are at hand.
    """
    parts = [dataset.splits.get(split, []) for split in SPLITS]
    examples = [example for part in parts for example in part]
    keys = leak_keys(examples) if keys is None else keys
    dataset.duplicates, start = 0, 0
    for part in parts:
        part_keys = keys[start : start + len(part)]
        dataset.duplicates += len(duplicates(part, part_keys))
        dataset.near_duplicates += len(near_duplicates(part, part_keys)) if first_time else 0
        start += len(part)
    dataset.leaked = len(leaks(parts[0], examples[len(parts[0]) :], keys))
    for index, earlier in contradictions(examples, keys) if first_time and dataset.labels else ():
        (file, line, _), (_, other, _) = (place_of(examples[row], dataset.file) for row in (index, earlier))
        problem = Text(
            "Line {line} asks the same and has the label {label!r}.",
            line=other,
            label=examples[earlier]["label"],
        )
        column = dataset.mapping.get("label", "label")
        remedy = Text("Give both the right one, or remove one.")
        dataset.warnings.append(Fault(line, column, problem, remedy, file))
