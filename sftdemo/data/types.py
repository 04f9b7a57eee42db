"""The values that every part of sftdemo passes around: a message, an example, a data set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated as Doc
from typing import Any, Literal, NotRequired, TypedDict

from sftdemo.errors import Fault, Text
from sftdemo.schema.json_types import ALWAYS

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": Text("train"), "validation": Text("validation"), "test": Text("test")}


class Edit(TypedDict):
    """A line of `data/edits.jsonl`: one edit of the rows as they were read, in the order in which they were made."""

    action: Doc[
        Literal["change", "leave_out", "add", "undo"],
        "`change` a value, `leave_out` or `add` a row, or `undo`: take back the last edit before it that still counts",
        ALWAYS,
    ]
    file: NotRequired[Doc[str, "the file's name; where the data is one file it may be left out"]]
    line: NotRequired[Doc[int, "the row's line, as faults name it; an added row gets one after the last"]]
    nth: NotRequired[Doc[int, "which of the rows that begin on that line, from 1; where it isn't the first"]]
    field: NotRequired[
        Doc[str | list[str | int], 'the column, or the way to a value inside it, as `["messages", 1, "content"]`']
    ]
    old: NotRequired[
        Doc[Any, "what stood there, the whole row where it is left out; with anything else there it is a fault"]
    ]
    new: NotRequired[Doc[Any, "what stands there now"]]
    row_hash: NotRequired[
        Doc[str, "of a changed value's whole row as it was; the page writes it, and a row with another hash is a fault"]
    ]
    values: NotRequired[Doc[dict[str, Any], "the columns of an added row"]]
    edit: NotRequired[Doc[int, "of an `undo`: the line here of the edit that it takes back; without it the last one"]]
    at: NotRequired[Doc[str, "when, in UTC"]]


class Message(TypedDict):
    """One turn. Only assistant turns are learned, and of those only the ones whose `weight` isn't 0.

    `content` may be "" where an assistant turn only calls tools. `reasoning_content` are an assistant's thoughts, without
    tags. `tool_calls` are as OpenAI writes them, `arguments` an object wherever they parse:
    [{"type": "function", "id"?: "…", "function": {"name": "…", "arguments": {…}}}].
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    weight: NotRequired[float]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


class Example(TypedDict):
    """One row. The last message is the assistant's and is learned. With a `label`, the answer equals it; with
    `labels`, several that apply, it is these with commas.

    `tools` are the functions the assistant may call, as OpenAI function schemas.

    `weight` multiplies the row's loss. `meta` has `line`, and where they are known `file`, `group`, `nth` (of
    several rows on one line), `edited` ("change" or "add", where an edit made the row), and, in data mixed of several
    sources, `source` and `task`.
    """

    messages: list[Message]
    label: NotRequired[str]
    labels: NotRequired[list[str]]
    references: NotRequired[list[str]]
    tools: NotRequired[list[dict[str, Any]]]
    meta: NotRequired[dict[str, Any]]
    weight: NotRequired[float]


class Meta(dict[str, Any]):
    """An example's `meta`, and apart from it, as a run's saved row brings its own, where the row stands in the file read."""

    def __init__(self, values: Mapping[str, Any], place: tuple[str, int, int]) -> None:
        super().__init__(values)
        self.place = place


def place_of(example: Example, file: str) -> tuple[str, int, int]:
    """(file, line, nth) of the row that an example was read from; `file` is the name of one that doesn't say it."""
    meta = example.get("meta", {})
    if isinstance(meta, Meta):
        return meta.place
    return meta.get("file", file), meta.get("line", 0), meta.get("nth", 1)


class LeftOut(Exception):
    """A row that its own marks keep from being learned (rejected, weight 0, …); `why` is the end of the note that counts it."""

    def __init__(self, why: Text) -> None:
        super().__init__(why)
        self.why = why


@dataclass
class Tally:
    """How many rows or turns something was done to, by the note's template with {n}; and how many rows were left out, by why."""

    counts: Counter[Text] = field(default_factory=Counter)
    left_out: Counter[Text] = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)  # what stands beside the rows of a file that is one object

    def notes(self) -> list[Text]:
        beside = Text("Beside its rows the file has {names}, which was not used.", names=self.unused)
        return [
            *(Text(template, n=count) for template, count in sorted(self.counts.items())),
            *([beside] if self.unused else []),
            *(Text("{n} rows were left out: {why}.", n=count, why=why) for why, count in sorted(self.left_out.items())),
        ]


def turn_text(message: Mapping[str, Any]) -> str:
    """All the text of a turn: thoughts, content and calls; of a plain turn its content."""
    calls = message.get("tool_calls")
    parts = [message.get("reasoning_content"), message["content"], calls and json.dumps(calls, ensure_ascii=False)]
    return "\n".join(part for part in parts if part)


@dataclass
class Step:
    """One step of cleaning: how many rows it changed or took out, and up to three of them.

    `kinds` counts what was found where a step finds several things ({"EMAIL": 3}). An example has `line`, `before`,
    `after` (None: the row was taken out) and `like`, the line of the row it repeats, or None.
    """

    step: str
    count: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Preview:
    """The first rows as they stand in the file: (line, cells) for `columns`; how many labels each column of labels has; and
    where no layout was found, with objects opened, the columns that are likely prompt and answer."""

    columns: list[str]
    rows: list[tuple[int, list[str]]]
    labels: dict[str, int]
    guess: tuple[str, str] | None = None


@dataclass
class Dataset:
    """What was read: examples by split, and all that is to be said about them.

    `faults` block training, `warnings` don't; `dropped` are the faults of rows left out, `fixed` those repaired (their
    `remedy` says how). `sources` describes each part of mixed data; `balance` what was done about unequal labels.
    """

    source: str
    name: str
    format: str = "unknown"
    task: str = "generation"
    splits: dict[str, list[Example]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    dropped: list[Fault] = field(default_factory=list)
    fixed: list[Fault] = field(default_factory=list)
    cleaning: list[Step] = field(default_factory=list)
    balance: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    repairable: int = 0  # warnings and faults that on_fault fix would mend
    duplicates: int = 0
    near_duplicates: int = 0  # the duplicates among them
    leaked: int = 0
    sha256: str = ""
    mapping: dict[str, str] = field(default_factory=dict)
    suggested: dict[str, str] = field(default_factory=dict)  # roles that values suggest where no layout was found
    notes: list[Text] = field(default_factory=list)
    # The template the user turns were written with; read other data with it and both are asked the same way.
    instruction: str = ""
    preview: Preview | None = None
    file: str = ""  # where rows come from whose meta names none
    unedited: Dataset | None = (
        None  # the same without edits, until it is split: rows that weren't edited stay in their split
    )

    @property
    def examples(self) -> int:
        return sum(map(len, self.splits.values()))


def account(dataset: Dataset) -> dict[str, Any]:
    """All that was done to the data on its way, as JSON: for the run's config and for `check`."""
    return {
        "sources": dataset.sources,
        "dropped": [fault.to_json() for fault in dataset.dropped],
        "fixed": [fault.to_json() for fault in dataset.fixed],
        "cleaning": [asdict(step) for step in dataset.cleaning],
        "balance": dataset.balance,
        "notes": dataset.notes,
    }
