"""JSON with small faults: comments, surplus commas, raw control characters, Python's notation."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from sftdemo.errors import Text

# A string that isn't closed ends with its line: each is passed over once, however many quotes it holds.
_STRING = r'"(?:[^"\\\n]++|\\.)*+"?'
_COMMENT = re.compile(_STRING + r"|//[^\n]*|^[ \t]*#[^\n]*|/\*", re.DOTALL | re.MULTILINE)
_SURPLUS = re.compile(_STRING + r"|,(?=\s*[\]}])")
LONGEST_LITERAL = 1_000_000  # characters of Python's own notation that are read, in one value


def parsed(text: str, strict: bool = True) -> Any:
    try:
        return json.loads(text, strict=strict)
    except (ValueError, RecursionError):
        return None


def repaired_line(line: str) -> tuple[Any, Text]:
    """(the value of a line with a small fault, which fault); None for a line that only comments."""
    line = line.strip("\ufeff\x1e \t\r")
    text = line.rstrip(",; ")
    if text != line:
        value = parsed(text)
        if value is not None:
            return value, Text("Lines that end in a comma, which was left out: {n}.")
    text = without_surplus(text).strip().rstrip(",;")
    if not text:
        return None, Text("Lines that are comments, which were skipped: {n}.")
    value = parsed(text)
    if value is not None:
        return value, Text("Lines with comments or surplus commas, which were left out: {n}.")
    value = parsed(text, strict=False)
    if value is not None:
        return value, Text("Lines with tabs or other control characters inside their strings, which were kept: {n}.")
    if text[0] not in "{[" or len(text) > LONGEST_LITERAL:
        raise ValueError("not a value")
    return json_value(ast.literal_eval(text)), Text("Lines in Python's notation, which were read as such: {n}.")


def json_value(value: Any) -> Any:
    """What Python's notation holds, if JSON could hold it, too. Raises ValueError."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise ValueError("not a value") from None


def without_surplus(text: str) -> str:
    """Without comments and commas before a closing bracket; line breaks stay."""
    return _SURPLUS.sub(lambda match: " " if match[0] == "," else match[0], _without_comments(text))


def _without_comments(text: str) -> str:
    """With blanks in place of comments; a block comment that is never closed is none."""
    parts: list[str] = []
    copied = at = 0
    closed = True
    while match := _COMMENT.search(text, at):
        at = match.end()
        if match[0].startswith('"'):
            continue
        if match[0] == "/*":
            end = text.find("*/", at) if closed else -1
            if closed := end >= 0:
                at = end + 2
            else:
                continue
        parts += [text[copied : match.start()], re.sub(r"[^\n]", " ", text[match.start() : at])]
        copied = at
    return "".join([*parts, text[copied:]])
