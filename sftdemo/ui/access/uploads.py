"""Uploads: each lies in its visitor's own folder, within a quota, is nobody else's, and is deleted in time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import Text
from sftdemo.runs import trash
from sftdemo.ui import downloads
from sftdemo.ui.access import rights
from sftdemo.ui.texts import language
from sftdemo.ui.texts.faults import in_words

MIB = 2**20
_EARLIER = re.compile("[0-9a-f]{64}")  # where Gradio itself puts an upload

LEFT_S = 600.0  # a page that is closed may be one that is loaded again, in another language or after a restart
SWEEP_S = 60.0

_pages: dict[str, set[Path]] = {}  # by page, the uploads that it has read
_left: dict[Path, float] = {}  # uploads whose pages are closed, and when the last one was
_guard = threading.Lock()


def folder() -> Path:
    return Path(os.environ.get("GRADIO_TEMP_DIR") or runs.home() / "tmp") / "uploads"


def folder_of(visitor: rights.Visitor) -> Path:
    """The folder of a browser's uploads, or of an address whose scripts keep no cookie."""
    name = visitor.key if visitor.browser else hashlib.sha256(visitor.address.encode()).hexdigest()[:16]
    return folder() / name


def is_own(path: str, visitor: rights.Visitor) -> bool:
    """Whether the path, links followed, is that of a file that this visitor uploaded; only the uploader is told it."""
    try:
        inside = Path(path).resolve().relative_to(folder_of(visitor).resolve())
        # In a folder with a name that can't be guessed: without a cookie, all of an address have the folder of its uploads.
        return Path(path).is_absolute() and len(inside.parts) > 1
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, a loop, another's
        return False


def refusal(visitor: rights.Visitor, headers: Mapping[str, str]) -> tuple[int, Text] | None:
    """Why an upload isn't taken: its size isn't said, or it is more than the visitor may keep here."""
    if not (length := headers.get("content-length", "")).isdecimal():
        return 411, Text("The size of the upload isn't said; send it with a Content-Length.")
    config = rights.policy().config
    if too_much := no_room(visitor, int(length)):
        return 413, too_much
    if not visitor.owner and sum(1 for _ in folder_of(visitor).glob("*/*/*")) >= config.visitor_kept_files:
        return 413, Text("A visitor may keep {most} uploads here; this would be more.", most=config.visitor_kept_files)
    return None


def no_room(visitor: rights.Visitor, more: int) -> Text | None:
    """Why so many more bytes are more than the visitor may keep here; None for the owner, or where they aren't."""
    most = rights.policy().config.visitor_kept_mb
    size = sum(path.stat().st_size for path in folder_of(visitor).rglob("*") if path.is_file())
    if visitor.owner or size + more <= most * MIB:
        return None
    return Text("A visitor may keep {most} MB of uploads here; this would be more.", most=most)


def kept_apart(receive_upload: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Gradio's function that receives an upload, into a new folder of the visitor's; there the file lies under a hash
    of its content (SHA-256, with Gradio's seed)."""
    from starlette.exceptions import HTTPException

    async def receive(request: Any, upload_dir: Any, *arguments: Any, **options: Any) -> Any:
        visitor = rights.visitor(request)

        def check(refused: tuple[int, Text] | None) -> None:
            if refused:
                raise HTTPException(refused[0], in_words(refused[1], language(request)))

        check(refusal(visitor, request.headers))
        place = folder_of(visitor) / secrets.token_hex(16)
        try:
            received = await receive_upload(request, place, *arguments, **options)
            most = rights.policy().config.visitor_kept_files
            if not visitor.owner and len(received[0]) > most:
                check((413, Text("A visitor may keep {most} uploads here; this would be more.", most=most)))
        except BaseException as error:
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, TypeError):  # Gradio's word for a field without a file
                check((400, Text("The upload has a part that is no file; send files alone.")))
            raise
        return received

    return receive


def read_by(path: str, visitor: rights.Visitor, page: str) -> None:
    """Note that a page works with an upload, which goes a while after the page is closed; the owner's stay their time."""
    if not visitor.owner and is_own(path, visitor):
        with _guard:
            _pages.setdefault(page, set()).add(place_of(Path(path)))
            _left.pop(place_of(Path(path)), None)


def leave(request: gr.Request) -> None:
    """A page was closed."""
    with _guard:
        places = _pages.pop(str(request.session_hash), set()) - set[Path]().union(*_pages.values())
        _left.update(dict.fromkeys(places, time.time()))


def sweep(now: float | None = None) -> None:
    """Delete what was uploaded, or written for download, longer ago than uploads are kept, and old trash."""
    trash.sweep(now)
    now = now or time.time()
    _sweep_left(now)
    oldest = now - 3600 * rights.policy().config.upload_hours
    downloads.sweep(oldest)
    earlier = [path for path in folder().parent.glob("*") if _EARLIER.fullmatch(path.name)]
    _delete({path for path in (*folder().glob("*/*"), *earlier) if path.stat().st_mtime < oldest})
    for path in folder().glob("*"):
        if not any(path.iterdir()):
            shutil.rmtree(path, ignore_errors=True)


def _sweep_left(now: float) -> None:
    """Delete the uploads whose pages have been closed for a while."""
    if rights.policy().config.uploads_end_with_page:
        with _guard:
            closed = {place for place, since in _left.items() if since < now - LEFT_S}
        _delete(closed)
    with _guard:
        for place in [place for place in _left if not place.exists()]:
            del _left[place]
        for page in [page for page, places in _pages.items() if not any(place.exists() for place in places)]:
            del _pages[page]


def sweep_forever() -> None:
    while True:
        with contextlib.suppress(FileNotFoundError):  # a page was closed meanwhile, and its uploads went
            sweep()
        time.sleep(SWEEP_S)


def place_of(path: Path) -> Path:
    """The folder of one upload, which a path leads into."""
    return folder() / Path(*path.resolve().relative_to(folder().resolve()).parts[:2])


def _delete(places: set[Path]) -> None:
    """Delete uploads, but those that a training still has to read."""
    needed = ""
    for run in runs.active():
        with contextlib.suppress(runs.DamagedRun):
            needed += f" {run.config().get('settings', {}).get('data')}"
    for place in places:
        if f"{place}{os.sep}" not in needed and f"{place.resolve()}{os.sep}" not in needed:
            shutil.rmtree(place, ignore_errors=True)
