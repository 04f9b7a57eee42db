"""The stages of long work, each declared once: what it is called, what it counts, and how far it is in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sftdemo.errors import Text

Stage = Literal[
    "reading", "fetching", "converting", "encoding", "sweeping", "loading", "first_validation", "training", "validating", "saving", "forgetting",
]  # fmt: skip
MEGABYTE = 10**6


@dataclass(frozen=True)
class Kind:
    """What a stage is called, and in what its `done` and `total` are counted; None where nothing is."""

    name: Text
    unit: Text | None = None
    one: int = 1  # how much of `done` makes one of the unit


STAGES: dict[Stage, Kind] = {
    "reading": Kind(Text("Reading the data")),
    "fetching": Kind(Text("Fetching the model"), Text("MB"), MEGABYTE),
    "converting": Kind(Text("Converting the model, once")),
    "encoding": Kind(Text("Turning the rows into tokens")),
    "sweeping": Kind(Text("Trying settings"), Text("steps")),
    "loading": Kind(Text("Loading the model"), Text("MB"), MEGABYTE),
    "first_validation": Kind(Text("First validation"), Text("batches")),
    "training": Kind(Text("Training"), Text("steps")),
    "validating": Kind(Text("Validation"), Text("batches")),
    "saving": Kind(Text("Saving the model")),
    "forgetting": Kind(Text("Checking for forgetting"), Text("questions")),
}
assert set(STAGES) == set(get_args(Stage))


def sentence(stage: Stage, done: int = 0, total: int = 0) -> Text:
    """How far a stage is: "Fetching the model, 43 of 98 MB"; at its start, or where only its size is known, that size."""
    kind = STAGES[stage]
    if kind.unit is None or not _count(total, kind):
        return kind.name
    if not done:
        return Text("{stage} ({total:,} {unit})", stage=kind.name, total=_count(total, kind), unit=kind.unit)
    return Text(
        "{stage}, {done:,} of {total:,} {unit}",
        stage=kind.name,
        done=_count(min(done, total), kind),
        total=_count(total, kind),
        unit=kind.unit,
    )


def _count(value: int, kind: Kind) -> int:
    return round(value / kind.one)
