"""Several data sets as one: "support_tickets*2 + house_style" read as parts with weights, and mixed by them."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from sftdemo.data.types import Dataset, Example, Meta, place_of
from sftdemo.errors import Text, UsageError

_WEIGHT = re.compile(r"(.*\S)\s*\*\s*([\d.]+)")
MOST = 100


@dataclass(frozen=True)
class Part:
    """A source and how many times each of its train rows is taken; 0.5 takes half of them."""

    source: str
    weight: float = 1.0


def parse(data: str) -> list[Part]:
    """The parts, joined by " + ". A path that exists is one source, whatever its name. Raises UsageError."""
    parts = []
    for text in [data] if data.strip() and _exists(data) else re.split(r"(?:^|(?<=\s))\+(?=\s|$)", data):
        source, weight = text.strip(), 1.0
        if (match := _WEIGHT.fullmatch(source)) and not _exists(source):
            source = match[1]
            try:
                weight = float(match[2])
            except ValueError:
                weight = 0.0
            if not 0 < weight <= MOST:
                raise UsageError(
                    "{source} has the weight {weight}; give more than 0 and at most {most}.",
                    source=source,
                    weight=match[2],
                    most=MOST,
                )
        if not source:
            raise UsageError("No data is named; give a file, a folder, a sample or a Hub id.")
        parts.append(Part(source, weight))
    named = Counter(part.source for part in parts)
    if twice := [source for source, times in named.items() if times > 1]:
        raise UsageError("{source} is named twice; give it a weight instead: '{source}*2'.", source=twice[0])
    return parts


def _exists(source: str) -> bool:
    return os.path.exists(os.path.expanduser(source))


def anchored(data: str) -> str:
    """The same data whatever the working directory: each part that is on disk by its absolute path. As it was given where
    that can't be written, as in a folder named "a + b". Raises UsageError as `parse` does."""
    parts = [
        replace(part, source=os.path.abspath(os.path.expanduser(part.source))) if _exists(part.source) else part
        for part in parse(data)
    ]
    text = " + ".join(
        part.source if part.weight == 1 else f"{part.source}*{str(part.weight).removesuffix('.0')}" for part in parts
    )
    return text if parse(text) == parts else data


def mix(parts: list[Part], datasets: list[Dataset], source: str) -> Dataset:
    """One data set of all; each example's `meta` says its source and task. Weights wait until it is split."""
    names = [dataset.name for dataset in datasets]
    names = [part.source if names.count(name) > 1 else name for part, name in zip(parts, names, strict=True)]
    mixed = Dataset(
        source=source,
        name="+".join(dict.fromkeys(dataset.name for dataset in datasets)),
        format=_common([dataset.format for dataset in datasets]),
        task=_common([dataset.task for dataset in datasets]),
        sha256=",".join(dataset.sha256 for dataset in datasets),
    )
    for part, name, dataset in zip(parts, names, datasets, strict=True):
        for split, examples in dataset.splits.items():
            for example in examples:
                meta = {"file": dataset.file, **example["meta"], "source": name, "task": dataset.task}
                example["meta"] = Meta(meta, place_of(example, dataset.file))
            mixed.splits.setdefault(split, []).extend(examples)
        for kind in ("faults", "warnings", "dropped", "fixed"):
            getattr(mixed, kind).extend(getattr(dataset, kind))
        mixed.repairable += dataset.repairable
        mixed.notes += [Text("{source}: {note}", source=name, note=note) for note in dataset.notes]
        mixed.columns += [column for column in dataset.columns if column not in mixed.columns]
        mixed.sources.append(_described(part, name, dataset))
    if len(datasets) == 1:
        mixed.mapping, mixed.instruction = datasets[0].mapping, datasets[0].instruction
    return mixed


def _common(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else "mixed"


def _described(part: Part, name: str, dataset: Dataset) -> dict[str, Any]:
    return {
        "source": part.source,
        "name": name,
        "weight": part.weight,
        "format": dataset.format,
        "task": dataset.task,
        "mapping": dataset.mapping,
        "instruction": dataset.instruction,
        "sha256": dataset.sha256,
        "rows": {split: len(examples) for split, examples in dataset.splits.items()},
    }


def source_of(example: Example) -> str:
    """The name of the source in mixed data, else ""."""
    return str(example.get("meta", {}).get("source", ""))
