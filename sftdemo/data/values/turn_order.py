"""The order of turns: what is wrong with it, and what joining and cutting mends of it."""

from __future__ import annotations

from itertools import pairwise

from sftdemo.data.types import Message
from sftdemo.errors import Text

WHOSE = {"user": Text("the user's"), "assistant": Text("the assistant's"), "system": Text("the system's")}


def disorder(messages: list[Message]) -> list[tuple[Text, Text]]:
    """What keeps user and assistant from alternating until the assistant has the last word, each with its remedy."""
    roles = [message["role"] for message in messages]
    problems: list[tuple[Text, Text]] = []
    for number, (role, following) in enumerate(pairwise(roles), 1):
        if following == "system":
            problems.append((Text("Turn {n} is a system turn.", n=number + 1), Text("Only the first turn may be one.")))
        elif following == "tool" and role not in ("assistant", "tool"):
            problem = Text("Turn {n} is a tool's answer, and the assistant didn't ask for it.", n=number + 1)
            problems.append((problem, Text("Add the assistant's call before it, or remove the row.")))
        elif role == following != "tool":
            what = Text("Turns {n} and {m} are both {whose}.", n=number, m=number + 1, whose=WHOSE[role])
            problems.append((what, Text("Join them, or add the turn between.")))
    if roles[0] == "tool":
        problems.append((Text("Turn 1 is a tool's answer."), Text("Add the question and the call before it.")))
    if "assistant" not in roles:
        problems.append((Text("There is no assistant turn."), Text("Add the answer, or remove the row.")))
    elif roles[-1] not in ("assistant", "tool"):
        problems.append((Text("The last turn is not the assistant's."), Text("Add the answer, or remove that turn.")))
    if "user" not in roles:
        problems.append((Text("There is no user turn."), Text("Add the question, or remove the row.")))
    return problems


def joined(messages: list[Message]) -> tuple[list[Message], list[tuple[Text, Text]]]:
    """Neighbours of one speaker as one turn, and without a last question that nobody answers; and what was done so."""
    joined_messages: list[Message] = []
    done: list[tuple[Text, Text]] = []
    for number, message in enumerate(messages, 1):
        role, before = message["role"], joined_messages[-1] if joined_messages else None
        joins = role in ("user", "assistant") or (role == "system" and len(joined_messages) == 1)
        if before and joins and before["role"] == role and before.get("weight") == message.get("weight"):
            both = Text("Turns {n} and {m} are both {whose}.", n=number - 1, m=number, whose=WHOSE[role])
            done.append((both, Text("They were joined.")))
            joined_messages[-1] = as_one(before, message)
            continue
        joined_messages.append(message)
    if joined_messages[-1]["role"] == "user" and any(message["role"] == "assistant" for message in joined_messages):
        done.append((Text("The last turn is not the assistant's."), Text("It was cut off.")))
        joined_messages.pop()
    return joined_messages, done


def as_one(first: Message, second: Message) -> Message:
    """Two turns of one speaker as one."""
    message: Message = {**first, **second}
    for key, between in (("content", "\n\n"), ("reasoning_content", "\n\n")):
        if parts := [turn[key] for turn in (first, second) if turn.get(key)]:  # type: ignore[literal-required]
            message[key] = between.join(parts)  # type: ignore[literal-required]
    if calls := [*first.get("tool_calls", ()), *second.get("tool_calls", ())]:
        message["tool_calls"] = calls
    return message
