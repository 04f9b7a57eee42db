"""How much text the operations of a chat template make, told before they make it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from sftdemo.encoding.template_budget import Budget, TemplateLimitError

BITS = 4096  # of a whole number
WIDTH = 999  # of a field in a format
FORMAT_CHARS = 2000
WIDE = re.compile(r"\*|\d{4,}")
_WIDE_PERCENT = re.compile(rf"%(\([^()]*\))?[^a-zA-Z%]*?({WIDE.pattern})")
_REFUSED_METHODS = frozenset(("translate", "to_bytes"))


def times(budget: Budget, left: Any, right: Any) -> None:
    """`left * right`: a number, or a sequence repeated."""
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, str | bytes | list | tuple) and isinstance(count, int):
            budget.spend(max(0, count) * (budget.weight(sequence) + 8))


def power(budget: Budget, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and right > 0:
        _check_bits(left.bit_length() * right if abs(left) > 1 else 1)


def _check_bits(bits: int) -> None:
    if bits > BITS:
        raise TemplateLimitError("computes a number that is far too large")


def modulo(budget: Budget, left: Any, right: Any) -> None:
    """`left % right`, which formats where left is a text."""
    if isinstance(left, str | bytes):
        percent(budget, left if isinstance(left, str) else left.decode("latin-1"), right)


def percent(budget: Budget, text: str, values: Any) -> None:
    if len(text) > FORMAT_CHARS or _WIDE_PERCENT.search(text):
        raise TemplateLimitError("formats a text far too wide")
    budget.spend(len(text) + text.count("%") * (budget.written(values) + WIDTH))


def check_width(spec: str) -> None:
    """Of one field of str.format, its inner fields filled in."""
    if WIDE.search(spec):
        raise TemplateLimitError("formats a text far too wide")


def check_date(args: tuple[Any, ...]) -> None:
    """Of strftime's argument, whose result may be 256 times as long."""
    if any(isinstance(value, str) and len(value) > FORMAT_CHARS for value in args):
        raise TemplateLimitError("formats a date far too long")


def replaced(budget: Budget, text: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    countable = isinstance(text, str | bytes) and type(old) is type(text)
    places = text.count(old) if countable else budget.written(text) + 1
    budget.spend(budget.written(text) + places * budget.written(new))


def joined(budget: Budget, parts: list[Any], between: Any = "", *_: Any, **__: Any) -> None:
    texts = sum(map(budget.written, parts))
    budget.spend(texts + len(parts) * (budget.written(between) + 1))


def indented(budget: Budget, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    lines = len(text.splitlines()) + 1 if isinstance(text, str) else budget.written(text)
    step = budget.written(width) if isinstance(width, str) else int(width)
    budget.spend(budget.written(text) + lines * max(step, 0))


def centered(budget: Budget, text: Any, width: Any = 80, *_: Any) -> None:
    budget.spend(budget.written(text) + max(int(width), 0))


def in_parts(budget: Budget, parts: Any, count: Any, *_: Any, **__: Any) -> None:
    """Of `batch` and `slice`, which may fill what is missing."""
    budget.spend(8 * (max(int(count), 0) + (len(parts) if hasattr(parts, "__len__") else 0)))


def formatted(budget: Budget, text: Any, *values: Any, **named: Any) -> None:
    percent(budget, str(text), [*values, *named.values()])


def as_json(
    budget: Budget,
    value: Any,
    ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    *_: Any,
    **__: Any,
) -> None:
    size = budget.written(value)
    if indent is not None:
        step = budget.written(indent) if isinstance(indent, str) else int(indent)
        size += budget.weight(value) * max(step, 0) * _depth(value)
    budget.spend(size + budget.weight(value) * budget.written(separators or ""))


def _depth(value: Any) -> int:
    parts: Iterable[Any] = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    )
    return 1 + max(map(_depth, parts), default=0)


def of_method(budget: Budget, own: Any, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Of a method of Python's own types: of texts those that make longer ones, of lists those that search or copy."""
    if name in _REFUSED_METHODS:
        raise TemplateLimitError(f"calls {name}, which no chat template needs")
    if isinstance(own, list | tuple):
        budget.spend(budget.weight(own) + sum(map(budget.weight, args)))
    elif isinstance(own, str | bytes):
        width = next((value for value in (*args, *named.values()) if isinstance(value, int)), 0)
        if name == "replace" and len(args) > 1:
            replaced(budget, own, *args[:2])
        elif name in ("center", "ljust", "rjust", "zfill"):
            budget.spend(len(own) + max(width, 0))
        elif name == "expandtabs":
            budget.spend(len(own) * max(width, 8))
        else:
            budget.spend(len(own))


FILTERS: dict[str, Callable[..., None]] = {
    "replace": replaced,
    "join": joined,
    "indent": indented,
    "center": centered,
    "batch": in_parts,
    "slice": in_parts,
    "format": formatted,
    "tojson": as_json,
}
OPERATORS: dict[str, Callable[[Budget, Any, Any], None]] = {"*": times, "**": power, "%": modulo}
