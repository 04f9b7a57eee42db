"""Many visitors at once, over HTTP as a browser speaks it: `python -m benchmarks.load URL --clients 30 --seconds 600`.

Each opens the page, asks in the Chat tab again and again, and meanwhile clicks on what is light (the bar of running work, the
list of runs). Prints one JSON object: errors, chats served, the light requests' percentiles, how even the visitors' shares are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

PAUSE_S = 1.0  # of a visitor between two clicks, on average
QUESTION = "the film was good and nice"


@dataclass
class Visitor:
    """One open page: its session, what it saw, and how long that took in seconds."""

    http: httpx.AsyncClient
    page: dict[str, Any]  # Gradio's config of the page
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    light: list[float] = field(default_factory=list)
    chats: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def event(self, elem_id: str | None, kind: str) -> dict[str, Any]:
        """The event of a component, or of the page itself."""
        ids = {part["id"] for part in self.page["components"] if part["props"].get("elem_id") == elem_id}
        return next(
            dependency
            for dependency in self.page["dependencies"]
            for target, event in dependency["targets"]
            if event == kind and (elem_id is None or target in ids)
        )

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

    async def do(self, event: dict[str, Any], data: list[Any], tab: str = "") -> tuple[float, float]:
        """The seconds until an event's second message that shows something, and until its end."""
        began, shown = time.perf_counter(), []
        async for message in self.send(event, data, tab):
            if message["msg"] == "process_generating":
                shown.append(time.perf_counter() - began)
            if not message.get("success", True):
                raise RuntimeError(str(message.get("output"))[:300])
        return (shown[1] if len(shown) > 1 else 0.0), time.perf_counter() - began

    async def look(self, until: float) -> None:
        """What is light: the bar that every page asks for, and the list of runs."""
        bar = self.event(None, "tick")
        while time.monotonic() < until:
            try:
                began = time.perf_counter()
                await self.do(bar, [], "2")
                self.light.append(time.perf_counter() - began)
                began = time.perf_counter()
                (await self.http.get("healthz")).raise_for_status()
                self.light.append(time.perf_counter() - began)
            except Exception as error:  # noqa: BLE001 (counted and reported)
                self.errors.append(f"light: {type(error).__name__}: {error}")
            await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_S)

    async def talk(self, until: float, tokens: int) -> None:
        """One question after the other, each to its end."""
        opened = self.event(None, "load")
        await self.do(opened, self.values(opened))
        send = self.event("chat-send", "click")
        data = self.values(send, **{"chat-input": QUESTION, "GenerateConfig-max_new_tokens": tokens})
        while time.monotonic() < until:
            try:
                first, whole = await self.do(send, data)
                self.chats.append(whole)
                self.first_tokens.append(first)
            except Exception as error:  # noqa: BLE001 (counted and reported)
                self.errors.append(f"chat: {type(error).__name__}: {error}")
            await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_S)


def percentile(values: list[float], share: float) -> float | None:
    return round(sorted(values)[min(int(share * len(values)), len(values) - 1)], 3) if values else None


def report(visitors: list[Visitor], seconds: float) -> dict[str, Any]:
    light = [value for visitor in visitors for value in visitor.light]
    chats = [value for visitor in visitors for value in visitor.chats]
    first = [value for visitor in visitors for value in visitor.first_tokens]
    served = [len(visitor.chats) for visitor in visitors]
    errors = [error for visitor in visitors for error in visitor.errors]
    return {
        "seconds": round(seconds, 1),
        "clients": len(visitors),
        "errors": len(errors),
        "first_errors": errors[:5],
        "light": {"n": len(light), "p50": percentile(light, 0.5), "p95": percentile(light, 0.95)},
        "chats": {"n": len(chats), "p50": percentile(chats, 0.5), "p95": percentile(chats, 0.95)},
        "first_token": {"p50": percentile(first, 0.5), "p95": percentile(first, 0.95)},
        "chats_of_a_visitor": {"least": min(served), "most": max(served)},
    }


async def load(url: str, clients: int, seconds: float, tokens: int = 32) -> dict[str, Any]:
    """Let so many visitors use the app at `url` for so long; all questions are waited for."""
    # The server closes a connection that was idle for five seconds; a browser would just ask again.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        page = (await http.get("config")).json()
        visitors = [Visitor(http, page) for _ in range(clients)]
        began = time.monotonic()
        until = began + seconds
        await asyncio.gather(*(work for each in visitors for work in (each.look(until), each.talk(until, tokens))))
        return report(visitors, time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    url = options.url.rstrip("/") + "/"
    print(json.dumps(asyncio.run(load(url, options.clients, options.seconds, options.tokens)), indent=1))


if __name__ == "__main__":
    main()
