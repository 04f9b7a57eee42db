"""Who is answered next: visitors take turns, and nobody asks more at once than a bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sftdemo.errors import UserError
from sftdemo.inference.decoding import Chunk

if TYPE_CHECKING:
    from sftdemo.encoding.detokenizer import Answer
    from sftdemo.inference.request import Request

MOST_WAITING = 64  # questions in line, of all visitors
MOST_EACH = 32  # questions of one visitor, waiting or being answered; many may come from one address
MOST_A_SESSION = 3  # of them from one page


class BusyError(UserError):
    """Too much is asked at once; it can be asked again later."""


@dataclass(frozen=True)
class Place:
    """Where a question stands in line: how many are answered before it, and about how long that takes, where it is known."""

    ahead: int
    seconds: float | None


Event = Place | Chunk | Exception


@dataclass(eq=False)
class Question:
    """One question of one visitor, answered by a row for each side; `put` is told how it goes, from the engine's thread.

    `session` is the visitor's page that it was asked on. `texts` are by the names of `rows`, and `shown` says what a side is
    called in the chunks.
    """

    visitor: str
    session: str
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
    """Questions that wait. Not for two threads at once."""

    def __init__(self) -> None:
        self._waiting: list[Question] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Question]:
        return iter(list(self._waiting))

    def add(self, question: Question, active: Sequence[Question], most: int = MOST_A_SESSION) -> None:
        """Put a question at the end, beside `active` ones that are being answered; `most` are one session's at once.

        Raises BusyError when the line is too long, or the visitor's part of it.
        """
        if len(self) >= MOST_WAITING:
            raise BusyError("{n} questions are waiting already; ask again in a minute.", n=len(self))
        own = [other for other in (*active, *self._waiting) if other.visitor == question.visitor]
        if len(own) >= MOST_EACH or sum(other.session == question.session for other in own) >= most:
            raise BusyError(
                "{n} of your questions are being answered or wait already; wait for one, or stop it.", n=len(own)
            )
        self._waiting.append(question)

    def remove(self, question: Question) -> None:
        self._waiting.remove(question)

    def in_order(self, active: Sequence[Question]) -> list[Question]:
        """The next first: visitors take turns, and within a visitor its pages."""
        by_session = _in_turns(self._waiting, active, lambda question: question.session)
        return _in_turns(by_session, active, lambda question: question.visitor)


def _in_turns(
    waiting: Sequence[Question], active: Sequence[Question], owner: Callable[[Question], str]
) -> list[Question]:
    """An owner's second question comes after everybody's first, those being answered counted; else as they came."""
    count = Counter(map(owner, active))
    ranks = []
    for question in waiting:
        ranks.append(count[owner(question)])
        count[owner(question)] += 1
    return [waiting[place] for place in sorted(range(len(waiting)), key=lambda place: ranks[place])]
