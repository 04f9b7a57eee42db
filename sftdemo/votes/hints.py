"""What may be said of a pair before the vote, as it tells no sides: which answers were cut, and in what both are alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import regex

from sftdemo.encoding.thoughts import answers_only
from sftdemo.evaluation.answer_metrics import holds_rows
from sftdemo.evaluation.json_metrics import are_json
from sftdemo.evaluation.outputs_table import judged
from sftdemo.votes.pairing import OTHER, Row, Sheet

SHORT_ANSWER = 24  # characters; what is as short is right or wrong, and longer answers may be right in other words
BOTH = ("both_wrong", "both_right", "same_words")
SIDES = ("base", "tuned")


@dataclass(frozen=True)
class Hints:
    """Which answers were cut at the token limit, and in what both are alike: one of BOTH, or ""."""

    cut_a: bool = False
    cut_b: bool = False
    both: str = ""


def hints(sheet: Sheet, pair: str, side_a: str) -> Hints:
    """The hints on a pair that shows the answer of `side_a` as A."""
    row = sheet.rows[pair]
    cut_a, cut_b = (bool(row.get(f"{side}_cut")) for side in (side_a, OTHER[side_a]))
    return Hints(cut_a, cut_b, _alike(row, sheet.rows))


def _alike(row: Row, rows: Mapping[str, Row]) -> str:
    mark = _mark(answers_only(row), rows)
    if mark in BOTH:
        return mark
    return "" if mark or _plain(row["base"]) != _plain(row["tuned"]) else "same_words"


def _mark(row: Row, rows: Mapping[str, Row]) -> str:
    """How the answers fare against what is known to be right, a mark of outputs_table; "" where nothing is known for sure."""
    references = row["references"]
    if row.get("label"):
        labels = sorted({str(other["label"]) for other in rows.values() if other.get("label")})
        return str(judged([row], "lenient_accuracy", labels)[0]["mark"])
    if not references:
        return ""
    if are_json([references]):
        return str(judged([row], "json_exact")[0]["mark"])
    if any(len(reference) > SHORT_ANSWER for reference in references):
        return ""
    right = [bool(correct) for correct in holds_rows([row[side] for side in SIDES], [references] * len(SIDES))]
    return "both_right" if all(right) else "differ" if any(right) else "both_wrong"


def _plain(text: str) -> str:
    """The text without case, punctuation and space."""
    return str(regex.sub(r"[\p{P}\p{Z}\p{C}]+", "", text.casefold()))
