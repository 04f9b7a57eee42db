"""Another run, asked the same questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo.inference import load_run
from sftdemo.model.loading import weights_bytes
from sftdemo.runs import Run
from sftdemo.systems.one_side import answer_alone
from sftdemo.systems.system import Answers, Task

if TYPE_CHECKING:
    from sftdemo.data import Example


@dataclass(frozen=True)
class OtherRun:
    """The tuned model of another run of this home, whatever its base."""

    run: Run

    @property
    def name(self) -> str:
        return f"run:{self.run.name}"

    def check(self, labels: Sequence[str], train: Sequence[Example]) -> None:
        self.run.trained_config()  # raises DamagedRun

    def identity(self) -> Any:
        return sorted((file.name, file.stat().st_mtime_ns) for file in self.run.model_path.glob("*.safetensors"))

    def answer(self, task: Task) -> Answers:
        pair = load_run.load(self.run, task.reporter)
        began = time.perf_counter()
        texts = answer_alone(pair, "tuned", [row["messages"] for row in task.rows], task, self.name)
        seconds = time.perf_counter() - began
        return Answers(texts, seconds, self.run.status().get("seconds"), weights_bytes(self.run.model_path))
