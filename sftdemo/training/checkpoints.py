"""Checkpoints of a run: written whole or not at all, and checked before a run goes on from one.

Everything is first written into a folder that no one reads. Once it is on disk, with a manifest that has each file's hash,
it gets its name; only then do the older ones go. A folder without a manifest that fits was never finished, or was damaged.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sftdemo import files
from sftdemo.errors import Text, UserError, sentences
from sftdemo.files import read_json, write_json
from sftdemo.runs import Run
from sftdemo.schema.run import Checkpoint

MANIFEST = "checkpoint.json"
METRICS = "metrics.jsonl"  # the run's, as far as it went
OLDER_SHARE = 0.1  # of the free disk at most is what the checkpoint before the newest may take
SLACK = 2**20  # bytes that a file system takes beside the files


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is whole: its folder and its manifest."""

    path: Path
    manifest: Checkpoint

    @property
    def step(self) -> int:
        return self.manifest["step"]


def folder(run: Run) -> Path:
    return run.path / "checkpoints"


def part(run: Run) -> Path:
    """Where the next one is written."""
    return folder(run) / ".part"


def replace_model(run: Run, written: Path) -> None:
    """Give the model in a folder, which is whole, its place in the run; one of the run as it was stopped before goes."""
    old = run.path / ".model.old"
    if run.model_path.exists():
        shutil.rmtree(old, ignore_errors=True)
        run.model_path.rename(old)
    written.rename(run.model_path)
    shutil.rmtree(old, ignore_errors=True)


def discard_part(run: Run) -> None:
    """Remove what was begun and not finished."""
    shutil.rmtree(part(run), ignore_errors=True)


def check_room(run: Run) -> None:
    """Raise the OSError of a full disk where one as large as the newest has no room, before anything is written."""
    needed = max(map(_size, _by_step(run)), default=0) + SLACK
    if shutil.disk_usage(run.path).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder(run)))


def commit(run: Run, written: Path, manifest: Checkpoint) -> None:
    """Make what was written a checkpoint, and remove those that it replaces."""
    if (run.path / METRICS).exists():
        shutil.copyfile(run.path / METRICS, written / METRICS)
    else:
        (written / METRICS).touch()
    paths = [path for path in sorted(written.rglob("*")) if path.is_file()]
    manifest["files"] = {str(path.relative_to(written)): _digest(path) for path in paths}
    for path in [*paths, *(path for path in written.rglob("*") if path.is_dir())]:
        _sync(path)
    write_json(written / MANIFEST, manifest)
    _sync(written)
    target = folder(run) / f"checkpoint-{manifest['step']}"
    shutil.rmtree(target, ignore_errors=True)  # a damaged one of that step
    written.rename(target)
    _sync(folder(run))
    _remove_older(run, target)
    discard_part(run)


def _remove_older(run: Run, newest: Path) -> None:
    """The one before the newest stays too where the disk has plenty of room, should the newest get damaged; and of each
    that stays the best one until then, whose model may be kept in the end."""
    older = [path for path in _by_step(run) if path != newest]
    free = shutil.disk_usage(newest).free
    kept = [newest]
    if older and _problem(older[0], hashed=False) is None and _size(older[0]) < OLDER_SHARE * free:
        kept.append(older[0])
    best = {read_json(path / MANIFEST).get("best_step") for path in kept}
    for path in older:
        if path not in kept and _step(path) not in best:
            shutil.rmtree(path, ignore_errors=True)


def of_step(run: Run, step: int) -> tuple[Path, Text | None]:
    """The checkpoint of a step, and why it isn't whole, if it isn't."""
    path = folder(run) / f"checkpoint-{step}"
    return path, _problem(path)


def newest(run: Run) -> tuple[Saved | None, list[Text]]:
    """The newest checkpoint that is whole, and a sentence on each that isn't.

    Raises UserError where there are checkpoints and all are damaged: what they held can't be had back, and to begin anew is
    for the user to decide.
    """
    damaged: list[Text] = []
    for path in _by_step(run):
        problem = _problem(path)
        if problem is None:
            return Saved(path, read_json(path / MANIFEST)), damaged
        damaged.append(Text("{name} is damaged: {problem}.", name=path.name, problem=problem))
    if damaged:
        raise UserError(
            "Run {run} has no whole checkpoint to go on from: {damaged} Train it anew under another name, or delete the "
            "run's folder checkpoints to begin at step 0.",
            run=run.name,
            damaged=sentences(damaged),
        )
    return None, damaged


def exists(run: Run) -> bool:
    """Whether there is a checkpoint by its looks; its files aren't read."""
    return any(_problem(path, hashed=False) is None for path in _by_step(run))


def _by_step(run: Run) -> list[Path]:
    """The folders of checkpoints, the newest first."""
    paths = folder(run).glob("checkpoint-*") if os.path.isdir(folder(run)) else ()  # also one that can't be looked into
    numbered = [path for path in paths if path.name.rpartition("-")[2].isdecimal() and path.is_dir()]
    return sorted(numbered, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _problem(path: Path, hashed: bool = True) -> Text | None:
    """Why a folder isn't a whole checkpoint, or None."""
    try:
        manifest = read_json(path / MANIFEST)
        if manifest["step"] != _step(path):
            return Text("its manifest is another step's")
        for name, digest in manifest["files"].items():
            if not (path / name).is_file():
                return Text("{name} is missing", name=name)
            if hashed and _digest(path / name) != digest:
                return Text("{name} isn't as it was written", name=name)
    except FileNotFoundError:
        return Text("it was never finished")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Text("its manifest can't be read")
    return None


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on disk; folders only where the system can."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def weights_fingerprint(base: Path) -> str:
    """Tells the base's weights from others: the sizes of its files and samples spread over them.

    Reading all would take as long as loading them; training changes every weight, so samples tell.
    """
    digest = hashlib.sha256()
    for path in sorted([*base.glob("*.safetensors"), *base.glob("*.gguf")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size};".encode())
        with path.open("rb") as file:
            for place in range(0, size, max(4096, size // 256)):
                file.seek(place)
                digest.update(file.read(4096))
    return digest.hexdigest()


def restore_metrics(run: Run, saved: Saved | None) -> None:
    """Put metrics.jsonl back to what it was when the checkpoint was made: what came after is done, and logged, again."""
    path = run.path / "metrics.jsonl"
    if saved:
        files.write_text(path, (saved.path / METRICS).read_text(encoding="utf-8"))
    else:
        path.unlink(missing_ok=True)
