"""Handlers of events, of whichever kind, run inside a context."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing
from typing import Any


class Final(dict[Any, Any]):
    """The updates of a handler that has nothing to say after them."""


def inside(handler: Callable[..., Any], context: Callable[[], AbstractContextManager[Any]]) -> Callable[..., Any]:
    """The handler, a function, a coroutine or a generator of either, as one of its kind that runs inside the context."""

    @functools.wraps(handler)
    def answer(*arguments: Any, **named: Any) -> Any:
        with context():
            return handler(*arguments, **named)

    @functools.wraps(handler)
    def answers(*arguments: Any, **named: Any) -> Iterator[Any]:
        with context():
            yield from handler(*arguments, **named)

    @functools.wraps(handler)
    async def answer_async(*arguments: Any, **named: Any) -> Any:
        with context():
            return await handler(*arguments, **named)

    @functools.wraps(handler)
    async def answers_async(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        with context():
            async with aclosing(handler(*arguments, **named)) as updates:
                async for update in updates:
                    yield update

    if inspect.isasyncgenfunction(handler):
        return answers_async
    if inspect.iscoroutinefunction(handler):
        return answer_async
    return answers if inspect.isgeneratorfunction(handler) else answer
