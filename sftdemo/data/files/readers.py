"""Bytes in, rows with line numbers out: by a file's suffix, and by its content where the suffix is wrong."""

from __future__ import annotations

import re

from sftdemo.config.read import ReadConfig
from sftdemo.data.files import arrow, conll, delimited, fasttext, headers, json_rows, workbooks
from sftdemo.data.files.decoding import Undecodable, decode
from sftdemo.data.files.table import Row, Table, kind
from sftdemo.data.limits import OWNER, Limits, OverLimit
from sftdemo.errors import Fault, Text

__all__ = ["PACKED", "SUFFIXES", "Row", "Table", "kind", "read_table", "suffix_of"]

_JSON = (".jsonl", ".ndjson", ".json")
_DELIMITED = (".csv", ".tsv", ".txt")
_TAGGED = (".conll", ".iob", ".bio")
SUFFIXES = (*_JSON, *_DELIMITED, *_TAGGED, *workbooks.SUFFIXES, *arrow.SUFFIXES)
PACKED = (".zip", ".gz")
_STARTS = {b"PAR1": ".parquet", b"ARROW1": ".arrow", b"\xff\xff\xff\xff": ".arrow"}
_FOREIGN = {
    b"%PDF": Text("a PDF"),
    b"\xd0\xcf\x11\xe0": Text("an old Excel or Word file"),
    b"PK\x03\x04": Text("a ZIP"),
    b"SQLite format 3": Text("an SQLite database"),
    b"\x89PNG": Text("a picture"),
    b"\xff\xd8\xff": Text("a picture"),
    b"GIF8": Text("a picture"),
    b"BZh": Text("packed with bzip2"),
    b"\xfd7zXZ": Text("packed with xz"),
    b"7z\xbc\xaf": Text("a 7-Zip archive"),
    b"Rar!": Text("a RAR archive"),
    b"\x28\xb5\x2f\xfd": Text("packed with zstd"),
    b"\x1f\x8b": Text("packed twice with gzip"),
    b"\x80\x02": Text("a Python pickle"),
    b"\x80\x03": Text("a Python pickle"),
    b"\x80\x04": Text("a Python pickle"),
    b"\x80\x05": Text("a Python pickle"),
    b"\x93NUMPY": Text("a NumPy array"),
    b"\x89HDF": Text("an HDF5 file"),
    b"Obj\x01": Text("an Avro file"),
    b"ORC": Text("an ORC file"),
}
_MESSAGE = re.compile(  # date, time, sender, colon: a table's first column may be a time, too
    r"\u200e?\[?\d{1,4}[./-]\d{1,2}[./-]\d{2,4},? \d{1,2}[:.]\d{2}([:.]\d{2})?([ \u202f]?[AaPp]\.?[Mm]\.?)?\]?[ -]+[^\t,;|:]{1,60}: "
)
_NAMES = {"iso2022_jp_2": "ISO-2022-JP"}
_MOST = 3  # faults of a file without a single row; more would say the same


def suffix_of(name: str) -> str:
    return "." + name.rsplit(".", 1)[1].lower() if "." in name else ""


def over_limit(name: str, over: OverLimit) -> Fault:
    return Fault(0, "", over.problem, over.remedy, name)


def read_table(
    name: str, data: bytes, split: str | None = None, config: ReadConfig | None = None, limits: Limits = OWNER
) -> Table:
    """Read one file's bytes; `config` says its encoding, sheet and header where the user knows better.

    Of a file over a limit no row is read.
    """
    table = Table(name, split, limits=limits)
    try:
        _read(table, data, config or ReadConfig())
    except OverLimit as over:
        table.rows, table.faults = [], [over_limit(name, over)]
    return table


def _read(table: Table, data: bytes, config: ReadConfig) -> None:
    suffix = suffix_of(table.file)
    if suffix and suffix not in SUFFIXES:
        table.fault(
            0,
            Text("Files that end in {suffix!r} can't be read.", suffix=suffix),
            Text("Give one of: {names}.", names=(*SUFFIXES, *PACKED)),
        )
    elif len(data) > table.limits.unpacked_bytes:
        raise OverLimit(table.limits, "file_bytes", len(data))
    elif not data.removeprefix(b"\xef\xbb\xbf").strip(b"\x00 \t\r\n"):
        table.fault(0, Text("The file is empty."), Text("Give a file with rows."))
    else:
        _by_content(table, data, suffix, config)
    if not table.rows and not table.faults:
        table.fault(0, Text("The file has no rows."), Text("Give a file with rows."))
    if not table.rows and len(table.faults) > _MOST:
        table.note(Text("none of its rows can be read; the first fault stands for {n}.", n=len(table.faults)))
        table.faults = table.faults[:1]


def _by_content(table: Table, data: bytes, suffix: str, config: ReadConfig) -> None:
    """The first bytes say what a binary file is, whatever it is called."""
    actual = workbooks.suffix_of(data) or next((end for start, end in _STARTS.items() if data.startswith(start)), None)
    if actual and suffix != actual and not {suffix, actual} <= {".arrow", ".feather"}:
        table.note(Text("it is {kind} by its content, and was read as such.", kind=actual[1:]))
        suffix = actual
    elif not actual and suffix in (*workbooks.SUFFIXES, *arrow.SUFFIXES) and _is_text(data[:4096]):
        table.note(Text("it is text by its content, and was read as such."))
        suffix = ""
    if what := _no_data(data[:200].decode("latin-1")):
        table.fault(0, Text("The file is {what}, not data.", what=what), Text("Download the file itself."))
    elif suffix in workbooks.SUFFIXES:
        workbooks.read(table, data, config)
    elif suffix in arrow.SUFFIXES:
        arrow.read(table, data, suffix)
    elif foreign := next((what for start, what in _FOREIGN.items() if data.startswith(start)), None):
        table.fault(
            0,
            Text("The file is {what}, not a table of rows.", what=foreign),
            Text("Save its rows as .xlsx, .csv or .jsonl."),
        )
    elif data[257:262] == b"ustar":
        table.fault(0, Text("The file is a tar archive."), Text("Unpack it, and give the file inside."))
    else:
        _text(table, data, suffix, config)


def _text(table: Table, data: bytes, suffix: str, config: ReadConfig) -> None:
    try:
        text = decode(data, config.encoding)
    except Undecodable as error:
        table.fault(0, error.problem, error.remedy)
        return
    if text.sample:
        table.notes.append(
            Text(
                "{file} isn't UTF-8; it is read as {encoding}, in which it says {sample!r}. If that is wrong, name another with --encoding.",
                file=table.file,
                encoding=text.encoding,
                sample=text.sample,
            )
        )
    elif text.encoding not in ("utf-8", "utf-8-sig") and not config.encoding:
        table.notes.append(
            Text(
                "{file} is read as {encoding}.",
                file=table.file,
                encoding=_NAMES.get(text.encoding, text.encoding.upper()),
            )
        )
    for number, (problem, remedy) in text.wrong.items():
        table.fault(number, problem, remedy)
    lines, bad = text.lines, set(text.wrong)
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first:
        table.fault(0, Text("The file is empty."), Text("Give a file with rows."))
    elif suffix in (*_TAGGED, ".txt", ".tsv", "") and (
        told := conll.tagged_sentences(lines) or fasttext.labelled_lines(lines)
    ):
        for number, values in told:
            if number not in bad:
                table.add(number, values)
    elif suffix in (".txt", "") and _is_chat(lines):
        table.fault(
            0,
            Text("Its lines are messages with their times, as in an exported chat."),
            Text("Make a table of two columns of it, prompt and completion: a message, and its reply."),
        )
    elif json_rows.looks_like_json(lines) and (suffix not in _DELIMITED or config.header == "auto"):
        if suffix in _DELIMITED:
            table.note(Text("it is JSON by its content, and was read as such."))
        json_rows.read(table, lines, bad, config.header)
    elif suffix in _JSON and not _is_delimited(lines):
        json_rows.read(table, lines, bad, config.header)
    elif suffix in (*_TAGGED, ".txt", "") and not _is_delimited(lines):
        table.fault(
            0,
            Text("No comma, tab, semicolon or | divides the lines into columns."),
            Text("Give a table with a header, or JSON."),
        )
    else:
        if suffix in _JSON:
            table.note(Text("it is a table by its content, not JSON, and was read as such."))
        headers.fill(table, delimited.records(table, lines, bad), config.header)


def _is_text(head: bytes) -> bool:
    return not re.search(rb"[\x00-\x08\x0e-\x1a]", head)


def _no_data(start: str) -> Text | None:
    """What a text is that was saved in place of data."""
    start = start.removeprefix("ï»¿").lstrip().lower()
    if start.startswith("version https://git-lfs"):
        return Text("a Git LFS pointer")
    if start.startswith(("<!doctype html", "<html")):
        return Text("a web page (HTML)")
    if start.startswith("<?xml"):
        return Text("XML")
    return None


def _is_chat(lines: list[str]) -> bool:
    """Whether most lines begin with a date, a time and a name, as messages do where WhatsApp and others export a chat."""
    filled = [line for line in lines[:2000] if line.strip()]
    return len(filled) > 1 and 2 * sum(bool(_MESSAGE.match(line)) for line in filled) > len(filled)


def _is_delimited(lines: list[str]) -> bool:
    """Whether most lines have the same columns, and there are two lines or more."""
    filled = [line for line in lines[:2000] if line.strip()]
    return len(filled) > 1 and delimited.delimiter(filled)[1] > 0.8
