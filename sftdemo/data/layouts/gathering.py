"""What a table spreads: labels over columns of 0 and 1, and the turns of a conversation over rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from sftdemo.data.files.table import Row
from sftdemo.data.layouts.roles import switch
from sftdemo.data.values.columns import Columns, key
from sftdemo.data.values.conversations import ROLES, SAID, SPEAKER
from sftdemo.data.values.targets import scalar
from sftdemo.errors import Text

MADE = LABEL, MESSAGES = "label", "messages"  # the columns that come of it
NO_LABEL = "none"
_FACTS = ("is_", "has_", "was_")
_WORDS = {"yes": True, "no": False}  # beside what any switch may hold
_THREADS = [
    f"{of}{end}"
    for end in ("_id", "id", "_number", "_no", "")
    for of in ("conversation", "dialogue", "dialog", "thread", "chat", "session", "ticket")
]
_ORDER = ("turn", "turn_id", "turn_number", "message_number", "message_index", "position", "step", "seq", "sequence")


def gathered(rows: list[Row], notes: list[Text], asked: bool = False) -> tuple[list[Row], bool] | None:
    """The rows with what was spread in one place, a note on it, and whether that is sure, as it is where somebody `asked` for it;
    None where nothing was spread. Added rows stay as they are."""
    read = [row for row in rows if row.edited != "add"]
    conversations = _conversations(read, notes)
    found = (conversations, True) if conversations else _labels(read, notes, asked)
    return found and (found[0] + [row for row in rows if row.edited == "add"], found[1])


def _labels(rows: list[Row], notes: list[Text], asked: bool) -> tuple[list[Row], bool] | None:
    """The rows with their labels in one column: a name where no row has two, else lists. Where that isn't sure, the columns that
    it is made of stay beside it.

    Columns that exclude each other in every row are one label. Others may be several labels or facts of a row (`is_reply`,
    `verified`): labels are three or more with nothing beside them but texts and ids.
    """
    columns = columns_of(rows)
    switches = [column for column in columns if _is_switch(rows, column)]
    each = [[name for name in switches if _is_on(row.values.get(name))] for row in rows]
    counts = set(map(len, each))
    varied = sum(count < len(rows) for count in Counter(name for labels in each for name in labels).values())
    if LABEL in columns or varied < 2 or (len(switches) == 2 and counts != {1}):
        return None
    sure = asked or counts == {1} or (varied > 2 and _are_alone(rows, columns, switches))
    names = list(map(repr, switches))
    if sure:
        notes.append(Text("Labels are the names of the columns that hold 1: {names}.", names=names))
        if without := sum(not labels for labels in each):
            notes.append(Text("{n} rows have none of the labels; theirs is 'none'.", n=without))
    else:
        notes.append(
            Text("If these columns are labels, choose 'label', which is made of their names: {names}.", names=names)
        )
    labelled = []
    for row, labels in zip(rows, each, strict=True):
        rest = {column: value for column, value in row.values.items() if not sure or column not in switches}
        own = labels or [NO_LABEL]
        labelled.append(row._replace(values={**rest, LABEL: own if max(counts) > 1 else own[0]}))
    return labelled, sure


def _are_alone(rows: list[Row], every: list[str], switches: list[str]) -> bool:
    """Whether all columns beside these are texts, number the rows, or say nothing, and none of these is named as a fact."""
    columns = Columns(rows)
    return not any(key(name).startswith(_FACTS) for name in switches) and all(
        columns.texts(column) or columns.numbering(column) or columns.constant(column)
        for column in every
        if column not in switches
    )


def _conversations(rows: list[Row], notes: list[Text]) -> list[Row] | None:
    """One row for each conversation, at the place of its first turn; what else the turns have stays aside."""
    by_key = {key(column): column for column in reversed(columns_of(rows))}
    thread, speaker, said, order = (
        next((by_key[name] for name in names if name in by_key), None) for names in (_THREADS, SPEAKER, SAID, _ORDER)
    )
    if not (thread and speaker and said):
        return None
    turns: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        turns[_cell(row.values.get(thread)) or ""].append(row)
    speakers = {_cell(row.values.get(speaker)) for row in rows}
    if "" in turns or len(turns) == len(rows) or not speakers <= set(ROLES):
        return None
    notes.append(Text("{n} conversations are the rows that have one {column!r}.", n=len(turns), column=thread))
    whole = []
    for part in turns.values():
        if order and all(isinstance(_number(row.values.get(order)), float) for row in part):
            part.sort(key=lambda row: _number(row.values[order]) or 0.0)
        messages = [{"role": row.values[speaker], "content": row.values.get(said)} for row in part]
        whole.append(part[0]._replace(values={thread: part[0].values[thread], MESSAGES: messages}))
    return whole


def columns_of(rows: list[Row]) -> list[str]:
    """The columns that any of the rows has, in the order in which they come."""
    return list(dict.fromkeys(column for row in rows for column in row.values))


def _cell(value: Any) -> str | None:
    return text.casefold() if (text := scalar(value)) is not None else None


def _is_on(value: Any) -> bool | None:
    """Whether a switch is on, as no empty one is; None for what is no switch."""
    cell = _cell(value)
    return False if cell is None else _WORDS.get(cell, switch(cell))


def _is_switch(rows: list[Row], column: str) -> bool:
    """Whether the column says yes or no in every row, and isn't empty in all."""
    values = [row.values.get(column) for row in rows]
    return all(_is_on(value) is not None for value in values) and any(_cell(value) is not None for value in values)


def _number(value: Any) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
