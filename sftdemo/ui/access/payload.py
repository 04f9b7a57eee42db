"""What is sent with an event, looked over before Gradio works on it: it would fetch addresses and open other visitors' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sftdemo.errors import Text
from sftdemo.ui.access import uploads
from sftdemo.ui.access.rights import Visitor

MISFIT = Text("What was sent doesn't fit this endpoint; see its description under the page's API link.")
FILE = "gradio.FileData"
LARGEST = 2**63  # of a whole number, as replies are written
MOST_PARTS = 100_000  # lists, keys and values of an event; a long conversation has some hundreds


def are_fit(values: Iterable[tuple[Any, bool]], sender: Visitor) -> bool:
    """Whether values, each with whether it may have files, are plain JSON whose texts and numbers can be written again, its files uploads
    of the sender; and whether they have no more parts in all than are looked over without keeping others waiting."""
    parts = 0
    for value, takes_files in values:
        inside = [value]
        while inside:
            part = inside.pop()
            parts += 1
            if parts > MOST_PARTS:
                return False
            if isinstance(part, str):
                if not part.isascii() and _has_half_character(part):
                    return False
            elif isinstance(part, int | float):  # a float would become one in a field for whole numbers
                if abs(part) >= LARGEST:
                    return False
            elif isinstance(part, Mapping):
                if _is_file(part) and not (takes_files and uploads.is_own(str(part.get("path")), sender)):
                    return False
                inside += [*part.keys(), *part.values()]
            elif isinstance(part, list | tuple):
                inside += part
    return True


def _is_file(value: Mapping[str, Any]) -> bool:
    meta = value.get("meta")
    return isinstance(meta, Mapping) and meta.get("_type") == FILE


def _has_half_character(text: str) -> bool:
    """Whether it holds one of a pair of surrogates, which no answer could be sent back with."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
