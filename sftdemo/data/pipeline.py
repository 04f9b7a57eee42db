"""What a training sees of a data set: split, without leaks, mixed by weight, its labels balanced, and cut to size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sftdemo.config.read import ReadConfig
from sftdemo.data import mixture, splits
from sftdemo.data.cleaning import duplicates, steps
from sftdemo.data.reading import read
from sftdemo.data.types import Dataset, Example, account
from sftdemo.errors import DataError, Text, UserError


def prepare(config: ReadConfig, max_examples: int | None = None, dataset: Dataset | None = None) -> Dataset:
    """The data set with train, validation and test as they are trained on and measured with.

    `dataset` is what `read(config)` gave, if that is at hand. Weights, balance and `max_examples` are for train alone.
    Raises DataError with every fault, UserError where labels are to be balanced and there are none.
    """
    dataset = dataset or read(config)
    if dataset.faults:
        raise DataError(dataset.faults)
    if config.balance != "none" and not dataset.labels:
        raise UserError("balance is {value!r}, but the rows have no labels; leave it at none.", value=config.balance)
    dataset = splits.split(dataset, config.seed, config.validation_size, config.test_size)
    dataset.cleaning = list(dataset.cleaning)  # what was given stays as it was
    if "leaks" in config.cleaning:
        steps.remove_leaks(dataset)
        duplicates.count(dataset)
        if not dataset.splits["train"]:
            raise DataError(
                [splits.fault(dataset, Text("Every train row is a leak."), Text("Give train rows of their own."))]
            )
    train = dataset.splits["train"]
    dataset.sources = [dict(part) for part in dataset.sources]
    weights = {part["name"]: part["weight"] for part in dataset.sources}
    if any(weight != 1 for weight in weights.values()):
        train = _mixed(train, weights, config.seed)
    before = _counts(train)
    if config.balance in ("over", "under"):
        train = _sampled(train, config.balance == "over", config.seed)
    train = splits.take(train, max_examples, config.seed)
    if config.balance != "none":
        dataset.balance = {"method": config.balance, "before": _flat(before), "after": _flat(_counts(train))}
    if config.balance == "weights":
        train = _weighted(train, dataset.balance)
    dataset.splits["train"] = train
    for part in dataset.sources:
        rows = {
            name: sum(mixture.source_of(row) == part["name"] for row in dataset.splits[name]) for name in dataset.splits
        }
        part["rows"] = rows
    return dataset


def outlook(config: ReadConfig, dataset: Dataset, max_examples: int | None = None) -> dict[str, Any]:
    """What `prepare` would make of what was read, as JSON for `check`: sizes of the splits (None where it can't be split),
    and all that is told only then. A data set too small to split is worth a warning here, not a fault."""
    return prepare_if_fit(config, dataset, max_examples)[0]


def prepare_if_fit(
    config: ReadConfig, dataset: Dataset, max_examples: int | None = None
) -> tuple[dict[str, Any], Dataset | None]:
    """`outlook`, and the data set that `prepare` made; None where it can't be trained on."""
    if dataset.faults:
        return {"split_sizes": None}, None
    try:
        prepared = prepare(config, max_examples, dataset)
    except DataError as error:
        warnings = [fault.to_json() for fault in [*dataset.warnings, *error.faults]]
        return {"split_sizes": None, "warnings": warnings}, None
    sizes = {name: len(rows) for name, rows in prepared.splits.items()}
    # Where the data brings held-out rows, the leaks among those are what its maker wants to hear of.
    leaked = dataset.leaked if set(dataset.splits) - {"train"} else prepared.leaked
    groups = _groups(prepared.splits.get("test", []))
    grouped = {"test_groups": groups} if groups < sizes.get("test", 0) else {}
    return {"split_sizes": sizes, **grouped, "leaked": leaked, **account(prepared)}, prepared


def _groups(examples: Sequence[Example]) -> int:
    """How many groups the rows are of; one without a group stands alone. An evaluation's intervals count these."""
    named = [(mixture.source_of(row), row["meta"]["group"]) for row in examples if row.get("meta", {}).get("group")]
    return len(set(named)) + len(examples) - len(named)


def _class(example: Example) -> tuple[str, str]:
    """Labels are balanced within their source."""
    return mixture.source_of(example), example.get("label", "")


def _counts(examples: list[Example]) -> Counter[tuple[str, str]]:
    return Counter(_class(example) for example in examples if "label" in example)


def _flat(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    """Rows by label; a label that stands in several sources with the source's name before it."""
    several = len({source for source, _ in counts}) > 1
    return {f"{source}: {label}" if several else label: rows for (source, label), rows in sorted(counts.items())}


def _repeated(examples: list[Example], rows: int, seed: int) -> list[Example]:
    """`rows` of them by the seed: each as often as the next, and none twice before all stand once."""
    whole, rest = divmod(rows, len(examples))
    return examples * whole + splits.take(examples, rest, seed)


def _mixed(train: list[Example], weights: dict[str, float], seed: int) -> list[Example]:
    by_source: dict[str, list[Example]] = {}
    for example in train:
        by_source.setdefault(mixture.source_of(example), []).append(example)
    return [
        example
        for name, rows in by_source.items()
        for example in _repeated(rows, max(1, round(weights[name] * len(rows))), seed)
    ]


def _sampled(train: list[Example], over: bool, seed: int) -> list[Example]:
    """As many rows of each label as the largest has (over), or the smallest; rows without label stay as they are."""
    classes: dict[tuple[str, str], list[Example]] = {}
    for example in train:
        if "label" in example:
            classes.setdefault(_class(example), []).append(example)
    goal: dict[str, int] = {}
    for (source, _), rows in classes.items():
        goal[source] = (max if over else min)(goal.get(source, len(rows)), len(rows))
    plain = [example for example in train if "label" not in example]
    return plain + [row for (source, _), rows in classes.items() for row in _repeated(rows, goal[source], seed)]


def _weighted(train: list[Example], balance: dict[str, Any]) -> list[Example]:
    """Each labelled row with the weight n / (k · rows of its label), n rows and k labels of its source: 1 on average."""
    counts = _counts(train)
    rows, labels = Counter[str](), Counter[str]()
    for (source, _), count in counts.items():
        rows[source] += count
        labels[source] += 1
    weights = {key: rows[key[0]] / (labels[key[0]] * count) for key, count in counts.items()}
    balance["weights"] = {
        name: round(weights[key], 4) for name, key in zip(balance["after"], sorted(counts), strict=True)
    }
    return [{**row, "weight": weights[_class(row)] if "label" in row else 1.0} for row in train]
