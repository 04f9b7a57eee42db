"""Going on from an earlier run's result: its settings that stay, its weights and rows kept at hand, and the lineage."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sftdemo import files, runs
from sftdemo.config.train import TrainConfig
from sftdemo.data import Dataset, rehearsal
from sftdemo.errors import Text, UserError
from sftdemo.runs import Run, ancestry
from sftdemo.schema.lineage import Ancestry, Origin

if TYPE_CHECKING:
    from sftdemo.data import Example

KEPT = "start"  # in a run's folder, until it is finished: what it starts from, should the earlier run be deleted
STAYS = ("task", "model", "thinking")
OF_ADAPTER = ("quantization", "lora_r", "lora_alpha", "lora_targets", "rslora", "dora", "modules_to_save")


@dataclass(frozen=True)
class Predecessor:
    """The run that a training goes on from: its name, and its folder or the copy that is kept of it."""

    name: str
    run: Run

    @property
    def rows(self) -> rehearsal.EarlierRows:
        """What it was trained and tested on, with hashes of what the runs before it were."""
        splits: dict[str, list[Example]] = {
            split: cast("list[Example]", self.run.examples(split))
            for split in ("train", "validation", "test", "rehearsal")
        }
        before = ancestry.read(self.run)
        return rehearsal.EarlierRows(
            self.name,
            [*splits["train"], *splits["rehearsal"]],
            splits["validation"],
            splits["test"],
            *(frozenset(before[part]) for part in ("trained", "validation", "test")),  # type: ignore[literal-required]
        )


def find(config: TrainConfig, run: Run | None = None) -> Predecessor | None:
    """What `from_run` names, or what the run keeps of it; None where a training starts from its base.

    Raises UserError where there is no such run, or it has no model.
    """
    if config.from_run is None:
        return None
    if run and (run.path / KEPT).is_dir():
        return Predecessor(config.from_run, Run(run.path / KEPT))
    earlier = runs.find(config.from_run)
    earlier.require_ended()
    if not earlier.model_path.is_dir():
        raise UserError("Run {name} has no model to go on from; finish its training first.", name=earlier.name)
    earlier.trained_config()
    return Predecessor(earlier.name, earlier)


def inherited(config: TrainConfig, earlier: Predecessor | None) -> TrainConfig:
    """The settings with those that stay as the earlier run has them: its base, and of an adapter that goes on its shape.

    Raises UserError for one of these that was set to something else.
    """
    if earlier is None:
        return config
    theirs = _settings_of(earlier, config.method == "lora" and earlier.run.has_adapter)
    if theirs.get("lora_r") and config.pissa:
        raise UserError("pissa begins a new adapter, and from_run goes on with that of run {name}; leave pissa out.", name=earlier.name)  # fmt: skip
    for name, value in theirs.items():
        if getattr(config, name) not in (value, getattr(TrainConfig, name)):
            raise UserError(
                "{setting} is {value!r}, and run {name}, which this one goes on from, has {theirs!r}; leave it out.",
                setting=Text(name),
                value=getattr(config, name),
                name=earlier.name,
                theirs=value,
            )
    return dataclasses.replace(config, **theirs, from_run=earlier.name).check()


def _settings_of(earlier: Predecessor, goes_on: bool) -> dict[str, Any]:
    """What stays; of an adapter as it is saved, which of PiSSA is plain LoRA of twice the rank."""
    settings = TrainConfig.from_json(earlier.run.config()["settings"]).to_json()
    stays = {name: settings[name] for name in STAYS}
    if not goes_on:
        return stays
    adapter = files.read_json(earlier.run.model_path / "adapter_config.json")
    alpha = adapter["lora_alpha"]
    if alpha != int(alpha):
        raise UserError(
            "The adapter of run {name} has the scale {alpha}, as pissa with rslora leaves it, and can't go on; use method full.",
            name=earlier.name,
            alpha=alpha,
        )
    shape = {"lora_r": adapter["r"], "lora_alpha": int(alpha), "rslora": bool(adapter.get("use_rslora"))}
    return {**stays, **{name: settings[name] for name in OF_ADAPTER}, **shape}


def keep(earlier: Predecessor | None, run: Run) -> None:
    """Keep in a run's folder what it starts from: links to the earlier run's files, which take no room, or copies."""
    if earlier is None or (run.path / KEPT).is_dir():
        return
    part = run.path / f".{KEPT}.part"
    shutil.rmtree(part, ignore_errors=True)
    for name in ("model", "data"):
        with contextlib.suppress(FileNotFoundError):  # an imported run has no rows
            shutil.copytree(earlier.run.path / name, part / name, copy_function=_link)
    _link(str(earlier.run.path / "config.json"), str(part / "config.json"))
    part.rename(run.path / KEPT)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def release(run: Run) -> None:
    """A finished run needs nothing of the earlier one any more."""
    shutil.rmtree(run.path / KEPT, ignore_errors=True)


def prepare_rows(dataset: Dataset, earlier: Predecessor, config: TrainConfig) -> list[Text]:
    """Keep training and test rows of both runs apart, and draw what is rehearsed; returns what to say about it."""
    rows = earlier.rows
    notes = rehearsal.keep_apart(dataset, rows, config.seed)
    if config.rehearsal:
        notes += rehearsal.draw(dataset, rows, config.rehearsal, config.seed)
    dataset.notes = [*dataset.notes, *notes]
    return notes


def ancestry_of(earlier: Predecessor) -> Ancestry:
    """The same for a run that goes on from this one."""
    rows = earlier.rows
    return {
        "trained": sorted({*rows.trained_hashes, *rehearsal.hashes(rows.trained)}),
        "validation": sorted({*rows.validation_hashes, *rehearsal.hashes(rows.validation)}),
        "test": sorted({*rows.test_hashes, *rehearsal.hashes(rows.test)}),
    }


def write_ancestry(run: Run, earlier: Predecessor | None, teacher: Run | None) -> None:
    """What the runs before it were trained and tested on, of which a student's teacher is one: a student may take fewer rows."""
    before = earlier or (Predecessor(teacher.name, teacher) if teacher else None)
    if before:
        files.write_json(run.path / ancestry.NAME, ancestry_of(before))


def origin(earlier: Predecessor) -> Origin:
    """Where a run comes from, for its config.json."""
    config = earlier.run.config()
    known: dict[str, Any] = dict(config.get("from") or {})
    before = (
        [{key: value for key, value in known.items() if key != "before"}, *known.get("before", [])] if known else []
    )
    return {
        "run": earlier.name,
        "method": str(config["settings"].get("method", "lora")),
        "weights": weights_sha256(earlier.run),
        "data": str(config.get("data", {}).get("sha256", "")),
        "before": before,
    }


def weights_sha256(run: Run) -> str:
    """Of all the safetensors in the run's model, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(run.model_path.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def full_weights(earlier: Predecessor | None, base: Path) -> Path:
    """The folder of the whole weights that a training loads: the earlier run's, or the base's where that has an adapter."""
    return base if earlier is None or earlier.run.has_adapter else earlier.run.model_path


def merge(weights: Path, folder: Path) -> None:
    """Replace the adapter in a folder by whole weights that have it in them, merged in float32."""
    import torch

    from sftdemo.model import loading

    model: Any = loading.merged(loading.load_base(weights, torch.float32), folder)
    for path in folder.glob("adapter_*"):
        path.unlink()
    model.save_pretrained(folder)
