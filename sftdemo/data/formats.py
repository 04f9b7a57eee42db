"""Rows in, examples out: every layout turned into messages, and a fault for each field that can't be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sftdemo.config import ReadConfig
from sftdemo.data import chats, layouts, repairs, templates, transcripts
from sftdemo.data.literals import parsed_list
from sftdemo.data.rows import Row, kind, split_name
from sftdemo.data.types import SPLITS, Dataset, Example, LeftOut, Message
from sftdemo.errors import Fault, UserError

_BODIES = {
    "instruction": "{instruction}",
    "prompt_completion": "{prompt}",
    "text_label": "{text}",
    "source_target": "{source}",
    "preference": "{prompt}",
}


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
    """Fill the data set from the rows: examples by split, labels, mapping, faults, warnings and what was mended.

    Raises UserError for columns or placeholders that no row has.
    """
    dataset.columns = list(dict.fromkeys(column for row in rows for column in row.values))
    dataset.file = rows[0].file
    mapping, faults = layouts.find(rows, config)
    dataset.faults += faults
    if mapping is None:
        return
    converter = _Converter(mapping, config, dataset)
    converter.spell_labels(rows)
    if mapping.layout.task != "chat":
        dataset.instruction = converter.choose_template(rows)
    elif config.instruction:
        raise _no_instruction(mapping.layout.name)
    dataset.format, dataset.mapping = mapping.layout.name, mapping.columns
    needed = {mapping.columns[role] for role in mapping.layout.roles}
    several_files = any(row.file != rows[0].file for row in rows)
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
    dataset.notes += converter.notes()
    if mapping.layout.name == "preference":
        dataset.notes.append("Preference pairs: the chosen answer is learned, the rejected one is left aside.")
    if declared and not declared["train"] and not declared[""]:
        _no_train(rows[0].file, declared, dataset.faults)
    elif splits["train"]:
        _unseen_labels(splits, mapping, config.on_fault == "drop", dataset)
    dataset.splits = {name: examples for name, examples in splits.items() if examples}
    summarise(dataset, mapping.layout.task)


def summarise(dataset: Dataset, task: str) -> None:
    """Set labels and task from the examples; `task` is what they are if not all have a label."""
    labels = Counter(example["label"] for part in dataset.splits.values() for example in part if "label" in example)
    dataset.labels = dict(sorted(labels.items()))
    dataset.task = "classification" if labels and labels.total() == dataset.examples else task


def _no_instruction(layout: str) -> UserError:
    return UserError(f"An instruction can't be put into {layout} rows; give a system prompt instead.")


def _no_train(file: str, declared: Counter[str], faults: list[Fault]) -> None:
    found = ", ".join(f"{count} in {name}" for name, count in sorted(declared.items()) if count)
    faults.append(
        Fault(0, "split", f"No row is in train ({found}).", "Give train rows, or leave the split column out.", file)
    )


def _unseen_labels(splits: dict[str, list[Example]], mapping: layouts.Mapping, drop: bool, dataset: Dataset) -> None:
    """A fault for each label that is not in train, at its first row; with `drop` all its rows are left out."""
    trained = {example["label"] for example in splits["train"] if "label" in example}
    told: set[str] = set()
    for split in ("validation", "test"):
        unseen = [example for example in splits[split] if example.get("label", "") not in {*trained, ""}]
        for example in unseen:
            if drop or example["label"] not in told:
                told.add(example["label"])
                meta, problem = example["meta"], f"The label {example['label']!r} is only in {split}."
                remedy = "Add rows with it to train, or take it out."
                column = mapping.columns.get("label", "label")
                dataset.faults.append(Fault(meta["line"], column, problem, remedy, meta.get("file", dataset.file)))
        if drop and unseen:
            splits[split] = [example for example in splits[split] if example.get("label", "") in {*trained, ""}]


@dataclass
class _Converter:
    """Turns the rows of one mapping into examples; what is told of the data set grows on the way."""

    mapping: layouts.Mapping
    config: ReadConfig
    dataset: Dataset
    template: templates.Template | None = None
    inputs: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """What was done to rows, and which were left out, counted."""
        counted = [f"{count} {what}." for what, count in sorted(self.counts.items())]
        return [*counted, *(f"{count} rows were left out: {why}." for why, count in sorted(self.left_out.items()))]

    @property
    def fix(self) -> bool:
        return self.config.on_fault == "fix"

    def spell_labels(self, rows: list[Row]) -> None:
        """Find labels that are spelt in several ways; a warning for each row of a rarer spelling, or its repair."""
        column = self.mapping.columns.get("label")
        if column is None:
            return
        counts = Counter(label for row in rows if (label := label_text(row.values.get(column))))
        found = repairs.variants(counts)
        for row in rows if found else ():
            label = label_text(row.values.get(column))
            if label not in found:
                continue
            best = found[label]
            problem = f"The label {label!r} is {best!r} in another spelling ({counts[label]} rows, and {counts[best]})."
            self.flaw(row, column, problem, "Spell them alike.", f"It was written {best!r}.")
        self.labels = found if self.fix else {}

    def choose_template(self, rows: list[Row]) -> str:
        """The template of the user turns, given or by default, as text."""
        layout, roles = self.mapping.layout, self.mapping.columns
        body = _BODIES[layout.name] + ("\n\n{input}" if "input" in roles and layout.name == "instruction" else "")
        if layout.name == "preference" and "prompt" not in roles:
            body = ""
        if self.config.instruction:
            text = templates.with_body(self.config.instruction, body)
        elif layout.name == "text_label":
            found = {self.label(row.values.get(roles["label"])) for row in rows}
            text = templates.classification(label for label in found if label)
        elif layout.name == "source_target":
            columns = [[row.values.get(roles[role]) for row in rows] for role in layout.roles]
            text = templates.translation(*([value for value in part if isinstance(value, str)] for part in columns))
        else:
            text = body
        self.template = templates.Template(text, roles, self.dataset.columns)
        if (answer := roles[layout.answer]) in self.template.columns:
            raise UserError(f"The instruction shows {{{answer}}}, the answer itself; take it out.")
        asked = ("prompt",) if layout.name == "preference" else layout.roles
        self.inputs = [roles[role] for role in asked if role != layout.answer and role in roles]
        return text

    def label(self, value: Any) -> str | None:
        label = label_text(value)
        return self.labels.get(label, label) if label else None

    def fault(self, row: Row, column: str, problem: str, remedy: str = "Fill it in, or remove the row.") -> None:
        self.dataset.faults.append(Fault(row.line, column, problem, remedy, row.file))

    def flaw(self, row: Row, column: str, problem: str, remedy: str, done: str = "") -> None:
        """What blocks nothing: a warning, or, where repairs are asked for and this is one, what was `done`."""
        mended = self.fix and done
        told = self.dataset.fixed if mended else self.dataset.warnings
        told.append(Fault(row.line, column, problem, done if mended else remedy, row.file))

    def sound(self, row: Row, column: str, text: str, what: str = "The field") -> str:
        """The text, with a warning for what came through broken, or mended."""
        found = repairs.flaws(text)
        if not found:
            return text
        mended = repairs.repair(text) if self.fix else text
        left = repairs.flaws(mended)
        for problem in found:
            done = "" if problem in left else "It was repaired."
            self.flaw(row, column, f"{what} {problem}.", "Write it out rightly, or repair it with on_fault fix.", done)
        return mended

    def text(self, row: Row, column: str) -> str | None:
        """The column's text, which must be there; None after a fault."""
        value = row.values.get(column)
        if self.fix and isinstance(value, int | float):
            self.flaw(row, column, f"The field is {kind(value)}, not text.", "", "It was taken as text.")
            value = str(value)
        if isinstance(value, str) and value.strip():
            value = self.sound(row, column, value)
            if value.strip():
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
        return self.sound(row, column, str(value))

    def example(self, row: Row) -> Example | None:
        """The row as an example; None after its faults."""
        before = len(self.dataset.faults)
        try:
            messages = self.messages(row)
        except LeftOut as reason:
            self.left_out[str(reason)] += 1
            return None
        references, tools = self.references(row), self.tools(row)
        if len(self.dataset.faults) > before or not messages:
            return None
        if messages[0]["role"] != "system" and (system := self.system(row)):
            messages.insert(0, {"role": "system", "content": system})
        answer, layout = messages[-1]["content"], self.mapping.layout
        example: Example = {"messages": messages}
        if layout.answer == "label" or (layout.task == "chat" and row.values.get("label") == answer):
            example["label"] = answer
        if references:
            example["references"] = references
        if tools:
            example["tools"] = tools
        example["meta"] = {"line": row.line}
        group = row.values.get(self.mapping.columns.get("group", ""))
        if group is not None and group != "":
            example["meta"]["group"] = str(group)
        return example

    def system(self, row: Row) -> str:
        """The row's own system prompt, else the one set for all."""
        own = row.values.get(self.mapping.columns.get("system", ""))
        if isinstance(own, str) and own.strip():
            return own
        return self.config.system or ""

    def messages(self, row: Row) -> list[Message] | None:
        layout, columns = self.mapping.layout, self.mapping.columns
        column = columns[layout.answer]
        value = row.values[column]
        if layout.task == "chat":
            return self.chat(row, column, value)
        if layout.name == "preference":
            return self.preference(row, column, value)
        asked = row.values.get(columns.get("prompt", ""))
        if layout.name == "prompt_completion" and isinstance(asked, list):
            said = value if isinstance(value, list) else [{"role": "assistant", "content": value}]
            return self.chat(row, columns["prompt"], [*asked, *said])
        return self.pair(row)

    def preference(self, row: Row, column: str, chosen: Any) -> list[Message] | None:
        """The chosen side: text that answers the prompt, a whole conversation, or its last turn."""
        if chosen == row.values[self.mapping.columns["rejected"]]:
            self.flaw(row, column, "The chosen answer is the same as the rejected one.", "Check that the row is right.")
        asked = row.values.get(self.mapping.columns.get("prompt", ""))
        if isinstance(chosen, str) and "prompt" not in self.mapping.columns:
            chosen = transcripts.human_assistant(chosen) or chosen
        if isinstance(chosen, str) and not isinstance(asked, list):
            if "prompt" in self.mapping.columns:
                return self.pair(row)
            self.fault(row, column, "The chosen text has no prompt.", "Add a column prompt, or give a list of turns.")
            return None
        said = chosen if isinstance(chosen, list) else [{"role": "assistant", "content": chosen}]
        first = said[0].get("role") or said[0].get("from") if said and isinstance(said[0], dict) else None
        if asked and chats.ROLES.get(str(first).casefold()) == "assistant":
            said = [*(asked if isinstance(asked, list) else [{"role": "user", "content": asked}]), *said]
        return self.chat(row, column, said)

    def pair(self, row: Row) -> list[Message] | None:
        """One question, one answer: all layouts but the chats."""
        assert self.template is not None
        layout, columns = self.mapping.layout, self.mapping.columns
        values = {column: self.text(row, column) or "" for column in self.inputs}
        for column in self.template.columns:
            if column not in values:
                values[column] = self.extra(row, column) or ""
        answer = self.label(row.values.get(columns["label"])) if layout.answer == "label" else self.first(row)
        answer = answer or self.text(row, columns[layout.answer])
        if not answer:
            return None
        if any(values[column].strip() == answer.strip() for column in self.inputs):
            self.echo(row, columns[layout.answer])
        question = self.template.render(values)
        if layout.name == "instruction":
            question = question.strip()  # without an input the template ends in blank lines
        said = chats.think({"role": "assistant", "content": answer})
        return [*self.history(row), {"role": "user", "content": question}, said]

    def first(self, row: Row) -> str | None:
        """The first of several right answers; the others become references. None where the answer is plain text."""
        column = self.mapping.columns[self.mapping.layout.answer]
        value = row.values[column]
        if isinstance(value, list) and value and all(isinstance(text, str) and text.strip() for text in value):
            return self.sound(row, column, value[0])
        return None

    def history(self, row: Row) -> list[Message]:
        """The earlier turns of a row, [[question, answer], …] or turns with roles."""
        column = self.mapping.columns.get("history", "")
        turns = chats.history(row.values.get(column))
        if turns is None:
            self.fault(row, column, "The history is no list of question and answer.", 'Write [["…", "…"], …].')
        chat = self.reader(row, column)
        made = [chat.turn(number, turn) for number, turn in enumerate(turns or (), 1)]
        return [message for part in made for message in part or ()]

    def tools(self, row: Row) -> list[dict[str, Any]]:
        """The functions that the assistant may call."""
        column = self.mapping.columns.get("tools", "")
        value = row.values.get(column)
        if value is None or value == [] or (isinstance(value, str) and value.strip() in ("", "[]")):
            return []
        found = chats.tool_schemas(value)
        if found is None:
            self.fault(row, column, "The tools are no list of functions.", 'Write [{"name": "…", "parameters": {…}}].')
        return found or []

    def reader(self, row: Row, column: str) -> chats.Chat:
        sound: Callable[[str, str], str] = partial(self.sound, row, column)
        mend = (lambda problem, done: self.flaw(row, column, problem, "", done)) if self.fix else None
        return chats.Chat(partial(self.fault, row, column), sound, mend, lambda what: self.counts.update([what]))

    def chat(self, row: Row, column: str, turns: Any) -> list[Message] | None:
        """A list of turns, {"role", "content"} or {"from", "value"}."""
        if self.config.instruction:
            raise _no_instruction(self.mapping.layout.name)
        messages = self.reader(row, column).messages(turns)
        if (
            messages
            and messages[-2]["role"] == "user"
            and messages[-2]["content"].strip() == messages[-1]["content"].strip()
        ):
            self.echo(row, column)
        return messages

    def echo(self, row: Row, column: str) -> None:
        problem = "The answer is the same as the question."
        self.flaw(row, column, problem, "Check that the columns are the right ones.")

    def references(self, row: Row) -> list[str]:
        """Further right answers."""
        column = self.mapping.columns.get("references", "")
        value = row.values.get(column)
        answers = row.values.get(self.mapping.columns[self.mapping.layout.answer])
        if value is None and self.mapping.layout.task != "chat" and isinstance(answers, list):
            return answers if len(answers) > 1 and all(isinstance(text, str) for text in answers) else []
        if value is None or value == "" or value == []:
            return []
        found = parsed_list(value) or [value] if isinstance(value, str) else value
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
