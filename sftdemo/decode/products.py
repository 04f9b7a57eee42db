"""Products of two rows by a tile of weights, one function for each way that weights lie in memory.

Each takes where its weights stand, how many inputs they have, where each row's inputs stand, and where its outputs go. A tile
is read from memory once and then again from the cache for further pairs of rows. Sums are float32, whatever is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sftdemo.decode.rows import (
    BLOCK,
    BYTES_OF_INPUTS,
    FIRST_OFFSET,
    LAST_BYTES,
    LAST_OFFSET,
    SCALE,
    SECOND_BYTES,
    SECOND_OFFSET,
    SUM,
)
from sftdemo.decode.simd import (
    BYTE_DOTS,
    LANES,
    add,
    append_byte,
    broadcast,
    broadcast_i32,
    dot_bytes,
    fma,
    high4,
    high4_index,
    high_nibbles,
    load_bf16,
    load_f16,
    load_f32,
    load_i8,
    load_i32,
    load_u8,
    look_up,
    low4,
    low4_index,
    low_nibbles,
    mul,
    no_ints,
    poke,
    prefetch,
    splat,
    store_f32,
    to_floats,
    total,
    zero,
)

AHEAD = 4096  # bytes; what is read next is asked for by then, which the processor alone does too late
INPUTS_AHEAD = 16  # the same where each input's weights lie apart
PACKED = 2 * LANES  # outputs of a tile of packed weights
WIDE = 4 * LANES  # outputs of a tile of weights that lie by input
# Bytes of a block of a tile: a scale and perhaps an offset for each output, then the numbers, by input.
BYTES_4 = PACKED * (2 + 2) + PACKED * BLOCK // 2
BYTES_8 = PACKED * 2 + PACKED * BLOCK
BYTES_NF4 = PACKED * 4 + PACKED * BLOCK // 2
BLOCK_BYTES = BYTES_OF_INPUTS if BYTE_DOTS else 4  # what stands of each block of inputs beside them


@njit(nogil=True)
def _tile_4_bits_by_floats(w: int, blocks: int, x0: int, x1: int, sums0: int, sums1: int, y0: int, y1: int) -> None:
    """Weights d * q + m with 4-bit q; `sums0` and `sums1` are where the sums of each block of inputs stand."""
    y00, y01, y10, y11 = zero(), zero(), zero(), zero()
    for _ in range(blocks):
        even00, even01, even10, even11 = zero(), zero(), zero(), zero()
        odd00, odd01, odd10, odd11 = zero(), zero(), zero(), zero()
        q = w + 4 * PACKED
        for _ in range(BLOCK // 2):
            first, second = load_u8(q), load_u8(q + LANES)
            low0, low1, high0, high1 = low4(first), low4(second), high4(first), high4(second)
            a0, a1, b0, b1 = broadcast(x0), broadcast(x1), broadcast(x0 + 4), broadcast(x1 + 4)
            even00, even01 = fma(low0, a0, even00), fma(low1, a0, even01)
            even10, even11 = fma(low0, a1, even10), fma(low1, a1, even11)
            odd00, odd01 = fma(high0, b0, odd00), fma(high1, b0, odd01)
            odd10, odd11 = fma(high0, b1, odd10), fma(high1, b1, odd11)
            prefetch(q + AHEAD)
            q += PACKED
            x0 += 8
            x1 += 8
        d0, d1 = load_f16(w), load_f16(w + PACKED)
        m0, m1 = load_f16(w + 2 * PACKED), load_f16(w + 3 * PACKED)
        sum0, sum1 = broadcast(sums0), broadcast(sums1)
        y00 = fma(d0, add(even00, odd00), fma(m0, sum0, y00))
        y01 = fma(d1, add(even01, odd01), fma(m1, sum0, y01))
        y10 = fma(d0, add(even10, odd10), fma(m0, sum1, y10))
        y11 = fma(d1, add(even11, odd11), fma(m1, sum1, y11))
        w = q
        sums0 += 4
        sums1 += 4
    store_f32(y0, y00)
    store_f32(y0 + 4 * LANES, y01)
    store_f32(y1, y10)
    store_f32(y1 + 4 * LANES, y11)


@njit(nogil=True)
def _dots(x: int, q0: Any, q1: Any, a0: Any, a1: Any, b0: Any, b1: Any, c0: Any, c1: Any) -> Any:
    """The sums of each byte with four inputs of a row more, whose first bytes stand at x, for both halves of the outputs."""
    first, second, third = broadcast_i32(x), broadcast_i32(x + SECOND_BYTES), broadcast_i32(x + LAST_BYTES)
    return (
        dot_bytes(a0, q0, first),
        dot_bytes(a1, q1, first),
        dot_bytes(b0, q0, second),
        dot_bytes(b1, q1, second),
        dot_bytes(c0, q0, third),
        dot_bytes(c1, q1, third),
    )


@njit(nogil=True)
def _value(first: Any, second: Any, third: Any) -> Any:
    """Of sums of three bytes' products: with 4-bit weights less than 2^24 with the first two together."""
    return fma(to_floats(append_byte(first, second)), splat(np.float32(256)), to_floats(third))


@njit(nogil=True)
def _tile_4_bits_by_bytes(w: int, blocks: int, x0: int, x1: int, in0: int, in1: int, y0: int, y1: int) -> None:
    """The same of inputs in bytes (`rows.blocks_in_bytes`), whose products with q are summed as whole numbers, exactly."""
    y00, y01, y10, y11 = zero(), zero(), zero(), zero()
    for _ in range(blocks):
        # By byte (a, b, c), row and half of the outputs.
        a00, a01, a10, a11 = no_ints(), no_ints(), no_ints(), no_ints()
        b00, b01, b10, b11 = no_ints(), no_ints(), no_ints(), no_ints()
        c00, c01, c10, c11 = no_ints(), no_ints(), no_ints(), no_ints()
        q = w + 4 * PACKED
        for four in range(BLOCK // 4):
            if four % 2 == 0:
                first, second = load_i32(q), load_i32(q + 4 * LANES)
                q0, q1 = low_nibbles(first), low_nibbles(second)
                prefetch(q + AHEAD)
                prefetch(q + AHEAD + 4 * LANES)
                q += 8 * LANES
            else:
                q0, q1 = high_nibbles(first), high_nibbles(second)
            x, z = in0 + 4 * four, in1 + 4 * four
            a00, a01, b00, b01, c00, c01 = _dots(x, q0, q1, a00, a01, b00, b01, c00, c01)
            a10, a11, b10, b11, c10, c11 = _dots(z, q0, q1, a10, a11, b10, b11, c10, c11)
        d0, d1 = load_f16(w), load_f16(w + PACKED)
        m0, m1 = load_f16(w + 2 * PACKED), load_f16(w + 3 * PACKED)
        scale0, scale1 = broadcast(in0 + SCALE), broadcast(in1 + SCALE)
        sum0, sum1 = broadcast(in0 + SUM), broadcast(in1 + SUM)
        y00 = fma(d0, mul(_value(a00, b00, c00), scale0), fma(m0, sum0, y00))
        y01 = fma(d1, mul(_value(a01, b01, c01), scale0), fma(m1, sum0, y01))
        y10 = fma(d0, mul(_value(a10, b10, c10), scale1), fma(m0, sum1, y10))
        y11 = fma(d1, mul(_value(a11, b11, c11), scale1), fma(m1, sum1, y11))
        w = q
        in0 += BYTES_OF_INPUTS
        in1 += BYTES_OF_INPUTS
    store_f32(y0, y00)
    store_f32(y0 + 4 * LANES, y01)
    store_f32(y1, y10)
    store_f32(y1 + 4 * LANES, y11)


tile_4_bits = _tile_4_bits_by_bytes if BYTE_DOTS else _tile_4_bits_by_floats


@njit(nogil=True)
def _tile_8_bits_by_floats(w: int, blocks: int, x0: int, x1: int, in0: int, in1: int, y0: int, y1: int) -> None:
    """Weights d * q with 8-bit q."""
    y00, y01, y10, y11 = zero(), zero(), zero(), zero()
    for _ in range(blocks):
        even00, even01, even10, even11 = zero(), zero(), zero(), zero()
        odd00, odd01, odd10, odd11 = zero(), zero(), zero(), zero()
        q = w + 2 * PACKED
        for _ in range(BLOCK // 2):
            a0, a1, b0, b1 = broadcast(x0), broadcast(x1), broadcast(x0 + 4), broadcast(x1 + 4)
            w0, w1 = load_i8(q), load_i8(q + LANES)
            even00, even01, even10, even11 = (
                fma(w0, a0, even00),
                fma(w1, a0, even01),
                fma(w0, a1, even10),
                fma(w1, a1, even11),
            )
            w0, w1 = load_i8(q + PACKED), load_i8(q + PACKED + LANES)
            odd00, odd01, odd10, odd11 = fma(w0, b0, odd00), fma(w1, b0, odd01), fma(w0, b1, odd10), fma(w1, b1, odd11)
            prefetch(q + AHEAD)
            q += 2 * PACKED
            x0 += 8
            x1 += 8
        d0, d1 = load_f16(w), load_f16(w + PACKED)
        y00, y01 = fma(d0, add(even00, odd00), y00), fma(d1, add(even01, odd01), y01)
        y10, y11 = fma(d0, add(even10, odd10), y10), fma(d1, add(even11, odd11), y11)
        w = q
    store_f32(y0, y00)
    store_f32(y0 + 4 * LANES, y01)
    store_f32(y1, y10)
    store_f32(y1 + 4 * LANES, y11)


@njit(nogil=True)
def _tile_8_bits_by_bytes(w: int, blocks: int, x0: int, x1: int, in0: int, in1: int, y0: int, y1: int) -> None:
    """The same of inputs in bytes, and of q + 128, whose part in each sum is taken off before."""
    y00, y01, y10, y11 = zero(), zero(), zero(), zero()
    for _ in range(blocks):
        a00, b00 = broadcast_i32(in0 + FIRST_OFFSET), broadcast_i32(in0 + SECOND_OFFSET)
        c00 = broadcast_i32(in0 + LAST_OFFSET)
        a10, b10 = broadcast_i32(in1 + FIRST_OFFSET), broadcast_i32(in1 + SECOND_OFFSET)
        c10 = broadcast_i32(in1 + LAST_OFFSET)
        a01, b01, c01, a11, b11, c11 = a00, b00, c00, a10, b10, c10
        q = w + 2 * PACKED
        for four in range(BLOCK // 4):
            q0, q1 = load_i32(q), load_i32(q + 4 * LANES)
            prefetch(q + AHEAD)
            prefetch(q + AHEAD + 4 * LANES)
            q += 8 * LANES
            x, z = in0 + 4 * four, in1 + 4 * four
            a00, a01, b00, b01, c00, c01 = _dots(x, q0, q1, a00, a01, b00, b01, c00, c01)
            a10, a11, b10, b11, c10, c11 = _dots(z, q0, q1, a10, a11, b10, b11, c10, c11)
        d0, d1 = load_f16(w), load_f16(w + PACKED)
        scale0, scale1 = broadcast(in0 + SCALE), broadcast(in1 + SCALE)
        y00 = fma(d0, mul(_value(a00, b00, c00), scale0), y00)
        y01 = fma(d1, mul(_value(a01, b01, c01), scale0), y01)
        y10 = fma(d0, mul(_value(a10, b10, c10), scale1), y10)
        y11 = fma(d1, mul(_value(a11, b11, c11), scale1), y11)
        w = q
        in0 += BYTES_OF_INPUTS
        in1 += BYTES_OF_INPUTS
    store_f32(y0, y00)
    store_f32(y0 + 4 * LANES, y01)
    store_f32(y1, y10)
    store_f32(y1 + 4 * LANES, y11)


tile_8_bits = _tile_8_bits_by_bytes if BYTE_DOTS else _tile_8_bits_by_floats


@njit(nogil=True)
def tile_nf4(w: int, table: int, blocks: int, x0: int, x1: int, y0: int, y1: int) -> None:
    """Weights d * table[q] with 4-bit q."""
    low, high = load_f32(table), load_f32(table + 64 - 4 * LANES)
    y00, y01, y10, y11 = zero(), zero(), zero(), zero()
    for _ in range(blocks):
        even00, even01, even10, even11 = zero(), zero(), zero(), zero()
        odd00, odd01, odd10, odd11 = zero(), zero(), zero(), zero()
        q = w + 4 * PACKED
        for _ in range(BLOCK // 2):
            first, second = load_u8(q), load_u8(q + LANES)
            a0, a1, b0, b1 = broadcast(x0), broadcast(x1), broadcast(x0 + 4), broadcast(x1 + 4)
            w0, w1 = look_up(low, high, low4_index(first)), look_up(low, high, low4_index(second))
            even00, even01, even10, even11 = (
                fma(w0, a0, even00),
                fma(w1, a0, even01),
                fma(w0, a1, even10),
                fma(w1, a1, even11),
            )
            w0, w1 = look_up(low, high, high4_index(first)), look_up(low, high, high4_index(second))
            odd00, odd01, odd10, odd11 = fma(w0, b0, odd00), fma(w1, b0, odd01), fma(w0, b1, odd10), fma(w1, b1, odd11)
            prefetch(q + AHEAD)
            q += PACKED
            x0 += 8
            x1 += 8
        d0, d1 = load_f32(w), load_f32(w + 2 * PACKED)
        y00, y01 = fma(d0, add(even00, odd00), y00), fma(d1, add(even01, odd01), y01)
        y10, y11 = fma(d0, add(even10, odd10), y10), fma(d1, add(even11, odd11), y11)
        w = q
    store_f32(y0, y00)
    store_f32(y0 + 4 * LANES, y01)
    store_f32(y1, y10)
    store_f32(y1 + 4 * LANES, y11)


def _by_input(load: Any, size: int) -> Any:
    step = size * LANES

    @njit(nogil=True)
    def tile_by_input(w: int, stride: int, inputs: int, bias: int, x0: int, x1: int, y0: int, y1: int) -> None:
        """Weights [inputs, outputs], `stride` bytes from one input to the next; `bias` is where the outputs begin, or 0."""
        y00, y01, y02, y03 = zero(), zero(), zero(), zero()
        if bias:
            y00, y01 = load_f32(bias), load_f32(bias + 4 * LANES)
            y02, y03 = load_f32(bias + 8 * LANES), load_f32(bias + 12 * LANES)
        y10, y11, y12, y13 = y00, y01, y02, y03
        ahead = INPUTS_AHEAD * stride
        for _ in range(inputs):
            for line in range(0, 4 * step, 64):
                prefetch(w + ahead + line)
            w0, w1, w2, w3 = load(w), load(w + step), load(w + 2 * step), load(w + 3 * step)
            a0, a1 = broadcast(x0), broadcast(x1)
            y00, y01, y02, y03 = fma(w0, a0, y00), fma(w1, a0, y01), fma(w2, a0, y02), fma(w3, a0, y03)
            y10, y11, y12, y13 = fma(w0, a1, y10), fma(w1, a1, y11), fma(w2, a1, y12), fma(w3, a1, y13)
            w += stride
            x0 += 4
            x1 += 4
        store_f32(y0, y00)
        store_f32(y0 + 4 * LANES, y01)
        store_f32(y0 + 8 * LANES, y02)
        store_f32(y0 + 12 * LANES, y03)
        store_f32(y1, y10)
        store_f32(y1 + 4 * LANES, y11)
        store_f32(y1 + 8 * LANES, y12)
        store_f32(y1 + 12 * LANES, y13)

    return tile_by_input


def _by_output(load: Any, size: int) -> Any:
    step = size * LANES

    @njit(nogil=True)
    def tile_by_output(w: int, stride: int, inputs: int, x0: int, x1: int, y0: int, y1: int) -> None:
        """Two outputs of weights [outputs, inputs], `stride` bytes from one output to the next; inputs a multiple of LANES."""
        y00, y01, y10, y11 = zero(), zero(), zero(), zero()
        second = w + stride
        for _ in range(inputs // LANES):
            prefetch(w + AHEAD)
            prefetch(second + AHEAD)
            w0, w1, a0, a1 = load(w), load(second), load_f32(x0), load_f32(x1)
            y00, y01, y10, y11 = fma(w0, a0, y00), fma(w1, a0, y01), fma(w0, a1, y10), fma(w1, a1, y11)
            w += step
            second += step
            x0 += 4 * LANES
            x1 += 4 * LANES
        poke(y0, total(y00))
        poke(y0 + 4, total(y01))
        poke(y1, total(y10))
        poke(y1 + 4, total(y11))

    return tile_by_output


f32_by_input, bf16_by_input = _by_input(load_f32, 4), _by_input(load_bf16, 2)
f32_by_output, bf16_by_output = _by_output(load_f32, 4), _by_output(load_bf16, 2)
