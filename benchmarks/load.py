"""Many visitors at once, over HTTP as browsers speak it: `python -m benchmarks.load URL --clients 30 --seconds 600`.

Each comes from an address of its own and keeps its cookie. It opens the page and asks in the Chat tab again and again;
meanwhile it clicks on what is light (the bar of running work, the list of runs) and votes. Prints one JSON object: errors, chats
served, the light requests' seconds by kind, how even the visitors' shares are, and how many votes were acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

QUESTION = "the film was good and nice"
LIGHT = ("bar", "runs", "pair", "vote")  # `/healthz`, which costs next to nothing, is counted apart


@dataclass
class Visitor:
    """One open page: its session, what it saw, and how long that took in seconds."""

    http: httpx.AsyncClient
    page: dict[str, Any]  # Gradio's config of the page
    pause: float = 1.0  # seconds between two clicks, on average
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # by kind of request
    asked: int = 0
    votes: int = 0  # acknowledged
    errors: list[str] = field(default_factory=list)

    def event(self, elem_id: str | None, kind: str) -> dict[str, Any]:
        """The event of a component, or of the page itself."""
        ids = {part["id"] for part in self.page["components"] if part["props"].get("elem_id") == elem_id}
        return next(
            dependency
            for dependency in self.page["dependencies"]
            for target, event in dependency["targets"]
            if event == kind and dependency["backend_fn"] and (elem_id is None or target in ids)
        )

    def named(self, name: str) -> dict[str, Any]:
        """The event of a public endpoint."""
        return next(each for each in self.page["dependencies"] if each["api_name"] == name)

    def values(self, event: dict[str, Any], **changed: Any) -> list[Any]:
        """What the page sends with an event: what its fields hold at the start, or are `changed` to, by elem_id."""
        parts = {part["id"]: part["props"] for part in self.page["components"]}
        return [changed.get(parts[key].get("elem_id", ""), parts[key].get("value")) for key in event["inputs"]]

    async def send(self, event: dict[str, Any], data: list[Any], tab: str) -> AsyncIterator[dict[str, Any]]:
        """Join the queue, and yield the messages of this event up to its last one; a tab does one thing at a time."""
        session = self.session + tab
        body = {"data": data, "fn_index": event["id"], "session_hash": session, "trigger_id": None}
        joined = await self.http.post("gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            raise RuntimeError(f"{joined.status_code}: {joined.text[:200]}")
        number = joined.json()["event_id"]
        async with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
            async for line in stream.aiter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("event_id") == number:
                    yield message
                    if message["msg"] == "process_completed":
                        return
        raise RuntimeError("the stream ended before the event")

    async def do(self, event: dict[str, Any], data: list[Any], tab: str = "") -> tuple[float, Any]:
        """The seconds until an event's second message that shows something, and what it ends with."""
        began, shown, ended = time.perf_counter(), [], None
        async for message in self.send(event, data, tab):
            if message["msg"] == "process_generating":
                shown.append(time.perf_counter() - began)
            if not message.get("success", True):
                raise RuntimeError(str(message.get("output"))[:300])
            ended = message.get("output")
        return (shown[1] if len(shown) > 1 else 0.0), ended

    async def timed(self, kind: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """What the work comes to; how long it took is kept, and so is an error, for which it is None."""
        began = time.perf_counter()
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001 (counted and reported)
            self.errors.append(f"{kind}: {type(error).__name__}: {error}")
            return None
        self.seconds[kind].append(time.perf_counter() - began)
        return result

    async def look(self, until: float) -> None:
        """What is light: the bar that every page asks for, and the list of runs."""
        bar, runs = self.event(None, "tick"), self.event("tab-runs", "select")

        async def healthy() -> None:
            (await self.http.get("healthz")).raise_for_status()

        while time.monotonic() < until:
            await self.timed("bar", lambda: self.do(bar, [], "2"))
            await self.timed("runs", lambda: self.do(runs, self.values(runs), "2"))
            await self.timed("health", healthy)
            await asyncio.sleep(random.uniform(0.5, 1.5) * self.pause)

    async def vote(self, until: float, run: str) -> None:
        """Pair after pair, until all are voted on."""
        following, cast = self.named("vote_next"), self.named("vote")
        while run and time.monotonic() < until:
            if (shown := await self.timed("pair", lambda: self.do(following, [run, self.session], "3"))) is not None:
                pair = shown[1]["data"][0]
                if pair["done"]:
                    return
                data = [pair["ballot"], random.choice(("a", "b", "tie", "bad")), self.session, ""]
                self.votes += await self.timed("vote", partial(self.do, cast, data, "3")) is not None
            await asyncio.sleep(random.uniform(5, 15) * self.pause)

    async def talk(self, until: float, tokens: int) -> None:
        """One question after the other, each to its end."""
        opened = self.event(None, "load")
        await self.do(opened, self.values(opened))
        send = self.event("chat-send", "click")
        data = self.values(send, **{"chat-input": QUESTION, "GenerateConfig-max_new_tokens": tokens})
        while time.monotonic() < until:
            self.asked += 1
            if (answered := await self.timed("chat", lambda: self.do(send, data))) is not None:
                self.seconds["first token"].append(answered[0])
            await asyncio.sleep(random.uniform(0.5, 1.5) * self.pause)


def spread(visitors: list[Visitor], *kinds: str) -> dict[str, Any]:
    """How many there were of these kinds, and how long they took, in seconds."""
    values = sorted(value for visitor in visitors for kind in kinds for value in visitor.seconds[kind])
    return {"n": len(values), **{f"p{round(100 * share)}": percentile(values, share) for share in (0.5, 0.95, 0.99)}}


def percentile(values: list[float], share: float) -> float | None:
    """Of sorted values."""
    return round(values[min(int(share * len(values)), len(values) - 1)], 3) if values else None


def report(visitors: list[Visitor], seconds: float) -> dict[str, Any]:
    served = [len(visitor.seconds["chat"]) for visitor in visitors]
    errors = [error for visitor in visitors for error in visitor.errors]
    return {
        "seconds": round(seconds, 1),
        "clients": len(visitors),
        "errors": len(errors),
        "first_errors": errors[:5],
        "light": spread(visitors, *LIGHT),
        **{kind: spread(visitors, kind) for kind in (*LIGHT, "health", "chat", "first token")},
        "chats_asked": sum(visitor.asked for visitor in visitors),
        "chats_served": sum(served),
        "chats_of_a_visitor": {"least": min(served), "most": max(served)},
        "votes_acknowledged": sum(visitor.votes for visitor in visitors),
    }


async def load(
    url: str, clients: int, seconds: float, tokens: int = 32, run: str = "", pause: float = 1.0
) -> dict[str, Any]:
    """Let so many visitors use the app at `url` for so long, and vote on `run` where one is given; all questions are waited
    for. `pause` is that of a visitor between two clicks, in seconds."""
    # The server closes a connection that was idle for five seconds; a browser would just ask again.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2)
    async with AsyncExitStack() as opened:
        visitors = []
        for number in range(clients):
            address = f"8.8.{number // 250}.{1 + number % 250}"
            client = httpx.AsyncClient(base_url=url, timeout=600, limits=limits, headers={"x-forwarded-for": address})
            http = await opened.enter_async_context(client)
            visitors.append(Visitor(http, (await http.get("config")).json(), pause))
        began = time.monotonic()
        until = began + seconds
        work = [(each.look(until), each.talk(until, tokens), each.vote(until, run)) for each in visitors]
        await asyncio.gather(*(each for several in work for each in several))
        return report(visitors, time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--run", default="", help="a run whose evaluation is open for votes")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds of a visitor between two clicks")
    options = parser.parse_args()
    url = options.url.rstrip("/") + "/"
    result = asyncio.run(load(url, options.clients, options.seconds, options.tokens, options.run, options.pause))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
