"""What a row's answer is, as text: one of several right ones, a label or several, a number, or JSON."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from sftdemo.data.text.literals import parsed, parsed_list
from sftdemo.data.values.columns import key

UNANSWERABLE = "unanswerable"
_TEXTS = ("text", "answer", "value")


def scalar(value: Any) -> str | None:
    """A label or a plain value as text: 1 and 1.0 are "1", true is "true"; None for what is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else str(value) if value == value else None
    if isinstance(value, int):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def labels(value: Any) -> list[str]:
    """The labels of a row: one, or each of a list, also one that stands as text in a cell."""
    items = list(_listed(value)) if isinstance(value, str) and value[:1] in ("[", "a") else value
    if isinstance(items, list):
        return [label for part in items if (label := scalar(part))]
    label = scalar(items)
    return [label] if label else []


@lru_cache(4096)
def _listed(text: str) -> tuple[Any, ...]:
    """The list that the text spells, or the text alone; a data set has few labels, each many times."""
    items = parsed_list(text)
    return (text,) if items is None else tuple(items)


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def has_alternatives(column: str) -> bool:
    """Whether a list in this column is of several right answers, by its name; another list is an answer itself."""
    name = key(column)
    return name.endswith("s") or name in ("answer", "reference", "label", "答案")


def alternatives(value: Any) -> list[str] | None:
    """The right answers that a list of texts, SQuAD's {"text", "answer_start"} or TriviaQA's {"value", "aliases"} holds."""
    content = parsed(value) if isinstance(value, str) else value
    if isinstance(content, dict):
        if "answer_start" in content or content.keys() <= {"text", "start", "end"}:
            content = content.get("text")
            content = [content] if isinstance(content, str) else content
        elif "aliases" in content and "value" in content:
            content = [content["value"], *(content["aliases"] or ())]
    if not isinstance(content, list):
        return None
    texts = [_text(part) for part in content]
    return list(dict.fromkeys(text for text in texts if text)) if all(text is not None for text in texts) else None


def _text(part: Any) -> str | None:
    if isinstance(part, dict):
        part = next((part[name] for name in _TEXTS if isinstance(part.get(name), str)), None)
    return part.strip() and part if isinstance(part, str) else scalar(part)
