"""Training in a child process: start it, stop it, name its command. The run folder is all that parent and child share."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from sftdemo import files, runs
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.sweep import SweepConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text, UsageError, UserError
from sftdemo.log import LOG
from sftdemo.runs import ACTIVE, DamagedRun, Run, error_keys, starter, sweep_record
from sftdemo.schema.run import Status
from sftdemo.system import hub, zero_gpu
from sftdemo.system.compute import YIELDING_THREADS
from sftdemo.training import checkpoints, students, turns
from sftdemo.training import resume as resumption
from sftdemo.verbs import gpu_calls
from sftdemo.verbs.sweep import new as new_sweep

SAVING_S = 8.0  # a container gives its processes ten
BOOKING_S = 5.0  # a process that is killed has trained so long for nothing, at most
NICENESS, MOST_NICENESS = 10, 19  # a tenth of the weight of what isn't nice, and the most that can be asked for
_children: dict[subprocess.Popen[bytes], Run] = {}  # that this process began, and whose last word isn't read yet


def start(
    config: TrainConfig, expected_s: float | None = None, most_minutes: float | None = None, visitor: str = ""
) -> Run:
    """Make the run, and train it in the background when it is its turn; `expected_s` is how long that will take, if known.

    After `most_minutes` of its turn its process stops by itself and keeps what was learned, whatever became of this one,
    also where it is resumed; `visitor` is who asked for it then.

    Raises UserError when the name is taken, or for a setting that is wrong.
    """
    config = students.complete(config.check())
    if not config.data:
        raise UsageError("data is empty; give a file, a folder, the name of a sample set, or a Hub id.")
    run = turns.new_run(config)
    if most_minutes is not None:
        starter.note(run, visitor, most_minutes)
    _spawn_training(run, expected_s)
    return run


def start_sweep(config: TrainConfig, sweep: SweepConfig) -> Run:
    """Make a run that tries settings and trains with the best, in the background, when it is its turn; raises UserError."""
    if zero_gpu.is_here():
        raise UserError("Settings aren't tried in GPU calls; do it on another machine.")
    run = new_sweep(config, sweep)
    _spawn_training(run, 60 * sweep.minutes)
    return run


def resume(run: Run) -> None:
    """Go on with a run that was interrupted or stopped, in the background, when it is its turn.

    Raises UserError where it waits or trains already, there is nothing that it could go on from, or its visitor's minutes
    are over; the run is then left as it is.
    """
    turns.require_ended(run)
    starter.minutes_left(run)
    resumption.start(run)
    _spawn_training(run)


def resume_cut_off() -> None:
    """Go on with what was cut off, if anything was; why it can't is in the log."""
    for run in runs.cut_off():
        try:
            resume(run)
        except UserError as error:
            LOG.warning("Run %s was cut off and doesn't go on: %s", run.name, error)


def can_resume(run: Run) -> bool:
    """Whether the run ended before its last step and has a checkpoint, or was cut off before it had one."""
    status = _status(run)
    kept = status.get("cut_off", False) or checkpoints.exists(run) or sweep_record.is_open(run)
    return status["state"] in ("stopped", "failed") and kept


def _status(run: Run) -> Status:
    """That of a damaged run says no more than that it has failed."""
    try:
        return run.status()
    except DamagedRun:
        return {"state": "failed"}


def end_trainings() -> None:
    """This process is told to end: what it began saves a checkpoint and ends with it, to go on later; other trainings write
    a checkpoint, since they may be next. Returns when that is done, or there is no more time for it."""
    deadline = time.monotonic() + SAVING_S
    own = dict(_children)
    others = [run for run in runs.active() if run.status().get("phase") == "training" and run not in own.values()]
    for run in others:
        run.ask_to_save()
    for child in sorted(own, key=lambda child: own[child].state != "queued"):  # no turn comes to who waits
        child.terminate()
    while time.monotonic() < deadline and (
        own.keys() & _children.keys() or any(run.save_asked and run.state in ACTIVE for run in others)
    ):
        time.sleep(0.05)


def _spawn_training(run: Run, expected_s: float | None = None) -> None:
    left = starter.minutes_left(run)
    if zero_gpu.is_here():  # a process of its own would have no GPU
        turns.join(run, expected_s)
        begun_by = contextvars.copy_context()  # the Hub is asked as whoever began it
        slices = (gpu_calls.train_in_slices, run)
        threading.Thread(target=begun_by.run, args=slices, name=f"train {run.name}", daemon=True).start()
        if left is not None:
            threading.Thread(target=stop_after, args=(run, left), name=f"limit of {run.name}", daemon=True).start()
        return
    limit = [] if left is None else ["--stop-after", str(left)]
    spawn(run, [sys.executable, "-m", "sftdemo", "train", "--run", str(run.path.resolve()), *limit], expected_s)


def spawn(run: Run, argv: list[str], expected_s: float | None = None) -> int:
    """Put the run into the queue and start its process, which outlives this one; return its pid. Its output goes to the log."""
    # A visitor's run stays one when the app itself goes on with it.
    environment = hub.visitors_environment if run.starter() else hub.environment
    turns.join(run, expected_s)
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        nice = niceness()
        with run.log_path.open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=YIELDING_THREADS
                | environment(PYTHONUNBUFFERED="1", TQDM_DISABLE="1", PYTHONPATH=os.pathsep.join(paths)),
            )
    except UserError as error:
        turns.leave(run, error.text)
        raise
    except OSError as error:
        turns.leave(run, Text("The training process could not start: {reason}.", reason=error))
        raise UserError("The training process could not start: {reason}.", reason=error) from error
    _lower_priority(child.pid, nice)
    # The child writes the status itself from its first word on; until then its pid must stand there, not ours.
    turns.hand_over(run, child.pid, by=os.getpid())
    LOG.info("Run %s: process %d trains it when it is its turn.", run.name, child.pid)
    _children[child] = run
    # Someone must wait for a child, or it stays in the process table when it ends.
    threading.Thread(target=_await_end, args=(run, child), name=f"end of {run.name}", daemon=True).start()
    return child.pid


def niceness() -> int:
    """How nice trainings are beside the page: what SFTDEMO_NICENESS says, 0 for a machine that is there to train."""
    asked = os.environ.get("SFTDEMO_NICENESS") or str(NICENESS)
    if not asked.isdecimal() or int(asked) > MOST_NICENESS:
        problem = "SFTDEMO_NICENESS is {value!r}; give a whole number from 0 to {most}."
        raise UserError(problem, value=asked, most=MOST_NICENESS)
    return int(asked)


def _lower_priority(pid: int, nice: int) -> None:
    """Let the page come first; the process's threads are yet to begin, and inherit it."""
    if not nice:
        return
    with contextlib.suppress(OSError, AttributeError):  # gone already; a system without priorities of this kind
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    # Where Linux shares the cores out by session first, niceness counts only within one, and this one is the process's own.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")


def _await_end(run: Run, child: subprocess.Popen[bytes]) -> None:
    """When the child is gone and has left no last word, say what became of it."""
    code = child.wait()
    try:
        _tell_end(run, child.pid, code)
    finally:
        del _children[child]


def _tell_end(run: Run, pid: int, code: int) -> None:
    try:
        status = run.written_status()
    except DamagedRun as damaged:
        status = {"state": "queued", "error": str(damaged), "pid": pid}
    if status.get("pid") != pid:
        LOG.info("Run %s: process %d has left the queue.", run.name, pid)  # the folder may be of a new run by now
        return
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
    """Ask a run that is active to stop after its step and keep what it has learned, or one that waits to leave the queue."""
    if run.state in ACTIVE:
        run.ask_to_stop()


def stop_after(run: Run, minutes: float) -> None:
    """Wait until it is the run's turn and the minutes from then on are over, then stop it; returns when it has ended.

    Those that are over are booked in the run's folder, for when it is resumed.
    """
    while run.path.exists() and run.state == "queued":
        time.sleep(1)
    booked = time.monotonic()
    end = booked + 60 * minutes
    while run.path.exists() and run.state in ACTIVE:
        now = time.monotonic()
        if now >= end:
            stop(run)
        if now >= booked + BOOKING_S:
            starter.book(run, (now - booked) / 60)
            booked = now
        time.sleep(1)


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
