"""Conversations side by side, and the answers that are streamed into them."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sftdemo import runs
from sftdemo.config import GenerateConfig
from sftdemo.data.conversion.templates import around
from sftdemo.encoding.control_tokens import control_tokens
from sftdemo.encoding.thoughts import message_of
from sftdemo.errors import UserError
from sftdemo.ui import work
from sftdemo.ui.access import allowance, rights
from sftdemo.ui.parts import html
from sftdemo.ui.texts import say

SIDES = ("base", "tuned", "second", "third")  # columns: the base, the chosen run, and runs of the same base beside it
UPDATE_S = 1 / 12  # every update sends both columns again, so not each token gets one
MOST_UPDATES = 40  # a second, of all visitors' answers together; each costs the web server some milliseconds


_streams = 0  # answers that are streamed at the moment


@dataclass
class Side:
    """What one column shows: the conversation, the answer in the making, its speed and why it ended."""

    history: list[dict[str, str]]
    text: str = ""
    tokens_per_s: float = 0.0
    finish_reason: str | None = None

    def shown(self, lang: str = "en") -> list[dict[str, Any]]:
        answer = [message_of(self.text)] if self.text else []
        return folded([*self.history, *answer], lang, thinking=self.finish_reason is None)


@dataclass
class Exchange:
    """Both columns during one answer."""

    sides: dict[str, Side] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)  # by the name that the models give a side
    place: Any = None  # in line, as long as none answers

    def take(self, chunk: Any) -> None:
        self.place = None
        if not hasattr(chunk, "side"):
            self.place = chunk
            return
        side = self.sides[self.columns.get(chunk.side, chunk.side)]
        side.text += chunk.text
        side.tokens_per_s = chunk.tokens_per_s
        side.finish_reason = chunk.finish_reason or side.finish_reason


# A Chatbot draws HTML also where it draws no Markdown. What would begin a tag or be an entity is written so that it is seen
# as it was, and nothing else, since the text is copied from there.
_AS_TEXT = ((re.compile(r"&(?=#?\w+;)"), "&amp;"), (re.compile(r"<(?=[a-zA-Z/!?])"), "&lt;"))
_FROM_TEXT = ((re.compile(r"&lt;(?=[a-zA-Z/!?])"), "<"), (re.compile(r"&amp;(?=#?\w+;)"), "&"))


def as_text(text: str) -> str:
    """A text as a Chatbot is given it, to show all of it as it is."""
    for pattern, written in _AS_TEXT:
        text = pattern.sub(written, text)
    return text


def from_text(text: str) -> str:
    """The text that `as_text` was given."""
    for pattern, written in _FROM_TEXT:
        text = pattern.sub(written, text)
    return text


def folded(history: Sequence[Mapping[str, str]], lang: str, thinking: bool = False) -> list[dict[str, Any]]:
    """Messages as a Chatbot shows them, thoughts folded before their answer; open while the model is still `thinking`."""
    bubbles: list[dict[str, Any]] = []
    for number, message in enumerate(history, 1):
        answer = {key: value for key, value in message.items() if key != "reasoning_content"}
        if thoughts := message.get("reasoning_content"):
            going_on = thinking and number == len(history) and not answer["content"]
            about = {"title": say(lang, "chat_thoughts"), "status": "pending" if going_on else "done"}
            bubbles.append({"role": "assistant", "content": as_text(thoughts), "metadata": about})
        if answer["content"] or not thoughts:
            bubbles.append({**answer, "content": as_text(answer["content"])})
    return bubbles


def messages(history: Sequence[Mapping[str, Any]] | None) -> list[dict[str, str]]:
    """A Chatbot's value as plain messages: its contents are lists of blocks, its folded ones the thoughts of the next."""
    plain: list[dict[str, str]] = []
    thought = False
    for bubble in history or []:
        content = from_text(html.plain(bubble["content"]))
        if (bubble.get("metadata") or {}).get("title"):
            plain.append({"role": "assistant", "content": "", "reasoning_content": content})
            thought = True
            continue
        if thought and bubble["role"] == "assistant":
            plain[-1]["content"] = content
        else:
            plain.append({"role": str(bubble["role"]), "content": content})
        thought = False
    return plain


def without_last_answer(history: list[dict[str, str]]) -> list[dict[str, str]]:
    return history[:-1] if history and history[-1]["role"] == "assistant" else history


def conversation(history: list[dict[str, str]], system: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system.strip()}, *history] if system.strip() else history


def system_prompt(run: runs.Run) -> str:
    """The system prompt that the run was trained with, or ""."""
    return run.config().get("settings", {}).get("system") or ""


def question(run: runs.Run, text: str, as_trained: bool = True) -> str:
    """What was typed, or with `as_trained` what the run's rows would make of it: its instruction around it."""
    instruction = run.config().get("data", {}).get("instruction") or ""
    return around(instruction, text) if as_trained else text


def has_instruction(run: runs.Run) -> bool:
    """Whether the run was trained on questions that are more than what a person would type."""
    return question(run, "") != ""


async def coalesced(
    events: AsyncGenerator[Any, None], exchange: Exchange, every: float = UPDATE_S
) -> AsyncGenerator[Exchange, None]:
    """Fill the exchange from the stream; yield at most every so many seconds, at a new place in line, and at the end.

    The more answers are streamed, the fewer updates each of them gets.
    """
    global _streams
    last = 0.0
    _streams += 1
    try:
        async for event in events:
            exchange.take(event)
            if exchange.place or time.monotonic() - last >= max(every, _streams / MOST_UPDATES):
                last = time.monotonic()
                yield exchange
        yield exchange
    finally:
        _streams -= 1


async def stream(
    run_names: Sequence[str],
    histories: Mapping[str, list[dict[str, str]]],
    system: str,
    config: GenerateConfig,
    asker: tuple[str, str],
    stopped: Callable[[], bool],
) -> AsyncGenerator[Exchange, None]:
    """The answers of a base and these runs of it to their histories, by column; each ends with the user's turn."""
    served = await work.served(*run_names)
    columns = dict(zip(served.pair.names, histories, strict=True))
    conversations = {name: conversation(histories[column], system) for name, column in columns.items()}
    exchange = Exchange({side: Side(list(history)) for side, history in histories.items()}, columns)
    with allowance.answering(rights.current(), config, len(histories)) as texts:
        try:
            async with (
                aclosing(served.events(conversations, config, asker, stopped)) as events,
                aclosing(coalesced(events, exchange)) as updates,
            ):
                async for update in updates:
                    yield update
        finally:
            texts += [side.text for side in exchange.sides.values()]


def histories_to_answer(
    histories: Mapping[str, list[dict[str, str]]], text: str, retry: bool
) -> dict[str, list[dict[str, str]]]:
    """Each column's conversation up to the user's turn: a new one, or with `retry` the last one once more."""
    if not retry:
        if not text.strip():
            raise UserError("Type a question first.")
        return {side: [*history, {"role": "user", "content": text}] for side, history in histories.items()}
    before = {side: without_last_answer(history) for side, history in histories.items()}
    if not before["base"]:
        raise UserError("There is no answer to make again yet.")
    return before


async def spells_control_tokens(run_names: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether what was written has the models' own control tokens in it, which are read as text."""
    tokenizer = (await work.served(*run_names)).pair.tokenizer

    def spelled() -> bool:
        control = control_tokens(tokenizer)
        return any(control.stand_in(text) for text in texts)

    return bool(await work.in_thread(spelled))
