"""The values that every part of sftdemo passes around: a message, an example, a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

from sftdemo.errors import Fault

SPLITS = ("train", "validation", "test")


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


class Example(TypedDict):
    """One row. The last message is the assistant's: the answer to learn. With a `label`, the answer equals it."""

    messages: list[Message]
    label: NotRequired[str]
    references: NotRequired[list[str]]
    meta: NotRequired[dict[str, Any]]


@dataclass
class Dataset:
    """What was read: examples by split, and all that is to be said about them."""

    source: str
    name: str
    format: str = "unknown"
    task: str = "generation"
    splits: dict[str, list[Example]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    duplicates: int = 0
    leaked: int = 0
    sha256: str = ""
    mapping: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # The template the user turns were written with; read other data with it and both are asked the same way.
    instruction: str = ""

    @property
    def examples(self) -> int:
        return sum(map(len, self.splits.values()))
