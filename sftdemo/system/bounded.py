"""Calls in child processes with limits of time and memory, forked from a small server that has the modules at hand."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError
from sftdemo.system import hub

POLL_S = 0.05
START_S = 60.0
_NICE = 5  # whoever waits for a page or an answer comes first
_SPARE = 1 << 30  # address space beyond the memory, for libraries that reserve more than they use
# What a child may answer with, beside plain values: it may have read a stranger's file.
_TYPES = {("sftdemo.errors", "Text"), ("sftdemo.errors", "Fault"), ("sftdemo.data.types", "Step"),
          ("sftdemo.data.types", "Dataset"), ("sftdemo.data.types", "Preview"), ("sftdemo.errors", "UserError"), ("sftdemo.errors", "UsageError"),
          ("sftdemo.errors", "DataError")}  # fmt: skip


class OutOfTime(Exception):
    """The call took longer than it may."""


class OutOfMemory(Exception):
    """The call took more memory than it may."""


class Cancelled(Exception):
    """The caller no longer wants the answer."""


class Server:
    """A process that has run `warm()` of a module, and forks a child for each call of one of the module's functions.

    The module must load nothing that starts threads. Thread-safe; the process starts with the first call, or `start`.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._lock:
            if self._control is None:
                self._control = self._launch()

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        environment = hub.without_secrets() | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "sftdemo.system.bounded", self._module, str(theirs.fileno())]
        # It ends when our end of the socket is closed, with this process at the latest.
        self.process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        return ours

    def _connect(self) -> Connection:
        """A connection to a new child."""
        for attempt in range(2):
            self.start()
            ours, theirs = socket.socketpair()
            try:
                with self._lock:
                    assert self._control is not None
                    socket.send_fds(self._control, [b"1"], [theirs.fileno()])
                return Connection(ours.detach())
            except OSError:  # the server was killed
                ours.close()
                with self._lock:
                    self._control = None
                    if self.process is not None:
                        self.process.wait()
                if attempt:
                    raise
            finally:
                theirs.close()
        raise AssertionError

    def call(
        self, function: str, *arguments: Any, seconds: float, memory: int, cancelled: threading.Event | None = None
    ) -> Any:
        """What the function returns. Raises the UserError that it raises, OutOfTime, OutOfMemory (`memory` in bytes), and
        Cancelled once that is set; RuntimeError for anything else that went wrong there."""
        with self._connect() as child:
            child.send_bytes(pickle.dumps((function, arguments, seconds, memory)))
            pid = None
            try:
                if not _poll(child, START_S):
                    raise OutOfTime
                pid = int(child.recv_bytes())
                return _answer(child, pid, time.monotonic() + seconds, memory, cancelled)
            except (EOFError, ConnectionError):
                raise OutOfMemory from None  # killed: by the system, mostly for its memory
            finally:
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def _poll(child: Connection, seconds: float) -> bool:
    return child.poll(max(0.0, seconds))


def _answer(child: Connection, pid: int, deadline: float, memory: int, cancelled: threading.Event | None) -> Any:
    import psutil

    while not _poll(child, POLL_S):
        if cancelled is not None and cancelled.is_set():
            raise Cancelled
        if time.monotonic() > deadline:
            raise OutOfTime
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).memory_info().rss > memory:
                raise OutOfMemory
    kind, value = _Unpickler(io.BytesIO(child.recv_bytes())).load()
    if kind == "memory":
        raise OutOfMemory
    if kind == "failed":
        raise RuntimeError(value)
    if kind == "user":
        raise value
    return value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _TYPES:
            raise pickle.UnpicklingError(f"{module}.{name} is no answer")
        return super().find_class(module, name)


# The server, and its children


def _serve(module: str, control: socket.socket) -> None:
    functions = importlib.import_module(module)
    functions.warm()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which closes the socket
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            try:
                _work(functions, Connection(descriptors[0]))
            finally:
                os._exit(0)
        os.close(descriptors[0])


def _work(functions: Any, parent: Connection) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent.send_bytes(str(os.getpid()).encode())
    function, arguments, seconds, memory = pickle.loads(parent.recv_bytes())
    os.nice(_NICE)
    try:
        _limit(seconds, memory)
        answer: tuple[str, Any] = ("done", getattr(functions, function)(*arguments))
    except UserError as error:
        answer = ("user", error)
    except MemoryError:
        answer = ("memory", None)
    except Exception:  # noqa: BLE001 (it is logged where it is received)
        answer = ("failed", traceback.format_exc())
    with contextlib.suppress(OSError):  # nobody waits for it any more
        parent.send_bytes(pickle.dumps(answer))


def _limit(seconds: float, memory: int) -> None:
    """A second fence, where the caller can't see or act: address space, processor time, no core files."""
    import resource

    with contextlib.suppress(OSError):  # only Linux tells what is in use
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory + _SPARE,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(2 * seconds) + 5,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
