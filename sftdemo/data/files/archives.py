"""What a path holds: the file itself, or the data files inside a ZIP or gzip, never more bytes than fit."""

from __future__ import annotations

import functools
import gzip
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from sftdemo.data.files import workbooks
from sftdemo.data.files.readers import SUFFIXES, over_limit, suffix_of
from sftdemo.data.files.table import reason
from sftdemo.data.limits import MB, Limits, OverLimit
from sftdemo.errors import Fault, Text
from sftdemo.files import check_packing

_SMALL = 10 * MB  # what any archive may unpack to


def contents(path: Path, limits: Limits) -> tuple[list[tuple[str, bytes]], list[Fault]]:
    """((name, bytes) of each data file, faults). Raises OSError for a file that can't be read.

    Packed data is read up to the limit only, whatever its header says of its size.
    """
    try:
        return _contents(path, limits)
    except OverLimit as over:
        return [], [over_limit(path.name, over)]


def _contents(path: Path, limits: Limits) -> tuple[list[tuple[str, bytes]], list[Fault]]:
    if path.stat().st_size > limits.file_bytes:
        raise OverLimit(limits, "file_bytes", path.stat().st_size)
    suffix, plain = suffix_of(path.name), path.name[:-3] if suffix_of(path.name) == ".gz" else path.name
    with path.open("rb") as file:
        start = file.read(4)
    known = suffix in (*SUFFIXES, "")  # a ZIP that ends otherwise is none of ours
    if suffix == ".zip" or (known and start == b"PK\x03\x04" and not _is_workbook(path)):
        return _zip(path, limits)
    if suffix == ".gz" or (known and start.startswith(b"\x1f\x8b")):
        return _unpacked(path, [(plain, lambda: cast(IO[bytes], gzip.open(path)))], limits)
    return [(path.name, path.read_bytes())], []


def _is_workbook(path: Path) -> bool:
    if suffix_of(path.name) in workbooks.SUFFIXES:
        return True
    return workbooks.suffix_of(path.read_bytes()) is not None


def _zip(path: Path, limits: Limits) -> tuple[list[tuple[str, bytes]], list[Fault]]:
    try:
        archive = zipfile.ZipFile(path)
    except workbooks.BROKEN_ZIP:
        return [], [Fault(0, "", Text("This isn't a ZIP that can be read."), Text("Pack it anew."), path.name)]
    with archive:
        inside = [item for item in archive.infolist() if not item.is_dir() and not _is_hidden(item.filename)]
        data = [item for item in inside if suffix_of(item.filename) in SUFFIXES]
        if not data:
            names = [repr(item.filename) for item in inside[:5]] or Text("nothing")
            remedy = Text("Pack one of: {names}.", names=SUFFIXES)
            return [], [
                Fault(0, "", Text("No data file is in the ZIP; it holds {names}.", names=names), remedy, path.name)
            ]
        if len(data) > limits.members:
            raise OverLimit(limits, "members", len(data))
        if any(item.flag_bits & 1 for item in data):
            return [], [
                Fault(0, "", Text("The ZIP is locked with a password."), Text("Pack it without one."), path.name)
            ]

        def opened(item: zipfile.ZipInfo) -> IO[bytes]:
            check_packing(item)
            return archive.open(item)

        members = [(PurePosixPath(item.filename).name, functools.partial(opened, item)) for item in data]
        return _unpacked(path, members, limits)


def _unpacked(
    path: Path, members: Sequence[tuple[str, Callable[[], IO[bytes]]]], limits: Limits
) -> tuple[list[tuple[str, bytes]], list[Fault]]:
    by_ratio = max(_SMALL, limits.ratio * path.stat().st_size)
    most = min(limits.unpacked_bytes, by_ratio)
    contents_by_name, bytes_left = [], most
    for name, opened in members:
        try:
            with opened() as file:
                data = file.read(bytes_left + 1)
        except workbooks.BROKEN_ZIP as error:
            return [], [
                Fault(
                    0,
                    "",
                    Text("{name!r} can't be unpacked: {reason}.", name=name, reason=reason(error)),
                    Text("Pack it anew."),
                    path.name,
                )
            ]
        bytes_left -= len(data)
        if bytes_left < 0:
            raise OverLimit(limits, "ratio" if most == by_ratio else "unpacked_bytes")
        contents_by_name.append((name, data))
    return contents_by_name, []


def _is_hidden(name: str) -> bool:
    """The Mac's own files, and those that start with a dot."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith(".")
