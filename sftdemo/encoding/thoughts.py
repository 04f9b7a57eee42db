"""Where a model's thoughts end and its answer begins, and what of it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftdemo.encoding import calls

# As the models' own templates write them.
MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel>thought": "<channel|>",
    "<|channel|>analysis": "<|channel|>final<|message|>",
}


def split_thoughts(text: str) -> tuple[str, str]:
    """(thoughts, answer), the marks on neither side; a text without thoughts is all answer, as it stands.

    The answer is what follows the last closing mark, since the prompt may have written the opening one and thoughts may
    quote a mark. Thoughts that are opened and never closed leave no answer.
    """
    for opening, closing in MARKS.items():
        thoughts, closed, rest = text.rpartition(closing)
        before, opened, unclosed = rest.partition(opening)
        if opened and not before.strip():
            return _unmarked(f"{thoughts}\n{unclosed}", opening, closing), ""
        if closed:
            return _unmarked(thoughts, opening, closing), rest.lstrip()
    return "", text


def _unmarked(thoughts: str, opening: str, closing: str) -> str:
    return thoughts.replace(opening, "").replace(closing, "").strip()


def answer_of(text: str) -> str:
    """What follows the thoughts of a text."""
    return split_thoughts(text)[1]


def message_of(text: str) -> dict[str, str]:
    """What a model wrote as an assistant's message, its thoughts apart; thoughts that never ended have no answer behind."""
    thoughts, answer = split_thoughts(text)
    message = {"role": "assistant", "content": answer}
    return {**message, "reasoning_content": thoughts} if thoughts else message


def scored_of(row: Mapping[str, Any], text: str) -> str:
    """What is scored of an answer to a row of outputs: what follows the thoughts, its calls written as in the references."""
    return calls.in_one_way(row, answer_of(text))


def answers_only(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of outputs whose base, tuned and references are what is scored of them; a reference that is all thoughts stays."""
    return {
        **row,
        **{side: scored_of(row, row[side]) for side in ("base", "tuned")},
        "references": [scored_of(row, text) or text for text in row["references"]],
    }
