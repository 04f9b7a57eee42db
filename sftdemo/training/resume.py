"""What an interrupted run goes on from: its own settings, the data it was trained on, and its last whole checkpoint."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from sftdemo import files
from sftdemo.config.train import TrainConfig
from sftdemo.data import Dataset
from sftdemo.errors import Text, UserError
from sftdemo.runs import Run, sweep_record
from sftdemo.system import distributed
from sftdemo.training import checkpoints
from sftdemo.training.checkpoints import Saved


@dataclass(frozen=True)
class Start:
    """Where a training begins: `dataset` is the run's own, where that is on disk already, and `checkpoint` where it goes on."""

    dataset: Dataset | None = None
    checkpoint: Saved | None = None
    notes: tuple[Text, ...] = ()


def settings(run: Run) -> TrainConfig:
    """The settings the run was made with."""
    return TrainConfig.from_json(run.config().get("settings", {}))


def check(run: Run) -> None:
    """Raise UserError where the run is finished, or trains now in another process."""
    status = run.status()
    if status["state"] == "finished":
        raise UserError("Run {name} is finished after {steps} steps; there is nothing to resume.", name=run.name, steps=status.get("steps"))  # fmt: skip
    if status["state"] in ("running", "stopping") and status.get("pid") != os.getpid():
        raise UserError("Run {name} is training now, in process {pid}.", name=run.name, pid=status.get("pid"))


def start(run: Run) -> Start:
    """Where the run begins or goes on.

    Without a checkpoint it begins at step 0, said so where it had begun before. Raises UserError where it is finished, its
    checkpoints are all damaged, its data aren't those that it was trained on, or other processes trained it.
    """
    check(run)
    saved, damaged = checkpoints.newest(run)
    dataset = stored_dataset(run, needed=saved is not None)
    if saved is None:
        # A sweep goes on with its trials.
        begun = (dataset is not None or bool(run.metrics())) and not (run.path / sweep_record.NAME).exists()
        note = Text("Run {name} has no checkpoint to go on from; it begins at step 0.", name=run.name)
        return Start(dataset, None, (note,) if begun else ())
    manifest = saved.manifest
    if manifest["processes"] != distributed.count():
        raise UserError(
            "Run {name} was trained by {before} processes, and now there are {now}; resume it with accelerate launch "
            "--num_processes {before}.",
            name=run.name,
            before=manifest["processes"],
            now=distributed.count(),
        )
    note = Text(
        "Run {name} goes on after step {step} of {total}.", name=run.name, step=saved.step, total=manifest["total"]
    )
    return Start(dataset, saved, (*damaged, note))


def stored_dataset(run: Run, needed: bool = False) -> Dataset | None:
    """The data set as the run keeps it in data/; None where it was never written whole and isn't `needed`."""
    known = run.config().get("data")
    if known:
        paths = {split: run.path / "data" / f"{split}.jsonl" for split in known["files"]}
        changed = [
            split for split, path in paths.items() if not path.is_file() or _sha256(path) != known["files"][split]
        ]
        if not changed:
            return Dataset(
                source=known["source"],
                name=known["name"],
                format=known["format"],
                task=known["task"],
                splits={split: list(files.read_jsonl(path)) for split, path in paths.items()},
                labels=known["labels"],
                sources=known["sources"],
                sha256=known["sha256"],
                mapping=known["mapping"],
                instruction=known["instruction"],
            )
        if needed:
            raise UserError(
                "data/{split}.jsonl of run {name} isn't what the run was trained on (its SHA-256 differs), so it can't go on; "
                "train anew.",
                split=changed[0],
                name=run.name,
            )
    elif needed:
        raise UserError("config.json of run {name} doesn't say what data it was trained on, so it can't go on.", name=run.name)  # fmt: skip
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
