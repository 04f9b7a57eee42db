"""CoNLL files: a token and its tag on each line, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

TAG = re.compile(r"O|[BIESLUM][-_]\S+", re.IGNORECASE)
SURE = 0.98  # of a file's lines end in a tag
_CONLL_MARK = "-DOCSTART-"


def tagged_sentences(lines: Sequence[str]) -> list[tuple[int, dict[str, Any]]] | None:
    """(line, {"tokens", "ner_tags"}) for each sentence of a file with a token and its tag on each line; None for others."""
    cells = [line.split() for line in lines]
    filled = [line for line in cells if line and line[0] != _CONLL_MARK]
    tagged = sum(len(line) > 1 and bool(TAG.fullmatch(line[-1])) for line in filled)
    if not filled or tagged < SURE * len(filled) or all(len(line[-1]) == 1 for line in filled):
        return None
    sentences = []
    numbered = enumerate(cells, 1)
    for empty, part in groupby(numbered, key=lambda entry: not entry[1] or entry[1][0] == _CONLL_MARK):
        if not empty:
            rows = list(part)
            columns = {"tokens": [cell[0] for _, cell in rows], "ner_tags": [cell[-1] for _, cell in rows]}
            sentences.append((rows[0][0], columns))
    return sentences
