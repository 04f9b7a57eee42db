"""Who is answered next: visitors take turns, and nobody asks more at once than a bound."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sftdemo.errors import UserError
from sftdemo.inference.decoding import Chunk

if TYPE_CHECKING:
    from sftdemo.encoding.detokenizer import Answer
    from sftdemo.inference.request import Request

MOST_WAITING = 64  # questions in line, of all visitors
MOST_EACH = 3  # questions of one visitor, waiting or being answered


@dataclass(frozen=True)
class Place:
    """Where a question stands in line: how many are answered before it, and about how long that takes, where it is known."""

    ahead: int
    seconds: float | None


Event = Place | Chunk | Exception


@dataclass(eq=False)
class Question:
    """One question of one visitor, answered by a row for each side; `put` is told how it goes, from the engine's thread.

    `texts` are by the names of `rows`, and `shown` says what a side is called in the chunks.
    """

    visitor: str
    rows: list[Request]
    texts: dict[str, Answer]
    shown: dict[str, str]
    put: Callable[[Event], None]
    should_stop: Callable[[], bool] = lambda: False
    began: float = 0.0
    place: Place | None = None
    withdrawn: bool = False
    open: int = field(init=False)  # rows without an end so far

    def __post_init__(self) -> None:
        self.open = len(self.rows)

    @property
    def over(self) -> bool:
        """Whether nobody waits for the rest of it."""
        return self.withdrawn or self.should_stop()

    @property
    def tokens(self) -> int:
        """The longest that one of its rows can become."""
        return max(len(row.prompt) + row.limit for row in self.rows)


class Line:
    """Questions that wait, by visitor. Not for two threads at once."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Question]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Question]:
        return (question for questions in self._waiting.values() for question in questions)

    def add(self, question: Question, active: int, most: int = MOST_EACH) -> None:
        """Put a question at the end; its visitor has `active` others that are being answered and may have `most`."""
        if len(self) >= MOST_WAITING:
            raise UserError("{count} questions are waiting already; ask again in a minute.", count=len(self))
        own = self._waiting.get(question.visitor, deque())
        if len(own) + active >= most:
            raise UserError(
                "{count} of your questions are being answered or wait already; wait for one, or stop it.",
                count=len(own) + active,
            )
        self._waiting.setdefault(question.visitor, own).append(question)

    def in_order(self, active: list[Question]) -> list[Question]:
        """The next first: a visitor's second question comes after everybody's first, those being answered counted."""
        answered = Counter(question.visitor for question in active)
        ranked = [
            (answered[visitor] + number, turn, question)
            for turn, (visitor, questions) in enumerate(self._waiting.items())
            for number, question in enumerate(questions)
        ]
        return [question for *_, question in sorted(ranked, key=lambda rank: rank[:2])]

    def remove(self, question: Question) -> None:
        """Take a question out; its visitor's next one waits behind the other visitors' next ones."""
        if rest := self._waiting.pop(question.visitor, None):
            rest.remove(question)
            if rest:
                self._waiting[question.visitor] = rest
