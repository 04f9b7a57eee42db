"""A model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.from_thread import start_blocking_portal

from sftdemo.errors import Text, UserError
from sftdemo.systems.chat_completions import Reply, Service
from sftdemo.systems.system import Answers, Row, Task

if TYPE_CHECKING:
    import httpx

AT_ONCE = 4  # requests, so that neither a small server nor a rate limit is overrun
WATCH_S = 0.2  # between looks at whether to stop


@dataclass(frozen=True)
class Endpoint:
    """The model `model` of the service at `url`."""

    model: str
    url: str

    @property
    def name(self) -> str:
        return f"api:{self.model}@{self.url}"

    @property
    def service(self) -> Service:
        return Service(self.name, self.model, self.url)

    def check(self, task: Task) -> None:
        pass  # whether it answers shows when it is asked

    def identity(self) -> Any:
        return None

    def answer(self, task: Task) -> Answers:
        """Each reply is kept as it comes: rows that it answered before a fault or a stop aren't paid for again."""
        kept = task.kept.read() if task.kept else {}
        replies = {place: Reply(row["text"], row["tokens"], row["about"]) for place, row in kept.items()}
        before, began, n = len(replies), time.perf_counter(), len(task.rows)
        with start_blocking_portal() as portal:
            asking = portal.start_task_soon(self._ask_all, task, replies)
            known = -1
            while wait([asking], WATCH_S).not_done:
                if len(replies) != known:
                    known = len(replies)
                    task.reporter.answered(known, n)
                if task.reporter.should_stop():
                    raise UserError("Stopped while {name} answered; the evaluation itself is saved.", name=self.name)
            listed = asking.result()
        task.reporter.answered(len(replies), n)
        seconds = (time.perf_counter() - began) * n / (n - before) if before < n else None
        return self._answers([replies[place] for place in range(n)], seconds, listed, task)

    async def ask(self, messages: Sequence[Row], longest: int) -> Reply:
        """The answer to one conversation; cancelled, it closes its connection. Raises UserError where none comes."""
        async with self.service.client() as client:
            return await self.service.ask(client, {"messages": messages}, longest)

    async def _ask_all(self, task: Task, replies: dict[int, Reply]) -> dict[str, str]:
        """Fill in the replies that aren't there yet, a few at once; returns what the service says of its model."""
        waiting = iter([place for place in range(len(task.rows)) if place not in replies])

        async def ask_some(client: httpx.AsyncClient) -> None:
            for place in waiting:
                reply = await self.service.ask(client, task.rows[place], task.longest)
                if task.kept:
                    task.kept.add([{"row": place, **asdict(reply)}])
                replies[place] = reply

        async with self.service.client() as client:
            try:
                async with anyio.create_task_group() as group:
                    for _ in range(AT_ONCE):
                        group.start_soon(ask_some, client)
            except BaseExceptionGroup as faults:  # one that can't be answered ends the others
                raise faults.exceptions[0] from None
            return await self.service.listed(client)

    def _answers(self, replies: Sequence[Reply], seconds: float | None, listed: dict[str, str], task: Task) -> Answers:
        """What the replies come to; the reporter is told of those that the limit cut."""
        tokens: Counter[str] = Counter()
        values_of: dict[str, set[str]] = {}
        for reply in replies:
            tokens.update(reply.tokens)
            for key, value in reply.about.items():
                values_of.setdefault(key, set()).add(value)
        if cut := tokens.pop("cut", 0):
            task.reporter.info(
                Text(
                    "Answers of {name} that end at the limit of {limit} tokens: {n}; raise --max-new-tokens.",
                    name=self.name,
                    limit=task.longest,
                    n=cut,
                )
            )
        about = {key: ", ".join(sorted(values)) for key, values in values_of.items()} | listed
        return Answers([reply.text for reply in replies], seconds, tokens=dict(tokens), about=about)
