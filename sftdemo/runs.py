"""A run is a folder: its config, status, metrics, data, model and evaluations, and how they are read and written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftdemo.errors import Text, UserError
from sftdemo.files import read_json, read_jsonl, stamp, write_json
from sftdemo.schema import MetricsRow, OutputRow, RunConfig, Scores, Status

ACTIVE = ("queued", "running", "stopping")
SPLITS = ("train", "validation", "test")
_NAME = re.compile(r"[\w][\w.-]{0,99}", re.UNICODE)


def home() -> Path:
    """Where all state lives: SFTDEMO_HOME, or ~/.sftdemo."""
    return Path(os.environ.get("SFTDEMO_HOME") or "~/.sftdemo").expanduser()


def process_start(pid: int) -> float | None:
    """When the process began, in seconds since the machine did, or None if it is gone; tells a reused pid apart.

    The clock of the wall is no part of it, so a step of that clock changes nothing.
    """
    try:
        # After the name, which may hold anything: the state, and as the 20th field the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _process_start_elsewhere(pid)


def _process_start_elsewhere(pid: int) -> float | None:
    """The same where there is no /proc."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(round(process.create_time() - psutil.boot_time(), 2))
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return 0.0  # somebody else's process: not one of ours


def boot_id() -> str:
    """What the system calls this boot; after a restart pids and start times may come again. "" where it has no name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether the process of that `pid`, `process_start` and `boot_id` still runs."""
    began = process_start(process["pid"])
    return began is not None and began == process.get("process_start") and process.get("boot_id", "") in ("", boot_id())


def identity(pid: int) -> dict[str, Any]:
    """What tells the process from any other, now and after a restart of the machine."""
    return {"pid": pid, "process_start": process_start(pid), "boot_id": boot_id()}


@dataclass(frozen=True)
class Run:
    """One run's folder. Each file in it has one writer at a time: the training process while it lives."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def model_path(self) -> Path:
        return self.path / "model"

    @property
    def log_path(self) -> Path:
        return self.path / "train.log"

    def config(self) -> RunConfig:
        """config.json; of a run that the web app has just made, its settings alone."""
        return read_json(self.path / "config.json")  # type: ignore[no-any-return]

    def status(self) -> Status:
        """The status as written; a run whose process is gone without a last word reads as failed."""
        status = self._written_status()
        if status["state"] not in ACTIVE or not status.get("pid") or is_alive(status):
            return status
        status = self._written_status()  # its last word may have come in between
        if status["state"] in ACTIVE:
            status |= {
                "state": "failed",
                "error": Text(
                    "The training process ended without a word: it was killed, or the machine ran out of memory or "
                    "was restarted. The log may say more."
                ),
                "eta_s": None,
                "cut_off": True,
            }
        return status

    def _written_status(self) -> Status:
        try:
            status: Status = read_json(self.path / "status.json")
        except FileNotFoundError:
            return {"state": "failed", "error": Text("status.json is missing.")}
        if error := status.get("error"):
            key, values = status.get("error_key", error), status.get("error_values", {})
            status["error"] = Text.from_json({"text": error, "key": key, "values": values})
        return status

    def write_status(self, state: str, pid: int | None = None, **values: Any) -> None:
        """Replace the status; `values` are step, total, eta_s, error, and what the end of a run reports.

        `pid` is the process whose end would be the run's end; default: this one. Of an error that is a Text, template and
        values are written, too.
        """
        if isinstance(error := values.get("error"), Text):
            text = error.to_json()
            values |= {"error_key": text["key"], "error_values": text["values"]}
        pid = pid or os.getpid()
        write_json(
            self.path / "status.json",
            {"state": state, **identity(pid), "updated": time.time(), **values},
        )

    def metrics(self, most: int | None = None) -> list[MetricsRow]:
        """The logged steps so far; with `most`, no more than about twice as many, the last and all with an eval_loss among them."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        log = path.read_bytes()
        log = log[: log.rfind(b"\n") + 1]  # a line still being written is left for the next read
        if most is None or log.count(b"\n") <= most:
            return [json.loads(line) for line in log.splitlines()]
        # Lines are found by evenly spread bytes. A power of two between them, so that a curve that grows keeps its points.
        stride = 1 << ((len(log) // most).bit_length() - 1)
        places = [*range(0, len(log), stride), *(m.start() for m in re.finditer(b'"eval_loss"', log)), len(log) - 1]
        starts = sorted({log.rfind(b"\n", 0, place) + 1 for place in places})
        return [json.loads(log[start : log.index(b"\n", start)]) for start in starts]

    def append_metrics(self, row: MetricsRow) -> None:
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def examples(self, split: str) -> list[dict[str, Any]]:
        """The examples of one split as they were trained on or held out."""
        path = self.path / "data" / f"{split}.jsonl"
        return list(read_jsonl(path)) if path.exists() else []

    def ask_to_stop(self) -> None:
        """Leave the word for the training process: it stops after its step and keeps what was learned."""
        (self.path / "stop").touch()

    @property
    def stop_asked(self) -> bool:
        return (self.path / "stop").exists()

    def evaluations(self) -> list[str]:
        """The names of the finished evaluations, newest first."""
        return [path.name for path in _newest_first(self.path / "evaluations", "scores.json")]

    def scores(self, evaluation: str) -> Scores:
        return read_json(self.path / "evaluations" / evaluation / "scores.json")  # type: ignore[no-any-return]

    def outputs(self, evaluation: str) -> list[OutputRow]:
        """outputs.jsonl: the rows in the order they were evaluated."""
        return list(read_jsonl(self.path / "evaluations" / evaluation / "outputs.jsonl"))

    def delete(self) -> None:
        """Remove the folder; refused while it trains."""
        if self.status()["state"] in ACTIVE:
            raise UserError("Run {name} is still training; stop it first.", name=self.name)
        shutil.rmtree(self.path)


def valid_name(name: str) -> str:
    """The name, if it can be a folder's; no separators, no leading dot."""
    if not _NAME.fullmatch(name):
        raise UserError("{name!r} can't be a run's name; use letters, digits, '-', '_' and '.'.", name=name)
    return name


def create(name: str | None, hint: str, config: Mapping[str, Any]) -> Run:
    """Make the folder of a new run, with its config. Without a name, `hint` and the time make one."""
    folder = home() / "runs"
    if name is None:
        stem = re.sub(r"[^\w.-]+", "-", hint).strip("-.")[:60] or "run"
        name = stem = f"{stem}-{time.strftime('%m%d-%H%M%S')}"
        number = 1
        while (folder / name).exists():
            number += 1
            name = f"{stem}-{number}"
    run = Run(folder / valid_name(name))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run.path.mkdir()
    except FileExistsError:
        if not _learned_nothing(run):
            raise UserError(
                "There is a run named {name!r} already; choose another name, or delete it.", name=name
            ) from None
        shutil.rmtree(run.path)
        run.path.mkdir()
    try:
        write_json(run.path / "config.json", config)
    except OSError:
        shutil.rmtree(run.path, ignore_errors=True)  # a half-made run would block its name
        raise
    return run


# All that a run has before its first step.
_BEFORE_LEARNING = {"config.json", "status.json", "metrics.jsonl", "train.log", "data", "checkpoints", "stop"}


def _learned_nothing(run: Run) -> bool:
    """Whether a run ended before its first step; its name is free again."""
    names = {path.name for path in run.path.iterdir()}
    return (
        {"config.json", "status.json"} <= names <= _BEFORE_LEARNING  # without a status it is being made
        and run.status()["state"] not in ACTIVE
        and not any((run.path / "checkpoints").glob("checkpoint-*"))
        and not any("loss" in row for row in run.metrics())
    )


def named(name: str) -> Run:
    """The run of that name; what a page or a client may ask for, since no name leads out of the home."""
    run = Run(home() / "runs" / valid_name(name))
    if not (run.path / "config.json").is_file():
        known = [run.name for run in list_runs()[:5]] or Text("none yet")
        raise UserError(
            "There is no run {name!r} in {folder}; the newest are: {known}.",
            name=name,
            folder=home() / "runs",
            known=known,
        )
    return run


def find(name: str) -> Run:
    """The run in that folder, or of that name."""
    if os.sep in name and (Path(name) / "config.json").is_file():
        return Run(Path(name))
    return named(name)


def list_runs() -> list[Run]:
    """All runs, newest first."""
    return [Run(path) for path in _newest_first(home() / "runs", "config.json")]


def active() -> list[Run]:
    """The runs that train now, or are about to, newest first."""
    # Asked for at every tick of every page: of a run that has ended nothing but its file's date is looked at.
    waiting = (path for stat, path in _dated(home() / "runs", "status.json") if not _has_ended(path, stamp(stat)))
    return [run for run in map(Run, map(Path, waiting)) if run.status()["state"] in ACTIVE]


@lru_cache(maxsize=4096)
def _has_ended(path: str, version: tuple[int, int, int]) -> bool:
    return Run(Path(path))._written_status()["state"] not in ACTIVE


def _newest_first(folder: Path, holding: str) -> list[Path]:
    return [Path(path) for _, path in _dated(folder, holding)]


def _dated(folder: Path, holding: str) -> list[tuple[os.stat_result, str]]:
    """The folders inside `folder` that hold a file of that name, with what is known of the file; the newest first."""
    dated = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(
                FileNotFoundError, NotADirectoryError
            ):  # one may be deleted meanwhile, in another tab
                dated.append((os.stat(os.path.join(entry.path, holding)), entry.path))
    return sorted(dated, key=lambda item: (item[0].st_mtime, item[1]), reverse=True)


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


def overview(run: Run) -> dict[str, Any]:
    """One line of the list of runs: what it is, how it stands, and the leading figure of its newest evaluation."""
    config, status, evaluations = run.config(), run.status(), run.evaluations()
    settings = config["settings"]
    scores = run.scores(evaluations[0]) if evaluations else None
    metric = scores.get("leading") if scores else None
    return {
        "name": run.name,
        "data": config.get("data", {}).get("name") or settings["data"],
        "model": settings["model"],
        "method": settings["method"],
        "quantization": settings["quantization"],
        "state": status["state"],
        "created": (run.path / "config.json").stat().st_mtime,
        "eval_loss": status.get("eval_loss"),
        "evaluation": evaluations[0] if evaluations else None,
        "metric": metric,
        "base": scores["base"].get(metric) if scores and metric else None,
        "tuned": scores["tuned"].get(metric) if scores and metric else None,
    }


def details(run: Run) -> dict[str, Any]:
    """All that is known of a run but its examples and outputs."""
    return {
        "name": run.name,
        "path": str(run.path),
        "status": run.status(),
        "config": run.config(),
        "evaluations": {name: run.scores(name) for name in run.evaluations()},
    }


def differences(compared: list[Run]) -> dict[str, Any]:
    """The settings in which runs differ, and the newest scores of each: {"settings": {name: {run: value}}, "scores": …}."""
    settings = {run.name: run.config()["settings"] for run in compared}
    names = [
        name for name in settings[compared[0].name] if len({str(values.get(name)) for values in settings.values()}) > 1
    ]
    return {
        "settings": {name: {run: values.get(name) for run, values in settings.items()} for name in names},
        "scores": {
            run.name: run.scores(run.evaluations()[0])["tuned"] if run.evaluations() else None for run in compared
        },
    }
