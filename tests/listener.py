"""Reporters of the tests: one keeps all that it hears, one says stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sftdemo.log import Reporter


class Listener(Reporter):
    """`at_step` is called with each row that a training logs; `most` rows of an evaluation are waited for, then it stops."""

    def __init__(self, at_step: Callable[[Mapping[str, Any]], None] | None = None, most: int | None = None) -> None:
        self.notes: list[str] = []
        self.read: list[int] = []
        self.rows: list[int] = []
        self.at_step, self.most = at_step, most

    def info(self, text: str) -> None:
        self.notes.append(text)

    def prefilled(self, prompts: int) -> None:
        self.read.append(prompts)

    def answered(self, rows: int, total: int) -> None:
        self.rows.append(rows)

    def trained(self, row: Mapping[str, Any]) -> None:
        if self.at_step:
            self.at_step(row)

    def should_stop(self) -> bool:
        return self.most is not None and len(self.rows) > self.most


class Impatient(Reporter):
    """Says stop from when it was asked `looks` times."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left < 0
