"""Whether a JSON value is of a type, a TypedDict mostly, and in one line why it isn't."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, NotRequired

from sftdemo.errors import Text

# Other keys may be missing where an earlier version wrote the file; without these nothing can be said of it.
ALWAYS = "always there"
LARGEST = 2**53  # beyond it JSON readers disagree on a number

# What a JSON value of a scalar type is, and how a person calls it.
_SCALARS: dict[Any, tuple[tuple[type, ...], Text]] = {
    int: ((int,), Text("a whole number")),
    float: ((int, float), Text("a number")),
    str: ((str,), Text("a text")),
    bool: ((bool,), Text("true or false")),
    type(None): ((type(None),), Text("null")),
}
_hints = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))  # slow


@functools.cache
def _shape(kind: Any) -> tuple[Any, tuple[Any, ...], bool]:
    return typing.get_origin(kind), typing.get_args(kind), typing.is_typeddict(kind)


def problem_in(value: Any, kind: Any, key: str = "") -> Text | None:
    """Why a JSON value isn't of a type, as "state is 7, not a text"; None where it is. Unknown keys are let be."""
    origin, parts, is_typed = _shape(kind)
    if kind is Any:
        return None
    if origin in (typing.Annotated, NotRequired):
        return problem_in(value, parts[0], key)
    if origin in (types.UnionType, typing.Union):
        problems = [problem_in(value, part, key) for part in parts]
        return problems[0] if all(problems) else None
    if origin is Literal:
        return None if value in parts else _is_not(value, Text("one of {names}", names=list(map(str, parts))), key)
    if origin is list:
        if not isinstance(value, list):
            return _is_not(value, Text("a list"), key)
        return _first(problem_in(item, parts[0], f"{key}[{place}]") for place, item in enumerate(value))
    if not isinstance(value, dict) and (origin is dict or is_typed):
        return _is_not(value, Text("an object"), key)
    if origin is dict:
        return _first(problem_in(item, parts[1], _inside(key, name)) for name, item in value.items())
    if is_typed:
        return _first(_problem_in_key(value, name, hint, _inside(key, name)) for name, hint in _hints(kind).items())
    return _problem_in_scalar(value, kind, key)


def _first(problems: Iterable[Text | None]) -> Text | None:
    return next(filter(None, problems), None)


def _problem_in_key(values: dict[str, Any], name: str, hint: Any, key: str) -> Text | None:
    if name in values:
        return problem_in(values[name], hint, key)
    return Text("{key} is missing", key=key) if ALWAYS in getattr(hint, "__metadata__", ()) else None


def _problem_in_scalar(value: Any, kind: Any, key: str) -> Text | None:
    kinds, name = _SCALARS[kind]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return _is_not(value, name, key)
    if isinstance(value, int) and abs(value) > LARGEST:
        return Text("{key} is a number of {n} digits", key=key or Text("it"), n=len(str(abs(value))))
    return None


def _inside(key: str, name: str) -> str:
    return f"{key}.{name[:40]}" if key else name[:40]


def _is_not(value: Any, wanted: Text, key: str) -> Text:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:39] + "…"
    return Text("{key} is {value}, not {wanted}", key=key or Text("it"), value=shown, wanted=wanted)
