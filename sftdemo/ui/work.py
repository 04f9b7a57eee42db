"""The model work of this process: the pair that is loaded, the evaluation and the export that run, whoever watches."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftdemo import runs
from sftdemo.config import EvaluateConfig
from sftdemo.errors import Text, UserError, unexpected
from sftdemo.log import LOG, TO_LOG, Reporter
from sftdemo.runs import DamagedRun, Run
from sftdemo.schema import Scores, StageState, Status
from sftdemo.stages import Stage
from sftdemo.system import zero_gpu
from sftdemo.training import lock
from sftdemo.ui.access import allowance, rights
from sftdemo.verbs import gpu_calls
from sftdemo.verbs.export_config import ExportConfig

LIBRARIES = (
    "torch",
    "sftdemo.model.loading",  # quiets bitsandbytes, which the next ones import
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.generation",
    "peft",
    "sftdemo.inference.server",
    "sftdemo.verbs.evaluate",
)
# Loading waits here, and disks and tokenizers that the web server's loop must not wait for.
_threads = ThreadPoolExecutor(4, thread_name_prefix="work")
LOOK_S = 1.0  # between two looks at what is loaded

_lock = threading.RLock()
_importing = threading.Lock()


def load_libraries(names: Sequence[str] = LIBRARIES) -> None:
    """Import what model work needs, one thread at a time: transformers' lazy modules can't be imported by two at once."""
    with _importing:
        for name in names:
            importlib.import_module(name)


def _models() -> Any:
    """The models in memory; the libraries they need are loaded first."""
    load_libraries()
    from sftdemo.inference.server import MODELS

    return MODELS


def _ready(names: Sequence[str]) -> list[Run]:
    chosen = [runs.named(name) for name in names]
    for run in chosen:
        if not is_ready(run):
            raise UserError(
                "Run {name} has no model to talk to ({state}); finish a training first.",
                name=run.name,
                state=Text(run.state),
            )
    return chosen


def is_loaded(*names: str) -> bool:
    """Whether these runs can answer without being loaded first."""
    server = sys.modules.get("sftdemo.inference.server")
    return server is not None and server.MODELS.holds([runs.named(name) for name in names])


def pair(*names: str, reporter: Reporter = TO_LOG) -> Any:
    """The base and these runs of it, loaded, for work in a thread of its own."""
    return _models().open(_ready(names), reporter).pair


async def served(*names: str) -> Any:
    """The base and these runs of it, to be talked to beside other visitors; nobody else waits while they are loaded."""
    chosen = _ready(names)
    if is_loaded(*names) and (opened := _models().find(chosen)):
        return opened
    return await in_thread(lambda: _models().open(chosen))


async def loading(*names: str) -> AsyncGenerator[StageState, None]:
    """Load these runs, and yield about once a second how far that is; nothing where they can answer at once."""
    if is_loaded(*names):
        return
    chosen, heard = _ready(names), Staged()
    begun: StageState = {"name": "loading", "done": 0, "total": 0, "began": time.time()}
    loaded = asyncio.ensure_future(in_thread(lambda: _models().open(chosen, heard)))
    while not (await asyncio.wait([loaded], timeout=LOOK_S))[0]:
        yield heard.at or begun
    loaded.result()


async def in_thread(work: Callable[[], Any]) -> Any:
    """What a function returns that may take a while; few run at once, and the web server's loop goes on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_threads, contextvars.copy_context().run, work)


def preload(name: str) -> None:
    """Load a run's pair ahead of the first question, if nothing trains and it takes no more than a quarter of the memory."""
    if not name or is_loaded(name) or runs.active():
        return
    load_libraries()
    import psutil

    from sftdemo.model import loading

    run = runs.named(name)
    with contextlib.suppress(UserError):  # what is wrong is said at the first question
        needed = 2 * loading.weights_bytes(Path(run.trained_config()["base_model"]))
        if is_ready(run) and 0 < 4 * needed < psutil.virtual_memory().available:
            pair(name)


def question_counts() -> tuple[int, int, int]:
    """How many questions are being answered and how many wait, and how many tokens have been decoded so far."""
    server = sys.modules.get("sftdemo.inference.server")
    return server.MODELS.counts() if server else (0, 0, 0)


def release() -> None:
    """Give the memory of the models back, so that training has it."""
    if server := sys.modules.get("sftdemo.inference.server"):
        server.MODELS.release()


@dataclass
class Staged(Reporter):
    """Keeps the stage that work has told last, as `at`."""

    at: StageState | None = field(default=None, init=False)

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        super().stage(name, done, total)
        began = self.at["began"] if self.at and self.at["name"] == name else time.time()
        self.at = {"name": name, "done": done, "total": total, "began": began}


@dataclass
class Job(Staged):
    """Work on a run's model in a thread of its own, so that a closed page loses nothing."""

    run: Run
    error: str = field(default="", init=False)
    thread: threading.Thread | None = field(default=None, init=False)

    @property
    def active(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def start(self) -> None:
        self.thread = threading.Thread(target=self.work, name=type(self).__name__.lower(), daemon=True)
        self.thread.start()

    def work(self) -> None:
        """Work; what goes wrong is kept for the page."""
        name = f"{type(self).__name__} of {self.run.name}"
        try:
            self._work()
        except UserError as error:
            LOG.warning("%s ended: %s", name, error)
            self.error = error.text
        except Exception as error:  # noqa: BLE001 (a thread has nobody above it to tell)
            LOG.exception("%s failed", name)
            self.error = unexpected(error)

    def _work(self) -> None:
        raise NotImplementedError


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
        self.done, self.total = rows, total

    def prefilled(self, prompts: int) -> None:
        self.read, self.updated = prompts, time.monotonic()

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def _work(self) -> None:
        LOG.info("Evaluating run %s.", self.run.name)
        load_libraries()
        from sftdemo.verbs.evaluate import evaluate

        if zero_gpu.is_here():
            self.scores = gpu_calls.evaluate_in_slices(self.run, self.config, self, self.by_visitor)
        else:
            models = pair(self.run.name, reporter=self)
            self.scores = evaluate(self.run, self.config, models, self, self.by_visitor)
        LOG.info("Run %s was evaluated: %s", self.run.name, self.scores["summary"]["en"])


@dataclass
class Export(Job):
    """A run's model on its way into a ZIP; `sentence` says how its answers compare, once it is there."""

    config: ExportConfig
    to: Path
    notes: list[str] = field(default_factory=list)
    sentence: str = ""

    @property
    def ready(self) -> bool:
        return bool(self.sentence) and self.to.is_file()

    def info(self, text: str) -> None:
        self.notes.append(text)
        super().info(text)

    def _work(self) -> None:
        LOG.info("Exporting run %s.", self.run.name)
        load_libraries((*LIBRARIES, "sftdemo.verbs.export"))
        from sftdemo.verbs.export import export

        with lock.alone():  # it needs the memory that a training would take
            release()
            self.sentence = export(self.run, self.to, reporter=self, config=self.config).sentence


_evaluation: Evaluation | None = None
_export: Export | None = None


def evaluation() -> Evaluation | None:
    """The latest evaluation of this process."""
    return _evaluation


def latest_export(run: Run) -> Export | None:
    """The latest export of this process, if it is one of this run."""
    return _export if _export and _export.run.path == run.path else None


def _require_idle() -> None:
    """Raise UserError while an evaluation or an export has the models."""
    if _evaluation and _evaluation.active:
        raise UserError("An evaluation of {name} is running; wait for it, or stop it first.", name=_evaluation.run.name)
    if _export and _export.active:
        raise UserError("Run {name} is being exported; wait until that is done.", name=_export.run.name)


def start_export(run: Run, config: ExportConfig, to: Path) -> Export:
    """Begin to write a run's model to a new file; one at a time, and neither beside an evaluation nor a training."""
    global _export
    with _lock:
        _require_idle()
        _export = Export(run, config, to)
        _export.start()
        return _export


def start_evaluation(run: Run, config: EvaluateConfig, total: int, visitor: rights.Visitor) -> Evaluation:
    """Begin in a thread of its own, so that a closed page loses nothing; one at a time."""
    global _evaluation
    with _lock:
        _require_idle()
        allowance.spend(visitor, "rows", total)
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
    share: float
    eta_s: float | None
    state: str
    stage: StageState | None = None  # what it is doing, where that isn't the steps or rows which are counted

    @property
    def key(self) -> str:
        """What it is, for who may stop it."""
        return f"{self.kind} {self.name}"


def running() -> list[Work]:
    """All that runs now: training found in the run folders, or else what is next; evaluations of this process."""
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
    return items


def stage_apart(status: Status) -> StageState | None:
    """What a training is doing that isn't training itself."""
    stage = status.get("stage")
    return stage if stage and stage["name"] != "training" else None


def state_of(run: Run) -> str:
    """The run's state; "stopping" from the moment it was asked to stop, whatever its training process is still at."""
    state = run.state
    return "stopping" if state in runs.ACTIVE and run.stop_asked else state


def newest_ready() -> str:
    """The name of the newest run that has a model, or ""; a run stopped before its first step has none.

    No damaged run is chosen for somebody: what is wrong with it would be all that the page says.
    """
    return next((run.name for run in runs.list_runs() if is_ready(run) and not run.damage()), "")


def is_ready(run: Run) -> bool:
    """Whether a run has a model to talk to, and a config that can be read."""
    try:
        return run.config() is not None and run.state in ("finished", "stopped") and run.model_path.is_dir()
    except DamagedRun:
        return False
