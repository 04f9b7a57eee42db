"""Systems that need no model: always the commonest label, the prompt copied, and answers that stand in a file."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.evaluation.predictions import read_predictions
from sftdemo.systems.system import Answers, Task


@dataclass(frozen=True)
class Majority:
    """Always the label that most training rows have; of labels equally frequent the first by name."""

    name: str = "majority"

    def check(self, task: Task) -> None:
        need_labels(self.name, task)

    def identity(self) -> Any:
        return None

    def answer(self, task: Task) -> Answers:
        began = time.perf_counter()
        label = max(sorted(task.label_counts), key=task.label_counts.__getitem__)
        return Answers([label] * len(task.rows), time.perf_counter() - began, 0.0)


@dataclass(frozen=True)
class Copy:
    """The last message of the prompt, as it is."""

    name: str = "copy"

    def check(self, task: Task) -> None:
        pass  # it answers any row

    def identity(self) -> Any:
        return None

    def answer(self, task: Task) -> Answers:
        return Answers([row["messages"][-1]["content"] for row in task.rows], 0.0, 0.0)


@dataclass(frozen=True)
class PredictionFile:
    """Answers from a file that `score` reads, one for each row and in their order."""

    path: Path
    name: str  # as it was asked for: two files may have one name

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return read_predictions(self.path)

    def check(self, task: Task) -> None:
        if len(self._rows) != len(task.rows):
            raise UserError(
                "{path} has {n} predictions, and the evaluation has {rows} rows; give one for each row of outputs.jsonl, "
                "in its order.",
                path=self.path,
                n=len(self._rows),
                rows=len(task.rows),
            )
        for number, (prediction, row) in enumerate(zip(self._rows, task.rows, strict=True), 1):
            wanted = row["references"] if row.get("label") is None else [row["label"], *row["references"]]
            given = [prediction["label"]] if "label" in prediction else prediction.get("references", [])
            if not set(given) & set(wanted):
                raise UserError(
                    "{path}: prediction {number} is for {given!r}, and row {number} of the evaluation for {wanted!r}; give the "
                    "predictions in the order of outputs.jsonl.",
                    path=self.path,
                    number=number,
                    given=given[0],
                    wanted=wanted[0],
                )

    def identity(self) -> Any:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def answer(self, task: Task) -> Answers:
        return Answers([row["prediction"] for row in self._rows])


def need_labels(name: str, task: Task) -> None:
    """Raise UserError unless all rows have labels, and the training rows, too."""
    if not task.labels or not task.label_counts:
        raise UserError("{name} needs rows with labels, and these have texts as answers; leave it out.", name=name)
