"""How much data may be: each limit once, for the user's own machine and for what a visitor brings to a shared one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftdemo.errors import Text

GB, MB = 1_000_000_000, 1_000_000


@dataclass(frozen=True)
class Limits:
    """The most of each thing. `seconds` and `memory` are those of the process that reads, where it is one of its own."""

    file_bytes: int  # of a file, and of all files of one source together
    unpacked_bytes: int  # of what an archive, a workbook or a Parquet file holds
    ratio: int  # how many times its own size an archive may unpack to, once that is over 10 MB
    members: int  # data files in an archive or a folder, sheets of a workbook
    rows: int
    columns: int
    cells: int  # values of all rows together
    characters: int  # of a row, all its texts together
    items: int  # of a list in a row: turns, tokens, entities, options
    depth: int  # of lists and objects inside each other
    labels: int  # that differ
    faults: int  # of rows, that are listed
    sources: int  # mixed into one data set
    seconds: float
    memory: int  # bytes


OWNER = Limits(
    file_bytes=4 * GB,
    unpacked_bytes=8 * GB,
    ratio=1100,  # what gzip can do at most
    members=10_000,
    rows=10_000_000,
    columns=100_000,
    cells=200_000_000,
    characters=10_000_000,
    items=100_000,
    depth=100,
    labels=200_000,
    faults=1_000_000,
    sources=100,
    seconds=1800,
    memory=64 * GB,
)
VISITOR = Limits(
    file_bytes=20 * MB,
    unpacked_bytes=50 * MB,
    ratio=100,
    members=20,
    rows=20_000,
    columns=200,
    cells=500_000,
    characters=100_000,
    items=2000,
    depth=30,
    labels=1000,
    faults=5000,
    sources=5,
    seconds=30,
    memory=600 * MB,
)

# What is said of data over a limit: what is wrong with it, and what to do.
_PROBLEMS = {
    "file_bytes": (Text("The file has {value}; the most is {limit}."), Text("Give a part of it.")),
    "unpacked_bytes": (Text("Unpacked the file has more than {limit}, which is the most."), Text("Give a part of it.")),
    "ratio": (Text("The archive unpacks to more than {limit} times its own size, which is the most."), Text("Give the file itself.")),
    "members": (Text("The archive holds {value} files or sheets; the most is {limit}."), Text("Pack fewer.")),
    "rows": (Text("The file has more than {limit} rows, which is the most."), Text("Give a part of it.")),
    "columns": (Text("The data has {value} columns; the most is {limit}."), Text("Leave out those that aren't needed.")),
    "cells": (Text("The file has more than {limit} cells, which is the most."), Text("Give fewer rows or columns.")),
    "characters": (Text("The row has {value} characters; the most is {limit}."), Text("Shorten it, or remove the row.")),
    "items": (Text("A list in the row has {value} items; the most is {limit}."), Text("Shorten it, or remove the row.")),
    "depth": (Text("Lists and objects are nested {value} deep; the most is {limit}."), Text("Flatten them, or remove the row.")),
    "labels": (
        Text("The data has {value} different labels; the most is {limit}."),
        Text("If they are free text, read it with --format prompt_completion."),
    ),
    "faults": (Text("More than {limit} rows are at fault."), Text("Look whether the file is what it should be.")),
    "sources": (Text("The data names {value} sources; the most is {limit}."), Text("Join some of them.")),
    "seconds": (Text("Reading the data took longer than {limit} s, which is the most."), Text("Give a part of it.")),
    "memory": (Text("Reading the data took more memory than {limit}, which is the most."), Text("Give a part of it.")),
}  # fmt: skip
_BYTES = ("file_bytes", "unpacked_bytes", "memory")


class OverLimit(Exception):
    """Data over a limit: `problem` says which value and which limit, `remedy` what to do."""

    def __init__(self, limits: Limits, name: str, value: float = 0) -> None:
        problem, remedy = _PROBLEMS[name]
        limit = getattr(limits, name)
        written = size if name in _BYTES else amount
        values: dict[str, Any] = {"limit": written(limit)}
        if "{value}" in problem:
            values["value"] = written(value)
        self.problem, self.remedy = Text(problem, **values), remedy
        super().__init__(f"{self.problem} {self.remedy}")


def amount(count: float) -> str:
    return f"{count:,.0f}"


def size(count: float) -> str:
    """Bytes as people write them."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / MB:.1f} MB" if count >= MB else f"{count:,.0f} bytes"


def depth(value: Any, most: int) -> int:
    """How deep lists and objects are nested in a value; deeper than `most` is told as `most` + 1."""
    level, inside = 0, [value] if isinstance(value, dict | list) else []
    while inside and level <= most:
        level += 1
        inside = [
            part
            for outer in inside
            for part in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(part, dict | list)
        ]
    return level


def row_excess(limits: Limits, values: Mapping[str, Any]) -> OverLimit | None:
    """What of a row is over a limit: all its texts together, or a list; it must not be nested too deeply."""
    count, longest = 0, 0
    inside: list[Any] = [values]
    while inside:
        outer = inside.pop()
        if isinstance(outer, list):
            longest = max(longest, len(outer))
        for value in outer.values() if isinstance(outer, Mapping) else outer:
            if isinstance(value, str):
                count += len(value)
            elif isinstance(value, dict | list):
                inside.append(value)
    if count > limits.characters:
        return OverLimit(limits, "characters", count)
    return OverLimit(limits, "items", longest) if longest > limits.items else None
