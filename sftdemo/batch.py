"""Rows decoded together by one set of weights: the prompt once, then a token for each, or the likelihood of given ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sftdemo import cache
from sftdemo.cache import Past
from sftdemo.lora import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT_ROWS = 32  # prompts in one forward pass: more are padded more, and a product of so many tokens gains nothing
SCORE_FLOATS = 2**26  # logits held at once while scoring continuations: 256 MB


@dataclass(frozen=True)
class Side:
    """One set of weights and the names it answers for: with LoRA by row the base and then each adapter, else one."""

    model: PreTrainedModel
    names: tuple[str, ...]
    rows: Rows | None = None


@dataclass
class Row:
    """One answer in the making; `fed` are the tokens after the prompt that the model has seen."""

    side: str
    index: int
    prompt: list[int]
    limit: int
    generator: torch.Generator | None = None
    tokens: int = 0
    fed: list[int] = field(default_factory=list)


class Batch:
    """Rows decoded together by one set of weights, in the order of its names.

    `logits` [rows, vocabulary] are those of each row's next token. `pasts` are tokens computed before, by side: a prompt
    that begins with them is computed from there on. With `keep_pasts`, `ended` collects those of rows that ended.
    """

    logits: Tensor

    @torch.inference_mode()
    def __init__(
        self, side: Side, rows: list[Row], pasts: Mapping[str, Past] | None = None, keep_pasts: bool = False
    ) -> None:
        self.side = side
        self.rows = sorted(rows, key=lambda row: side.names.index(row.side))
        self.cache = cache.new(side.model.config)
        self.keep_pasts = keep_pasts and cache.can_share(self.cache)
        self.ended: dict[str, Past] = {}
        if len(rows) > PROMPT_ROWS and cache.can_share(self.cache):
            self._join(pasts)
        else:
            self._read(pasts)

    def _join(self, pasts: Mapping[str, Past] | None) -> None:
        """Read the prompts in parts of like length, and put them together: a step of many rows is cheap, padding isn't."""
        order = sorted(range(len(self.rows)), key=lambda index: -len(self.rows[index].prompt))
        known: list[Past | None] = [None] * len(order)
        logits: list[Tensor] = [torch.empty(0)] * len(order)
        for start in range(0, len(order), PROMPT_ROWS):
            chosen = sorted(order[start : start + PROMPT_ROWS])
            part = Batch(self.side, [self.rows[index] for index in chosen], pasts)
            for place, index in enumerate(chosen):
                known[index], logits[index] = part._past(place), part.logits[place]
        lengths = [len(row.prompt) for row in self.rows]
        cache.put(self.cache, known, lengths)
        self.mask = _right_aligned(lengths).to(self.side.model.device)
        self.lengths = self.mask.sum(1)
        self.logits = torch.stack(logits)

    def _read(self, pasts: Mapping[str, Past] | None) -> None:
        """Compute the prompts, what stands in `pasts` excepted."""
        known = [(pasts or {}).get(row.side) for row in self.rows] if cache.can_share(self.cache) else []
        shared = [past.shared(row.prompt) if past else 0 for row, past in zip(self.rows, known, strict=False)]
        if any(shared):
            cache.put(self.cache, known, shared)
        else:
            shared = [0] * len(self.rows)
        rest = [row.prompt[count:] for row, count in zip(self.rows, shared, strict=True)]
        device = self.side.model.device
        # Padding stands on the left, so that every row's last token is in the last column.
        mask = torch.cat([_right_aligned(shared), _right_aligned([len(part) for part in rest])], 1)
        width = max(map(len, rest))
        ids = torch.tensor([[0] * (width - len(part)) + part for part in rest])
        self.mask = mask.to(device)
        self.lengths = self.mask.sum(1)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        self.logits = self._forward(ids, positions, self._padding(), keep=1)[:, -1]

    @torch.inference_mode()
    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, keep: int | Tensor) -> Tensor:
        if self.side.rows:
            self.side.rows.spans = self._spans()
        return self.side.model(  # type: ignore[no-any-return]
            input_ids=ids.to(self.side.model.device),
            position_ids=positions,
            attention_mask=mask,
            cache=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits

    def _spans(self) -> list[tuple[int, int]]:
        """The rows of each name but the first, which is the base."""
        counts = [sum(row.side == name for row in self.rows) for name in self.side.names]
        ends = list(itertools.accumulate(counts))
        return list(itertools.pairwise(ends))

    def _padding(self) -> Tensor | None:
        # Without padding the model takes its faster path for plain causal attention.
        return None if bool(self.mask.all()) else self.mask

    @torch.inference_mode()
    def advance(self, tokens: list[int], keep: list[int]) -> None:
        """Drop the rows not in `keep`, then feed each row that is left its token."""
        everyone = len(keep) == len(self.rows)
        if self.keep_pasts:
            self.ended |= {row.side: self._past(i) for i, row in enumerate(self.rows) if i not in keep}
        self.rows = [self.rows[i] for i in keep]
        if not keep:
            return
        if not everyone:
            index = torch.tensor(keep, device=self.mask.device)
            self.mask, self.lengths = self.mask[index], self.lengths[index]
            self.cache.batch_select_indices(index)
        for row, token in zip(self.rows, tokens, strict=True):
            row.fed.append(token)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], 1)
        self.lengths = self.lengths + 1
        self.logits = self._forward(torch.tensor(tokens)[:, None], self.lengths[:, None] - 1, self._padding(), keep=1)[
            :, -1
        ]

    def close(self) -> dict[str, Past]:
        """What each side has computed, to begin another batch with; nothing if a step was broken off inside the model."""
        whole = all(layer.get_seq_length() == self.mask.shape[1] for layer in self.cache.layers)
        if self.keep_pasts and whole:
            self.ended |= {row.side: self._past(index) for index, row in enumerate(self.rows)}
        return self.ended

    @torch.inference_mode()
    def _past(self, index: int) -> Past:
        row = self.rows[index]
        return cache.take(self.cache, index, self.mask[index].bool(), row.prompt + row.fed)

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

    def likelihood(self, continuations: Sequence[list[int]]) -> list[Tensor]:
        """Log-probability (nats) of each token of continuations[i] after row i: a tensor [len(continuations[i])] a row."""
        return [gained for (gained,) in self._follow(continuations, lambda logits, ids: (_gained(logits, ids),))]

    def shares(self, continuations: Sequence[list[int]], top: int) -> list[tuple[Tensor, ...]]:
        """As `likelihood`, but probabilities [n], and those [n, top] and ids [n, top] of the likeliest tokens."""

        def measure(logits: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
            likeliest = torch.softmax(logits.float(), -1).topk(top, -1)
            return _gained(logits, ids).exp(), likeliest.values, likeliest.indices

        return self._follow(continuations, measure)

    @torch.inference_mode()
    def _follow(
        self, continuations: Sequence[list[int]], measure: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    ) -> list[tuple[Tensor, ...]]:
        """Read continuations[i] after row i, as if generated; measure(logits [n, vocabulary], the next ids [n]) a row.

        Columns of all rows are computed together, as many at once as SCORE_FLOATS allows.
        """
        device, mask = self.mask.device, self.mask
        found = [
            [measure(logits[None], torch.tensor(ids[:1], device=device))]
            for logits, ids in zip(self.logits, continuations, strict=True)
        ]
        fed = [ids[:-1] for ids in continuations]
        block = max(1, SCORE_FLOATS // (self.logits.shape[-1] * len(self.rows)))
        longest = max(map(len, fed))
        for start in range(0, longest, block):
            parts = [ids[start : start + block] for ids in fed]
            width = max(map(len, parts))
            there = torch.tensor([[j < len(part) for j in range(width)] for part in parts], device=device)
            mask = torch.cat([mask, there.to(mask.dtype)], 1)
            given = torch.tensor([part + [0] * (width - len(part)) for part in parts])
            positions = self.lengths[:, None] + start + torch.arange(width, device=device)
            logits = self._forward(given, positions, mask, keep=there)
            for row, ids, part in zip(found, continuations, torch.split(logits, list(map(len, parts))), strict=True):
                if len(part):
                    row.append(measure(part, torch.tensor(ids[start + 1 :][: len(part)], device=device)))
        self.cache.crop(-longest)
        return [tuple(torch.cat(parts) for parts in zip(*row, strict=True)) for row in found]


def _right_aligned(lengths: list[int]) -> Tensor:
    """[rows, longest]: 1 where a token stands."""
    width = max(lengths)
    return (torch.arange(width)[None] >= width - torch.tensor(lengths)[:, None]).long()


def _gained(logits: Tensor, ids: Tensor) -> Tensor:
    """The log-probability [n] of ids[i] by logits[i]."""
    return torch.log_softmax(logits.float(), -1).gather(-1, ids[:, None])[:, 0]
