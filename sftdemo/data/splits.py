"""Train, validation and test: seeded, stratified by label, grouped, never overlapping; and K rows by a seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sftdemo.data.cleaning import duplicates
from sftdemo.data.types import SPLIT_NAMES, SPLITS, Dataset, Example, place_of, turn_text
from sftdemo.errors import DataError, Fault, Text, sentences

HELD_OUT = 0.1
MOST_VALIDATION = 200


def take(examples: Sequence[Example], k: int | None, seed: int) -> list[Example]:
    """K of the examples (all, if there are fewer or `k` is None), in an order drawn by the seed.

    Which ones depends on the seed and each example's own text alone, not on the order of the file; and the first
    K of a larger draw are the smaller draw. A text's second copy is drawn apart from its first.
    """
    seen: Counter[bytes] = Counter()
    ranks = []
    for example in examples:
        rank = _rank(example, seed)
        copies, seen[rank] = seen[rank], seen[rank] + 1
        ranks.append(hashlib.blake2b(rank + copies.to_bytes(4, "big"), digest_size=16).digest() if copies else rank)
    return [examples[index] for index in sorted(range(len(ranks)), key=ranks.__getitem__)[:k]]


def split(dataset: Dataset, seed: int, validation_size: float | None = None, test_size: float | None = None) -> Dataset:
    """The data set with train, validation and test, and its duplicates and leaks counted anew.

    Only train: 80/10/10. Train and test: validation is a tenth of train, at most 200 rows, at least one; a missing
    test is drawn likewise. The sizes change that: a share (below 1) or a count of the rows in train. What is there
    already stays, and of edited data each row that wasn't edited stays where it is without the edits. Rows of one `group`, and rows that are the same but for case and punctuation, stay together; each
    label keeps a row in train. Of mixed data each source is split for itself. Raises DataError where that can't be.
    """
    sizes = {"test": test_size, "validation": validation_size}
    notes = [
        Text("{split}_size is left aside: the data brings its own {split} rows.", split=SPLIT_NAMES[name])
        for name, size in sizes.items()
        if size is not None and dataset.splits.get(name)
    ]
    keys: dict[int, str] | None = None
    before = _before(dataset, seed, validation_size, test_size)
    if len(dataset.sources) > 1:
        ordered = _each(dataset, seed, sizes, notes, before)
    else:
        examples = [example for part in dataset.splits.values() for example in part]
        keys = dict(zip(map(id, examples), duplicates.leak_keys(examples), strict=True))
        train_keys = [keys[id(example)] for example in dataset.splits.get("train", [])]
        ordered = _divided(dataset, dict(dataset.splits), seed, sizes, notes, before, train_keys)
    result = replace(dataset, splits=ordered, unedited=None, notes=[*dataset.notes, *notes, *_shared_groups(ordered)])
    in_order = None if keys is None else [keys[id(example)] for name in SPLITS for example in ordered[name]]
    duplicates.count(result, keys=in_order)
    return result


def _before(dataset: Dataset, seed: int, validation_size: float | None, test_size: float | None) -> dict[int, str]:
    """Where each row (by its id()) of edited data would be without the edits; rows that weren't there then are missing."""
    if dataset.unedited is None:
        return {}
    keys = dict(zip(map(id, _rows(dataset.unedited)), _row_keys(dataset.unedited), strict=True))
    try:
        divided = split(dataset.unedited, seed, validation_size, test_size)
    except DataError:  # as it was it couldn't be split
        return {}
    places = {keys[id(row)]: name for name, part in divided.splits.items() for row in part}
    now = zip(_rows(dataset), _row_keys(dataset), strict=True)
    return {id(row): places[key] for row, key in now if key in places}


def _rows(dataset: Dataset) -> list[Example]:
    return [row for part in dataset.splits.values() for row in part]


def _row_keys(dataset: Dataset) -> list[tuple[Any, ...]]:
    """For each row where it comes from, by which it is found again among the same rows edited."""
    seen: Counter[tuple[Any, ...]] = Counter()
    keys = []
    for row in _rows(dataset):
        place = (row.get("meta", {}).get("source"), *place_of(row, dataset.file))
        keys.append((*place, seen[place]))  # a row may hold several examples
        seen[place] += 1
    return keys


def _each(
    dataset: Dataset, seed: int, sizes: dict[str, float | None], notes: list[Text], before: dict[int, str]
) -> dict[str, list[Example]]:
    """Every source split for itself; a train row that another source holds out is taken out."""
    joined: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for part in dataset.sources:
        rows_of_split = {
            name: [example for example in rows if example["meta"]["source"] == part["name"]]
            for name, rows in dataset.splits.items()
        }
        divided = _divided(replace(dataset, source=part["source"]), rows_of_split, seed, sizes, notes, before)
        for name, rows in divided.items():
            joined[name] += rows
    holders: dict[str, set[str]] = {}
    for name in ("validation", "test"):
        for example, key in zip(joined[name], duplicates.whole_keys(joined[name]), strict=True):
            holders.setdefault(key, set()).add(example["meta"]["source"])
    crossing = [
        bool(holders.get(key, set()) - {example["meta"]["source"]})
        for example, key in zip(joined["train"], duplicates.whole_keys(joined["train"]), strict=True)
    ]
    if any(crossing):
        notes.append(Text("Train rows left out, since another of the sets holds them out: {n}.", n=sum(crossing)))
        joined["train"] = [row for row, out in zip(joined["train"], crossing, strict=True) if not out]
    return joined


def _divided(
    dataset: Dataset,
    parts: dict[str, list[Example]],
    seed: int,
    sizes: dict[str, float | None],
    notes: list[Text],
    before: dict[int, str],
    keys: Sequence[str] | None = None,
) -> dict[str, list[Example]]:
    train = parts.get("train", [])
    missing = [name for name in ("test", "validation") if not parts.get(name)]
    if not train:
        raise DataError(dataset.faults or [fault(dataset, Text("No row is in train."), Text("Give train rows."))])
    if missing:
        units = _units(train, seed, duplicates.leak_keys(train) if keys is None else keys)
        if len(units) <= len(missing):
            problem = Text(
                "The {n} train rows make {m} that are independent of each other; {splits} can't be taken from them.",
                n=len(train),
                m=len(units),
                splits=_and([SPLIT_NAMES[name] for name in missing]),
            )
            remedy = Text("Give at least {n}, of different groups and with different texts.", n=len(missing) + 1)
            raise DataError([fault(dataset, problem, remedy)])
        wanted = _wanted(dataset, len(train), missing, sizes)
        kept = any(id(row) in before for row in train)
        placed = _keep_places(train, units, wanted, seed, before) if kept else _place(train, units, wanted)
        _fill_empty(dataset, train, units, placed, missing)
        for name in ("train", *missing):
            chosen = sorted(index for unit, place in zip(units, placed, strict=True) if place == name for index in unit)
            parts[name] = [train[index] for index in chosen]
            if name != "train" and sizes[name] is not None and len(chosen) != wanted[name]:
                counts = {"split": SPLIT_NAMES[name], "n": len(chosen), "m": wanted[name]}
                together = Text("{split} has {n} rows, not {m}: what belongs together stays together.", **counts)
                unmoved = Text("{split} has {n} rows, not {m}: rows that weren't edited stay where they are.", **counts)
                notes.append(unmoved if kept else together)
    return {name: parts[name] for name in SPLITS}


def _wanted(dataset: Dataset, rows: int, missing: list[str], sizes: dict[str, float | None]) -> dict[str, int]:
    """How many rows each missing split gets."""
    tenth = max(1, round(HELD_OUT * rows))
    usual = tenth if len(missing) == 2 else min(MOST_VALIDATION, tenth)
    wanted = {}
    for name in missing:
        size = sizes[name]
        wanted[name] = usual if size is None else int(size) if size >= 1 else max(1, round(size * rows))
    if sum(wanted.values()) >= rows:
        request = _and([Text("{n} for {split}", n=count, split=SPLIT_NAMES[name]) for name, count in wanted.items()])
        problem = Text("Of {n} rows, {request} leave none for train.", n=rows, request=request)
        raise DataError([fault(dataset, problem, Text("Ask for fewer, or give more rows."))])
    return wanted


def _and(texts: list[Text]) -> Text:
    return sentences(texts, "{first} and {rest}")


def fault(dataset: Dataset, problem: Text, remedy: Text) -> Fault:
    return Fault(0, "split", problem, remedy, dataset.source)


def _rank(example: Example, seed: int) -> bytes:
    text = "\0".join(f"{turn['role']}\0{turn_text(turn)}" for turn in example["messages"])
    return hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=16).digest()


def _units(examples: Sequence[Example], seed: int, keys: Sequence[str]) -> list[list[int]]:
    """The rows that must stay together, as lists of indices: label by label, and in the seed's order within one.

    `keys` are their leak_keys."""
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, (example, key) in enumerate(zip(examples, keys, strict=True)):
        for identity in (("text", key), ("group", example.get("meta", {}).get("group", ""))):
            if identity != ("group", ""):
                parent[root(index)] = root(first.setdefault(identity, index))
    together: dict[int, list[int]] = {}
    for index in range(len(examples)):
        together.setdefault(root(index), []).append(index)
    order = {unit[0]: min(_rank(examples[index], seed) for index in unit) for unit in together.values()}
    return sorted(together.values(), key=lambda unit: (_label(examples, unit), order[unit[0]]))


def _label(examples: Sequence[Example], unit: list[int]) -> str:
    """The label most of its rows have."""
    if len(unit) == 1:
        return examples[unit[0]].get("label", "")
    counts = Counter(examples[index].get("label", "") for index in unit)
    return min(counts, key=lambda label: (-counts[label], label))


def _place(examples: Sequence[Example], units: list[list[int]], wanted: dict[str, int]) -> list[str]:
    """A split for each unit. Going through the labels, each unit goes where most is lacking of what is due by then,
    so every label is shared out in the same proportion; a label's first unit always goes to train."""
    total = len(examples)
    shares = {**{name: rows / total for name, rows in wanted.items()}, "train": 1 - sum(wanted.values()) / total}
    placed_rows = dict.fromkeys(shares, 0)
    placed: list[str] = []
    trained: set[str] = set()
    rows_seen = 0
    for unit in units:
        rows_seen += len(unit)
        new = {examples[index].get("label", "") for index in unit} - trained
        name = "train" if new else max(shares, key=lambda name: shares[name] * rows_seen - placed_rows[name])
        if name == "train":
            trained |= new
        elif placed_rows[name] + len(unit) > wanted[name]:
            name = "train"  # a group larger than what is wanted
        placed_rows[name] += len(unit)
        placed.append(name)
    return placed


def _keep_places(
    examples: Sequence[Example], units: list[list[int]], wanted: dict[str, int], seed: int, before: dict[int, str]
) -> list[str]:
    """A split for each unit of edited data: where its rows were before, those that weren't edited first.

    An added row goes to train, a row that only an edit made readable where chance puts it; and a row moves to train where
    the edits took the last of its label from there.
    """
    placed = [_kept_place([examples[index] for index in unit], wanted, len(examples), seed, before) for unit in units]
    trained = {
        examples[index].get("label", "")
        for unit, name in zip(units, placed, strict=True)
        if name == "train"
        for index in unit
    }
    edited_first = sorted(range(len(units)), key=lambda place: not any(map(_edited, _of(examples, units[place]))))
    for place in edited_first:
        labels = {example.get("label", "") for example in _of(examples, units[place])}
        if labels - trained:
            placed[place] = "train"
            trained |= labels
    return placed


def _kept_place(unit: list[Example], wanted: dict[str, int], rows: int, seed: int, before: dict[int, str]) -> str:
    for group in ([row for row in unit if not _edited(row)], unit):
        names = Counter(name for row in group if (name := before.get(id(row), "")) in ("train", *wanted))
        if names:
            return max(SPLITS, key=lambda name: names[name])
        if any(id(row) in before for row in group):
            return "train"  # it was held out by its split column, which was edited
    if all(_edited(row) == "add" for row in unit):
        return "train"
    share = int.from_bytes(min(_rank(row, seed) for row in unit)) / 2 ** (8 * 16)
    for name, count in wanted.items():
        if share < count / rows:
            return name
        share -= count / rows
    return "train"


def _of(examples: Sequence[Example], unit: list[int]) -> list[Example]:
    return [examples[index] for index in unit]


def _edited(example: Example) -> str:
    """What an edit made of the row, or ""."""
    return str(example.get("meta", {}).get("edited", ""))


def _fill_empty(
    dataset: Dataset, examples: Sequence[Example], units: list[list[int]], placed: list[str], missing: list[str]
) -> None:
    """Give each split that got nothing the smallest unit that train can spare without losing a label."""
    for name in missing:
        if name in placed:
            continue
        labels = [Counter(examples[index].get("label", "") for index in unit) for unit in units]
        in_train = [position for position, place in enumerate(placed) if place == "train"]
        rows_left: Counter[str] = Counter()
        for position in in_train:
            rows_left.update(labels[position])
        spare = [
            position
            for position in in_train
            if len(in_train) > 1 and all(rows_left[label] > rows for label, rows in labels[position].items())
        ]
        if not spare:
            problem = Text(
                "No row can be taken from train for {split} without taking a label's last one.", split=SPLIT_NAMES[name]
            )
            raise DataError([fault(dataset, problem, Text("Give at least three rows of each label."))])
        placed[min(spare, key=lambda position: len(units[position]))] = name


def _shared_groups(splits: dict[str, list[Example]]) -> list[Text]:
    """A note, if the splits that came with the data share groups."""
    groups = {
        name: {example["meta"]["group"] for example in part if "group" in example.get("meta", {})}
        for name, part in splits.items()
    }
    shared = groups["train"] & (groups["validation"] | groups["test"])
    return [Text("{n} groups stand both in train and in held-out rows.", n=len(shared))] if shared else []
