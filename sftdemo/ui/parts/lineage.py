"""Where a run comes from: the earlier runs that it went on from, the teacher that it learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftdemo.schema.lineage import Origin, StudentConfig
from sftdemo.ui.parts import html
from sftdemo.ui.texts import say

NAME_LENGTH, HASH_LENGTH = 40, 12


def line(origin: Origin, lang: str) -> str:
    """The runs before one, the nearest first, each with the beginning of its weights' hash, as HTML."""
    steps = [origin, *origin.get("before", [])]
    return f"{say(lang, 'runs_lineage')} {' ← '.join(_step(step, lang) for step in steps)}"


def taught(student: StudentConfig, lang: str) -> str:
    """A student's teacher, and how many of its layers it has, as HTML."""
    teacher = f"<b>{html.esc(html.cut_name(student['teacher'], NAME_LENGTH))}</b>"
    kept, layers = len(student.get("layers_kept", ())), len(student.get("block_influence", ()))
    return say(lang, "runs_taught_layers" if kept else "runs_taught", teacher=teacher, kept=kept, layers=layers)


def _step(step: Mapping[str, Any], lang: str) -> str:
    method, digest = say(lang, f"choice_method_{step['method']}"), html.esc(step["weights"][:HASH_LENGTH])
    return f'<b>{html.esc(html.cut_name(step["run"], NAME_LENGTH))}</b> <span class="muted">({method}, {digest})</span>'
