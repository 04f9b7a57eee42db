"""Answers that come one by one, kept until there are all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sftdemo import files
from sftdemo.runs.folder import Run
from sftdemo.schema.json_types import problem_in


@dataclass(frozen=True)
class Partial:
    """The rows of an evaluation that are answered already: a line a row, in a file named after all that decides them.

    `shape` is what a row has to be, a TypedDict with its place as `row`.
    """

    run: Run
    path: Path
    shape: Any

    @classmethod
    def of(cls, run: Run, identity: Any, shape: Any) -> Self:
        text = json.dumps(identity, ensure_ascii=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(run, run.path / "evaluations" / f".{key}.jsonl", shape)

    def read(self) -> dict[int, dict[str, Any]]:
        """What there is, by row; a line cut short by a kill, perhaps inside a character, is answered again."""
        answered = {}
        if self.path.is_file():
            for line in self.path.read_bytes().split(b"\n"):
                try:
                    row = files.parsed(line.decode())
                except ValueError:
                    continue
                if problem_in(row, self.shape):
                    continue
                answered[row["row"]] = row
        return answered

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with self.run.unless_deleted():
            self.path.parent.mkdir(exist_ok=True)
            file = self.path.open("a", encoding="utf-8")
        with file:
            # A line of its own, should the last one have been cut short.
            file.write("\n" + files.jsonl(rows))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
