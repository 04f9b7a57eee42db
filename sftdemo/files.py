"""How files are read and written: whole or not at all; JSON, JSONL, and CSV that no spreadsheet will run."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import stat
import string
import threading
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftdemo.errors import Text, UserError

# What a spreadsheet takes for the start of a formula, full-width forms too, and what it may skip before one.
_FORMULA = tuple("=+-@＝＋－＠")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
MOST_JSON = 64 * 2**20  # bytes of a JSON file, or of a line of JSONL
_SKIPPED = string.whitespace + "\u00a0\u3000\u200b\ufeff"


def write_text(path: Path, text: str, parents: bool = True) -> None:
    """Write a file so that readers see the old text or the new one, never a part; `parents` makes its folder."""
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def overwrite_json(path: Path, value: Any) -> None:
    """Write into the blocks that a file has: a last word on a disk with no room for another file."""
    with path.open("r+", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False) + "\n")
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


# What the disk, and not the program, is at fault for.
FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# As torch and safetensors say of a file that could not be written whole.
_FULL_TEXTS = ("No space left on device", "os error 28", "os error 122", "PytorchStreamWriter failed", "unexpected pos")


def disk_fault(error: BaseException) -> UserError | None:
    """What to tell the user where a disk is full or can't be written to; None for any other error."""
    path = getattr(error, "filename", None) or ""
    number = getattr(error, "errno", None)
    if number in FULL or (not isinstance(error, UserError) and any(text in str(error) for text in _FULL_TEXTS)):
        return UserError("The disk under {folder} is full; make room and try again.", folder=_folder(path))
    if isinstance(error, OSError) and number in _FORBIDDEN:
        return UserError(
            "{path} can't be written to ({why}); change its permissions, or set SFTDEMO_HOME to a folder that can.",
            path=path or _folder(path),
            why=os.strerror(number),
        )
    return None


@contextlib.contextmanager
def disk_faults() -> Iterator[None]:
    """Within, an error of a full or locked disk is the UserError that says so."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if fault := disk_fault(error):
            raise fault from error
        raise


def _folder(path: str) -> str:
    return str(Path(path).parent) if path else os.environ.get("SFTDEMO_HOME") or "~/.sftdemo"


def write_json(path: Path, value: Any, parents: bool = True) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n", parents)


def read_json(path: Path) -> Any:
    """The value in a file; a file that hasn't changed since it was last asked for isn't opened again.

    Raises OSError, or ValueError for what is no regular file, too large, or no JSON.
    """
    return parsed(_text(str(path), stamp(_json_file(path))))


def read_json_uncached(path: Path) -> Any:
    """As `read_json`, for files that visitors can write: they would fill the memory with their texts."""
    _json_file(path)
    return parsed(path.read_text(encoding="utf-8"))


def _json_file(path: Path) -> os.stat_result:
    status = regular(path)
    if status.st_size > MOST_JSON:
        raise ValueError(Text("has more than {most:,} bytes", most=MOST_JSON))
    return status


def real(path: Path) -> Path:
    """The path without links; of one that leads in a circle as far as it goes, where Path.resolve() breaks."""
    return Path(os.path.realpath(path))


def regular(path: Path) -> os.stat_result:
    """What is known of a file that can be read to its end: of a pipe or a device nobody knows when that comes."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(Text("is a folder" if stat.S_ISDIR(status.st_mode) else "is no regular file"))
    return status


def why(error: Exception) -> Text:
    """What kept a file from being read, without its path, which the message of an OSError has in it."""
    if isinstance(error, FileNotFoundError):
        return Text("is missing")
    if isinstance(error, UnicodeDecodeError):
        return Text("is no UTF-8 text")
    if isinstance(error, OSError):
        return Text("can't be read: {problem}", problem=error.strerror)
    return error.args[0] if error.args and isinstance(error.args[0], Text) else Text(str(error))


def check_packing(member: zipfile.ZipInfo) -> None:
    """Raise NotImplementedError for what Python unpacks whole, however few bytes are asked for: of bzip2 and LZMA ten kilobytes
    can be gigabytes."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("only Deflate is read")


def parsed(text: str) -> Any:
    """The value of a JSON text; ValueError for what can't be read or, like half an emoji, not be written again."""
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(Text("holds half a character")) from None
    except ValueError as error:
        raise ValueError(Text("is no JSON: {problem}", problem=error) if text.strip() else Text("is empty")) from None
    except RecursionError:
        raise ValueError(Text("is nested too deeply")) from None
    return value


def tree_bytes(path: str | Path) -> int:
    """How many bytes the files in a folder hold; links aren't followed, and what goes meanwhile counts nothing."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        with os.scandir(path) as entries:
            return sum(tree_bytes(entry.path) for entry in entries)
    except OSError:
        return 0


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    """What differs between two versions of a file."""
    return status.st_mtime_ns, status.st_size, status.st_ino


def version(path: Path) -> tuple[int, int, int] | None:
    """The stamp of what lies there now; None where nothing does."""
    try:
        return stamp(path.stat())
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _text(path: str, version: tuple[int, int, int]) -> str:
    # The text and not its value, which a caller might change.
    return Path(path).read_text(encoding="utf-8")


def jsonl(rows: Iterable[Any]) -> str:
    """One JSON value a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_jsonl(path: Path, rows: Iterable[Any], parents: bool = True) -> None:
    write_text(path, jsonl(rows), parents)


def sha256(rows: Iterable[Any]) -> str:
    """The hash of the file that `write_jsonl` makes of the rows."""
    return hashlib.sha256(jsonl(rows).encode()).hexdigest()


def read_jsonl(path: Path, most: int = MOST_JSON) -> Iterator[Any]:
    """The complete lines of a JSONL file, of at most so many bytes; a line still being written is left for the next read.

    Raises OSError, or ValueError for what is no regular file or has a line that is too long or no JSON.
    """
    regular(path)
    with path.open("rb") as file:
        while (line := file.readline(most)).endswith(b"\n"):
            yield parsed(line.decode())
        if len(line) == most:
            raise ValueError(Text("has a line of more than {most:,} bytes", most=most))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file as text. Strings that a spreadsheet would run as a formula get a quote in front: their authors may be
    strangers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(_inert, header))
    writer.writerows(map(_inert, row) for row in rows)
    return file.getvalue()


def _inert(cell: Any) -> Any:
    if isinstance(cell, str) and (cell.startswith(("\t", "\r", "\n")) or cell.lstrip(_SKIPPED).startswith(_FORMULA)):
        return f"'{cell}"
    return cell
