"""The way in: `read` a source as a data set, and `samples`, the sets that come with sftdemo."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sftdemo.config import ReadConfig
from sftdemo.data import checks, formats, sources
from sftdemo.data.recipes import RECIPES, ROWS
from sftdemo.data.types import Dataset, Example
from sftdemo.errors import UsageError


def read(source: str | os.PathLike[str] | ReadConfig, **settings: Any) -> Dataset:
    """Read a file, a folder, a sample or a Hub data set; `settings` are those of ReadConfig.

    Faults of the data come in `faults`, all at once, and nothing is raised for them. Raises UserError for a source,
    column or placeholder that isn't there, UsageError for a bad setting. Without split columns all rows are in train.
    """
    if isinstance(source, ReadConfig):
        config = type(source).from_json({**source.to_json(), **settings})
    else:
        config = ReadConfig.from_json({"data": os.fspath(source), **settings})
    if not config.data.strip():
        raise UsageError("No data is named; give a file, a folder, a sample or a Hub id.")
    dataset = _convert(sources.find(config.data.strip()), config)
    checks.count(dataset)
    return dataset


def _convert(found: sources.Found, config: ReadConfig) -> Dataset:
    dataset = Dataset(source=config.data, name=found.name, sha256=found.sha256, faults=found.table.faults)
    if found.table.rows:
        formats.convert(found.table.rows, config, dataset)
    dataset.faults.sort(key=lambda fault: (fault.file, fault.line))
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
    return [_sample(name) for name in sources.sample_names()]


def _sample(name: str) -> Sample:
    recipe = RECIPES.get(name)
    card_path = sources.card_path(name)
    card = sources.front_matter(card_path)
    # One row shows what a recipe makes; all of them would take seconds.
    found = sources.from_rows(name, islice(recipe(), 1)) if recipe else sources.find(name)
    dataset = _convert(found, ReadConfig(data=name))
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
