"""Which columns a row needs, which of the known layouts a file has, and which column plays which role."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sftdemo.config import ReadConfig
from sftdemo.data.rows import Row
from sftdemo.errors import Fault, UsageError, UserError


@dataclass(frozen=True)
class Layout:
    """A way to lay out a row: its roles, each with the column names it goes by, the likeliest first."""

    name: str
    task: str
    roles: dict[str, tuple[str, ...]]
    answer: str
    optional: dict[str, tuple[str, ...]] = field(default_factory=dict)


LAYOUTS = (
    Layout("messages", "chat", {"messages": ("messages",)}, "messages"),
    Layout("sharegpt", "chat", {"conversations": ("conversations", "conversation")}, "conversations"),
    Layout(
        "instruction",
        "generation",
        {"instruction": ("instruction", "指令"), "output": ("output", "response", "输出")},
        "output",
        {"input": ("input", "context", "输入"), "history": ("history",)},
    ),
    Layout(
        "prompt_completion",
        "generation",
        {
            "prompt": ("prompt", "question", "query", "input", "问题"),
            "completion": ("completion", "completions", "answer", "answers", "response", "output", "答案", "回答"),
        },
        "completion",
    ),
    Layout(
        "text_label",
        "classification",
        {
            "text": ("text", "sentence", "review", "tweet", "utterance", "content", "文本"),
            "label": ("label", "sentiment", "category", "intent", "class", "topic", "标签", "类别"),
        },
        "label",
    ),
    Layout(
        "source_target",
        "generation",
        {"source": ("source", "src", "原文"), "target": ("target", "tgt", "译文")},
        "target",
    ),
    Layout(
        "preference",
        "generation",
        {"chosen": ("chosen",), "rejected": ("rejected",)},
        "chosen",
        {"prompt": ("prompt", "question", "instruction", "input")},
    ),
)
# Columns that any layout may have.
COMMON = {
    "split": ("split",),
    "group": ("group",),
    "references": ("references",),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
}


@dataclass(frozen=True)
class Mapping:
    """The layout found, and the column of each role."""

    layout: Layout
    columns: dict[str, str]


def parse_columns(columns: str | None) -> dict[str, str]:
    """{"text": "tweet", "label": "mood"} from "text=tweet,label=mood"; a pair with a comma in it stands in quotes."""
    named: dict[str, str] = {}
    known = [*dict.fromkeys(role for layout in LAYOUTS for role in (*layout.roles, *layout.optional)), *COMMON]
    for part in next(csv.reader([columns or ""], skipinitialspace=True), []):
        if not part.strip():
            continue
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise UsageError(f"columns has {part.strip()!r}; write role=column pairs, as text=tweet,label=mood.")
        if role not in known:
            raise UsageError(f"columns names the role {role!r}; the roles are: {', '.join(known)}.")
        named[role] = column
    return named


def write_columns(named: dict[str, str]) -> str:
    """What parse_columns reads."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{role}={column}" for role, column in named.items())
    return line.getvalue()


def find(rows: list[Row], config: ReadConfig) -> tuple[Mapping | None, list[Fault]]:
    """The layout of most rows, and a fault for each row that has another; without one, a fault for the whole.

    Raises UserError when `config.columns` names a column that no row has.
    """
    named = parse_columns(config.columns)
    shapes = Counter(tuple(row.values) for row in rows)
    every = list(dict.fromkeys(column for shape in shapes for column in shape))
    if unknown := [column for column in named.values() if column not in every]:
        raise UserError(f"columns names {_names(unknown)}, which no row has; there are: {_names(every)}.")
    fits = {shape: _match(shape, config.format, named) for shape in shapes}
    votes: Counter[str] = Counter()
    for shape, mapping in fits.items():
        if mapping:
            votes[mapping.layout.name] += shapes[shape]
    if not votes:
        return None, [_no_layout(rows[0].file, every, config.format)]
    winner = votes.most_common(1)[0][0]
    likeliest = max(
        (shape for shape, mapping in fits.items() if mapping and mapping.layout.name == winner),
        key=lambda shape: shapes[shape],
    )
    mapping = fits[likeliest]
    assert mapping is not None
    # A column that only some rows have still plays its role for them.
    extras = {
        role: column
        for role, aliases in {**mapping.layout.optional, **COMMON}.items()
        if (column := _column(role, aliases, every, named))
    }
    mapping = Mapping(mapping.layout, {**mapping.columns, **extras})
    return mapping, _deviations(rows, mapping, fits)


def _names(columns: Iterable[str], most: int = 20) -> str:
    names = [repr(column) for column in columns]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _column(role: str, aliases: Iterable[str], columns: Iterable[str], named: dict[str, str]) -> str | None:
    if role in named:
        return named[role] if named[role] in columns else None
    taken = set(named.values())
    by_name = {column.strip().casefold(): column for column in columns if column not in taken}
    return next((by_name[alias] for alias in aliases if alias in by_name), None)


def _match(shape: tuple[str, ...], wanted: str, named: dict[str, str]) -> Mapping | None:
    """The first layout whose needs these columns meet, with every named role in it."""
    for layout in LAYOUTS:
        if wanted not in ("auto", layout.name) or set(named) - {*layout.roles, *layout.optional, *COMMON}:
            continue
        columns = {role: _column(role, aliases, shape, named) for role, aliases in layout.roles.items()}
        found = {role: column for role, column in columns.items() if column is not None}
        if len(found) == len(set(found.values())) == len(layout.roles):
            return Mapping(layout, found)
    return None


def _no_layout(file: str, columns: list[str], wanted: str) -> Fault:
    needs = [f"{layout.name} ({', '.join(layout.roles)})" for layout in LAYOUTS if wanted in ("auto", layout.name)]
    first = "No known layout has these columns" if wanted == "auto" else f"The layout {wanted} needs other columns"
    return Fault(
        0,
        "",
        f"{first}: {_names(columns)}.",
        f"Name them with columns, as text=tweet,label=mood; the layouts are: {', '.join(needs)}."
        if wanted == "auto"
        else f"Name them with columns, as text=tweet,label=mood; it is: {needs[0]}.",
        file,
    )


def _deviations(rows: list[Row], mapping: Mapping, fits: dict[tuple[str, ...], Mapping | None]) -> list[Fault]:
    """One fault for each row that lacks a column it needs."""
    needed = {mapping.columns[role] for role in mapping.layout.roles}
    faults = []
    odd = {shape for shape in fits if needed - set(shape)}
    for row in rows if odd else ():
        shape = tuple(row.values)
        if shape not in odd:
            continue
        other = fits[shape]
        if other and other.layout != mapping.layout:
            problem = f"The row is laid out as {other.layout.name}, most rows as {mapping.layout.name}."
            faults.append(Fault(row.line, "", problem, "Give every row one layout.", row.file))
        else:
            problem = f"The row has no such field; it has: {_names(shape)}."
            faults += [
                Fault(row.line, column, problem, "Add it, or remove the row.", row.file)
                for column in sorted(needed - set(shape))
            ]
    return faults
