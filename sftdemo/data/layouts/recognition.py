"""Which columns a row needs, which of the known layouts a file has, and which column plays which role."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping as Names
from dataclasses import dataclass, field

from sftdemo.config.read import ReadConfig
from sftdemo.data.files.table import Row
from sftdemo.data.layouts import roles
from sftdemo.data.text.languages import language
from sftdemo.data.values.columns import Columns, flag, guess, key
from sftdemo.data.values.conversations import SPEAKER
from sftdemo.errors import Fault, Text, UsageError, UserError


@dataclass(frozen=True)
class Layout:
    """A way to lay out a row: its roles, each with the column names it goes by, the likeliest first.

    `loose` are further names, tried where no layout fits by the others; a name's plural is meant, too.
    """

    name: str
    task: str
    roles: dict[str, tuple[str, ...]]
    answer: str
    optional: dict[str, tuple[str, ...]] = field(default_factory=dict)
    loose: dict[str, tuple[str, ...]] = field(default_factory=dict)


LAYOUTS = (
    Layout(
        "preference",
        "generation",
        {"chosen": roles.CHOSEN, "rejected": roles.REJECTED},
        "chosen",
        {
            "prompt": ("prompt", "question", "instruction", "query", "input", "conversation", "message"),
            "input": ("input", "context"),
        },
    ),
    Layout("messages", "chat", {"messages": ("messages",)}, "messages", {"desirable": roles.DESIRABLE}),
    Layout(
        "sharegpt",
        "chat",
        {"conversations": ("conversations", "conversation")},
        "conversations",
        {"desirable": roles.DESIRABLE},
    ),
    Layout(
        "instruction",
        "generation",
        {"instruction": ("instruction", "指令"), "output": roles.ANSWER},
        "output",
        {
            "input": ("input", "question", "query", "prompt", "输入"),
            "context": roles.CONTEXT,
            "title": roles.TITLE,
            "options": ("options",),
            "reasoning": roles.REASONING,
            "desirable": roles.DESIRABLE,
        },
        {"instruction": ("task",), "output": ("label", "target")},
    ),
    Layout(
        "prompt_completion",
        "generation",
        {"prompt": roles.PROMPT, "completion": roles.ANSWER},
        "completion",
        {
            "context": roles.CONTEXT,
            "title": roles.TITLE,
            "options": ("options",),
            "reasoning": roles.REASONING,
            "desirable": roles.DESIRABLE,
        },
        {"prompt": roles.LOOSE_PROMPT, "completion": roles.LOOSE_ANSWER},
    ),
    Layout(
        "summary",
        "generation",
        {"document": roles.DOCUMENT, "summary": ("summary", "highlights", "abstract", "tldr", "摘要")},
        "summary",
        {"title": roles.TITLE},
        {"document": ("text", "content", "body", "input", "source")},
    ),
    Layout(
        "text_label",
        "classification",
        {"text": roles.TEXT, "label": roles.LABEL},
        "label",
        {"pair": roles.PAIR, "title": (*roles.TITLE, "headline", "subject")},
        {"text": ("v2", *roles.DOCUMENT), "label": ("v1", *roles.LOOSE_LABEL)},
    ),
    Layout(
        "source_target",
        "generation",
        {"source": ("source", "src", "source_text", "原文"), "target": ("target", "tgt", "target_text", "译文")},
        "target",
    ),
    Layout("extraction", "generation", {"text": ("text",), "entities": ()}, "entities"),
)
# Layouts of one question and one answer, each in a column of its own; the first role is the question.
PAIRS = {
    layout.name: (next(role for role in layout.roles if role != layout.answer), layout.answer)
    for layout in LAYOUTS
    if layout.name in ("text_label", "prompt_completion", "instruction", "source_target", "summary")
}
# Columns that any layout may have.
COMMON = {
    "split": ("split",),
    "group": ("group",),
    "references": ("references",),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history", "历史"),
    "tools": ("tools", "functions"),
}


@dataclass(frozen=True)
class Mapping:
    """The layout found, and the column of each role."""

    layout: Layout
    columns: dict[str, str]


@dataclass(frozen=True)
class Search:
    """What is known on the way to a layout: the columns, the roles that the user named, and those the values tell."""

    columns: Columns
    every: list[str]
    shapes: Counter[tuple[str, ...]]
    named: dict[str, str]
    wanted: str

    @classmethod
    def of(cls, rows: list[Row], config: ReadConfig) -> Search:
        """Raises UserError when `config.columns` names a column that no row has."""
        named = parse_columns(config.columns)
        shapes = Counter(tuple(row.values) for row in rows)
        every = list(dict.fromkeys(column for shape in shapes for column in shape))
        if unknown := [column for column in named.values() if column not in set(every)]:
            for outer in unknown:  # it was opened for what is named inside of it
                if inner := next((name for name in named.values() if name.startswith(f"{outer}.")), ""):
                    raise UserError(
                        "{inner!r} is a part of {outer!r}; choose columns beside each other.", inner=inner, outer=outer
                    )
            raise UserError(
                "columns names {names}, which no row has; there are: {known}.",
                names=_names(unknown),
                known=_names(every),
            )
        return cls(Columns(rows), every, shapes, named, config.format)


def parse_columns(columns: str | None) -> dict[str, str]:
    """{"text": "tweet", "label": "mood"} from "text=tweet,label=mood"; a pair with a comma in it stands in quotes."""
    named: dict[str, str] = {}
    known = [*dict.fromkeys(role for layout in LAYOUTS for role in (*layout.roles, *layout.optional)), *COMMON]
    for part in next(csv.reader([columns or ""], skipinitialspace=True), []):
        if not part.strip():
            continue
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise UsageError(
                "columns has {part!r}; write role=column pairs, as text=tweet,label=mood.", part=part.strip()
            )
        if role not in known:
            raise UsageError("columns names the role {role!r}; the roles are: {names}.", role=role, names=list(known))
        named[role] = column
    return named


def write_columns(named: dict[str, str]) -> str:
    """What parse_columns reads."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{role}={column}" for role, column in named.items())
    return line.getvalue()


def recognize(search: Search, loose: bool = False) -> tuple[Mapping, list[Fault]] | None:
    """The layout of most rows, and a fault for each row that has another; None where no layout fits."""
    named = search.named or (
        roles.by_values(search.columns, search.every, loose) if search.wanted in _BY_VALUES else {}
    )
    fits = {shape: _match(shape, search, named, loose) for shape in search.shapes}
    votes: Counter[str] = Counter()
    for shape, mapping in fits.items():
        if mapping:
            votes[mapping.layout.name] += search.shapes[shape]
    if not votes:
        return None
    winner = votes.most_common(1)[0][0]
    likeliest = max(
        (shape for shape, mapping in fits.items() if mapping and mapping.layout.name == winner),
        key=lambda shape: search.shapes[shape],
    )
    mapping = fits[likeliest]
    assert mapping is not None
    if mapping.layout.name == "text_label" and not search.named and search.columns.sentences(mapping.columns["label"]):
        columns = {"prompt": mapping.columns["text"], "completion": mapping.columns["label"]}
        mapping = Mapping(next(layout for layout in LAYOUTS if layout.name == "prompt_completion"), columns)
    mapping = Mapping(mapping.layout, {**mapping.columns, **_extras(mapping, search, named)})
    asked = search.named or search.wanted != "auto"
    if mapping.layout.name == "text_label" and not asked and _is_doubtful(mapping, search):
        return None
    return mapping, _deviations(search.columns.rows, mapping, fits)


_BY_VALUES = ("auto", "extraction", "source_target", "messages")


def _is_doubtful(mapping: Mapping, search: Search) -> bool:
    """Whether another column may be the text or the label: a far longer text, or labels where nearly every row has another."""
    columns, used = search.columns, set(mapping.columns.values())
    others = [column for column in search.every if column not in used and not columns.numbering(column)]
    text, label = mapping.columns["text"], mapping.columns["label"]
    if key(text) in roles.SHORT_TEXTS:
        longest = 2 * columns.length(text)
        if any(columns.texts(column) and columns.length(column) > longest for column in others):
            return True
    return columns.varied(label) and any(map(columns.labels, others))


def _extras(mapping: Mapping, search: Search, named: Names[str, str]) -> dict[str, str]:
    """The columns of optional roles; one that only some rows have still plays its role for them."""
    by_key = {key(column): column for column in reversed(search.every)}
    taken = {*mapping.columns.values(), *search.named.values()}
    column_of: dict[str, str] = {}
    for role, aliases in {**mapping.layout.optional, **COMMON}.items():
        if role in search.named:
            column_of[role] = search.named[role]
            continue
        column = _column(role, aliases, by_key, named)
        if column is None or column in taken:
            continue
        if role != "desirable" or roles.are_switches(column, search.columns.values(column)):
            column_of[role] = column
            taken.add(column)
    if "split" not in search.named:
        split = roles.split_column(search.columns, by_key, taken - {column_of.get("split", "")})
        column_of = {role: column for role, column in column_of.items() if role != "split"} | (
            {"split": split} if split else {}
        )
    return column_of


def _names(columns: Iterable[str], most: int = 20) -> list[str]:
    names = [repr(column) for column in columns]
    return names[:most] + (["…"] if len(names) > most else [])


def _column(role: str, aliases: Iterable[str], by_key: Names[str, str], named: Names[str, str]) -> str | None:
    """The column that plays a role; `by_key` are those there by their keys."""
    if role in named:
        return named[role]
    taken = set(named.values())
    candidates = (by_key.get(alias) or by_key.get(f"{alias}s") for alias in aliases)
    return next((column for column in candidates if column is not None and column not in taken), None)


def _match(shape: tuple[str, ...], search: Search, named: Names[str, str], loose: bool) -> Mapping | None:
    """The first layout whose needs these columns meet, with every named role in it."""
    present, by_key = set(shape), {key(column): column for column in reversed(shape)}
    for layout in LAYOUTS:
        known = {*layout.roles, *layout.optional, *COMMON}
        if search.wanted not in ("auto", layout.name) or set(named) - known:
            continue
        columns = {
            role: _column(role, (*aliases, *(layout.loose.get(role, ()) if loose else ())), by_key, named)
            for role, aliases in layout.roles.items()
        }
        column_of = {role: column for role, column in columns.items() if column in present}
        if len(column_of) != len(set(column_of.values())) or len(column_of) < len(layout.roles):
            continue
        question, _ = PAIRS.get(layout.name, ("", ""))
        if not named and search.columns.opened(column_of.get(question) or ""):
            continue
        if loose and not named and _unlikely(layout, column_of, search.columns, "options" in present):
            continue
        return Mapping(layout, {role: str(column) for role, column in column_of.items()})
    return None


def _unlikely(layout: Layout, column_of: Names[str, str | None], columns: Columns, optioned: bool) -> bool:
    """Whether the values speak against loose names: a label that is none, or an answer that is one and no option's letter."""
    label, prompt, answer = (column_of.get(role) or "" for role in ("label", "prompt", "completion"))
    if label:
        return key(label) in (*layout.loose["label"], "v1") and not columns.labels(label)
    doubtful = key(prompt) in roles.LOOSE_PROMPT and key(answer) in roles.LOOSE_LABEL and not optioned
    return layout.name == "prompt_completion" and doubtful and columns.few(answer)


def suggestion(search: Search, flat: Search) -> dict[str, str]:
    """{role: column} that the values suggest where no layout was found; `flat` has objects opened."""
    if search.wanted != "auto" or search.named:
        return {}
    languages = [column for column in search.every if language(column) and search.columns.texts(column)]
    if len(languages) > 1:
        return {"source": languages[0], "target": languages[1]}
    candidates = [column for column in flat.every if key(column) not in SPEAKER]
    named = [column for name in (*roles.LABEL, *roles.LOOSE_LABEL) for column in candidates if key(column) == name]
    return guess(flat.columns, [*named, *(column for column in candidates if column not in named)])


def no_layout(search: Search, own: list[str], suggested: dict[str, str]) -> Fault:
    """The fault of a file without a known layout, of its `own` columns, with what the values suggest."""
    file, wanted = search.columns.rows[0].file, search.wanted
    if suggested:
        pairs = write_columns(suggested)
        problem = Text(
            "No known layout has these columns: {names}. By their values they may be {pairs}.",
            names=_names(own),
            pairs=pairs,
        )
        return Fault(
            0, "", problem, Text("If so, read them with {flags}; else name the right ones.", flags=flag(pairs)), file
        )
    if wanted == "auto" and len(search.every) == 1:
        problem = Text("The only column is {name!r}.", name=search.every[0])
        return Fault(0, "", problem, Text("Give a file with a column for the prompt and another for the answer."), file)
    needs = [f"{layout.name} ({', '.join(layout.roles)})" for layout in LAYOUTS if wanted in ("auto", layout.name)]
    if wanted == "auto":
        problem = Text("No known layout has these columns: {names}.", names=_names(own))
        remedy = Text("Name them with columns, as text=tweet,label=mood; the layouts are: {names}.", names=needs)
    else:
        problem = Text("The layout {layout} needs other columns: {names}.", layout=wanted, names=_names(own))
        remedy = Text("Name them with columns, as text=tweet,label=mood; it is: {layout}.", layout=needs[0])
    return Fault(0, "", problem, remedy, file)


def _deviations(rows: Iterable[Row], mapping: Mapping, fits: dict[tuple[str, ...], Mapping | None]) -> list[Fault]:
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
            problem = Text(
                "The row is laid out as {layout}, most rows as {most}.",
                layout=other.layout.name,
                most=mapping.layout.name,
            )
            faults.append(Fault(row.line, "", problem, Text("Give every row one layout."), row.file))
        else:
            problem = Text("The row has no such field; it has: {names}.", names=_names(shape))
            faults += [
                Fault(row.line, column, problem, Text("Add it, or remove the row."), row.file)
                for column in sorted(needed - set(shape))
            ]
    return faults
