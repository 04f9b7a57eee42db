"""The runs in the home: made, found by their names, and listed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sftdemo.errors import Text, UserError
from sftdemo.files import write_json
from sftdemo.runs.folder import ACTIVE, Run, home, is_listed
from sftdemo.runs.notes import MOST_NAME, one_line, same_key, title, write
from sftdemo.schema.owner import RunNotes

_NAME = re.compile(r"[\w][\w.-]{0,99}", re.UNICODE)
_LONGEST_NAME = 200  # bytes: file systems allow 255, and files are named after the run with a suffix
Sees = Callable[[Run], bool]


def _sees_all() -> Sees | None:
    return None  # the command line and Python are the owner's


_viewer: Callable[[], Sees | None] = _sees_all


def show_to(viewer: Callable[[], Sees | None]) -> None:
    """Have this say from now on which runs are there for whom this process works at the moment; None stands for all."""
    global _viewer
    _viewer = viewer


def valid_name(name: str) -> str:
    """The name, if it can be a folder's; no separators, no leading dot."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = _cut(name) if isinstance(name, str) else name
        raise UserError("{name!r} can't be a run's name; use letters, digits, '-', '_' and '.'.", name=shown)
    if (size := len(name.encode())) > _LONGEST_NAME:
        problem = "The name {name!r} has {size} bytes; a run's name has {most} at most."
        raise UserError(problem, name=_cut(name), size=size, most=_LONGEST_NAME)
    return name


def create(name: str | None, hint: str, config: Mapping[str, Any]) -> Run:
    """Make the folder of a new run, with its config. Without a name, `hint` and the time make one."""
    if name is not None:
        valid_name(name)
    part = home() / "runs" / f".new-{secrets.token_hex(8)}"
    try:
        write_json(part / "config.json", config)
        return adopt(part, name, hint)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def adopt(part: Path, name: str | None, hint: str) -> Run:
    """Make a run of a hidden folder beside the others. It comes into the list whole; two that want one name don't get into
    each other's way."""
    for each in [valid_name(name)] if name is not None else _new_names(hint):
        run = Run(part.parent / each)
        if name is not None and _learned_nothing(run):
            run.delete()
        if _moved(part, run.path):
            return run
    raise _taken(name)


def check_free(name: str) -> None:
    """Raise UserError where no run can be made under that name, before anything is read or fetched for it."""
    run = Run(home() / "runs" / valid_name(name))
    is_there = any(run.path.iterdir()) if run.path.is_dir() else run.path.exists()
    if is_there and not _learned_nothing(run):
        raise _taken(name)


def _taken(name: str | None) -> UserError:
    return UserError("There is a run named {name!r} already; choose another name, or delete it.", name=name)


# All that a run has before its first step.
_BEFORE_LEARNING = {
    "config.json",
    "status.json",
    "metrics.jsonl",
    "samples.jsonl",
    "train.log",
    "data",
    "checkpoints",
    "stop",
    "save",
    "start",
}


def _learned_nothing(run: Run) -> bool:
    """Whether a run ended before its first step; its name is free again."""
    names = {path.name for path in run.path.iterdir()} if run.path.is_dir() else set()
    return (
        {"config.json", "status.json"} <= names <= _BEFORE_LEARNING  # without a status it is being made
        and run.state not in (*ACTIVE, "damaged")
        and not any((run.path / "checkpoints").glob("checkpoint-*"))
        and run.damage() is None
        and not any("loss" in row for row in run.metrics())
    )


def _new_names(hint: str) -> Iterator[str]:
    stem = re.sub(r"[^\w.-]+", "-", hint).strip("-.")[:60].encode()[:150].decode(errors="ignore") or "run"
    stem = f"{stem}-{time.strftime('%m%d-%H%M%S')}"
    yield stem
    yield from (f"{stem}-{number}" for number in itertools.count(2))


def _moved(folder: Path, target: Path) -> bool:
    """Whether a folder got a new name, which may be in use."""
    try:
        folder.rename(target)  # onto an empty folder, too
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    return True


class NoRun(UserError):
    """There is no run of that name; said without the names of others, which not everybody may know."""

    def __init__(self, name: str) -> None:
        super().__init__("There is no run {name!r}; the list of runs has their names.", name=_cut(name))


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def named(name: str) -> Run:
    """The run of that name, damaged or not, if it is there for who asks; what a page or a client may ask for, since no name
    leads out of the home."""
    run, sees = known(name), _viewer()
    if sees and not sees(run):
        raise NoRun(name)
    return run


def known(name: str) -> Run:
    """The run of that name, whoever asks: for what its owner has chosen already."""
    if not isinstance(name, str) or not is_listed(name):
        valid_name(name)
    run = Run(home() / "runs" / name)
    if not os.path.lexists(run.path):
        raise NoRun(name)
    return run


def find(name: str) -> Run:
    """The run in that folder, of that name, or of that display name; for the command line and Python, which may know of
    every run."""
    if os.sep in name and (Path(name) / "config.json").is_file():
        return Run(Path(name))
    if is_listed(name) and os.path.lexists(home() / "runs" / name):
        return named(name)
    titled = [run for run in list_runs() if same_key(title(run)) == same_key(name.strip())]
    if len(titled) == 1:
        return titled[0]
    if titled:
        names = [run.name for run in titled]
        raise UserError(
            "{n} runs are called {name!r}: {names}; give one of these.", n=len(titled), name=_cut(name), names=names
        )
    try:
        return named(name)
    except NoRun:
        known = [run.name for run in list_runs()[:5]] or Text("none yet")
        problem = "There is no run {name!r} in {folder}; the newest are: {known}."
        raise UserError(problem, name=_cut(name), folder=str(home() / "runs"), known=known) from None


def rename(run: Run, name: str) -> RunNotes:
    """Give a run another name to show; empty, or its folder's, takes it away. Raises UserError where another run has it."""
    shown = one_line(name, Text("name"), MOST_NAME)
    key = same_key(shown)
    if key and shown != run.name:
        others = (other for other in list_runs() if other.path != run.path)
        if taken := next((other for other in others if key in (same_key(other.name), same_key(title(other)))), None):
            problem = "Another run is called {name!r} ({folder}); give this one another name."
            raise UserError(problem, name=shown, folder=taken.name)
    return write(run, {"display_name": "" if shown == run.name else shown})


def list_runs() -> list[Run]:
    """All runs that are there for who asks, damaged ones too, newest first."""
    dated_folders, sees = [], _viewer()
    with contextlib.suppress(FileNotFoundError), os.scandir(home() / "runs") as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # one may be deleted meanwhile, in another tab
                if is_listed(entry.name) and (entry.is_symlink() or _holds_something(entry)):
                    dated_folders.append((created(Path(entry.path)), entry.path))
    listed = [Run(Path(path)) for _, path in sorted(dated_folders, reverse=True)]
    return [run for run in listed if sees(run)] if sees else listed


def _holds_something(entry: os.DirEntry[str]) -> bool:
    if not entry.is_dir():
        return False
    try:
        return os.path.exists(os.path.join(entry.path, "config.json")) or bool(os.listdir(entry.path))
    except PermissionError:  # nobody can say; the run's line will
        return True


def created(folder: Path) -> float:
    """When a run was made, seconds since 1970; without its config, when its folder last changed."""
    try:
        return (folder / "config.json").stat().st_mtime
    except OSError:
        return folder.lstat().st_mtime
