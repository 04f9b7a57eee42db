"""Another run, asked the same questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo.data.cleaning.duplicates import leak_keys
from sftdemo.errors import UserError
from sftdemo.inference import load_run
from sftdemo.model.loading import weights_bytes
from sftdemo.runs import Run
from sftdemo.systems.one_side import answer_alone
from sftdemo.systems.system import Answers, Task

if TYPE_CHECKING:
    from sftdemo.data import Message


@dataclass(frozen=True)
class OtherRun:
    """The tuned model of another run of this home, whatever its base."""

    run: Run

    @property
    def name(self) -> str:
        return f"run:{self.run.name}"

    def check(self, task: Task) -> None:
        self.run.trained_config()  # raises DamagedRun
        learned = [row["messages"][:-1] for split in ("train", "validation") for row in self.run.examples(split)]
        known = set(_questions(learned))
        if seen := sum(question in known for question in _questions([row["messages"] for row in task.rows])):
            raise UserError(
                "Run {name} has learned from {seen} of these {n} test rows; compare it on rows that neither has seen, with "
                "--data, or train both with one seed.",
                name=self.run.name,
                seen=seen,
                n=len(task.rows),
            )

    def identity(self) -> Any:
        return sorted((file.name, file.stat().st_mtime_ns) for file in self.run.model_path.glob("*.safetensors"))

    def answer(self, task: Task) -> Answers:
        pair = load_run.load(self.run, task.reporter)
        began = time.perf_counter()
        texts = answer_alone(pair, "tuned", [row["messages"] for row in task.rows], task, self.name)
        seconds = time.perf_counter() - began
        return Answers(texts, seconds, self.run.status().get("seconds"), weights_bytes(self.run.model_path))


def _questions(conversations: Sequence[Any]) -> list[str]:
    """What is asked, whatever instruction a run puts around it."""
    answer: Message = {"role": "assistant", "content": ""}
    return leak_keys([{"messages": [*messages, answer], "label": ""} for messages in conversations])
