"""Lists of turns as OpenAI, ShareGPT and preference sets write them, to messages; and a fault for each turn that can't be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sftdemo.data.readers import kind
from sftdemo.data.types import Message

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_TOOLS = "Tools can't be trained on; write what was said without them, or remove the row."
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


@dataclass
class Chat:
    """Turns the field of one row into messages. `fault` and `mend` take (problem, what to do or what was done)."""

    fault: Callable[[str, str], None]
    sound: Callable[[str, str], str]  # (a turn's text, its name) to the text, mended or warned of
    mend: Callable[[str, str], None] | None  # None where nothing may be mended

    def messages(self, turns: Any) -> list[Message] | None:
        """The messages; None after a fault."""
        if isinstance(turns, str):
            turns = parsed_list(turns)
        if not isinstance(turns, list) or not turns:
            self.fault("The field is no list of turns.", 'Write [{"role": "user", "content": "…"}, …].')
            return None
        if problem := _tools(turns):
            self.fault(problem, _TOOLS)
            return None
        made = [self.message(number, turn) for number, turn in enumerate(turns, 1)]
        messages = [message for message in made if message]
        if len(messages) < len(made):
            return None
        return self.ordered(messages)

    def message(self, number: int, turn: Any) -> Message | None:
        if not isinstance(turn, dict):
            self.fault(f"Turn {number} is {kind(turn)}, not an object.", "Give it a role and content.")
            return None
        named = turn.get("role") or turn.get("from")
        content = _joined(turn["content"] if turn.get("content") is not None else turn.get("value"))
        role = ROLES.get(named.casefold()) if isinstance(named, str) else None
        if role is None:
            problem = f"has the unknown role {named!r}" if named else "has no role"
            self.fault(f"Turn {number} {problem}.", "Use system, user or assistant.")
        if not isinstance(content, str):
            problem = "has no content" if content is None else f"has {kind(content)} for content, not text"
            self.fault(f"Turn {number} {problem}.", "Give it text.")
        elif not content.strip() or not (content := self.sound(content, f"Turn {number}")).strip():
            self.fault(f"Turn {number} is empty.", "Fill it in, or remove the row.")
        elif role:
            return Message(role=role, content=content)  # type: ignore[typeddict-item]
        return None

    def ordered(self, messages: list[Message]) -> list[Message] | None:
        """The messages, if user and assistant alternate and the assistant has the last word; else None after faults."""
        if self.mend:
            messages = self.joined(messages, self.mend)
        roles = [message["role"] for message in messages]
        problems: list[tuple[str, str]] = []
        for number, (role, following) in enumerate(pairwise(roles), 1):
            if following == "system":
                problems.append((f"Turn {number + 1} is a system turn.", "Only the first turn may be one."))
            elif role == following:
                said = f"Turns {number} and {number + 1} are both the {role}'s."
                problems.append((said, "Join them, or add the turn between."))
        if "assistant" not in roles:
            problems.append(("There is no assistant turn.", "Add the answer, or remove the row."))
        elif roles[-1] != "assistant":
            problems.append(("The last turn is not the assistant's.", "Add the answer, or remove that turn."))
        if "user" not in roles:
            problems.append(("There is no user turn.", "Add the question, or remove the row."))
        for problem, remedy in problems:
            self.fault(problem, remedy)
        return None if problems else messages

    def joined(self, messages: list[Message], mend: Callable[[str, str], None]) -> list[Message]:
        """Neighbours of one speaker as one turn, and without a last question that nobody answers."""
        found: list[Message] = []
        for number, message in enumerate(messages, 1):
            if found and found[-1]["role"] == message["role"] != "system":
                mend(f"Turns {number - 1} and {number} are both the {message['role']}'s.", "They were joined.")
                found[-1] = {"role": message["role"], "content": f"{found[-1]['content']}\n\n{message['content']}"}
            else:
                found.append(message)
        if found[-1]["role"] == "user" and any(message["role"] == "assistant" for message in found):
            mend("The last turn is not the assistant's.", "It was cut off.")
            found.pop()
        return found


def _tools(turns: list[Any]) -> str | None:
    """Which turn calls a tool or is a tool's answer, if any."""
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            continue
        if turn.get("tool_calls") or turn.get("function_call"):
            return f"Turn {number} calls a tool."
        named = turn.get("role") or turn.get("from")
        if named in ("tool", "function", "function_call", "observation", "ipython"):
            return f"Turn {number} is a tool's ({named})."
    return None


def _joined(content: Any) -> Any:
    """The text of content that is given in parts, [{"type": "text", "text": "…"}, …]; anything else as it is."""
    if not isinstance(content, list) or not content:
        return content
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content  # type: ignore[arg-type]


def transcript(text: str) -> list[dict[str, str]] | None:
    """The turns of "Human: …", "Assistant: …", as some preference sets write them; None for any other text."""
    start, *parts = _SPEAKER.split(text.strip())
    if start or not parts:
        return None
    return [
        {"role": speaker.casefold(), "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def parsed_list(text: str) -> list[Any] | None:
    """The JSON list that a CSV cell holds."""
    if not text.lstrip().startswith("["):
        return None
    try:
        return json.loads(text)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return None
