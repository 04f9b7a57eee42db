"""Every layout and file type read, every fault with its exact words."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftdemo.config import TrainConfig
from sftdemo.config.read import ReadConfig
from sftdemo.data import Dataset, read, split
from sftdemo.data.files.readers import read_table
from sftdemo.errors import DataError, UsageError, UserError

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


@pytest.fixture
def load(tmp_path: Path):
    """Write a file and read it."""

    def write_and_read(content: str | bytes, name: str = "rows.jsonl", **settings: object) -> Dataset:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(path, **settings)

    return write_and_read


def turns(dataset: Dataset, index: int = 0) -> list[str]:
    return [turn["content"] for turn in dataset.splits["train"][index]["messages"]]


LAYOUTS = [
    ("messages", "chat", {"messages": TURNS}, "Hi", "Hello!"),
    (
        "sharegpt",
        "chat",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]},
        "Hi",
        "Hello!",
    ),
    ("prompt_completion", "generation", {"prompt": "1+1?", "completion": "2"}, "1+1?", "2"),
    ("prompt_completion", "generation", {"Question": "1+1?", "Answer": "2"}, "1+1?", "2"),
    ("instruction", "generation", {"instruction": "Add.", "input": "1 1", "output": "2"}, "Add.\n\n1 1", "2"),
    ("instruction", "generation", {"instruction": "Say hi.", "input": "", "output": "hi"}, "Say hi.", "hi"),
    ("instruction", "generation", {"instruction": "Say hi.", "output": "hi"}, "Say hi.", "hi"),
    ("source_target", "generation", {"source": "cat", "target": "chat"}, "Translate:\ncat", "chat"),
    ("source_target", "generation", {"source": "cat", "target": "猫"}, "Translate to Chinese:\ncat", "猫"),
    ("source_target", "generation", {"source": "猫", "target": "cat"}, "Translate to English:\n猫", "cat"),
    (
        "text_label",
        "classification",
        {"text": "Nice", "label": "good"},
        "Classify this text as one of: good. Answer with the label only.\n\nNice",
        "good",
    ),
    (
        "text_label",
        "classification",
        {"文本": "好", "标签": "正面"},
        "判断下面的文本属于哪一类：正面。只回答类别。\n\n好",
        "正面",
    ),
]


@pytest.mark.parametrize(("layout", "task", "row", "question", "answer"), LAYOUTS)
def test_layouts_are_found(load, layout, task, row, question, answer):
    dataset = load(lines(row))
    assert (dataset.format, dataset.task, dataset.faults) == (layout, task, [])
    assert turns(dataset) == [question, answer]
    assert turns(load(lines(row), format=layout)) == [question, answer]


PAIRS = [{"text": "Nice, really", "label": "good"}, {"text": 'So "bad"\nit is', "label": "bad"}]
CSV = 'text,label\n"Nice, really",good\n"So ""bad""\nit is",bad\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(*PAIRS)),
        ("a.jsonl", "\ufeff\n" + lines(*PAIRS)),
        ("a.jsonl", json.dumps(PAIRS, indent=1)),
        ("a.json", json.dumps(PAIRS)),
        ("a.json", lines(*PAIRS)),
        ("a.json", json.dumps({"note": {"data": 1}, "data": PAIRS}, indent=2)),
        ("a.jsonl", json.dumps({"data": PAIRS})),
        ("a.csv", CSV),
        ("a.csv", "\ufeff" + CSV.replace("\n", "\r\n").replace("bad\"\"\r\n", "bad\"\"\n")),
        ("a.csv", 'text;label\n"Nice, really";good\n"So ""bad""\nit is";bad\n'),
        ("a.tsv", 'text\tlabel\nNice, really\tgood\n"So ""bad""\nit is"\tbad\n'),
        ("a.txt", 'text|label\nNice, really|good\n"So ""bad""\nit is"|bad\n'),
    ],
)  # fmt: skip
def test_file_types(load, name, content):
    dataset = load(content, name)
    assert dataset.faults == []
    assert [example["label"] for example in dataset.splits["train"]] == ["good", "bad"]
    assert turns(dataset, 1)[0].endswith('So "bad"\nit is')
    assert dataset.labels == {"bad": 1, "good": 1}
    assert dataset.mapping == {"text": "text", "label": "label"}


def test_lines_are_counted_in_every_type(load):
    bad = {"text": "", "label": "x"}
    for name, content, line in [
        ("a.jsonl", lines(PAIRS[0], "", bad), 3),
        ("a.json", json.dumps([PAIRS[0], bad], indent=1), 6),
        ("a.csv", 'text,label\n"two\nlines",x\n,x\n', 4),
    ]:
        assert [(fault.line, fault.field) for fault in load(content, name).faults] == [(line, "text")]


def test_what_json_lacks_is_read_from_parquet_as_text_and_numbers(tmp_path):
    import pyarrow
    import pyarrow.parquet

    days = [datetime.datetime(2024, 1, 1 + number, 9, 30) for number in range(3)]
    columns = {
        "text": pyarrow.array([f"row {number}".encode() for number in range(3)], pyarrow.binary()),
        "label": [Decimal("4.5"), Decimal(1), Decimal(1)],
        "at": days,
        "took": [datetime.timedelta(seconds=number) for number in range(3)],
        "tags": pyarrow.array([[("k", 1)], [], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "share": [0.5, math.nan, None],
        "image": [{"bytes": b"\xff\x00"}] * 3,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path := tmp_path / "rows.parquet")
    dataset = read(path, instruction="{text}, {at}, {took}")
    assert not dataset.faults and dataset.labels == {"1": 2, "4.5": 1}
    assert "rows.parquet: columns of bytes that are no text are not read: 'image'." in dataset.notes
    asked = {row["meta"]["line"]: row["messages"][0]["content"] for part in dataset.splits.values() for row in part}
    assert asked == {number: f"row {number - 1}, 2024-01-0{number} 09:30, 0:00:0{number - 1}" for number in (1, 2, 3)}
    rows = read_table(path.name, path.read_bytes()).rows
    assert [(row.values["tags"], row.values["share"]) for row in rows] == [({"k": 1}, 0.5), ([], None), (None, None)]


def test_parquet(tmp_path, load):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    rows = [{"text": "a b", "label": 1}, {"text": "c d", "label": 0}, {"text": None, "label": 0}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    dataset = read(path)
    assert dataset.labels == {"0": 1, "1": 1}
    assert [str(fault) for fault in dataset.faults] == [
        "rows.parquet, line 3, field 'text': The field is missing. Fill it in, or remove the row."
    ]
    (fault,) = load(b"PAR1 and no more", "a.parquet").faults
    assert fault.line == 0
    assert fault.problem.startswith("This isn't a Parquet file that can be read: ")


def test_labels_become_text(load):
    dataset = load(lines(*({"text": f"t {value}", "label": value} for value in (1, 2.0, 0.5, True, False, " x "))))
    assert sorted(dataset.labels) == ["0.5", "1", "2", "false", "true", "x"]
    assert dataset.faults == []


def test_many_labels_are_not_listed(load):
    few = load(lines(*({"text": f"t{i}", "label": f"l{i}"} for i in range(8))))
    assert turns(few)[0] == (
        "Classify this text as one of: l0, l1, l2, l3, l4, l5, l6, l7. Answer with the label only.\n\nt0"
    )
    for count, label in ((9, "l"), (2, "a label of more than forty characters, see")):
        many = load(lines(*({"text": f"t{i}", "label": f"{label}{i}"} for i in range(count))))
        assert turns(many)[0] == "Classify this text. Answer with the label only.\n\nt0"
    chinese = load(lines(*({"text": f"文{i}", "label": "类" + "甲乙丙丁戊己庚辛壬"[i]} for i in range(9))))
    assert turns(chinese)[0] == "判断下面的文本属于哪一类。只回答类别。\n\n文0"


def test_columns_instruction_and_system(load):
    content = lines({"tweet": "Nice {text}", "mood": "good", "text": "wrong", "user": 7})
    dataset = load(
        content, columns="text=tweet, label=mood", instruction="Say {{how}} {user} feels: {text}", system="Be short."
    )
    assert dataset.faults == []
    assert turns(dataset) == ["Be short.", "Say {how} 7 feels: Nice {text}", "good"]
    assert dataset.mapping == {"text": "tweet", "label": "mood"}
    plain = load(content, columns="text=tweet,label=mood", instruction="How do they feel?")
    assert turns(plain)[0] == "How do they feel?\n\nNice {text}"
    # Other data asked with the template a data set reports is asked the same way.
    default = load(content, columns="text=tweet,label=mood")
    again = load(content, columns="text=tweet,label=mood", instruction=default.instruction)
    assert turns(again) == turns(default)


def test_a_column_with_a_comma_is_named_in_quotes(load):
    dataset = load(lines({"text, raw": "Nice", "a=b": "good"}), columns='"text=text, raw", label=a=b')
    assert dataset.faults == [] and dataset.mapping == {"text": "text, raw", "label": "a=b"}


def test_system_prompts_of_the_rows_win(load):
    dataset = load(lines({"messages": [{"role": "system", "content": "Mine"}, *TURNS]}), system="Yours")
    assert turns(dataset)[0] == "Mine"


def test_split_group_references_and_label_of_a_saved_example(load):
    rows = [
        {"messages": TURNS, "split": "train", "group": 3, "references": ["Hey!", "Hello!"]},
        {"messages": TURNS, "split": "Dev", "label": "Hello!"},
        {"messages": TURNS, "split": "test", "references": []},
    ]
    dataset = load(lines(*rows))
    assert {name: len(part) for name, part in dataset.splits.items()} == {"train": 1, "validation": 1, "test": 1}
    assert dataset.splits["train"][0]["references"] == ["Hey!", "Hello!"]
    assert dataset.splits["train"][0]["meta"] == {"line": 1, "group": "3"}
    assert dataset.splits["validation"][0]["label"] == "Hello!"
    assert dataset.task == "chat"
    csv = load('prompt,completion,references\na,b,"[""c"", ""d""]"\ne,f,g\n', "a.csv")
    assert [example["references"] for example in csv.splits["train"]] == [["c", "d"], ["g"]]


SETTINGS = [
    ({"columns": "text=tweet"}, "columns names 'tweet', which no row has; there are: 'text', 'label'."),
    ({"columns": "text"}, "columns has 'text'; write role=column pairs, as text=tweet,label=mood."),
    (
        {"columns": "body=text"},
        "columns names the role 'body'; the roles are: chosen, rejected, prompt, input, messages, desirable, "
        "conversations, instruction, output, context, title, options, reasoning, completion, document, summary, text, label, pair, "
        "source, target, entities, split, group, references, system, history, tools.",
    ),
    (
        {"instruction": "Say {what}"},
        "The instruction has the placeholder {what}, which is no column; there are: {text}, {label}. "
        "Write a brace itself twice: {{ or }}.",
    ),
    ({"instruction": "{text} is {label}"}, "The instruction shows {label}, the answer itself; take it out."),
    ({"data": " "}, "No data is named; give a file, a folder, a sample or a Hub id."),
    (
        {"format": "alpaca"},
        "format is 'alpaca'; choose one of: auto, messages, sharegpt, prompt_completion, instruction, text_label, "
        "source_target, preference, summary, extraction.",
    ),
    (
        {"seeds": 1},
        "Unknown setting seeds; known are: balance, clean, columns, data, edits, encoding, format, header, instruction, "
        "max_characters, min_characters, on_fault, seed, sheet, system, test_size, validation_size.",
    ),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=range(len(SETTINGS)))
def test_settings_that_do_not_fit(load, settings, message):
    with pytest.raises(UserError) as caught:
        load(lines(*PAIRS), **settings)
    assert str(caught.value) == message


def test_chats_take_no_instruction(load):
    with pytest.raises(UserError, match="An instruction can't be put into messages rows; give a system prompt"):
        load(lines({"messages": TURNS}), instruction="{messages}")


def test_a_layout_that_does_not_fit(load):
    (fault,) = load(lines(*PAIRS), format="source_target").faults
    assert fault.problem == "The layout source_target needs other columns: 'text', 'label'."
    assert fault.remedy == "Name them with columns, as text=tweet,label=mood; it is: source_target (source, target)."


def test_read_takes_any_config(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*PAIRS))
    assert read(ReadConfig(data=str(path))) == read(TrainConfig(data=str(path))) == read(str(path))
    with pytest.raises(UsageError):
        read(ReadConfig(data=str(path)), seed=-1)


def test_twenty_thousand_rows_take_a_moment(tmp_path):
    path = tmp_path / "big.jsonl"
    row = '{"prompt": "What is %d plus one, said as a sentence of some length?", "completion": "It is %d."}\n'
    path.write_text("".join(row % (index, index + 1) for index in range(20_000)))
    start = time.process_time()
    dataset = read(path)
    assert time.process_time() - start < 4
    assert (dataset.examples, dataset.faults, dataset.duplicates) == (20_000, [], 0)


KEYS = [
    "messages",
    "conversations",
    "role",
    "from",
    "content",
    "value",
    "prompt",
    "completion",
    "text",
    "label",
    "data",
]
KEYS += ["split", "group", "references"]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(max_size=80), st.lists(JSON, max_size=4).map(lambda rows: lines(*rows).encode())),
    suffix=st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]),
)
def test_any_bytes_give_faults_and_no_traceback(load, content, suffix):
    dataset = load(content, f"rows.{suffix}")
    assert dataset.faults or dataset.examples
    with contextlib.suppress(DataError):
        split(dataset, 0)
