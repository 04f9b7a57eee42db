"""What visitors use up: booked in the ledger before it is used, and what they have waiting for the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sftdemo import files
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.generate import GenerateConfig
from sftdemo.data.sources import GENERAL_QUESTIONS
from sftdemo.errors import Text, UserError
from sftdemo.ui.access import rights
from sftdemo.ui.access.ledger import ADDRESS_SHARE, Limit

BYTES_A_TOKEN = 3.5  # about, over languages
Kind = Literal["tokens", "votes", "rows", "steps", "minutes", "uploads", "chat_changes"]
WORDS: dict[Kind, Text] = {
    "tokens": Text("tokens of answers"),
    "votes": Text("votes"),
    "rows": Text("evaluated rows"),
    "steps": Text("training steps"),
    "minutes": Text("minutes of training"),
    "uploads": Text("uploads"),
    "chat_changes": Text("changes of kept chats"),
}
ALL = "all visitors"
HEAVY_QUEUES = ("comparison", "report")  # whoever may look may ask for these, and they take a core for seconds


def limits(visitor: rights.Visitor, kind: str) -> list[Limit]:
    """The visitor's own, that of the address, which a few may share, and that of all together."""
    config = rights.policy().config
    own, total = getattr(config, f"visitor_{kind}"), getattr(config, f"all_{kind}")
    return [
        Limit(visitor.key, own),
        Limit(f"address {visitor.address}", min(ADDRESS_SHARE * own, total)),
        Limit(ALL, total),
    ]


def spend(visitor: rights.Visitor, kind: Kind, amount: float) -> None:
    """Book what a visitor uses; raises UserError where less is left. The owner has no limits."""
    if not visitor.owner:
        rights.ledger().take(kind, limits(visitor, kind), amount, lambda *short: scarce(kind, amount, *short))


def scarce(kind: Kind, amount: float, limit: Limit, wait_s: float) -> UserError:
    values: dict[str, Any] = {"amount": math.ceil(amount), "kind": WORDS[kind], "limit": round(limit.amount)}
    if wait_s == math.inf:
        return UserError("This takes {amount} {kind}, and {limit} an hour are the most here; ask for less.", **values)
    values["minutes"] = math.ceil(wait_s / 60)
    if limit.bucket == ALL:
        return UserError(
            "This takes {amount} {kind}, and all visitors together have {limit} an hour; try again in {minutes} min.",
            **values,
        )
    return UserError(
        "This takes {amount} {kind}, and a visitor has {limit} an hour; try again in {minutes} min.", **values
    )


def refund(visitor: rights.Visitor, kind: Kind, amount: float) -> None:
    """Give back what was booked and not used."""
    if not visitor.owner:
        rights.ledger().give_back(kind, limits(visitor, kind), amount)


def asked_rows(config: EvaluateConfig, held_out: int) -> int:
    """How many rows an evaluation of so many held-out ones asks, the general questions among them."""
    return held_out + (sum(1 for _ in files.read_jsonl(GENERAL_QUESTIONS)) if config.general else 0)


@dataclass
class Reservation:
    """What was booked ahead, and how much of it was used."""

    amount: float
    used: float = 0.0


@contextmanager
def reserved(visitor: rights.Visitor, kind: Kind, amount: float) -> Iterator[Reservation]:
    """Book the most that something can use; at its end, what it didn't use is given back."""
    spend(visitor, kind, amount)
    booked = Reservation(amount)
    try:
        yield booked
    finally:
        refund(visitor, kind, booked.amount - booked.used)


@contextmanager
def answering(visitor: rights.Visitor, config: GenerateConfig, sides: int) -> Iterator[list[str]]:
    """Book the longest answers of so many sides; those that were given, put into the list, are what was used."""
    with reserved(visitor, "tokens", sides * config.max_new_tokens) as booked:
        answers: list[str] = []
        try:
            yield answers
        finally:
            booked.used = min(sum(len(text.encode()) for text in answers) / BYTES_A_TOKEN, booked.amount)


def limit_waiting(queue: Any) -> None:
    """Let nobody put more into Gradio's queue than a share of it; looking is quick and isn't counted or refused."""
    push = queue.push

    async def admit(body: Any, request: Any, username: str | None) -> Any:
        visitor = rights.visitor(request)
        fn = queue.blocks.fns.get(body.fn_index)
        if not visitor.owner and (fn is None or is_counted(fn)) and (refusal := crowded(queue, visitor)):
            return False, str(refusal), "queue_full"
        return await push(body, request, username)

    queue.push = admit


def is_counted(fn: Any) -> bool:
    """Whether an event of this function takes long: all but looking, and of that what stands in HEAVY_QUEUES."""
    return getattr(fn.fn, "needs", "look") != "look" or fn.concurrency_id in HEAVY_QUEUES


def crowded(queue: Any, visitor: rights.Visitor) -> Text | None:
    """Why a visitor has to wait before asking for more, or None."""
    waiting = [
        rights.visitor(event.request) for event in list(queue.event_ids_to_events.values()) if is_counted(event.fn)
    ]
    own, address, total = (round(limit.amount) for limit in limits(visitor, "waiting"))
    if sum(other.key == visitor.key for other in waiting) >= own:
        return Text("You have {n} requests waiting, the most a visitor may; wait for one of them.", n=own)
    if len(waiting) >= total or sum(other.address == visitor.address for other in waiting) >= address:
        return Text("Too many requests are waiting; try again in a moment.")
    return None
