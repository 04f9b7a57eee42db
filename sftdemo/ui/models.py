"""The models that this process has in memory: what is loaded, for whom, and how far the loading is."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import importlib
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sftdemo import runs
from sftdemo.errors import Text, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.runs import DamagedRun, Run
from sftdemo.schema.run import StageState
from sftdemo.ui.job import Staged

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
STOP_S = 0.2  # between two looks at whether that is to be stopped

_importing = threading.Lock()


def load_libraries(names: Sequence[str] = LIBRARIES) -> None:
    """Import what model work needs, one thread at a time: transformers' lazy modules can't be imported by two at once."""
    with _importing:
        are_new = any(name in LIBRARIES and name not in sys.modules for name in names)
        for name in names:
            importlib.import_module(name)
        if are_new:
            # Nothing of them is ever garbage, and each search for it would look through their million objects while nobody is
            # answered. Models, whose circles it has to find, come after them.
            gc.freeze()


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


def _models_if_here() -> Any:
    """The models in memory, or None while the libraries that they need aren't loaded to their end."""
    return getattr(sys.modules.get("sftdemo.inference.server"), "MODELS", None)


def is_loaded(*names: str) -> bool:
    """Whether these runs can answer without being loaded first."""
    here = _models_if_here()
    return here is not None and here.holds([runs.named(name) for name in names])


def pair(*names: str, reporter: Reporter = TO_LOG) -> Any:
    """The base and these runs of it, loaded, for work in a thread of its own."""
    return _models().open(_ready(names), reporter).pair


async def served(*names: str) -> Any:
    """The base and these runs of it, to be talked to beside other visitors; nobody else waits while they are loaded."""
    chosen = _ready(names)
    if is_loaded(*names) and (opened := _models().find(chosen)):
        return opened
    return await in_thread(lambda: _models().open(chosen))


async def loading(stopped: Callable[[], bool], *names: str) -> AsyncGenerator[StageState, None]:
    """Load these runs, and yield about once a second how far that is; nothing where they can answer at once.

    Once `stopped` is true nobody waits for it; it goes on by itself, for the next question.
    """
    chosen, heard = _ready(names), Staged()
    if is_loaded(*names) and _models().find(chosen):
        return
    begun: StageState = {"name": "loading", "done": 0, "total": 0, "began": time.time()}
    loaded = asyncio.ensure_future(in_thread(lambda: _models().open(chosen, heard)))
    loaded.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody may be waiting any more
    while not stopped():
        deadline = time.monotonic() + LOOK_S
        while not stopped() and time.monotonic() < deadline:
            if (await asyncio.wait([loaded], timeout=STOP_S))[0]:
                loaded.result()
                return
        yield heard.at or begun


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
    here = _models_if_here()
    return here.counts() if here is not None else (0, 0, 0)


def release() -> None:
    """Give the memory of the models back, so that training has it."""
    if forget := getattr(sys.modules.get("sftdemo.inference.labelling"), "release", None):
        forget()
    if (here := _models_if_here()) is not None:
        here.release()


def newest_ready() -> str:
    """The name of the newest run that has a model, or ""; a run stopped before its first step has none.

    No damaged run is chosen for somebody: what is wrong with it would be all that the page says.
    """
    return next((run.name for run in runs.list_runs() if is_ready(run) and not run.damage()), "")


def is_ready(run: Run) -> bool:
    """Whether a run has a model to talk to, whose folder can be looked into, and a config that can be read."""
    try:
        ended = run.config() is not None and run.state in ("finished", "stopped")
        return ended and run.model_path.is_dir() and os.access(run.model_path, os.R_OK | os.X_OK)
    except DamagedRun:
        return False
