"""A conversation as a file: JSONL with a line of messages for each model, or Markdown to read."""

from __future__ import annotations

import re

from sftdemo import files
from sftdemo.encoding.thoughts import answer_of
from sftdemo.errors import UserError
from sftdemo.ui.tabs.conversation import Conversation, as_messages

FORMATS = ("jsonl", "md")
_UNSAFE = re.compile(r"[^\w.-]+")


def exported(conversation: Conversation, form: str, name: str) -> tuple[str, str]:
    """The file's name and text, for the browser to save; `form` is one of FORMATS."""
    if not any(turn.answers for turn in conversation.turns):
        raise UserError("There is no conversation to export yet; ask something first.")
    text = as_jsonl(conversation) if form == "jsonl" else as_markdown(conversation, name)
    return f"{_UNSAFE.sub('-', name).strip('-.') or 'chat'}.{form}", text


def as_jsonl(conversation: Conversation) -> str:
    """{"messages", "model"} a line: what each model was asked, in its wording, and what it answered."""
    return files.jsonl(
        {"messages": as_messages(conversation, name), "model": name or "base"} for name in conversation.names
    )


def as_markdown(conversation: Conversation, name: str) -> str:
    """Each question once, and the answers to it below, fenced: no viewer draws or fetches what stands in them."""
    parts = [f"# {name}\n"]
    if (conversation.system or "").strip():
        parts.append(f"System:\n\n{_fenced(conversation.system or '')}\n")
    for number, turn in enumerate(conversation.turns, 1):
        parts.append(f"## {number}\n\n{_fenced(turn.text)}\n")
        if turn.expected:
            parts.append(f"Expected:\n\n{_fenced(turn.expected)}\n")
        parts += [_answered(model or "base", answer.text) for model, answer in turn.answers.items()]
    return "\n".join(parts)


def _answered(model: str, text: str) -> str:
    return f"**{model}**\n\n{_fenced(answer_of(text))}\n"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
