"""Answers from base and tuned models side by side: one batch, one token a step for every row that isn't finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.generate import GenerateConfig
from sftdemo.encoding.chat_template import Messages, Tools
from sftdemo.encoding.chat_template import texts as texts_of
from sftdemo.encoding.detokenizer import Answer, without_empty_thoughts
from sftdemo.encoding.encode import answer_ids, encode_prompt, stop_ids
from sftdemo.encoding.rows import common_prefix
from sftdemo.errors import UsageError, UserError
from sftdemo.inference.batch import Batch
from sftdemo.inference.decoding import Chunk, Step, decode
from sftdemo.inference.fair_lock import FairLock
from sftdemo.inference.kv_cache import MIN_SHARED_TOKENS, CachedPrefix
from sftdemo.inference.request import Request, Side, together
from sftdemo.inference.scheduler import Scheduler, _scored
from sftdemo.log import TO_LOG, Reporter

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

PREFIX_CACHE_BYTES = 2**28  # bytes of keys and values kept from one turn of a conversation to the next
ALTERNATIVES = 5  # of a token, in `explain`
# A token has 4 characters of English; one of 16 is rare, and a prompt of such alone isn't worth the time.
TOKEN_CHARACTERS, LEAST_CHARACTERS, MOST_CHARACTERS = 16, 20_000, 2_000_000


@dataclass(frozen=True)
class Wanted:
    """What is wanted of each answer of many, as `SideBySide.answers` has it."""

    config: GenerateConfig
    batch_size: int
    labels: Sequence[list[int]]
    references: Sequence[list[int]]


@dataclass
class SideBySide:
    """A base and its tuned model, or several of them. One caller at a time: every method that computes holds the lock.

    `names` are those of the sides' names that answer: all of them, where none are given.
    """

    tokenizer: PreTrainedTokenizerBase
    sides: list[Side]
    generation_config: GenerationConfig | None = None
    name: str = ""
    names: tuple[str, ...] = ()
    lock: FairLock = field(default_factory=FairLock)
    _prefix_cache: dict[str, CachedPrefix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stop_ids = frozenset(stop_ids(self.tokenizer, self.generation_config))
        self.longest_target = 2**31
        self.names = self.names or tuple(name for side in self.sides for name in side.names)
        # One embedding row is always there, whatever the model has.
        self.context: int = (
            getattr(self.sides[0].model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        )

    def stream(
        self,
        messages: Messages | Mapping[str, Messages],
        config: GenerateConfig | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        tools: Tools | None = None,
    ) -> Iterator[Chunk]:
        """All sides' answers to a conversation, chunk by chunk as they grow, from one batch.

        `messages` is one conversation for all (`tools` are the functions it may call), or {"base": …, "tuned": …} where each side has its own history. The last
        chunk of a side has a finish_reason. What a side has computed is kept, so that the next turn begins behind it.
        Raises UserError if the conversation leaves no room for an answer.
        """
        config = (config or GenerateConfig()).check()
        rows = self.requests(messages, config, tools)
        texts = {row.side: Answer(self.tokenizer, row.prompt) for row in rows}
        with self.lock:
            began = time.perf_counter()
            batches = [
                Batch(side, group, self._prefix_cache, keep_prefixes=True)
                for side in self.sides
                for group in together(side, [row for row in rows if row.side in side.names])
            ]
            try:
                for step in self._steps(batches, should_stop):
                    row = step.row
                    text = texts[row.side].add(step.token) if step.token is not None else ""
                    if text or step.finish_reason:
                        speed = row.tokens / (time.perf_counter() - began)
                        yield Chunk(row.side, text, row.tokens, speed, step.finish_reason)
            finally:
                self._remember({row.side: prefix for batch in batches for row, prefix in batch.close()})

    def requests(
        self,
        messages: Messages | Mapping[str, Messages],
        config: GenerateConfig,
        tools: Tools | None = None,
        sides: Sequence[str] = (),
    ) -> list[Request]:
        """What each side is asked, or only `sides`. Raises UserError if the conversation leaves no room for an answer."""
        names = [name for name in self.names if not sides or name in sides]
        if not isinstance(messages, Mapping):
            prompt = self._prompt(messages, tools)
            return [self._row(name, 0, prompt, config) for name in names]
        return [self._row(name, 0, self._prompt(messages[name], tools), config) for name in names]

    def _prompt(self, messages: Messages, tools: Tools | None) -> list[int]:
        """Token ids; a conversation that is far beyond the model's context is refused before it is encoded."""
        size = sum(len(text) for message in messages for text in texts_of(message))
        most = min(max(LEAST_CHARACTERS, TOKEN_CHARACTERS * self.context), MOST_CHARACTERS)
        if size > most:
            raise UserError(
                "The conversation has {n:,} characters, and no more than {most:,} are taken here; shorten it.",
                n=size,
                most=most,
            )
        return encode_prompt(self.tokenizer, messages, tools)

    def _remember(self, prefixes: dict[str, CachedPrefix]) -> None:
        self._prefix_cache = prefixes if sum(prefix.bytes for prefix in prefixes.values()) <= PREFIX_CACHE_BYTES else {}

    def complete(
        self,
        conversations: Sequence[Messages],
        config: GenerateConfig | None = None,
        batch_size: int = EvaluateConfig.batch_size,
    ) -> list[dict[str, str]]:
        """All answers to each conversation: [{"base": str, "tuned": str}], in the order given."""
        answers: list[dict[str, str]] = [{} for _ in conversations]
        for finished in self.answers(conversations, config or GenerateConfig(), batch_size):
            for index, answer in finished.items():
                answers[index] = {name: answer[name] for name in self.names}
        return answers

    def answers(
        self,
        conversations: Sequence[Messages],
        config: GenerateConfig,
        batch_size: int = EvaluateConfig.batch_size,
        labels: Sequence[list[int]] = (),
        references: Sequence[list[int]] = (),
        skip: Container[int] = (),
        reporter: Reporter = TO_LOG,
        tools: Sequence[Tools | None] = (),
    ) -> Iterator[dict[int, dict[str, Any]]]:
        """Answer at most `batch_size` conversations at a time, all sides in one batch; where some end, others begin.

        Yields {index: {"base": str, "tuned": str}} as they are finished; with `labels` (token ids) also
        "base_likelihoods" and "tuned_likelihoods": [len(labels)] nats; with `references` (token ids, one a conversation)
        "base_nll" and "tuned_nll": nats of the whole reference. What all prompts begin with is computed once. Leaves out
        the indices in `skip`, and stops early, without what isn't finished, when `reporter` says so; it is told how many
        prompts have been read, those in `skip` included.
        """
        config.check()
        prompts = [self._ids(messages, tools[index] if tools else None) for index, messages in enumerate(conversations)]
        left = [index for index in range(len(prompts)) if index not in skip]
        waiting = sorted(left, key=lambda index: -len(prompts[index]))
        yield from self._answers(prompts, waiting, Wanted(config, batch_size, labels, references), reporter)

    def _ids(self, messages: Messages, tools: Tools | None) -> list[int]:
        return encode_prompt(self.tokenizer, messages, tools)

    def _answers(
        self, prompts: list[list[int]], waiting: list[int], wanted: Wanted, reporter: Reporter
    ) -> Iterator[dict[int, dict[str, Any]]]:
        """The answers to `prompts` (token ids) at the places in `waiting`, the longest first."""
        longest = max(map(len, prompts), default=0) + wanted.config.max_new_tokens
        open_: dict[int, PendingAnswers] = {}
        pool: Scheduler | None = None
        while waiting or open_:
            if reporter.should_stop():
                return
            with self.lock:
                pool = pool or Scheduler.of(self.sides, self.names, self._common(prompts), longest, wanted.batch_size)
                while waiting and (room := pool.room(len(open_))) and not reporter.should_stop():
                    chosen, waiting = waiting[:room], waiting[room:]
                    rows = [
                        self._row(name, index, prompts[index], wanted.config) for name in self.names for index in chosen
                    ]
                    scores = _scored(pool.read(rows), chosen, wanted.labels, wanted.references)
                    open_ |= {index: PendingAnswers(self, scores[index], prompts[index]) for index in chosen}
                    reporter.prefilled(len(prompts) - len(waiting))
                for batch in pool.batches:
                    for step in decode(batch):
                        open_[step.row.index].add(step)
            if finished := {index: answer.outputs for index, answer in open_.items() if not answer.missing}:
                open_ = {index: answer for index, answer in open_.items() if index not in finished}
                yield finished

    def explain(self, messages: Messages, answer: str, tools: Tools | None = None) -> dict[str, list[dict[str, Any]]]:
        """For each side the answer's tokens, its end of turn included, and what it thought of them.

        [{"token": str, "probability": float, "alternatives": [[str, float], …]}], the likeliest alternative first.
        """
        prompt = encode_prompt(self.tokenizer, messages, tools)
        ids = answer_ids(self.tokenizer, messages, answer, tools)
        if len(prompt) + len(ids) > self.context:
            raise UserError(
                "Prompt and answer have {n} tokens and the model takes {context}.",
                n=len(prompt) + len(ids),
                context=self.context,
            )
        explained: dict[str, list[dict[str, Any]]] = {}
        with self.lock:
            for side in self.sides:
                batch = Batch(side, [Request(name, 0, prompt, 0) for name in side.names if name in self.names])
                likeliest = batch.probabilities([ids] * len(batch.rows), ALTERNATIVES)
                explained |= {
                    row.side: self._words(ids, *tensors) for row, tensors in zip(batch.rows, likeliest, strict=True)
                }
        return explained

    def _words(self, ids: list[int], chosen: Tensor, top: Tensor, which: Tensor) -> list[dict[str, Any]]:
        decode = self.tokenizer.decode
        return [
            {
                "token": decode([token]),
                "probability": probability,
                "alternatives": [[decode([other]), value] for other, value in zip(others, values, strict=True)],
            }
            for token, probability, values, others in zip(
                ids, chosen.tolist(), top.tolist(), which.tolist(), strict=True
            )
        ]

    def _common(self, prompts: list[list[int]]) -> dict[str, CachedPrefix]:
        """What all prompts begin with, computed once for each side; the last token of a prompt is never in it."""
        count = min(common_prefix(prompts), min(map(len, prompts)) - 1)
        if len(prompts) < 2 or count < MIN_SHARED_TOKENS or not all(side.can_share for side in self.sides):
            return {}
        prefixes: dict[str, CachedPrefix] = {}
        for side in self.sides:
            batch = Batch(side, [Request(name, 0, prompts[0][:count], 0) for name in side.names], keep_prefixes=True)
            prefixes |= {row.side: prefix for row, prefix in batch.close()}
        return prefixes

    def has_room(self, prompt: int, answer: int) -> bool:
        """Whether the model takes a prompt and an answer of so many tokens."""
        return prompt + answer <= self.context

    def _row(self, side: str, index: int, prompt: list[int], config: GenerateConfig) -> Request:
        if config.beams > 1:
            raise UsageError("beams is for runs with task seq2seq; leave it out.")
        room = self.context - len(prompt)
        if room < 1:
            raise UserError(
                "The conversation has {n} tokens and the model takes {context}; shorten it or clear the chat.",
                n=len(prompt),
                context=self.context,
            )
        generator = torch.Generator().manual_seed(config.seed) if config.temperature else None
        limit = min(config.max_new_tokens, room)
        return Request(side, index, prompt, limit, generator, config=config, stop_ids=self.stop_ids)

    def _steps(self, batches: list[Batch], should_stop: Callable[[], bool]) -> Iterator[Step]:
        """Decode all rows to their end; one Step a row and token."""
        while any(batch.rows for batch in batches):
            if should_stop():
                yield from (Step(row, None, "stopped") for batch in batches for row in batch.rows)
                return
            for batch in batches:
                yield from decode(batch)


class PendingAnswers:
    """One conversation's answers in the making: `outputs` beside what was scored, whole once no side is `missing`."""

    def __init__(self, pair: SideBySide, outputs: dict[str, Any], prompt: list[int]) -> None:
        self.outputs = outputs
        self.missing = set(pair.names)
        self.texts = {name: Answer(pair.tokenizer, prompt) for name in pair.names}
        self.outputs |= dict.fromkeys(pair.names, "")

    def add(self, step: Step) -> None:
        name = step.row.side
        if step.token is not None:
            self.outputs[name] += self.texts[name].add(step.token)
        if step.finish_reason:
            self.outputs[name] = without_empty_thoughts(self.outputs[name]).strip()
            if step.finish_reason == "length":
                self.outputs[f"{name}_cut"] = True
            self.missing.discard(name)
