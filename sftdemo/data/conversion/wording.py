"""How a run's questions were put into words in training, and a typed text put the same way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftdemo.data.conversion import templates


@dataclass(frozen=True)
class Wording:
    """The template of a run's user turns, and the data set that was asked so."""

    template: str
    source: str = ""

    def put(self, text: str) -> str | None:
        """The question that training would make of a text; None where it can't be told what belongs into which column.

        A text that has the template's words around it already stays as it is.
        """
        if self.taken_out(text) is not None:
            return text
        before, after = templates.frame(self.template)
        if not self.pattern:
            return f"{before}{text}{after}"
        head, pieces = self._parts()
        groups = itertools.groupby(pieces, key=lambda piece: piece[1])
        heading, *words = ["".join(text for text, _ in group) for is_name, group in groups if not is_name]
        return f"{head}{text}{after}" if text.startswith(heading) and _in_turn(words, text, len(heading)) else None

    def taken_out(self, question: str) -> str | None:
        """What would be typed for a question; None where the template's words aren't around it."""
        before, after = templates.frame(self.template)
        head = self._parts()[0] if self.pattern else before
        fixed = before + after
        if len(question) <= len(fixed) or not question.startswith(before) or not question.endswith(after):
            return None
        return question[len(head) : len(question) - len(after)]

    @property
    def pattern(self) -> str:
        """How a question of several columns is typed: "Sentence 1: … Sentence 2: …"; "" where any text will do."""
        pieces = templates.pieces(self.template)
        names = [at for at, (_, is_name) in enumerate(pieces) if is_name]
        if len(names) < 2 or not any(piece.strip() for piece, is_name in pieces[names[0] : names[-1]] if not is_name):
            return ""
        return "".join("…" if is_name else piece for piece, is_name in self._parts()[1])

    @property
    def shown(self) -> str:
        """The whole question, with "…" where a row's own texts stand."""
        return "".join("…" if is_name else piece for piece, is_name in templates.pieces(self.template))

    def _parts(self) -> tuple[str, list[tuple[str, bool]]]:
        """The words before the line of the first column, and from there to the last column the template's pieces."""
        pieces = templates.pieces(self.template)
        names = [at for at, (_, is_name) in enumerate(pieces) if is_name]
        before = templates.frame(self.template)[0]
        head, line_end, heading = before.rpartition("\n")
        return head + line_end, [(heading, False), *pieces[names[0] : names[-1] + 1]]


def _in_turn(words: Sequence[str], text: str, start: int) -> bool:
    """Whether all words stand in the text one after another: in one pass, as the text may be a stranger's."""
    for word in words:
        if (place := text.find(word, start)) < 0:
            return False
        start = place + len(word)
    return True


def wordings_of(config: Mapping[str, Any]) -> list[Wording]:
    """The wordings of the run of this config.json, several for a mixture; those without words of their own left out."""
    data = config.get("data", {})
    parts = data.get("sources") or [data]
    known = {
        part["instruction"]: Wording(part["instruction"], str(part.get("name") or ""))
        for part in [*parts, data]
        if isinstance(part.get("instruction"), str)
    }
    return [wording for wording in known.values() if "".join(templates.frame(wording.template)).strip()]


def put_as(wordings: Sequence[Wording], text: str, template: str = "") -> str | None:
    """A typed text as one of a run's wordings asks it: the one of that template, or the only one.

    None where that can't be done; a run without wordings is asked the text itself, as is a text that is worded already.
    """
    if not wordings or any(wording.taken_out(text) is not None for wording in wordings):
        return text
    chosen = next((wording for wording in wordings if wording.template == template), None)
    if chosen is None and len(wordings) == 1:
        chosen = wordings[0]
    return chosen.put(text) if chosen else None
