"""The model hub: what it may take of time, disk and trust. Downloads run in a process of their own, which is watched."""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import psutil

from sftdemo.errors import Text, UserError
from sftdemo.runs import home
from sftdemo.system import resources

ANSWER_SECONDS = 5.0  # to answer at all
REQUEST_SECONDS = 10  # for each request of a download, by the Hub's own client
STALL_SECONDS = 90.0  # without a byte written or a second's work done
TOTAL_SECONDS = 6 * 3600.0
SPARE_BYTES = 2**28  # of disk that a download leaves free, and may write beside its files
POLL_SECONDS = 0.2
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
APP_SECRETS = ("SFTDEMO_PASSWORD", "SFTDEMO_API_KEY")  # of the process that serves, and no other
IN_TIME = {"HF_HUB_DOWNLOAD_TIMEOUT": str(REQUEST_SECONDS), "HF_HUB_ETAG_TIMEOUT": str(REQUEST_SECONDS)}
T = TypeVar("T")


def _always() -> bool:
    return True  # whoever runs the command line owns the token


_owner_asks: Callable[[], bool] = _always
_visitor_asks = contextvars.ContextVar("visitor asks", default=False)


def tell_owner(owner_asks: Callable[[], bool]) -> None:
    """Have this tell from now on whether it is the token's owner for whom this process works."""
    global _owner_asks
    _owner_asks = owner_asks


@contextlib.contextmanager
def for_visitor(whether: bool = True) -> Iterator[None]:
    """Within, the Hub is asked without the owner's token, whoever goes on with a visitor's work and in which process."""
    before = _visitor_asks.set(_visitor_asks.get() or whether)
    try:
        yield
    finally:
        _visitor_asks.reset(before)


def _has_token() -> bool:
    return _owner_asks() and not _visitor_asks.get()


def token() -> Literal[False] | None:
    """What to give to the Hub's client as its token: None lets it find the owner's, False asks without any."""
    return None if _has_token() else False


def environment(**variables: str) -> dict[str, str]:
    """The environment of a child process, which has the owner's token only where the owner asks, and no other secret."""
    if _has_token():
        return {**without_secrets(APP_SECRETS), **variables}
    return visitors_environment(**variables)


def visitors_environment(**variables: str) -> dict[str, str]:
    """The environment of a child process that works for a visitor, whoever starts it."""
    without_token = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_TOKEN_PATH": os.devnull}
    return {**without_secrets(), **without_token, **variables}


def without_secrets(secrets: Sequence[str] = (*TOKENS, *APP_SECRETS)) -> dict[str, str]:
    """This process's environment without its secrets."""
    return {name: value for name, value in os.environ.items() if name not in secrets}


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("0", "", "false", "no")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Run `work`, or raise TimeoutError: name look-ups and retries inside libraries have no limit of their own."""
    result: list[T] = []
    fault: list[Exception] = []

    def run() -> None:
        try:
            result.append(work())
        except Exception as error:  # noqa: BLE001 (raised again in the caller's thread)
            fault.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)  # for the same asker
    thread.start()
    thread.join(seconds)
    if fault:
        raise fault[0]
    if not result:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return result[0]


def download(
    module: str,
    arguments: Sequence[str],
    folders: Sequence[Path],
    expected: int,
    variables: dict[str, str] | None = None,
    arrived: Callable[[int], None] = lambda size: None,
) -> None:
    """Run `python -m module` until it has written what it should into these folders, `expected` bytes or fewer; `arrived`
    is told how many bytes there are.

    Raises UserError where the disk is too small, the download writes more than that, stands still or takes too long, and with
    the last line that the process wrote where it fails.
    """
    resources.check_disk(folders[0], expected + SPARE_BYTES, Text("The download"))
    start = time.monotonic()
    before = written(folders)
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment(**IN_TIME, **(variables or {})),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            _watch(child, lambda: written(folders) - before, expected, start, arrived)
        finally:
            end(child)
        if child.returncode:
            errors.seek(0)
            lines = errors.read()[-4000:].decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise UserError("{reason}", reason=re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1]).rstrip(".")[:300])


def _watch(
    child: subprocess.Popen[bytes], size: Callable[[], int], expected: int, start: float, arrived: Callable[[int], None]
) -> None:
    """Return when the child has ended; UserError once it takes too much."""
    last, seen = time.monotonic(), (0, 0.0)
    while child.poll() is None:
        time.sleep(POLL_SECONDS)
        now, progress = time.monotonic(), (size(), work_of(child.pid))
        arrived(progress[0])
        if progress[0] > expected + SPARE_BYTES:
            raise UserError("it is larger than the {count} MB that were announced", count=expected // 10**6)
        if progress[0] != seen[0] or progress[1] >= seen[1] + 1:
            last, seen = now, progress
        if now - last > STALL_SECONDS:
            raise UserError("nothing has come for {seconds:.0f} seconds", seconds=STALL_SECONDS)
        if now - start > TOTAL_SECONDS:
            raise UserError("it takes longer than {hours:.0f} hours", hours=TOTAL_SECONDS / 3600)
    if size() > expected + SPARE_BYTES:
        raise UserError("it is larger than the {count} MB that were announced", count=expected // 10**6)


def work_of(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def end(child: subprocess.Popen[bytes]) -> None:
    """End what still runs of a child and its own children."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def written(folders: Sequence[Path]) -> int:
    """Bytes in these folders; files that go while they are counted count nothing."""
    total = 0
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(place, name)).st_size
                except FileNotFoundError:
                    continue
    return total


def caches() -> dict[str, str]:
    """The variables that keep the caches of the Hub's libraries under SFTDEMO_HOME."""
    names = {"HF_HUB_CACHE": "hub", "HF_DATASETS_CACHE": "datasets", "HF_XET_CACHE": "xet", "HF_ASSETS_CACHE": "assets"}
    return {variable: str(home() / "hub" / name) for variable, name in {**names, "HF_MODULES_CACHE": "modules"}.items()}
