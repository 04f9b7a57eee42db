"""Conversations as chat APIs and data sets write them: tools, thoughts, weights, and what is read but never learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftdemo.data import read
from sftdemo.data.values.conversations import NOT_LEARNED, OPENING, TRIMMED
from sftdemo.errors import fill
from sftdemo.files import write_jsonl

ASK = {"role": "user", "content": "How many screws?"}
CALL = {"type": "function", "function": {"name": "stock", "arguments": {"item": "screw"}}}
RESULT, SAY = {"role": "tool", "content": "40"}, {"role": "assistant", "content": "Forty."}
SCHEMA = {"name": "stock", "description": "units left", "parameters": {"type": "object", "properties": {}}}


def loaded(tmp_path: Path, *rows: dict[str, Any], **settings: Any) -> Any:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return read(tmp_path / "rows.jsonl", **settings)


def called(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", **more}


WITH_CALL = [ASK, called(tool_calls=[CALL]), RESULT, SAY]
CALLS = [
    [ASK, called(tool_calls=[CALL]), RESULT, SAY],
    [ASK, called(tool_calls=[{**CALL, "function": {**CALL["function"], "arguments": '{"item": "screw"}'}}]), RESULT, SAY],
    [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL["function"]]}, {**RESULT, "role": "function"}, SAY],
    [ASK, called(function_call={"name": "stock", "arguments": '{"item": "screw"}'}), RESULT, SAY],
    [
        {"from": "human", "value": ASK["content"]},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "observation", "value": "40"},
        {"from": "gpt", "value": "Forty."},
    ],
    [
        ASK,
        {"role": "assistant", "content": [{"type": "tool_use", "name": "stock", "input": {"item": "screw"}}]},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "40"}]}]},
        SAY,
    ],
]  # fmt: skip


@pytest.mark.parametrize("turns", CALLS)
def test_tool_calls_of_every_spelling(tmp_path, turns):
    dataset = loaded(tmp_path, {"messages": turns})
    assert dataset.faults == []
    assert dataset.splits["train"][0]["messages"] == WITH_CALL


@pytest.mark.parametrize(
    "tools", [[SCHEMA], [{"type": "function", "function": SCHEMA}], json.dumps([SCHEMA]), [json.dumps(SCHEMA)],
              [{"functionDeclarations": [SCHEMA]}]]
)  # fmt: skip
def test_tools_are_passed_on(tmp_path, tools):
    dataset = loaded(tmp_path, {"messages": WITH_CALL, "tools": tools})
    assert dataset.splits["train"][0]["tools"] == [{"type": "function", "function": SCHEMA}]


def test_calls_that_follow_words_belong_to_them(tmp_path):
    turns = [
        {"from": "human", "value": "Screws and nails?"},
        {"from": "gpt", "value": "I'll look."},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "function_call", "value": json.dumps({"name": "stock", "arguments": {"item": "nail"}})},
        {"from": "observation", "value": "40"},
        {"from": "observation", "value": "7"},
        {"from": "gpt", "value": "Both."},
    ]
    dataset = loaded(tmp_path, {"conversations": turns})
    said = dataset.splits["train"][0]["messages"]
    assert [turn["role"] for turn in said] == ["user", "assistant", "tool", "tool", "assistant"]
    assert said[1]["content"] == "I'll look." and len(said[1]["tool_calls"]) == 2


THOUGHTS = [
    {"role": "assistant", "content": "5", "reasoning_content": "two and three"},
    {"role": "assistant", "content": "5", "thinking": "two and three"},
    {"role": "assistant", "content": "<think>\ntwo and three\n</think>\n\n5"},
    {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "two and three"}, {"type": "text", "text": "5"}],
    },
]


@pytest.mark.parametrize("turn", THOUGHTS)
def test_thoughts_stand_apart(tmp_path, turn):
    dataset = loaded(tmp_path, {"messages": [{"role": "user", "content": "2+3?"}, turn]})
    assert dataset.splits["train"][0]["messages"][-1] == THOUGHTS[0]


def test_thoughts_of_plain_answers(tmp_path):
    row = {"prompt": "2+3?", "completion": "<think>two and three</think>5"}
    assert loaded(tmp_path, row).splits["train"][0]["messages"][-1] == THOUGHTS[0]
    row["completion"] = "<think>no answer</think>"
    assert loaded(tmp_path, row).splits["train"][0]["messages"][-1]["content"] == "<think>no answer</think>"


def learned(dataset: Any) -> list[list[str]]:
    """What is learned of each row, answer by answer."""
    return [
        [turn["content"] for turn in row["messages"] if turn["role"] == "assistant" and turn.get("weight") != 0]
        for row in dataset.splits.get("train", [])
    ]


AGAIN = {"role": "user", "content": "Again?"}
WRONG = {"role": "assistant", "content": "None.", "weight": 0}
UNLEARNED = [
    ([ASK, WRONG, AGAIN, {**SAY, "weight": 1}], [["Forty."]], [fill(NOT_LEARNED, {"n": 1})]),
    ([ASK, {**WRONG, "weight": None, "train": False}, AGAIN, SAY], [["Forty."]], [fill(NOT_LEARNED, {"n": 1})]),
    ([ASK, SAY, AGAIN, WRONG], [["Forty."]], [fill(TRIMMED, {"n": 1})]),
    ([SAY, ASK, {**SAY, "content": "Still forty."}], [["Still forty."]], [fill(OPENING, {"n": 1})]),
    ([ASK, WRONG], [], ["1 row was left out: no turn is to be learned (weight 0)."]),
    ([ASK, called(tool_calls=[CALL]), RESULT], [[""]], [fill(TRIMMED, {"n": 1})]),
]


@pytest.mark.parametrize(("turns", "answers", "notes"), UNLEARNED)
def test_what_is_only_read(tmp_path, turns, answers, notes):
    dataset = loaded(tmp_path, {"messages": turns})
    assert learned(dataset) == answers and dataset.notes == notes
    last = [row["messages"][-1] for row in dataset.splits.get("train", [])]
    assert all(turn["role"] == "assistant" and turn.get("weight") != 0 for turn in last)


SHAPES = [
    ["Hi", "Hello!"],
    [["Hi", "Hello!"]],
    [{"human": "Hi", "assistant": "Hello!"}],
    {"role": ["user", "assistant"], "content": ["Hi", "Hello!"]},
    "[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': 'Hello!'}]",
    [{"speaker": "customer", "text": "Hi"}, {"speaker": "agent", "text": "Hello!"}],
]


@pytest.mark.parametrize("turns", SHAPES)
def test_lists_of_turns_in_other_shapes(tmp_path, turns):
    dataset = loaded(tmp_path, {"conversation": turns})
    assert [turn["content"] for turn in dataset.splits["train"][0]["messages"]] == ["Hi", "Hello!"]


def test_a_faulty_conversation_is_one_rows_fault(tmp_path):
    good, empty = [ASK, SAY], [ASK, {"role": "assistant", "content": " "}]
    rows = [{"messages": turns} for turns in (good, [ASK, {**SAY, "weight": "x"}], empty)]
    assert [fault.line for fault in loaded(tmp_path, *rows).faults] == [2, 3]
    dropped = loaded(tmp_path, *rows, on_fault="drop")
    assert (dropped.examples, dropped.faults, len(dropped.dropped)) == (1, [], 2)
    system = {"role": "system", "content": "Be kind."}
    fixed = loaded(tmp_path, {"messages": [system, system, ASK, SAY, AGAIN]}, on_fault="fix")
    assert [turn["content"] for turn in fixed.splits["train"][0]["messages"]] == [
        "Be kind.\n\nBe kind.", ASK["content"], "Forty.",
    ]  # fmt: skip


def test_cleaning_reaches_thoughts_and_calls(tmp_path):
    call = {"name": "mail", "arguments": {"to": ["ann@example.org"]}}
    turns = [ASK, called(tool_calls=[call], reasoning_content="ask ann@example.org"), RESULT, SAY]
    dataset = loaded(tmp_path, {"messages": turns}, clean="personal")
    turn = dataset.splits["train"][0]["messages"][1]
    assert turn["tool_calls"][0]["function"]["arguments"] == {"to": ["<EMAIL>"]}
    assert turn["reasoning_content"] == "ask <EMAIL>" and turn["content"] == ""


def test_calls_tell_rows_apart(tmp_path):
    rows = [{"messages": [ASK, called(tool_calls=[{"name": "stock", "arguments": {"item": item}}])]} for item in "abb"]
    assert loaded(tmp_path, *rows).duplicates == 1


def test_a_share_of_a_turn_is_no_weight(tmp_path: Path) -> None:
    """A weight of 0.5 once counted as 1, unsaid."""
    path = tmp_path / "a.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}]
    path.write_text(json.dumps({"messages": turns}))
    [fault] = read(str(path)).faults
    assert fault.problem == "Turn 2 has the weight 0.5."
