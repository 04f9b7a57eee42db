"""Rows decoded together by one set of weights: the prompt once, then a token for each, or the likelihood of given ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sftdemo.encoding.packing import Packed
from sftdemo.inference import kv_cache
from sftdemo.inference.grouped_attention import SharedPrefix, masks_layers, takes_shared_prefix
from sftdemo.inference.kv_cache import CachedPrefix
from sftdemo.inference.request import Request, Side
from sftdemo.model.masks import Branches, additive

MAX_LOGITS = 2**26  # logits held at once while scoring continuations: 256 MB
MOST_UNUSED = 64  # columns that only rows which have ended used, before they are let go


class Batch:
    """Rows decoded together by one set of weights.

    `logits` [rows, vocabulary] are those of each row's next token. `prefixes` are tokens computed before, by side: a prompt
    that begins with them is computed from there on. What is `common` begins every prompt and is held once, not in each row.
    With `keep_prefixes`, what rows computed is kept when they end. A batch that others will `join` takes room for that many
    (rows, columns) ahead; they are read into it where they are made `beside` it. Of long prompts, where they can be parted, no
    more than the first `most` columns are computed at once: `read` goes on until none is `unread`.
    """

    logits: Tensor

    @torch.inference_mode()
    def __init__(
        self,
        side: Side,
        rows: list[Request],
        prefixes: Mapping[str, CachedPrefix] | None = None,
        keep_prefixes: bool = False,
        room: tuple[int, int] = (0, 0),
        beside: Batch | None = None,
        common: SharedPrefix | None = None,
        most: int | None = None,
    ) -> None:
        self.side = side
        self.rows = sorted(rows, key=lambda row: side.names.index(row.side))
        self.cache = kv_cache.new(side.model.config, *room)
        self.keep_prefixes = keep_prefixes and side.can_share
        self.common = common
        self.ahead = len(common) if common else 0
        self.unread = 0
        self._ended: list[tuple[Request, CachedPrefix]] = []
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=side.model.device)
        self.lengths = self.mask.sum(1)
        if side.can_share and rows:
            self._prefill(prefixes, beside, most)
        elif rows:
            self._prefill_by_length()

    @torch.inference_mode()
    def join(self, other: Batch) -> None:
        """Decode another batch's rows, too, from now on; what it has read isn't read again. Asks for the side's `can_join`."""
        # Columns that only rows which have ended used.
        unused = int(self.mask.any(0).int().argmax()) if self.rows else self.mask.shape[1]
        width = max(self.mask.shape[1] - unused, other.mask.shape[1])
        self.mask = torch.cat([_widened(self.mask[:, unused:], width), _widened(other.mask, width)])
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.logits = torch.cat([self.logits, other.logits]) if self.rows else other.logits
        kv_cache.extend(self.cache, other.cache, unused)
        self.rows = self.rows + other.rows
        self.keep_prefixes = self.keep_prefixes or other.keep_prefixes

    def _prefill_by_length(self) -> None:
        """Compute the prompts, those of one length together."""
        lengths = sorted({len(row.prompt) for row in self.rows})
        if len(lengths) == 1:
            self._prefill(None, None, None)
            return
        rows, self.rows = self.rows, []
        for length in lengths:
            self.join(Batch(self.side, [row for row in rows if len(row.prompt) == length]))

    def _prefill(self, prefixes: Mapping[str, CachedPrefix] | None, beside: Batch | None, most: int | None) -> None:
        """Compute the prompts or their first columns, what stands in `prefixes` excepted."""
        known = [(prefixes or {}).get(row.side) for row in self.rows]
        shared = [past.shared(row.prompt) if past else 0 for row, past in zip(self.rows, known, strict=True)]
        rest = [row.prompt[self.ahead + count :] for row, count in zip(self.rows, shared, strict=True)]
        width = max(map(len, rest))
        if beside:
            self.cache = kv_cache.reserve(beside.cache, len(self.rows), max(shared) + width)
        if any(shared):
            kv_cache.put(self.cache, known, shared)
        device = self.side.model.device
        # Padding stands on the left, so that every row's last token is in the last column.
        mask = torch.cat([_right_aligned(shared), _right_aligned([len(part) for part in rest])], 1)
        ids = torch.tensor([[0] * (width - len(part)) + part for part in rest])
        self.mask = mask.to(device)
        self.lengths = self.ahead + self.mask.sum(1)
        positions = self.ahead + (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        whole = most is None or width <= most
        if whole and not any(shared) and takes_shared_prefix(self.side.model) and self._padding() is not None:
            self.logits = self._prefill_packed(ids, positions, Packed(self.mask.bool()))
        else:
            self._left, self.unread = (ids, positions), width
            self.read(width if whole or most is None else most)

    @torch.inference_mode()
    def read(self, columns: int) -> None:
        """Compute the next columns of the prompts."""
        ids, positions = self._left
        self.unread = max(self.unread - columns, 0)
        mask = self._padding(self.mask.shape[1] - self.unread)
        self.logits = self._forward(ids[:, :columns], positions[:, :columns], mask, keep=1)[:, -1]
        self._left = ids[:, columns:], positions[:, columns:]

    def _prefill_packed(self, ids: Tensor, positions: Tensor, packed: Packed) -> Tensor:
        """The next token's logits [rows, vocabulary] of prompts read end to end: only attention sees padding."""
        kv_cache.expect(self.cache, packed)
        mask = packed.mask
        logits = self._forward(ids[mask][None], positions[mask][None], None, packed.ends, packed)[0]
        kv_cache.expect(self.cache, None)
        return logits

    @torch.inference_mode()
    def _forward(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        keep: int | Tensor,
        packed: Packed | None = None,
        branches: Branches | None = None,
    ) -> Tensor:
        keep_last = not isinstance(keep, Tensor) and keep == 1
        places = [self._chosen(name) for name in self.side.names]
        by_adapter = places[self.side.plain_names :]
        if self.side.rows:
            lengths = packed.lengths if packed else [ids.shape[1]] * len(self.rows)
            self.side.rows.read(by_adapter, lengths)
        if self.side.last:
            self.side.last.ask(
                packed.ends if packed else self._last_column(ids.shape[1]) if keep_last else None, by_adapter
            )
        if self.common:
            self.common.rows = places
        return self.side.model(  # type: ignore[no-any-return]
            input_ids=ids.to(self.side.model.device),
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            # A number would let some models cut their last layers short, which LastLayer does already.
            logits_to_keep=torch.tensor([-1], device=self.mask.device) if keep_last else keep,
            **self._masked(mask),
            **({"common": self.common} if self.common else {}),
            **({"packed": packed} if packed else {}),
            **({"branches": branches} if branches else {}),
        ).logits

    def _masked(self, mask: Tensor | None) -> dict[str, Tensor]:
        """How the model is told where padding stands."""
        if mask is None:
            return {}
        return {"tokens": mask.bool()} if masks_layers(self.side.model) else {"attention_mask": mask}

    def _last_column(self, width: int) -> Tensor | None:
        """Where each row's last token stands among all; None where there is no other."""
        if width == 1:
            return None
        return torch.arange(1, len(self.rows) + 1, device=self.mask.device) * width - 1

    def _chosen(self, name: str) -> slice | Tensor | None:
        """Where the rows of one name stand: in one span, scattered, or nowhere."""
        places = [place for place, row in enumerate(self.rows) if row.side == name]
        if not places:
            return None
        if places[-1] - places[0] == len(places) - 1:
            return slice(places[0], places[-1] + 1)
        return torch.tensor(places, device=self.side.model.device)

    def _padding(self, width: int | None = None) -> Tensor | None:
        # Without padding the model takes its faster path for plain causal attention.
        mask = self.mask[:, :width]
        return None if bool(mask.all()) or not kv_cache.has_columns(self.cache) else mask

    @torch.inference_mode()
    def advance(self, tokens: list[int], keep: list[int]) -> None:
        """Feed each row in `keep` (places, rising) its token and drop the others; the last ones move to the free places."""
        if self.keep_prefixes:
            self._ended += [(row, self._cached_prefix(i)) for i, row in enumerate(self.rows) if i not in keep]
        if len(keep) < len(self.rows):
            fed = dict(zip(keep, tokens, strict=True))
            order = _closed_up(keep, len(self.rows))
            self.rows, tokens = [self.rows[i] for i in order], [fed[i] for i in order]
            index = torch.tensor(order, dtype=torch.long, device=self.mask.device)
            self.mask, self.lengths = self.mask[index], self.lengths[index]
            kv_cache.select(self.cache, index)
            self._trim()
        if not self.rows:
            return
        for row, token in zip(self.rows, tokens, strict=True):
            row.fed.append(token)
        self._step(tokens)

    def _step(self, tokens: list[int]) -> None:
        """Read one token more in each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], 1)
        self.lengths = self.lengths + 1
        positions = self.lengths[:, None] - 1
        compiled = self.side.compiled.ready() if self.side.compiled else None
        if compiled and compiled.takes(len(self.rows), self.cache):
            adapters = [self.side.names.index(row.side) - self.side.plain_names for row in self.rows]
            prefixes = [prefix.layers for prefix in self.common.prefixes] if self.common else []
            ids = torch.tensor(tokens)
            self.logits = compiled.logits(ids, positions[:, 0], self.cache, self.mask, adapters, prefixes)
            return
        self.logits = self._forward(torch.tensor(tokens)[:, None], positions, self._padding(), keep=1)[:, -1]

    def _trim(self) -> None:
        """Let columns go that only rows which have ended used; where rows come and go, they would grow without end."""
        unused = int(self.mask.any(0).int().argmax()) if self.rows and self.side.can_join else 0
        if unused > MOST_UNUSED:
            self.mask = self.mask[:, unused:]
            kv_cache.trim(self.cache, unused)

    def take_ended(self) -> list[tuple[Request, CachedPrefix]]:
        """What the rows that have ended since the last call had computed, to begin another batch with."""
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> list[tuple[Request, CachedPrefix]]:
        """What all rows have computed; nothing more of those in a step that was broken off inside the model."""
        if self.keep_prefixes and all(layer.get_seq_length() == self.mask.shape[1] for layer in self.cache.layers):
            self._ended += [(row, self._cached_prefix(index)) for index, row in enumerate(self.rows)]
        return self.take_ended()

    @torch.inference_mode()
    def _cached_prefix(self, index: int) -> CachedPrefix:
        row = self.rows[index]
        return kv_cache.take(self.cache, index, self.mask[index].bool(), row.prompt + row.fed)

    @torch.inference_mode()
    def score(self, continuations: Sequence[list[int]]) -> Tensor:
        """Log-likelihood [rows, continuations] (nats, summed over tokens) of each continuation after each prompt.

        The prompt is computed once: all continuations follow it in one pass under a mask that keeps them apart, or one
        after the other where layers keep no tokens to mask.
        """
        if not self.side.can_share:
            scored = [self.likelihood([continuation] * len(self.rows)) for continuation in continuations]
            return torch.stack([torch.stack([tokens.sum() for tokens in rows]) for rows in scored], 1)
        vocabulary = self.logits.shape[-1]
        room = max(1, MAX_LOGITS // (vocabulary * len(self.rows)))
        groups: list[list[list[int]]] = [[]]
        for continuation in continuations:
            if sum(map(len, groups[-1])) + len(continuation) > room and groups[-1]:
                groups.append([])
            groups[-1].append(continuation)
        return torch.cat([self._score(group) for group in groups], 1)

    def _score(self, group: list[list[int]]) -> Tensor:
        first = torch.log_softmax(self.logits.float(), -1)
        total = first[:, [continuation[0] for continuation in group]]
        inputs = [continuation[:-1] for continuation in group]
        count = sum(map(len, inputs))
        if not count:
            return total
        device = self.mask.device
        owner = torch.tensor([i for i, part in enumerate(inputs) for _ in part], device=device)
        offset = torch.tensor([j for part in inputs for j in range(len(part))], device=device)
        among = (owner[:, None] == owner[None]) & (offset[:, None] >= offset[None])
        rows = len(self.rows)
        ids = torch.tensor([[token for part in inputs for token in part]]).expand(rows, -1)
        places = self.lengths[:, None] + offset[None]
        if masks_layers(self.side.model):
            mask = torch.cat([self.mask, self.mask.new_ones(rows, count)], 1)
            logits = self._forward(ids, places, mask, keep=0, branches=Branches(offset, among))
        else:
            before = self.mask.bool()[:, None].expand(-1, count, -1)
            visible = torch.cat([before, among[None].expand(rows, -1, -1)], 2)
            mask = additive(visible, self.side.model.dtype)[:, None]
            logits = self._forward(ids, places, mask, keep=0)
        self.cache.crop(-count)
        targets = torch.tensor([token for continuation in group for token in continuation[1:]], device=device)
        log_probs = torch.log_softmax(logits.float(), -1).gather(2, targets.expand(rows, -1)[..., None])[..., 0]
        return total.index_add(1, owner, log_probs)

    def likelihood(self, continuations: Sequence[list[int]]) -> list[Tensor]:
        """Log-probability (nats) of each token of continuations[i] after row i: a tensor [len(continuations[i])] a row."""
        return [gained for (gained,) in self._follow(continuations, lambda logits, ids: (_gained(logits, ids),))]

    def probabilities(self, continuations: Sequence[list[int]], top: int) -> list[tuple[Tensor, ...]]:
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

        Columns of all rows are computed together, as many at once as SCORE_FLOATS allows; where layers keep no tokens that
        could be left out again, a token at a time by a copy of all that has been read.
        """
        if not self.side.can_share:
            return self._follow_copied(continuations, measure)
        device, mask = self.mask.device, self.mask
        measured = [
            [measure(logits[None], torch.tensor(ids[:1], device=device))]
            for logits, ids in zip(self.logits, continuations, strict=True)
        ]
        inputs = [ids[:-1] for ids in continuations]
        block = max(1, MAX_LOGITS // (self.logits.shape[-1] * len(self.rows)))
        longest = max(map(len, inputs))
        for start in range(0, longest, block):
            parts = [ids[start : start + block] for ids in inputs]
            width = max(map(len, parts))
            there = torch.tensor([[j < len(part) for j in range(width)] for part in parts], device=device)
            mask = torch.cat([mask, there.to(mask.dtype)], 1)
            block_ids = torch.tensor([part + [0] * (width - len(part)) for part in parts])
            positions = self.lengths[:, None] + start + torch.arange(width, device=device)
            logits = self._forward(block_ids, positions, mask, keep=there)
            for row, ids, part in zip(measured, continuations, torch.split(logits, list(map(len, parts))), strict=True):
                if len(part):
                    row.append(measure(part, torch.tensor(ids[start + 1 :][: len(part)], device=device)))
        self.cache.crop(-longest)
        return [tuple(torch.cat(parts) for parts in zip(*row, strict=True)) for row in measured]

    def _follow_copied(
        self, continuations: Sequence[list[int]], measure: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    ) -> list[tuple[Tensor, ...]]:
        kept = self.cache, self.mask, self.lengths, self.logits
        self.cache = copy.deepcopy(self.cache)
        measured: list[list[tuple[Tensor, ...]]] = [[] for _ in self.rows]
        for place in range(longest := max(map(len, continuations))):
            for row, logits, ids in zip(measured, self.logits, continuations, strict=True):
                if place < len(ids):
                    row.append(measure(logits[None], torch.tensor(ids[place : place + 1], device=logits.device)))
            if place < longest - 1:  # a row that has ended reads anything
                self._step([ids[place] if place < len(ids) else 0 for ids in continuations])
        self.cache, self.mask, self.lengths, self.logits = kept
        return [tuple(torch.cat(parts) for parts in zip(*row, strict=True)) for row in measured]


def _right_aligned(lengths: list[int]) -> Tensor:
    """[rows, longest]: 1 where a token stands."""
    width = max(lengths)
    return (torch.arange(width)[None] >= width - torch.tensor(lengths)[:, None]).long()


def _widened(mask: Tensor, width: int) -> Tensor:
    """The mask with columns that nobody sees on its left."""
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))


def _closed_up(keep: list[int], count: int) -> list[int]:
    """Which of `count` places each of the first len(keep) gets its row from, so that few rows move."""
    staying = [place for place in keep if place < len(keep)]
    moving = iter(keep[len(staying) :])
    here = set(staying)
    return [place if place in here else next(moving) for place in range(len(keep))]


def _gained(logits: Tensor, ids: Tensor) -> Tensor:
    """The log-probability [n] of ids[i] by logits[i]."""
    return torch.log_softmax(logits.float(), -1).gather(-1, ids[:, None])[:, 0]
