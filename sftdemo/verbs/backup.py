"""A home as one file, and back: runs, votes and kept chats, also while the app is serving and training."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sftdemo import __version__, runs
from sftdemo.errors import Text, UserError
from sftdemo.system import resources

FORMAT = 1
MANIFEST, VOTES, RUNS, CHATS, MODELS = "backup.json", "votes.sqlite", "runs", "chats", "models"
KEY = "browsers.key"  # by which visitors are known again, as raters and by what they keep


def backup(to: Path, models: bool = False) -> dict[str, Any]:
    """Write the home's runs, votes, kept chats and visitors' key to a .tar.gz; the models they were tuned from too, if asked.

    The votes are copied by SQLite, so that a vote given meanwhile is in it whole or not at all. A file that a training
    takes away meanwhile (an old checkpoint) is left out. Returns the manifest with the file's `path` and `bytes`. Raises
    UserError where there is nothing to keep, or the file exists.
    """
    home = runs.home()
    if to.exists():
        raise UserError("{path} exists; give a new file.", path=str(to))
    if not (home / RUNS).is_dir() and not (home / VOTES).is_file():
        raise UserError("There are no runs and no votes in {home} to back up.", home=str(home))
    folders = [RUNS, CHATS, *([MODELS] if models else [])]
    files = [path for folder in folders for path in _files(home / folder)]
    files += [path for path in [home / KEY] if path.is_file()]
    manifest = {"format": FORMAT, "version": __version__, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    to.parent.mkdir(parents=True, exist_ok=True)
    resources.check_disk(to.parent, sum(path.stat().st_size for path in files if path.exists()), Text("The backup"))
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".backup-") as scratch:
        copied, packed = Path(scratch) / VOTES, Path(scratch) / "packed"
        manifest["votes"] = _copy_votes(home / VOTES, copied)
        manifest["runs"] = sum(path.is_dir() for path in (home / RUNS).iterdir()) if (home / RUNS).is_dir() else 0
        (Path(scratch) / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        with tarfile.open(packed, "w:gz", compresslevel=1) as archive:  # weights hardly compress
            archive.add(Path(scratch) / MANIFEST, MANIFEST)
            if copied.exists():
                archive.add(copied, VOTES)
            for path in files:
                _add(archive, path, str(path.relative_to(home)))
        with packed.open("rb") as file:
            os.fsync(file.fileno())
        packed.rename(to)
    return {"path": str(to), "bytes": to.stat().st_size, **manifest}


def restore(source: Path) -> dict[str, Any]:
    """Put a backup's runs, votes and chats into this home, which must have neither runs nor votes; returns its manifest.

    Nothing is in the home before all of the file has been read. Raises UserError for a file that is no backup, a damaged
    one, and a home that has runs or votes.
    """
    home = runs.home()
    held = [name for name in (RUNS, VOTES) if (home / name).exists() and (name != RUNS or any((home / name).iterdir()))]
    if held:
        raise UserError("{home} already has {what}; restore into a new SFTDEMO_HOME.", home=str(home), what=held[0])
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".restore-") as scratch:
        manifest = _unpack(source, Path(scratch))
        for name in (MODELS, CHATS, RUNS, KEY, VOTES):
            unpacked = Path(scratch) / name
            if name in (MODELS, CHATS) and unpacked.is_dir():
                shutil.copytree(unpacked, home / name, dirs_exist_ok=True)
            elif unpacked.exists():
                if (home / name).is_dir():
                    (home / name).rmdir()
                unpacked.rename(home / name)
    return manifest


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix != ".lock":
            yield path


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    try:
        archive.add(path, name)
    except FileNotFoundError:
        return  # gone since it was listed


def _copy_votes(source: Path, target: Path) -> int:
    """Copy the votes' file as it stands in one moment; returns how many votes it holds."""
    if not source.is_file():
        return 0
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
        return int(copy.execute("SELECT count(*) FROM standing").fetchone()[0])


def _unpack(source: Path, folder: Path) -> dict[str, Any]:
    try:
        with tarfile.open(source, "r:gz") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST:
                raise UserError("{path} is not a backup of sftdemo.", path=str(source))
            resources.check_disk(folder, source.stat().st_size, Text("The restored home"))
            archive.extractall(folder, filter="data")
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("There is no file {path}.", path=str(source)) from None
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise UserError("{path} can't be read as a backup: {reason}.", path=str(source), reason=str(error)) from None
    if manifest.get("format") != FORMAT:
        raise UserError(
            "{path} is a backup of format {format}; this version reads {known}.",
            path=str(source),
            format=str(manifest.get("format")),
            known=FORMAT,
        )
    return manifest
