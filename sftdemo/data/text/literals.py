"""Lists and objects that stand as text in a cell: JSON, Python's repr, and NumPy's, which has no commas."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import tokenize
from typing import Any

# Two values beside each other with a blank between: Python would join two texts into one.
_NO_COMMA = re.compile(r"""['"\]}\w.]\s+(?:['"\[{]|-?\d)""")
_CONSTANTS = {"nan": "None", "null": "None", "NaN": "None", "true": "True", "false": "False"}
_SPACE = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
_VALUES = (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)
_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)


def parsed(text: str) -> Any:
    """The list or object that the text spells; None for any other text."""
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "{}") and not text.startswith("array("):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    readings = (_with_commas,) if _NO_COMMA.search(text) else (str, _with_commas)
    for reading in readings:
        with contextlib.suppress(*_ERRORS):
            value = ast.literal_eval(reading(text))
            return value if isinstance(value, list | dict) else None
    return None


def parsed_list(value: Any) -> list[Any] | None:
    """The list that a value is or, as text, spells."""
    items = parsed(value) if isinstance(value, str) else value
    return items if isinstance(items, list) else None


def _with_commas(text: str) -> str:
    """NumPy's repr as Python: without array(…, dtype=…), with a comma between neighbours, and Python's constants."""
    written: list[str] = []
    tokens = [item for item in tokenize.generate_tokens(io.StringIO(text).readline) if item.type not in _SPACE]
    skipped = 0
    for at, token in enumerate(tokens):
        if skipped:
            skipped -= 1
        elif token.string == "dtype" and written[-1:] == [","]:
            written.pop()
            skipped = 2  # "=" and the type
        else:
            before = tokens[at - 1] if at else None
            starts = token.type in _VALUES or token.string in ("[", "{", "(")
            if starts and before and before.string != "array" and (before.type in _VALUES or before.string in "]})"):
                written.append(",")
            if token.string != "array":
                is_name = token.type == tokenize.NAME
                written.append(_CONSTANTS.get(token.string, token.string) if is_name else token.string)
    return " ".join(written)
