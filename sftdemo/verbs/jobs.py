"""Training in a child process: start it, stop it, name its command. The run folder is all that parent and child share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sftdemo import files, runs
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.data import edits
from sftdemo.errors import Text, UsageError, UserError
from sftdemo.log import LOG
from sftdemo.runs import ACTIVE, DamagedRun, Run, error_keys
from sftdemo.schema import Status
from sftdemo.system import hub, zero_gpu
from sftdemo.system.compute import YIELDING_THREADS
from sftdemo.training import checkpoints, lock
from sftdemo.training import resume as resumption
from sftdemo.verbs import gpu_calls

SAVING_S = 8.0  # a container gives its processes ten
CHILD_NICENESS = 10  # a tenth of the weight of what isn't nice


def start(config: TrainConfig) -> Run:
    """Make the run and begin to train it in the background.

    Raises UserError while another run is active, when the name is taken, or for a setting that is wrong.
    """
    if not config.check().data:
        raise UsageError("data is empty; give a file, a folder, the name of a sample set, or a Hub id.")
    if config.edits:
        edits.read(config.edits)  # a fault in them is told before there is a run
    with lock.alone():
        hint = f"{Path(config.data).stem}-{config.method}"
        run = runs.create(config.name, hint, {"settings": config.to_json()})
        if config.edits:  # the page may change its own until the training reads them
            edits.keep(config.edits, run.path)
        _spawn_training(run)
    return run


def resume(run: Run) -> None:
    """Go on with a run that was interrupted or stopped, in the background.

    Raises UserError while another run is active, and where there is nothing that it could go on from; the run is then
    left as it is.
    """
    with lock.alone():
        resumption.start(run)
        status = run.status()
        _spawn_training(run, step=status.get("step") or 0, total=status.get("total") or 0)


def cut_off() -> Run | None:
    """The newest run, if it was ended from outside: killed, or told to leave by a machine that went down."""
    return next((run for run in runs.list_runs()[:1] if _status(run).get("cut_off")), None)


def resume_cut_off() -> None:
    """Go on with it, if there is one; why it can't is in the log."""
    if run := cut_off():
        try:
            resume(run)
        except UserError as error:
            LOG.warning("Run %s was cut off and doesn't go on: %s", run.name, error)


def can_resume(run: Run) -> bool:
    """Whether the run ended before its last step and has a checkpoint, or was cut off before it had one."""
    status = _status(run)
    return status["state"] in ("stopped", "failed") and (status.get("cut_off", False) or checkpoints.exists(run))


def _status(run: Run) -> Status:
    """That of a damaged run says no more than that it has failed."""
    try:
        return run.status()
    except DamagedRun:
        return {"state": "failed"}


def save_checkpoints() -> None:
    """Have every training write a checkpoint, and wait for it: this process is told to end, and they may be next."""
    training = [run for run in runs.active() if run.status().get("phase") == "training"]
    for run in training:
        run.ask_to_save()
    deadline = time.monotonic() + SAVING_S
    while time.monotonic() < deadline and any(run.save_asked and run.state in ACTIVE for run in training):
        time.sleep(0.05)


def _spawn_training(run: Run, **known: Any) -> None:
    if zero_gpu.is_here():  # a process of its own would have no GPU
        run.write_status("queued", **known)
        threading.Thread(target=gpu_calls.train_in_slices, args=(run,), name=f"train {run.name}", daemon=True).start()
        return
    spawn(run, [sys.executable, "-m", "sftdemo", "train", "--run", str(run.path.resolve())], **known)


def spawn(run: Run, argv: list[str], **known: Any) -> int:
    """Start the run's process, which outlives this one; return its pid. Its output goes to the log.

    `known` goes into the status until the process writes its own.
    """
    run.write_status("queued", **known)
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        with run.log_path.open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=YIELDING_THREADS
                | hub.environment(PYTHONUNBUFFERED="1", TQDM_DISABLE="1", PYTHONPATH=os.pathsep.join(paths)),
            )
    except OSError as error:
        run.write_status("failed", error=Text("The training process could not start: {reason}.", reason=error))
        raise UserError("The training process could not start: {reason}.", reason=error) from error
    # The page comes first. Its threads are yet to begin, and inherit it.
    with contextlib.suppress(OSError, AttributeError):  # gone already; a system without priorities of this kind
        os.setpriority(os.PRIO_PROCESS, child.pid, CHILD_NICENESS)
    # The child writes the status itself from its first word on; until then its pid must stand there, not ours.
    if run.status().get("pid") == os.getpid():
        run.write_status("queued", pid=child.pid, **known)
    LOG.info("Run %s: training began, process %d.", run.name, child.pid)
    # Someone must wait for a child, or it stays in the process table when it ends.
    threading.Thread(target=_await_end, args=(run, child), name=f"end of {run.name}", daemon=True).start()
    return child.pid


def _await_end(run: Run, child: subprocess.Popen[bytes]) -> None:
    """When the child is gone and has left no last word, say what became of it."""
    code = child.wait()
    try:
        status = run.written_status()
    except DamagedRun as damaged:
        status = {"state": "queued", "error": str(damaged)}
    if status["state"] not in ACTIVE:
        LOG.info("Run %s: %s. %s", run.name, status["state"], status.get("error") or "")
        return
    lines = (run.log_path.read_bytes() if run.log_path.is_file() else b"")[-4000:].decode(errors="replace").split("\n")
    last_line = next((line.strip() for line in reversed(lines) if line.strip()), Text("the log is empty"))
    error = Text("The training process ended with exit status {code}: {reason}", code=code, reason=last_line)
    cut_off = code < 0
    if cut_off:
        name = signal.Signals(-code).name
        error = Text(
            "The training process was killed ({name}). If nobody did it, the machine had no memory left.", name=name
        )
    LOG.warning("Run %s: %s", run.name, error)
    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
        ended = {**status, "state": "failed", **error_keys(error), "eta_s": None, "cut_off": cut_off}
        files.write_json(run.path / "status.json", ended, parents=False)


def stop(run: Run) -> None:
    """Ask a run that is active to stop after its step and keep what it has learned."""
    if run.state in ACTIVE:
        run.ask_to_stop()


def command(config: TrainConfig) -> str:
    """The command line that does the same, with only the settings that aren't their defaults."""
    return shlex.join(["python", "-m", "sftdemo", "train", *flags(config)])


def flags(config: TrainConfig | EvaluateConfig) -> list[str]:
    """The settings that aren't their defaults, as arguments of the command line."""
    arguments = []
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if value != spec.default:
            flag = f"--{spec.name.replace('_', '-')}"
            if isinstance(value, bool):
                arguments.append(flag if value else f"--no-{flag[2:]}")
                continue
            # A value that looks like a flag has to be joined to its own.
            arguments += [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
    return arguments
