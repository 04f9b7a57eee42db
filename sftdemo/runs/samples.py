"""samples.jsonl: a few answers to validation rows, each time that a training was measured by a metric."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Annotated as Doc
from typing import TypedDict, cast

from sftdemo import files
from sftdemo.runs.folder import Run
from sftdemo.schema.json_types import ALWAYS

NAME = "samples.jsonl"


class Sample(TypedDict):
    """One answer of the model as it was then."""

    step: Doc[int, "optimizer steps done", ALWAYS]
    asked: Doc[str, "the last message before the answer", ALWAYS]
    reference: Doc[str, "the right answer", ALWAYS]
    answer: Doc[str, "the greedy one, cut where it is very long", ALWAYS]


def read(run: Run) -> list[Sample]:
    """Those of a run, in the order of their steps; raises DamagedRun."""
    return cast("list[Sample]", run._jsonl(NAME, Sample)) if os.path.lexists(run.path / NAME) else []


def append(run: Run, rows: Iterable[Sample]) -> None:
    with (run.path / NAME).open("a", encoding="utf-8") as file:
        file.write(files.jsonl(rows))


def keep_until(run: Run, step: int | None) -> None:
    """Leave out what comes after a step that a training goes on from; all, where it begins anew."""
    kept: Sequence[Sample] = [row for row in read(run) if step is not None and row["step"] <= step]
    if os.path.lexists(run.path / NAME):
        files.write_jsonl(run.path / NAME, kept, parents=False)
