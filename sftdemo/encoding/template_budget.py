"""How much work, text and time one rendering of a chat template may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jinja2.utils import Namespace

STEP = 32  # a step costs as much as so many characters
WORK = 2**24  # characters that a rendering may make in all, or half a million steps
WORK_PER_CHAR = 64  # and more for a long conversation
CHARS = 2**22  # in one text, or in a list as it would be written out
CHARS_PER_CHAR = 4
SECONDS = 2.0  # of the thread's own processor time: a busy machine fails nobody
SECONDS_PER_CHAR = 2e-6
_ATOMS = frozenset((int, float, bool, type(None)))
_CONTAINERS: tuple[type[Any], ...] = (
    list,
    tuple,
    dict,
    set,
    frozenset,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


class TemplateLimitError(Exception):
    """A chat template takes more than a conversation of this size can need; its text goes on from "The template …"."""


class Budget:
    """What is left to one rendering of a conversation of `chars` characters."""

    def __init__(self, chars: int) -> None:
        self.left = WORK + WORK_PER_CHAR * chars
        self.most = CHARS + CHARS_PER_CHAR * chars
        self.seconds = SECONDS + SECONDS_PER_CHAR * chars
        self.deadline = time.thread_time() + self.seconds
        self.questions = 0
        self.weights: dict[int, tuple[Any, int]] = {}  # by id; the object is kept, so that its id stays its own
        self.namespaces = 0  # weighed so far; what holds one can still change its weight

    def spend(self, chars: int) -> None:
        """Pay for a step that makes so many characters, before it does; TemplateLimitError where that is too much."""
        if chars > self.most:
            raise TemplateLimitError("makes a text or a list that is far too long")
        self.left -= chars + STEP
        if self.left < 0:
            raise TemplateLimitError("takes too many steps or makes too much text")
        self.questions += 1
        if not self.questions & 63 and time.thread_time() > self.deadline:
            raise TemplateLimitError("takes too much time")

    def weight(self, value: Any) -> int:
        """About how many characters a value has, written out; what stands in a list twice counts twice."""
        kind = type(value)
        if kind is str:
            return len(value)
        if kind in _ATOMS:
            return 1
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, Namespace):
            self.namespaces += 1
            value = object.__getattribute__(value, "_Namespace__attrs")
        elif not isinstance(value, _CONTAINERS):
            return 1
        elif (known := self.weights.get(id(value))) is not None:
            return known[1]
        self.spend(0)
        total, namespaces = 1, self.namespaces
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            total += 1 + self.weight(part)
            if total > self.most:
                raise TemplateLimitError("makes a text or a list that is far too long")
        if namespaces == self.namespaces:
            self.keep_weight(value, total)
        return total

    def keep_weight(self, value: Any, total: int) -> None:
        self.weights[id(value)] = value, total

    def written(self, value: Any) -> int:
        """How many characters a value has at most as text: one in a list may be escaped in ten."""
        return len(value) if isinstance(value, str) else 12 * self.weight(value)


class _Current(threading.local):
    budget: Budget | None = None


_current = _Current()


def current() -> Budget:
    """The budget of the rendering in this thread."""
    return _current.budget or Budget(0)


@contextmanager
def limited(chars: int) -> Iterator[None]:
    """Within, templates are compiled and rendered on the budget for a conversation of `chars` characters."""
    outer, _current.budget = _current.budget, Budget(chars)
    try:
        yield
    finally:
        _current.budget = outer
