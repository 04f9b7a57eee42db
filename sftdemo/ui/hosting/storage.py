"""Where a hosted app keeps runs and votes: a mounted volume, a repository of the Hub, or nowhere that outlives a restart."""

from __future__ import annotations

import os
from pathlib import Path

from sftdemo.runs import home

VOLUME = Path("/data")  # where Spaces mount theirs


def on_space() -> bool:
    return bool(os.environ.get("SPACE_ID"))


def use_volume() -> None:
    """Keep all state on the Space's volume, if it has one and nothing else was said."""
    if on_space() and not os.environ.get("SFTDEMO_HOME") and os.path.ismount(VOLUME) and os.access(VOLUME, os.W_OK):
        os.environ["SFTDEMO_HOME"] = str(VOLUME / "sftdemo")


def is_lost_at_restart(backup_repo: str | None) -> bool:
    """Whether runs and votes are gone when the Space restarts or sleeps."""
    if not on_space() or backup_repo:
        return False
    place = home().resolve()
    return not any(os.path.ismount(folder) for folder in (place, *place.parents) if folder != Path(folder.anchor))
