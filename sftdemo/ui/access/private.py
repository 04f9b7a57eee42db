"""What of a text only the owner may read: paths on the server, whose folders tell names."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from sftdemo import runs
from sftdemo.config.train import SOURCES
from sftdemo.errors import UserError
from sftdemo.ui.access import rights

NAMES_A_RUN = ("from_run", "teacher")

# In quotes a path may have spaces. Else it goes on behind them as long as a slash comes before the sentence is over or another
# path begins; a slash inside a word or an address begins none.
_QUOTED = re.compile(r"(?P<quote>['\"“])~?/[^'\"“”\n]*/(?P<name>[^'\"“”\n/]*)")
_BEGIN = r"(?:(?<=file://)|(?<![^\W\u4e00-\u9fff])(?<![/.~<-]))~?/(?!\s)"
_PART = r"(?:(?!\s(?:[\w+.-]*:)?~?/|[:;]\s)[^/\n'\"“”<>；：。，])+/"
_PLAIN = re.compile(_BEGIN + f"(?:{_PART})+" + r"(?P<name>[^\s'\"“”/<>]*)")


def shown(text: str) -> str:
    """A text as whoever is answered may read it: of each path its last name alone, unless it is the owner."""
    return str(text) if rights.current().owner else without_paths(str(text))


def setting(name: str, value: object) -> str:
    """A setting's value as anybody may read it: where it names files, their names alone, however their folders are written;
    where it names a run, only one that is there for who asks."""
    if name in NAMES_A_RUN and not rights.current().owner:
        with contextlib.suppress(UserError):
            return runs.named(str(value)).name
        return "…"
    return runs.source_name(str(value)) if name in SOURCES else without_paths(str(value))


def without_paths(text: str) -> str:
    """The text with the last name of each absolute path in its place."""
    for folder in (runs.home(), Path.home()):
        text = text.replace(f"{folder}/", "/…/")
    return _PLAIN.sub(lambda path: path["name"], _QUOTED.sub(lambda path: path["quote"] + path["name"], text))
