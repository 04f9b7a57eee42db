"""The edits that a page makes of its data: whose rows may be edited, where the history lies, and an edit as one of its lines."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

from sftdemo import files
from sftdemo.data import edits, mixture
from sftdemo.data.edits import value_at
from sftdemo.data.layouts.recognition import PAIRS
from sftdemo.data.types import Edit
from sftdemo.data.values.columns import at_path
from sftdemo.errors import Text, UserError
from sftdemo.ui.access import rights, uploads

MOST_EDITS = 5_000  # of one history
MOST_LEAVES = 60  # values of a row that can be edited
CHATS = ("messages", "sharegpt")
Record = Mapping[str, Any]
Path_ = list[str | int]
_writing = threading.Lock()


def may_edit(data: str, visitor: rights.Visitor) -> bool:
    """Whether this visitor may edit that data: visitors what they uploaded themselves, the owner any single source."""
    if not visitor.may("own_data") or not data:
        return False
    return uploads.is_own(data, visitor) or (visitor.owner and len(mixture.parse(data)) == 1)


def kept(data: str, visitor: rights.Visitor) -> str:
    """The history beside an upload, which lives as long as it does; "" where there is none yet."""
    if uploads.is_own(data, visitor) and (path := _beside(data)).is_file():
        return str(path)
    return ""


def _beside(upload: str) -> Path:
    return uploads.place_of(Path(upload)) / "edits.jsonl"


def history(path: str) -> list[Edit]:
    return edits.read(path) if path else []


def add(path: str, data: str, new: Sequence[Edit], visitor: rights.Visitor) -> str:
    """Add edits to the history, at "" to a new one; its path. Raises UserError for who may not, or for too many."""
    if not may_edit(data, visitor):
        raise UserError("These rows can't be edited here: upload a file, and edit its rows.")
    beside = _beside(data) if uploads.is_own(data, visitor) else None
    before = path or kept(data, visitor)
    if before and uploads.is_own(before, visitor):
        place = Path(before)
    else:  # one that isn't the page's, as the copy that a run keeps, is left as it is
        place = beside if beside and not beside.is_file() else uploads.folder_of(visitor) / secrets.token_hex(16) / "edits.jsonl"  # fmt: skip
    stamped: list[Edit] = [{**edit, "at": datetime.now(UTC).isoformat(timespec="seconds")} for edit in new]
    try:
        size = len(files.jsonl(stamped).encode())
    except UnicodeEncodeError:
        problem, remedy = (
            Text("The row holds half a character (a lone \\ud8…)."),
            Text("Write the character out, or remove it."),
        )
        raise UserError("{first} {rest}", first=problem, rest=remedy) from None
    with _writing:
        whole = [*history(before), *stamped]
        edits.effective(whole)
        if len(whole) > MOST_EDITS:
            raise UserError("There are {most} edits of this data already, which is the most; download the rows as edited, and go on with that file.", most=MOST_EDITS)  # fmt: skip
        if no_room := uploads.no_room(visitor, size):
            raise UserError(no_room)
        files.write_jsonl(place, whole)
    return str(place)


def undo(path: str, data: str, visitor: rights.Visitor) -> str:
    """Take the last edit back that still counts."""
    if not edits.effective(history(path)):
        raise UserError("There is no edit to take back.")
    return add(path, data, [{"action": "undo"}], visitor)


def take_row_back(path: str, data: str, number: int, visitor: rights.Visitor) -> str:
    """Take back the edit of that number, which left a row out; the edits after it still count."""
    entries = edits.effective(history(path))
    left_out = next((edit for at, edit in entries if at == number and edit["action"] == "leave_out"), None)
    if left_out is None:
        raise UserError("That row isn't left out any more; list the rows anew.")
    place = [left_out.get(key) for key in ("file", "line")]
    if any(edit["action"] == "add" and [edit.get("file"), edit.get("line")] == place for _, edit in entries):
        raise UserError("A row was added in its place since; leave that one out first.")
    return add(path, data, [{"action": "undo", "edit": number}], visitor)


def where(record: Record) -> dict[str, Any]:
    """Where a row stands, as its edits say it."""
    nth = {"nth": record["nth"]} if record["nth"] > 1 else {}
    return {"file": record["file"], "line": record["line"], **nth}


def change(record: Record, path: Path_, text: str) -> Edit | None:
    """The edit that puts a text in the place of a value; None where it says the same already."""
    try:
        old = value_at(record["values"], path)
    except LookupError:
        old = None
    new = typed(text, old)
    if edits.same(old, new) or text == as_text(old):
        return None
    row_hash = edits.row_hash(record["values"])
    return cast(
        Edit, {"action": "change", **where(record), "field": path, "old": old, "new": new, "row_hash": row_hash}
    )


def left_out(record: Record) -> Edit:
    return cast(Edit, {"action": "leave_out", **where(record), "old": record["values"]})


def as_text(value: Any) -> str:
    """A value of a row as a field shows it."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def typed(text: str, old: Any) -> Any:
    """What was typed, as a number, a list … where that stood there before."""
    if old is None or isinstance(old, str):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    numbers = isinstance(value, int | float) and isinstance(old, int | float) and isinstance(value, bool) == isinstance(old, bool)  # fmt: skip
    return value if numbers or type(value) is type(old) else text


def leaves(values: Any) -> list[tuple[Path_, Any]]:
    """The values of a row that can be edited, each with the way to it: what is in lists and objects, and not these."""
    return list(islice(_leaves(values, ()), MOST_LEAVES))


def _leaves(values: Any, before: tuple[str | int, ...]) -> Iterator[tuple[Path_, Any]]:
    if isinstance(values, dict | list) and values:
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _leaves(value, (*before, key))
    else:
        yield list(before), values


def column_path(values: Mapping[str, Any], column: str) -> Path_ | None:
    """The way to what a column, or a dotted path, names; None where the row hasn't it as it stands in the file."""
    if column in values:
        return [column]
    if "." not in column or at_path(dict(values), column) is None:
        return None
    path: Path_ = []
    inside: Any = values
    for step in column.split("."):
        path.append(int(step) if isinstance(inside, list) else step)
        inside = value_at(inside, path[-1:])
    return path


def label_path(record: Record, mapping: Mapping[str, str]) -> Path_ | None:
    """The way to a row's label; None where it has none that a menu could set."""
    if not record["values"] or "label" not in mapping:
        return None
    path = column_path(record["values"], mapping["label"])
    if path and not isinstance(value_at(record["values"], path), dict | list):
        return path
    return None


def pair_of(record: Record, summary: Mapping[str, Any]) -> tuple[str, str]:
    """A row's prompt and answer as the file has them, to be shown in a list."""
    values, mapping = record["values"], summary["mapping"]
    if not values:
        return "", ""
    if roles := PAIRS.get(summary["format"]):
        prompt, answer = (as_text(at_path(values, mapping.get(role, ""))) for role in roles)
        return prompt, answer
    turns = values.get(mapping.get("messages") or mapping.get("conversations") or "")
    if isinstance(turns, list) and len(turns) > 1 and all(isinstance(turn, dict) for turn in turns):
        prompt, answer = (as_text(turn.get("content", turn.get("value"))) for turn in turns[-2:])
        return prompt, answer
    return as_text(values), ""


def can_add(summary: Mapping[str, Any]) -> bool:
    """Whether a row of a prompt and an answer can be added to rows like these."""
    return summary["format"] in (*PAIRS, *CHATS) and bool(summary["mapping"])


def added(prompt: str, answer: str, records: Sequence[Record], summary: Mapping[str, Any], line: int) -> Edit:
    """The edit that adds a row, laid out as the others are. Raises UserError where a part is missing."""
    if not prompt.strip() or not answer.strip():
        raise UserError("A new row needs a prompt and an answer.")
    if not can_add(summary) or not records:
        raise UserError("A row can't be added to data of this layout; add it to the file.")
    like, mapping = next((record for record in records if record["values"]), records[0]), summary["mapping"]
    shape, values = like["values"] or {}, dict[str, Any]()
    if roles := PAIRS.get(summary["format"]):
        for role, text in zip(roles, (prompt, answer), strict=True):
            known = [at_path(record["values"], mapping[role]) for record in records if record["values"]]
            _put(values, column_path(shape, mapping[role]) or [mapping[role]], _as_there(text, known))
    else:
        column = mapping.get("messages") or mapping.get("conversations") or "messages"
        values[column] = _turns(shape.get(column), prompt, answer)
    if split := mapping.get("split"):
        _put(values, column_path(shape, split) or [split], "train")
    return cast(Edit, {"action": "add", "file": like["file"], "line": line, "values": values})


def _as_there(text: str, known: Sequence[Any]) -> Any:
    """The value that others have for the same text: the label 1 where "1" is typed."""
    return next((value for value in known if value is not None and as_text(value) == text), text)


def _put(values: dict[str, Any], path: Path_, new: Any) -> None:
    inside = values
    for step in path[:-1]:
        inside = inside.setdefault(str(step), {})
    inside[str(path[-1])] = new


def _turns(like: Any, prompt: str, answer: str) -> Any:
    """A question and its answer in the way in which another row writes its turns."""
    turns = json.loads(like) if isinstance(like, str) and like.lstrip().startswith("[") else like
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    names = ("human", "gpt") if "from" in first else ("user", "assistant")
    keys = ("from", "value") if "from" in first else ("role", "content")
    new = [dict(zip(keys, turn, strict=True)) for turn in zip(names, (prompt, answer), strict=True)]
    return json.dumps(new, ensure_ascii=False) if isinstance(like, str) else new
