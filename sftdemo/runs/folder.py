"""The files of one run: how each is read, checked and written, and what is said where one is damaged."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftdemo.config.kinds import CHAT
from sftdemo.config.settings import value_hint
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text, UserError
from sftdemo.files import FULL, overwrite_json, parsed, read_json, regular, stamp, why, write_json
from sftdemo.runs import row_limits
from sftdemo.runs.process import identity, is_alive, process_start
from sftdemo.schema.evaluation import GeneralRow, OutputRow, Scores
from sftdemo.schema.json_types import problem_in
from sftdemo.schema.owner import Pushes, RunNotes, Starter, Voting
from sftdemo.schema.run import ExampleRow, MetricsRow, RunConfig, Status

ACTIVE = ("queued", "running", "stopping")
SPLITS = ("train", "validation", "test")
MOST_LOG, MOST_JSON = 256 * 2**20, 32 * 2**20  # bytes of metrics.jsonl, and of a file that is one value
MOST_ERROR = 4000  # characters; the list of runs shows it to everybody


def home() -> Path:
    """Where all state lives: SFTDEMO_HOME, or ~/.sftdemo."""
    return Path(os.environ.get("SFTDEMO_HOME") or "~/.sftdemo").expanduser()


def is_listed(name: str) -> bool:
    """Whether a folder of that name counts as a run, also one that was put there by hand: a plain name, not hidden."""
    return name.isprintable() and not name.startswith(".") and os.path.basename(name) == name != ""


def newest_first(folder: Path, holding: str) -> list[Path]:
    return [Path(path) for _, path in dated(folder, holding)]


def dated(folder: Path, holding: str) -> list[tuple[os.stat_result, str]]:
    """The folders inside `folder` that hold a file of that name, with what is known of the file; the newest first."""
    dated_folders = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not is_listed(entry.name):
                continue
            with contextlib.suppress(OSError):  # one may be deleted meanwhile, in another tab
                file = os.path.join(entry.path, holding)
                dated_folders.append((os.stat(file) if os.path.exists(file) else os.lstat(file), entry.path))
    return sorted(dated_folders, key=lambda item: (item[0].st_mtime, item[1]), reverse=True)


class DamagedRun(UserError):
    """A file of a run's folder that can't be read. `reason` says which and why, without a path."""

    def __init__(self, run: str, file: str, problem: Text) -> None:
        self.reason = Text("{file} {problem}", file=file, problem=problem)
        template = "Run {name} is damaged: {reason}. Put the file right, or delete the run."
        super().__init__(template, name=run, reason=self.reason)


def error_keys(error: Text) -> dict[str, Any]:
    """What status.json says of an error: its text, and the template and values that other languages are made from."""
    text = Text(error).to_json()
    return {"error": text["text"], "error_key": text["key"], "error_values": text["values"]}


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
    def has_adapter(self) -> bool:
        """Whether its model is an adapter beside the base; else it is whole weights, or isn't there yet."""
        return (self.model_path / "adapter_config.json").is_file()

    @property
    def log_path(self) -> Path:
        return self.path / "train.log"

    @property
    def kind(self) -> str:
        """The kind of model that it trains, as `kinds.KINDS` names it."""
        return str(self.config().get("settings", {}).get("task", CHAT))

    @property
    def system_message(self) -> str:
        """What it was trained with in rows that have none of their own, or ""."""
        return self.config().get("settings", {}).get("system") or ""

    @contextlib.contextmanager
    def reading(self, file: str) -> Iterator[None]:
        """Says what keeps a file from being read; every method below that reads one may raise DamagedRun."""
        try:
            yield
        except (OSError, ValueError, MemoryError) as error:
            raise DamagedRun(self.name, file, why(error)) from error

    def _json(self, file: str, kind: type) -> Any:
        with self.reading(file):
            path = self.path / file
            if (known := path.stat()).st_size > MOST_JSON:
                raise ValueError(Text("has more than {most:,} bytes", most=MOST_JSON))
            if problem := _problem(str(path), stamp(known), kind):
                raise ValueError(Text("is damaged: {problem}", problem=problem))
            return read_json(path)

    def _jsonl(self, file: str, kind: type, most: int | None = None) -> list[Any]:
        """The rows of a file, or the first of them."""
        with self.reading(file):
            rows = list(itertools.islice(row_limits.lines(self.path / file, kind), most))
            _check_rows(rows, kind)
        return rows

    def config(self) -> RunConfig:
        """config.json; of a run that the web app has just made, its settings alone."""
        return self._json("config.json", RunConfig)  # type: ignore[no-any-return]

    def trained_config(self) -> RunConfig:
        """config.json with what the training process adds to it, as far as a run with a model can't do without."""
        config = self.config()
        present = {*config, *(f"data.{key}" for key in config.get("data", {}))}
        for key in ("settings", "base_model", "data", "data.task", "data.format", "data.instruction"):
            if key not in present:
                raise DamagedRun(
                    self.name, "config.json", Text("is damaged: {problem}", problem=Text("{key} is missing", key=key))
                )
        return config

    def notes(self) -> RunNotes:
        """notes.json: what the owner wrote about the run; {} where nothing was written."""
        return self._json("notes.json", RunNotes) if os.path.lexists(self.path / "notes.json") else {}

    def voting(self) -> Voting:
        """voting.json; nothing where the owner has decided nothing."""
        return self._json("voting.json", Voting) if os.path.lexists(self.path / "voting.json") else Voting()

    def pushes(self) -> Pushes:
        """pushes.json; {} where nothing was pushed."""
        return self._json("pushes.json", Pushes) if os.path.lexists(self.path / "pushes.json") else {}

    def starter(self) -> Starter | None:
        """started.json: the visitor who asked for the run; None of the owner's."""
        return self._json("started.json", Starter) if os.path.lexists(self.path / "started.json") else None

    def damage(self) -> Text | None:
        """What is wrong with the files in the folder, in one line, or None; of long files the first row alone is read."""
        try:
            data, status, _ = self.config().get("data", {}), self.status(), self.notes()
            if "settings" not in self.config():
                self.trained_config()
            if not os.path.lexists(self.path / "status.json"):
                raise DamagedRun(self.name, "status.json", Text("is missing"))
            if os.path.lexists(self.path / "metrics.jsonl"):
                self._jsonl("metrics.jsonl", MetricsRow, 1)
            # A training that has just begun, or ended at once, has written no data yet.
            for split in data.get("files", {}) if status["state"] in ("finished", "stopped") else ():
                self._begins(f"data/{split}.jsonl", ExampleRow, data.get("sizes", {}).get(split))
            if os.path.lexists(self.model_path):
                with self.reading("model"):
                    os.listdir(self.model_path)
            for name in self.evaluations():
                self._begins(f"evaluations/{name}/outputs.jsonl", OutputRow, self.scores(name)["n"])
        except DamagedRun as damaged:
            return damaged.reason
        return None

    def _begins(self, file: str, kind: type, rows: int | None) -> None:
        with self.reading(file):
            if not self._jsonl(file, kind, 1) and rows:
                raise ValueError(Text("has no rows"))

    @property
    def state(self) -> str:
        """What the status says of the run, or "damaged" where it can't be read."""
        try:
            return self.status()["state"]
        except DamagedRun:
            return "damaged"

    def status(self) -> Status:
        """The status as written; a run whose process is gone without a last word reads as failed."""
        status = self.written_status()
        if status["state"] not in ACTIVE or is_alive(status):
            return status
        status = self.written_status()  # its last word may have come in between
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

    def written_status(self) -> Status:
        """status.json as it stands; whether the process is alive isn't asked."""
        if not os.path.lexists(self.path / "status.json"):
            return {"state": "failed", "error": Text("status.json is missing.")}
        status: Status = self._json("status.json", Status)
        if len(error := status.get("error") or "") > MOST_ERROR:
            cut = f"{error[:MOST_ERROR]}…"
            status["error"] = Text(cut)
        elif error:
            key: Any = status.get("error_key", error)
            values: Any = status.get("error_values", {})
            try:
                status["error"] = Text.from_json({"text": error, "key": key, "values": values})
            except (KeyError, TypeError, AttributeError):  # written by an older version, or by hand
                status["error"] = Text(error)
        return status

    def write_status(self, state: str, pid: int | None = None, error: Text | None = None, **values: Any) -> None:
        """Replace the status; `values` are step, total, eta_s, and what the end of a run reports.

        `pid` is the process whose end would be the run's end; default: this one.
        """
        values |= error_keys(error) if error else {}
        status = {"state": state, **identity(pid or os.getpid()), "updated": time.time(), **values}
        try:
            write_json(self.path / "status.json", status, parents=False)
        except OSError as full:
            if full.errno not in FULL or state in ACTIVE:
                raise
            overwrite_json(self.path / "status.json", status)  # the last word

    def remove_unfinished(self) -> None:
        """Remove what killed processes left of files that they were writing (`files.write_text` names them)."""
        for part in self.path.glob(".*.*.*.part"):
            pid = part.name.split(".")[-3]
            if pid.isdecimal() and process_start(int(pid)) is None:
                part.unlink(missing_ok=True)

    def metrics(self) -> list[MetricsRow]:
        """The logged steps so far, 2,000 at most."""
        if not os.path.lexists(self.path / "metrics.jsonl"):
            return []
        with self.reading("metrics.jsonl"):
            if regular(self.path / "metrics.jsonl").st_size > MOST_LOG:
                raise ValueError(Text("has more than {most:,} bytes", most=MOST_LOG))
            log = (self.path / "metrics.jsonl").read_bytes()
            lines = log[: log.rfind(b"\n") + 1].splitlines()  # a line still being written is left for the next read
            rows = [parsed(line.decode()) for line in lines]
            _check_rows(rows, MetricsRow)
        return rows

    def append_metrics(self, row: MetricsRow) -> None:
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def examples(self, split: str) -> list[dict[str, Any]]:
        """The examples of one split as they were trained on or held out."""
        file = f"data/{split}.jsonl"
        if not os.path.lexists(self.path / file) and split not in self.config().get("data", {}).get("files", {}):
            return []
        return self._jsonl(file, ExampleRow)

    def ask_to_stop(self) -> None:
        """Leave the word for the training process: it stops after its step and keeps what was learned."""
        (self.path / "stop").touch()

    def ask_to_save(self) -> None:
        """Leave the word for the training process to write a checkpoint after its step; it takes the word away then."""
        (self.path / "save").touch()

    def clear_words(self) -> None:
        """Forget who asked before."""
        for word in ("stop", "save"):
            (self.path / word).unlink(missing_ok=True)

    @property
    def save_asked(self) -> bool:
        return (self.path / "save").exists()

    @property
    def stop_asked(self) -> bool:
        return (self.path / "stop").exists()

    def evaluations(self) -> list[str]:
        """The names of the finished evaluations, newest first."""
        with self.reading("evaluations"):
            return [path.name for path in newest_first(self.path / "evaluations", "scores.json")]

    def scores(self, evaluation: str) -> Scores:
        return self._json(f"evaluations/{evaluation}/scores.json", Scores)  # type: ignore[no-any-return]

    def outputs(self, evaluation: str) -> list[OutputRow]:
        """outputs.jsonl: the rows in the order they were evaluated, one at least."""
        file = f"evaluations/{evaluation}/outputs.jsonl"
        with self.reading(file):
            if not (rows := self._jsonl(file, OutputRow)):
                raise ValueError(Text("has no rows"))
        return rows

    def outputs_stamp(self, evaluation: str) -> tuple[int, int, int]:
        """What differs between two versions of an evaluation's outputs.jsonl."""
        with self.reading(f"evaluations/{evaluation}/outputs.jsonl"):
            return stamp((self.path / "evaluations" / evaluation / "outputs.jsonl").stat())

    def general_outputs(self, evaluation: str) -> list[GeneralRow]:
        """general.jsonl: the general questions with both answers; none where they weren't asked."""
        file = f"evaluations/{evaluation}/general.jsonl"
        return self._jsonl(file, GeneralRow) if os.path.lexists(self.path / file) else []

    @contextlib.contextmanager
    def unless_deleted(self) -> Iterator[None]:
        """For what is written into the folder by others than the training: a run that is gone isn't made again."""
        try:
            yield
        except FileNotFoundError:
            raise UserError("Run {name} was deleted meanwhile; nothing was kept.", name=self.name) from None

    def new_evaluation(self) -> str:
        """The name of a new evaluation, whose folder is there and empty."""
        folder, stem = self.path / "evaluations", time.strftime("%m%d-%H%M%S")
        with self.unless_deleted():
            folder.mkdir(exist_ok=True)
            for name in itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2))):
                with contextlib.suppress(FileExistsError):
                    (folder / name).mkdir()
                    break
        return name

    def require_ended(self) -> None:
        """Raise UserError while it trains or waits for that."""
        if self.state == "queued":
            raise UserError("Run {name} waits for its turn; cancel it first.", name=self.name)
        if self.state in ACTIVE:
            raise UserError("Run {name} is still training; stop it first.", name=self.name)

    def delete(self) -> None:
        """Remove the folder for good, or of a linked one the link alone; refused while it trains or waits for that."""
        self.require_ended()
        if self.path.is_symlink():
            self.path.unlink()
            return
        # Out of the list in one step: what is deleted by half, or written by a process that still works on it, has no name.
        gone = self.path.with_name(f".deleted-{secrets.token_hex(8)}")
        try:
            self.path.rename(gone)
        except OSError as error:
            raise UserError(
                "Run {name} can't be deleted: {problem}.", name=self.name, problem=error.strerror
            ) from error
        for folder in self.path.parent.glob(".deleted-*"):  # those that a killed process left, too
            shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=4096)
def _problem(path: str, version: tuple[int, int, int], kind: type) -> Text | None:
    """Why the JSON in a file isn't of a type; None where it is."""
    value = read_json(Path(path))
    problem = problem_in(value, kind)
    if kind is not RunConfig or problem:
        return problem
    settings = value.get("settings", {})
    known = [spec.name for spec in fields(TrainConfig) if spec.name in settings]
    problems = (problem_in(settings[name], value_hint(TrainConfig, name), f"settings.{name}") for name in known)
    return next(filter(None, problems), None)


def _check_rows(rows: Iterable[Any], kind: type) -> None:
    for number, row in enumerate(rows, 1):
        problem = problem_in(row, kind) or (Text("it has no messages") if row.get("messages") == [] else None)
        if problem := problem or (row_limits.too_long(row) if kind in row_limits.ANSWERED else None):
            raise ValueError(Text("is damaged in row {number}: {problem}", number=number, problem=problem))
