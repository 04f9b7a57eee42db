"""Edits of rows: a history that is replayed over what was read, so that the file itself stays as it is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from sftdemo.data.files import class_names
from sftdemo.data.files.table import Row, Table
from sftdemo.data.limits import Limits, OverLimit, depth
from sftdemo.data.types import Edit
from sftdemo.errors import Fault, Text, UserError
from sftdemo.files import MOST_JSON, parsed, regular, write_jsonl
from sftdemo.schema.json_types import problem_in

NEEDED = {
    "change": ("line", "field", "old", "new"),
    "leave_out": ("line", "old"),
    "add": ("line", "values"),
    "undo": (),
}
OTHER_DATA = Text("Take the edit out, or give the data that it was made on.")
_SHOWN = 60

Key = tuple[str, int, int]
Classes = Mapping[str, Sequence[str]]  # of each column that holds the numbers of classes, their names
Entry = tuple[int, Edit]  # an edit and the line of the history that it stands in


def read(path: str) -> list[Edit]:
    """The history in a JSONL file, oldest first. Raises UserError where it can't be read or a line is no edit."""
    try:
        file = Path(path).expanduser()
        if (size := regular(file).st_size) > MOST_JSON:
            raise ValueError(Text("has more than {most:,} bytes", most=MOST_JSON))
        lines = file.read_text(encoding="utf-8-sig").split("\n") if size else []
    except FileNotFoundError:
        raise UserError("There is no file of edits {path!r}.", path=str(path)) from None
    except OSError as error:
        raise UserError("The edits {path!r} can't be read: {reason}.", path=str(path), reason=error.strerror) from None
    except ValueError as error:
        reason = error.args[0] if isinstance(error.args[0], Text) else Text("is no UTF-8 text")
        raise UserError("The file of edits {path!r} {reason}.", path=str(path), reason=reason) from None
    history = []
    for number, line in enumerate(lines, 1):
        try:
            history.append(_edit(line) if line.strip() else None)
        except ValueError as error:
            reason = error.args[0] if isinstance(error.args[0], Text) else Text(str(error))
            raise UserError(
                "Line {line} of the edits {path!r} is no edit: it {reason}.", line=number, path=str(path), reason=reason
            ) from None
    return [edit for edit in history if edit is not None]


def of_run(run: Path) -> Path:
    """Where a run's folder keeps the edits that its rows were made with."""
    return run / "data" / "edits.jsonl"


def keep(path: str, run: Path) -> str:
    """Copy a history into a run's folder, if it isn't that copy already; the copy's path."""
    kept = of_run(run)
    if not (kept.is_file() and kept.samefile(Path(path).expanduser())):
        write_jsonl(kept, read(path))
    return str(kept)


def _edit(line: str) -> Edit:
    """The edit in a line of the history; raises ValueError with what is wrong with it."""
    value = parsed(line)
    if problem := problem_in(value, Edit):
        raise ValueError(Text("is damaged: {problem}", problem=problem))
    needed = NEEDED[value["action"]]
    if missing := [key for key in needed if key not in value]:
        raise ValueError(Text("is damaged: {problem}", problem=Text("{key} is missing", key=missing[0])))
    for key in ("line", "nth", "edit"):
        if value.get(key, 1) < 1:
            raise ValueError(Text("has the {key} {value}, and they are counted from 1", key=key, value=value[key]))
    if "field" in value and not (path := path_of(value)):
        raise ValueError(Text("has an empty field; name a column, or give the way to a value inside it"))
    if "field" in value and not isinstance(path[0], str):
        raise ValueError(Text("has a field that begins with {value}, and not with a column's name", value=path[0]))
    return cast(Edit, value)


def effective(history: Sequence[Edit]) -> list[Entry]:
    """What counts of a history: without edits that were taken back. Raises UserError for an undo of nothing."""
    entries: dict[int, Edit] = {}
    latest: list[int] = []  # of the entries, the last of which may have been taken back by its number
    for number, edit in enumerate(history, 1):
        if edit["action"] != "undo":
            entries[number] = edit
            latest.append(number)
            continue
        while latest and latest[-1] not in entries:
            latest.pop()
        if entries.pop(edit.get("edit", latest[-1] if latest else 0), None) is None:
            raise UserError("Edit {line} takes an edit back, and before it none is left.", line=number)
    return list(entries.items())


def fingerprint(sha256: str, entries: Sequence[Entry]) -> str:
    """The hash of data whose bytes have this one, as edited; when and by which way an edit was made doesn't count."""
    if not entries:
        return sha256
    edits = [{key: value for key, value in edit.items() if key not in ("at", "row_hash")} for _, edit in entries]
    return hashlib.sha256(json.dumps([sha256, edits], sort_keys=True).encode()).hexdigest()


class Replay:
    """The edits of one reading; each belongs to one file of one of the sources, and what fits nowhere is a fault."""

    def __init__(self, path: str | None) -> None:
        self.file = Path(path).name if path else ""
        self.entries = effective(read(path)) if path else []
        self.faults: list[Fault] = []
        self._sources: Counter[int] = Counter()  # by line of the history, in how many sources it has a file

    def apply(self, table: Table, limits: Limits) -> list[Row]:
        """The rows of a source with its edits, those left out among them (`table.present`); a line that couldn't be read and is
        left out is no fault any more."""
        files = list(dict.fromkeys([*(row.file for row in table.rows), *(fault.file for fault in table.faults)]))
        rows: dict[Key, Row | None] = {}
        for row in table.rows:
            key = (row.file, row.line, row.nth)
            rows[key] = None if key in rows else row  # of two files of one name nobody knows which is meant
        twice = [row for row in table.rows if rows[row.file, row.line, row.nth] is None]
        for number, edit in self.entries:
            named = edit.get("file") or (files[0] if len(files) == 1 else "")
            if named in files:
                self._sources[number] += 1
                key = (named, edit.get("line", 0), edit.get("nth", 1))
                classes = table.classes.get(named, {})
                problem = _unknown_class(edit, classes) or self._apply(
                    _by_name(edit, classes), key, rows, table, limits
                )
                if problem:
                    self._fault(number, edit, problem)
        return [row for row in rows.values() if row is not None] + twice

    def _apply(self, edit: Edit, key: Key, rows: dict[Key, Row | None], table: Table, limits: Limits) -> Text | None:
        """Change the rows as one edit says; why it can't be done, or None."""
        file, line, _ = key
        if edit["action"] == "add":
            if (key in rows and not _left_out(rows[key])) or any(
                (fault.file, fault.line) == (file, line) for fault in table.faults
            ):
                return Text("The edit adds a row as line {line} of {file}, and one stands there.", line=line, file=file)
            if depth(edit["values"], limits.depth) >= limits.depth:
                return OverLimit(limits, "depth", 1 + depth(edit["values"], 10 * limits.depth)).problem
            split = next((row.split for row in rows.values() if row and row.file == file), table.split)
            rows.pop(key, None)
            rows[key] = Row(file, line, dict(edit["values"]), split, key[2], "add")
            return None
        if edit["action"] == "leave_out" and edit["old"] is None and key not in rows:
            unreadable = [fault for fault in table.faults if (fault.file, fault.line) == (file, line)]
            for fault in unreadable:
                table.faults.remove(fault)
            return None if unreadable and line else _no_row(file, line)
        if (row := rows.get(key)) is None or _left_out(row):
            return _no_row(file, line)
        if edit["action"] == "leave_out":
            if not same(row.values, edit["old"]):
                return Text("The edit leaves out line {line} of {file}, and another row stands there now.", line=line, file=file)  # fmt: skip
            if row.edited == "add":
                del rows[key]
            else:
                rows[key] = row._replace(edited="leave_out")
            return None
        if depth(edit["new"], limits.depth) >= limits.depth:
            return OverLimit(limits, "depth", 1 + depth(edit["new"], 10 * limits.depth)).problem
        return self._change(edit, key, row, rows, table.classes.get(file, {}))

    def _change(self, edit: Edit, key: Key, row: Row, rows: dict[Key, Row | None], classes: Classes) -> Text | None:
        path, field = path_of(edit), field_name(edit)
        try:
            current = value_at(row.values, path)
        except LookupError:
            if edit["old"] is not None or len(path) > 1:
                return Text(
                    "The edit is of {field!r}, which line {line} of {file} doesn't have.",
                    field=field,
                    line=row.line,
                    file=row.file,
                )
            current = None  # a row may lack a column that others have
        if not same(current, edit["old"]):
            return Text(
                "The edit is of {field!r} in line {line} of {file}, where {current} stands now and not {old}.",
                field=field,
                line=row.line,
                file=row.file,
                current=_shown(current),
                old=_shown(edit["old"]),
            )
        # A label alone is that of many rows.
        if "row_hash" in edit and edit["row_hash"] not in _hashes(row.values, classes):
            template = "The edit is of {field!r} in line {line} of {file}, where another row stands now."
            return Text(template, field=field, line=row.line, file=row.file)
        changed = cast(dict[str, Any], with_value(row.values, path, edit["new"]))
        rows[key] = row._replace(values=changed, edited=row.edited or "change")
        return None

    def finish(self) -> tuple[list[Fault], list[Text]]:
        """All that didn't fit, once every source was edited, and a note on what was done."""
        for number, edit in self.entries:
            if self._sources[number] != 1:
                file = edit.get("file")
                if self._sources[number] or not file:
                    problem = Text("The edit doesn't say which of the files it is of.")
                else:
                    problem = Text("The edit is of {file!r}, which isn't among the files.", file=file)
                self._fault(number, edit, problem)
        done = Counter(edit["action"] for _, edit in self.entries)
        note = Text(
            "Edits of rows: {changed} values changed, {left_out} rows left out, {added} rows added.",
            changed=done["change"],
            left_out=done["leave_out"],
            added=done["add"],
        )
        return self.faults, [note] if self.entries and not self.faults else []

    def _fault(self, number: int, edit: Edit, problem: Text) -> None:
        self.faults.append(Fault(number, field_name(edit), problem, OTHER_DATA, self.file, whole=True))


def _by_name(edit: Edit, classes: Classes) -> Edit:
    """The edit with the names of classes where it has their numbers, as edits do that were saved when columns of classes were
    read as numbers."""
    changed: dict[str, Any] = {}
    if "field" in edit and (names := classes.get(str(path_of(edit)[0]))):
        changed = {key: class_names.named(edit[key], names) for key in ("old", "new")}  # type: ignore[literal-required]
        if class_names.unknown_number(edit["old"], names) is not None:
            changed["old"] = edit["old"]  # stays to be told: it stands nowhere
    for key in ("old", "values"):
        if key not in changed and isinstance(values := edit.get(key), dict):
            changed[key] = class_names.named_columns(values, classes)
    return cast(Edit, {**edit, **changed})


def _unknown_class(edit: Edit, classes: Classes) -> Text | None:
    """Why a number that the edit puts in a column of classes can't stand there, or None."""
    new = {str(path_of(edit)[0]): edit["new"]} if edit["action"] == "change" else edit.get("values", {})
    for column, value in new.items():
        if column in classes and (number := class_names.unknown_number(value, classes[column])) is not None:
            return Text(
                "The edit puts class {number} in {field!r}, whose classes are 0 to {most}.",
                number=number,
                field=column,
                most=len(classes[column]) - 1,
            )
    return None


def _hashes(values: dict[str, Any], classes: Classes) -> set[str]:
    """What tells a row from others: its hash, and those that it had when columns of classes were read as numbers."""
    rows = [values, *(class_names.numbered_columns(values, classes, hidden) for hidden in (None, -1) if classes)]
    return {row_hash(row) for row in rows}


def _left_out(row: Row | None) -> bool:
    return row is not None and row.edited == "leave_out"


def _no_row(file: str, line: int) -> Text:
    return Text("The edit is of line {line} of {file}, where no row begins.", line=line, file=file)


def path_of(edit: Edit) -> list[str | int]:
    """The way to the edited value: keys of objects, places in lists."""
    field = edit["field"]
    return [field] if isinstance(field, str) else field


def field_name(edit: Edit) -> str:
    """The edited field as faults name it, "messages.1.content"; "" for a whole row."""
    return ".".join(map(str, path_of(edit))) if "field" in edit else ""


def value_at(value: Any, path: Sequence[str | int]) -> Any:
    """What stands at the end of a path; raises LookupError where it leads nowhere."""
    for step in path:
        known = isinstance(value, dict) if isinstance(step, str) else isinstance(value, list) and step >= 0
        if not known:
            raise LookupError(step)
        inside: Any = value
        value = inside[step]
    return value


def with_value(value: Any, path: Sequence[str | int], new: Any) -> Any:
    """A copy of the value with another at the end of the path."""
    if not path:
        return new
    inside: Any = dict(value) if isinstance(value, dict) else list(value)
    first = path[0]
    inside[first] = with_value(inside[first], path[1:], new) if len(path) > 1 else new
    return inside


def plain(value: Any) -> Any:
    """A value of a row as JSON has it: what JSON doesn't know (a date of Parquet) is its text."""
    return json.loads(json.dumps(value, default=str))


def row_hash(values: Any) -> str:
    """16 hex digits that tell a row's values from those of others."""
    return hashlib.sha256(json.dumps(plain(values), sort_keys=True).encode()).hexdigest()[:16]


def same(value: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where true isn't 1."""
    return json.dumps(value, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
