"""Where a run comes from: the earlier runs that it went on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftdemo.schema.lineage import Origin
from sftdemo.ui.parts import html
from sftdemo.ui.texts import say

NAME_LENGTH, HASH_LENGTH = 40, 12


def line(origin: Origin, lang: str) -> str:
    """The runs before one, the nearest first, each with the beginning of its weights' hash, as HTML."""
    steps = [origin, *origin.get("before", [])]
    return f"{say(lang, 'runs_lineage')} {' ← '.join(_step(step, lang) for step in steps)}"


def _step(step: Mapping[str, Any], lang: str) -> str:
    method, digest = say(lang, f"method_{step['method']}"), html.esc(step["weights"][:HASH_LENGTH])
    return f'<b>{html.esc(html.cut_name(step["run"], NAME_LENGTH))}</b> <span class="muted">({method}, {digest})</span>'
