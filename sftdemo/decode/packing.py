"""Weights that came as blocks of 4 or 8 bits, found again in float32, and laid out for products of few rows.

GGUF's Q4_1 has d * q + m for 32 inputs, q of 4 bits, Q8_0 has d * q with q of 8 bits; d and m are float16. What was dequantized
from them gives the same blocks again, exactly, at a sixth or a quarter of the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from sftdemo.decode.products import BYTES_4, BYTES_8, BYTES_NF4, PACKED
from sftdemo.decode.rows import BLOCK
from sftdemo.decode.simd import BYTE_DOTS, as_f16, peek, poke, poke_f16, poke_u8

FIFTEEN, MOST = np.float32(15), np.float32(127)
NOTHING = np.float32(1e-30)
TOLERANCE = np.float32(1 / 128)  # of bfloat16


def four_bits(weight: Tensor) -> Tensor | None:
    """Tiles of a float32 weight [outputs, inputs] for `products.tile_4_bits`; None where it is no such weight."""
    return _packed(weight, BYTES_4, _four_bits)


def eight_bits(weight: Tensor) -> Tensor | None:
    """Tiles of a float32 weight [outputs, inputs] for `products.tile_8_bits`; None where it is no such weight."""
    return _packed(weight, BYTES_8, _eight_bits)


def nf4(weight: Tensor, scales: Tensor, table: Tensor) -> Tensor | None:
    """Tiles for `products.tile_nf4` of weights [outputs, inputs] that are scales [weights / 64] times numbers of the table."""
    outputs, inputs = weight.shape
    if outputs % PACKED or inputs % 64:  # where blocks go over rows' ends, bitsandbytes reads them otherwise on a CPU
        return None
    tiles = torch.zeros(outputs // PACKED, inputs // BLOCK, BYTES_NF4, dtype=torch.uint8)
    places = (weight.data_ptr(), scales.data_ptr(), table.data_ptr(), tiles.data_ptr())
    return tiles if _nf4(*places, outputs, inputs) else None


def whole_rows(weight: Tensor) -> Tensor | None:
    """Tiles for `products.tile_8_bits` of int8 weights [outputs, inputs], whose outputs are scaled afterwards."""
    outputs, inputs = weight.shape
    if outputs % PACKED or inputs % BLOCK:
        return None
    numbers = weight.reshape(-1, PACKED, inputs // BLOCK, BLOCK).permute(0, 2, 3, 1)
    if BYTE_DOTS:  # four inputs of an output together, without a sign
        numbers = numbers.reshape(*numbers.shape[:2], -1, 4, PACKED).transpose(3, 4) ^ -128
    numbers = numbers.flatten(2).view(torch.uint8)
    ones = torch.ones(len(numbers), inputs // BLOCK, PACKED, dtype=torch.float16).view(torch.uint8)
    return torch.cat([ones, numbers], 2)


def _packed(weight: Tensor, size: int, pack: Any) -> Tensor | None:
    outputs, inputs = weight.shape
    if weight.dtype != torch.float32 or outputs % PACKED or inputs % BLOCK:
        return None
    tiles = torch.zeros(outputs // PACKED, inputs // BLOCK, size, dtype=torch.uint8)
    steps = (4 * stride for stride in weight.stride())
    return tiles if pack(weight.data_ptr(), outputs, inputs, *steps, tiles.data_ptr()) else None


@njit(nogil=True)
def _pair(pair: int, lane: int) -> tuple[int, int, int]:
    """The two inputs of a block that share a byte, and where it stands."""
    if BYTE_DOTS:  # four inputs of an output stand together, in the lower and then in the upper halves of their bytes
        eight, place = pair // 4, pair % 4
        first = 8 * eight + place
        return first, first + 4, 4 * (eight * PACKED + lane) + place
    return 2 * pair, 2 * pair + 1, pair * PACKED + lane


@njit("boolean(int64, int64, int64, int64, int64, int64)", nogil=True, cache=True)
def _four_bits(weight: int, outputs: int, inputs: int, by_output: int, by_input: int, out: int) -> bool:
    """Whether all blocks are d * q + m; the least number of a block has q 0, the largest 15."""
    for output in range(outputs):
        lane = output % PACKED
        for block in range(inputs // BLOCK):
            start = weight + output * by_output + block * BLOCK * by_input
            least = most = peek(start)
            for place in range(1, BLOCK):
                value = peek(start + place * by_input)
                least, most = min(least, value), max(most, value)
            d = as_f16(np.float32(most - least) / FIFTEEN)
            if as_f16(least) != least:
                return False
            into = out + (output // PACKED * (inputs // BLOCK) + block) * BYTES_4
            poke_f16(into + 2 * lane, d)
            poke_f16(into + 2 * PACKED + 2 * lane, least)
            into += 4 * PACKED
            for pair in range(BLOCK // 2):
                one, other, place = _pair(pair, lane)
                first, second = peek(start + one * by_input), peek(start + other * by_input)
                q0 = np.float32(np.rint((first - least) / max(d, NOTHING)))
                q1 = np.float32(np.rint((second - least) / max(d, NOTHING)))
                if np.float32(np.float32(q0 * d) + least) != first or np.float32(np.float32(q1 * d) + least) != second:
                    return False
                if q0 > FIFTEEN or q1 > FIFTEEN:
                    return False
                poke_u8(into + place, np.uint8(np.uint8(q0) | (np.uint8(q1) << np.uint8(4))))
    return True


@njit("boolean(int64, int64, int64, int64, int64, int64)", nogil=True, cache=True)
def _eight_bits(weight: int, outputs: int, inputs: int, by_output: int, by_input: int, out: int) -> bool:
    """Whether all blocks are d * q; the number furthest from 0 has q 127 or -127."""
    for output in range(outputs):
        lane = output % PACKED
        for block in range(inputs // BLOCK):
            start = weight + output * by_output + block * BLOCK * by_input
            most = np.float32(0)
            for place in range(BLOCK):
                most = max(most, abs(peek(start + place * by_input)))
            d = as_f16(most / MOST)
            into = out + (output // PACKED * (inputs // BLOCK) + block) * BYTES_8
            poke_f16(into + 2 * lane, d)
            into += 2 * PACKED
            for place in range(BLOCK):
                value = peek(start + place * by_input)
                q = np.float32(np.rint(value / max(d, NOTHING)))
                if np.float32(q * d) != value or abs(q) > MOST:
                    return False
                if BYTE_DOTS:  # four inputs of an output together, without a sign
                    poke_u8(into + 4 * (place // 4 * PACKED + lane) + place % 4, np.uint8(q + np.float32(128)))
                else:
                    poke_u8(into + place * PACKED + lane, np.uint8(np.int8(q)))
    return True


@njit("boolean(int64, int64, int64, int64, int64, int64)", nogil=True, cache=True)
def _nf4(weight: int, scales: int, table: int, out: int, outputs: int, inputs: int) -> bool:
    """Whether each weight is its block's scale times a number of the table, but for rounding to 16 bits."""
    for output in range(outputs):
        lane = output % PACKED
        for block in range(inputs // BLOCK):
            place = output * inputs + block * BLOCK
            d = peek(scales + 4 * (place // 64))
            into = out + (output // PACKED * (inputs // BLOCK) + block) * BYTES_NF4
            poke(into + 4 * lane, d)
            into += 4 * PACKED + lane
            for pair in range(BLOCK // 2):
                byte = np.uint8(0)
                for half in range(2):
                    value = peek(weight + 4 * (place + 2 * pair + half))
                    nearest, least = 0, np.float32(np.inf)
                    for index in range(16):
                        off = abs(np.float32(peek(table + 4 * index) * d) - value)
                        if off < least:
                            nearest, least = index, off
                    if least > d * TOLERANCE:
                        return False
                    byte |= np.uint8(nearest << (4 * half))
                poke_u8(into + pair * PACKED, byte)
    return True
