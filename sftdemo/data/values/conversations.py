"""Lists of turns as chat APIs and data sets write them, to messages; and a fault for each turn that can't be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sftdemo.data.files.table import kind
from sftdemo.data.text.literals import parsed, parsed_list
from sftdemo.data.types import LeftOut, Message
from sftdemo.data.values.turn_order import as_one, disorder, joined
from sftdemo.errors import Text

ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "client"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "bot", "model", "chatgpt", "bing", "bard", "chatbot", "ai", "agent"), "assistant"
    ),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(
        ("tool", "function", "observation", "ipython", "tool_response", "function_response", "tool_result"), "tool"
    ),
}
CALLS = ("function_call", "tool_call")  # speakers of ShareGPT's turns that are nothing but a call
SPEAKER, SAID = ("role", "from", "speaker", "sender"), ("content", "value", "text", "utterance", "message")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts", "thought")
_LEARNED = ("weight", "train", "loss")  # OpenAI, and the switches of other trainers
_ASKED_AND_SAID = (("user", "assistant"), ("human", "assistant"), ("prompt", "response"), ("question", "answer"))
_THINK = re.compile(r"\s*<(think|thinking)>\n*(.*?)\n*</\1>\n*(.*)", re.DOTALL)
_TURNS = Text('Write [{"role": "user", "content": "…"}, …].')
OPENING = Text("{n} conversations open with the assistant: that turn is read, not learned.")
TRIMMED = Text("{n} conversations go on after their last learned answer: what follows was left off.")
NOT_LEARNED = Text("{n} assistant turns have the weight 0: they are read, not learned.")


@dataclass
class Chat:
    """Turns the field of one row into messages. `fault` and `mend` take (problem, what to do or what was done); `mend` is
    called with `fix` for what was mended, else for what could be."""

    fault: Callable[[Text, Text], None]
    sound: Callable[[str, int], str]  # (a turn's text, its number) to the text, mended or warned of
    mend: Callable[[Text, Text], None]
    fix: bool  # whether what can be mended is
    count: Callable[[Text], None]  # called with a note's template for what is worth one, once each time

    def messages(self, turns: Any) -> list[Message] | None:
        """The messages; None after a fault. Raises LeftOut where no turn is to be learned."""
        turns = _listed(turns)
        if not isinstance(turns, list) or not turns:
            self.fault(Text("The field is no list of turns."), _TURNS)
            return None
        turns_read = [self.turn(number, turn) for number, turn in enumerate(turns, 1)]
        if not all(turns_read):
            return None
        messages = self.ordered(_called([message for part in turns_read for message in part or ()]))
        return messages and self.to_learn(messages)

    def turn(self, number: int, turn: Any) -> list[Message] | None:
        """One turn's message, and the tools' answers it carries; None after its faults."""
        if not isinstance(turn, dict):
            self.fault(
                Text("Turn {n} is {kind}, not an object.", n=number, kind=kind(turn)),
                Text("Give it a role and content."),
            )
            return None
        named = next((turn[key] for key in SPEAKER if turn.get(key)), None)
        role = ROLES.get(named.casefold()) if isinstance(named, str) else None
        content, parts = next((turn[key] for key in SAID if turn.get(key) is not None), None), _Parts([], [], [])
        calls = turn.get("tool_calls") or turn.get("function_call")
        if named in CALLS:
            role, calls, content = "assistant", content, ""
        elif isinstance(content, list) and content and (content_parts := _parts(content)):
            if content_parts.unread:
                problem = Text("Turn {n} holds {what}, which can't be trained on.", n=number, what=content_parts.unread)
                self.fault(problem, Text("Say it in words, or remove the row."))
                return None
            parts, content, calls = content_parts, content_parts.text, calls or content_parts.calls
        elif role == "tool" and isinstance(content, list | dict):
            content = json.dumps(content, ensure_ascii=False)
        if role is None:
            problem = (
                Text("Turn {n} has the unknown role {role!r}.", n=number, role=named)
                if named
                else Text("Turn {n} has no role.", n=number)
            )
            self.fault(problem, Text("Use system, user, assistant or tool."))
        message: Message = {"role": role or "user", "content": ""}  # type: ignore[typeddict-item]
        sound = self.text(number, content, may_be_empty=bool(calls or parts.results or role == "tool"))
        if sound is None or role is None or not self.marks(number, turn, message):
            return None
        message["content"] = sound
        if role == "assistant" and not self.assistant(number, turn, message, calls, parts.thoughts):
            return None
        for key in ("name", "tool_call_id"):
            if isinstance(turn.get(key), str) and turn[key]:
                message[key] = turn[key]  # type: ignore[literal-required]
        return [*parts.results, *([message] if sound.strip() or not parts.results else [])]

    def text(self, number: int, content: Any, may_be_empty: bool) -> str | None:
        if content is None and may_be_empty:
            return ""
        if not isinstance(content, str):
            problem = (
                Text("Turn {n} has no content.", n=number)
                if content is None
                else Text("Turn {n} has {kind} for content, not text.", n=number, kind=kind(content))
            )
            self.fault(problem, Text("Give it text."))
            return None
        if may_be_empty or (content.strip() and (content := self.sound(content, number)).strip()):
            return content
        self.fault(Text("Turn {n} is empty.", n=number), Text("Fill it in, or remove the row."))
        return None

    def marks(self, number: int, turn: dict[str, Any], message: Message) -> bool:
        """Take over the weight 0; False after a fault."""
        value = next((turn[key] for key in _LEARNED if turn.get(key) is not None), 1)
        if message["role"] != "assistant" or value is True:
            return True
        if value not in (0, 1):  # a share of a turn's loss isn't learned by, and would count as all of it
            self.fault(
                Text("Turn {n} has the weight {value!r}.", n=number, value=value),
                Text("Give 1, or 0 for a turn that is only read."),
            )
            return False
        if value != 1:
            message["weight"] = float(value)
        return True

    def assistant(self, number: int, turn: dict[str, Any], message: Message, calls: Any, thoughts: list[str]) -> bool:
        """Add an assistant's thoughts and calls; False after a fault."""
        own_thoughts = next(
            (turn[key] for key in _THOUGHTS if isinstance(turn.get(key), str) and turn[key].strip()), None
        )
        if own_thoughts or thoughts:
            message["reasoning_content"] = self.sound(own_thoughts or "\n\n".join(thoughts), number)
        else:
            think(message)
        if calls:
            formatted = tool_calls(calls)
            if formatted is None:
                self.fault(
                    Text("Turn {n} has a tool call without a name.", n=number),
                    Text('Write {"name": "…", "arguments": {…}}.'),
                )
                return False
            message["tool_calls"] = formatted
        return True

    def ordered(self, messages: list[Message]) -> list[Message] | None:
        """The messages, if user and assistant alternate and the assistant has the last word; else None after faults."""
        problems = disorder(messages)
        mended, done = joined(messages) if problems else (messages, [])
        left = disorder(mended) if done else problems
        for each in done if self.fix or not left else ():
            self.mend(*each)
        if self.fix:
            messages, problems = mended, left
        for problem, remedy in problems:
            self.fault(problem, remedy)
        return None if problems else messages

    def to_learn(self, messages: list[Message]) -> list[Message]:
        """The messages up to the last learned answer; an assistant's opening turn, which answers nothing, is only read."""
        opening = next(message for message in messages if message["role"] != "system")
        if opening["role"] == "assistant" and opening.get("weight") != 0:
            opening["weight"] = 0.0
            self.count(OPENING)
        elif opening["role"] == "assistant":
            self.count(OPENING)
        learned = [at for at, turn in enumerate(messages) if turn["role"] == "assistant" and turn.get("weight", 1) != 0]
        if not learned:
            raise LeftOut(Text("no turn is to be learned (weight 0)"))
        if learned[-1] + 1 < len(messages):
            self.count(TRIMMED)
        for message in messages[: learned[-1]]:
            if message is not opening and message.get("weight") == 0:
                self.count(NOT_LEARNED)
        return messages[: learned[-1] + 1]


def _called(messages: list[Message]) -> list[Message]:
    """The messages with each call that stands as a turn of its own joined to the assistant's turn before it."""
    joined_messages: list[Message] = []
    for message in messages:
        alone = not message["content"] and "tool_calls" in message
        if (
            alone
            and joined_messages
            and joined_messages[-1]["role"] == "assistant"
            and joined_messages[-1].get("weight") == message.get("weight")
        ):
            joined_messages[-1] = as_one(joined_messages[-1], message)
        else:
            joined_messages.append(message)
    return joined_messages


def think(message: Message) -> Message:
    """Move thoughts that open the content, <think>…</think>, to `reasoning_content`; one without an answer stays."""
    if match := _THINK.fullmatch(message["content"]):
        _, thoughts, answer = match.groups()
        if answer.strip():
            message["content"] = answer
            if thoughts.strip():
                message["reasoning_content"] = thoughts
    return message


def tool_calls(value: Any) -> list[dict[str, Any]] | None:
    """Calls as OpenAI writes them, from its legacy form, from {"name", "arguments"} or from text; None without a name."""
    calls = parsed(value) if isinstance(value, str) else value
    formatted = []
    for call in calls if isinstance(calls, list) and calls else [calls]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
            return None
        arguments: Any = next(
            (inner[key] for key in ("arguments", "parameters", "args") if inner.get(key) is not None), {}
        )
        if isinstance(arguments, str):
            object_arguments = parsed(arguments) if arguments.strip() else {}
            arguments = object_arguments if isinstance(object_arguments, dict) else arguments
        named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        formatted.append({"type": "function", **named, "function": {"name": inner["name"], "arguments": arguments}})
    return formatted


def tool_schemas(value: Any) -> list[dict[str, Any]] | None:
    """Function schemas as OpenAI writes them, from plain ones, Gemini's declarations or JSON text; None for anything else."""
    items = parsed(value) if isinstance(value, str) else value
    schemas: list[dict[str, Any]] = []
    for item in [items] if isinstance(items, dict) else items if isinstance(items, list) else [None]:
        tool = parsed(item) if isinstance(item, str) else item
        if not isinstance(tool, dict):
            return None
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        for schema in declared if isinstance(declared, list) else [tool.get("function") or tool]:
            if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
                return None
            schemas.append({"type": "function", "function": schema})
    return schemas


@dataclass
class _Parts:
    """What content in parts holds: its thoughts, calls, the tools' answers before it, its text, or what can't be read."""

    thoughts: list[str]
    calls: list[dict[str, Any]]
    results: list[Message]
    text: str = ""
    unread: str = ""


def _parts(content: list[Any]) -> _Parts | None:
    """Content in parts, [{"type": "text", "text": "…"}, …]; None where it is no such list."""
    content_parts, texts = _Parts([], [], []), []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            return None
        named = part.get("type") or "text"
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part.get("thinking"), str):
            content_parts.thoughts.append(part["thinking"])
        elif named == "tool_use":
            content_parts.calls.append({"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")})
        elif named == "tool_result":
            inner = part.get("content") or ""
            listed = _parts(inner) if isinstance(inner, list) else None
            tool_text = listed.text if listed and not listed.unread else inner
            result: Message = {
                "role": "tool",
                "content": tool_text if isinstance(tool_text, str) else json.dumps(tool_text),
            }
            if isinstance(part.get("tool_use_id"), str):
                result["tool_call_id"] = part["tool_use_id"]
            content_parts.results.append(result)
        else:
            what = str(named).removesuffix("_url").removeprefix("input_").replace("_", " ")
            if named == "text":
                content_parts.unread = Text("a part without text")
            else:
                content_parts.unread = (
                    Text("an {kind}", kind=what) if what[0] in "aeiou" else Text("a {kind}", kind=what)
                )
    content_parts.text = "".join(texts)
    return content_parts


def _listed(turns: Any) -> Any:
    """Turns as a list of objects, from text, from lists of columns, alternating texts, pairs, or {"user", "assistant"}."""
    if isinstance(turns, str):
        turns = parsed(turns)
    if isinstance(turns, dict) and turns and all(isinstance(column, list) for column in turns.values()):
        if len({len(column) for column in turns.values()}) > 1:
            return None
        return [dict(zip(turns, cells, strict=True)) for cells in zip(*turns.values(), strict=True)]
    if not isinstance(turns, list) or not turns:
        return turns
    if all(isinstance(turn, str) for turn in turns) and len(turns) > 1:
        return [{"role": "assistant" if at % 2 else "user", "content": turn} for at, turn in enumerate(turns)]
    pairs = [_pair(turn) for turn in turns]
    if all(pairs):
        return [
            {"role": role, "content": content}
            for pair in pairs
            for role, content in zip(("user", "assistant"), pair or (), strict=True)
        ]
    return turns


def _pair(turn: Any) -> tuple[Any, Any] | None:
    """A question and its answer, where an item of the list is both."""
    if isinstance(turn, list) and len(turn) == 2 and all(isinstance(answer, str) for answer in turn):
        return turn[0], turn[1]
    if isinstance(turn, dict) and not any(key in turn for key in SPEAKER):
        return next(
            (
                (turn[question], turn[answer])
                for question, answer in _ASKED_AND_SAID
                if question in turn and answer in turn
            ),
            None,
        )
    return None


def history(value: Any) -> list[dict[str, Any]] | None:
    """The earlier turns of a row, [[question, answer], …] or turns, as a list of turns; None for anything else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    items = parsed_list(value) if isinstance(value, str) else value
    if items == []:
        return []
    objects = _listed(items)
    turns = objects if isinstance(objects, list) and all(isinstance(turn, dict) for turn in objects) else None
    return turns if turns and all(isinstance(turn.get("content", turn.get("value")), str) for turn in turns) else None
