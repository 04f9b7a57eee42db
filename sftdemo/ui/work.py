"""The evaluation and the export or push of this process, which run whoever watches, and what is said of all work that runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.export import ExportConfig
from sftdemo.errors import UserError
from sftdemo.log import LOG
from sftdemo.runs import DamagedRun, Run
from sftdemo.schema.evaluation import Scores
from sftdemo.schema.run import StageState, Status
from sftdemo.system import zero_gpu
from sftdemo.training import lock
from sftdemo.ui import models
from sftdemo.ui.access import allowance, rights
from sftdemo.ui.job import Job
from sftdemo.verbs import gpu_calls

_lock = threading.RLock()


@dataclass
class Evaluation(Job):
    """One evaluation that runs, or has run, in this process."""

    config: EvaluateConfig
    total: int
    by_visitor: bool = False
    done: int = 0
    read: int = 0
    resumed: int | None = None  # rows that an earlier, stopped evaluation had answered
    started: float = 0.0  # when the first progress was reported, in seconds
    updated: float = 0.0  # when the last one was
    scores: Scores | None = None
    note: str = ""
    asked: str = ""  # the other system that answers now
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def share(self) -> float:
        """How much of the rows is done, where reading a prompt counts as much as answering it."""
        return (self.read + self.done) / (2 * self.total) if self.total else 0.0

    @property
    def eta_s(self) -> float | None:
        share_done = self.share - (self.resumed or 0) / max(self.total, 1)
        seconds = (self.updated - self.started) / share_done * (1 - self.share) if share_done > 0 else 0
        seconds -= time.monotonic() - self.updated
        return seconds if seconds > 0 else None

    def info(self, text: str) -> None:
        if not self.started:  # later the page shows how far it is
            self.note = text
        super().info(text)

    def answered(self, rows: int, total: int) -> None:
        self.updated, self.note, self.at = time.monotonic(), "", None
        if self.resumed is None:
            self.resumed = self.read = rows
            self.started = self.updated
        self.done, self.total, self.read = rows, total, max(self.read, rows)  # some systems tell only of answers

    def asking(self, system: str) -> None:
        self.done, self.read, self.resumed, self.started, self.asked, self.at = 0, 0, None, 0.0, system, None

    def prefilled(self, prompts: int) -> None:
        self.read, self.updated = prompts, time.monotonic()

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def _work(self) -> None:
        LOG.info("Evaluating run %s.", self.run.name)
        models.load_libraries()
        from sftdemo.verbs.evaluate import evaluate

        if zero_gpu.is_here():
            self.scores = gpu_calls.evaluate_in_slices(self.run, self.config, self, self.by_visitor)
        else:
            loaded = None if self.run.kind in kinds.LABELLING else models.pair(self.run.name, reporter=self)
            self.scores = evaluate(self.run, self.config, loaded, self, self.by_visitor)
        LOG.info("Run %s was evaluated: %s", self.run.name, self.scores["summary"]["en"])


@dataclass
class Export(Job):
    """A run's model on its way into a ZIP; `sentence` says how its answers compare, once it is there."""

    title: ClassVar[str] = "work_export"  # the key of what it is called
    config: ExportConfig
    to: Path
    notes: list[str] = field(default_factory=list)
    sentence: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def ready(self) -> bool:
        return bool(self.sentence) and self.to.is_file()

    def info(self, text: str) -> None:
        self.notes.append(text)
        self.at = None  # the stage told last is over
        super().info(text)

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def _work(self) -> None:
        LOG.info("Exporting run %s.", self.run.name)
        models.load_libraries((*models.LIBRARIES, "sftdemo.verbs.export"))
        from sftdemo.verbs.export import export

        with lock.alone():  # it needs the memory that a training would take
            models.release()
            try:
                self.sentence = export(self.run, self.to, reporter=self, config=self.config).sentence
            except KeyboardInterrupt as stopped:
                raise UserError("Stopped; nothing was exported.") from stopped


_evaluation: Evaluation | None = None
_export: Export | None = None


def evaluation() -> Evaluation | None:
    """The latest evaluation of this process."""
    return _evaluation


def export() -> Export | None:
    """The latest export or push of this process."""
    return _export


def export_told() -> tuple[int, int, bool] | None:
    """Another value whenever the running export has told something; None while there is none."""
    return (id(_export), len(_export.notes), _export.should_stop()) if _export and _export.active else None


def _require_idle() -> None:
    """Raise UserError while an evaluation or an export has the models."""
    if _evaluation and _evaluation.active:
        name = rights.called(_evaluation.run)
        raise UserError("An evaluation of {name} is running; wait for it, or stop it first.", name=name)
    if _export and _export.active:
        raise UserError("Run {name} is being exported; wait until that is done.", name=rights.called(_export.run))


def start_export(run: Run, config: ExportConfig, to: Path) -> Export:
    """Begin to write a run's model to a new file."""
    return begin_export(Export(run, config, to))


def begin_export(job: Export) -> Export:
    """Begin an export or what needs one; one at a time, and neither beside an evaluation nor a training."""
    global _export
    with _lock:
        _require_idle()
        _export = job
        job.start()
        return job


def start_evaluation(run: Run, config: EvaluateConfig, total: int, visitor: rights.Visitor) -> Evaluation:
    """Begin in a thread of its own, so that a closed page loses nothing; one at a time."""
    global _evaluation
    with _lock:
        _require_idle()
        allowance.spend(visitor, "rows", allowance.asked_rows(config, total))
        rights.started(f"evaluate {run.name}", visitor)
        _evaluation = Evaluation(run, config, total, by_visitor=not visitor.owner)
        _evaluation.start()
        return _evaluation


@dataclass(frozen=True)
class Work:
    """One line of the bar at the top: what runs, how far it is and how long it still takes."""

    kind: str
    name: str
    done: int
    total: int
    share: float | None  # None where nothing is counted
    eta_s: float | None
    state: str
    stage: StageState | None = None  # what it is doing, where that isn't the steps or rows which are counted
    title: str = ""  # the key of what it is called, where its kind doesn't say
    note: str = ""  # what it has told last, for those alone who may stop it

    @property
    def key(self) -> str:
        """What it is, for who may stop it."""
        return f"{self.kind} {self.name}"


def running() -> list[Work]:
    """All that runs now: training found in the run folders, or else what is next; evaluation and export of this process."""
    items = []
    for run in runs.training() or runs.waiting()[:1]:
        try:
            status = run.status()
        except DamagedRun:
            continue
        step, total = status.get("step") or 0, status.get("total") or 0
        share = step / total if total else 0.0
        stage = stage_apart(status)
        items.append(Work("train", run.name, step, total, share, status.get("eta_s"), state_of(run), stage))
    if _evaluation and _evaluation.active:
        state = "stopping" if _evaluation.stop.is_set() else "running"
        current = _evaluation
        counts = current.done, current.total, current.share, current.eta_s
        items.append(Work("evaluate", current.run.name, *counts, state, current.at))
    if _export and _export.active:
        job, state = _export, "stopping" if _export.should_stop() else "running"
        note = job.notes[-1] if job.notes else ""
        items.append(Work("export", job.run.name, 0, 0, None, None, state, job.at, job.title, note))
    return items


def stage_apart(status: Status) -> StageState | None:
    """What a training is doing that isn't training itself."""
    stage = status.get("stage")
    return stage if stage and stage["name"] != "training" else None


def state_of(run: Run) -> str:
    """The run's state; "stopping" from the moment it was asked to stop, whatever its training process is still at."""
    state = run.state
    return "stopping" if state in runs.ACTIVE and run.stop_asked else state
