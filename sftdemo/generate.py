"""Answers from base and tuned models side by side: one batch, one token a step for every row that isn't finished."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo import machine
from sftdemo.batch import Batch, Row, Side, together
from sftdemo.cache import LEAST_SHARED, Past, token_bytes
from sftdemo.chat_template import Messages, Tools
from sftdemo.config import EvaluateConfig, GenerateConfig
from sftdemo.detokenizer import Answer, without_empty_thoughts
from sftdemo.encoding import answer_ids, common_prefix, encode_prompt, stop_ids
from sftdemo.errors import UserError
from sftdemo.grouped import Common, holds_common

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

REMEMBERED = 2**28  # bytes of keys and values kept from one turn of a conversation to the next
HELD = 2**30  # bytes of keys and values, at least, that rows answered together may take
PROMPT_ROWS = 32  # prompts in one forward pass; products gain nothing from more, and blocks over 32 MiB are mapped anew
ALTERNATIVES = 5  # of a token, in `explain`


@dataclass(frozen=True)
class Chunk:
    """A piece of one side's answer. `tokens` counts from the answer's start, `tokens_per_s` since the prompt went in."""

    side: str
    text: str
    tokens: int
    tokens_per_s: float
    finish_reason: str | None = None  # "stop", "length" or "stopped"


@dataclass(frozen=True)
class Step:
    """What one row gained in one step; `token` is None when it ended without one to show."""

    row: Row
    token: int | None
    finish_reason: str | None


@dataclass
class Pair:
    """A base and its tuned model, or several of them. One caller at a time: every method that computes holds the lock."""

    tokenizer: PreTrainedTokenizerBase
    sides: list[Side]
    generation_config: GenerationConfig | None = None
    name: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _pasts: dict[str, Past] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stop_ids = stop_ids(self.tokenizer, self.generation_config)
        self.names = tuple(name for side in self.sides for name in side.names)
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
        histories = messages if isinstance(messages, Mapping) else dict.fromkeys(self.names, messages)
        prompts = {name: encode_prompt(self.tokenizer, histories[name], tools) for name in self.names}
        rows = [self._row(name, 0, prompts[name], config) for name in self.names]
        texts = {name: Answer(self.tokenizer, prompts[name]) for name in self.names}
        with self.lock:
            began = time.perf_counter()
            batches = [
                Batch(side, some, self._pasts, keep_pasts=True)
                for side in self.sides
                for some in together(side, [row for row in rows if row.side in side.names])
            ]
            try:
                for step in self._steps(batches, config, should_stop):
                    row = step.row
                    text = texts[row.side].add(step.token) if step.token is not None else ""
                    if text or step.finish_reason:
                        speed = row.tokens / (time.perf_counter() - began)
                        yield Chunk(row.side, text, row.tokens, speed, step.finish_reason)
            finally:
                self._remember({name: past for batch in batches for name, past in batch.close().items()})

    def _remember(self, pasts: dict[str, Past]) -> None:
        self._pasts = pasts if sum(past.bytes for past in pasts.values()) <= REMEMBERED else {}

    def complete(
        self,
        conversations: Sequence[Messages],
        config: GenerateConfig | None = None,
        batch_size: int = EvaluateConfig.batch_size,
    ) -> list[dict[str, str]]:
        """All answers to each conversation: [{"base": str, "tuned": str}], in the order given."""
        found: list[dict[str, str]] = [{} for _ in conversations]
        for done in self.answers(conversations, config or GenerateConfig(), batch_size):
            for index, answer in done.items():
                found[index] = {name: answer[name] for name in self.names}
        return found

    def answers(
        self,
        conversations: Sequence[Messages],
        config: GenerateConfig,
        batch_size: int = EvaluateConfig.batch_size,
        labels: Sequence[list[int]] = (),
        references: Sequence[list[int]] = (),
        skip: Container[int] = (),
        should_stop: Callable[[], bool] = lambda: False,
        reading: Callable[[int], None] = lambda read: None,
        tools: Sequence[Tools | None] = (),
    ) -> Iterator[dict[int, dict[str, Any]]]:
        """Answer at most `batch_size` conversations at a time, all sides in one batch; where some end, others begin.

        Yields {index: {"base": str, "tuned": str}} as they are finished; with `labels` (token ids) also
        "base_likelihoods" and "tuned_likelihoods": [len(labels)] nats; with `references` (token ids, one a conversation)
        "base_nll" and "tuned_nll": nats of the whole reference. What all prompts begin with is computed once. Leaves out
        the indices in `skip`, and stops early, without what isn't finished, when told to. `reading` is told how many prompts
        have been read, those in `skip` included: a big model reads for minutes before the first answer ends.
        """
        config.check()
        prompts = [
            encode_prompt(self.tokenizer, messages, tools[index] if tools else None)
            for index, messages in enumerate(conversations)
        ]
        left = [index for index in range(len(prompts)) if index not in skip]
        waiting = sorted(left, key=lambda index: -len(prompts[index]))
        longest = max(map(len, prompts), default=0) + config.max_new_tokens
        open_: dict[int, _Answers] = {}
        pool: _Pool | None = None
        while waiting or open_:
            if should_stop():
                return
            with self.lock:
                pool = pool or _Pool.of(self.sides, self._common(prompts), longest, batch_size)
                while waiting and (room := pool.room(len(open_))) and not should_stop():
                    chosen, waiting = waiting[:room], waiting[room:]
                    rows = [self._row(name, index, prompts[index], config) for name in self.names for index in chosen]
                    scores = _scored(pool.read(rows), chosen, labels, references)
                    open_ |= {index: _Answers(self, scores[index], prompts[index]) for index in chosen}
                    reading(len(prompts) - len(waiting))
                for step in self._round(pool.batches, config):
                    open_[step.row.index].add(step)
            if ended := {index: answer.found for index, answer in open_.items() if not answer.missing}:
                open_ = {index: answer for index, answer in open_.items() if index not in ended}
                yield ended

    def explain(self, messages: Messages, answer: str, tools: Tools | None = None) -> dict[str, list[dict[str, Any]]]:
        """For each side the answer's tokens, its end of turn included, and what it thought of them.

        [{"token": str, "probability": float, "alternatives": [[str, float], …]}], the likeliest alternative first.
        """
        prompt = encode_prompt(self.tokenizer, messages, tools)
        ids = answer_ids(self.tokenizer, messages, answer, tools)
        if len(prompt) + len(ids) > self.context:
            raise UserError(
                f"Prompt and answer have {len(prompt) + len(ids)} tokens and the model takes {self.context}."
            )
        found: dict[str, list[dict[str, Any]]] = {}
        with self.lock:
            for side in self.sides:
                batch = Batch(side, [Row(name, 0, prompt, 0) for name in side.names])
                shares = batch.shares([ids] * len(side.names), ALTERNATIVES)
                found |= {row.side: self._words(ids, *share) for row, share in zip(batch.rows, shares, strict=True)}
        return found

    def _words(self, ids: list[int], chosen: Tensor, top: Tensor, which: Tensor) -> list[dict[str, Any]]:
        decode = self.tokenizer.decode
        return [
            {
                "token": decode([token]),
                "probability": share,
                "alternatives": [[decode([other]), value] for other, value in zip(others, values, strict=True)],
            }
            for token, share, values, others in zip(ids, chosen.tolist(), top.tolist(), which.tolist(), strict=True)
        ]

    def _common(self, prompts: list[list[int]]) -> dict[str, Past]:
        """What all prompts begin with, computed once for each side; the last token of a prompt is never in it."""
        count = min(common_prefix(prompts), min(map(len, prompts)) - 1)
        if len(prompts) < 2 or count < LEAST_SHARED or not all(side.can_share for side in self.sides):
            return {}
        found: dict[str, Past] = {}
        for side in self.sides:
            batch = Batch(side, [Row(name, 0, prompts[0][:count], 0) for name in side.names], keep_pasts=True)
            found |= batch.close()
        return found

    def _row(self, side: str, index: int, prompt: list[int], config: GenerateConfig) -> Row:
        room = self.context - len(prompt)
        if room < 1:
            raise UserError(
                f"The conversation has {len(prompt)} tokens and the model takes {self.context}; shorten it or clear the chat."
            )
        generator = torch.Generator().manual_seed(config.seed) if config.temperature else None
        return Row(side, index, prompt, min(config.max_new_tokens, room), generator)

    def _steps(self, batches: list[Batch], config: GenerateConfig, should_stop: Callable[[], bool]) -> Iterator[Step]:
        """Decode all rows to their end; one Step a row and token."""
        while any(batch.rows for batch in batches):
            if should_stop():
                yield from (Step(row, None, "stopped") for batch in batches for row in batch.rows)
                return
            yield from self._round(batches, config)

    def _round(self, batches: list[Batch], config: GenerateConfig) -> Iterator[Step]:
        """The next token of every row."""
        for batch in batches:
            if not batch.rows:
                continue
            tokens, keep = [], []
            for position, token in enumerate(choose(batch.logits, batch.rows, config)):
                step = self._step(batch.rows[position], token)
                if step.finish_reason is None:
                    tokens.append(token)
                    keep.append(position)
                yield step
            batch.advance(tokens, keep)

    def _step(self, row: Row, token: int) -> Step:
        if token in self.stop_ids:
            return Step(row, None, "stop")
        row.tokens += 1
        return Step(row, token, "length" if row.tokens >= row.limit else None)


class _Answers:
    """One conversation's answers in the making: `found` beside what was scored, whole once no side is `missing`."""

    def __init__(self, pair: Pair, found: dict[str, Any], prompt: list[int]) -> None:
        self.found = found
        self.missing = set(pair.names)
        self.texts = {name: Answer(pair.tokenizer, prompt) for name in pair.names}
        self.found |= dict.fromkeys(pair.names, "")

    def add(self, step: Step) -> None:
        name = step.row.side
        if step.token is not None:
            self.found[name] += self.texts[name].add(step.token)
        if step.finish_reason:
            self.found[name] = without_empty_thoughts(self.found[name]).strip()
            self.missing.discard(name)


@dataclass
class _Pool:
    """Batches that others join, one a side, within a bound of rows and conversations.

    What all prompts begin with is held once for all rows or, as one of `pasts`, copied into each.
    """

    batches: list[Batch]
    rows: int
    conversations: int
    pasts: Mapping[str, Past]

    @classmethod
    def of(cls, sides: list[Side], common: Mapping[str, Past], longest: int, conversations: int) -> _Pool:
        """`longest` is the length of a prompt with its answer, in tokens."""
        names = max(len(side.names) for side in sides)
        once = bool(common) and all(holds_common(side.model) for side in sides)
        longest -= len(next(iter(common.values())).ids) if once else 0
        rows = min(min(tokens_at_once(side.model) for side in sides) // (longest * len(sides)), conversations * names)
        begun = [Common([common[name] for name in side.names]) if once else None for side in sides]
        batches = [Batch(side, [], room=(rows, longest), common=each) for side, each in zip(sides, begun, strict=True)]
        return cls(batches, rows, conversations, {} if once else common)

    def room(self, open_: int) -> int:
        """How many conversations may be read next, while `open_` are answered; 0 while too many are."""
        names = max(len(batch.side.names) for batch in self.batches)
        taken = max(len(batch.rows) for batch in self.batches)
        if not self.batches[0].side.can_join:
            return 0 if taken else 1
        some = max(1, min(self.conversations, min(self.rows, PROMPT_ROWS) // names))
        fits = taken + some * names <= self.rows and open_ + some <= self.conversations
        return some if fits or not taken else 0

    def read(self, rows: list[Row]) -> list[Batch]:
        """Read the rows' prompts, to be scored, and decode them with the others from now on."""
        parts = [
            Batch(
                batch.side,
                [row for row in rows if row.side in batch.side.names],
                self.pasts,
                beside=batch,
                common=batch.common,
            )
            for batch in self.batches
        ]
        if self.batches[0].side.can_join:
            for batch, part in zip(self.batches, parts, strict=True):
                batch.join(part)
        else:
            self.batches = parts
        return parts


def _scored(
    batches: list[Batch], chosen: list[int], labels: Sequence[list[int]], references: Sequence[list[int]]
) -> dict[int, dict[str, Any]]:
    """The likelihoods of labels and references after each prompt, before anything is generated."""
    found: dict[int, dict[str, Any]] = {index: {} for index in chosen}
    for batch in batches:
        if labels:
            for row, scores in zip(batch.rows, batch.score(labels).tolist(), strict=True):
                found[row.index][f"{row.side}_likelihoods"] = scores
        if references:
            gained = batch.likelihood([references[row.index] for row in batch.rows])
            for row, tokens in zip(batch.rows, gained, strict=True):
                found[row.index][f"{row.side}_nll"] = -tokens.sum().item()
    return found


def tokens_at_once(model: PreTrainedModel) -> int:
    """As many as have keys and values of the size of the model's weights, or of 1 GB where these are smaller, within half
    of the memory that is free."""
    return int(min(max(HELD, model.get_memory_footprint()), machine.free() // 2)) // token_bytes(model)


@torch.inference_mode()
def choose(logits: Tensor, rows: list[Row], config: GenerateConfig) -> list[int]:
    """The next token of each row: the likeliest, or one drawn from the nucleus (Holtzman et al. 2020) by the row's generator."""
    if not config.temperature:
        return logits.argmax(-1).tolist()  # type: ignore[no-any-return]
    shares = torch.softmax(logits.float().cpu() / config.temperature, -1)
    ordered, index = shares.sort(-1, descending=True)
    # A token stays while the likelier ones before it haven't reached top_p, so the first always does.
    ordered[ordered.cumsum(-1) - ordered >= config.top_p] = 0
    drawn = [torch.multinomial(share, 1, generator=row.generator) for share, row in zip(ordered, rows, strict=True)]
    return index.gather(1, torch.stack(drawn))[:, 0].tolist()  # type: ignore[no-any-return]
