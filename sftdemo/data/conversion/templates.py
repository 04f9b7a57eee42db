"""What the user is made to ask: templates with columns in braces, and the default ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from sftdemo.data.text.writing_systems import mostly_han
from sftdemo.errors import UserError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_DIGITS = re.compile(r"(?<=[A-Za-z])(?=\d)")
_LABELS_SHOWN, _LABEL_CHARACTERS = 8, 80


def _parse(text: str) -> Iterator[tuple[str, bool]]:
    """(text, False) and (placeholder, True) in turn."""
    at = 0
    for match in _PIECE.finditer(text):
        yield text[at : match.start()], False
        at = match.end()
        name = match.group(1)
        yield (match.group(0)[0], False) if name is None else (name.strip(), True)
    yield text[at:], False


def with_body(text: str, body: str) -> str:
    """The template with `body` in place of {}; if it has no placeholder, `body` after a blank line."""
    text = _PIECE.sub(
        lambda match: body if match.group(1) is not None and not match.group(1).strip() else match[0], text
    )
    return text if any(is_name for _, is_name in _parse(text)) else f"{text}\n\n{body}"


class Template:
    """A text with columns in braces: "Translate to French: {source}". A brace itself is written twice."""

    def __init__(self, text: str, roles: Mapping[str, str], columns: Iterable[str]) -> None:
        """A placeholder is a role (a key of `roles`, whose value is the column) or a column; others raise UserError."""
        columns = list(columns)
        self.pieces: list[tuple[str, bool]] = []
        for piece, is_name in _parse(text):
            name = roles.get(piece, piece) if is_name else piece
            if is_name and name not in columns:
                raise UserError(
                    "The instruction has the placeholder {placeholder}, which is no column; there are: {names}. Write a brace "
                    "itself twice: {{{{ or }}}}.",
                    placeholder=f"{{{piece}}}",
                    names=[f"{{{column}}}" for column in columns],
                )
            if name or is_name:
                self.pieces.append((name, is_name))
        self.columns = [name for name, is_name in self.pieces if is_name]

    def render(self, values: Mapping[str, str]) -> str:
        """The text with the columns' values; where one is empty, the blanks that part it from the next go with it."""
        parts: list[str] = []
        left_out = False
        for piece, is_name in self.pieces:
            if is_name and not values[piece]:
                left_out = True
            elif not (left_out and not is_name and piece.isspace()):
                parts.append(values[piece] if is_name else piece)
                left_out = False
        # An empty last part leaves the blanks before it.
        if left_out and parts and parts[-1].isspace():
            parts.pop()
        return "".join(parts)


def classification(labels: Iterable[str], body: str = "{text}", several: bool = False) -> str:
    """The default question for text/label rows; it lists the labels if they are few and short. `several` may apply."""
    ordered = sorted(labels)
    shown = len(ordered) <= _LABELS_SHOWN and sum(map(len, ordered)) <= _LABEL_CHARACTERS
    text = "these texts" if "{pair}" in body else "this text"
    if mostly_han(ordered):
        which = f"属于哪{'几' if several else '一'}类"
        which += f"：{_literal('、'.join(ordered))}" if shown else ""
        return f"判断下面的文本{which}。只回答类别{'，用逗号分隔' if several else ''}。\n\n{body}"
    which = f": {_literal(', '.join(ordered))}" if shown else ""
    if several:
        apply = f"Which of these labels apply to {text}{which}?" if shown else f"Which labels apply to {text}?"
        return f"{apply} Answer with the labels only, separated by commas.\n\n{body}"
    return f"Classify {text}{f' as one of{which}' if shown else ''}. Answer with the label only.\n\n{body}"


def extraction(labels: Iterable[str], counted: bool = False) -> str:
    """The default question for rows with entities; `counted` where some say which mention they are."""
    ordered = sorted(labels)
    shown = len(ordered) <= _LABELS_SHOWN and sum(map(len, ordered)) <= _LABEL_CHARACTERS
    which = f" of these kinds: {_literal(', '.join(ordered))}" if shown and ordered else ""
    form = '[{{"text": "…", "label": "…"}}]' + (', with "nth": 2 where the second mention is meant.' if counted else "")
    return f"List the entities in this text{which}. Answer with a JSON list only: {form}\n\n{{text}}"


def summary(documents: Iterable[str], body: str) -> str:
    """The default question for documents with summaries."""
    return f"{'概括下面的文本。' if mostly_han(documents) else 'Summarize this text.'}\n\n{body}"


def pair(first: str, second: str) -> str:
    """Two texts under their columns' names, {text} and {pair}."""
    return f"{_heading(first)}: {{text}}\n{_heading(second)}: {{pair}}"


def _heading(column: str) -> str:
    """A column's name as a heading: "sentence1" is "Sentence 1"."""
    words = _DIGITS.sub(" ", column.strip().replace("_", " ")).split()
    return _literal(" ".join(words)).capitalize()


def translation(sources: Iterable[str], targets: Iterable[str], language: str | None = None) -> str:
    """The default question for source/target rows; the target's language, if it is known."""
    if language or mostly_han(targets):
        return f"Translate to {language or 'Chinese'}:\n{{source}}"
    return "Translate to English:\n{source}" if mostly_han(sources) else "Translate:\n{source}"


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@lru_cache(maxsize=64)
def pieces(template: str) -> list[tuple[str, bool]]:
    """(text, False) and (column or role, True) in turn, empty texts left out."""
    return [(piece, is_name) for piece, is_name in _parse(template) if piece or is_name]


@lru_cache(maxsize=64)
def frame(template: str) -> tuple[str, str]:
    """The words of a template before its first and after its last placeholder; without one, nothing is fixed."""
    parts = pieces(template)
    names = [at for at, (_, is_name) in enumerate(parts) if is_name]
    if not names:
        return "", ""
    before, after = parts[: names[0]], parts[names[-1] + 1 :]
    return "".join(piece for piece, _ in before), "".join(piece for piece, _ in after)
