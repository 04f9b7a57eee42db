"""fastText's files: each line has its labels, `__label__positive`, and then its text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

SURE = 0.98  # of a file's lines begin with a label
_MARK = "__label__"
_LINE = re.compile(rf"\s*((?:{_MARK}\S*[\s,]+)*(?:{_MARK}\S*)?)[\s,]*(.*)", re.DOTALL)


def labelled_lines(lines: Sequence[str]) -> list[tuple[int, dict[str, Any]]] | None:
    """(line, {"text", "label"}) for each line of a file whose lines begin with labels; None for others.

    Several labels are a list; a line without one has the label None, which is told as a fault of its row.
    """
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    labelled = sum(line.lstrip().startswith(_MARK) for _, line in filled)
    if not filled or labelled < SURE * len(filled):
        return None
    rows = []
    for number, line in filled:
        marks, text = _LINE.fullmatch(line).groups()  # type: ignore[union-attr]  # every part may be empty
        labels = [mark.rstrip(",").removeprefix(_MARK) for mark in marks.split()]
        label = labels if len(labels) > 1 else labels[0] if labels else None
        rows.append((number, {"text": text.strip(), "label": label}))
    return rows
