"""The keys and values of a batch: written in place as answers grow, kept over turns, and shared by prompts that begin alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from sftdemo.encoding import common_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

AHEAD = 64  # tokens of room, at least, that a layer takes when it is full
LEAST_SHARED = 8  # tokens; copying fewer costs more than computing them


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that keeps room ahead; DynamicLayer copies all its keys and values for every new token."""

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        total = used + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < total:
            self._make_room(key_states, value_states, used, total)
        assert self._room is not None
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[: len(states), :, used:total] = states
        self._show(len(key_states), total)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, given in rising order: they move up in place."""
        total = self.get_seq_length()
        if not total or self._room is None:
            return
        chosen = indices.tolist()
        for room in self._room:
            for to, source in enumerate(chosen):
                if to != source:
                    room[to, :, :total] = room[source, :, :total]
        self._show(len(chosen), total)

    def _make_room(self, key_states: Tensor, value_states: Tensor, used: int, total: int) -> None:
        rooms = []
        for states, old in ((key_states, self.keys), (value_states, self.values)):
            rows, heads, _, width = states.shape
            room = states.new_empty(rows, heads, total + max(AHEAD, total // 4), width)
            if used:
                room[:, :, :used] = old
            rooms.append(room)
        self._room = (rooms[0], rooms[1])

    def _show(self, rows: int, total: int) -> None:
        assert self._room is not None
        self.keys, self.values = (room[:rows, :, :total] for room in self._room)


@dataclass(frozen=True)
class Past:
    """Tokens one side has already computed: their ids, and keys and values [heads, len(ids), d] of each layer."""

    ids: list[int]
    layers: list[tuple[Tensor, Tensor]]

    @property
    def bytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def shared(self, prompt: list[int]) -> int:
        """How many tokens of a prompt needn't be computed again; its last one always is, for its logits."""
        count = common_prefix([self.ids, prompt[:-1]])
        return count if count >= LEAST_SHARED else 0


def new(config: PreTrainedConfig) -> Cache:
    """An empty cache; a model with windows or states of another kind keeps transformers' own."""
    cache = DynamicCache(config=config)
    if can_share(cache):
        cache.layers = [RoomyLayer() for _ in cache.layers]
    return cache


def can_share(cache: Cache) -> bool:
    """Whether each layer keeps every token, so that a part can be taken out and put in elsewhere."""
    return bool(cache.layers) and all(type(layer) in (DynamicLayer, RoomyLayer) for layer in cache.layers)


def take(cache: Cache, row: int, columns: Tensor, ids: list[int]) -> Past:
    """A copy of one row's keys and values at the columns that hold its tokens."""
    return Past(ids, [(layer.keys[row][:, columns], layer.values[row][:, columns]) for layer in cache.layers])


def put(cache: Cache, pasts: list[Past | None], counts: list[int]) -> None:
    """Begin an empty cache with the first counts[i] tokens of pasts[i] in row i, right-aligned."""
    width = max(counts)
    known = next(past for past in pasts if past)
    for index, (keys, values) in enumerate(known.layers):
        made = []
        for part, sample in enumerate((keys, values)):
            heads, _, size = sample.shape
            # Zeros, not whatever memory holds: what is masked must still be a number.
            block = sample.new_zeros(len(pasts), heads, width, size)
            for row, (past, count) in enumerate(zip(pasts, counts, strict=True)):
                if past and count:
                    block[row, :, width - count :] = past.layers[index][part][:, :count]
            made.append(block)
        cache.update(made[0], made[1], index)
