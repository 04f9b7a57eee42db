"""The models in memory, shared by all who talk to them: for each base, or run with full weights, one engine."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sftdemo import runs
from sftdemo.config.generate import GenerateConfig
from sftdemo.encoding.detokenizer import Answer
from sftdemo.errors import UserError, unexpected
from sftdemo.inference import gpu_answers, load_run
from sftdemo.inference.decoding import Chunk
from sftdemo.inference.engine import Engine
from sftdemo.inference.fair_lock import FairLock
from sftdemo.inference.line import MOST_A_SESSION, Event, Place, Question
from sftdemo.inference.seq2seq_engine import Seq2SeqEngine
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import saved_modules
from sftdemo.system import malloc, resources, zero_gpu

if TYPE_CHECKING:
    from sftdemo.encoding.chat_template import Messages, Tools
    from sftdemo.inference.request import Side
    from sftdemo.inference.side_by_side import SideBySide

MOST_ADAPTERS = 8  # runs of one base in memory beside it; the one used longest ago makes room
MEMORY_SHARE = 0.5  # of the memory that is free without them, for models that nobody asks at the moment
RESIDENCE_S = 30.0  # a model stays so long before another may take its memory, so that two visitors can't make it load all the time
DRAIN_S = 120.0  # for the questions that are being answered by a model which has to go
WARM_UP = [{"role": "user", "content": "Hello"}]

# Templates and tokenizers work here, not on the web server's threads.
_prompting = ThreadPoolExecutor(4, thread_name_prefix="prompt")
_calling = ThreadPoolExecutor(16, thread_name_prefix="gpu call")


@dataclass(frozen=True)
class ServedRuns:
    """A base and some runs of it, as one visitor talks to them; the engine answers others in the same batch."""

    pair: SideBySide
    engine: Engine
    engine_names: Mapping[str, str]  # of the engine's rows, by the names that are shown

    @property
    def _paths(self) -> list[str]:
        return [path for path in self.engine_names.values() if path != "base"]

    def question(
        self,
        put: Callable[[Event], None],
        messages: Messages | Mapping[str, Messages],
        config: GenerateConfig,
        asker: tuple[str, str],
        should_stop: Callable[[], bool] = lambda: False,
        tools: Tools | None = None,
        sides: Sequence[str] = (),
    ) -> Question:
        """The prompts of all sides, or of some, as the engine takes them; the `asker` is a visitor and the page it asks on.

        Raises UserError if the conversation leaves no room for an answer.
        """
        rows = self.pair.requests(messages, config.check(), tools, sides)
        shown = {self.engine_names[row.side]: row.side for row in rows}
        for row in rows:
            row.side = self.engine_names[row.side]
        texts = {row.side: Answer(self.pair.tokenizer, row.prompt) for row in rows}
        return Question(*asker, rows, texts, shown, put, should_stop)

    async def events(
        self,
        messages: Messages | Mapping[str, Messages],
        config: GenerateConfig,
        asker: tuple[str, str],
        should_stop: Callable[[], bool] = lambda: False,
        tools: Tools | None = None,
        sides: Sequence[str] = (),
        most: int = MOST_A_SESSION,
    ) -> AsyncGenerator[Place | Chunk, None]:
        """As SideBySide.stream, but in one batch with what other visitors ask, and with the places in line; closed, it leaves
        that batch. `sides` answer, and no others where any are named.

        No thread waits meanwhile, so that a hundred visitors in line leave the page to the others.
        """
        _, events = await self.begin(messages, config, asker, should_stop, tools, sides, most)
        async with aclosing(events):
            async for event in events:
                yield event

    async def begin(
        self,
        messages: Messages | Mapping[str, Messages],
        config: GenerateConfig,
        asker: tuple[str, str],
        should_stop: Callable[[], bool] = lambda: False,
        tools: Tools | None = None,
        sides: Sequence[str] = (),
        most: int = MOST_A_SESSION,
    ) -> tuple[int, AsyncGenerator[Place | Chunk, None]]:
        """How many tokens the first side's prompt has, and the `events` to come; it is asked with the first of these."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Event] = asyncio.Queue()

        def put(event: Event) -> None:
            with suppress(RuntimeError):  # the loop is closed: the web server has ended
                loop.call_soon_threadsafe(heard.put_nowait, event)

        question = await loop.run_in_executor(
            _prompting, self.question, put, messages, config, asker, should_stop, tools, sides
        )
        if zero_gpu.without_gpu():
            called = gpu_answers.stream(self._paths, messages, config.check(), should_stop, tools, sides)
            events = _in_thread(called)
        else:
            events = self._answered(question, heard, most)
        return len(question.rows[0].prompt), events

    async def _answered(
        self, question: Question, heard: asyncio.Queue[Event], most: int
    ) -> AsyncGenerator[Place | Chunk, None]:
        with self.engine.asked(question, most):
            left = len(question.rows)
            while left:
                event = checked(await heard.get())
                left -= isinstance(event, Chunk) and event.finish_reason is not None
                yield event


async def _in_thread(chunks: Generator[Chunk, None, None]) -> AsyncGenerator[Place | Chunk, None]:
    """A generator of chunks whose steps take long, on the web server's loop."""
    loop = asyncio.get_running_loop()
    try:
        while (chunk := await loop.run_in_executor(_calling, next, chunks, None)) is not None:
            yield chunk
    finally:
        await loop.run_in_executor(_calling, chunks.close)


def checked(event: Event) -> Place | Chunk:
    """The event; one that is an error is raised, what nobody foresaw as a UserError."""
    if isinstance(event, UserError):
        raise event
    if isinstance(event, Exception):
        raise UserError(unexpected(event))
    return event


@dataclass(eq=False)
class LoadedModels:
    """What is in memory of one base with adapters, or of one run with full weights."""

    members: dict[str, runs.Run]  # by version: the runs that can answer
    sides: list[Side]
    lock: FairLock = field(default_factory=FairLock)
    since: float = field(default_factory=time.monotonic)
    used: float = 0.0
    served: OrderedDict[tuple[str, ...], ServedRuns] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        settings = next(iter(self.members.values())).config()["settings"]
        self.engine = (Seq2SeqEngine if settings.get("task") == "seq2seq" else Engine)(self.sides, self.lock)

    @property
    def bytes(self) -> int:
        return sum(int(side.model.get_memory_footprint()) for side in self.sides)

    def serve(self, chosen: Sequence[runs.Run]) -> ServedRuns:
        """Some of the runs as they are talked to."""
        if served := self.opened(chosen):
            return served
        pair = load_run.side_by_side(self.sides, chosen, self.lock)
        names = {shown: name for name, shown in load_run.shown_names(chosen).items()}
        self.served[tuple(map(load_run.version, chosen))] = served = ServedRuns(pair, self.engine, names)
        while len(self.served) > 2 * MOST_ADAPTERS:
            self.served.popitem(last=False)
        return served

    def opened(self, chosen: Sequence[runs.Run]) -> ServedRuns | None:
        """As `serve`, where that has been done before."""
        versions = tuple(map(load_run.version, chosen))
        self.used = time.monotonic()
        if versions in self.served:
            self.served.move_to_end(versions)
        return self.served.get(versions)


def base_of(run: runs.Run) -> str:
    """What runs must have in common to answer from one copy of the weights; a run with weights of its own is alone."""
    config = run.config()
    settings = config.get("settings", {})
    if not saved_modules.shares_base(run):
        return load_run.version(run)
    base = config.get("base_model") or settings.get("model")
    return f"{base} {settings.get('quantization') or 'none'} {settings.get('task') or 'chat'}"


class ModelServer:
    """The models in memory: those used last, as many as there is room for. Loading is done for one caller at a time."""

    def __init__(self) -> None:
        self._loading = FairLock()
        self._guard = threading.Lock()
        self._loaded: dict[str, LoadedModels] = {}

    def holds(self, chosen: Sequence[runs.Run]) -> bool:
        """Whether these runs can answer without being loaded first."""
        loaded = self._loaded.get(base_of(chosen[0]))
        return loaded is not None and all(load_run.version(run) in loaded.members for run in chosen)

    def find(self, chosen: Sequence[runs.Run]) -> ServedRuns | None:
        """The runs, if they have been opened and are in memory; nothing is read or loaded."""
        with self._guard:
            loaded = self._loaded.get(base_of(chosen[0]))
            return loaded.opened(chosen) if loaded else None

    def open(self, chosen: Sequence[runs.Run], reporter: Reporter = TO_LOG) -> ServedRuns:
        """The runs, loaded first where they aren't in memory, beside those of the same base that are.

        Raises UserError where they can't answer together, or there is no memory for them.
        """
        load_run.check_together(chosen)
        with self._loading:
            if served := self.find(chosen):
                return served
            key = base_of(chosen[0])
            with self._guard:
                before = self._loaded.get(key)
            if before and self.holds(chosen):
                return before.serve(chosen)
            members = {load_run.version(run): run for run in chosen}
            for name, run in reversed((before.members if before else {}).items()):
                if len(members) < MOST_ADAPTERS and run.model_path.is_dir() and load_run.version(run) == name:
                    members.setdefault(name, run)
            self._make_room(list(members.values()))
            sides = load_run.load_sides(list(members.values()), reporter, deferred=True)
            loaded = LoadedModels(members, sides)
            served = loaded.serve(chosen)
            # The first pass costs more than the next; the first question shouldn't pay for it.
            served.pair.complete([WARM_UP], GenerateConfig(max_new_tokens=2))
            loaded.engine.prepare_step()
            with self._guard:
                before = self._loaded.pop(key, None)
                self._loaded[key] = loaded
            if before:
                before.engine.retire()
            self._keep_within_share(loaded)
            return served

    def counts(self) -> tuple[int, int, int]:
        """How many questions are being answered and how many wait, and how many tokens have been decoded so far."""
        with self._guard:
            counts = [models.engine.counts for models in self._loaded.values()]
        return sum(active for active, _ in counts), sum(waiting for _, waiting in counts), Engine.tokens

    def release(self) -> None:
        """Give the memory of all models back, once what is being asked has been answered."""
        with self._guard:
            loaded = list(self._loaded.values())
            self._loaded.clear()
        for models in loaded:
            models.engine.retire()
        del loaded
        _collect()

    def _make_room(self, chosen: Sequence[runs.Run]) -> None:
        """Unload others, the idle and those used longest ago first, until these fit."""
        while True:
            try:
                load_run.check_memory(chosen)
                return
            except UserError:
                with self._guard:
                    order = sorted(self._loaded.items(), key=lambda item: (not item[1].engine.idle, item[1].used))
                if not order:
                    raise
                self._unload(*order[0])

    def _unload(self, key: str, models: LoadedModels) -> None:
        """Let one go: at once if it is idle, else when it has been there for a while and has answered what it was asked."""
        wait = models.since + RESIDENCE_S - time.monotonic()
        if wait > 0 and not models.engine.idle:
            time.sleep(wait)
        with self._guard:
            self._loaded.pop(key, None)
        models.engine.retire()
        if not models.engine.wait_end(DRAIN_S):
            raise UserError("The memory is taken by a model that is still answering; ask again in a minute.")
        del models
        _collect()

    def _keep_within_share(self, newest: LoadedModels) -> None:
        """Unload idle models, those used longest ago first, while all together take more than their share of the memory."""
        with self._guard:
            others = sorted(self._loaded.items(), key=lambda item: item[1].used)
            taken = sum(models.bytes for models in self._loaded.values())
            limit = MEMORY_SHARE * (resources.free() + taken)
            for key, models in others:
                if taken > limit and models is not newest and models.engine.idle:
                    taken -= models.bytes
                    del self._loaded[key]
                    models.engine.retire()


def _collect() -> None:
    """Models have circles (hooks), which hold their memory until they are looked for."""
    gc.collect()
    malloc.give_back()


MODELS = ModelServer()
