"""Answers from base and tuned side by side: one batch, one token a step for every row that isn't finished."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo.config import GenerateConfig
from sftdemo.encoding import Detokenizer, Messages, encode_prompt, stop_ids
from sftdemo.errors import UserError
from sftdemo.lora import Rows

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

SIDES = ("base", "tuned")
SCORE_FLOATS = 2**26  # logits held at once while scoring continuations: 256 MB


@dataclass(frozen=True)
class Chunk:
    """A piece of one side's answer. `tokens` counts from the answer's start, `tokens_per_s` since the prompt went in."""

    side: str
    text: str
    tokens: int
    tokens_per_s: float
    finish_reason: str | None = None  # "stop", "length" or "stopped"


@dataclass(frozen=True)
class Side:
    """One set of weights and the sides it answers for: both with LoRA by row, else one."""

    model: PreTrainedModel
    names: tuple[str, ...]
    rows: Rows | None = None


@dataclass
class Row:
    """One answer in the making."""

    side: str
    index: int
    prompt: list[int]
    limit: int
    generator: torch.Generator | None
    tokens: int = 0


@dataclass(frozen=True)
class Step:
    """What one row gained in one step; `token` is None when it ended without one to show."""

    row: Row
    token: int | None
    finish_reason: str | None


class Batch:
    """Rows decoded together by one set of weights; base rows stand before tuned rows.

    `logits` [rows, vocabulary] are those of each row's next token.
    """

    def __init__(self, side: Side, rows: list[Row]) -> None:
        from transformers import DynamicCache

        self.side = side
        self.rows = sorted(rows, key=lambda row: SIDES.index(row.side))
        self.cache = DynamicCache(config=side.model.config)
        width = max(len(row.prompt) for row in self.rows)
        lengths = torch.tensor([len(row.prompt) for row in self.rows])
        # Padding stands on the left, so that every row's last token is in the last column.
        self.mask = (torch.arange(width)[None] >= (width - lengths)[:, None]).long().to(side.model.device)
        ids = torch.tensor([[0] * (width - len(row.prompt)) + row.prompt for row in self.rows])
        self.lengths = lengths.to(side.model.device)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.logits = self._forward(ids, positions, self._padding(), keep=1)[:, -1]

    @torch.inference_mode()
    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, keep: int) -> Tensor:
        if self.side.rows:
            self.side.rows.tuned_from = sum(row.side == "base" for row in self.rows)
        return self.side.model(  # type: ignore[no-any-return]
            input_ids=ids.to(self.side.model.device),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits

    def _padding(self) -> Tensor | None:
        # Without padding the model takes its faster path for plain causal attention.
        return None if bool(self.mask.all()) else self.mask

    def advance(self, tokens: list[int], keep: list[int]) -> None:
        """Drop the rows not in `keep`, then feed each row that is left its token."""
        everyone = len(keep) == len(self.rows)
        self.rows = [self.rows[i] for i in keep]
        if not keep:
            return
        if not everyone:
            index = torch.tensor(keep, device=self.mask.device)
            self.mask, self.lengths = self.mask[index], self.lengths[index]
            self.cache.batch_select_indices(index)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], 1)
        self.lengths = self.lengths + 1
        self.logits = self._forward(torch.tensor(tokens)[:, None], self.lengths[:, None] - 1, self._padding(), keep=1)[
            :, -1
        ]

    @torch.inference_mode()
    def score(self, continuations: Sequence[list[int]]) -> Tensor:
        """Log-likelihood [rows, continuations] (nats, summed over tokens) of each continuation after each prompt.

        The prompt is computed once: all continuations follow it in one pass under a mask that keeps them apart.
        """
        vocabulary = self.logits.shape[-1]
        room = max(1, SCORE_FLOATS // (vocabulary * len(self.rows)))
        groups: list[list[list[int]]] = [[]]
        for continuation in continuations:
            if sum(map(len, groups[-1])) + len(continuation) > room and groups[-1]:
                groups.append([])
            groups[-1].append(continuation)
        return torch.cat([self._score(group) for group in groups], 1)

    def _score(self, group: list[list[int]]) -> Tensor:
        first = torch.log_softmax(self.logits.float(), -1)
        total = first[:, [continuation[0] for continuation in group]]
        fed = [continuation[:-1] for continuation in group]
        count = sum(map(len, fed))
        if not count:
            return total
        device = self.mask.device
        owner = torch.tensor([i for i, part in enumerate(fed) for _ in part], device=device)
        offset = torch.tensor([j for part in fed for j in range(len(part))], device=device)
        among = (owner[:, None] == owner[None]) & (offset[:, None] >= offset[None])
        rows = len(self.rows)
        visible = torch.cat([self.mask.bool()[:, None].expand(-1, count, -1), among[None].expand(rows, -1, -1)], 2)
        dtype = self.side.model.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
        ids = torch.tensor([[token for part in fed for token in part]]).expand(rows, -1)
        logits = self._forward(ids, self.lengths[:, None] + offset[None], mask[:, None], keep=0)
        self.cache.crop(-count)
        targets = torch.tensor([token for continuation in group for token in continuation[1:]], device=device)
        gained = torch.log_softmax(logits.float(), -1).gather(2, targets.expand(rows, -1)[..., None])[..., 0]
        return total.index_add(1, owner, gained)


@dataclass
class Pair:
    """The base and the tuned model of a run. One caller at a time: `stream` and `answers` hold the lock."""

    tokenizer: PreTrainedTokenizerBase
    sides: list[Side]
    generation_config: GenerationConfig | None = None
    name: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.stop_ids = stop_ids(self.tokenizer, self.generation_config)
        # One embedding row is always there, whatever the model has.
        self.context: int = getattr(self.sides[0].model.config, "max_position_embeddings", None) or 2**31

    def stream(
        self,
        messages: Messages | Mapping[str, Messages],
        config: GenerateConfig | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Chunk]:
        """Both sides' answers to a conversation, chunk by chunk as they grow, from one batch.

        `messages` is one conversation for both, or {"base": …, "tuned": …} where each side has its own history. The last
        chunk of a side has a finish_reason. Raises UserError if the conversation leaves no room for an answer.
        """
        config = (config or GenerateConfig()).check()
        histories = messages if isinstance(messages, Mapping) else dict.fromkeys(SIDES, messages)
        rows = [self._row(side, 0, encode_prompt(self.tokenizer, histories[side]), config) for side in SIDES]
        texts = {side: Detokenizer(self.tokenizer) for side in SIDES}
        began = time.perf_counter()
        with self.lock:
            for step in self._steps(rows, config, should_stop):
                row = step.row
                text = texts[row.side].add(step.token) if step.token is not None else ""
                if text or step.finish_reason:
                    speed = row.tokens / (time.perf_counter() - began)
                    yield Chunk(row.side, text, row.tokens, speed, step.finish_reason)

    def complete(
        self, conversations: Sequence[Messages], config: GenerateConfig | None = None, batch_size: int = 16
    ) -> list[dict[str, str]]:
        """Both answers to each conversation: [{"base": str, "tuned": str}], in the order given."""
        found: list[dict[str, str]] = [{} for _ in conversations]
        for done in self.answers(conversations, config or GenerateConfig(), batch_size):
            for index, answer in done.items():
                found[index] = {side: answer[side] for side in SIDES}
        return found

    def answers(
        self,
        conversations: Sequence[Messages],
        config: GenerateConfig,
        batch_size: int = 16,
        labels: Sequence[list[int]] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[dict[int, dict[str, Any]]]:
        """Answer batch by batch, rows of like length together, both sides of a row in the same batch.

        Yields {index: {"base": str, "tuned": str}} for each finished batch; with `labels` (token ids) also
        "base_likelihoods" and "tuned_likelihoods": [len(labels)] nats. Stops early, without the batch at hand, when told to.
        """
        config.check()
        prompts = [encode_prompt(self.tokenizer, messages) for messages in conversations]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [self._row(side, index, prompts[index], config) for side in SIDES for index in chosen]
            found: dict[int, dict[str, Any]] = {index: {} for index in chosen}
            texts = {(row.side, row.index): (Detokenizer(self.tokenizer), [""]) for row in rows}
            with self.lock:
                stopped = False
                for step in self._steps(rows, config, should_stop, labels, found):
                    stopped = stopped or step.finish_reason == "stopped"
                    if step.token is not None:
                        decoder, pieces = texts[step.row.side, step.row.index]
                        pieces.append(decoder.add(step.token))
            if stopped:
                return
            for (side, index), (_, pieces) in texts.items():
                found[index][side] = "".join(pieces).strip()
            yield found

    def _row(self, side: str, index: int, prompt: list[int], config: GenerateConfig) -> Row:
        room = self.context - len(prompt)
        if room < 1:
            raise UserError(
                f"The conversation has {len(prompt)} tokens and the model takes {self.context}; shorten it or clear the chat."
            )
        generator = torch.Generator().manual_seed(config.seed) if config.temperature else None
        return Row(side, index, prompt, min(config.max_new_tokens, room), generator)

    def _steps(
        self,
        rows: list[Row],
        config: GenerateConfig,
        should_stop: Callable[[], bool],
        labels: Sequence[list[int]] = (),
        found: dict[int, dict[str, Any]] | None = None,
    ) -> Iterator[Step]:
        """Decode all rows to their end; one Step a row and token."""
        batches = [Batch(side, [row for row in rows if row.side in side.names]) for side in self.sides]
        if labels and found is not None:
            for batch in batches:
                for row, scores in zip(batch.rows, batch.score(labels).tolist(), strict=True):
                    found[row.index][f"{row.side}_likelihoods"] = scores
        while any(batch.rows for batch in batches):
            if should_stop():
                yield from (Step(row, None, "stopped") for batch in batches for row in batch.rows)
                return
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
