"""Class numbers to their names, as the library `datasets` writes them into the schema of Parquet and Arrow files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def of_schema(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """{column: names} of columns that hold class numbers, or lists of these."""
    features: Any = {}
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    columns = features.items() if isinstance(features, dict) else ()
    return {column: names for column, feature in columns if (names := _names(feature))}


def _names(feature: Any) -> list[str] | None:
    inner = feature[0] if isinstance(feature, list) and feature else feature
    inner = inner.get("feature") or inner if isinstance(inner, dict) else {}
    names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def named(value: Any, names: Sequence[str]) -> Any:
    """The name of a class number, and those of a list; None where one has none (-1 hides it); what is no number stays."""
    if isinstance(value, list):
        parts = [named(part, names) for part in value]
        return None if None in parts else parts
    if type(value) is not int:
        return value
    return names[value] if 0 <= value < len(names) else None


def named_columns(values: Mapping[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row's values with the names of classes in place of their numbers."""
    return {column: named(value, classes[column]) if column in classes else value for column, value in values.items()}


def numbered_columns(
    values: Mapping[str, Any], classes: Mapping[str, Sequence[str]], hidden: int | None
) -> dict[str, Any]:
    """The reverse: the numbers of classes in place of their names, `hidden` in place of none."""
    return {
        column: _numbered(value, classes[column], hidden) if column in classes else value
        for column, value in values.items()
    }


def _numbered(value: Any, names: Sequence[str], hidden: int | None) -> Any:
    if isinstance(value, list):
        return [_numbered(part, names, hidden) for part in value]
    return hidden if value is None else names.index(value) if value in names else value


def unknown_number(value: Any, names: Sequence[str]) -> int | None:
    """The first number in a value, or in a list of them, that is no class's and doesn't hide one (-1)."""
    parts = value if isinstance(value, list) else [value]
    return next((part for part in parts if type(part) is int and not -1 <= part < len(names)), None)
