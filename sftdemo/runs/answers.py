"""Where a run keeps the answers of the other systems that were asked beside it."""

from __future__ import annotations

from pathlib import Path

from sftdemo.errors import Text
from sftdemo.runs.folder import DamagedRun, Run


def answers_path(run: Run, place: str) -> Path:
    """The file of a system's answers; scores.json of a run that came from elsewhere can't name one outside of the run."""
    folder = (run.path / "evaluations").resolve()
    path = (folder / place).resolve()
    if not path.is_relative_to(folder):
        raise DamagedRun(run.name, "scores.json", Text("names a file outside of the run: {path}", path=place))
    return path
