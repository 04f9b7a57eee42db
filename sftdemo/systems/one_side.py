"""Answers of one side alone of loaded models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sftdemo.config.generate import GenerateConfig
from sftdemo.encoding import source_target
from sftdemo.encoding.encode import encode_prompt
from sftdemo.errors import UserError
from sftdemo.systems.system import Task

if TYPE_CHECKING:
    from sftdemo.inference.side_by_side import SideBySide


def check_room(pair: SideBySide, conversations: Sequence[Any], task: Task, system: str, room: int) -> None:
    """Raise UserError where a conversation leaves the model no room for an answer: of its reference's length where that is
    known, else of `room` tokens."""
    for row, messages in zip(task.rows, conversations, strict=True):
        tokens = len(encode_prompt(pair.tokenizer, messages, row.get("tools")))
        if not pair.has_room(tokens, row.get("answer_tokens", room)):
            raise UserError(
                "{name} makes a prompt of {tokens} tokens, and its model takes {context} with the answer; leave it out, or show "
                "fewer examples.",
                name=system,
                tokens=tokens,
                context=pair.context,
            )


def answer_alone(pair: SideBySide, side: str, conversations: Sequence[Any], task: Task, system: str) -> list[str]:
    """Greedy answers of `side` to a conversation for each row, or by the task's beams where it can. Raises UserError when the
    reporter says stop, or where there is no room for an answer."""
    check_room(pair, conversations, task, system, task.longest)
    tools = [row.get("tools") for row in task.rows]
    alone = replace(pair, sides=[each for each in pair.sides if side in each.names], names=(side,))
    texts: dict[int, str] = {}
    beams = task.beams if source_target.of(pair.tokenizer) else 1
    config = GenerateConfig(max_new_tokens=task.longest, beams=beams)
    for answers in alone.answers(conversations, config, task.batch_size, reporter=task.reporter, tools=tools):
        texts |= {index: answer[side] for index, answer in answers.items()}
        task.reporter.answered(len(texts), len(task.rows))
    if len(texts) < len(task.rows):
        raise UserError("Stopped while {name} answered; the evaluation itself is saved.", name=system)
    return [texts[place] for place in range(len(task.rows))]
