"""What is said of runs: a line of the list, everything, how several differ, whether they share a base."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text
from sftdemo.files import stamp, tree_bytes
from sftdemo.runs import sweep_record
from sftdemo.runs.folder import ACTIVE, SPLITS, DamagedRun, Run
from sftdemo.runs.listing import created, list_runs
from sftdemo.runs.queue import place
from sftdemo.schema.evaluation import Scores

# The keys of a line in the list of runs.
LINE = (
    "name", "data", "model", "method", "quantization", "state", "place", "created", "eval_loss", "evaluation", "metric", "base",
    "tuned", "error", "sha256", "display_name", "tags", "seconds", "teacher",
)  # fmt: skip
Version = tuple[Any, ...]


def same_base(first: Run, second: Run) -> bool:
    """Whether two runs started from the same weights; quantized ones answer differently, so they are another base.

    Told by the base's folder, and by its name where a folder is not there any more.
    """
    configs = first.config(), second.config()
    settings = [config.get("settings", {}) for config in configs]
    if len({values.get("quantization") or "none" for values in settings}) > 1:
        return False
    folders = [Path(config["base_model"]) for config in configs if config.get("base_model")]
    if len(folders) == 2 and all(folder.is_dir() for folder in folders):
        return folders[0].resolve() == folders[1].resolve()
    return bool(settings[0].get("model") == settings[1].get("model"))


def students(teacher: Run) -> list[Run]:
    """The runs of this home that learned from a run and have a model."""
    return [run for run in list_runs() if outline(run)["teacher"] == teacher.name and run.model_path.is_dir()]


def overview(run: Run) -> dict[str, Any]:
    """One line of the list of runs: what it is, how it stands, and the leading figure of its newest evaluation.

    Of a damaged run its state is `damaged` and `error` the reason; what can't be read is None. `error` is also why a run
    failed, and `place` a queued run's place in the queue, from 1. Files that haven't changed since the last call aren't read
    again.
    """
    version = _version(run.path)
    summary = _known(str(run.path), version)
    if summary["state"] in ACTIVE:  # as long as its process lives
        summary = _summary(run)
    reason = None if summary["state"] == "damaged" else _damage(str(run.path), version)
    return {**summary, **({"state": "damaged", "error": reason} if reason else {})}


def outline(run: Run) -> dict[str, Any]:
    """The same without a look at the long files: of many runs, to sort and filter them by."""
    summary = _known(str(run.path), _version(run.path))
    return dict(summary) if summary["state"] not in ACTIVE else _summary(run)


def _summary(run: Run) -> dict[str, Any]:
    line: dict[str, Any] = dict.fromkeys(LINE) | {"name": run.name, "created": created(run.path)}
    try:
        settings, data = run.config().get("settings", {}), run.config().get("data", {})
        line |= {key: settings.get(key) for key in ("model", "method", "quantization", "teacher")}
        line |= {"data": data.get("name") or source_name(settings.get("data") or ""), "sha256": data.get("sha256")}
        line |= {"display_name": run.notes().get("display_name"), "tags": run.notes().get("tags", [])}
        status, evaluations = run.status(), run.evaluations()
        line |= {key: status.get(key) for key in ("state", "eval_loss", "error", "seconds")}
        line["place"] = place(run) if status["state"] == "queued" else None
        if evaluations:
            line |= {"evaluation": evaluations[0]} | _leading_scores(run.scores(evaluations[0]))
    except DamagedRun as damaged:
        return line | {"state": "damaged", "error": damaged.reason}
    return line


@lru_cache(maxsize=8192)
def _known(path: str, version: Version) -> dict[str, Any]:
    return _summary(Run(Path(path)))


@lru_cache(maxsize=8192)
def _damage(path: str, version: Version) -> Text | None:
    return Run(Path(path)).damage()


@lru_cache(maxsize=8192)
def _bytes(path: str, version: Version) -> int:
    return tree_bytes(path)


def disk_bytes(run: Run) -> int:
    """How much of the disk a run takes."""
    folders = [run.path, run.model_path, run.path / "checkpoints"]
    return _bytes(str(run.path), (*_version(run.path), *map(_stamp, map(str, folders))))


def _version(folder: Path) -> Version:
    """What differs whenever a file that the list tells of has changed."""
    names = ["config.json", "status.json", "notes.json", "metrics.jsonl", *(f"data/{split}.jsonl" for split in SPLITS)]
    names.append("model")
    stamps: list[Any] = [_stamp(f"{folder}/{name}") for name in names]
    with contextlib.suppress(OSError), os.scandir(folder / "evaluations") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stamps += [entry.name, *(_stamp(f"{entry.path}/{name}") for name in ("scores.json", "outputs.jsonl"))]
    return tuple(stamps)


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return *stamp(status), status.st_ctime_ns


def source_name(source: str) -> str:
    """What data is called before it has been read: of each path in it the file's name, as that of an upload tells where."""
    return re.sub(r"(?:^|(?<=\+))\s*[^+*]*[/\\\\]", lambda path: " " if path.start() else "", source)


def _leading_scores(scores: Scores) -> dict[str, Any]:
    metric = scores.get("leading")
    sides = {side: scores[side].get(metric) if metric else None for side in ("base", "tuned")}  # type: ignore[literal-required]
    return {"metric": metric if None not in sides.values() else None, **sides}


def details(run: Run) -> dict[str, Any]:
    """All that is known of a run but its examples and outputs."""
    return {
        "name": run.name,
        "path": str(run.path),
        "status": run.status(),
        "config": run.config(),
        "notes": run.notes(),
        "evaluations": {name: run.scores(name) for name in run.evaluations()},
        **({"sweep": sweep} if (sweep := sweep_record.read(run)) else {}),
    }


def _settings(run: Run) -> dict[str, Any]:
    """A run's settings; one that there wasn't yet when it was trained has its default."""
    own = run.config().get("settings", {})
    defaults = {spec.name: spec.default for spec in fields(TrainConfig) if spec.default is not MISSING}
    return {**defaults, **own} if own else {}


def _name_data(compared: list[Run], settings: dict[str, dict[str, Any]]) -> None:
    """Put the beginning of their SHA-256 behind the names of data that are called alike and are others."""
    known: dict[Any, set[str]] = {}
    digests = {run.name: run.config().get("data", {}).get("sha256") for run in compared}
    for name, digest in digests.items():
        known.setdefault(settings[name].get("data"), set()).update([digest] if digest else [])
    for name, digest in digests.items():
        if digest and len(known[source := settings[name].get("data")]) > 1:
            settings[name]["data"] = f"{source} ({digest[:8]})"


def differences(compared: list[Run]) -> dict[str, Any]:
    """The settings in which runs differ, and the newest scores of each: {"settings": {name: {run: value}}, "scores": …}."""
    settings = {run.name: _settings(run) for run in compared}
    _name_data(compared, settings)
    told = [values for values in settings.values() if values]
    every = dict.fromkeys(name for values in told for name in values)
    names = [name for name in every if len({str(values.get(name)) for values in told}) > 1]
    return {
        "settings": {name: {run: values.get(name) for run, values in settings.items()} for name in names},
        "scores": {
            run.name: run.scores(run.evaluations()[0])["tuned"] if run.evaluations() else None for run in compared
        },
    }
