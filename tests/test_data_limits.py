"""Limits of data: one plain line each, no step that grows faster than the data, and a child process for the page."""

from __future__ import annotations

import gzip
import io
import json
import random
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sftdemo.config import TrainConfig
from sftdemo.config.read import ReadConfig
from sftdemo.data import outlook, read
from sftdemo.data.limits import OWNER, VISITOR, OverLimit
from sftdemo.errors import Superseded, UsageError, UserError
from sftdemo.system import bounded
from sftdemo.verbs import check

pytestmark = pytest.mark.slow

PAIR = {"prompt": "What is it?", "completion": "A fish."}


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def packed(members: int, content: str = "text,label\na,b\n") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members):
            archive.writestr(f"train-{number}.csv", content)
    return file.getvalue()


def parquet(rows: int) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a b c"] * rows, "completion": ["d"] * rows}), file)
    return file.getvalue()


def workbook(sheets: int) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    for number in range(sheets):
        book.create_sheet(f"S{number}").append(["prompt", "completion"])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


OVER: list[tuple[dict[str, int], str, str | bytes, str]] = [
    ({"file_bytes": 50}, "a.csv", "text,label\n" + "a,b\n" * 20, "The file has 91 bytes; the most is 50 bytes."),
    ({"unpacked_bytes": 60}, "a.csv.gz", gzip.compress(b"text,label\n" + b"a,b\n" * 20), "Unpacked the file has more than 60 bytes"),
    ({"unpacked_bytes": 20_000}, "a.parquet", parquet(5000), "Unpacked the file has more than 20,000 bytes"),
    ({"ratio": 50}, "a.jsonl.gz", gzip.compress(b" " * 12_000_000), "more than 50 times its own size"),
    ({"members": 3}, "a.zip", packed(4), "The archive holds 4 files or sheets; the most is 3."),
    ({"members": 3}, "a.xlsx", workbook(4), "The archive holds 5 files or sheets; the most is 3."),
    ({"rows": 9}, "a.csv", "prompt,completion\n" + "a,b\n" * 10, "more than 9 rows"),
    ({"rows": 9}, "a.jsonl", jsonl(*[PAIR] * 10), "more than 9 rows"),
    ({"rows": 9}, "a.parquet", parquet(10), "more than 9 rows"),
    ({"columns": 5}, "a.csv", "a,b,c,d,e,f\n1,2,3,4,5,6\n", "The data has 6 columns; the most is 5."),
    ({"columns": 5}, "a.jsonl", jsonl(*({**PAIR, f"k{n}": 1} for n in range(4))), "The data has 6 columns; the most is 5."),
    ({"cells": 12}, "a.csv", "a,b\n" + "1,2\n" * 6, "more than 12 cells"),
    ({"characters": 100}, "a.jsonl", jsonl(PAIR, {**PAIR, "prompt": "x" * 200}), "The row has 207 characters; the most is 100."),
    ({"items": 4}, "a.jsonl", jsonl(PAIR, {**PAIR, "references": ["x"] * 5}), "A list in the row has 5 items; the most is 4."),
    ({"depth": 3}, "a.jsonl", jsonl(PAIR, {**PAIR, "x": [[[[1]]]]}), "nested 5 deep; the most is 3."),
    ({"labels": 2}, "a.csv", "text,label\n" + "".join(f"some text {n},l{n % 3}\n" for n in range(9)), "The data has 3 different labels; the most is 2."),
    ({"faults": 5}, "a.jsonl", jsonl(*[PAIR] * 3) + "{\n" * 9, "More than 5 rows are at fault."),
]  # fmt: skip


@pytest.mark.parametrize(("limits", "name", "content", "said"), OVER, ids=[f"{next(iter(c[0]))}-{c[1]}" for c in OVER])
def test_what_is_over_a_limit_is_one_plain_line_with_the_limit(tmp_path, limits, name, content, said):
    dataset = read(written(tmp_path, name, content), limits=replace(OWNER, **limits))
    (fault,) = [fault for fault in dataset.faults if said in fault.problem]
    assert len(dataset.faults) == 1 and "\n" not in str(fault) and fault.remedy
    assert not read(tmp_path / name).faults or name in ("a.zip", "a.xlsx", "a.jsonl", "a.jsonl.gz", "a.csv")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
@pytest.mark.parametrize("name", ["a.zip", "a.xlsx"])
def test_what_unpacks_without_a_bound_is_not_unpacked(tmp_path, name, method):
    """However few bytes are asked for, Python's library unpacks all that it has read of these."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("xl/workbook.xml" if name == "a.xlsx" else "a.csv", bytes(60_000_000))
    path = written(tmp_path, name, file.getvalue())
    tracemalloc.start()
    (fault,) = read(path, limits=replace(OWNER, unpacked_bytes=1_000_000)).faults
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "only Deflate is read" in str(fault) and "Deflate 压缩" in pytest.importorskip(
        "sftdemo.ui.texts.faults"
    ).in_words(fault.problem, "zh")
    assert path.stat().st_size < 100_000 and peak < 10_000_000


def arrow(rows: int) -> bytes:
    import pyarrow
    import pyarrow.ipc

    file, table = io.BytesIO(), pyarrow.table({"prompt": ["a b c"] * rows, "completion": ["d"] * rows})
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.zip", "a.xlsx", "a.csv", "a.arrow"])
def test_any_damage_to_a_packed_file_is_a_plain_line(tmp_path, name):
    """Whatever byte is another: of the version, the sizes, the names, the way of packing, the content, where a text begins."""
    made = {"a.xlsx": lambda: workbook(1), "a.arrow": lambda: arrow(9)}
    good = made.get(name, lambda: packed(1, "text,label\na,b\nc,d\n"))()
    draw = random.Random(name)
    for place in (*draw.sample(range(len(good)), min(len(good), 200)), *range(len(good) - 120, len(good))):
        damaged = bytearray(good)
        damaged[place] ^= draw.randrange(1, 256)
        for fault in read(written(tmp_path, name, bytes(damaged))).faults:
            assert "\n" not in str(fault) and len(str(fault)) < 1000 and fault.remedy, place


def test_every_limit_says_its_value_in_both_languages():
    in_words = pytest.importorskip("sftdemo.ui.texts.faults").in_words
    for spec in fields(OWNER):
        over = OverLimit(OWNER, spec.name, 123_456)
        assert any(character.isdigit() for character in over.problem)
        for text in (over.problem, over.remedy):
            assert "--" not in in_words(text, "en") and not in_words(text, "zh").isascii()
    assert all(getattr(VISITOR, spec.name) <= getattr(OWNER, spec.name) for spec in fields(OWNER))


def test_sources_and_texts_of_settings_have_limits(tmp_path):
    path = written(tmp_path, "a.jsonl", jsonl(*[PAIR] * 3))
    with pytest.raises(UserError, match="names 3 sources; the most is 2"):
        read(f"{path} + support_tickets + house_style", limits=replace(OWNER, sources=2))
    for settings, said in (
        ({"instruction": "x" * 20_001}, "instruction has 20001 characters; the most is 20000."),
        ({"data": "x" * 5000}, "data has 5000 characters; the most is 4096."),
        ({"seed": 10**30}, "the most is 4294967295."),
        ({"batch_size": float("inf")}, "give a whole number"),
    ):
        with pytest.raises(UsageError, match=said):
            TrainConfig.from_json({"data": "a", **settings})


CLEAN = "html,whitespace,personal,duplicates,near_duplicates,leaks"


def one_text(text: str) -> str:
    return jsonl({"prompt": text, "completion": "ok"}, {"prompt": "b", "completion": "ok"})


# A size, and the file of so many parts: what took a square of them, or might.
GROWING: dict[str, tuple[int, Callable[[int], tuple[str, str | bytes]]]] = {
    "wide header": (5000, lambda n: ("a.csv", ",".join(f"c{k}" for k in range(n)) + "\n" + 2 * ("x," * (n - 1) + "y\n"))),
    "nameless columns": (5000, lambda n: ("a.csv", "a" + "," * n + "\n" + 2 * ("x," * n + "y\n"))),
    "one name": (4000, lambda n: ("a.csv", ",".join(["a"] * n) + "\n" + ",".join(["x"] * n) + "\n")),
    "labels": (600, lambda n: ("a.jsonl", jsonl(*({"text": f"some text {k}", "label": f"label {k}"} for k in range(n))))),
    "spellings": (600, lambda n: ("a.jsonl", jsonl(*({"text": f"some text {k}", "label": f"Label {k // 2}{'!' * (k % 2)}"} for k in range(n))))),
    "labels in test": (600, lambda n: ("a.jsonl", jsonl(*({"text": f"t {k}", "label": f"l{k}", "split": ("train", "test")[k % 2]} for k in range(n))))),
    "keys": (500, lambda n: ("a.jsonl", jsonl(*({**PAIR, f"k{k}": 1} for k in range(n))))),
    "responses": (400, lambda n: ("a.jsonl", jsonl(*[{"text": "t", **{f"q{k}.responses": ["a"] for k in range(n)}}] * 2))),
    "escaped quotes": (4000, lambda n: ("a.jsonl", '{"a": 1}\n{"b": "' + '\\"' * n)),
    "open comments": (20_000, lambda n: ("a.json", "[" + "/* " * n)),
    "nested": (20_000, lambda n: ("a.jsonl", 2 * ('{"a":' * n + "1" + "}" * n + "\n"))),
    "broken lines": (500, lambda n: ("a.jsonl", jsonl(PAIR) + '{"x": \n' * n)),
    "blank cell": (8000, lambda n: ("a.csv", f'text,label\n"{" " * n}",x\nb,y\n')),
    "open instructions": (1000, lambda n: ("a.jsonl", jsonl(*[{"text": "[INST] a " * n}] * 2))),
    "alpaca": (1000, lambda n: ("a.jsonl", jsonl(*[{"text": "### Instruction: a ### Input: b " * n}] * 2))),
    "ends": (4000, lambda n: ("a.jsonl", jsonl(*[{"text": "Human: a\nAssistant: b" + "</s> " * n + "x"}] * 2))),
    "turns": (1000, lambda n: ("a.jsonl", jsonl(*[{"messages": [{"role": ("user", "assistant")[k % 2], "content": "x"} for k in range(2 * n)]}] * 2))),
    "members": (200, lambda n: ("a.zip", packed(n))),
    "near": (300, lambda n: ("a.jsonl", jsonl(*({"prompt": f"one long template with a letter {chr(97 + k % 26)}{chr(97 + k // 26 % 26)}{chr(97 + k // 676)}", "completion": "ok"} for k in range(n))))),
    "comments in HTML": (3000, lambda n: ("a.jsonl", one_text("<p>" + "<!--" * n))),
    "sections in HTML": (3000, lambda n: ("a.jsonl", one_text("<p>" + "<![CDATA[" * n))),
    "doctypes in HTML": (3000, lambda n: ("a.jsonl", one_text("<p>" + "<!doctype " * n))),
    "marks": (3000, lambda n: ("a.jsonl", one_text("a" + "\u0315\u0300\u05ae" * n))),
    "dots": (5000, lambda n: ("a.jsonl", one_text("a@b" + ".c" * n))),
    "digits": (2000, lambda n: ("a.jsonl", one_text("1 " * n))),
}  # fmt: skip


@pytest.mark.parametrize("kind", GROWING)
def test_work_grows_as_the_data_does(tmp_path, kind):
    size, make = GROWING[kind]

    def seconds(n: int) -> float:
        config = ReadConfig(data=str(written(tmp_path, *make(n))), clean=CLEAN)
        start = time.thread_time()
        dataset = read(config)
        check.describe(dataset)
        outlook(config, dataset)
        return time.thread_time() - start

    seconds(size // 8)  # imports
    # On a busy machine one measurement may be off; a square would be 16 times as much in each.
    growth = [seconds(4 * size) / max(seconds(size), 0.01)]
    while growth[-1] >= 9 and len(growth) < 4:
        growth.append(seconds(4 * size) / max(seconds(size), 0.01))
    assert growth[-1] < 9, growth


# In a child process


@pytest.fixture
def reader(monkeypatch):
    pytest.importorskip("gradio")
    from sftdemo.ui import data_reader
    from sftdemo.ui.access import rights

    monkeypatch.setattr(rights, "current", lambda: rights.Visitor("visitor", "v1"))
    return data_reader


def config_of(path: Path, **settings: Any) -> ReadConfig:
    return ReadConfig(data=str(path), **settings)


def test_the_page_sees_what_the_command_line_reads(tmp_path, reader):
    rows = [{"text": f"some words {k}", "label": "ab"[k % 2]} for k in range(30)]
    path = written(tmp_path, "a.jsonl", jsonl(*rows, {"text": "", "label": "a"}))
    config = config_of(path, on_fault="drop")
    here, there = read(config), reader.read(config)
    assert {name: list(part) for name, part in there.dataset.splits.items()} == here.splits
    assert there.summary == check.describe(here) | outlook(config, here)
    assert sum(map(len, there.prepared.splits.values())) == 30
    assert there.dataset.splits["train"][2:4] == here.splits["train"][2:4] and reader.read(config) is there
    assert not list((reader._folder()).iterdir())


BOMBS: dict[str, Callable[[], tuple[str, str | bytes]]] = {
    "a long row": lambda: ("a.jsonl.gz", gzip.compress(jsonl({**PAIR, "prompt": "x" * 60_000_000}).encode(), 1)),
    "many rows": lambda: ("a.zip", packed(1, "text,label\n" + "a,b\n" * 300_000)),
    "Parquet": lambda: ("a.parquet", parquet(3_000_000)),
    "columns": lambda: ("a.csv", ",".join(f"c{k}" for k in range(100_000)) + "\n" + "x," * 99_999 + "y\n"),
    "labels": lambda: ("a.csv", "text,label\n" + "".join(f"t {k},l{k}\n" for k in range(3000))),
    "commas": lambda: ("a.csv", "," * 5_000_000),
    "lists": lambda: ("a.jsonl", "[" * 900 + "]" * 900 + "\n" + "[" + "[]," * 200_000 + "[]]"),
    "lines": lambda: ("a.jsonl", "{\n" * 1_000_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_of_a_visitor_is_one_plain_line(tmp_path, reader, kind):
    path = written(tmp_path, *BOMBS[kind]())
    start = time.monotonic()
    try:
        said = [str(fault) for fault in reader.read(config_of(path)).dataset.faults] or [
            fault["problem"] for fault in reader.read(config_of(path)).summary["faults"]
        ]
    except UserError as error:
        said = [str(error)]
    assert len(said) == 1 and "\n" not in said[0] and ("the most" in said[0] or "at fault" in said[0]), said
    assert time.monotonic() - start < 2 * VISITOR.seconds


@pytest.mark.parametrize(
    ("limit", "value", "said"), [("seconds", 0.01, "longer than"), ("memory", 30_000_000, "memory")]
)
def test_a_child_over_its_limit_is_a_plain_line_and_the_next_reads_on(
    tmp_path, monkeypatch, reader, limit, value, said
):
    path = written(tmp_path, "a.jsonl", jsonl(*({"text": f"some words {k}", "label": "a"} for k in range(15_000))))
    with monkeypatch.context() as patch:
        patch.setattr(reader, "VISITOR", replace(VISITOR, **{limit: value}))
        with pytest.raises(UserError, match=said):
            reader.read(config_of(path))
    assert reader.read(config_of(path)).dataset.examples == 15_000


def test_other_data_stops_the_reading_of_the_first(tmp_path, reader):
    path = written(tmp_path, "a.jsonl", jsonl(*({"text": f"some words {k}", "label": "a"} for k in range(19_000))))
    raised: list[Exception] = []

    def first() -> None:
        try:
            reader.read(config_of(path))
        except Superseded as error:
            raised.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    while not reader._jobs:
        time.sleep(0.005)
    reader.drop_others(config_of(tmp_path / "b.jsonl"))
    thread.join(30)
    assert raised and not reader._jobs


def test_sessions_share_samples_alone_and_what_is_kept_is_bounded(tmp_path, monkeypatch, reader):
    from sftdemo.ui.access import rights

    path = config_of(written(tmp_path, "a.jsonl", jsonl(*[{**PAIR, "prompt": f"What {k}?"} for k in range(9)])))
    sample = ReadConfig(data="support_tickets")
    mine, shared = reader.read(path), reader.read(sample)
    monkeypatch.setattr(rights, "current", lambda: rights.Visitor("visitor", "v2"))
    assert reader.read(path) is not mine and reader.read(sample) is shared
    for k in range(reader.KEPT_BY_SESSION + 3):
        reader.read(replace(path, instruction=f"Say {k}: {{prompt}}"))
    assert sum(key.session.startswith("v2/") for key in reader._kept) <= reader.KEPT_BY_SESSION
    assert mine in reader._kept.values()
    monkeypatch.setattr(reader, "KEPT_S", 0.0)
    with reader._lock:
        reader._forget()
    assert not reader._kept


def test_a_killed_server_is_started_again():
    server = bounded.Server("sftdemo.verbs.reading")
    server.call("warm", seconds=30, memory=OWNER.memory)
    assert server.process is not None
    first = server.process.pid
    server.process.kill()
    server.process.wait(10)
    server.call("warm", seconds=30, memory=OWNER.memory)
    assert server.process.pid != first
    server.process.kill()
    server.process.wait(10)
