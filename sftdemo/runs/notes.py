"""What the owner writes about a run: a name to show, notes and tags. Text is text; the folder keeps its own name."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Sequence
from typing import Any

from sftdemo.errors import Text, UserError
from sftdemo.files import write_json
from sftdemo.runs.folder import DamagedRun, Run
from sftdemo.schema.owner import RunNotes

MOST_NAME, MOST_NOTES, MOST_TAG, MOST_TAGS = 80, 4_000, 30, 20  # characters, and tags
SPARE = 1_000  # characters beyond, blanks and joined ones, that are looked at before a text is too long
_JOINERS = "\u200c\u200d"  # emoji and Persian have them inside words


def title(run: Run) -> str:
    """What the run is called where people read it: its display name, or its folder's name."""
    with contextlib.suppress(DamagedRun):
        return run.notes().get("display_name") or run.name
    return run.name


def same_key(name: str) -> str:
    """What two names that look alike have in common."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(character for character in folded if character not in _JOINERS)


def one_line(text: str, what: Text, most: int) -> str:
    """A text of one line that shows as what it is. Raises UserError for what doesn't, or is longer than `most`."""
    if not isinstance(text, str):
        raise UserError("The {what} must be text.", what=what)
    line = " ".join(unicodedata.normalize("NFC", within_reach(text, what, most)).split())
    _refuse([character for character in line if not (character.isprintable() or character in _JOINERS)], what)
    return _within(line, what, most)


def several_lines(text: str, what: Text, most: int) -> str:
    """The same of a text that may have several lines, and writing from right to left."""
    if not isinstance(text, str):
        raise UserError("The {what} must be text.", what=what)
    lines = "\n".join(unicodedata.normalize("NFC", within_reach(text, what, most)).splitlines()).strip()
    _refuse([sign for sign in lines if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t"], what)
    return _within(lines, what, most)


def _refuse(characters: Sequence[str], what: Text) -> None:
    if characters:
        code = f"U+{ord(characters[0]):04X}"
        raise UserError("The {what} has a character that can't be shown ({code}); leave it out.", what=what, code=code)


def within_reach(text: str, what: Text, most: int) -> str:
    """The text, if it may have no more than `most` characters once it has the usual form of each, which of megabytes takes
    seconds."""
    return _within(text, what, most) if len(text) > SPARE + 4 * most else text


def _within(text: str, what: Text, most: int) -> str:
    if len(text) > most:
        raise UserError("The {what} has {n} characters; {most} at most.", what=what, n=len(text), most=most)
    return text


def tags_of(names: Sequence[str]) -> list[str]:
    """Tags without blanks around them, each once."""
    by_key: dict[str, str] = {}
    for name in names:
        if tag := one_line(name, Text("tag"), MOST_TAG):
            by_key.setdefault(same_key(tag), tag)
    if len(by_key) > MOST_TAGS:
        raise UserError("{n} tags are too many; a run has {most} at most.", n=len(by_key), most=MOST_TAGS)
    return list(by_key.values())


def check(text: str, tags: Sequence[str]) -> None:
    """Raise UserError for notes or tags that can't be kept."""
    several_lines(text, Text("note"), MOST_NOTES)
    tags_of(tags)


def annotate(
    run: Run, notes: str | None = None, tags: Sequence[str] | None = None, seen: bool | None = None
) -> RunNotes:
    """Replace the notes, the tags, and whether visitors of the page see the run; what is None stays. An empty text or list
    takes them away."""
    changes: dict[str, Any] = {}
    if notes is not None:
        changes["notes"] = several_lines(notes, Text("note"), MOST_NOTES)
    if tags is not None:
        changes["tags"] = tags_of(tags)
    if seen is not None:
        usual = run.starter() is None
        changes["visitors"] = "" if seen == usual else "shown" if seen else "hidden"
    return write(run, changes)


def write(run: Run, changes: dict[str, Any]) -> RunNotes:
    """Put changes into notes.json, what is empty is left out of it; raises UserError where the run is gone."""
    notes: Any = {key: value for key, value in {**run.notes(), **changes}.items() if value}
    with run.unless_deleted():
        write_json(run.path / "notes.json", notes, parents=False)
    return notes  # type: ignore[no-any-return]
