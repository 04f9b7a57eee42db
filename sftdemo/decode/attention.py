"""Attention of a step: each row's new key and value into the cache, and what its queries see of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sftdemo.decode import rows
from sftdemo.decode.rows import STEP, exp
from sftdemo.decode.simd import (
    LANES,
    add,
    broadcast,
    fma,
    larger,
    largest,
    load_bf16,
    load_f32,
    mul,
    peek,
    peek_i64,
    peek_u8,
    poke,
    splat,
    store_bf16,
    store_f32,
    store_totals,
    sub,
    total,
    zero,
)
from sftdemo.decode.tables import Dim, K, Layer, Q, V

LEAST = np.float32(-np.inf)
_ONE = np.float32(1.0)
_D, _L = Dim, Layer


@njit(nogil=True)
def rotate(x: int, cos: int, sin: int, width: int) -> None:
    """Rotary places for the first `width` numbers of a head, halves against each other."""
    half = width // 2
    start = half // LANES * LANES
    for index in range(0, start, LANES):
        at, behind = 4 * index, 4 * (index + half)
        first, second = load_f32(x + at), load_f32(x + behind)
        store_f32(x + at, sub(mul(first, load_f32(cos + at)), mul(second, load_f32(sin + at))))
        store_f32(x + behind, add(mul(second, load_f32(cos + behind)), mul(first, load_f32(sin + behind))))
    for index in range(start, half):
        first, second = peek(x + 4 * index), peek(x + 4 * (index + half))
        poke(x + 4 * index, first * peek(cos + 4 * index) - second * peek(sin + 4 * index))
        poke(
            x + 4 * (index + half),
            second * peek(cos + 4 * (index + half)) + first * peek(sin + 4 * (index + half)),
        )


def _attention(load: Any, store: Any, size: int) -> tuple[Any, Any, Any]:
    step = size * LANES

    @njit(nogil=True)
    def keep(x: int, width: int, into: int) -> None:
        """Write a head's key or value into the cache."""
        for index in range(width // LANES):
            store(into + index * step, load_f32(x + index * STEP))

    @njit(nogil=True)
    def scores(queries: int, heads: int, width: int, keys: int, columns: int, out: int, stride: int) -> None:
        """q . k of some heads' queries with the keys of their common head, row by row of scores `stride` bytes apart."""
        row = size * width
        column = 0
        while column + 4 <= columns:
            for head in range(heads):
                query, key = queries + 4 * width * head, keys
                v0, v1, v2, v3 = zero(), zero(), zero(), zero()
                for _ in range(width // LANES):
                    part = load_f32(query)
                    v0, v1 = fma(part, load(key), v0), fma(part, load(key + row), v1)
                    v2, v3 = fma(part, load(key + 2 * row), v2), fma(part, load(key + 3 * row), v3)
                    query += STEP
                    key += step
                store_totals(out + stride * head + 4 * column, v0, v1, v2, v3)
            keys += 4 * row
            column += 4
        while column < columns:
            for head in range(heads):
                query, key, v = queries + 4 * width * head, keys, zero()
                for _ in range(width // LANES):
                    v = fma(load_f32(query), load(key), v)
                    query += STEP
                    key += step
                poke(out + stride * head + 4 * column, total(v))
            keys += row
            column += 1

    @njit(nogil=True)
    def mix(weights: int, values: int, columns: int, width: int, out: int) -> None:
        """out += the values weighted."""
        for part in range(width // LANES):
            value = values + part * step
            v0, v1, v2, v3 = load_f32(out + part * STEP), zero(), zero(), zero()
            column = 0
            while column + 4 <= columns:
                place = weights + 4 * column
                v0 = fma(broadcast(place), load(value), v0)
                v1 = fma(broadcast(place + 4), load(value + size * width), v1)
                v2 = fma(broadcast(place + 8), load(value + 2 * size * width), v2)
                v3 = fma(broadcast(place + 12), load(value + 3 * size * width), v3)
                value += 4 * size * width
                column += 4
            while column < columns:
                v0 = fma(broadcast(weights + 4 * column), load(value), v0)
                value += size * width
                column += 1
            store_f32(out + part * STEP, add(add(v0, v1), add(v2, v3)))

    return keep, scores, mix


keep_f32, scores_f32, mix_f32 = _attention(load_f32, store_f32, 4)
keep_bf16, scores_bf16, mix_bf16 = _attention(load_bf16, store_bf16, 2)


@njit(nogil=True)
def softmax(scores: int, mask: int, first: int, ahead: int, columns: int) -> None:
    """In place; of `columns`, those before `first`, and from `ahead` on those that the mask hides, get nothing.

    There is room for a whole vector behind the last.
    """
    for column in range(first):
        poke(scores + 4 * column, LEAST)
    for column in range(max(ahead, first), columns):
        if not peek_u8(mask + column - ahead):
            poke(scores + 4 * column, LEAST)
    for column in range(columns, columns + LANES):
        poke(scores + 4 * column, LEAST)
    top = load_f32(scores)
    for place in range(0, 4 * columns, STEP):
        top = larger(load_f32(scores + place), top)
    most = splat(largest(top))
    sums = zero()
    for place in range(0, 4 * columns, STEP):
        v = exp(sub(load_f32(scores + place), most))
        sums = add(sums, v)
        store_f32(scores + place, v)
    share = splat(np.float32(_ONE / total(sums)))
    for place in range(0, 4 * columns, STEP):
        store_f32(scores + place, mul(load_f32(scores + place), share))


@njit(nogil=True)
def attend(
    n: Any, layers: Any, adapters: Any, prefixes: Any, layer: int, chunk: int, eps: float, scaling: float, scratch: int
) -> None:
    """One row's heads that share a key head: its new key and value into the cache, and what they see."""
    table = layers[layer]
    row, head = chunk // n[_D.KEY_HEADS], chunk % n[_D.KEY_HEADS]
    group, width, rotary = n[_D.HEADS] // n[_D.KEY_HEADS], n[_D.WIDTH], n[_D.ROTARY]
    columns, ahead = n[_D.COLUMNS], n[_D.AHEAD]
    k_at, v_at = n[_D.HEADS] * width, (n[_D.HEADS] + n[_D.KEY_HEADS]) * width
    # Each head belongs to one chunk, which changes it where it stands.
    y = n[_D.QKV_OUT] + 4 * row * n[_D.QKV_WIDTH]
    rows.adapt(n, adapters, layer, Q, row, y, 0, head * group * width, group * width)
    rows.adapt(n, adapters, layer, K, row, y, k_at, head * width, width)
    rows.adapt(n, adapters, layer, V, row, y, v_at, head * width, width)
    cos, sin = table[_L.COS] + 4 * row * rotary, table[_L.SIN] + 4 * row * rotary
    queries, key, value = y + 4 * head * group * width, y + 4 * (k_at + head * width), y + 4 * (v_at + head * width)
    if table[_L.K_NORM]:
        rows.root_mean_square_norm(key, table[_L.K_NORM], width, eps, key)
    rotate(key, cos, sin, rotary)
    for index in range(group):
        query = queries + 4 * index * width
        if table[_L.Q_NORM]:
            rows.root_mean_square_norm(query, table[_L.Q_NORM], width, eps, query)
        rotate(query, cos, sin, rotary)
        rows.scale(query, width, scaling)
    size = 2 if n[_D.BFLOAT16_CACHE] else 4
    start = row * table[_L.ROW_BYTES] + head * table[_L.HEAD_BYTES]
    keys, values = table[_L.KEYS] + start, table[_L.VALUES] + start
    last = (columns - 1) * width * size
    stride = 4 * (ahead + columns + 2 * LANES)
    into = n[_D.ATTENTION_OUT] + 4 * (row * n[_D.HEADS] + head * group) * width
    which = peek_i64(n[_D.ADAPTER] + 8 * row) + 1
    common_keys, common_values = np.int64(0), np.int64(0)
    if ahead:
        common = head * ahead * width * size
        common_keys, common_values = prefixes[layer, which, 0] + common, prefixes[layer, which, 1] + common
    first = peek_i64(table[_L.FIRST] + 8 * row)
    mask = n[_D.MASK] + row * columns
    if n[_D.BFLOAT16_CACHE]:
        keep_bf16(key, width, keys + last)
        keep_bf16(value, width, values + last)
        if ahead:
            scores_bf16(queries, group, width, common_keys, ahead, scratch, stride)
        scores_bf16(queries, group, width, keys, columns, scratch + 4 * ahead, stride)
    else:
        keep_f32(key, width, keys + last)
        keep_f32(value, width, values + last)
        if ahead:
            scores_f32(queries, group, width, common_keys, ahead, scratch, stride)
        scores_f32(queries, group, width, keys, columns, scratch + 4 * ahead, stride)
    for index in range(group):
        weights, out = scratch + stride * index, into + 4 * index * width
        softmax(weights, mask, first, ahead, ahead + columns)
        for place in range(0, 4 * width, 4 * LANES):
            store_f32(out + place, zero())
        if n[_D.BFLOAT16_CACHE]:
            if ahead:
                mix_bf16(weights, common_values, ahead, width, out)
            mix_bf16(weights + 4 * ahead, values, columns, width, out)
        else:
            if ahead:
                mix_f32(weights, common_values, ahead, width, out)
            mix_f32(weights + 4 * ahead, values, columns, width, out)
