"""The next logits of a batch's rows by the compiled step, and the trial by which a model takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sftdemo.decode import tables
from sftdemo.decode.layers import Reader
from sftdemo.decode.products import BLOCK_BYTES
from sftdemo.decode.program import ROWS_AT_ONCE
from sftdemo.decode.rows import BLOCK
from sftdemo.decode.simd import BYTE_DOTS, LANES
from sftdemo.decode.tables import Dim, Layer, Segment
from sftdemo.decode.threads import workers
from sftdemo.system.thread_count import Others, ThreadCount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    Prefix = Sequence[tuple[Tensor, Tensor]]


# From some count of rows on torch's products win: later where weights are read as bytes, earlier where many threads
# prepare the same inputs (lab notes).
MOST_ROWS, MOST_ROWS_OF_BYTES, MOST_ROWS_OF_THREADS, FEW_THREADS = 32, 256, 16, 4
ALONE = 8  # rows up to which each thread prepares the inputs for itself
STEPS = 10  # whose mean tells how many threads are best
ROTARY_PLACES = 512  # looked up, at least
BY_LENGTH = {"longrope", "unknown"}  # rotary embeddings that change with a row's length


class DecodeStep:
    """One token more in each row of a batch, for one set of weights with its adapters."""

    def __init__(self, model: PreTrainedModel, adapters: int) -> None:
        """Raises UnknownLayer and other errors for what it doesn't compute."""
        self.model, self.workers = model, workers(torch.get_num_threads())
        self.threads = ThreadCount(self.workers.count, STEPS, others=Others())
        self.tables = read = Reader(model, adapters, self.workers.count).read()
        self.n = np.zeros(Dim.SIZE, np.int64)
        for name, size in read.sizes.items():
            self.n[Dim[name]] = size
        self._chunks = self._count_chunks()
        kinds = read.segments[read.segments[:, Segment.ADAPTED] == 0, Segment.KIND]
        as_bytes = BYTE_DOTS and np.isin(kinds, tables.BY_BLOCKS).all()
        self.most_rows = MOST_ROWS_OF_BYTES if as_bytes else MOST_ROWS
        if self.workers.count > FEW_THREADS:
            self.most_rows = MOST_ROWS_OF_THREADS
        rotary = model.get_decoder().rotary_emb
        self._rotary_kinds = bool(getattr(rotary, "layer_types", None))
        types = getattr(rotary, "rope_type", "unknown")
        self._rotary_fixed = BY_LENGTH.isdisjoint(types.values() if isinstance(types, dict) else {types})
        self._rotary_tables: dict[str | None, tuple[Tensor, Tensor]] = {}
        hidden, heads = read.sizes["HIDDEN"], read.sizes["HEADS"] * read.sizes["WIDTH"]
        self._widths = {"EMBEDDED": hidden, "RESIDUAL": 2 * hidden, "ATTENTION_OUT": heads}  # numbers a row
        for name, stage in (
            ("QKV", tables.QKV), ("OUTPUT", tables.OUTPUT), ("GATE_UP", tables.GATE_UP), ("DOWN", tables.DOWN)
        ):  # fmt: skip
            self._widths[f"{name}_OUT"] = self.n[Dim[f"{name}_WIDTH"]] = read.widths[stage]
        self._row_bytes = read.sizes["INPUTS"] * 4 + read.sizes["INPUTS"] // BLOCK * BLOCK_BYTES  # of its inputs
        self._widths["SHARED"] = self._row_bytes // 4
        self._rows = self._scratch_bytes = 0  # that there is room for
        self._buffers: dict[str, Tensor] = {}

    def _make_room(self, count: int) -> None:
        """Memory for so many rows, all of which a step before may still be at."""
        if count > self._rows:
            self._rows = min(2 * count, self.most_rows)
            self._buffers |= {name: torch.zeros(self._rows * width) for name, width in self._widths.items()}

    def _count_chunks(self) -> Any:
        """How many chunks each phase has, those of attention for one row."""
        read = self.tables
        counts = [
            int(read.segments[first:end, Segment.CHUNKS].sum())
            for first, end in zip(read.phase_segments[:-1], read.phase_segments[1:], strict=True)
        ]
        return np.array(counts, np.int64)

    def takes(self, rows: int, cache: Any) -> bool:
        """Whether it computes so many rows, whose keys and values lie where it reads them."""
        return rows <= self.most_rows and all(hasattr(layer, "grow") for layer in cache.layers)

    @torch.inference_mode()
    def logits(
        self, ids: Tensor, positions: Tensor, cache: Any, mask: Tensor, adapters: list[int], prefixes: Sequence[Prefix]
    ) -> Tensor:
        """Logits [rows, vocabulary], float32, after reading ids [rows] at positions [rows].

        The cache gets a column; mask [rows, columns] counts it. adapters[i] answers row i, the base where it is -1.
        `prefixes` are keys and values [heads, tokens, d] of each layer that stand before all rows, of the base and each adapter.
        """
        count, columns = mask.shape
        self._make_room(count)
        n, layers = self.n.copy(), self.tables.layers.copy()
        for name in self._widths:
            n[Dim[name]] = self._buffers[name].data_ptr()
        ahead = prefixes[0][0][0].shape[1] if prefixes else 0
        embedded = self._buffers["EMBEDDED"][: count * int(n[Dim.HIDDEN])]
        embedded.copy_(self.model.get_input_embeddings()(ids).flatten())
        kept: list[Any] = [self, mask := mask.to(torch.uint8).contiguous(), adapter := np.array(adapters, np.int64)]
        self._rotary(layers, positions, kept)
        self._windows(layers, mask, ahead, kept)
        for layer in cache.layers:
            layer.grow()
        addresses = [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in cache.layers]
        layers[:, [Layer.KEYS, Layer.VALUES]] = addresses
        strides = [layer.keys.stride()[:2] for layer in cache.layers]
        layers[:, [Layer.ROW_BYTES, Layer.HEAD_BYTES]] = np.array(strides) * cache.layers[0].keys.itemsize
        logits = torch.empty(count, int(n[Dim.LOGITS_WIDTH]))
        n[Dim.ROWS], n[Dim.COLUMNS], n[Dim.AHEAD] = count, columns, ahead
        n[Dim.ROTARY] = self._rotary_width
        n[Dim.MASK], n[Dim.ADAPTER], n[Dim.LOGITS] = mask.data_ptr(), adapter.ctypes.data, logits.data_ptr()
        if count <= ALONE:
            n[Dim.SHARED] = 0
        self._scratch(n)
        kept.append(list(self._buffers.values()))
        chunks = np.zeros((len(self._chunks), 2), np.int64)  # that prepare inputs, and of the phase itself
        chunks[:, 0] = -(-count // ROWS_AT_ONCE) if n[Dim.SHARED] else 0
        chunks[:, 1] = self._chunks
        chunks[tables.ATTENTION : -1 : tables.PHASES] = 0, count * n[Dim.KEY_HEADS]
        starts = np.concatenate([[0], np.cumsum(chunks)])
        state = np.zeros(64, np.int64)
        read = self.tables
        keys_and_values = [
            [[part.data_ptr() for part in prefix] for prefix in of_layer] for of_layer in zip(*prefixes, strict=True)
        ]
        prefix_table = np.array(keys_and_values or [[[0, 0]]], np.int64)
        seconds = self.workers.run(
            ([*kept, state], state.ctypes.data, starts, n, layers, read.segments, read.phase_segments,
             read.adapters, prefix_table, read.eps, read.scaling),
            self.threads.now,
        )  # fmt: skip
        self.threads.took(count, seconds)
        return logits

    def _rotary(self, layers: Any, positions: Tensor, kept: list[Any]) -> None:
        """Cosines and sines of the rows' places, of each kind of layer."""
        kinds = self.model.config.layer_types if self._rotary_kinds else [None] * len(layers)
        chosen = {kind: self._cos_and_sin(kind, positions) for kind in set(kinds)}
        kept.append(chosen)
        addresses = {kind: tuple(part.data_ptr() for part in parts) for kind, parts in chosen.items()}
        layers[:, [Layer.COS, Layer.SIN]] = [addresses[kind] for kind in kinds]
        self._rotary_width = chosen[kinds[0]][0].shape[1]

    def _cos_and_sin(self, kind: str | None, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, rotary]; looked up where the model's own are the same whatever the row's length."""
        if not self._rotary_fixed:
            return self._model_rotary(kind, positions)
        last = int(positions.max())
        if kind not in self._rotary_tables or len(self._rotary_tables[kind][0]) <= last:
            self._rotary_tables[kind] = self._model_rotary(kind, torch.arange(max(ROTARY_PLACES, 2 * last)))
        cos, sin = self._rotary_tables[kind]
        return cos[positions], sin[positions]

    def _model_rotary(self, kind: str | None, positions: Tensor) -> tuple[Tensor, Tensor]:
        like = torch.zeros(1, 1, 1)
        parts = self.model.get_decoder().rotary_emb(like, positions[None], *([kind] if kind else []))
        cos, sin = (part[0].float().contiguous() for part in parts)
        return cos, sin

    def _windows(self, layers: Any, mask: Tensor, ahead: int, kept: list[Any]) -> None:
        """The first column that each row may see: those before it are outside of a layer's window."""
        config = self.model.config
        window = getattr(config, "sliding_window", None) if config.model_type != "llama" else None
        types = getattr(config, "layer_types", None)
        everything = np.zeros(len(mask), np.int64)
        within = everything
        if window:
            hidden = mask.sum(1) + ahead - window  # tokens that have left the window
            own = (mask.cumsum(1) <= (hidden - ahead)[:, None]).sum(1)
            within = torch.where(hidden < ahead, hidden.clamp(min=0), ahead + own).numpy().astype(np.int64)
        kept += [everything, within]
        layers[:, Layer.FIRST] = everything.ctypes.data
        if window:
            windowed = [types is None or kind == "sliding_attention" for kind in types or [""] * len(layers)]
            layers[windowed, Layer.FIRST] = within.ctypes.data

    def _scratch(self, n: Any) -> None:
        """Memory of each thread: inputs, sums of their blocks and an output, or scores."""
        seen = int(n[Dim.AHEAD] + n[Dim.COLUMNS])
        widest = max(self.tables.widths.values())
        scores = int(n[Dim.HEADS] // n[Dim.KEY_HEADS]) * (2 * seen + 2 * LANES)
        size = max(ALONE * self._row_bytes + 4 * widest, 4 * scores) + 256
        if size > self._scratch_bytes or "SCRATCH" not in self._buffers:
            self._scratch_bytes = -(-size // 64) * 64
            self._buffers["SCRATCH"] = torch.zeros(self.workers.count * self._scratch_bytes // 4)
        n[Dim.SCRATCH], n[Dim.SCRATCH_BYTES] = self._buffers["SCRATCH"].data_ptr(), self._scratch_bytes
