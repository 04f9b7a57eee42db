"""One row in, one example out: what is asked, what is answered, and a fault for each field that can't be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sftdemo.config.read import OWN_TEXTS
from sftdemo.data.conversion import templates
from sftdemo.data.conversion.label_fields import LabelFields
from sftdemo.data.files.table import Row, split_name
from sftdemo.data.layouts.roles import switch
from sftdemo.data.text.languages import language
from sftdemo.data.text.literals import parsed_list
from sftdemo.data.types import Example, LeftOut, Message, Meta
from sftdemo.data.values import conversations, targets, transcripts
from sftdemo.errors import Text, UserError

# The parts of a question, in the order they are shown.
PARTS = {
    "instruction": ("instruction", "title", "context", "input", "options"),
    "prompt_completion": ("title", "context", "prompt", "options"),
    "text_label": ("title", "text", "pair"),
    "summary": ("title", "document"),
    "source_target": ("source",),
    "extraction": ("text",),
    "preference": ("prompt", "input"),
}
UNWANTED, UNLABELLED = Text("they are marked as unwanted"), Text("they have no label")
SEVERAL = Text("{n} rows have several right answers: the first is learned, the others are references.")
_COMPARED = 50  # rows in which one part is looked for in another


def no_instruction(layout: str) -> UserError:
    return UserError("An instruction can't be put into {layout} rows; give a system prompt instead.", layout=layout)


@dataclass
class Converter(LabelFields):
    """Turns the rows of one mapping into examples; what is told of the data set grows on the way."""

    template: templates.Template | None = None
    inputs: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)  # columns read beside those of the roles

    def choose_template(self, rows: list[Row]) -> str:
        """The template of the user turns, given or by default, as text."""
        layout, columns = self.mapping.layout, self.mapping.columns
        parts = self.parts(rows)
        body = "\n\n".join(f"{{{role}}}" for role in parts)
        if "pair" in parts:
            body = body.replace("{text}\n\n{pair}", templates.pair(columns["text"], columns["pair"]))
        text = (
            templates.with_body(self.config.instruction, body) if self.config.instruction else self.default(rows, body)
        )
        self.template = templates.Template(text, columns, self.dataset.columns)
        if (answer := columns[layout.answer]) in self.template.columns:
            raise UserError("The instruction shows {column}, the answer itself; take it out.", column=f"{{{answer}}}")
        input_roles = ("prompt",) if layout.name == "preference" else layout.roles
        self.inputs = [columns[role] for role in input_roles if role != layout.answer and role in columns]
        return text

    def parts(self, rows: list[Row]) -> list[str]:
        """The roles that a question shows: those there, but none that stands whole in another."""
        columns = self.mapping.columns
        present = [role for role in PARTS[self.mapping.layout.name] if role in columns]
        shown = list(present)
        for part in present:
            others = [role for role in shown if role != part]
            holder = next((role for role in others if self.within(part, role, rows)), None)
            if holder:
                shown.remove(part)
                note = Text(
                    "{column!r} is not shown again: it stands in {holder!r} already.",
                    column=columns[part],
                    holder=columns[holder],
                )
                self.dataset.notes.append(note)
        return shown

    def within(self, part: str, other: str, rows: list[Row]) -> bool:
        """Whether the other role's text holds the part's in every row looked at, and is more than it."""
        pairs = [(self.value(row, part), self.value(row, other)) for row in rows[:_COMPARED]]
        pairs = [(inner, outer) for inner, outer in pairs if inner and outer]
        return len(pairs) > 1 and all(
            isinstance(inner, str) and isinstance(outer, str) and len(inner) < len(outer) and inner.strip() in outer
            for inner, outer in pairs
        )

    def default(self, rows: list[Row], body: str) -> str:
        """The question where none is given."""
        layout, columns = self.mapping.layout, self.mapping.columns
        if layout.name == "text_label":
            distinct = {label for row in rows for label in self.labels(row)}
            return templates.classification(distinct, body, self.several)
        if layout.name == "extraction":
            marks = [mark for row in rows for mark in self.marks(row)]
            return templates.extraction({mark["label"] for mark in marks}, any("nth" in mark for mark in marks))
        texts = {
            role: [text for row in rows if isinstance(text := self.value(row, role), str)] for role in layout.roles
        }
        if layout.name == "source_target":
            target_language = language(columns["target"]) if language(columns["source"]) else None
            return templates.translation(texts["source"], texts["target"], target_language)
        return templates.summary(texts["document"], body) if layout.name == "summary" else body

    def example(self, row: Row) -> Example | None:
        """The row as an example; None after its faults, or where it is left out."""
        before = len(self.dataset.faults)
        try:
            if switch(self.value(row, "desirable")) is False:
                raise LeftOut(UNWANTED)
            answered = self.messages(row)
        except LeftOut as reason:
            self.tally.left_out[reason.why] += 1
            return None
        references, tools = self.references(row), self.tools(row)
        if len(self.dataset.faults) > before or not answered:
            return None
        messages, more = answered
        if messages[0]["role"] != "system" and (system := self.system(row)):
            messages.insert(0, {"role": "system", "content": system})
        answer, layout = messages[-1]["content"], self.mapping.layout
        example: Example = {"messages": messages}
        if layout.answer == "label" and not self.several:
            example["label"] = answer
        elif layout.task == "chat" and row.values.get("label") == answer:
            example["label"] = answer
            self.used.add("label")
        elif layout.answer == "label":
            example["labels"] = self.labels(row)
        elif layout.task == "chat" and (labels := self.saved_labels(row, answer)):
            example["labels"] = labels
            self.used.add("labels")
        if references := references or more:
            example["references"] = references
        if tools:
            example["tools"] = tools
        self.add_meta(row, example)
        return example

    def add_meta(self, row: Row, example: Example) -> None:
        """Where the row stands and what it belongs to; a run's saved row has its own, and its weight."""
        saved, weight = row.values.get("meta"), row.values.get("weight")
        place = (row.file, row.line, row.nth)
        if self.mapping.layout.task == "chat" and isinstance(saved, dict) and isinstance(saved.get("line"), int):
            example["meta"] = Meta({key: value for key, value in saved.items() if key != "edited"}, place)
            self.used |= {"meta", "weight"}
            if isinstance(weight, int | float):
                example["weight"] = weight
        else:
            example["meta"] = Meta({"line": row.line, **({"nth": row.nth} if row.nth > 1 else {})}, place)
        if row.edited:
            example["meta"]["edited"] = row.edited
        group = self.value(row, "group")
        if group is not None and group != "":
            example["meta"]["group"] = str(group)

    def system(self, row: Row) -> str:
        """The row's own system prompt, else the one set for all."""
        own = self.value(row, "system")
        if isinstance(own, str) and own.strip():
            return own
        return self.config.system or ""

    def messages(self, row: Row) -> tuple[list[Message], list[str]] | None:
        """The row's turns, and further right answers; None after its faults. Raises LeftOut."""
        layout, columns = self.mapping.layout, self.mapping.columns
        column = columns[layout.answer]
        value = row.values[column]
        if layout.task == "chat":
            return self.chat(row, column, value)
        if layout.name == "preference":
            return self.preference(row, column, value)
        prompt = self.value(row, "prompt")
        if layout.name == "prompt_completion" and isinstance(prompt, list):
            turns = value if isinstance(value, list) else [{"role": "assistant", "content": value}]
            return self.chat(row, columns["prompt"], [*prompt, *turns])
        return self.pair(row)

    def preference(self, row: Row, column: str, chosen: Any) -> tuple[list[Message], list[str]] | None:
        """The chosen side: text that answers the prompt, a whole conversation, or its last turn."""
        if chosen == self.value(row, "rejected"):
            self.flaw(
                row,
                column,
                Text("The chosen answer is the same as the rejected one."),
                Text("Check that the row is right."),
            )
        prompt = self.value(row, "prompt")
        if isinstance(chosen, str) and "prompt" not in self.mapping.columns:
            chosen = transcripts.human_assistant(chosen) or chosen
        if isinstance(chosen, str) and not isinstance(prompt, list):
            if "prompt" in self.mapping.columns:
                return self.pair(row)
            self.fault(
                row,
                column,
                Text("The chosen text has no prompt."),
                Text("Add a column prompt, or give a list of turns."),
            )
            return None
        turns = chosen if isinstance(chosen, list) else [chosen if isinstance(chosen, dict) else _assistant(chosen)]
        first = turns[0].get("role") or turns[0].get("from") if turns and isinstance(turns[0], dict) else None
        if prompt and conversations.ROLES.get(str(first).casefold()) == "assistant":
            turns = [*(prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]), *turns]
        return self.chat(row, column, turns)

    def pair(self, row: Row) -> tuple[list[Message], list[str]] | None:
        """One question, one answer: all layouts but the chats."""
        assert self.template is not None
        column = self.mapping.columns[self.mapping.layout.answer]
        marked = self.marked(row) if self.mapping.layout.name == "extraction" else None
        values = {} if marked else {column: self.text(row, column) or "" for column in self.inputs}
        values |= {self.mapping.columns["text"]: marked[0]} if marked else {}
        for shown in self.template.columns:
            if shown not in values:
                values[shown] = self.extra(row, shown) or ""
        message, more = (_assistant(marked[1]), []) if marked else self.answer(row, column)
        if message is None:
            return None
        if message["content"] and any(values[column].strip() == message["content"].strip() for column in self.inputs):
            self.echo(row, column)
        answer = conversations.think(message)
        if isinstance(thoughts := self.value(row, "reasoning"), str) and thoughts.strip():
            answer["reasoning_content"] = self.sound(row, self.mapping.columns["reasoning"], thoughts)
        return [*self.history(row), {"role": "user", "content": self.template.render(values)}, answer], more

    def answer(self, row: Row, column: str) -> tuple[Message | None, list[str]]:
        """The answer as a message, and further right ones; None after a fault. Raises LeftOut without a label."""
        value = row.values[column]
        if self.mapping.layout.answer == "label":
            labels = self.labels(row)
            if not labels and (isinstance(value, list) or targets.labels(value)):
                raise LeftOut(UNLABELLED)
            return (_assistant(", ".join(labels)), []) if labels else (self.plain(row, column), [])
        if self.tools(row) and (calls := _calls(value)):
            return {"role": "assistant", "content": "", "tool_calls": calls}, []
        alternatives = (
            targets.alternatives(value) if targets.has_alternatives(column) or isinstance(value, dict) else None
        )
        if alternatives == [] and "context" in self.mapping.columns:
            self.tally.counts[Text("{n} questions have no answer in their text: 'unanswerable' is learned there.")] += 1
            return _assistant(targets.UNANSWERABLE), []
        if alternatives:
            if len(alternatives) > 1:
                self.tally.counts[SEVERAL] += 1
            return _assistant(self.sound(row, column, alternatives[0])), alternatives if len(alternatives) > 1 else []
        if value and isinstance(value, list | dict):
            self.tally.counts[Text("{n} answers are lists or objects: they are learned as JSON.")] += 1
            return _assistant(targets.as_json(value)), []
        return self.plain(row, column), []

    def plain(self, row: Row, column: str) -> Message | None:
        value = row.values.get(column)
        text = targets.scalar(value) if isinstance(value, int | float) else None
        if text is None:
            text = self.text(row, column)
        elif self.fix:
            self.take_as_text(row, column, value)
        return None if text is None else _assistant(text)

    def history(self, row: Row) -> list[Message]:
        """The earlier turns of a row, [[question, answer], …] or turns with roles."""
        column = self.mapping.columns.get("history", "")
        turns = conversations.history(row.values.get(column))
        if turns is None:
            self.fault(
                row, column, Text("The history is no list of question and answer."), Text('Write [["…", "…"], …].')
            )
        chat = self.reader(row, column)
        messages = [chat.turn(number, turn) for number, turn in enumerate(turns or (), 1)]
        return [message for part in messages for message in part or ()]

    def tools(self, row: Row) -> list[dict[str, Any]]:
        """The functions that the assistant may call."""
        column = self.mapping.columns.get("tools", "")
        value = row.values.get(column)
        if value is None or value == [] or (isinstance(value, str) and value.strip() in ("", "[]")):
            return []
        schemas = conversations.tool_schemas(value)
        if schemas is None:
            self.fault(
                row,
                column,
                Text("The tools are no list of functions."),
                Text('Write [{"name": "…", "parameters": {…}}].'),
            )
        return schemas or []

    def reader(self, row: Row, column: str) -> conversations.Chat:
        sound: Callable[[str, int], str] = partial(self.sound, row, column)
        fault, mend = partial(self.fault, row, column), partial(self.mend, row, column)
        return conversations.Chat(fault, sound, mend, self.fix, lambda what: self.tally.counts.update([what]))

    def chat(self, row: Row, column: str, turns: Any) -> tuple[list[Message], list[str]] | None:
        """A list of turns, {"role", "content"} or {"from", "value"}."""
        if self.config.instruction not in (None, "", OWN_TEXTS):
            raise no_instruction(self.mapping.layout.name)
        messages = self.reader(row, column).messages(turns)
        if not messages:
            return None
        question, answer = messages[-2], messages[-1]
        if question["role"] == "user" and question["content"].strip() == answer["content"].strip():
            self.echo(row, column)
        return messages, []

    def echo(self, row: Row, column: str) -> None:
        problem = Text("The answer is the same as the question.")
        self.flaw(row, column, problem, Text("Check that the columns are the right ones."))

    def references(self, row: Row) -> list[str]:
        """Further right answers, from a column of their own."""
        column = self.mapping.columns.get("references", "")
        value = row.values.get(column)
        if value is None or value == "" or value == []:
            return []
        texts = parsed_list(value) or [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            self.fault(row, column, Text("The references are no list of texts."), Text('Write ["…", "…"].'))
            return []
        return texts

    def split(self, row: Row) -> str | None:
        """Where the row belongs: what its file's name says, else its `split` column, else train."""
        column = self.mapping.columns.get("split")
        if row.split or column is None:
            return row.split or "train"
        value = row.values.get(column)
        name = split_name(value) if isinstance(value, str) else None
        if name is None:
            problem = (
                Text("The row has no split.") if value in (None, "") else Text("{value!r} is no split.", value=value)
            )
            self.fault(row, column, problem, Text("Use train, validation or test."))
        return name


def _assistant(content: Any) -> Message:
    return {"role": "assistant", "content": content}


def _calls(value: Any) -> list[dict[str, Any]] | None:
    """The tool calls that an answer is, as some sets write them beside their tools."""
    calls = parsed_list(value)
    named = bool(calls) and all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls or ())
    return conversations.tool_calls(calls) if named else None
