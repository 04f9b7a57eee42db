"""The answers to a conversation's last question, as they are streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.generate import GenerateConfig
from sftdemo.data.conversion.wording import Wording, put_as, wordings_of
from sftdemo.encoding.control_tokens import control_tokens
from sftdemo.errors import UserError
from sftdemo.schema.run import StageState
from sftdemo.ui import models
from sftdemo.ui.access import allowance, rights
from sftdemo.ui.tabs.conversation import BASE, Answer, Conversation, columns_of

UPDATE_S = 1 / 12  # every update sends all answers again, so not each token gets one
MOST_UPDATES = 40  # a second, of all visitors' answers together; each costs the web server some milliseconds


_streams = 0  # answers that are streamed at the moment


@dataclass
class Exchange:
    """All answers in the making."""

    answers: dict[str, Answer] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)  # by the name that the models give a side
    place: Any = None  # in line, as long as none answers
    stage: StageState | None = None  # of the loading, before that

    def take(self, chunk: Any) -> None:
        self.place = None
        if not hasattr(chunk, "side"):
            self.place = chunk
            return
        name = self.columns.get(chunk.side, chunk.side)
        answer = self.answers[name]
        self.answers[name] = replace(
            answer,
            text=answer.text + chunk.text,
            tokens=chunk.tokens,
            seconds=chunk.tokens / chunk.tokens_per_s if chunk.tokens_per_s else answer.seconds,
            finish_reason=chunk.finish_reason or answer.finish_reason,
        )


def with_system(messages: list[dict[str, str]], system: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system.strip()}, *messages] if system.strip() else messages


def asked_wordings(run: runs.Run) -> list[Wording]:
    """How the run's questions are worded; not at all where it labels texts, which it reads as they are."""
    return [] if run.kind in kinds.LABELLING else wordings_of(run.config())


def question(run: runs.Run, text: str, as_trained: bool = True) -> str:
    """What was typed, or with `as_trained` what the run's rows would make of it: its instruction around it.

    Raises UserError where that can't be told.
    """
    wordings = asked_wordings(run)
    worded = put_as(wordings, text) if as_trained else text
    if worded is not None:
        return worded
    if len(wordings) > 1:
        raise UserError(
            "The run was trained on several kinds of questions; type the whole question, or switch off “Ask it the way it was "
            "trained”."
        )
    raise UserError(
        "The run's questions have several parts; type them as {pattern!r}, or switch off “Ask it the way it was trained”.",
        pattern=wordings[0].pattern,
    )


def has_instruction(run: runs.Run) -> bool:
    """Whether the run was trained on questions that are more than what a person would type."""
    return bool(asked_wordings(run))


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
    conversation: Conversation,
    answering: Sequence[str],
    config: GenerateConfig,
    asker: tuple[str, str],
    stopped: Callable[[], bool],
) -> AsyncGenerator[Exchange, None]:
    """The answers of those named, of a base and these runs of it, to the conversation's last question; the runs are loaded
    first."""
    run = runs.named(run_names[0])
    if run.kind in kinds.LABELLING:
        with allowance.answering(rights.current(), config, len(answering)):
            yield Exchange(await models.in_thread(partial(_labels, run, conversation, answering)))
        return
    begun = Answer(seed=config.seed, temperature=config.temperature)
    async with aclosing(models.loading(stopped, *run_names)) as stages:
        async for stage in stages:
            yield Exchange(dict.fromkeys(answering, begun), stage=stage)
    if stopped():
        yield Exchange(dict.fromkeys(answering, replace(begun, finish_reason="stopped")))
        return
    served = await models.served(*run_names)
    columns = dict(zip(served.pair.names, columns_of(run_names), strict=True))
    system = conversation.system or ""
    sent = {side: with_system(conversation.messages(name, run_names[0]), system) for side, name in columns.items()}
    sides = [side for side, name in columns.items() if name in answering]
    exchange = Exchange(dict.fromkeys(answering, begun), columns)
    with allowance.answering(rights.current(), config, len(sides)) as texts:
        try:
            async with (
                aclosing(served.events(sent, config, asker, stopped, sides=sides)) as events,
                aclosing(coalesced(events, exchange)) as updates,
            ):
                async for update in updates:
                    yield update
        finally:
            texts += [answer.text for answer in exchange.answers.values()]


def _labels(run: runs.Run, conversation: Conversation, answering: Sequence[str]) -> dict[str, Answer]:
    """What both sides of a run that labels texts say of the last one: each label's probability, or the text with its entities
    marked."""
    from sftdemo.inference import labelling

    by_side = labelling.label(run, conversation.turns[-1].question(run.name))
    shown = {"base": BASE, "tuned": run.name}
    texts = {shown[side]: own.shown for side, own in by_side.items()}
    return {name: Answer(text=text, finish_reason="stop") for name, text in texts.items() if name in answering}


async def spells_control_tokens(run_names: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether what was written has the models' own control tokens in it, which are read as text."""
    tokenizer = (await models.served(*run_names)).pair.tokenizer

    def spelled() -> bool:
        control = control_tokens(tokenizer)
        return any(control.stand_in(text) for text in texts)

    return bool(await models.in_thread(spelled))
