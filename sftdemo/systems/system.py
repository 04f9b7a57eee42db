"""What a system is: something that answers the rows of an evaluation, and what it may learn from before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from sftdemo.data.text.normalisation import normalise
from sftdemo.data.types import turn_text
from sftdemo.log import Reporter

if TYPE_CHECKING:
    from sftdemo.data import Example
    from sftdemo.inference.side_by_side import SideBySide
    from sftdemo.runs.partial import Partial

Row = Mapping[str, Any]


class KeptAnswer(TypedDict):
    """An answer of a service, kept until all rows have one."""

    row: int
    text: str
    tokens: dict[str, int]
    about: dict[str, str]


@dataclass(frozen=True)
class Task:
    """The `rows` of outputs.jsonl that every system answers, and the run's own training and validation rows, each once, with
    `label_counts` as they were before any balancing.

    `labels` are those that are declared, none where rows are scored as text; `longest` is an answer's limit in tokens; `pair`
    are the run's loaded models, where it chats; `templates` and `system` are the words and the system message that the
    run put around its questions; `beams` are searched by models that can; in `kept` a system whose answers cost money keeps each as it comes (`KeptAnswer`).
    """

    rows: Sequence[Row]
    train: Sequence[Example]
    validation: Sequence[Example]
    label_counts: Mapping[str, int]
    labels: Sequence[str]
    longest: int
    batch_size: int
    seed: int
    pair: SideBySide | None
    reporter: Reporter
    templates: Sequence[str] = ()
    beams: int = 1
    kept: Partial | None = None
    system: str = ""


@dataclass(frozen=True)
class Answers:
    """A text a row, and what they cost: seconds for all rows, seconds of training, bytes of the model, tokens of a service;
    and what a service said `about` itself."""

    texts: list[str]
    seconds: float | None = None
    training_seconds: float | None = None
    size: int | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)


class System(Protocol):
    """Something that answers rows. `name` is what it is asked for by."""

    @property
    def name(self) -> str: ...

    def check(self, task: Task) -> None:
        """Raise UserError where it can't answer these rows; no model is asked."""

    def identity(self) -> Any:
        """What decides its answers beside the rows and the run's training data, as JSON."""

    def answer(self, task: Task) -> Answers: ...


def asked(messages: Sequence[Row]) -> str:
    """A conversation up to its answer as it is compared with others: case, blanks and punctuation aside."""
    return normalise(prompt_text(messages))


def prompt_text(messages: Sequence[Row]) -> str:
    """A conversation up to its answer as one text."""
    return "\n".join(turn_text(message) for message in messages)  # type: ignore[arg-type]
