"""Files made for OpenAI's fine-tuning: each field does here what docs/openai.md says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sftdemo import data, files
from sftdemo.config.read import ReadConfig

ASKED = {"role": "user", "content": "Weather in Rome?"}
CALL = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
TOOL = {"name": "get_weather", "description": "w", "parameters": {"type": "object", "properties": {}}}
TOOL_CALL = {"id": "c1", "type": "function", "function": CALL}
CALLED = {"role": "assistant", "tool_calls": [TOOL_CALL]}
SAID = {"role": "assistant", "content": "Sunny."}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def read(folder: Path, row: dict[str, Any]) -> data.Dataset:
    files.write_jsonl(folder / "train.jsonl", [row, row])
    return data.read(ReadConfig(data=str(folder / "train.jsonl")))


def learned(dataset: data.Dataset) -> dict[str, Any]:
    assert not dataset.faults, dataset.faults
    return dict(next(iter(dataset.splits.values()))[0])


@pytest.mark.parametrize(
    ("row", "last"),
    [
        ({"messages": [{"role": "developer", "content": "Be brief."}, ASKED, SAID]}, {"content": "Sunny."}),
        ({"messages": [ASKED, {**SAID, "weight": 0}, ASKED, {**SAID, "weight": 1}]}, {"content": "Sunny."}),
        ({"messages": [{**ASKED, "name": "ann"}, {**SAID, "name": "bot"}]}, {"name": "bot"}),
        ({"messages": [ASKED, {"role": "assistant", "content": [{"type": "text", "text": "Sunny."}]}]}, {"content": "Sunny."}),
        ({"messages": [ASKED, CALLED], "tools": [{"type": "function", "function": TOOL}]}, {"content": ""}),
        ({"messages": [ASKED, {"role": "assistant", "function_call": CALL}], "functions": [TOOL]}, {"content": ""}),
        ({"input": {"messages": [ASKED]}, "preferred_output": [SAID], "non_preferred_output": [{**SAID, "content": "No."}]}, {"content": "Sunny."}),
        ({"prompt": "Weather in Rome? ->", "completion": " Sunny."}, {"content": "Sunny."}),
    ],
    ids=["developer", "weight", "name", "parts", "tools", "functions", "dpo", "completion"],
)  # fmt: skip
def test_what_is_read(tmp_path: Path, row: dict[str, Any], last: dict[str, Any]) -> None:
    dataset = read(tmp_path, row)
    example = learned(dataset)
    answer = example["messages"][-1]
    assert {key: answer[key].strip() if isinstance(answer[key], str) else answer[key] for key in last} == last
    if "tools" in row or "functions" in row:
        assert example["tools"][0]["function"]["name"] == "get_weather"
        assert answer["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": {"city": "Rome"}}
    if "preferred_output" in row:
        assert any("rejected one is left aside" in str(note) for note in dataset.notes)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}, SAID]}, "holds an image"),
        ({"messages": [ASKED, {"role": "assistant", "content": None, "refusal": "I can't."}]}, "has no content"),
        ({"messages": [ASKED], "answer": "Sunny."}, "no assistant turn"),
    ],
    ids=["image", "refusal", "reinforcement"],
)  # fmt: skip
def test_what_is_refused_with_its_line(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    fault = read(tmp_path, row).faults[0]
    assert problem in str(fault.problem) and fault.line == 1


def test_a_validation_file_stands_beside_the_training_file(tmp_path: Path) -> None:
    for name, asked in (("train", "a"), ("validation", "b")):
        files.write_jsonl(tmp_path / f"{name}.jsonl", [{"messages": [{"role": "user", "content": asked}, SAID]}])
    sizes = {name: len(rows) for name, rows in data.read(ReadConfig(data=str(tmp_path))).splits.items()}
    assert sizes == {"train": 1, "validation": 1}


def test_both_languages_say_the_same_of_the_same_fields() -> None:
    pytest.importorskip("gradio")
    from sftdemo.ui.tabs.coming_from import guide

    fields = [
        {part for part in re.findall(r"`([^`\n]+)`", guide(lang)) if part.isascii() and part != "--data FILE"}
        for lang in ("en", "zh")
    ]
    assert fields[0] == fields[1]
