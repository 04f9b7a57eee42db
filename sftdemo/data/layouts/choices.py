"""Questions with options, in columns or lists, and the right one as a letter, a number or a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from sftdemo.data.files.table import Row
from sftdemo.data.text.literals import parsed
from sftdemo.data.values.columns import key
from sftdemo.errors import Fault, Text

LISTS = ("choices", "options", "endings", "answer_choices", "candidates")
GOLD = (
    *("answer_key", "answer_idx", "answer_index", "answer_letter", "correct_answer_index", "correct_index"),
    *("correct_option", "correct_choice", "correct", "correct_answer", "cop", "gold", "gold_index", "label", "answer"),
    *("target", "ans", "solution", "key", "label_idx"),
)
_ONE = re.compile(r"(option|choice|opt|op|ending|sol|answer|ans|candidate|)_?([a-h]|\d)")
_NAME = re.compile(r"^(?:option|choice|opt)[ _]?(?=[A-Za-z]$)", re.IGNORECASE)  # "option_b" is "b"
_LEAST = {"": 3}  # columns that are letters and nothing else
_ASKED, _SURE = 200, 0.9
NOT_SURE = Text(
    "{column!r} counts the options from 0 or from 1, and the data doesn't tell; it was read as counted from 0."
)

Options = list[tuple[str, str]]  # (letter or number, text)


@dataclass(frozen=True)
class _Layout:
    """The columns of the options and of the right one."""

    columns: tuple[str, ...]
    gold: str
    first: int = 0  # what the first option is called where the right one is a number


def lettered(rows: list[Row], warn: Callable[[Text], None], faults: list[Fault]) -> list[Row]:
    """The rows with their options in one column, `options` ("A. …" line by line), and the right letter in `answer`.

    Rows without options stay as they are, and those whose answer is none of them are faults; `warn` hears what isn't sure.
    """
    shapes = Counter(tuple(row.values) for row in rows[:_ASKED])
    if not shapes:
        return rows
    layout = _layout(shapes.most_common(1)[0][0], rows, warn)
    if not layout:
        return rows
    lettered_rows = []
    for row in rows:
        values = _with_options(row.values, layout)
        if values is None:
            problem = Text("The answer {value!r} is none of the options.", value=row.values.get(layout.gold))
            faults.append(
                Fault(row.line, layout.gold, problem, Text("Give an option's letter, number or text."), row.file)
            )
        else:
            lettered_rows.append(row._replace(values=values))
    return lettered_rows


def _layout(columns: Sequence[str], rows: list[Row], warn: Callable[[Text], None]) -> _Layout | None:
    by_key = {key(column): column for column in columns}
    for chosen in _candidates(by_key):
        for gold in (by_key[name] for name in GOLD if name in by_key and by_key[name] not in chosen):
            layout = _Layout(chosen, gold)
            questions = [(options, row.values.get(gold)) for row in rows if (options := _options(row.values, chosen))]
            if not questions:
                break
            numbers = [int(str(value)) for _, value in questions if _is_number(value)]
            most_options = max(len(options) for options, _ in questions)
            if numbers and min(numbers) > 0:
                layout = _Layout(chosen, gold, 1 if max(numbers) >= most_options else 0)
            sample = questions[:_ASKED]
            right = sum(_letter(options, value, layout.first) is not None for options, value in sample)
            if right >= _SURE * len(sample):
                if numbers and min(numbers) > 0 and not layout.first and not _named(questions[0][0]):
                    warn(Text(NOT_SURE, column=gold))
                return layout
    return None


def _candidates(by_key: dict[str, str]) -> list[tuple[str, ...]]:
    """Columns that may hold the options: one with a list, or several in a row."""
    lists = [(by_key[name],) for name in LISTS if name in by_key]
    series: dict[str, list[str]] = {}
    for name in sorted(by_key):
        if match := _ONE.fullmatch(name):
            series.setdefault(match[1], []).append(by_key[name])
    return lists + [tuple(columns) for stem, columns in series.items() if len(columns) >= _LEAST.get(stem, 2)]


def _options(values: dict[str, Any], columns: tuple[str, ...]) -> Options:
    """The options of a row with what each is called; empty where there are none."""
    options: Any = [values.get(column) for column in columns]
    if len(columns) == 1:
        options = parsed(options[0]) if isinstance(options[0], str) else options[0]
    names: Sequence[Any] = ascii_uppercase
    if isinstance(options, dict) and isinstance(options.get("text"), list):
        names, options = options.get("label") or names, options["text"]
    elif isinstance(options, dict):
        names, options = list(options), list(options.values())
    elif isinstance(options, list) and options and all(isinstance(option, dict) for option in options):
        names = [next((option[k] for k in ("label", "key", "id") if k in option), letter)
                 for option, letter in zip(options, ascii_uppercase, strict=False)]  # fmt: skip
        options = [
            next((option[k] for k in ("text", "content", "value", "option") if k in option), None) for option in options
        ]
    if not isinstance(options, list) or len(options) > len(ascii_uppercase):
        return []
    texts = [
        str(text) for text in options if text is not None and str(text).strip() and not isinstance(text, list | dict)
    ]
    return [(str(name), text) for name, text in zip(names, texts, strict=False)] if len(texts) > 1 else []


def _named(options: Options) -> bool:
    return options[0][0] != "A"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, str) and value.strip().isdigit())


def _letter(options: Options, value: Any, first: int) -> str | None:
    """What the right option is called; None where the value is none of them."""
    names = [name for name, _ in options]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        bare = _NAME.sub("", value.strip().strip("().").strip())
        if bare in names or bare.upper() in names:
            return bare if bare in names else bare.upper()
        if (names_of_text := [name for name, text in options if text.strip() == value.strip()]) and not bare.isdigit():
            return names_of_text[0]
    if _is_number(value) and 0 <= int(value) - first < len(options):
        return names[int(value) - first]
    return None


def _with_options(values: dict[str, Any], layout: _Layout) -> dict[str, Any] | None:
    """The values with options in one column; None where the answer is none of them."""
    options = _options(values, layout.columns)
    if not options:
        return values
    right = _letter(options, values.get(layout.gold), layout.first)
    if right is None:
        return None
    answer_columns = {
        column
        for column, value in values.items()
        if key(column) in GOLD and _letter(options, value, layout.first) == right
    }
    rest = {
        column: value
        for column, value in values.items()
        if column not in {*layout.columns, layout.gold, *answer_columns}
    }
    return {**rest, "options": "\n".join(f"{name}. {text}" for name, text in options), "answer": right}
