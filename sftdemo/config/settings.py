"""What a setting is: a dataclass field with its help, bounds and choices, how its value is checked, and JSON in and out."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Self

from sftdemo.errors import Text, UsageError, sentences


def setting(
    default: Any,
    help: str,
    *,
    group: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    rare: bool = False,
) -> Any:
    """A dataclass field that carries its own help text, bounds (inclusive; of a text in characters) and choices.

    In a form the settings of a `group` stand together; a `rare` one is folded away.
    """
    about = {"help": help, "group": group, "low": low, "high": high, "choices": choices, "rare": rare}
    return field(default=default, metadata=about)


LONGEST = 4096  # characters of a text setting, unless it says otherwise
LARGEST = 2**53  # of any number; beyond it not every whole number is one in JSON


_hints = functools.cache(typing.get_type_hints)  # slow, and asked for every flag


def value_hint(owner: type, name: str) -> Any:
    """The type of a setting as it is declared, `str | None` and the like."""
    return _hints(owner)[name]


def value_type(spec: dataclasses.Field[Any], owner: type) -> tuple[type, bool]:
    """The plain type of a setting (str, int, float or bool) and whether None is allowed."""
    hint = value_hint(owner, spec.name)
    if isinstance(hint, types.UnionType):
        plain = [member for member in typing.get_args(hint) if member is not type(None)]
        return plain[0], True
    return hint, False


def _is_mistyped(kind: type, value: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, bool) or not isinstance(value, int | float)
    return not isinstance(value, kind)


def _problem(spec: dataclasses.Field[Any], value: Any, owner: type) -> Text | None:
    """What is wrong with the value of a setting."""
    kind, optional = value_type(spec, owner)
    low, high, choices = (spec.metadata[key] for key in ("low", "high", "choices"))
    name, number = Text(spec.name), kind in (int, float)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as most write it
    if value is None and optional:
        return None
    if _is_mistyped(kind, value):
        shown = value if len(repr(value)) < 200 else type(value).__name__
        return Text("{name} is {value!r}; give a value of type {kind}.", name=name, value=shown, kind=kind.__name__)
    if isinstance(value, str) and len(value) > (high or LONGEST):
        return Text(
            "{name} has {value} characters; the most is {high}.", name=name, value=len(value), high=high or LONGEST
        )
    if kind is int and not (math.isfinite(value) and value == int(value)):
        return Text("{name} is {value!r}; give a whole number.", name=name, value=value)
    if choices and value not in choices:
        return Text("{name} is {value!r}; choose one of: {names}.", name=name, value=value, names=choices)
    if number and low is not None and not value >= low:
        return Text("{name} is {value!r}; the least is {low:g}.", name=name, value=value, low=low)
    most = LARGEST if high is None else high
    if number and not value <= most:
        return Text("{name} is {value!r}; the most is {high:.12g}.", name=name, value=value, high=most)
    return None


class Settings:
    """What the config dataclasses share: all their faults at once, and JSON in and out."""

    def __post_init__(self) -> None:
        """A whole number is an int where the setting is one, though JSON may write 8.0."""
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, spec.name)
            if isinstance(value, float) and value.is_integer() and value_type(spec, type(self))[0] is int:
                object.__setattr__(self, spec.name, int(value))

    def problems(self) -> list[Text]:
        """Every setting that is out of bounds or not among its choices, one line each."""
        problems = [_problem(spec, getattr(self, spec.name), type(self)) for spec in dataclasses.fields(self)]  # type: ignore[arg-type]
        return [problem for problem in problems if problem]

    def are_typed(self) -> bool:
        """Whether each value has its setting's type, so that several can be compared."""
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            (kind, optional), value = value_type(spec, type(self)), getattr(self, spec.name)
            if _is_mistyped(kind, value) and not (value is None and optional):
                return False
        return True

    def check(self) -> Self:
        """Return self, or raise UsageError naming every problem."""
        if problems := self.problems():
            raise UsageError(sentences(problems))
        return self

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from a JSON object; an unknown key is an error."""
        known = {spec.name for spec in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - known):
            raise UsageError("Unknown setting {names}; known are: {known}.", names=unknown, known=sorted(known))
        return cls(**values).check()
