"""Data for a run that goes on from an earlier one: test rows of neither are trained on, and old rows are rehearsed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from sftdemo.data import splits
from sftdemo.data.cleaning.duplicates import leak_keys, leaks, whole_keys
from sftdemo.data.types import Dataset, Example
from sftdemo.errors import DataError, Text, UserError

LEAST_KEY = 20  # characters of a question's variable part that don't coincide by chance


def hashes(examples: Sequence[Example]) -> list[str]:
    """Of question and answer, normalised: equal ones are the same row, and the text can't be read from them."""
    return [hashlib.sha256(key.encode()).hexdigest()[:20] for key in whole_keys(examples)]


@dataclass(frozen=True)
class EarlierRows:
    """The rows of an earlier run by what was done with them; of the runs before that one there are only hashes."""

    name: str
    trained: list[Example]
    validation: list[Example]
    test: list[Example]
    trained_hashes: frozenset[str] = field(default_factory=frozenset)
    validation_hashes: frozenset[str] = field(default_factory=frozenset)
    test_hashes: frozenset[str] = field(default_factory=frozenset)


def repeated(rows: Sequence[Example], others: Sequence[Example], hashed: Collection[str] = ()) -> set[int]:
    """Which rows stand among others, exactly or nearly, as indices; or exactly among hashed ones.

    Both are compared as one set of questions, and each without what all of its own begin or end with.
    """
    if not rows:
        return set()
    whole = {index for index, each in enumerate(hashes(rows)) if each in hashed}
    plain_others, plain_rows = _without_source(others), _without_source(rows)
    own, known = leak_keys(plain_rows), set(leak_keys(plain_others))
    whole |= {index for index, key in enumerate(own) if len(key) >= LEAST_KEY and key in known}
    return whole | {index for index, _ in leaks(plain_others, plain_rows)}


def _without_source(examples: Sequence[Example]) -> list[Example]:
    return [{**example, "meta": {}} for example in examples]


def keep_apart(dataset: Dataset, earlier: EarlierRows, seed: int) -> list[Text]:
    """Leave out training rows that the earlier run is tested on, and held-out rows that it has learned; says how many.

    Raises DataError where no training row is left, UserError where no test row is.
    """
    seen = [*earlier.trained, *earlier.validation]
    left_out = {
        "train": repeated(dataset.splits["train"], earlier.test, earlier.test_hashes),
        "validation": repeated(dataset.splits.get("validation", []), earlier.trained, earlier.trained_hashes),
        "test": repeated(dataset.splits.get("test", []), seen, earlier.trained_hashes | earlier.validation_hashes),
    }
    tested = len(dataset.splits.get("test", []))
    notes = []
    for split, rows in left_out.items():
        if not rows:
            continue
        dataset.splits[split] = [row for index, row in enumerate(dataset.splits[split]) if index not in rows]
        if split == "train":
            template = "{n} training rows are left out: run {name} or one before it is tested on them."
            notes.append(Text(template, n=len(rows), name=earlier.name))
        else:
            template = "{n} {split} rows are left out: run {name} or one before it has learned them."
            notes.append(Text(template, n=len(rows), split=Text(split), name=earlier.name))
    if not dataset.splits["train"]:
        raise DataError([splits.fault(dataset, notes[0], Text("Give training rows of its own."))])
    if tested and not dataset.splits["test"]:
        raise UserError(
            "All {n} test rows were learned by run {name} or one before it, so nothing could be measured; give data with test "
            "rows of its own, or where it is the same data the same seed (now {seed}).",
            n=tested,
            name=earlier.name,
            seed=seed,
        )
    return notes


def draw(dataset: Dataset, earlier: EarlierRows, share: float, seed: int) -> list[Text]:
    """Put rows that the earlier run was trained on beside the new ones, as the split `rehearsal`; says how many.

    `share` is of the new training rows, one row at least. Rows that repeat any test row, or a new row, aren't drawn.
    """
    distinct = list(dict(zip(hashes(earlier.trained), earlier.trained, strict=True)).values())
    if not distinct:
        raise UserError("Run {name} keeps no training rows to rehearse; leave rehearsal out.", name=earlier.name)
    held_out = [*dataset.splits.get("validation", []), *dataset.splits.get("test", []), *earlier.test]
    barred = repeated(distinct, held_out, earlier.test_hashes)
    new = set(hashes(dataset.splits["train"]))
    pool = _without(distinct, barred | {index for index, each in enumerate(hashes(distinct)) if each in new})
    wanted = max(1, round(share * len(dataset.splits["train"])))
    chosen = splits.take(pool, wanted, seed)
    dataset.splits["rehearsal"] = chosen
    return [
        Text(
            "Rehearsed: {n} of the {all} training rows of run {name} that stand in no test and aren't among the new ones.",
            n=len(chosen),
            all=len(pool),
            name=earlier.name,
        )
    ]


def _without(rows: Iterable[Example], left_out: Collection[int]) -> list[Example]:
    return [row for index, row in enumerate(rows) if index not in left_out]
