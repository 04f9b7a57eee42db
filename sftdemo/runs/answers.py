"""Where a run keeps the answers of the other systems that were asked beside it."""

from __future__ import annotations

import os
from pathlib import Path

from sftdemo.errors import Text
from sftdemo.runs.folder import DamagedRun, Run


def answers_path(run: Run, place: str) -> Path:
    """The file of a system's answers; scores.json of a run that came from elsewhere can't name one outside of the run."""
    with run.reading("scores.json"):
        folder = Path(os.path.realpath(run.path / "evaluations"))
        path = Path(os.path.realpath(folder / place))
    if not path.is_relative_to(folder):
        raise DamagedRun(run.name, "scores.json", Text("names a file outside of the run: {path}", path=place))
    return path
