"""The whole step as one function that every thread runs: phases one after the other, each cut into chunks that are taken in turn.

A phase begins once all chunks before it are done. Who takes a chunk is open, so a thread that another process holds up is
waited for at most for the chunk it has, and one that wakes late finds all taken and leaves. What it prepares meanwhile from
memory that others write again goes unused: it gets no chunk for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from sftdemo.decode import products, rows, simd
from sftdemo.decode.attention import attend
from sftdemo.decode.simd import atomic_add, atomic_load, compare_and_swap, peek_i64
from sftdemo.decode.tables import (
    ATTENTION,
    BY_INPUT_BF16,
    BY_INPUT_F32,
    BY_OUTPUT_F32,
    DOWN_PROJ,
    EIGHT_BITS,
    FOUR_BITS,
    GATE,
    GATE_UP,
    NF4,
    OUTPUT,
    PACKED_KINDS,
    PHASES,
    QKV,
    UP,
    Adapter,
    Dim,
    Layer,
    O,
    Segment,
)  # fmt: skip

DONE = 128
ROWS_AT_ONCE = 8  # that one thread prepares for all
SPINS = 2_000  # looks at the counter before a nap: 0.1 ms, longer than any chunk takes

_D, _L, _S, _A = Dim, Layer, Segment, Adapter
_sleep: Any = types.ExternalFunction("usleep", types.int32(types.uint32))
NAP = np.uint32(30)  # microseconds; a thread that looks on without end takes the processor from who is waited for


@njit(nogil=True)
def _out(n: Any, phase: int) -> tuple[int, int]:
    """Where a phase's outputs go, and how many bytes a row has."""
    stage = phase % PHASES
    if phase == n[_D.LAYERS] * PHASES:
        return n[_D.LOGITS], 4 * n[_D.LOGITS_WIDTH]
    if stage == QKV:
        return n[_D.QKV_OUT], 4 * n[_D.QKV_WIDTH]
    if stage == OUTPUT:
        return n[_D.OUTPUT_OUT], 4 * n[_D.OUTPUT_WIDTH]
    if stage == GATE_UP:
        return n[_D.GATE_UP_OUT], 4 * n[_D.GATE_UP_WIDTH]
    return n[_D.DOWN_OUT], 4 * n[_D.DOWN_WIDTH]


@njit(nogil=True)
def _residual(n: Any, layers: Any, adapters: Any, phase: int, row: int, eps: float, x: int) -> None:
    """What goes on beside the layers, as it is before a phase that begins with a norm, into x."""
    size, stage, layer = n[_D.HIDDEN], phase % PHASES, phase // PHASES
    if phase == 0:
        rows.copy(n[_D.EMBEDDED] + 4 * row * size, size, x)
        return
    if stage == GATE_UP:
        y, linear, norm = n[_D.OUTPUT_OUT] + 4 * row * n[_D.OUTPUT_WIDTH], O, layers[layer, _L.AFTER_ATTENTION_NORM]
    else:
        layer -= 1
        y, linear = n[_D.DOWN_OUT] + 4 * row * n[_D.DOWN_WIDTH], DOWN_PROJ
        norm = layers[layer, _L.AFTER_FEED_FORWARD_NORM]
    # Not where it stands: others may be at the same phase.
    rows.copy(y, size if not n[_D.ADAPTERS] else _row_width(n, linear), x)
    rows.adapt(n, adapters, layer, linear, row, x, 0, 0, size)
    if norm:
        rows.root_mean_square_norm(x, norm, size, eps, x)
    rows.sum_into(x, _kept_residual(n, _before(n, phase), row), size)


@njit(nogil=True)
def _row_width(n: Any, linear: int) -> int:
    return n[_D.OUTPUT_WIDTH] if linear == O else n[_D.DOWN_WIDTH]  # type: ignore[no-any-return]


@njit(nogil=True)
def _kept_residual(n: Any, number: int, row: int) -> int:
    size = n[_D.HIDDEN]
    return n[_D.RESIDUAL] + 4 * size * (n[_D.ROWS] * (number % 2) + row)  # type: ignore[no-any-return]


@njit(nogil=True)
def _before(n: Any, phase: int) -> int:
    """The number of the residual that a phase finds: two a layer."""
    return 2 * (phase // PHASES) + (1 if phase % PHASES == GATE_UP else 0) - 1


@njit(nogil=True)
def _blocks_bytes(n: Any) -> int:
    """Bytes of what stands of a row's blocks of inputs beside them."""
    return n[_D.INPUTS] // rows.BLOCK * products.BLOCK_BYTES  # type: ignore[no-any-return]


_describe_blocks = rows.blocks_in_bytes if simd.BYTE_DOTS else rows.block_sums


@njit(nogil=True)
def _prepare(
    n: Any, layers: Any, adapters: Any, phase: int, row: int, eps: float, inputs: int, work: int, keep: bool
) -> None:
    """A row's inputs of a phase to their place in inputs [rows, INPUTS], and what stands of their blocks behind all rows.

    Its residual is kept for the phases behind if it is to be, which is once a step.
    """
    stage, layer, width = phase % PHASES, phase // PHASES, n[_D.INPUTS]
    x, size = inputs + 4 * row * width, n[_D.HIDDEN]
    if stage in (QKV, GATE_UP):  # or the head, which comes where one layer more would begin
        _residual(n, layers, adapters, phase, row, eps, work)
        if phase == n[_D.LAYERS] * PHASES:
            norm = n[_D.FINAL_NORM]
        else:
            norm = layers[layer, _L.INPUT_NORM if stage == QKV else _L.FEED_FORWARD_NORM]
        if keep:
            rows.copy(work, size, _kept_residual(n, _before(n, phase) + 1, row))
        rows.root_mean_square_norm(work, norm, size, eps, x)
    elif stage == OUTPUT:
        size = n[_D.HEADS] * n[_D.WIDTH]
        rows.copy(n[_D.ATTENTION_OUT] + 4 * row * size, size, x)
    else:
        size = n[_D.INNER]
        rows.copy(n[_D.GATE_UP_OUT] + 4 * row * n[_D.GATE_UP_WIDTH], n[_D.GATE_UP_WIDTH], work)
        rows.adapt(n, adapters, layer, GATE, row, work, 0, 0, size)
        rows.adapt(n, adapters, layer, UP, row, work, size, 0, size)
        rows.gate(n[_D.ACTIVATION], work, work + 4 * size, size, x)
    if n[_D.BLOCKS]:
        _describe_blocks(x, size, inputs + 4 * n[_D.ROWS] * width + row * _blocks_bytes(n))


@njit(nogil=True)
def _prepare_alone(n: Any, layers: Any, adapters: Any, phase: int, eps: float, scratch: int) -> None:
    """All rows' inputs into a thread's own memory: for few rows less than waiting for another thread."""
    work = scratch + n[_D.ROWS] * (4 * n[_D.INPUTS] + _blocks_bytes(n))
    for row in range(n[_D.ROWS]):
        _prepare(n, layers, adapters, phase, row, eps, scratch, work, False)


@njit(nogil=True)
def _keep_residual(n: Any, layers: Any, adapters: Any, phase: int, eps: float, scratch: int) -> None:
    """Keep the residual for the phases behind, once a step: by who has the first chunk."""
    if phase % PHASES in (QKV, GATE_UP):
        work = scratch + n[_D.ROWS] * (4 * n[_D.INPUTS] + _blocks_bytes(n))
        for row in range(n[_D.ROWS]):
            _residual(n, layers, adapters, phase, row, eps, work)
            rows.copy(work, n[_D.HIDDEN], _kept_residual(n, _before(n, phase) + 1, row))


@njit(nogil=True)
def _has_adapter(n: Any, row: int) -> bool:
    return peek_i64(n[_D.ADAPTER] + 8 * row) >= 0  # type: ignore[no-any-return]


@njit(nogil=True)
def _product(n: Any, segments: Any, which: int, chunk: int, out: int, row_bytes: int, all_inputs: int) -> None:
    """A chunk of a phase's outputs, for all rows whose inputs stand at `all_inputs`."""
    kind, weights, inputs = segments[which, _S.KIND], segments[which, _S.WEIGHTS], segments[which, _S.INPUTS]
    stride, outputs, bias = segments[which, _S.STRIDE], segments[which, _S.OUTPUTS], segments[which, _S.BIAS]
    count, sums_at = n[_D.ROWS], all_inputs + 4 * n[_D.ROWS] * n[_D.INPUTS]
    sums_bytes = _blocks_bytes(n)
    first = chunk * segments[which, _S.TILES]
    for tile in range(first, first + segments[which, _S.TILES]):
        if kind in PACKED_KINDS:
            start, size = tile * products.PACKED, products.PACKED
        elif kind in (BY_INPUT_F32, BY_INPUT_BF16):
            start, size = min(tile * products.WIDE, outputs - products.WIDE), products.WIDE
        else:
            start, size = tile * 2, 2
        if tile * size >= outputs:
            return
        for row in range(0, count, 2):
            other = min(row + 1, count - 1)
            if segments[which, _S.ADAPTED] and not (_has_adapter(n, row) or _has_adapter(n, other)):
                continue
            x0, x1 = all_inputs + 4 * row * n[_D.INPUTS], all_inputs + 4 * other * n[_D.INPUTS]
            at = 4 * (segments[which, _S.AT] + start)
            y0, y1 = out + row * row_bytes + at, out + other * row_bytes + at
            blocks = inputs // rows.BLOCK
            if kind == FOUR_BITS:
                w = weights + tile * blocks * products.BYTES_4
                products.tile_4_bits(
                    w, blocks, x0, x1, sums_at + row * sums_bytes, sums_at + other * sums_bytes, y0, y1
                )
            elif kind == EIGHT_BITS:
                w = weights + tile * blocks * products.BYTES_8
                products.tile_8_bits(
                    w, blocks, x0, x1, sums_at + row * sums_bytes, sums_at + other * sums_bytes, y0, y1
                )
            elif kind == NF4:
                w = weights + tile * blocks * products.BYTES_NF4
                products.tile_nf4(w, segments[which, _S.TABLE], blocks, x0, x1, y0, y1)
            elif kind == BY_INPUT_F32:
                products.f32_by_input(weights + 4 * start, stride, inputs, bias and bias + 4 * start, x0, x1, y0, y1)
            elif kind == BY_INPUT_BF16:
                products.bf16_by_input(weights + 2 * start, stride, inputs, bias and bias + 4 * start, x0, x1, y0, y1)
            elif kind == BY_OUTPUT_F32:
                products.f32_by_output(weights + start * stride, stride, inputs, x0, x1, y0, y1)
            else:
                products.bf16_by_output(weights + start * stride, stride, inputs, x0, x1, y0, y1)
            if segments[which, _S.SCALE]:
                for place in range(start, start + size):
                    value, at = simd.peek(segments[which, _S.SCALE] + 4 * place), 4 * (place - start)
                    simd.poke(y0 + at, simd.peek(y0 + at) * value)
                    if other != row:
                        simd.poke(y1 + at, simd.peek(y1 + at) * value)
            if bias and kind not in (BY_INPUT_F32, BY_INPUT_BF16):
                for place in range(start, start + size):
                    value = simd.peek(bias + 4 * place)
                    at = 4 * (place - start)
                    simd.poke(y0 + at, simd.peek(y0 + at) + value)
                    if other != row:
                        simd.poke(y1 + at, simd.peek(y1 + at) + value)


@njit(nogil=True)
def _next(state: int, start: int, end: int) -> int:
    """The next chunk of a phase whose chunks are `start` to `end`, once it may begin; -1 when all are taken."""
    spins = 0
    while True:
        number = atomic_load(state)
        if number >= end:
            return -1
        if atomic_load(state + DONE) >= start:
            return number  # type: ignore[no-any-return]
        spins = _look_on(spins)


@njit(nogil=True)
def _look_on(spins: int) -> int:
    """Wait a little before the next look."""
    if spins > SPINS:
        _sleep(NAP)
    else:
        simd.pause()
    return spins + 1


_vector, _table = types.int64[::1], types.int64[:, ::1]
_SIGNATURE = types.void(
    types.int64, types.int64, _vector, _vector, _table, _table, _vector, types.int64[:, :, :, ::1],
    types.int64[:, :, ::1], types.float64, types.float64,
)  # fmt: skip


@njit(_SIGNATURE, nogil=True, cache=True)
def run(
    thread: int,
    state: int,
    starts: Any,
    n: Any,
    layers: Any,
    segments: Any,
    phase_segments: Any,
    adapters: Any,
    prefixes: Any,
    eps: float,
    scaling: float,
) -> None:
    """One thread's part of a step. `state` is where the number of chunks taken stands and, `DONE` bytes on, of those done."""
    scratch = n[_D.SCRATCH] + thread * n[_D.SCRATCH_BYTES]
    shared = n[_D.SHARED]  # where inputs stand that each row's are prepared in once, or 0
    for place in range(len(starts) - 1):
        phase, prepares = place // 2, place % 2 == 0
        start, end = starts[place], starts[place + 1]
        attention = phase % PHASES == ATTENTION and phase < n[_D.LAYERS] * PHASES
        prepared = shared != 0 or attention
        while True:
            number = _next(state, start, end)
            if number < 0:
                break
            if not prepared:
                _prepare_alone(n, layers, adapters, phase, eps, scratch)
            prepared = True
            if not compare_and_swap(state, number, number + 1):
                continue
            if prepares:
                first = (number - start) * ROWS_AT_ONCE
                for row in range(first, min(first + ROWS_AT_ONCE, n[_D.ROWS])):
                    _prepare(n, layers, adapters, phase, row, eps, shared, scratch, True)
            elif attention:
                attend(n, layers, adapters, prefixes, phase // PHASES, number - start, eps, scaling, scratch)
            else:
                if number == start and not shared:
                    _keep_residual(n, layers, adapters, phase, eps, scratch)
                out, row_bytes = _out(n, phase)
                which, chunk = phase_segments[phase], number - start
                while chunk >= segments[which, _S.CHUNKS]:
                    chunk -= segments[which, _S.CHUNKS]
                    which += 1
                _product(n, segments, which, chunk, out, row_bytes, shared or scratch)
            atomic_add(state + DONE, 1)
    if thread == 0:
        spins = 0
        while atomic_load(state + DONE) < starts[-1]:
            spins = _look_on(spins)
