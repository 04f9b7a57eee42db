"""What of a text only the owner may read: paths on the server, whose folders tell names."""

from __future__ import annotations

import re
from pathlib import Path

from sftdemo import runs
from sftdemo.ui.access import rights

SOURCES = ("data", "edits", "model")  # settings that name files and folders
# In quotes a path may have spaces; a slash inside a word or an address begins none.
_QUOTED = re.compile(r"(?P<quote>['\"“])~?/[^'\"“”\n]*/(?P<name>[^'\"“”\n/]*)")
_PLAIN = re.compile(r"(?:(?<=file://)|(?<![\w/.~<-]))~?/(?:[^\s'\"“”/<>]+/)+(?P<name>[^\s'\"“”/<>]*)")


def shown(text: str) -> str:
    """A text as whoever is answered may read it: of each path its last name alone, unless it is the owner."""
    return str(text) if rights.current().owner else without_paths(str(text))


def setting(name: str, value: object) -> str:
    """A setting's value as anybody may read it: where it names files, their names alone, however their folders are written."""
    return runs.source_name(str(value)) if name in SOURCES else without_paths(str(value))


def without_paths(text: str) -> str:
    """The text with the last name of each absolute path in its place."""
    for folder in (runs.home(), Path.home()):
        text = text.replace(f"{folder}/", "/…/")
    return _PLAIN.sub(lambda path: path["name"], _QUOTED.sub(lambda path: path["quote"] + path["name"], text))
