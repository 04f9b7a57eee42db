"""The rows of a file as the page lists them for editing: what stands there, what is wrong with it, its label and prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftdemo.data import Dataset
from sftdemo.data.edits import plain
from sftdemo.data.files.table import Row
from sftdemo.data.types import place_of
from sftdemo.errors import Fault

MOST_ROWS = 50_000  # of a file whose rows are listed
_PROBLEMS = 5  # of a row that are listed


def asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """What tells one prompt from another: a hash of its turns."""
    turns = [[turn["role"], turn["content"]] for turn in messages]
    return hashlib.blake2b(json.dumps(turns).encode(), digest_size=8).hexdigest()


def records(rows: Sequence[Row], dataset: Dataset) -> Iterator[dict[str, Any]]:
    """A record for each row, and for each line that couldn't be read, which has no `values`.

    {"file", "line", "nth", "values", "edited", "label", "asked": the hash of each of its prompts, "problems": [{"kind",
    "field", "problem", "remedy"}]}, the sentences as Text.to_json writes them.
    """
    problems: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for kind, faults in (("faults", [*dataset.faults, *dataset.dropped]), ("warnings", dataset.warnings)):
        for fault in faults:
            if fault.line and not fault.whole:
                problems.setdefault((fault.file, fault.line), []).append(_problem(kind, fault))
    examples: dict[tuple[str, int, int], list[Any]] = {}
    for part in dataset.splits.values():
        for example in part:
            examples.setdefault(place_of(example, dataset.file), []).append(example)
    for row in rows:
        of_row = examples.get((row.file, row.line, row.nth), [])
        yield {
            **{"file": row.file, "line": row.line, "nth": row.nth, "values": plain(row.values), "edited": row.edited},
            "label": next((example["label"] for example in of_row if "label" in example), None),
            "asked": [asked(example["messages"][:-1]) for example in of_row],
            "problems": problems.get((row.file, row.line), [])[:_PROBLEMS],
        }
    there = {(row.file, row.line) for row in rows}
    for (file, line), row_problems in problems.items():
        if (file, line) not in there:
            empty: dict[str, Any] = {"values": None, "edited": "", "label": None, "asked": []}
            yield {"file": file, "line": line, "nth": 1, **empty, "problems": row_problems[:_PROBLEMS]}


def _problem(kind: str, fault: Fault) -> dict[str, Any]:
    return {"kind": kind, "field": fault.field, "problem": fault.problem.to_json(), "remedy": fault.remedy.to_json()}
