"""Train, validation and test: seeded, stratified by label, grouped, never overlapping; and K rows by a seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sftdemo.data import checks
from sftdemo.data.types import Dataset, Example
from sftdemo.errors import DataError, Fault

HELD_OUT = 0.1
MOST_VALIDATION = 200


def take(examples: Sequence[Example], k: int | None, seed: int) -> list[Example]:
    """K of the examples (all, if there are fewer or `k` is None), in an order drawn by the seed.

    Which ones depends on the seed and each example's own text alone, not on the order of the file; and the first
    K of a larger draw are the smaller draw.
    """
    return sorted(examples, key=lambda example: _rank(example, seed))[:k]


def split(dataset: Dataset, seed: int) -> Dataset:
    """The data set with train, validation and test, and its duplicates and leaks counted anew.

    Only train: 80/10/10. Train and test: validation is a tenth of train, at most 200 rows, at least one; a missing
    test is drawn likewise. What is there already stays. Rows of one `group`, and rows that are the same but for case
    and punctuation, stay together; each label keeps a row in train. Raises DataError where that can't be.
    """
    parts = dict(dataset.splits)
    train = parts.get("train", [])
    missing = [name for name in ("test", "validation") if not parts.get(name)]
    if not train:
        raise DataError(dataset.faults or [_fault(dataset, "No row is in train.", "Give train rows.")])
    if missing:
        tenth = max(1, round(HELD_OUT * len(train)))
        wanted = dict.fromkeys(missing, tenth if len(missing) == 2 else min(MOST_VALIDATION, tenth))
        units = _units(train, seed)
        if len(units) <= len(missing):
            problem = f"The {len(train)} train rows make {len(units)} that are independent of each other"
            remedy = f"Give at least {len(missing) + 1}, of different groups and with different texts."
            raise DataError([_fault(dataset, f"{problem}; {' and '.join(missing)} can't be taken from them.", remedy)])
        placed = _place(train, units, wanted)
        _fill_empty(dataset, train, units, placed, missing)
        for name in ("train", *missing):
            chosen = sorted(index for unit, place in zip(units, placed, strict=True) if place == name for index in unit)
            parts[name] = [train[index] for index in chosen]
    ordered = {name: parts[name] for name in ("train", "validation", "test")}
    result = replace(dataset, splits=ordered, notes=[*dataset.notes, *_shared_groups(ordered)])
    checks.count(result)
    return result


def _fault(dataset: Dataset, problem: str, remedy: str) -> Fault:
    return Fault(0, "split", problem, remedy, dataset.source)


def _rank(example: Example, seed: int) -> bytes:
    text = "\0".join(f"{turn['role']}\0{turn['content']}" for turn in example["messages"])
    return hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=16).digest()


def _units(examples: Sequence[Example], seed: int) -> list[list[int]]:
    """The rows that must stay together, as lists of indices: label by label, and in the seed's order within one."""
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, (example, key) in enumerate(zip(examples, checks.leak_keys(examples), strict=True)):
        for same in (("text", key), ("group", example.get("meta", {}).get("group", ""))):
            if same != ("group", ""):
                parent[root(index)] = root(first.setdefault(same, index))
    together: dict[int, list[int]] = {}
    for index in range(len(examples)):
        together.setdefault(root(index), []).append(index)
    order = {unit[0]: min(_rank(examples[index], seed) for index in unit) for unit in together.values()}
    return sorted(together.values(), key=lambda unit: (_label(examples, unit), order[unit[0]]))


def _label(examples: Sequence[Example], unit: list[int]) -> str:
    """The label most of its rows have."""
    counts = Counter(examples[index].get("label", "") for index in unit)
    return min(counts, key=lambda label: (-counts[label], label))


def _place(examples: Sequence[Example], units: list[list[int]], wanted: dict[str, int]) -> list[str]:
    """A split for each unit. Going through the labels, each unit goes where most is lacking of what is due by then,
    so every label is shared out in the same proportion; a label's first unit always goes to train."""
    total = len(examples)
    shares = {**{name: rows / total for name, rows in wanted.items()}, "train": 1 - sum(wanted.values()) / total}
    given = dict.fromkeys(shares, 0)
    placed: list[str] = []
    trained: set[str] = set()
    done = 0
    for unit in units:
        done += len(unit)
        new = {examples[index].get("label", "") for index in unit} - trained
        name = "train" if new else max(shares, key=lambda name: shares[name] * done - given[name])
        if name == "train":
            trained |= new
        elif given[name] + len(unit) > wanted[name]:
            name = "train"  # a group larger than what is wanted
        given[name] += len(unit)
        placed.append(name)
    return placed


def _fill_empty(
    dataset: Dataset, examples: Sequence[Example], units: list[list[int]], placed: list[str], missing: list[str]
) -> None:
    """Give each split that got nothing the smallest unit that train can spare without losing a label."""
    labels = [Counter(examples[index].get("label", "") for index in unit) for unit in units]
    for name in missing:
        if name in placed:
            continue
        in_train = [position for position, place in enumerate(placed) if place == "train"]
        left = sum((labels[position] for position in in_train), Counter[str]())
        spare = [
            position
            for position in in_train
            if len(in_train) > 1 and all(left[label] > rows for label, rows in labels[position].items())
        ]
        if not spare:
            problem = f"No row can be taken from train for {name} without taking a label's last one."
            raise DataError([_fault(dataset, problem, "Give at least three rows of each label.")])
        placed[min(spare, key=lambda position: len(units[position]))] = name


def _shared_groups(splits: dict[str, list[Example]]) -> list[str]:
    """A note, if the splits that came with the data share groups."""
    groups = {
        name: {example["meta"]["group"] for example in part if "group" in example.get("meta", {})}
        for name, part in splits.items()
    }
    shared = groups["train"] & (groups["validation"] | groups["test"])
    return [f"{len(shared)} groups stand both in train and in held-out rows."] if shared else []
