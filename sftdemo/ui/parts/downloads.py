"""Files to take away: they lie in the one folder that the app serves files from."""

from __future__ import annotations

from pathlib import Path

from sftdemo import files, runs


def folder() -> Path:
    return runs.home() / "tmp" / "exports"


def write(name: str, text: str) -> str:
    """The path of a file of that name and text."""
    path = folder() / name
    files.write_text(path, text)
    return str(path)
