"""Sample sets made at run time from what is installed: `docstrings`, a summarisation set."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from sftdemo.data.text.normalisation import normalise
from sftdemo.errors import UserError

PACKAGES = ("networkx", "numpy", "sympy")
ROWS = 1200
_PER_FILE = 6
_INSTRUCTION = "Summarize this function's documentation in one short line."
# A function's head, then its docstring; parsing whole files would take ten times as long.
_FUNCTION = re.compile(
    r"^[ \t]*def \w+\((?:[^()]|\([^()]*\))*\)(?:\s*->[^:\n]+)?:[ \t]*\n[ \t]+"
    r'([rR]?"""(?:\\.|[^\\])*?""")',
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^([A-Z][A-Za-z ]{2,30})\n[=~-]{3,}[ \t]*$", re.MULTILINE)
_PROSE, _LISTS = {"", "explanation", "description", "definition"}, {"parameters", "returns", "raises"}
_ROLE = re.compile(r":[a-z:]+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")
_MARKUP = re.compile(r"`{1,2}([^`]+)`{1,2}_?|\*\*([^*]+)\*\*")
_DIRECTIVE = re.compile(r"^\.\. .*(?:\n(?:[ \t]+.*|[ \t]*(?=\n[ \t]+\S)))*", re.MULTILINE)


def docstrings() -> Iterator[dict[str, str]]:
    """Up to 1,200 rows {"prompt", "completion", "group"}: a docstring's body and its first line, grouped by file.

    The sources of networkx, numpy and sympy are read, not imported. The same versions always give the same rows.
    """
    seen: set[str] = set()
    count = 0
    for root, path in _files():
        group = path.relative_to(root.parent).as_posix()
        taken = 0
        for summary, body in _documented(path):
            keys = {normalise(summary), normalise(body)}
            if seen & keys:
                continue
            seen |= keys
            yield {"prompt": f"{_INSTRUCTION}\n\n{body}", "completion": summary, "group": group}
            taken, count = taken + 1, count + 1
            if count == ROWS:
                return
            if taken == _PER_FILE:
                break
    if not count:
        raise UserError("The sample docstrings is made from {names}; none is installed: install one.", names=PACKAGES)


RECIPES: dict[str, Callable[[], Iterator[dict[str, str]]]] = {"docstrings": docstrings}


@cache
def recipe_rows(name: str) -> tuple[dict[str, str], ...]:
    """All rows of a recipe; built once in a process."""
    return tuple(RECIPES[name]())


def _files() -> list[tuple[Path, Path]]:
    """(package folder, source file), in an order that is mixed but always the same."""
    files = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for location in (spec and spec.submodule_search_locations) or ():
            root = Path(location)
            files += [(root, path) for path in root.rglob("*.py") if "tests" not in path.parts]
    return sorted(files, key=lambda pair: hashlib.md5(pair[1].relative_to(pair[0].parent).as_posix().encode()).digest())


def _documented(path: Path) -> Iterator[tuple[str, str]]:
    """(first line, body) of each function whose docstring has both."""
    for match in _FUNCTION.finditer(path.read_text(encoding="utf-8", errors="replace")):
        try:
            text = inspect.cleandoc(ast.literal_eval(match.group(1)))
        except SyntaxError:  # an escape that isn't one
            continue
        head, _, rest = text.partition("\n\n")
        summary, body = _plain(" ".join(head.split())), _body(rest)
        if _is_sentence(summary) and body and summary not in body:
            yield summary, body


def _is_sentence(text: str) -> bool:
    return (
        10 <= len(text) <= 100
        and text[0].isupper()
        and text.endswith(".")
        and text.count(" ") >= 2
        and not set("\\<>") & set(text)
    )


def _body(text: str) -> str:
    """At least 80 characters of prose, then the parameters and results: whole paragraphs, up to 800 characters.

    Doctests, formulas, references and markup are left out; empty if there is too little prose.
    """
    marks = [*_HEADING.finditer(text)]
    spans = zip([0, *(mark.end() for mark in marks)], [*(mark.start() for mark in marks), len(text)], strict=True)
    names = ["", *(mark.group(1).strip() for mark in marks)]
    sections = [(name, _paragraphs(text[start:end])) for name, (start, end) in zip(names, spans, strict=True)]
    prose = [paragraph for name, part in sections if name.lower() in _PROSE for paragraph in part]
    if sum(map(len, prose)) < 80:
        return ""
    for name, part in sections:
        if name.lower() in _LISTS and part:
            prose += [f"{name}:\n{part[0]}", *part[1:]]
    body = ""
    for paragraph in prose:
        if len(body) + len(paragraph) + 2 > 800:
            break
        body += ("\n\n" if body else "") + paragraph
    return body if len(body) >= 80 else ""


def _paragraphs(text: str) -> list[str]:
    parts = [_plain(part.strip("\n ")) for part in re.split(r"\n\s*\n", _DIRECTIVE.sub("", text))]
    return [
        part for part in parts if part and ">>>" not in part and "\\" not in part and not part.endswith((":", " by"))
    ]


def _plain(text: str) -> str:
    """Without the marks of reStructuredText."""
    return _MARKUP.sub(lambda match: match.group(1) or match.group(2), _ROLE.sub(r"\1", text)).replace("::", ":")
