"""JSON in all the ways people write it: a value a line, lists, values one after another, wrapped, with small faults."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from sftdemo.data.files import headers
from sftdemo.data.files.headers import Record
from sftdemo.data.files.json_repair import LONGEST_LITERAL, json_value, parsed, repaired_line, without_surplus
from sftdemo.data.files.table import Table, kind, split_name
from sftdemo.errors import Text

# Under which a file's one object keeps its rows; other objects are for the layouts to understand.
WRAPPERS = ("data", "rows", "examples", "items", "records", "instances", "samples", "results")
# Lists of objects that stand in a row, under these names, wrap nothing.
_IN_ROWS = {
    "messages", "conversations", "conversation", "turns", "dialog", "dialogue", "contents", "chosen", "rejected",
    "prompt", "completion", "history", "tools", "tool_calls", "annotations", "entities", "spans", "labels", "answers",
    "options", "choices", "translations", "references",
}  # fmt: skip
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BETWEEN = re.compile(r"[\s,;\x1e\ufeff]*")
_SPACE = re.compile(r"\s*")
_REMARK = ("//", "#")  # a line that begins so says nothing


class _Doubled(dict[str, Any]):
    """An object that gives a key several values, of which a dict keeps the last: `key` is the first such."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs) and (key := next((key for key, value in pairs if mapping[key] != value), "")):
        mapping = _Doubled(mapping)
        mapping.key = key
    return mapping


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
Value = tuple[int, Any, str]  # the line it begins on, what it is, its text


def looks_like_json(lines: list[str]) -> bool:
    """Whether the first characters can only be JSON's (or Python's) own."""
    stripped = [line.strip("\ufeff\x1e \t\r") for line in lines[:100]]
    head = "\n".join(line for line in stripped if line and not line.startswith(_REMARK))[:2000]
    if re.match(r'"\{\s*\\"', head) and isinstance(parsed(head.split("\n")[0]), str):
        return True  # written as JSON twice
    return bool(
        re.match(r"""\{\s*(["'}]|//|$)|\[\s*([\[{"'\]]|//|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\s*[,\]]|$)""", head)
    ) and not re.match(r"\[\w+\]", head)


def read(table: Table, lines: list[str], bad: set[int], header: str) -> None:
    """Fill the table. A value a line is tried first where the first line is one; then the text as a whole."""
    filled = (line.strip("\ufeff\x1e \t\r") for line in lines)
    contents = (line for line in filled if line and not line.startswith(_REMARK))
    first, several = next(contents, ""), next(contents, None) is not None
    by_line = isinstance(parsed(first), dict) and several
    notes_before = len(table.notes)
    if by_line and _lines(table, lines, bad):
        return
    whole = Table(table.file, table.split, limits=table.limits)
    complete = _whole(whole, lines, bad, header)
    if not complete and not first.startswith("["):
        if not by_line:
            _lines(table, lines, bad)
        if len(table.rows) >= len(whole.rows) > 0 or (table.rows and not whole.rows):
            return
    if by_line and not complete and table.rows:
        return
    del table.notes[notes_before:]
    table.become(whole)


def _lines(table: Table, lines: list[str], bad: set[int]) -> bool:
    """Read a value a line; whether every line was one."""
    mended: dict[Text, int] = {}
    before = len(table.faults)
    for number, line in enumerate(lines, 1):
        if number in bad or not line.strip():
            continue
        try:
            value = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            try:
                value, note = repaired_line(line)
            except (ValueError, RecursionError, SyntaxError, MemoryError):
                _broken(table, number, error, Text("Correct the line, or remove it."))
                continue
            mended[note] = mended.get(note, 0) + 1
            if value is None:
                continue
        add(table, number, value, line)
    for note, count in mended.items():
        table.note(Text(note, n=count))
    return len(table.faults) == before


def _whole(table: Table, lines: list[str], bad: set[int], header: str) -> bool:
    """Read the text as values one after another; whether all of it could be."""
    text = "\n".join(lines)
    error = _values(table, text, bad, header)
    if error and (relaxed := without_surplus(text)) != text:
        again = Table(table.file, table.split, limits=table.limits)
        if (second := _values(again, relaxed, bad, header)) is None or len(again.rows) > len(table.rows):
            again.note(Text("comments or surplus commas in it were left out."))
            table.become(again)
            error = second
    if error and len(text) <= LONGEST_LITERAL and text.lstrip()[:1] in ("[", "{"):
        try:
            value = json_value(ast.literal_eval(text.strip()))
        except (ValueError, RecursionError, SyntaxError, MemoryError):
            pass
        else:
            table.rows, table.faults = [], []
            table.note(Text("it is in Python's notation, and was read as such."))
            _take(table, [(1, value, text)], header)
            return True
    if error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
        _broken(table, line, error, Text("Correct it; what follows could not be read."), whole=True)
    return error is None and not table.faults


def _values(table: Table, text: str, bad: set[int], header: str) -> Exception | None:
    """Fill the table up to the first fault of the JSON, which is returned."""
    values: list[Value] = []
    error: Exception | None = None
    lists = 0
    try:
        for value in _top(text):
            if value is None:
                lists += 1
            # The decoder put a replacement for a bad byte: the row is at fault already.
            elif not (bad and bad.intersection(range(value[0], value[0] + value[2].count("\n") + 1))):
                values.append(value)
    except (ValueError, RecursionError) as caught:
        error = caught
    if len(values) == 1 and not lists and not error and (inner := _unwrapped(table, values[0], text)) is not None:
        values = inner
    if lists > 1 and len(values) > lists:
        table.note(Text("it holds {n} lists one after another, which were joined.", n=lists))
    _take(table, values, header)
    return error


def _top(text: str) -> Iterator[Value | None]:
    """Each value of the text; None for a list, then the list's own."""
    count = _line_counter(text)
    at = _skip(_BETWEEN, text, 0)
    while at < len(text):
        if text[at] == "[" and _of_values(text, at):
            yield None
            for start, end, value in _elements(text, at + 1):
                if start < 0:
                    at = end
                else:
                    yield count(start), value, text[start:end]
        else:
            value, end = _DECODER.raw_decode(text, at)
            yield count(at), value, text[at:end]
            at = end
        at = _skip(_BETWEEN, text, at)


def _of_values(text: str, at: int) -> bool:
    """Whether the list that opens here holds objects or lists, and is no row of plain values itself."""
    inside = _skip(_SPACE, text, at + 1)
    return (
        text[inside : inside + 1] not in ('"', "-", "t", "f", "n", "N", "I") and not text[inside : inside + 1].isdigit()
    )


def _elements(text: str, at: int) -> Iterator[tuple[int, int, Any]]:
    """(start, end, value) of each element of the list that opens just before `at`; at last (-1, the list's end, None)."""
    at = _skip(_SPACE, text, at)
    while text[at : at + 1] != "]":
        value, end = _DECODER.raw_decode(text, at)
        yield at, end, value
        at = _skip(_SPACE, text, end)
        if text[at : at + 1] == ",":
            after = _skip(_SPACE, text, at + 1)
            if text[after : after + 1] == "]":
                raise json.JSONDecodeError("Illegal trailing comma before end of array", text, at)
            at = after
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
    yield -1, at + 1, None


def _line_counter(text: str) -> Callable[[int], int]:
    """The line of a place, for places asked for in their order."""
    counted_to, line = 0, 1

    def count(at: int) -> int:
        nonlocal counted_to, line
        line += text.count("\n", counted_to, at)
        counted_to = at
        return line

    return count


def _unwrapped(table: Table, only: Value, text: str) -> list[Value] | None:
    """The rows that a file's one object wraps, with their own lines; None if it wraps none that is known."""
    line, value, source = only
    if not isinstance(value, dict):
        return None
    if (inner := _by_key(value)) is not None:
        table.note(Text("its rows are the {n} objects in it.", n=len(inner)))
        return [(line, item, source) for item in inner]
    key = next((key for key in WRAPPERS if isinstance(value.get(key), list)), None) or _only_list(value)
    if key is None and (nested := _nested_list(value)):
        path, items = nested
        table.note(Text("its rows are those under {key!r}.", key=path))
        return [(line, item, json.dumps(item)) for item in items]
    if key is None or not all(isinstance(item, dict | list) for item in value[key]):
        return None
    names = value.get("columns")
    if isinstance(names, list) and all(isinstance(item, list) for item in value[key]):  # pandas' orient="split"
        return [(line, item, source) for item in [list(map(str, names)), *value[key]]]
    if key != "data":
        table.note(Text("its rows are those under {key!r}.", key=key))
    count = _line_counter(text)
    start = _list_of(text, key)
    elements = _elements(text, start) if start else iter(())
    rows = [(count(begin), item, text[begin:end]) for begin, end, item in elements if begin >= 0]
    if all(isinstance(item, dict) and isinstance(item.get("row"), dict) and "row_idx" in item for _, item, _ in rows):
        return [(at, item["row"], part) for at, item, part in rows]  # as the Hub's viewer gives rows
    return rows


def _nested_list(value: dict[str, Any]) -> tuple[str, list[dict[str, Any]]] | None:
    """The only list of objects inside the object that a file wraps its rows with, by its path; turns are no rows."""
    wrapped = [(key, value[key]) for key in WRAPPERS if isinstance(value.get(key), dict)]
    lists = [
        (f"{key}.{name}", items)
        for key, inner in wrapped
        for name, items in inner.items()
        if isinstance(items, list) and items and all(isinstance(item, dict) for item in items)
    ]
    return lists[0] if len(lists) == 1 and not {"role", "from", "content"} & lists[0][1][0].keys() else None


def _only_list(value: dict[str, Any]) -> str | None:
    """The key of the only list of objects in an object, unless a row or the layouts know it by that name."""
    lists = [key for key, item in value.items() if isinstance(item, list) and item and isinstance(item[0], dict)]
    key = lists[0] if len(lists) == 1 else ""
    return key if key and key.casefold() not in _IN_ROWS and not split_name(key) else None


def _by_key(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of an object that has them under their numbers or names, or each column's cells under their numbers."""
    items = list(value.values())
    if len(items) < 2 or not all(isinstance(item, dict) and item.keys() == items[0].keys() for item in items):
        return None
    if any(split_name(key) for key in value):
        return None
    if items[0] and all(key.isdigit() for key in items[0]):
        return [{name: cells[at] for name, cells in value.items()} for at in items[0]]
    plain = not any(isinstance(cell, dict | list) for item in items for cell in item.values())
    return items if all(key.isdigit() for key in value) or (len(items) > 2 and len(items[0]) > 1 and plain) else None


def _list_of(text: str, name: str) -> int | None:
    """Where the list under this key of the object opens, just after its bracket."""
    at = _skip(_BETWEEN, text, 0)
    while text[at : at + 1] in ("{", ","):
        key, at = _DECODER.raw_decode(text, _skip(_SPACE, text, at + 1))
        at = _skip(_SPACE, text, _skip(_SPACE, text, at) + 1)
        if key == name and text[at : at + 1] == "[":
            return at + 1
        at = _skip(_SPACE, text, _DECODER.raw_decode(text, at)[1])
    return None


def _take(table: Table, values: list[Value], header: str) -> None:
    """Rows from values: objects as they are, lists of plain values as the rows of a table."""
    if values and all(isinstance(value, list) for _, value, _ in values):
        lists = [
            (line, value)
            for line, outer, _ in values
            for value in (outer if outer and all(isinstance(inner, list) for inner in outer) else [outer])
        ]
        if len(lists) > 1 and not any(isinstance(cell, dict | list) for _, value in lists for cell in value):
            records = [Record(line, line, [as_text(cell) for cell in value]) for line, value in lists]
            headers.fill(table, records, header)
            return
        objects = [(line, item) for line, value in lists for item in value]
        if objects and all(isinstance(item, dict) for _, item in objects):
            values = [(line, item, json.dumps(item)) for line, item in objects]
    twice = [(line, inner, source) for line, value, source in values if (inner := _written_twice(value)) is not None]
    if twice and len(twice) == len(values):
        values = [(line, row, source) for line, rows, source in twice for row in rows]
        table.note(Text("its rows are JSON inside JSON text, and were read as such."))
    for line, value, source in values:
        add(table, line, value, source)


def _written_twice(value: Any) -> list[dict[str, Any]] | None:
    """The rows of a text, or of a list of texts, that are JSON objects themselves."""
    texts = value if isinstance(value, list) else [value]
    inner = [parsed(text) for text in texts if isinstance(text, str)]
    rows = [row for row in inner if isinstance(row, dict)]
    return rows if rows and len(rows) == len(texts) else None


def as_text(value: Any) -> str:
    """A plain JSON value as the cell of a table."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def add(table: Table, line: int, value: Any, source: str) -> None:
    """Take a value parsed from the JSON text `source`, unless it is no row."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict):
        value = {"text": value[0], **value[1]}  # spaCy's [text, {"entities": …}]
    if not isinstance(value, dict):
        table.fault(
            line, Text("The row is {kind}, not an object.", kind=kind(value)), Text('Write it as {"column": value, …}.')
        )
    elif isinstance(value, _Doubled):
        table.fault(line, Text("The row gives {key!r} two values.", key=value.key), Text("Leave one of them out."))
    elif _SURROGATE.search(source) and _holds_half_character(value):
        table.fault(
            line,
            Text("The row holds half a character (a lone \\ud8…)."),
            Text("Write the character out, or remove it."),
        )
    else:
        table.add(line, value)


def _broken(table: Table, line: int, error: Exception, remedy: Text, whole: bool = False) -> None:
    if isinstance(error, json.JSONDecodeError):
        reason = Text("{problem} at character {n}", problem=Text(error.msg), n=error.colno)
    elif isinstance(error, RecursionError):
        reason = Text("it is nested too deeply")
    else:
        reason = Text("a number in it has too many digits")
    table.fault(line, Text("This isn't JSON: {reason}.", reason=reason), remedy, whole)


def _holds_half_character(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        return True
    return False


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
