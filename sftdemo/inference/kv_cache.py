"""What a batch has read: keys and values, written in place as answers grow, kept over turns and shared by prompts that begin
alike; and the states of recurrent layers, which can only be followed on."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from sftdemo.encoding.packing import Packed
from sftdemo.encoding.rows import common_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Attention that masks windows itself, so that every layer may keep every token; the first also takes what is common and
# packed rows.
GROUPED, MASKED = "grouped", "masked"
RESERVED_TOKENS = 64  # tokens of room, at least, that a layer takes when it is full
KEPT = (DynamicLayer, DynamicSlidingWindowLayer)  # layers that may keep every token
MIN_SHARED_TOKENS = 8  # tokens; copying fewer costs more than computing them


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that keeps room ahead; DynamicLayer copies all its keys and values for every new token.

    What is shown are the first rows and some columns of the room; all rows end in the last of these columns.
    """

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None
    _lent: tuple[Tensor, Tensor] | None = None
    _start = 0
    packed: Packed | None = None  # how the rows of the next update stand in it

    def __init__(self, rows: int = 0, columns: int = 0) -> None:
        """Room for so many rows and columns is taken at once, and more when it is needed."""
        super().__init__()
        self.rows, self.columns = rows, columns

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.packed:
            key_states, value_states = self.packed.spread(key_states), self.packed.spread(value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        total = used + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < self._start + total:
            self._make_room((key_states, value_states), len(key_states), total, used, 0)
        self._write((key_states, value_states), 0, self._start + used)
        self._show(len(key_states), total)
        return self.keys, self.values

    def grow(self) -> None:
        """Show one column more, into which the caller writes the new tokens' keys and values."""
        rows, _, used, _ = self.keys.shape
        if self._room is None or self._room[0].shape[-2] <= self._start + used:
            self._make_room((self.keys, self.values), rows, used + 1, used, 0)
        self._show(rows, used + 1)

    def reserve(self, rows: int, width: int) -> PreallocatedLayer:
        """An empty layer for so many rows to admit: where there is room for `width` columns, it writes straight into it."""
        reserved = PreallocatedLayer()
        if self._room:
            here, _, shown, _ = self.keys.shape
            end = self._start + shown
            if here + rows <= len(self._room[0]) and width <= end:
                keys, values = (room[here : here + rows, :, end - width :] for room in self._room)
                reserved._room = self._lent = keys, values
        return reserved

    def extend(self, other: PreallocatedLayer, unused: int) -> None:
        """Put the other's rows behind these, so that they end in the same column; the first `unused` columns are left out."""
        if not self.is_initialized:
            self.lazy_initialization(other.keys, other.values)
        states = other.keys, other.values
        width, shown, here = states[0].shape[-2], 0, 0
        if self._room:
            here, _, shown, _ = self.keys.shape
        used, rows = shown - unused, here + len(states[0])
        total, end = max(used, width), self._start + shown
        if self._room is None or rows > len(self._room[0]) or width > end:
            self._make_room(states, rows, total, used, total - used)
            end = total
        if other._room is not self._lent:
            self._write(states, here, end - width)
        assert self._room is not None
        for room in self._room:
            # Zeros, not whatever memory holds: what is masked must still be a number.
            room[:here, :, end - total : end - used] = 0
            room[here:rows, :, end - total : end - width] = 0
        self._start = end - total
        self._show(rows, total)

    def trim(self, unused: int) -> None:
        """Leave the first columns out; their room is taken back when more is needed."""
        self._start += unused
        self._show(len(self.keys), self.keys.shape[-2] - unused)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, which move up in place: none may come from before the place it gets."""
        total = self.get_seq_length()
        if self._room is None:
            return
        chosen, columns = indices.tolist(), slice(self._start, self._start + total)
        for room in self._room:
            for to, source in enumerate(chosen):
                if to != source:
                    room[to, :, columns] = room[source, :, columns]
        self._show(len(chosen), total)

    def _make_room(self, states: tuple[Tensor, Tensor], rows: int, total: int, used: int, lead: int) -> None:
        """Take new room for `total` columns and more; the last `used` of those shown stand behind `lead` free ones."""
        rooms = []
        columns = max(total + max(RESERVED_TOKENS, total // 4), self.columns)
        for like, old in zip(states, (self.keys, self.values), strict=True):
            _, heads, _, width = like.shape
            room = like.new_empty(max(rows, self.rows), heads, columns, width)
            if used:
                room[: len(old), :, lead : lead + used] = old[:, :, -used:]
            rooms.append(room)
        self._room, self._start = (rooms[0], rooms[1]), 0

    def _write(self, states: tuple[Tensor, Tensor], row: int, column: int) -> None:
        assert self._room is not None
        for room, new in zip(self._room, states, strict=True):
            room[row : row + len(new), :, column : column + new.shape[-2]] = new

    def _show(self, rows: int, total: int) -> None:
        assert self._room is not None
        keys, values = self._room
        # Once a layer and token: narrow takes a third of what indexing takes.
        self.keys = keys.narrow(0, 0, rows).narrow(2, self._start, total)
        self.values = values.narrow(0, 0, rows).narrow(2, self._start, total)


class StateLayer(LinearAttentionLayer):  # type: ignore[misc]
    """A recurrent layer's states, one of fixed size for each row: the last inputs of its convolution, what it remembers."""

    def extend(self, other: Any, unused: int) -> None:
        """Put the other's rows behind these."""
        self.device, self.dtype, self.conv_kernel_size = other.device, other.dtype, other.conv_kernel_size
        for states, more, there in (
            (self.conv_states, other.conv_states, self.is_conv_states_initialized),
            (self.recurrent_states, other.recurrent_states, self.is_recurrent_states_initialized),
        ):
            for index, state in more.items():
                if state is not None:
                    states[index] = torch.cat([states[index], state]) if there[index] else state.clone()
                    there[index] = True
        self.has_previous_state = dict(other.has_previous_state)

    def batch_select_indices(self, indices: Tensor) -> None:
        LinearAttentionLayer.reorder_cache(self, indices)


class HybridLayer(StateLayer, PreallocatedLayer):
    """A layer with attention and recurrence side by side."""

    def __init__(self, number_of_states: int, rows: int = 0, columns: int = 0) -> None:
        PreallocatedLayer.__init__(self, rows, columns)
        LinearAttentionLayer.__init__(self, number_of_states)

    def lazy_initialization(self, *keys_and_values: Tensor, **states: Any) -> None:
        kind = PreallocatedLayer if keys_and_values else StateLayer
        kind.lazy_initialization(self, *keys_and_values, **states)

    def extend(self, other: Any, unused: int) -> None:
        StateLayer.extend(self, other, unused)
        PreallocatedLayer.extend(self, other, unused)

    def batch_select_indices(self, indices: Tensor) -> None:
        StateLayer.batch_select_indices(self, indices)
        PreallocatedLayer.batch_select_indices(self, indices)


class EmptyLayer(DummyLayer):  # type: ignore[misc]
    """A layer that keeps nothing: a feed-forward alone, or attention over another layer's keys and values."""

    def extend(self, other: EmptyLayer, unused: int) -> None: ...


def _beside_states(layer: Any, rows: int, columns: int) -> Any:
    """What takes the place of a layer in a recurrent model's cache; None for a kind that isn't known here.

    A window's layer keeps every token, too: what a row has read stands without gaps, so the model's own mask is right.
    """
    if type(layer) in KEPT:
        return PreallocatedLayer(rows, columns)
    if type(layer) is LinearAttentionLayer:
        return StateLayer(layer.number_of_states)
    if type(layer) is LinearAttentionAndFullAttentionLayer:
        return HybridLayer(layer.number_of_states, rows, columns)
    return EmptyLayer() if type(layer) is DummyLayer else None


@dataclass(frozen=True)
class CachedPrefix:
    """Tokens one side has already computed: their ids, and keys and values [heads, len(ids), d] of each layer."""

    ids: list[int]
    layers: list[tuple[Tensor, Tensor]]

    @property
    def bytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def shared(self, prompt: list[int]) -> int:
        """How many tokens of a prompt needn't be computed again; its last one always is, for its logits."""
        count = common_prefix([self.ids, prompt[:-1]])
        return count if count >= MIN_SHARED_TOKENS else 0


def token_bytes(model: PreTrainedModel) -> int:
    """What one token's keys and values take in all layers that have their own, where each keeps every token."""
    config = model.config.get_text_config()
    layers = [layer for layer in DynamicCache(config=model.config).layers if not isinstance(layer, DummyLayer)]
    layer_configs = getattr(config, "per_layer_config", None) or [config] * len(layers)
    return sum(_token_width(layer_configs[number]) for number in range(len(layers))) * int(model.dtype.itemsize)


def _token_width(config: PreTrainedConfig) -> int:
    """How many numbers one layer keeps of a token."""
    heads = getattr(config, "num_attention_heads", 1)
    key_heads: int = getattr(config, "num_key_value_heads", None) or heads
    if latent := getattr(config, "kv_lora_rank", None):  # multi-head latent attention
        return latent + config.qk_rope_head_dim  # type: ignore[no-any-return]
    return key_heads * 2 * (getattr(config, "head_dim", None) or config.hidden_size // heads)  # type: ignore[no-any-return]


def new(config: PreTrainedConfig, rows: int = 0, columns: int = 0) -> Cache:
    """An empty cache with room ahead; a model with layers of a kind not known here keeps transformers' own."""
    cache = DynamicCache(config=config)
    # Layers that use an earlier one's keys and values have none of their own; they come last.
    own = [layer for layer in cache.layers if not isinstance(layer, DummyLayer)]
    windowed = config._attn_implementation in (GROUPED, MASKED) and {type(layer) for layer in own} <= set(KEPT)
    if windowed or can_share(cache):
        cache.layers = [PreallocatedLayer(rows, columns) for _ in own]
    elif is_recurrent(config):
        layers = [_beside_states(layer, rows, columns) for layer in cache.layers]
        cache.layers = layers if all(layers) else cache.layers
    return cache


def can_share(cache: Cache) -> bool:
    """Whether each layer keeps every token, so that a part can be taken out and put in elsewhere, or left out again."""
    return bool(cache.layers) and all(type(layer) in (DynamicLayer, PreallocatedLayer) for layer in cache.layers)


def is_recurrent(config: PreTrainedConfig) -> bool:
    """Whether a layer keeps a state of what was read, which knows nothing of where a row ends."""
    return any(isinstance(layer, LinearAttentionLayer) for layer in DynamicCache(config=config).layers)


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether a token's place is told to the model, and not counted from a mask or from columns as ALiBi does."""
    return "position_ids" in signature(model.forward).parameters and not getattr(model.config, "alibi", False)


def can_join(cache: Cache) -> bool:
    """Whether rows that have read unlike prompts can go on together."""
    return bool(cache.layers) and all(hasattr(layer, "extend") for layer in cache.layers)


def has_columns(cache: Cache) -> bool:
    """Whether any layer looks back at tokens, so that a mask has something to hide."""
    return any(isinstance(layer, DynamicLayer) for layer in cache.layers)


def select(cache: Cache, rows: Tensor) -> None:
    """Keep these rows, places rising but for those that move up to free ones."""
    for layer in cache.layers:
        keep = getattr(layer, "batch_select_indices", None) or layer.reorder_cache
        keep(rows)


def expect(cache: Cache, packed: Packed | None) -> None:
    """Say how rows stand in the next pass: end to end, or each by itself. The cache is shareable."""
    for layer in cache.layers:
        layer.packed = packed


def take(cache: Cache, row: int, columns: Tensor, ids: list[int]) -> CachedPrefix:
    """A copy of one row's keys and values at the columns that hold its tokens."""
    return CachedPrefix(ids, [(layer.keys[row][:, columns], layer.values[row][:, columns]) for layer in cache.layers])


def reserve(cache: Cache, rows: int, width: int) -> Cache:
    """An empty cache for so many rows of `width` tokens, that `extend` then takes; both are shareable."""
    reserved = DynamicCache()
    reserved.layers = [layer.reserve(rows, width) for layer in cache.layers]
    return reserved


def extend(cache: Cache, other: Cache, unused: int) -> None:
    """Put another cache's rows behind this one's and leave out its first `unused` columns; both are shareable."""
    for layer, more in zip(cache.layers, other.layers, strict=True):
        layer.extend(more, unused)


def trim(cache: Cache, unused: int) -> None:
    """Leave the first columns out, in which no row has anything; rows can join this cache."""
    for layer in cache.layers:
        if isinstance(layer, PreallocatedLayer):
            layer.trim(unused)


def put(cache: Cache, prefixes: list[CachedPrefix | None], counts: list[int]) -> None:
    """Begin an empty cache with the first counts[i] tokens of pasts[i] in row i, right-aligned."""
    width = max(counts)
    sample_prefix = next(prefix for prefix in prefixes if prefix)
    for index, (keys, values) in enumerate(sample_prefix.layers):
        blocks = []
        for part, sample in enumerate((keys, values)):
            heads, _, size = sample.shape
            # Zeros, not whatever memory holds: what is masked must still be a number.
            block = sample.new_zeros(len(prefixes), heads, width, size)
            for row, (prefix, count) in enumerate(zip(prefixes, counts, strict=True)):
                if prefix and count:
                    block[row, :, width - count :] = prefix.layers[index][part][:, :count]
            blocks.append(block)
        cache.update(blocks[0], blocks[1], index)
