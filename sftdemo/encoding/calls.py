"""Tool calls in what a model wrote, read back from the ways in which chat templates write them, and written in one way."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

MOST_CHARACTERS = 20_000  # of a text that is read for calls
_BEFORE = 200  # characters before an object in which its function's name may end
_TRIES, _SOURCE = 20, 4_000  # calls written as Python's, ends of each, and characters in one
_NAMES, _ARGUMENTS = ("name", "tool_name"), ("arguments", "parameters", "args")
_BESIDE = {"id", "type", "call_id", "tool_call_id", "index"}
_DECODER = json.JSONDecoder()
# <function=NAME>…</function>, <invoke name="NAME">…</invoke>, and <tool_call>NAME<arg_key>…</tool_call>
_TAGGED = re.compile(
    r'<(?:function=|[^\s<>]*invoke name=")(?P<name>[\w.-]+)"?>(?P<body>.*?)</(?:function|[^\s<>]*invoke)>'
    r"|<tool_call>\s*(?P<plain>[\w.-]+)\s*(?P<pairs>(?:<arg_key>.*?)?)</tool_call>",
    re.DOTALL,
)
_PARAMETER = re.compile(
    r'<[^\s<>]*parameter(?:=| name=")(?P<key>[^"<>]+)"?[^<>]*>(?P<value>.*?)</[^\s<>]*parameter>'
    r"|<arg_key>(?P<arg_key>[^<>]*)</arg_key>\s*<arg_value>(?P<arg_value>.*?)</arg_value>",
    re.DOTALL,
)
_MARKUP = re.compile(r"<[^<>]*>|\[/?[A-Z_]+\]|```\w*")
# What templates write around names and arguments, once the marks are gone.
_FILLER = re.compile(r"(?:[\s\[\],;:.=]|functions?|commentary|assistant|json|to=|tool_calls?|Action|:\d+)*")


@dataclass(frozen=True)
class Call:
    """A call and where it stands in a text."""

    start: int
    end: int
    name: str
    arguments: Any


def written(content: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """What an answer with calls is compared by: its content, then a line of JSON for each call {"name", "arguments"}."""
    lines = [_line(call["name"], _opened(call.get("arguments"))) for call in calls]
    return "\n".join([*([content.strip()] if content.strip() else []), *lines])


def rewritten(text: str, tools: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> str:
    """A text with its calls written as `written` does, their keys in one order; as it stands where no call is found.

    `tools` are the declared functions, `names` further ones that may be called.
    """
    if len(text) > MOST_CHARACTERS:
        return text
    functions = [function for tool in tools if isinstance(function := tool.get("function"), Mapping)]
    schemas = {name: each.get("parameters") for each in functions if isinstance(name := each.get("name"), str)}
    known = [*dict.fromkeys([*schemas, *names])]
    pieces, at = [], 0
    try:
        calls = list(_apart([*_tagged(text, schemas), *_json(text, known), *_python(text, known)]))
        for call in calls:
            pieces += [_prose(text[at : call.start]), _line(call.name, _comparable(_opened(call.arguments)))]
            at = call.end
    except RecursionError:  # nested deeper than anybody would
        return text
    return "\n".join(piece for piece in [*pieces, _prose(text[at:])] if piece) if calls else text


def in_one_way(row: Mapping[str, Any], text: str) -> str:
    """What is scored of an answer, without its thoughts, to a row of outputs: where the right answer makes calls, those that
    it makes, in whatever way its model writes them."""
    right = (row.get("answer") or {}).get("tool_calls")
    functions = [call.get("function") for call in right if isinstance(call, Mapping)] if isinstance(right, list) else []
    names = [str(function.get("name")) for function in functions if isinstance(function, Mapping)]
    return rewritten(text, row.get("tools") or [], names) if names else text


def _line(name: str, arguments: Any) -> str:
    line = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return line.encode("utf-8", "replace").decode()  # half a character can't be written


def _opened(arguments: Any) -> Any:
    """Arguments, which some write as text, as the object that they are."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else {} if arguments is None else arguments
    except (ValueError, RecursionError):
        return arguments


def _comparable(value: Any) -> Any:
    """The value with keys in order, and 2.0 as 2."""
    if isinstance(value, Mapping):
        return {key: _comparable(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_comparable(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _prose(piece: str) -> str:
    """What a text says between its calls, the marks around these aside."""
    bare = _MARKUP.sub(" ", piece).strip()
    return "" if _FILLER.fullmatch(bare) else bare


def _apart(calls: Sequence[Call]) -> Iterator[Call]:
    """In their order; of two that overlap the one that begins first, and is longest."""
    end = 0
    for call in sorted(calls, key=lambda call: (call.start, -call.end)):
        if call.start >= end:
            yield call
            end = call.end


# In tags


def _tagged(text: str, schemas: Mapping[str, Any]) -> Iterator[Call]:
    for match in _TAGGED.finditer(text):
        name, body = match["name"] or match["plain"], match["body"] or match["pairs"] or ""
        parameters = schemas.get(name)
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        types = properties if isinstance(properties, Mapping) else {}
        arguments = {
            (pair["key"] or pair["arg_key"]).strip(): pair["value"] if pair["key"] else pair["arg_value"]
            for pair in _PARAMETER.finditer(body)
        }
        typed = {key: _typed(value.strip("\n"), types.get(key)) for key, value in arguments.items()}
        if typed or not body.strip():
            yield Call(match.start(), match.end(), name, typed)
        elif isinstance(value := _opened(body.strip()), dict):
            yield Call(match.start(), match.end(), name, value)


def _typed(text: str, schema: object) -> Any:
    """A parameter's value, which tags give as text: JSON, unless it is declared to be a text."""
    return text if isinstance(schema, Mapping) and schema.get("type") == "string" else _opened(text)


# In JSON


def _json(text: str, names: Sequence[str]) -> Iterator[Call]:
    """Objects that name their function, alone or in lists, and those behind the name of one."""
    at = before = 0
    while (start := min((place for mark in "{[" if (place := text.find(mark, at)) >= 0), default=-1)) >= 0:
        try:
            value, end = _DECODER.raw_decode(text, start)
        except ValueError:
            at = start + 1
            continue
        calls = [_named(part, names) for part in (value if isinstance(value, list) else [value])]
        near = max(before, start - _BEFORE)
        name = _last_name(text[near:start], names)
        if calls and all(calls):
            yield from (Call(start, end, *call) for call in calls[:1] if call)
            yield from (Call(end, end, *call) for call in calls[1:] if call)
        elif isinstance(value, dict) and name:
            yield Call(near + name.start(), end, name[0], value)
        else:
            at = start + 1
            continue
        at = before = end


def _named(value: object, names: Sequence[str]) -> tuple[str, Any] | None:
    """The function and arguments of an object that names them; one of `names` may do without arguments."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        return None
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    keys = [key for key in _ARGUMENTS if key in value]
    if name is None or not (keys or (name in names and value.keys() <= _BESIDE | {*_NAMES})):
        return None
    return name, value[keys[0]] if keys else {}


def _last_name(text: str, names: Sequence[str]) -> re.Match[str] | None:
    """The function that is named at the end of a text, as a word, the marks behind it aside."""
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    named = re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text) if names else iter(())
    last = max(named, key=re.Match.start, default=None)
    return last if last and not _prose(text[last.end() :]) else None


# As Python's


def _python(text: str, names: Sequence[str]) -> Iterator[Call]:
    """`name(key=value, …)` with literal values."""
    for name in names:
        for match in islice(re.finditer(rf"(?<![\w.-]){re.escape(name)}\(", text), _TRIES):
            inside = text[match.end() : match.end() + _SOURCE]
            for close in islice(re.finditer(r"\)", inside), _TRIES):
                arguments = _keywords(f"f({inside[: close.end()]}")
                if arguments is not None:
                    yield Call(match.start(), match.end() + close.end(), name, arguments)
                    break


_CONSTANTS = {"true": True, "false": False, "null": None}


def _keywords(source: str) -> dict[str, Any] | None:
    """The arguments of a call, all of them literals by name that JSON has, too."""
    try:
        call = ast.parse(source, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            return None
        arguments = {
            keyword.arg or "": _CONSTANTS[keyword.value.id]
            if isinstance(keyword.value, ast.Name)
            else ast.literal_eval(keyword.value)
            for keyword in call.keywords
        }
        return cast(dict[str, Any], json.loads(json.dumps(arguments)))
    except (SyntaxError, ValueError, KeyError, TypeError, RecursionError, MemoryError):
        return None
