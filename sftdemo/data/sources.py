"""What the user gave, found: a file, a folder, a sample, or a data set of the Hub."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sftdemo.config.read import ReadConfig
from sftdemo.data import hub
from sftdemo.data.files import archives
from sftdemo.data.files.readers import PACKED, SUFFIXES, Table, over_limit, read_table, suffix_of
from sftdemo.data.files.table import split_name
from sftdemo.data.limits import OWNER, Limits, OverLimit
from sftdemo.data.recipes import RECIPES, recipe_rows
from sftdemo.errors import Fault, Text, UserError

READABLE = (*SUFFIXES, *PACKED)
_PACKAGE = Path(__file__).parents[1]
# Installed they lie inside the package, in a checkout beside it.
SAMPLES = next(
    (path for path in (_PACKAGE / "samples", _PACKAGE.parent / "datasets") if path.is_dir()), _PACKAGE / "samples"
)
GENERAL_QUESTIONS = SAMPLES / "general_check.jsonl"  # what forgetting is measured on
NOT_TO_TRAIN = {GENERAL_QUESTIONS.stem}


@dataclass
class Source:
    """A source's short name, its rows and the hash of its bytes."""

    name: str
    table: Table = field(default_factory=Table)
    sha256: str = ""


def sample_names() -> list[str]:
    return sorted({*(path.stem for path in SAMPLES.glob("*.jsonl")), *RECIPES} - NOT_TO_TRAIN)


def card_path(sample: str) -> Path:
    """A sample's card: beside its data, a recipe's beside the code."""
    folder = Path(__file__).parent if sample in RECIPES else SAMPLES
    return folder / f"{sample}.md"


def front_matter(path: Path) -> dict[str, str]:
    """The `key: value` lines between the first two `---` lines; empty without a card."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    entries = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, colon, value = line.partition(":")
        if colon:
            entries[key.strip()] = value.strip().strip("\"'")
    return entries


def resolve(source: str, config: ReadConfig | None = None, limits: Limits = OWNER) -> Source:
    """Resolve and read: first as a path, then as a sample, then as a Hub id ("owner/name:subset:split", the last two
    may be left out). `config` says how files are read, `limits` how much they may be.

    Raises UserError if there is no such thing.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):  # for a name that is too long or has a NUL: no, where a Path's own methods may raise
        return _folder(path, config, limits)
    if os.path.isfile(path):
        return _files(path.stem, [(None, path)], config, limits)
    if source in RECIPES:
        return from_rows(source, recipe_rows(source))
    if source in sample_names():
        return _files(source, [(None, SAMPLES / f"{source}.jsonl")])
    if named := _hub_id(source):
        source_data = _folder(hub.fetch(*named), config, limits)
        source_data.name = named[0].split("/")[1]
        return source_data
    raise UserError(
        "There is no file, folder or sample {source!r}; the samples are: {names}.", source=source, names=sample_names()
    )


def fetch(source: str) -> None:
    """Download the source if it is a data set of the Hub that isn't here yet."""
    here = os.path.exists(os.path.expanduser(source)) or source in sample_names()
    if not here and (named := _hub_id(source)):
        hub.fetch(*named)


def _hub_id(source: str) -> tuple[str, str | None, str | None] | None:
    return None if suffix_of(source) in READABLE else hub.parse(source)


def from_rows(name: str, rows: Iterable[dict[str, str]]) -> Source:
    """Rows made in memory, as if they stood in a JSONL file."""
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    return Source(name, read_table(f"{name}.jsonl", data), hashlib.sha256(data).hexdigest())


def _folder(path: Path, config: ReadConfig | None, limits: Limits) -> Source:
    """Its files named train, validation or test (as `test.csv` or `test-00000-of-00002.parquet`), or its only one."""
    files = sorted(item for item in path.iterdir() if item.is_file() and suffix_of(item.name) in READABLE)
    files = [item for item in files if not item.name.startswith(".") and item.stem.lower() not in _NO_DATA]
    named = [(split, item) for item in files if (split := _split_of(item.name))]
    if named:
        return _files(path.resolve().name, [*named], config, limits)
    if len(files) == 1:
        return _files(path.resolve().name, [(None, files[0])], config, limits)
    if files:
        raise UserError(
            "The folder {path!r} has {n} data files; name them train, validation and test, or give one.",
            path=str(path),
            n=len(files),
        )
    raise UserError("No data file is in {path!r}; give a file in {names}.", path=str(path), names=list(READABLE))


_NO_DATA = {"readme", "license", "licence", "dataset_infos", "requirements"}


def _split_of(name: str) -> str | None:
    """train, validation or test, from how a file's name begins."""
    for mark in "-_.":
        name = name.split(mark, 1)[0]
    return split_name(name)


def _files(
    name: str, files: list[tuple[str | None, Path]], config: ReadConfig | None = None, limits: Limits = OWNER
) -> Source:
    """All the files' rows; the hash is over their bytes in the order of their names.

    Rows together may take no more than a file alone.
    """
    table, digest = Table(limits=limits), hashlib.sha256()
    whole = files[0][1].parent.name if len(files) > 1 else files[0][1].name
    try:
        if (size := sum(path.stat().st_size for _, path in files)) > limits.file_bytes:
            raise OverLimit(limits, "file_bytes", size)
        if len(files) > limits.members:
            raise OverLimit(limits, "members", len(files))
        _read_files(table, files, config, digest)
    except OverLimit as over:
        table = Table(limits=limits, faults=[over_limit(whole, over)])
    return Source(name, table, digest.hexdigest())


def _read_files(
    table: Table, files: list[tuple[str | None, Path]], config: ReadConfig | None, digest: hashlib._Hash
) -> None:
    """All the files' rows, into the table; their bytes go into the digest."""
    for split, path in files:
        try:
            inside, faults = archives.contents(path, table.limits)
        except OSError as error:
            raise UserError("{path!r} can't be read: {reason}.", path=str(path), reason=error.strerror) from None
        table.faults += faults
        named = [(split or _split_of(member), member, data) for member, data in inside]
        if len(inside) > 1 and not all(part for part, _, _ in named):
            members = [member for member, _ in inside[:5]]
            problem = Text("The ZIP holds {n} data files ({names}).", n=len(inside), names=members)
            table.faults.append(
                Fault(0, "", problem, Text("Name them train, validation and test, or pack one."), path.name)
            )
            continue
        for part, member, data in named:
            digest.update(data)
            table.extend(read_table(member, data, part if len(inside) > 1 else split, config, table.limits))
