"""A model that comes from elsewhere: a folder, a ZIP of an export, or a repository of the Hub, and what it is."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sftdemo import files
from sftdemo.errors import Text, UserError
from sftdemo.log import Reporter
from sftdemo.model import download, validation
from sftdemo.runs import home
from sftdemo.system import resources

ENTRIES = 1000  # of a ZIP
Kind = Literal["run", "adapter", "merged"]


@dataclass(frozen=True)
class Foreign:
    """Files on this machine, where they come from, and what they are."""

    folder: Path
    source: str
    kind: Kind
    revision: str = ""


@contextlib.contextmanager
def opened(source: str, reporter: Reporter) -> Iterator[Foreign]:
    """What SOURCE names, its files in a folder for as long as they are needed. UserError for what can't be imported."""
    try:
        path = Path(source).expanduser()
        name = path.resolve().name
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a name that is too long, a NUL
        raise _nothing(source) from error
    if is_folder:
        yield Foreign(path, name, kind_of(path, name))
        return
    boxes = home() / "tmp"
    boxes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=boxes, prefix="import-") as box:
        if path.is_file():
            folder = _unpacked(path, Path(box))
            yield Foreign(folder, name, kind_of(folder, name))
        elif source.count("/") == 1 and not source.startswith((".", "/", "~")):
            revision = download.fetch_repository(source, Path(box), reporter)
            yield Foreign(Path(box), source, kind_of(Path(box), source), revision)
        else:
            raise _nothing(source)


def _nothing(source: str) -> UserError:
    return UserError(
        "There is no {source!r}; give the folder of a run, of an export or of an adapter, the ZIP of an export, or a "
        "Hub id (owner/name).",
        source=source[:200],
    )


def kind_of(folder: Path, name: str) -> Kind:
    """What a folder holds; UserError where it is none of what can be imported."""
    if (folder / "config.json").is_file():
        config = validation.read_json(folder / "config.json", validation.CONFIG_BYTES, name)
        if "settings" in config:
            return "run"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if (folder / "config.json").is_file():
        validation.check_kind(folder, name)
        return "merged"
    if any(folder.glob("*.gguf")):
        raise UserError(
            "{name} holds a GGUF file, which isn't read back; import the adapter or the merged weights.", name=name
        )
    raise UserError("{name} holds no run, no adapter and no model; look what is in it.", name=name)


def copy_model(folder: Path, to: Path) -> None:
    """Copy what a model is loaded from, plain files alone: a link could lead anywhere."""
    to.mkdir(parents=True, exist_ok=True)
    needed = [path for path in sorted(folder.iterdir()) if download.is_needed(path.name) and not path.is_symlink()]
    resources.check_disk(to, sum(path.stat().st_size for path in needed), Text("The import"))
    for path in needed:
        if path.is_file():
            shutil.copyfile(path, to / path.name)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights."""
    sums = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _unpacked(path: Path, box: Path) -> Path:
    """The folder in a ZIP as `export --zip` writes it."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            total = sum(entry.file_size for entry in entries)
            if len(entries) > ENTRIES or total > download.MOST_BYTES:
                raise UserError("{name} unpacks to more than may be imported; import its folder.", name=path.name)
            resources.check_disk(box, total, Text("The import"))
            for entry in entries:
                files.check_packing(entry)
                archive.extract(entry, box)  # it takes ".." and roots out of names, and makes no links
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and (fault := files.disk_fault(error)):
            raise fault from error
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)  # no path of this machine
        raise UserError("{name} is no ZIP that can be read: {reason}", name=path.name, reason=reason) from error
    folders = [box, *sorted(path for path in box.iterdir() if path.is_dir())]
    known = ("config.json", "adapter_config.json")
    return next((folder for folder in folders if any((folder / name).is_file() for name in known)), folders[-1])
