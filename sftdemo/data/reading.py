"""The way in: `read` a source as a data set, and `samples`, the sets that come with sftdemo."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from sftdemo.config import ReadConfig
from sftdemo.data import mixture, sources
from sftdemo.data.cleaning import duplicates, steps
from sftdemo.data.conversion import convert
from sftdemo.data.limits import OWNER, Limits, OverLimit
from sftdemo.data.recipes import RECIPES, ROWS
from sftdemo.data.types import Dataset, Example
from sftdemo.errors import Fault, Text, UsageError, UserError


def read(source: str | os.PathLike[str] | ReadConfig, limits: Limits | None = None, **settings: Any) -> Dataset:
    """Read a file, a folder, a sample or a Hub data set, or several; `settings` are those of ReadConfig, `limits` how much the
    data may be; the default is for one's own machine.

    Faults of the data come in `faults`, all at once, and nothing is raised for them. Raises UserError for a source,
    column or placeholder that isn't there, UsageError for a bad setting. Without split columns all rows are in train.
    """
    if isinstance(source, ReadConfig):
        config = type(source).from_json({**source.to_json(), **settings})
    else:
        config = ReadConfig.from_json({"data": os.fspath(source), **settings})
    limits = limits or OWNER
    parts = mixture.parse(config.data)
    if len(parts) > limits.sources:
        raise UserError(str(OverLimit(limits, "sources", len(parts))))
    if len(parts) == 1:
        dataset = _convert(sources.resolve(parts[0].source, config, limits), config, limits)
        if parts[0].weight != 1:
            dataset = mixture.mix(parts, [dataset], config.data)
    else:
        dataset = mixture.mix(parts, [_part(part.source, config, limits) for part in parts], config.data)
    steps.clean(dataset, config)
    convert.summarise(dataset, dataset.task)
    if len(dataset.labels) > limits.labels:
        over = OverLimit(limits, "labels", len(dataset.labels))
        dataset.faults.append(Fault(0, "label", over.problem, over.remedy, dataset.name))
    if not dataset.examples and not dataset.faults:
        problem, remedy = Text("No row is left."), Text("Give rows without faults, or clean less.")
        dataset.faults.append(Fault(0, "", problem, remedy, dataset.name))
    duplicates.count(dataset, first_time=True)
    for faults in (dataset.faults, dataset.warnings, dataset.dropped, dataset.fixed):
        faults.sort(key=lambda fault: (fault.file, fault.line))
    return dataset


def _part(source: str, config: ReadConfig, limits: Limits) -> Dataset:
    """One of several sources; the settings are for each of them."""
    try:
        return _convert(sources.resolve(source, config, limits), replace(config, data=source), limits)
    except UserError as error:
        kind = UsageError if isinstance(error, UsageError) else UserError
        raise kind(Text("In {source}: {problem}", source=source, problem=error.text)) from None


def _convert(source: sources.Source, config: ReadConfig, limits: Limits) -> Dataset:
    """The examples of one source, with its faults as `on_fault` wants them."""
    dataset = Dataset(source=config.data, name=source.name, sha256=source.sha256, faults=source.table.faults)
    dataset.notes += source.table.notes
    dataset.warnings += source.table.warnings
    if source.table.rows:
        convert.convert(source.table.rows, config, dataset, limits)
    if config.on_fault != "stop":  # what `fix` could repair is repaired by now
        dataset.dropped = [fault for fault in dataset.faults if not fault.whole]
        dataset.faults = [fault for fault in dataset.faults if fault.whole]
        if dataset.dropped:
            lines = len({(fault.file, fault.line) for fault in dataset.dropped})
            dataset.notes.append(Text("{n} rows at fault were left out; each is listed.", n=lines))
    if dataset.fixed:
        dataset.notes.append(Text("{n} faults were repaired; each is listed.", n=len(dataset.fixed)))
    return dataset


@dataclass(frozen=True)
class Sample:
    """A data set that comes with sftdemo. A recipe has no file: `path` is None, and `rows` is the most it makes."""

    name: str
    title: str
    title_zh: str
    task: str
    language: str
    rows: int
    path: Path | None
    card_path: Path
    example: Example


def samples() -> list[Sample]:
    """All samples, by name; each with its first train row."""
    return [_sample(name, _changed(name)) for name in sources.sample_names()]


def _changed(sample: str) -> tuple[float, ...]:
    """When a sample's files last changed."""
    paths = (sources.SAMPLES / f"{sample}.jsonl", sources.card_path(sample))
    return tuple(path.stat().st_mtime if path.is_file() else 0.0 for path in paths)


@lru_cache(maxsize=32)
def _sample(name: str, changed: tuple[float, ...]) -> Sample:
    recipe = RECIPES.get(name)
    card_path = sources.card_path(name)
    card = sources.front_matter(card_path)
    # One row shows what a recipe makes; all of them would take seconds.
    source = sources.from_rows(name, islice(recipe(), 1)) if recipe else sources.resolve(name)
    dataset = _convert(source, ReadConfig(data=name), OWNER)
    title = card.get("title", name)
    return Sample(
        name=name,
        title=title,
        title_zh=card.get("title_zh", title),
        task=card.get("task", dataset.task),
        language=card.get("language", "en"),
        rows=ROWS if recipe else dataset.examples,
        path=None if recipe else sources.SAMPLES / f"{name}.jsonl",
        card_path=card_path,
        example=dataset.splits["train"][0],
    )
