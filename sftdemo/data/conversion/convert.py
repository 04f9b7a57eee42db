"""Rows in, examples out: the layout found, every row read, and what is to be said about all of them together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from sftdemo.config.read import OWN_TEXTS, ReadConfig
from sftdemo.data.conversion.converter import Converter, no_instruction
from sftdemo.data.files.table import Row, present
from sftdemo.data.layouts import choices, gathering, recognition, roles
from sftdemo.data.layouts.unfolding import unfold
from sftdemo.data.limits import OWNER, Limits, OverLimit, row_excess
from sftdemo.data.text.languages import language
from sftdemo.data.types import SPLIT_NAMES, SPLITS, Dataset, Example, Tally, place_of
from sftdemo.data.values import transcripts
from sftdemo.data.values.columns import at_path, flag, flattened, key, unused
from sftdemo.data.values.preview import likely_pair, preview
from sftdemo.errors import Fault, Text

_TRANSCRIPTS = (
    "text",
    "conversation",
    "conversations",
    "messages",
    "dialog",
    "dialogue",
    "chat",
    "transcript",
    "content",
)
_MOST_NAMED = 40


def convert(rows: list[Row], config: ReadConfig, dataset: Dataset, limits: Limits = OWNER) -> None:
    """Fill the data set from the rows: examples by split, labels, mapping, faults, warnings and what was mended.

    Raises UserError for columns or placeholders that no row has.
    """
    tally = Tally()
    dataset.file, several_files = rows[0].file, any(row.file != rows[0].file for row in rows)
    rows = _within(_plain(rows, config, dataset, tally), limits, dataset.faults)
    dataset.notes += tally.notes()
    if not rows:
        return
    read = rows  # none of whose columns is made of others
    rows, search, recognized = _layout(rows, config, dataset.notes)
    dataset.columns = search.every[: limits.columns]
    if len(search.every) > limits.columns:
        over = OverLimit(limits, "columns", len(search.every))
        dataset.faults.append(Fault(0, "", over.problem, over.remedy, dataset.file))
        return
    if recognized is None:
        flat = recognition.Search.of([row._replace(values=flattened(row.values)) for row in rows], config)
        dataset.suggested = recognition.suggestion(search, flat)
        pair = likely_pair(flat.columns, [c for c in flat.every if not _is_opened(c, flat)], dataset.suggested)
        dataset.preview = preview(flat.columns, flat.every, pair or ())
        dataset.preview.guess = pair
        dataset.faults.append(recognition.no_layout(search, gathering.columns_of(read), dataset.suggested))
        return
    mapping, faults = recognized
    dataset.preview = preview(search.columns, search.every, mapping.columns.values())
    dataset.faults += faults
    tally = Tally()
    converter = Converter(mapping, config, dataset, tally)
    converter.spell_labels(rows)
    converter.check_tags(rows)
    if mapping.layout.task != "chat":
        dataset.instruction = converter.choose_template(rows)
    elif config.instruction not in (None, "", OWN_TEXTS):
        raise no_instruction(mapping.layout.name)
    dataset.format, dataset.mapping = mapping.layout.name, mapping.columns
    needed = {mapping.columns[role] for role in mapping.layout.roles}
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    declared: Counter[str] = Counter()
    for row in rows:
        if not needed <= row.values.keys():
            continue
        split, example = converter.split(row), converter.example(row)
        declared[split or ""] += 1
        if split and example:
            if several_files:
                example["meta"]["file"] = row.file
            splits[split].append(example)
    dataset.notes += tally.notes()
    _tell(converter, search)
    if declared and not declared["train"] and not declared[""]:
        _no_train(rows[0].file, declared, dataset.faults)
    elif splits["train"]:
        sure = key(mapping.columns.get("split", "split")) == "split" or "split" in search.named
        _unseen_labels(
            splits, mapping, config.on_fault != "stop", dataset, dataset.faults if sure else dataset.warnings
        )
    dataset.splits = {name: examples for name, examples in splits.items() if examples}
    summarise(dataset, mapping.layout.task)


def _is_opened(column: str, flat: recognition.Search) -> bool:
    """Whether the column holds objects whose fields are columns, too: no row has both."""
    return flat.columns.objects(column) and any(other.startswith(f"{column}.") for other in flat.every)


def _within(rows: list[Row], limits: Limits, faults: list[Fault]) -> list[Row]:
    """The rows within the limits, with a fault for each of the others."""
    kept = []
    for row in rows:
        if over := row_excess(limits, row.values):
            faults.append(Fault(row.line, "", over.problem, over.remedy, row.file))
        else:
            kept.append(row)
    return kept


def _plain(rows: list[Row], config: ReadConfig, dataset: Dataset, tally: Tally) -> list[Row]:
    """The rows unfolded, options as one column, and the dotted paths that `columns` names as columns of their own."""
    named = set(recognition.parse_columns(config.columns).values())

    def warn(problem: Text) -> None:
        remedy = Text("Count from 0, or write letters.")
        dataset.warnings.append(Fault(0, "", problem, remedy, rows[0].file))

    faults: list[Fault] = []
    plain = choices.lettered(unfold(rows, tally, faults), warn, faults)
    rows = present(rows)
    if plain and named and not _all_there(named, plain) and _all_there(named, rows):
        # The user names what stands in the file, not what becomes of it.
        tally.counts.clear()
        tally.left_out.clear()
        faults, plain = [], rows
    dataset.faults += faults
    columns = {column for row in plain for column in row.values}
    if paths := [
        name for name in named if name not in columns and any(at_path(row.values, name) is not None for row in plain)
    ]:
        plain = [row._replace(values=_with_paths(row, paths)) for row in plain]
    return plain


def _all_there(named: set[str], rows: list[Row]) -> bool:
    return all(any(at_path(row.values, name) is not None for row in rows) for name in named)


def _with_paths(row: Row, paths: list[str]) -> dict[str, Any]:
    """The row's values with those at the paths as columns of their own, and what stands beside them opened."""
    opened = {path.split(".")[0] for path in paths}
    flat = flattened(row.values, max(path.count(".") for path in paths))
    inside = {
        column: value
        for column, value in flat.items()
        if column not in opened
        and not isinstance(value, dict)
        and (column in row.values or column.split(".")[0] in opened)
    }
    return {**inside, **{path: at_path(row.values, path) for path in paths}}


_Recognized = tuple[list[Row], recognition.Search, tuple[recognition.Mapping, list[Fault]] | None]


def _layout(rows: list[Row], config: ReadConfig, notes: list[Text]) -> _Recognized:
    """The layout and the rows it is of: as they were read, or gathered where nothing is recognized in these."""
    named = set(recognition.parse_columns(config.columns).values())
    read = [row for row in rows if row.edited != "add"]  # what was added is laid out as what comes of the others
    if read and not named.intersection(gathering.MADE).difference(*(row.values for row in read)):
        recognized = _recognized(rows if named else read, config)
        if named or recognized[2]:
            return recognized if named or len(read) == len(rows) else _recognized(rows, config)
    whole, sure = gathering.gathered(rows, notes, asked=bool(named) or config.format != "auto") or (rows, True)
    rows, search, mapping = _recognized(whole, config)
    return rows, search, mapping if sure else None


def _recognized(rows: list[Row], config: ReadConfig) -> _Recognized:
    """The layout: by the usual names, as a transcript, by looser names or by values; and the rows it is of."""
    search = recognition.Search.of(rows, config)
    transcript = _transcript(search) if not search.named and config.format in ("auto", "messages") else None
    recognized = recognition.recognize(search)
    if transcript and (recognized is None or transcript in recognized[0].columns.values()):
        rows = [row._replace(values=_transcribed(row.values, transcript)) for row in rows]
        search = recognition.Search.of(rows, config)
        recognized = recognition.recognize(search)
    recognized = recognized or recognition.recognize(search, loose=True)
    unknown = recognized is None and not search.named and config.format in ("auto", "messages")
    if unknown and (path := _conversation_inside(rows, config)):
        rows = [row._replace(values=_with_paths(row, [path])) for row in rows]
        search = recognition.Search.of(rows, replace(config, columns=recognition.write_columns({"messages": path})))
        recognized = recognition.recognize(search)
    return rows, search, recognized


def _conversation_inside(rows: list[Row], config: ReadConfig) -> str | None:
    """The path to the one conversation inside the rows' objects: "chat.messages"."""
    flat = recognition.Search.of([row._replace(values=flattened(row.values)) for row in rows], config)
    inside = [column for column in flat.every if "." in column]
    return roles.by_values(flat.columns, inside, loose=True).get("messages")


def _transcribed(values: dict[str, Any], column: str) -> dict[str, Any]:
    """The values with the conversation that a column writes out as `messages`; text that is none is left to be told."""
    text = values.get(column)
    rest = {name: value for name, value in values.items() if name != column}
    return {**rest, "messages": (transcripts.turns(text) or text) if isinstance(text, str) else text}


def _transcript(search: recognition.Search) -> str | None:
    """The column that holds written conversations."""
    by_key = {key(column): column for column in reversed(search.every)}
    for column in (by_key[name] for name in _TRANSCRIPTS if name in by_key):
        values = search.columns.values(column)[: transcripts.MOST_ASKED]
        if all(isinstance(value, str) for value in values) and transcripts.are_transcripts(values):
            return column
    return None


def _tell(converter: Converter, search: recognition.Search) -> None:
    """Notes on how the layout was read, and a warning that names the columns left aside."""
    dataset, mapping = converter.dataset, converter.mapping
    columns, file = search.columns, dataset.file
    if mapping.layout.name == "preference":
        dataset.notes.append(Text("Preference pairs: the chosen answer is learned, the rejected one is left aside."))
    source, target = (mapping.columns.get(role, "") for role in ("source", "target"))
    if language(source) and language(target) and not search.named:
        other = recognition.write_columns({"source": target, "target": source})
        dataset.notes.append(
            Text(
                "Translation from {source} to {target}; the other way: {flags}",
                source=source,
                target=target,
                flags=flag(other),
            )
        )
    shown = set(converter.template.columns) if converter.template else set()
    used = {*mapping.columns.values(), *shown, *converter.used}
    by_key = {key(column): column for column in reversed(search.every)}
    numbered = roles.folds(columns, by_key, used)
    for column in numbered:
        problem = Text(
            "The column {column!r} holds numbers, not train, validation or test; it was not used.", column=column
        )
        remedy = Text("Write train, validation or test, or split with --test-size.")
        dataset.warnings.append(Fault(0, column, problem, remedy, file))
    answer = mapping.columns[mapping.layout.answer]
    others = [answer, *(column for role, column in mapping.columns.items() if role in mapping.layout.roles)]
    unused_columns = unused(columns, search.every, used | set(numbered), others)
    if unused_columns.meant:
        names = list(map(repr, unused_columns.meant[:_MOST_NAMED]))
        names += ["…"] if len(unused_columns.meant) > _MOST_NAMED else []
        problem = Text("Columns that are not used: {names}.", names=names)
        remedy = Text("Show one with the instruction, as {name}, or give it a role with --columns.")
        if mapping.layout.task == "chat":
            remedy = Text("Give one a role with --columns, as system=name, or leave them out.")
        dataset.warnings.append(
            Fault(0, unused_columns.meant[0] if len(unused_columns.meant) == 1 else "", problem, remedy, file)
        )
    for why, kinds in (
        (Text("they number or name the rows"), unused_columns.numbering),
        (Text("they are the same in every row"), unused_columns.constant),
        (Text("they repeat what is used"), unused_columns.repeating),
    ):
        if kinds:
            names = list(map(repr, kinds[:_MOST_NAMED]))
            dataset.notes.append(Text("Columns not used, since {why}: {names}.", why=why, names=names))


def summarise(dataset: Dataset, task: str) -> None:
    """Set labels and task from the examples; `task` is what they are if not all have a label."""
    labels = Counter(example["label"] for part in dataset.splits.values() for example in part if "label" in example)
    dataset.labels = dict(sorted(labels.items()))
    if task == "classification" and not labels:
        task = "generation"  # several labels a row
    dataset.task = "classification" if labels and labels.total() == dataset.examples else task


def _no_train(file: str, declared: Counter[str], faults: list[Fault]) -> None:
    counts = [Text("{n} in {split}", n=n, split=SPLIT_NAMES[name]) for name, n in sorted(declared.items()) if n]
    faults.append(
        Fault(
            0,
            "split",
            Text("No row is in train ({counts}).", counts=counts),
            Text("Give train rows, or leave the split column out."),
            file,
        )
    )


def _unseen_labels(
    splits: dict[str, list[Example]], mapping: recognition.Mapping, drop: bool, dataset: Dataset, report_to: list[Fault]
) -> None:
    """A fault for each label that is not in train, at its first row; with `drop` all its rows are left out.

    Where only the values of a column made it the split, it is a warning.
    """
    drop = drop and report_to is dataset.faults
    known = {"", *(example["label"] for example in splits["train"] if "label" in example)}
    reported: set[str] = set()
    for split in ("validation", "test"):
        unseen = [example for example in splits[split] if example.get("label", "") not in known]
        for example in unseen:
            if drop or example["label"] not in reported:
                reported.add(example["label"])
                file, line, _ = place_of(example, dataset.file)
                label, where = example["label"], SPLIT_NAMES[split]
                problem = Text("The label {label!r} is only in {split}.", label=label, split=where)
                remedy = Text("Add rows with it to train, or take it out.")
                column = mapping.columns.get("label", "label")
                report_to.append(Fault(line, column, problem, remedy, file))
        if drop and unseen:
            splits[split] = [example for example in splits[split] if example.get("label", "") in known]
