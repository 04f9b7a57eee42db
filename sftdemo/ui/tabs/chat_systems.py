"""Other systems beside a run in chat: its linear model, its base with examples, runs of another base, and endpoints."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.generate import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.log import TO_LOG
from sftdemo.systems import spec
from sftdemo.systems.endpoint import Endpoint
from sftdemo.systems.few_shot import FewShot
from sftdemo.systems.linear import fitted
from sftdemo.systems.system import Task, prompt_text
from sftdemo.ui import models
from sftdemo.ui.access import allowance, private, rights
from sftdemo.ui.parts.page import title_of
from sftdemo.ui.parts.systems import system_name
from sftdemo.ui.tabs.conversation import Answer, Conversation
from sftdemo.ui.tabs.exchange import Exchange, coalesced, with_system
from sftdemo.ui.texts.faults import in_words

SHOTS = (4, 8)  # examples of the base that are offered
LINEAR = "system:linear"
T = TypeVar("T")
_fitting = ThreadPoolExecutor(1, thread_name_prefix="linear")  # a second click waits for what the first one fits


def is_system(name: str) -> bool:
    """Whether a column is of a system and no run of the base; no run's name has a colon."""
    return ":" in name


def offered(run: runs.Run, companions: Sequence[str], owner: bool) -> list[str]:
    """What else can answer beside the run and its companions; endpoints, those that its evaluations asked, to the owner."""
    if not _talks(run):
        return []
    config = run.config()
    names = [LINEAR] if config.get("data", {}).get("task") == "classification" else []
    rows = config.get("data", {}).get("sizes", {}).get("train", 0)
    names += [f"system:base+{count}" for count in SHOTS if count <= rows and run.kind == kinds.CHAT]
    others = [other for other in runs.list_runs() if other.name not in (run.name, *companions)]
    names += [f"run:{other.name}" for other in others if models.is_ready(other) and _talks(other)]
    if owner and not config.get("imported"):  # what came from elsewhere names no address that gets the owner's key
        asked = (run.scores(evaluation).get("systems", {}) for evaluation in run.evaluations())
        names += dict.fromkeys(name for systems in asked for name in systems if name.startswith("api:"))
    return names


def beside_title(name: str, lang: str) -> str:
    """What is offered, in words; of an endpoint its host first, as that is who gets the conversation."""
    if address := re.fullmatch(r"api:(.+?)@(https?://[^/\s]+)\S*", name):
        return f"{urlsplit(address[2]).hostname} · {address[1]}"
    return system_name(name.removeprefix("system:"), lang) if name.startswith("system:") else title_of(name)


def _talks(run: runs.Run) -> bool:
    return run.kind not in kinds.LABELLING


def checked(run: runs.Run, companions: Sequence[str], names: Sequence[str]) -> list[str]:
    """The systems among the names, each of which is offered to whoever asks; raises UserError for another."""
    systems = [name for name in names if is_system(name)]
    allowed = offered(run, companions, rights.current().owner) if systems else []
    for name in systems:
        if name not in allowed:
            raise UserError("{name!r} can't answer beside {run}; choose another.", name=name[:80], run=run.name)
    return systems


async def with_systems(
    exchanges: AsyncGenerator[Exchange, None] | None,
    run: runs.Run,
    conversation: Conversation,
    systems: Sequence[str],
    config: GenerateConfig,
    asker: tuple[str, str],
    stopped: Callable[[], bool],
    lang: str,
) -> AsyncGenerator[Exchange, None]:
    """The runs' answers as they are streamed, then each system's in turn; one's fault stands in its own column."""
    begun = Answer(seed=config.seed, temperature=config.temperature)
    exchange = Exchange()
    if exchanges is not None:
        async with aclosing(exchanges) as streamed:
            async for exchange in streamed:
                yield exchange
    for name in systems:
        exchange.answers[name] = begun
        if stopped():
            exchange.answers[name] = Answer(finish_reason="stopped")
            yield exchange
            continue
        messages = with_system(conversation.messages(name, run.name), conversation.system or "")
        with allowance.answering(rights.current(), config, 1) as texts:
            try:
                async with aclosing(_answered(name, run, messages, config, asker, stopped, exchange)) as updates:
                    async for update in updates:
                        yield update
            except UserError as error:
                fault = private.shown(in_words(error.text, lang))
                exchange.answers[name] = replace(exchange.answers[name], finish_reason="fault", fault=fault)
                exchange.stage = exchange.place = None
                yield exchange
            finally:
                texts.append(exchange.answers[name].text)


async def _answered(
    name: str,
    run: runs.Run,
    messages: list[dict[str, str]],
    config: GenerateConfig,
    asker: tuple[str, str],
    stopped: Callable[[], bool],
    exchange: Exchange,
) -> AsyncGenerator[Exchange, None]:
    """One system's answer, put into the exchange."""
    kind, _, rest = name.partition(":")
    if kind == "run":
        asked, side, sent = (rest,), "tuned", messages
    elif name != LINEAR and kind == "system":
        shots = FewShot(int(rest.removeprefix("base+")))
        (sent,) = await models.in_thread(lambda: shots.conversations(_task(run, messages, config)))
        asked, side = (run.name,), "base"
    else:
        yield exchange
        began = time.monotonic()
        answer = await _whole_answer(name, run, messages, config, stopped)
        exchange.answers[name] = Answer(finish_reason="stopped")
        if answer and not stopped():
            text, tokens = answer
            exchange.answers[name] = Answer(text, tokens, time.monotonic() - began, "stop")
        yield exchange
        return
    async with aclosing(models.loading(stopped, *asked)) as stages:
        async for exchange.stage in stages:
            yield exchange
    exchange.stage = None
    if stopped():
        exchange.answers[name] = Answer(finish_reason="stopped")
        yield exchange
        return
    served = await models.served(*asked)
    exchange.columns = {side: name}
    async with (
        aclosing(served.events(sent, config, asker, stopped, sides=[side])) as events,
        aclosing(coalesced(events, exchange)) as updates,
    ):
        async for update in updates:
            yield update


async def _whole_answer(
    name: str,
    run: runs.Run,
    messages: Sequence[dict[str, str]],
    config: GenerateConfig,
    stopped: Callable[[], bool],
) -> tuple[str, int] | None:
    """An answer that comes at once, and how many tokens it has where that is known; None once it is stopped."""
    if name == LINEAR:
        fitted_first = asyncio.get_running_loop().run_in_executor(_fitting, _linear_answer, run, messages)
        label = await unless(stopped, fitted_first)
        return None if label is None else (label, 0)
    (system,) = spec.parse(name, run)
    reply = await unless(stopped, cast(Endpoint, system).ask(messages, config.max_new_tokens))
    return None if reply is None else (reply.text, reply.tokens.get("completion_tokens", 0))


async def unless(stopped: Callable[[], bool], work: Awaitable[T]) -> T | None:
    """What the work comes to; None once it is stopped: it is cancelled then, its connections with it."""
    task = asyncio.ensure_future(work)
    try:
        while not stopped():
            if (await asyncio.wait([task], timeout=models.STOP_S))[0]:
                return task.result()
        return None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _linear_answer(run: runs.Run, messages: Sequence[dict[str, str]]) -> str:
    model, features = _linear(str(run.path), (run.path / "config.json").stat().st_mtime_ns)
    last = [message for message in messages if message["role"] == "system"] + [messages[-1]]
    return str(model.predict(features.values([prompt_text(last)]))[0])


@lru_cache(maxsize=4)
def _linear(path: str, _version: int) -> Any:
    """A run's linear model and its features."""
    run = runs.Run(Path(path))
    return fitted(_task(run, [], GenerateConfig()))


def _task(run: runs.Run, messages: Sequence[Any], config: GenerateConfig) -> Task:
    """One conversation, and the training rows that are learned from or shown."""
    train, validation = (cast("list[Any]", run.examples(split)) for split in ("train", "validation"))
    once = list({json.dumps(example["messages"], sort_keys=True): example for example in train}.values())
    counts = Counter(str(example["label"]) for example in once if example.get("label"))
    row = {"messages": messages, "task": None}
    seed = int(run.config().get("settings", {}).get("seed", config.seed))
    return Task(
        [row], once, validation, counts, sorted(counts), config.max_new_tokens, 1, seed, cast(Any, None), TO_LOG
    )
