"""Files that nobody would write by hand: faults, and never a traceback."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftdemo.__main__ import main
from tests.test_data_hostile import lines, turn

ROW = st.dictionaries(
    st.sampled_from(["prompt", "completion", "text", "label", "messages", "chosen", "rejected", "split", "group"]),
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(["train", "test", "Good", "good!", "â€™", "\ufffd", "a@b.cn", "<p>x</p>"]),
        st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", "x"]), "content": st.text(max_size=4)}), max_size=4),
        st.none(),
        st.integers(),
    ),
)  # fmt: skip


PIECES = [
    "text",
    "label",
    "the bus is great",
    "pos",
    "neg",
    "1",
    "0",
    "",
    " ",
    '"',
    '""',
    "'",
    "é",
    "好",
    "\ufeff",
    "\x1e",
    "#N/A",
    "q?",
]


PIECES += [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "//",
    "/*",
    "*/",
    "#",
    "null",
    "NaN",
    "None",
    '"a"',
    '{"prompt": "q", "completion": "a"}',
]


PIECES += [
    "\n",
    "\r\n",
    "\r",
    "\t",
    ";",
    "|",
    "sep=;\n",
    "[INST] a [/INST]",
    "<html>",
    "\x00",
    '"rows": [',
    '"data": [',
    '"columns": [',
]


# One row of each layout that people bring; a part of it is left out or becomes something else.
BROUGHT: list[dict[str, object]] = [
    {"messages": [turn("user", "q"), {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "content": "4"}, turn("assistant", "a", weight=0, reasoning_content="hm")], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    {"conversations": [{"from": "gpt", "value": "hi"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}},
    {"version": "2", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}]},
    {"translation": {"en": "a", "fr": "b"}},
    {"id": 1, "data": {"text": "t"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": ["x"]}}]}]},
    {"text": "t", "label": [[0, 1, "X"]]},
    {"text": "t", "accept": ["X"], "answer": "accept", "options": [{"id": "X", "text": "x"}]},
    {"text": "t u", "spans": [{"start": 0, "end": 1, "label": "X"}], "tokens": [{"text": "t", "start": 0, "end": 1}]},
    {"tokens": ["t", "u"], "ner_tags": ["B-X", "O"]},
    {"input": {"messages": [turn("user", "q")]}, "preferred_output": [turn("assistant", "a")], "non_preferred_output": [turn("assistant", "b")]},
    {"prompt": "q", "completion": "a", "label": False},
    {"prompt": "q", "messages": [turn("user", "q"), turn("assistant", "a")], "prompt_id": "1"},
    {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]},
    {"text": "### Human: q### Assistant: a"},
    {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>"},
    {"text": "[INST] q [/INST] a"},
    {"text": ["t", "u"], "label": ["x", "y"]},
    {"train": [{"text": "t", "label": "x"}], "test": [{"text": "u", "label": "x"}]},
    {"question": "q", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "B"},
    {"text": "t", "label": 1, "label_text": "good"},
    {"text": "t", "labels": ["x", "y"]},
    {"instruction": "i", "input": {"a": 1}, "output": {"b": [2]}},
    {"Category": "ham", "Message": "t", "fold": "test"},
]  # fmt: skip


ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just([]), st.just({}), st.just([None]), st.just({"a": [1]}), st.just([["a"]]), st.just("['a' 'b']"))  # fmt: skip


@st.composite
def brought(draw: st.DrawFn) -> bytes:
    """A file of one layout, with some values of its rows replaced at any depth."""
    row = draw(st.sampled_from(BROUGHT))

    def changed(value: object) -> object:
        if draw(st.integers(0, 7)) == 0:
            return draw(ODD)
        if isinstance(value, dict):
            return {key: changed(item) for key, item in value.items() if draw(st.integers(0, 9))}
        return [changed(item) for item in value] if isinstance(value, list) else value

    rows = [row, *(changed(row) for _ in range(draw(st.integers(1, 3))))]
    form = draw(st.sampled_from(["lines", "list", "indented", "one", "csv"]))
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(row)
        writer.writerows([[str(cell) for cell in made.values()] for made in rows if isinstance(made, dict)])
        return file.getvalue().encode("utf-8", "replace")
    if form == "lines":
        return lines(*rows).encode("utf-8", "replace")
    return json.dumps(rows if form != "one" else rows[-1], indent=1 if form == "indented" else None).encode()


CONTENT = st.one_of(
    brought(),
    st.lists(st.sampled_from(PIECES), max_size=40).map(lambda pieces: "".join(pieces).encode("utf-8", "replace")),
    st.binary(max_size=60),
    st.lists(ROW, min_size=1, max_size=6).map(lambda rows: lines(*rows).encode("utf-8", "surrogatepass")),
    st.text(alphabet='abc,;\t"\n{}[]:é好', max_size=60).map(str.encode),
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=CONTENT,
    suffix=st.sampled_from(["jsonl", "json", "csv", "tsv", "txt", "xlsx", "parquet", "arrow", "zip", "jsonl.gz"]),
    on_fault=st.sampled_from(["stop", "drop", "fix"]),
    clean=st.sampled_from(["", "html,whitespace,personal,duplicates,near_duplicates,leaks"]),
    balance=st.sampled_from(["none", "over", "under", "weights"]),
)
def test_check_never_shows_a_traceback_and_never_writes(
    tmp_path_factory, capsys, monkeypatch, content, suffix, on_fault, clean, balance
):
    folder = tmp_path_factory.mktemp("fuzz")
    monkeypatch.setenv("SFTDEMO_HOME", str(folder / "home"))
    path: Path = folder / f"rows.{suffix}"
    path.write_bytes(content)
    flags = ["--on-fault", on_fault, "--clean", clean, "--balance", balance, "--model", str(folder / "none")]
    for json_flag in ([], ["--json"]):
        status = main(["check", str(path), *flags, *json_flag])
        said = capsys.readouterr()
        assert status in (0, 1, 2) and "Traceback" not in said.err
        if said.out and json_flag:
            found = json.loads(said.out)
            assert (status == 1) == bool(found["faults"])
            assert {"warnings", "dropped", "fixed", "cleaning", "mapping", "columns", "split_sizes"} <= found.keys()
    assert [item.name for item in folder.iterdir()] == [path.name] and path.read_bytes() == content
