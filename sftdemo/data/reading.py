"""The way in: `read` a source as a data set, and `samples`, the sets that come with sftdemo."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from sftdemo.config.read import ReadConfig
from sftdemo.data import edits, mixture, sources
from sftdemo.data.cleaning import duplicates, steps
from sftdemo.data.conversion import convert
from sftdemo.data.files.table import Row, present
from sftdemo.data.layouts.unfolding import opened
from sftdemo.data.limits import OWNER, Limits, OverLimit
from sftdemo.data.recipes import RECIPES, ROWS
from sftdemo.data.types import Dataset, Example, Tally
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
    return read_rows(config, limits or OWNER)


def read_rows(config: ReadConfig, limits: Limits, rows: list[Row] | None = None) -> Dataset:
    """What `read` gives; into `rows` come the rows that it is made of, as they stand in the files, with their edits."""
    parts = mixture.parse(config.data)
    if len(parts) > limits.sources:
        raise UserError(str(OverLimit(limits, "sources", len(parts))))
    reading = _Reading(config, limits, edits.Replay(config.edits), rows)
    if len(parts) == 1:
        dataset = reading.convert(sources.resolve(parts[0].source, config, limits), config)
        if parts[0].weight != 1:
            dataset = mixture.mix(parts, [dataset], config.data)
    else:
        dataset = mixture.mix(parts, [reading.part(part.source) for part in parts], config.data)
    if entries := reading.replay.entries:
        faults, notes = reading.replay.finish()
        dataset.faults += faults
        dataset.notes += notes
        dataset.sha256 = edits.fingerprint(dataset.sha256, entries)
        dataset.unedited = read_rows(replace(config, edits=None), limits)
    _finish(dataset, config, limits)
    return dataset


def _finish(dataset: Dataset, config: ReadConfig, limits: Limits) -> None:
    """Clean what was read, and say what is to be said about all of it together."""
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


@dataclass
class _Reading:
    """The sources of one reading, whose edits are one history; `rows` takes their rows where somebody wants them."""

    config: ReadConfig
    limits: Limits
    replay: edits.Replay
    rows: list[Row] | None

    def part(self, source: str) -> Dataset:
        """One of several sources; the settings are for each of them."""
        try:
            return self.convert(sources.resolve(source, self.config, self.limits), replace(self.config, data=source))
        except UserError as error:
            kind = UsageError if isinstance(error, UsageError) else UserError
            raise kind(Text("In {source}: {problem}", source=source, problem=error.text)) from None

    def convert(self, source: sources.Source, config: ReadConfig) -> Dataset:
        """The examples of one source."""
        tally = Tally()
        rows = source.table.rows
        if self.replay.entries:
            rows = source.table.rows = opened(rows, tally)
            rows = self.replay.apply(source.table, self.limits)
        if self.rows is not None:
            self.rows += opened(present(rows), Tally())
        dataset = _convert(source, rows, config, self.limits)
        dataset.notes += tally.notes()
        return dataset


def _convert(source: sources.Source, rows: list[Row], config: ReadConfig, limits: Limits) -> Dataset:
    """The examples of these rows of a source, with its faults as `on_fault` wants them."""
    dataset = Dataset(source=config.data, name=source.name, sha256=source.sha256, faults=source.table.faults)
    dataset.notes += source.table.notes
    dataset.warnings += source.table.warnings
    if present(rows):
        convert.convert(rows, config, dataset, limits)
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
    dataset = _convert(source, source.table.rows, ReadConfig(data=name), OWNER)
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
