"""Files to take away: they lie in the one folder that the app serves files from."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from sftdemo import files, runs

# Saves the text that came with the reply as a file of that name, and empties both fields.
SAVE_JS = """(name, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/octet-stream"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  return ["", ""];
}"""


def folder() -> Path:
    return runs.home() / "tmp" / "exports"


def write(name: str, text: str) -> str:
    """The path of a file of that name and text."""
    path = folder() / name
    files.write_text(path, text)
    return str(path)


def new_place(name: str) -> Path:
    """Where a file of that name can be written that no other one has been."""
    return folder() / secrets.token_hex(16) / name


def sweep(oldest: float) -> None:
    """Delete what was written before that time."""
    for path in folder().glob("*"):
        if path.stat().st_mtime < oldest:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
