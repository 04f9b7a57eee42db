"""How long the rows of an evaluation may be: they are scored, compared and drawn while others use the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sftdemo.errors import Text
from sftdemo.files import read_jsonl, regular
from sftdemo.schema.evaluation import AnswerRow, GeneralRow, OutputRow

MOST_OUTPUTS, MOST_ROW = 2**30, 16 * 2**20  # bytes of a file and of a row with answers
MOST_ASKED = 8 * 2**20  # bytes of a row that is yet to be answered
MOST_ANSWER = 2**20  # characters; the longest that is asked for has 8,192 tokens
ANSWERED = (OutputRow, GeneralRow, AnswerRow)


def lines(path: Path, kind: type) -> Iterator[Any]:
    """The rows of a file; raises OSError or ValueError as `read_jsonl`."""
    if kind not in ANSWERED:
        return read_jsonl(path)
    if regular(path).st_size > MOST_OUTPUTS:
        raise ValueError(Text("has more than {most:,} bytes", most=MOST_OUTPUTS))
    return read_jsonl(path, MOST_ROW)


def too_long(row: Mapping[str, Any]) -> Text | None:
    """What in a row is longer than any model's answer; None where nothing is."""
    for key in ("base", "tuned", "answer", "references"):
        texts = row.get(key) if key == "references" else [row.get(key)]
        if any(isinstance(text, str) and len(text) > MOST_ANSWER for text in texts or ()):
            return Text("{key} has more than {most:,} characters", key=key, most=MOST_ANSWER)
    return None
