"""How much is measured, and where it happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import children, rows
from sftdemo.errors import UserError
from sftdemo.files import write_jsonl

BESIDE = "sftdemo beside a busy process"  # who is measured
GGUF_KINDS = ("f16", "q8_0", "q4_0", "q4_1")  # the last is the file that the default model comes from
Record = dict[str, Any]  # "part", "who", "round" (from 1), then what was measured, or "failed": why not


def llamacpp(kind: str) -> str:
    """Who is measured where llama.cpp answers with a file of that kind."""
    return f"llama.cpp, {kind.upper()}"


@dataclass(frozen=True)
class Size:
    """Defaults take about 30 minutes on two cores with bfloat16 units; `QUICK` shows in a few that all works."""

    rounds: int = 3
    training_rows: int = 64  # so few because the slowest peer needs a minute for them
    chat_prompts: int = 4
    chat_tokens: int = 64
    prompts: int = 200
    answer_tokens: int = 16
    tuned_rows: int = 64  # of the run that chat and evaluation talk to
    memory_rows: int = 16
    scales: tuple[int, ...] = (100, 1_000, 10_000, 100_000)


QUICK = Size(
    rounds=1,
    training_rows=16,
    chat_prompts=2,
    chat_tokens=16,
    prompts=24,
    answer_tokens=8,
    tuned_rows=16,
    memory_rows=8,
    scales=(100, 1_000),
)


@dataclass
class Bench:
    """What all measurements share."""

    size: Size
    model: Path  # the base's folder
    work: Path  # taken away in the end
    peers: Path
    rows: str = "mixed"
    prompts: str = "support_tickets"
    seed: int = 0
    seconds: float = children.SECONDS  # for one measurement
    records: list[Record] = field(default_factory=list)
    run: str | None = None

    def measure(self, task: str, spec: dict[str, Any], python: Path | None = None) -> dict[str, Any]:
        options = {"python": python} if python else {}
        return children.measure(task, spec, self.work, seconds=self.seconds, **options)

    def settings(self, data: Path, name: str, **others: Any) -> dict[str, Any]:
        """TrainConfig's settings of a training that is only timed; the peers get the same."""
        fixed = {"learning_rate": 2e-4, "batch_size": 8, "checkpoint_every": 0, "seed": self.seed}
        return {"data": str(data), "model": str(self.model), "name": name, **fixed, **others}

    def tuned(self) -> str:
        """The run that chat, evaluation and memory talk to; trained once, on the rows that are asked about."""
        if self.run is None:
            data = self.write("tuned", rows.training_rows(self.prompts, self.size.tuned_rows, self.seed))
            settings = self.settings(data, "tuned") | {"learning_rate": None}
            found = self.measure("train_ours", {"settings": settings})
            if "failed" in found:
                raise UserError(f"the run to talk to can't be trained: {found['failed']}")
            self.run = "tuned"
        return self.run

    def write(self, name: str, lines: list[Any]) -> Path:
        path = self.work / f"{name}.jsonl"
        write_jsonl(path, lines)
        return path
