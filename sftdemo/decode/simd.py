"""Vectors of float32, loads from memory in other formats, and atomics, as functions that numba compiles to single instructions.

Addresses are plain integers: what is read was laid out by torch or by `packing`, and lives as long as the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

# NUMBA_CPU_FEATURES says it for a processor that has more.
FEATURES = set(str(config.CPU_FEATURES or llvmlite.binding.get_host_cpu_features().flatten()).split(","))  # type: ignore[attr-defined]
LANES = 16 if "+avx512f" in FEATURES else 8
BYTE_DOTS = {"+avx512f", "+avx512vnni"} <= FEATURES  # whether `dot_bytes` is one instruction

_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)


class _Floats(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("float32 vector")  # type: ignore[no-untyped-call]


class _Ints(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("int32 vector")  # type: ignore[no-untyped-call]


floats, ints = _Floats(), _Ints()
address = types.int64


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, frontend: Any) -> None:
        super().__init__(manager, frontend, _FLOATS)  # type: ignore[no-untyped-call]


@register_model(_Ints)
class _IntsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, frontend: Any) -> None:
        super().__init__(manager, frontend, _INTS)  # type: ignore[no-untyped-call]


Emit = Callable[..., Any]


def _function(returned: types.Type, arguments: list[types.Type], emit: Emit) -> Any:
    """A function for compiled code: `emit(builder, *values)` writes its instructions."""
    names = ", ".join(f"a{index}" for index in range(len(arguments)))
    signature = returned(*arguments)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        result = emit(builder, *values)
        return context.get_dummy_value() if returned is types.void else result

    scope: dict[str, Any] = {"signature": signature, "generate": generate}
    # numba takes the number of arguments from the function's own signature.
    exec(f"def typed(context, {names}):\n    return signature, generate", scope)
    return intrinsic(scope["typed"])


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * LANES)


def _at(builder: Any, place: Any, kind: Any) -> Any:
    return builder.inttoptr(place, kind.as_pointer())


def _loaded(builder: Any, place: Any, kind: Any, align: int) -> Any:
    value = builder.load(_at(builder, place, kind))
    value.align = align
    return value


def _stored(builder: Any, place: Any, value: Any, align: int) -> None:
    builder.store(value, _at(builder, place, value.type)).align = align


def _spread(builder: Any, value: Any, kind: Any = _FLOATS) -> Any:
    empty = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_INTS, [0] * LANES))


def _called(builder: Any, name: str, returned: Any, *values: Any, **flags: Any) -> Any:
    kind = ir.FunctionType(returned, [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
    return builder.call(function, values, **flags)


def _of_bfloat16(builder: Any, place: Any) -> Any:
    upper = builder.zext(_loaded(builder, place, ir.VectorType(_I16, LANES), 2), _INTS)
    return builder.bitcast(builder.shl(upper, _constant(_INTS, 16)), _FLOATS)


def _rounded_bfloat16(builder: Any, place: Any, value: Any) -> None:
    """To the nearest, ties to even."""
    bits = builder.bitcast(value, _INTS)
    odd = builder.and_(builder.lshr(bits, _constant(_INTS, 16)), _constant(_INTS, 1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, _constant(_INTS, 0x7FFF))), _constant(_INTS, 16))
    _stored(builder, place, builder.trunc(rounded, ir.VectorType(_I16, LANES)), 2)


def _power_of_two(builder: Any, value: Any) -> Any:
    """2 to the power of whole numbers between -126 and 127."""
    exponent = builder.add(builder.fptosi(value, _INTS), _constant(_INTS, 127))
    return builder.bitcast(builder.shl(exponent, _constant(_INTS, 23)), _FLOATS)


def _reduced(name: str, start: list[Any]) -> Emit:
    return lambda builder, value: _called(
        builder, f"llvm.vector.reduce.{name}.v{LANES}f32", _F32, *start, value, fastmath=("reassoc",)
    )


zero = _function(floats, [], lambda builder: _constant(_FLOATS, 0.0))
splat = _function(floats, [types.float32], _spread)
broadcast = _function(floats, [address], lambda builder, place: _spread(builder, _loaded(builder, place, _F32, 4)))
load_f32 = _function(floats, [address], lambda builder, place: _loaded(builder, place, _FLOATS, 4))
load_bf16 = _function(floats, [address], _of_bfloat16)
load_f16 = _function(
    floats,
    [address],
    lambda builder, place: builder.fpext(_loaded(builder, place, ir.VectorType(ir.HalfType(), LANES), 2), _FLOATS),
)
load_i8 = _function(
    floats,
    [address],
    lambda builder, place: builder.sitofp(
        builder.sext(_loaded(builder, place, ir.VectorType(_I8, LANES), 1), _INTS), _FLOATS
    ),
)
load_u8 = _function(
    ints, [address], lambda builder, place: builder.zext(_loaded(builder, place, ir.VectorType(_I8, LANES), 1), _INTS)
)
low4 = _function(
    floats, [ints], lambda builder, value: builder.sitofp(builder.and_(value, _constant(_INTS, 15)), _FLOATS)
)
high4 = _function(
    floats, [ints], lambda builder, value: builder.sitofp(builder.lshr(value, _constant(_INTS, 4)), _FLOATS)
)


def _looked_up(builder: Any, low: Any, high: Any, index: Any) -> Any:
    """Of a table of 16 numbers, which one vector holds or two."""
    if LANES == 16:
        return _called(builder, "llvm.x86.avx512.permvar.sf.512", _FLOATS, low, index)
    parts = [_called(builder, "llvm.x86.avx2.permps", _FLOATS, part, index) for part in (low, high)]
    return builder.select(builder.icmp_signed("<", index, _constant(_INTS, 8)), *parts)


low4_index = _function(ints, [ints], lambda builder, value: builder.and_(value, _constant(_INTS, 15)))
high4_index = _function(ints, [ints], lambda builder, value: builder.lshr(value, _constant(_INTS, 4)))
look_up = _function(floats, [floats, floats, ints], _looked_up)


def _pairs_of_nibbles(builder: Any, value: Any, shift: int) -> Any:
    return builder.and_(builder.lshr(value, _constant(_INTS, shift)), _constant(_INTS, 0x0F0F0F0F))


no_ints = _function(ints, [], lambda builder: _constant(_INTS, 0))
load_i32 = _function(ints, [address], lambda builder, place: _loaded(builder, place, _INTS, 4))
broadcast_i32 = _function(
    ints, [address], lambda builder, place: _spread(builder, _loaded(builder, place, _I32, 4), _INTS)
)
low_nibbles = _function(ints, [ints], lambda builder, value: _pairs_of_nibbles(builder, value, 0))
high_nibbles = _function(ints, [ints], lambda builder, value: _pairs_of_nibbles(builder, value, 4))
dot_bytes = _function(  # sums + x . y of each lane's four bytes, those of x unsigned
    ints,
    [ints] * 3,
    lambda builder, sums, x, y: _called(builder, "llvm.x86.avx512.vpdpbusd.512", _INTS, sums, x, y),
)
to_ints = _function(ints, [floats], lambda builder, value: builder.fptosi(value, _INTS))
to_floats = _function(floats, [ints], lambda builder, value: builder.sitofp(value, _FLOATS))
last_byte = _function(  # with its sign
    ints,
    [ints],
    lambda builder, value: builder.ashr(builder.shl(value, _constant(_INTS, 24)), _constant(_INTS, 24)),
)
drop_byte = _function(  # (x - its last byte) / 256
    ints, [ints, ints], lambda builder, x, last: builder.ashr(builder.sub(x, last), _constant(_INTS, 8))
)
append_byte = _function(  # 256 x + y
    ints, [ints, ints], lambda builder, x, y: builder.add(builder.shl(x, _constant(_INTS, 8)), y)
)
add_ints = _function(ints, [ints, ints], lambda builder, x, y: builder.add(x, y))
total_ints = _function(
    types.int32, [ints], lambda builder, x: _called(builder, f"llvm.vector.reduce.add.v{LANES}i32", _I32, x)
)
poke_i32 = _function(types.void, [address, types.int32], lambda builder, place, x: _stored(builder, place, x, 4))
store_i8 = _function(
    types.void,
    [address, ints],
    lambda builder, place, value: _stored(builder, place, builder.trunc(value, ir.VectorType(_I8, LANES)), 1),
)
store_f32 = _function(types.void, [address, floats], lambda builder, place, value: _stored(builder, place, value, 4))
store_bf16 = _function(types.void, [address, floats], _rounded_bfloat16)
add = _function(floats, [floats, floats], lambda builder, x, y: builder.fadd(x, y))
sub = _function(floats, [floats, floats], lambda builder, x, y: builder.fsub(x, y))
mul = _function(floats, [floats, floats], lambda builder, x, y: builder.fmul(x, y))
div = _function(floats, [floats, floats], lambda builder, x, y: builder.fdiv(x, y))
fma = _function(
    floats, [floats] * 3, lambda builder, x, y, z: _called(builder, f"llvm.fma.v{LANES}f32", _FLOATS, x, y, z)
)
larger = _function(
    floats, [floats, floats], lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y)
)
smaller = _function(
    floats, [floats, floats], lambda builder, x, y: builder.select(builder.fcmp_ordered("<", x, y), x, y)
)
nearest = _function(floats, [floats], lambda builder, x: _called(builder, f"llvm.rint.v{LANES}f32", _FLOATS, x))
power_of_two = _function(floats, [floats], _power_of_two)
total = _function(types.float32, [floats], _reduced("fadd", [ir.Constant(_F32, 0.0)]))


def _totals(builder: Any, place: Any, *vectors: Any) -> None:
    """The totals of four vectors, side by side: sums of neighbours until four are left."""

    def neighbours(x: Any, y: Any) -> Any:
        even, odd = (ir.Constant(_INTS, [2 * lane + first for lane in range(LANES)]) for first in (0, 1))
        return builder.fadd(builder.shuffle_vector(x, y, even), builder.shuffle_vector(x, y, odd))

    first, second, third, fourth = vectors
    sums = neighbours(neighbours(first, second), neighbours(third, fourth))
    for _ in range((LANES // 4).bit_length() - 1):
        sums = neighbours(sums, sums)
    four = ir.Constant(ir.VectorType(_I32, 4), list(range(4)))
    _stored(builder, place, builder.shuffle_vector(sums, sums, four), 4)


store_totals = _function(types.void, [address] + [floats] * 4, _totals)
largest = _function(types.float32, [floats], _reduced("fmax", []))


def _prefetched(builder: Any, place: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
    # To be read, kept in all caches, data.
    builder.call(function, [_at(builder, place, _I8), *(ir.Constant(_I32, value) for value in (0, 3, 1))])


prefetch = _function(types.void, [address], _prefetched)
absolute = _function(floats, [floats], lambda builder, x: _called(builder, f"llvm.fabs.v{LANES}f32", _FLOATS, x))
peek = _function(types.float32, [address], lambda builder, place: _loaded(builder, place, _F32, 4))
poke = _function(types.void, [address, types.float32], lambda builder, place, value: _stored(builder, place, value, 4))
_HALF = ir.HalfType()
as_f16 = _function(types.float32, [types.float32], lambda builder, x: builder.fpext(builder.fptrunc(x, _HALF), _F32))
poke_f16 = _function(
    types.void,
    [address, types.float32],
    lambda builder, place, value: _stored(builder, place, builder.fptrunc(value, _HALF), 2),
)
poke_u8 = _function(types.void, [address, types.uint8], lambda builder, place, value: _stored(builder, place, value, 1))
peek_u8 = _function(types.uint8, [address], lambda builder, place: _loaded(builder, place, _I8, 1))
peek_i64 = _function(types.int64, [address], lambda builder, place: _loaded(builder, place, _I64, 8))


def _read(builder: Any, place: Any) -> Any:
    return builder.load_atomic(_at(builder, place, _I64), "acquire", 8)


def _added(builder: Any, place: Any, value: Any) -> Any:
    return builder.atomic_rmw("add", _at(builder, place, _I64), value, "acq_rel")


def _swapped(builder: Any, place: Any, expected: Any, value: Any) -> Any:
    pair = builder.cmpxchg(_at(builder, place, _I64), expected, value, "acq_rel", "acquire")
    return builder.extract_value(pair, 1)


def _paused(builder: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])  # type: ignore[no-untyped-call]


pause = _function(types.void, [], _paused)
atomic_load = _function(types.int64, [address], _read)
atomic_add = _function(types.int64, [address, types.int64], _added)
compare_and_swap = _function(types.boolean, [address, types.int64, types.int64], _swapped)
