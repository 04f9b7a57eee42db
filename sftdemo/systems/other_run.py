"""Another run, asked the same questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sftdemo.config import kinds
from sftdemo.data.conversion.wording import Wording, put_as, wordings_of
from sftdemo.encoding.own_text import own_text
from sftdemo.errors import UserError
from sftdemo.inference import kinds as load_other
from sftdemo.runs import Run
from sftdemo.systems.learned import learned_by, names_of, seen
from sftdemo.systems.one_side import answer_alone
from sftdemo.systems.system import Answers, Task


@dataclass(frozen=True)
class OtherRun:
    """The tuned model of another run of this home, whatever its base, asked in the words of its own training."""

    run: Run

    @property
    def name(self) -> str:
        return f"run:{self.run.name}"

    def check(self, task: Task) -> None:
        """A test row that both runs have learned from favours neither; those that this one alone has make it no rival."""
        self.run.trained_config()  # raises DamagedRun
        here, there = names_of([*task.train, *task.validation]), learned_by(self.run)
        if n := sum(by_other and not by_this for by_this, by_other in seen(task.rows, here, there)):
            raise UserError(
                "Run {name} has learned from {seen} of these {n} test rows; compare it on rows that neither has seen, with "
                "--data, or train both with one seed and, where rows repeat, --clean leaks.",
                name=self.run.name,
                seen=n,
                n=len(task.rows),
            )

    def identity(self) -> Any:
        weights = sorted((file.name, file.stat().st_mtime_ns) for file in self.run.model_path.glob("*.safetensors"))
        return [*weights, *(wording.template for wording in self._wordings), self.run.system_message]

    @property
    def _wordings(self) -> list[Wording]:
        return wordings_of(self.run.config())

    def answer(self, task: Task) -> Answers:
        if self.run.kind in kinds.LABELLING:
            return self._answered_at_once(task)
        from sftdemo.inference import load_run  # torch, which the page doesn't wait for

        pair = load_run.load(self.run, task.reporter)
        began = time.perf_counter()
        own = self.run.system_message
        questions = [with_own_system(row["messages"], task.system, own) for row in task.rows]
        asked_so = [as_trained(messages, task.templates, self._wordings) for messages in questions]
        texts = answer_alone(pair, "tuned", asked_so, task, self.name)
        seconds = time.perf_counter() - began
        return Answers(texts, seconds, self.run.status().get("seconds"), load_run.weight_bytes(self.run)["tuned"])

    def _answered_at_once(self, task: Task) -> Answers:
        """By a run of another kind, which reads texts without the words around them."""
        from sftdemo.inference import load_run

        answering = load_other.load(self.run, task.reporter)
        began = time.perf_counter()
        texts: dict[int, str] = {}
        for answers in answering.answers(
            task.rows, task.longest, task.batch_size, (), task.reporter, ("tuned",), task.templates
        ):
            texts |= {place: answer["tuned"] for place, answer in answers.items()}
            task.reporter.answered(len(texts), len(task.rows))
        if len(texts) < len(task.rows):
            raise UserError("Stopped while {name} answered; the evaluation itself is saved.", name=self.name)
        seconds = time.perf_counter() - began
        size = load_run.weight_bytes(self.run)["tuned"]
        return Answers(
            [texts[place] for place in range(len(task.rows))], seconds, self.run.status().get("seconds"), size
        )


def with_own_system(messages: Sequence[Any], given: str, own: str) -> list[Any]:
    """A conversation under a run's `own` system message in place of the one that was `given` to another run's rows, either ""
    where there is none. One that came with the row stays."""
    has_system = messages[0]["role"] == "system"
    if (messages[0]["content"] if has_system else "") != given:
        return list(messages)
    turns = messages[has_system:]
    return [{"role": "system", "content": own}, *turns] if own else list(turns)


def as_trained(messages: Sequence[Any], templates: Sequence[str], wordings: Sequence[Wording]) -> list[Any]:
    """A question as a run was asked in its training: the words that `templates` put around its text changed for those of its
    own `wordings`. A conversation of several turns, and a text that can't be told from the words, stay as they are."""
    *before, last = messages
    if last["role"] != "user" or any(message["role"] != "system" for message in before):
        return list(messages)
    worded = put_as(wordings, own_text([last], templates))
    return [*before, last if worded is None else {**last, "content": worded}]
