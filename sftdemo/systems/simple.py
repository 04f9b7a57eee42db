"""Systems that need no model: always the commonest label, the prompt copied, and answers that stand in a file."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.evaluation.baselines import copied, majority_label
from sftdemo.evaluation.metrics import plain
from sftdemo.evaluation.predictions import ROW, read_predictions
from sftdemo.log import Quiet, Reporter
from sftdemo.systems.system import Answers, Row, Task


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
        label = majority_label(task.label_counts, task.labels)
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
        return Answers([copied(row) for row in task.rows], 0.0, 0.0)


@dataclass(frozen=True)
class PredictionFile:
    """Answers from a file that `score` reads, one for each row: by its column `row`, as outputs.jsonl has it, or in their order."""

    path: Path
    name: str  # as it was asked for: two files may have one name

    def check(self, task: Task) -> None:
        right = {plain(text) for row in task.rows for text in _right_answers(row)}
        tells_by_case = len({text.casefold() for text in right}) < len(right)

        def compared(texts: list[str]) -> set[str]:
            return {plain(text) if tells_by_case else plain(text).casefold() for text in texts}

        for number, (prediction, row) in enumerate(zip(self._in_order(task, task.reporter), task.rows, strict=True), 1):
            wanted = _right_answers(row)
            given = [prediction["label"]] if "label" in prediction else prediction.get("references", [])
            if not compared(given) & compared(wanted):
                raise UserError(
                    "{path}: prediction {number} is for {given!r}, and row {number} of the evaluation for {wanted!r}; give the "
                    "predictions in the order of outputs.jsonl.",
                    path=self.path,
                    number=number,
                    given=given[0],
                    wanted=wanted[0],
                )

    def _in_order(self, task: Task, reporter: Reporter) -> list[dict[str, Any]]:
        """The predictions in the order of the evaluation's rows."""
        predictions = read_predictions(self.path, reporter=reporter)
        if len(predictions) != len(task.rows):
            raise UserError(
                "{path} has {n} predictions, and the evaluation has {rows} rows; give one for each row of outputs.jsonl, "
                "in its order.",
                path=self.path,
                n=len(predictions),
                rows=len(task.rows),
            )
        places = Counter(prediction.get(ROW) for prediction in predictions)
        if places.keys() == {None}:
            return predictions
        for place in range(len(task.rows)):
            if (times := places[place]) != 1:
                raise UserError(
                    "{path} has {n} predictions for row {place}; give one, or leave the column row out where they are in the "
                    "order of outputs.jsonl.",
                    path=self.path,
                    n=times,
                    place=place,
                )
        return sorted(predictions, key=lambda prediction: int(prediction[ROW]))

    def identity(self) -> Any:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def answer(self, task: Task) -> Answers:
        return Answers([prediction["prediction"] for prediction in self._in_order(task, Quiet(task.reporter))])


def _right_answers(row: Row) -> list[str]:
    return row["references"] if row.get("label") is None else [row["label"], *row["references"]]


def need_labels(name: str, task: Task) -> None:
    """Raise UserError unless all rows have labels, and the training rows, too."""
    if not task.labels or not task.label_counts:
        raise UserError("{name} needs rows with labels, and these have texts as answers; leave it out.", name=name)
