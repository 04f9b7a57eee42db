"""Rows in, examples out: every layout turned into messages, and a fault for each field that can't be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sftdemo.config import ReadConfig
from sftdemo.data import layouts, templates
from sftdemo.data.readers import Row, kind
from sftdemo.data.types import SPLITS, Dataset, Example, Message
from sftdemo.errors import Fault, UserError

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_SPLITS = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("dev", "val", "valid", "eval"), "validation"),
    "training": "train",
    "testing": "test",
}
_BODIES = {
    "instruction": "{instruction}",
    "prompt_completion": "{prompt}",
    "text_label": "{text}",
    "source_target": "{source}",
}


def split_name(value: str) -> str | None:
    """train, validation or test for any of their usual spellings."""
    return _SPLITS.get(value.strip().casefold())


def label_text(value: Any) -> str | None:
    """A label as text: 1 and 1.0 are "1", true is "true"; None for what can't be a label."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else str(value) if value == value else None
    if isinstance(value, int):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def convert(rows: list[Row], config: ReadConfig, dataset: Dataset) -> None:
    """Fill the data set from the rows: examples by split, labels, mapping and faults.

    Raises UserError for columns or placeholders that no row has.
    """
    mapping, faults = layouts.find(rows, config)
    dataset.faults += faults
    if mapping is None:
        return
    converter = _Converter(mapping, config, dataset.faults)
    if mapping.layout.task != "chat":
        dataset.instruction = converter.choose_template(rows)
    elif config.instruction:
        raise UserError(f"An instruction can't be put into {mapping.layout.name} rows; give a system prompt instead.")
    dataset.format, dataset.mapping = mapping.layout.name, mapping.columns
    needed = {mapping.columns[role] for role in mapping.layout.roles}
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    declared: Counter[str] = Counter()
    files: dict[str, Row] = {}
    for row in rows:
        if not needed <= row.values.keys():
            continue
        split, example = converter.split(row), converter.example(row)
        declared[split or ""] += 1
        if split and example:
            splits[split].append(example)
            if "label" in example and split != "train":
                files.setdefault(example["label"], row)
    dataset.splits = {name: examples for name, examples in splits.items() if examples}
    labels = Counter(example["label"] for part in splits.values() for example in part if "label" in example)
    dataset.labels = dict(sorted(labels.items()))
    everyone_labelled = bool(labels) and labels.total() == dataset.examples
    dataset.task = "classification" if everyone_labelled else mapping.layout.task
    if declared and not declared["train"] and not declared[""]:
        _no_train(rows[0].file, declared, dataset.faults)
    elif splits["train"]:
        trained = {example["label"] for example in splits["train"] if "label" in example}
        for label, row in files.items():
            if label not in trained:
                _unseen_label(label, row, mapping, converter.split(row), dataset.faults)


def _no_train(file: str, declared: Counter[str], faults: list[Fault]) -> None:
    found = ", ".join(f"{count} in {name}" for name, count in sorted(declared.items()) if count)
    faults.append(
        Fault(0, "split", f"No row is in train ({found}).", "Give train rows, or leave the split column out.", file)
    )


def _unseen_label(label: str, row: Row, mapping: layouts.Mapping, split: str | None, faults: list[Fault]) -> None:
    column = mapping.columns.get("label", "label")
    problem = f"The label {label!r} is only in {split}."
    faults.append(Fault(row.line, column, problem, "Add rows with it to train, or take it out.", row.file))


@dataclass
class _Converter:
    """Turns the rows of one mapping into examples; `faults` grows on the way."""

    mapping: layouts.Mapping
    config: ReadConfig
    faults: list[Fault]
    template: templates.Template | None = None
    inputs: list[str] = field(default_factory=list)

    def choose_template(self, rows: list[Row]) -> str:
        """The template of the user turns, given or by default, as text."""
        layout, roles = self.mapping.layout, self.mapping.columns
        body = _BODIES[layout.name] + ("\n\n{input}" if "input" in roles and layout.name == "instruction" else "")
        if self.config.instruction:
            text = templates.with_body(self.config.instruction, body)
        elif layout.name == "text_label":
            found = {label_text(row.values.get(roles["label"])) for row in rows}
            text = templates.classification(label for label in found if label)
        elif layout.name == "source_target":
            columns = [[row.values.get(roles[role]) for row in rows] for role in layout.roles]
            text = templates.translation(*([value for value in part if isinstance(value, str)] for part in columns))
        else:
            text = body
        known = dict.fromkeys(column for row in rows for column in row.values)
        self.template = templates.Template(text, roles, known)
        if (answer := roles[layout.answer]) in self.template.columns:
            raise UserError(f"The instruction shows {{{answer}}}, the answer itself; take it out.")
        self.inputs = [roles[role] for role in layout.roles if role != layout.answer]
        return text

    def fault(self, row: Row, column: str, problem: str, remedy: str = "Fill it in, or remove the row.") -> None:
        self.faults.append(Fault(row.line, column, problem, remedy, row.file))

    def text(self, row: Row, column: str) -> str | None:
        """The column's text, which must be there; None after a fault."""
        value = row.values.get(column)
        if isinstance(value, str) and value.strip():
            return value
        if value is None or isinstance(value, str):
            self.fault(row, column, "The field is missing." if value is None else "The field is empty.")
        else:
            remedy = "Give text." if isinstance(value, list | dict) else "Put it in quotes."
            self.fault(row, column, f"The field is {kind(value)}, not text.", remedy)
        return None

    def extra(self, row: Row, column: str) -> str | None:
        """A further column that the template shows: any scalar, and an optional one may be empty."""
        value = row.values.get(column)
        if value is None and column == self.mapping.columns.get("input"):
            return ""
        if value is None or isinstance(value, list | dict):
            return self.text(row, column)
        return str(value)

    def example(self, row: Row) -> Example | None:
        """The row as an example; None after its faults."""
        before = len(self.faults)
        chat = self.mapping.layout.task == "chat"
        messages = self.chat(row) if chat else self.pair(row)
        references = self.references(row)
        if len(self.faults) > before:
            return None
        if self.config.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.config.system})
        example: Example = {"messages": messages}
        if self.mapping.layout.answer == "label" or (chat and row.values.get("label") == messages[-1]["content"]):
            example["label"] = messages[-1]["content"]
        if references:
            example["references"] = references
        example["meta"] = {"line": row.line}
        group = row.values.get(self.mapping.columns.get("group", ""))
        if group is not None and group != "":
            example["meta"]["group"] = str(group)
        return example

    def pair(self, row: Row) -> list[Message]:
        """One question, one answer: all layouts but the chats."""
        assert self.template is not None
        layout, columns = self.mapping.layout, self.mapping.columns
        values = {column: self.text(row, column) or "" for column in self.inputs}
        for column in self.template.columns:
            if column not in values:
                values[column] = self.extra(row, column) or ""
        if layout.answer == "label" and (label := label_text(row.values.get(columns["label"]))):
            answer = label
        else:
            answer = self.text(row, columns[layout.answer]) or ""
        question = self.template.render(values)
        if layout.name == "instruction":
            question = question.strip()  # without an input the template ends in blank lines
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def chat(self, row: Row) -> list[Message]:
        """A list of turns, {"role", "content"} or {"from", "value"}."""
        column = self.mapping.columns[self.mapping.layout.answer]
        turns = row.values[column]
        if isinstance(turns, str):
            turns = _parsed_list(turns)
        if not isinstance(turns, list) or not turns:
            self.fault(row, column, "The field is no list of turns.", 'Write [{"role": "user", "content": "…"}, …].')
            return []
        messages: list[Message] = []
        before = len(self.faults)
        for number, turn in enumerate(turns, 1):
            if not isinstance(turn, dict):
                self.fault(row, column, f"Turn {number} is {kind(turn)}, not an object.", "Give it a role and content.")
                continue
            named = turn.get("role") or turn.get("from")
            content = turn["content"] if turn.get("content") is not None else turn.get("value")
            role = _ROLES.get(named.casefold()) if isinstance(named, str) else None
            if role is None:
                problem = f"has the unknown role {named!r}" if named else "has no role"
                self.fault(row, column, f"Turn {number} {problem}.", "Use system, user or assistant.")
            if not isinstance(content, str):
                problem = "has no content" if content is None else f"has {kind(content)} for content, not text"
                self.fault(row, column, f"Turn {number} {problem}.", "Give it text.")
            elif not content.strip():
                self.fault(row, column, f"Turn {number} is empty.", "Fill it in, or remove the row.")
            elif role:
                messages.append({"role": role, "content": content})  # type: ignore[typeddict-item]
        if len(self.faults) == before:
            self.order(row, column, [message["role"] for message in messages])
        return messages

    def order(self, row: Row, column: str, roles: list[str]) -> None:
        """Faults for turns that don't alternate between the user and the assistant, who has the last word."""
        for number, (role, following) in enumerate(pairwise(roles), 1):
            if following == "system":
                self.fault(row, column, f"Turn {number + 1} is a system turn.", "Only the first turn may be one.")
            elif role == following:
                problem = f"Turns {number} and {number + 1} are both the {role}'s."
                self.fault(row, column, problem, "Join them, or add the turn between.")
        if "assistant" not in roles:
            self.fault(row, column, "There is no assistant turn.", "Add the answer, or remove the row.")
        elif roles[-1] != "assistant":
            self.fault(row, column, "The last turn is not the assistant's.", "Add the answer, or remove that turn.")
        if "user" not in roles:
            self.fault(row, column, "There is no user turn.", "Add the question, or remove the row.")

    def references(self, row: Row) -> list[str]:
        """Further right answers."""
        column = self.mapping.columns.get("references", "")
        value = row.values.get(column)
        if value is None or value == "" or value == []:
            return []
        found = _parsed_list(value) or [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
            self.fault(row, column, "The references are no list of texts.", 'Write ["…", "…"].')
            return []
        return found

    def split(self, row: Row) -> str | None:
        """Where the row belongs: what its file's name says, else its `split` column, else train."""
        column = self.mapping.columns.get("split")
        if row.split or column is None:
            return row.split or "train"
        value = row.values.get(column)
        name = split_name(value) if isinstance(value, str) else None
        if name is None:
            problem = "The row has no split." if value in (None, "") else f"{value!r} is no split."
            self.fault(row, column, problem, "Use train, validation or test.")
        return name


def _parsed_list(text: str) -> list[Any] | None:
    """The JSON list that a CSV cell holds."""
    if not text.lstrip().startswith("["):
        return None
    try:
        return json.loads(text)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return None
