"""Rows that APIs and public sets nest (SQuAD, WMT, OpenAI's preference form, Gemini, UltraChat, ChatGPT's export), and files that
are one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sftdemo.data.files.table import split_name
from sftdemo.data.text.literals import parsed

Values = dict[str, Any]
_CHATS = ("messages", "conversations", "conversation", "contents", "dialog", "dialogue")
_ROLES = ("role", "from", "speaker")
_SERVED = {"row_idx", "row", "truncated_cells"}


def _rest(values: Values, *used: str) -> Values:
    return {column: value for column, value in values.items() if column not in used}


def is_squad(values: Values) -> bool:
    paragraphs = values["paragraphs"]
    return isinstance(paragraphs, list) and all(isinstance(part, dict) and "qas" in part for part in paragraphs)


def squad(values: Values) -> Iterator[Values]:
    """A row for each question of SQuAD's nested form."""
    for paragraph in values["paragraphs"]:
        for question in paragraph["qas"] if isinstance(paragraph["qas"], list) else ():
            columns = (
                _rest(question, "id", "is_impossible", "plausible_answers")
                if isinstance(question, dict)
                else {"question": None}
            )
            answers: Any = columns.pop("answers", columns.pop("answer", []))
            yield {
                **_rest(values, "paragraphs"),
                **_rest(paragraph, "qas", "document_id"),
                **columns,
                "answers": answers if isinstance(answers, list) else [answers],
            }


def is_translation(values: Values) -> bool:
    texts = values["translation"]
    texts = parsed(texts) if isinstance(texts, str) else texts
    return isinstance(texts, dict) and len(texts) > 1 and all(isinstance(text, str | None) for text in texts.values())


def translation(values: Values) -> Iterator[Values]:
    texts = values["translation"]
    yield {**_rest(values, "translation"), **(parsed(texts) if isinstance(texts, str) else texts)}


def is_openai_preference(values: Values) -> bool:
    return isinstance(values["input"], dict) and isinstance(values["input"].get("messages"), list)


def openai_preference(values: Values) -> Iterator[Values]:
    used = ("input", "preferred_output", "non_preferred_output")
    yield {
        **_rest(values, *used),
        **_rest(values["input"], "messages", "parallel_tool_calls", "tools"),
        **({"tools": values["input"]["tools"]} if values["input"].get("tools") else {}),
        "prompt": values["input"]["messages"],
        "chosen": values["preferred_output"],
        "rejected": values["non_preferred_output"],
    }


def is_gemini(values: Values) -> bool:
    turns = values["contents"]
    return isinstance(turns, list) and bool(turns) and all(isinstance(turn, dict) and "parts" in turn for turn in turns)


def gemini(values: Values) -> Iterator[Values]:
    system = values.get("systemInstruction") or values.get("system_instruction")
    turns = [{"role": "system", "content": _gemini_parts(system)}] if system else []
    for turn in values["contents"]:
        parts = turn["parts"] if isinstance(turn["parts"], list) else [turn["parts"]]
        results = [
            part["functionResponse"] for part in parts if isinstance(part, dict) and part.get("functionResponse")
        ]
        turns += [{"role": "tool", "name": result.get("name"), "content": result.get("response")} for result in results]
        calls = [part["functionCall"] for part in parts if isinstance(part, dict) and part.get("functionCall")]
        if len(results) < len(parts):
            named = {"role": turn.get("role") or "user", "content": _gemini_parts(turn)}
            tool_calls = [{"name": call.get("name"), "arguments": call.get("args")} for call in calls]
            turns.append({**named, **({"tool_calls": tool_calls} if tool_calls else {})})
    yield {**_rest(values, "contents", "systemInstruction", "system_instruction"), "messages": turns}


def _gemini_parts(turn: Any) -> Any:
    """The text of a turn; content that can't be read stays in its parts, to be told as a fault."""
    parts = turn.get("parts") if isinstance(turn, dict) else turn
    listed = [part for part in (parts if isinstance(parts, list) else [parts]) if not _is_call(part)]
    texts = [part.get("text") if isinstance(part, dict) else part for part in listed]
    if all(isinstance(text, str) for text in texts):
        return "".join(map(str, texts))
    return [part if isinstance(text, str) else _unread(part) for part, text in zip(listed, texts, strict=True)]


def _unread(part: Any) -> dict[str, Any]:
    """A part that isn't text, with its kind ("inlineData") for a type."""
    return {"type": next(iter(part), "part") if isinstance(part, dict) else "part"}


def _is_call(part: Any) -> bool:
    return isinstance(part, dict) and bool(part.get("functionCall") or part.get("functionResponse"))


def is_spacy(values: Values) -> bool:
    return isinstance(values["annotations"], dict) and isinstance(values["annotations"].get("entities"), list)


def spacy(values: Values) -> Iterator[Values]:
    yield {**_rest(values, "annotations"), **values["annotations"]}


def is_ultrachat(values: Values) -> bool:
    texts = values["data"]
    return isinstance(texts, list) and len(texts) > 1 and all(isinstance(text, str) for text in texts)


def ultrachat(values: Values) -> Iterator[Values]:
    yield {**_rest(values, "data"), "messages": values["data"]}


def is_chatgpt(values: Values) -> bool:
    nodes = values["mapping"]
    return isinstance(nodes, dict) and isinstance(nodes.get(values["current_node"]), dict)


def chatgpt(values: Values) -> Iterator[Values]:
    """A conversation of ChatGPT's export: of its tree, the branch that was shown last. Hidden turns and tools' work stay aside."""
    nodes, at, turns = dict(values["mapping"]), values["current_node"], []
    while isinstance(node := nodes.pop(at, None), dict):  # each once, also where a damaged file leads in a circle
        message = node.get("message") or {}
        role, content = (message.get("author") or {}).get("role"), message.get("content") or {}
        shown = role in ("user", "assistant") and message.get("recipient", "all") == "all"
        if shown and content.get("content_type") in ("text", "multimodal_text"):
            texts = [part if isinstance(part, str) else _unread(part) for part in content.get("parts") or ()]
            written = all(isinstance(part, str) for part in texts)
            turns.append({"role": role, "content": "".join(map(str, texts)) if written else texts})
        at = node.get("parent")
    said = [turn for turn in reversed(turns) if turn["content"]]
    yield {**_rest(values, "mapping", "current_node"), "messages": said}


def opened(values: Values) -> list[tuple[Values, str | None]] | None:
    """The rows of a file that is one object, with the split each stands under; None for an object that is a row itself.

    {"train": [row, …], "test": […]}, {"text": [cell, …], "label": […]} (also with row numbers as keys), {"rows": [row, …]}.
    """
    filled = {column: value for column, value in values.items() if isinstance(value, list | dict) and value}
    if filled and all(map(split_name, filled)):
        parts = {column: _rows(value) for column, value in filled.items()}
        if all(parts.values()):
            return [(row, split_name(column)) for column, rows in parts.items() for row in rows or ()]
    if any(column in _CHATS for column in values):
        return None
    if columns := _columns(values):
        return [(row, None) for row in columns]
    lists = {column: rows for column, value in filled.items() if isinstance(value, list) and (rows := _rows(value))}
    if len(lists) == 1 and len(filled) == 1:
        rows = next(iter(lists.values()))
        return None if any(key in rows[0] for key in _ROLES) else [(row, None) for row in rows]
    return None


def _rows(value: Any) -> list[Values] | None:
    """A list of objects, or an object of columns, as rows."""
    if isinstance(value, dict):
        return _columns(value)
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return [row["row"] if row.keys() <= _SERVED and isinstance(row.get("row"), dict) else row for row in value]
    return None


def _columns(values: Values) -> list[Values] | None:
    """The rows of columns of equal length; a column is a list of cells, or {row number: cell}."""
    if len(values) < 2 or not all(isinstance(column, list | dict) and column for column in values.values()):
        return None
    cells = [column.values() if isinstance(column, dict) else column for column in values.values()]
    plain = all(isinstance(cell, str | int | float | None) for column in cells for cell in column)
    numbered = all(isinstance(column, list) or all(key.isdigit() for key in column) for column in values.values())
    if not plain or not numbered or len({len(column) for column in values.values()}) > 1 or "tokens" in values:
        return None
    return [dict(zip(values, row, strict=True)) for row in zip(*cells, strict=True)]
