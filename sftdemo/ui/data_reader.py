"""Reading for the page, in a process of its own with limits of time and memory, and what was read lately, by session."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sftdemo.config.read import ReadConfig
from sftdemo.data import Dataset, mixture, sources
from sftdemo.data.limits import OWNER, VISITOR, Limits, OverLimit
from sftdemo.data.sources import sample_names
from sftdemo.data.stored_rows import LISTED, File, StoredRows
from sftdemo.errors import Superseded, UserError
from sftdemo.files import stamp
from sftdemo.runs import home
from sftdemo.system import bounded
from sftdemo.ui.access import rights

AT_ONCE = 2  # children that read at the same time
# That all visitors, those at one address, and one of them may have read or waiting at one time.
WAITING, WAITING_BY_ADDRESS, WAITING_BY_VISITOR = 10, 5, 2
KEPT, KEPT_BYTES = 24, 2_000_000_000  # readings, and what their rows take on the disk
KEPT_BY_SESSION = 4
KEPT_S = 3600.0

_server = bounded.Server("sftdemo.verbs.reading")
_slots = threading.BoundedSemaphore(AT_ONCE)
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Reading:
    """What is kept of data that was read: its rows lie in a file."""

    dataset: Dataset  # with StoredRows as its splits
    summary: dict[str, Any]
    prepared: Dataset | None
    rows: File
    listed: File | None = None  # the rows as they stand in the file, see verbs.row_records
    read_at: float = field(default_factory=time.monotonic)

    @property
    def bytes(self) -> int:
        return self.rows.bytes + (self.listed.bytes if self.listed else 0)

    def most_tokens(self) -> list[int]:
        return list(self.rows.sizes)


@dataclass(frozen=True)
class _Key:
    """Samples as they are, are everybody's; all else belongs to a session."""

    session: str
    config: ReadConfig
    changed: tuple[tuple[int, int, int], ...]


@dataclass
class _Job:
    address: str
    done: Future[Reading] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)


_kept: OrderedDict[_Key, Reading] = OrderedDict()
_jobs: dict[_Key, _Job] = {}


def start() -> None:
    """Start the process that reads, ahead of the first file, and delete what an app that was killed has left."""
    for folder in _folder().iterdir():
        if time.time() - folder.stat().st_mtime > OWNER.seconds:
            shutil.rmtree(folder, ignore_errors=True)
    _server.start()


def read(config: ReadConfig) -> Reading:
    """The data as read for whoever sent the event that is handled; read once, by whoever asks first.

    Raises UserError for what can't be read or is over a limit, Superseded once the page has chosen other data.
    """
    key = _key(config)
    with _lock:
        _forget()
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
        job, first = _jobs.get(key), key not in _jobs
        if first and not rights.current().owner:
            _check_crowd(key)
        if job is None:
            job = _jobs[key] = _Job(rights.current().address)
    if first:
        _run(key, job)
    return job.done.result()


def drop_others(config: ReadConfig) -> None:
    """Stop reading other data for the page that sent the event."""
    session = _session()
    with _lock:
        for key, job in _jobs.items():
            if key.session == session and key.config.data != config.data:
                job.cancelled.set()


def _check_crowd(key: _Key) -> None:
    """Refuse visitors' data while too much is being read; the caller holds the lock."""
    browser = key.session.partition("/")[0]
    if sum(job.session.partition("/")[0] == browser for job in _jobs) >= WAITING_BY_VISITOR and browser:
        raise UserError("Other data of yours are still being read; wait until that is done.")
    address = rights.current().address
    if len(_jobs) >= WAITING or sum(job.address == address for job in _jobs.values()) >= WAITING_BY_ADDRESS:
        raise UserError("Many data are being read at the moment; try again in a minute.")


def _run(key: _Key, job: _Job) -> None:
    try:
        reading = _read(key.config, job.cancelled)
    except BaseException as error:  # noqa: BLE001 (others may be waiting for it, too)
        with _lock:
            del _jobs[key]
        job.done.set_exception(error)
        return
    with _lock:
        _kept[key] = reading
        del _jobs[key]
        _forget()
    job.done.set_result(reading)


def _read(config: ReadConfig, cancelled: threading.Event) -> Reading:
    visitor = rights.current()
    limits = OWNER if visitor.owner or _is_sample(config) else VISITOR
    fetch(config)
    while not _slots.acquire(timeout=bounded.POLL_S):
        if cancelled.is_set():
            raise Superseded("Other data was chosen.")
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    try:
        answer = _server.call(
            *("read", config, limits, str(folder)), seconds=limits.seconds, memory=limits.memory, cancelled=cancelled
        )
        rows = File(folder)
        listed = File(folder / LISTED) if (folder / LISTED).is_dir() else None
    except bounded.OutOfTime:
        raise _over(limits, "seconds") from None
    except bounded.OutOfMemory:
        raise _over(limits, "memory") from None
    except bounded.Cancelled:
        raise Superseded("Other data was chosen.") from None
    finally:
        _slots.release()
        shutil.rmtree(folder, ignore_errors=True)  # the open file stays readable
    return _reading(answer, rows, listed)


def _over(limits: Limits, name: str) -> UserError:
    over = OverLimit(limits, name)
    return UserError("{first} {rest}", first=over.problem, rest=over.remedy)


def _reading(answer: dict[str, Any], rows: File, listed: File | None) -> Reading:
    splits, start = {}, 0
    for name, count in answer["splits"].items():
        splits[name] = StoredRows(rows, range(start, start + count))
        start += count
    prepared = answer["prepared"]
    dataset: Dataset = replace(answer["dataset"], splits=splits)
    trained = prepared and {name: StoredRows(rows, numbers) for name, numbers in prepared.items()}
    return Reading(dataset, answer["summary"], replace(dataset, splits=trained) if trained else None, rows, listed)


def fetch(config: ReadConfig) -> None:
    """Get data sets of the Hub: the process that reads has neither the time nor the token for it."""
    for part in mixture.parse(config.data):
        sources.fetch(part.source)


def _is_sample(config: ReadConfig) -> bool:
    return config.data in sample_names() and not config.edits  # which are whoever's they are


def _session() -> str:
    from gradio.context import LocalContext

    request = LocalContext.request.get(None)
    return f"{rights.current().key}/{getattr(request, 'session_hash', '')}"


def _key(config: ReadConfig) -> _Key:
    named = [part.source for part in mixture.parse(config.data)] + [config.edits or ""]
    changed = tuple(map(_changed, filter(None, named)))
    shared = _is_sample(config) and config == ReadConfig(data=config.data)
    return _Key("" if shared else _session(), config, changed)


def _changed(source: str) -> tuple[int, int, int]:
    """What differs between two versions of a source, so that a file saved anew is read anew."""
    path = Path(source).expanduser()
    return stamp(path.stat()) if path.exists() else (0, 0, 0)


def _forget() -> None:
    """Drop what is old, or more than may be kept; the caller holds the lock."""
    now = time.monotonic()
    by_session: dict[str, int] = {}
    count = size = 0
    for key in reversed(list(_kept)):
        reading = _kept[key]
        by_session[key.session] = by_session.get(key.session, 0) + 1
        count, size = count + 1, size + reading.bytes
        crowded = key.session and by_session[key.session] > KEPT_BY_SESSION
        if crowded or count > KEPT or (size > KEPT_BYTES and count > 1) or now - reading.read_at > KEPT_S:
            del _kept[key]
            count, size = count - 1, size - reading.bytes


def _folder() -> Path:
    folder = home() / "tmp" / "read"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
