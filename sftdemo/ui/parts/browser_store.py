"""What the browser keeps of a page, for when it is loaded again: after a restart, by a reload.

It is kept by tab of the browser, so that two pages don't disturb each other, and is gone when that tab is closed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sftdemo import files

MOST_CHARACTERS = 200_000


def read_js(name: str) -> str:
    """In the browser: what an event gets of what was kept under a name, "" where there is nothing."""
    return f"() => [window.sftdemo.kept('{name}')]"


def write_js(name: str) -> str:
    """In the browser: keep a component's text under a name."""
    return f"(text) => {{ window.sftdemo.keep('{name}', text); return []; }}"


def write_values_js(name: str, names: Collection[str]) -> str:
    """In the browser: keep the values of components by these names."""
    return f"(...values) => {{ window.sftdemo.keepValues('{name}', {list(names)}, values); return []; }}"


def read_values_js(name: str, names: Collection[str]) -> str:
    """In the browser: the values kept by these names; components for which none is kept stay as they are."""
    return f"(...values) => window.sftdemo.keptValues('{name}', {list(names)}, values)"


def values(text: Any, names: Collection[str]) -> dict[str, Any]:
    """The values of these names in what comes from a browser, which may send anything; {} where it kept none."""
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        return {}
    try:
        kept = files.parsed(text)
    except ValueError:
        return {}
    return {name: value for name, value in kept.items() if name in names} if isinstance(kept, dict) else {}
