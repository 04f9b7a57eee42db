"""What one row's numbers go through between products: norms, activations, bytes, adapters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sftdemo.decode.simd import (
    LANES,
    absolute,
    add,
    add_ints,
    broadcast,
    div,
    drop_byte,
    fma,
    larger,
    largest,
    last_byte,
    load_f32,
    mul,
    nearest,
    no_ints,
    peek_i64,
    poke,
    poke_i32,
    power_of_two,
    smaller,
    splat,
    store_f32,
    store_i8,
    sub,
    to_ints,
    total,
    total_ints,
    zero,
)
from sftdemo.decode.tables import Adapter, Dim

SILU, GELU_TANH = 0, 1
STEP = 4 * LANES  # bytes of a vector
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
# Cephes' expf: e^r on [-ln 2 / 2, ln 2 / 2], an error of about one in the last place.
_P0, _P1, _P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_MOST, _ONE, _TWO, _HALF = np.float32(87.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
MOST_WHOLE = np.float32(8_355_000)  # a little less than three signed bytes hold
LEAST_SCALED = np.float32(1e-30)
BLOCK = 32  # inputs that share a scale
BLOCK_FLOATS = 4 * BLOCK  # bytes of them as they come
# The record of a block's inputs in bytes (`blocks_in_bytes`): where each part of it begins.
SECOND_BYTES, LAST_BYTES, SCALE, SUM = BLOCK, 2 * BLOCK, 3 * BLOCK, 3 * BLOCK + 4  # the first bytes begin it
FIRST_OFFSET, SECOND_OFFSET, LAST_OFFSET = SUM + 4, SUM + 8, SUM + 12
BYTES_OF_INPUTS = 128  # of a record: two lines of the cache
_D, _A = Dim, Adapter
_GELU_A, _GELU_B = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)


@njit(nogil=True)
def exp(x: Any) -> Any:
    """e^x of a vector; below -87 what -87 gives, which is next to nothing."""
    x = smaller(larger(x, splat(-_MOST)), splat(_MOST))
    n = nearest(mul(x, splat(_LOG2_E)))
    r = fma(n, splat(-_LN2_LOW), fma(n, splat(-_LN2_HIGH), x))
    p = fma(fma(splat(_P0), r, splat(_P1)), r, splat(_P2))
    p = fma(fma(fma(p, r, splat(_P3)), r, splat(_P4)), r, splat(_P5))
    return mul(fma(mul(p, r), r, add(r, splat(_ONE))), power_of_two(n))


@njit(nogil=True)
def root_mean_square_norm(x: int, weight: int, size: int, eps: float, out: int) -> None:
    """x / sqrt(mean(x^2) + eps) * weight."""
    squares = zero()
    for place in range(0, 4 * size, STEP):
        v = load_f32(x + place)
        squares = fma(v, v, squares)
    scale = splat(np.float32(_ONE / np.float32(math.sqrt(total(squares) / np.float32(size) + eps))))
    for place in range(0, 4 * size, STEP):
        store_f32(out + place, mul(mul(load_f32(x + place), scale), load_f32(weight + place)))


@njit(nogil=True)
def sum_into(x: int, y: int, size: int) -> None:
    """x += y."""
    for place in range(0, 4 * size, STEP):
        store_f32(x + place, add(load_f32(x + place), load_f32(y + place)))


@njit(nogil=True)
def copy(x: int, size: int, out: int) -> None:
    for place in range(0, 4 * size, STEP):
        store_f32(out + place, load_f32(x + place))


@njit(nogil=True)
def scale(x: int, size: int, by: float) -> None:
    for place in range(0, 4 * size, STEP):
        store_f32(x + place, mul(load_f32(x + place), splat(np.float32(by))))


@njit(nogil=True)
def gate(kind: int, gates: int, ups: int, size: int, out: int) -> None:
    """act(gates) * ups."""
    one = splat(_ONE)
    for place in range(0, 4 * size, STEP):
        g = load_f32(gates + place)
        if kind == SILU:
            active = div(g, add(one, exp(sub(zero(), g))))
        else:  # 0.5 g (1 + tanh u) = g - g / (e^2u + 1)
            u = mul(splat(_GELU_A), mul(g, fma(mul(splat(_GELU_B), g), g, one)))
            active = sub(g, div(g, add(exp(mul(splat(_TWO), u)), one)))
        store_f32(out + place, mul(active, load_f32(ups + place)))


@njit(nogil=True)
def block_sums(x: int, size: int, out: int) -> None:
    """The sums of each block of inputs."""
    for block in range(size // BLOCK):
        sums = zero()
        for place in range(0, BLOCK_FLOATS, STEP):
            sums = add(sums, load_f32(x + BLOCK_FLOATS * block + place))
        poke(out + 4 * block, total(sums))


@njit(nogil=True)
def blocks_in_bytes(x: int, size: int, out: int) -> None:
    """Each block's inputs as whole numbers of three signed bytes times a scale: first bytes, second, last, scale, sum.

    They keep 23 bits of the largest number, as float32 does. Behind the sum stand -128 times the sums of each byte.
    """
    for _ in range(size // BLOCK):
        sums, most = zero(), zero()
        firsts, middles, lasts = no_ints(), no_ints(), no_ints()
        for place in range(0, BLOCK_FLOATS, STEP):
            v = load_f32(x + place)
            sums, most = add(sums, v), larger(absolute(v), most)
        top = largest(most)
        into_whole = splat(MOST_WHOLE / top if top > LEAST_SCALED else np.float32(0))
        for place in range(0, BLOCK_FLOATS, STEP):
            numbers = to_ints(nearest(mul(load_f32(x + place), into_whole)))
            last = last_byte(numbers)
            numbers = drop_byte(numbers, last)
            middle = last_byte(numbers)
            into = out + place // 4
            first = drop_byte(numbers, middle)
            firsts, middles, lasts = add_ints(firsts, first), add_ints(middles, middle), add_ints(lasts, last)
            store_i8(into, first)
            store_i8(into + SECOND_BYTES, middle)
            store_i8(into + LAST_BYTES, last)
        poke(out + SCALE, top / MOST_WHOLE)
        poke(out + SUM, total(sums))
        poke_i32(out + FIRST_OFFSET, np.int32(-128) * total_ints(firsts))
        poke_i32(out + SECOND_OFFSET, np.int32(-128) * total_ints(middles))
        poke_i32(out + LAST_OFFSET, np.int32(-128) * total_ints(lasts))
        x += BLOCK_FLOATS
        out += BYTES_OF_INPUTS


@njit(nogil=True)
def add_adapter(inner: int, rank: int, b: int, stride: int, size: int, y: int) -> None:
    """y += inner B, for `size` columns of B [rank, ...], `stride` bytes from one row to the next."""
    for place in range(0, 4 * size, STEP):
        v = load_f32(y + place)
        row = b + place
        for index in range(rank):
            v = fma(broadcast(inner + 4 * index), load_f32(row), v)
            row += stride
        store_f32(y + place, v)


@njit(nogil=True)
def rescale(factor: int, summand: int, size: int, y: int) -> None:
    """y = y * factor + summand, which is DoRA's."""
    for place in range(0, 4 * size, STEP):
        store_f32(y + place, fma(load_f32(y + place), load_f32(factor + place), load_f32(summand + place)))


@njit(nogil=True)
def adapt(n: Any, adapters: Any, layer: int, linear: int, row: int, y: int, at: int, first: int, size: int) -> None:
    """An adapter's part of a linear layer, in its row: the outputs from `first` on, which stand in the row at `at`."""
    adapter = peek_i64(n[_D.ADAPTER] + 8 * row)
    if adapter < 0:
        return
    table = adapters[layer, linear, adapter]
    into = y + 4 * (at + first)
    if table[_A.FACTOR]:
        rescale(table[_A.FACTOR] + 4 * first, table[_A.SUMMAND] + 4 * first, size, into)
    if table[_A.RANK]:
        b = table[_A.B] + 4 * first
        add_adapter(y + 4 * table[_A.INNER], table[_A.RANK], b, table[_A.STRIDE], size, into)
