"""Edits of rows: replayed over any kind of file, refused where they no longer fit, and no other row moves by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftdemo import data, files, runs
from sftdemo.config import TrainConfig
from sftdemo.config.read import ReadConfig
from sftdemo.data import Dataset, edits, prepare
from sftdemo.data.limits import OWNER
from sftdemo.data.reading import read_rows
from sftdemo.errors import UserError
from sftdemo.verbs import jobs

CHAT = {"messages": [{"role": "user", "content": "几点了？"}, {"role": "assistant", "content": "三点。"}]}


def written(folder: Path, *history: dict[str, Any]) -> str:
    path = folder / "edits.jsonl"
    files.write_jsonl(path, history)
    return str(path)


def change(line: int, field: Any, old: Any, new: Any, **more: Any) -> dict[str, Any]:
    return {"action": "change", "line": line, "field": field, "old": old, "new": new, **more}


def table(folder: Path, rows: int = 60, name: str = "rows.csv") -> Path:
    path = folder / name
    lines = [f"about {'cats' if i % 3 else 'dogs'} number {i * i},{'good' if i % 3 else 'bad'}" for i in range(rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path


def places(dataset: Dataset) -> dict[int, str]:
    return {row["meta"]["line"]: name for name, rows in dataset.splits.items() for row in rows}


def line(dataset: Dataset, number: int) -> data.Example:
    return next(row for rows in dataset.splits.values() for row in rows if row["meta"]["line"] == number)


def workbook(path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["评论", "标签"], *([f"第{i}条评论，写得很好", "差" if i % 2 else "好"] for i in range(8))):
        book.active.append(row)
    book.save(path)


NESTED = {"input": {"text": "a first text"}, "meta": {"kind": "x"}}
KINDS = [
    ("rows.csv", "text,label\nfirst text,a\nsecond text,b\nthird text,a\n", {}, change(3, "label", "b", "a"), "a"),
    ("chat.jsonl", files.jsonl([CHAT] * 3), {}, change(2, ["messages", 1, "content"], "三点。", "四点。"), "四点。"),
    ("rows.xlsx", None, {"columns": "text=评论,label=标签"}, change(3, "标签", "差", "好"), "好"),
    (
        "nested.jsonl",
        files.jsonl([NESTED, {**NESTED, "meta": {"kind": "y"}}, NESTED]),
        {"columns": "text=input.text,label=meta.kind"},
        change(2, ["meta", "kind"], "y", "x"),
        "x",
    ),
    ("whole.json", json.dumps({"data": [CHAT, CHAT]}), {}, change(1, ["messages", 1, "content"], "三点。", "x", nth=2), "x"),
    ("columns.json", json.dumps({"text": ["p one", "p two"], "label": [0, 1]}), {}, change(2, "label", 1, 0), "0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "settings", "edit", "answer"), KINDS, ids=[kind[0] for kind in KINDS])
def test_a_value_is_changed_in_any_kind_of_file(tmp_path, name, text, settings, edit, answer):
    path = tmp_path / name
    workbook(path) if text is None else path.write_text(text, encoding="utf-8")
    before = data.read(str(path), **settings)
    dataset = data.read(str(path), edits=written(tmp_path, edit), **settings)
    changed = [row for row in dataset.splits["train"] if row["meta"].get("edited") == "change"]
    assert not dataset.faults and [row["messages"][-1]["content"] for row in changed] == [answer]
    assert dataset.examples == before.examples and dataset.sha256 != before.sha256
    undone = data.read(str(path), edits=written(tmp_path, edit, {"action": "undo"}), **settings)
    assert undone.sha256 == before.sha256 and undone.splits == before.splits


def test_rows_are_left_out_and_added_and_edited_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"text number {i}", "label": "ab"[i % 2]} for i in range(4)]
    path.write_text(files.jsonl(rows) + '{"text": broken\n', encoding="utf-8")
    assert len(data.read(str(path)).faults) == 1
    added = {"text": "a new text", "label": "a"}
    history = [
        {"action": "leave_out", "line": 5, "old": None},  # the line that can't be read
        {"action": "leave_out", "line": 2, "old": rows[1]},
        {"action": "add", "line": 6, "values": added},
        change(6, "label", "a", "b"),
        change(3, "note", None, "a column that the row didn't have"),
    ]
    kept: list[Any] = []
    config = ReadConfig(data=str(path), edits=written(tmp_path, *history))
    dataset = read_rows(config, OWNER, kept)
    assert not dataset.faults and dataset.labels == {"a": 2, "b": 2}
    assert [(row.line, row.edited) for row in kept] == [(1, ""), (3, "change"), (4, ""), (6, "add")]
    assert "2 values changed, 2 rows left out, 1 row added" in " ".join(dataset.notes)


def test_taking_back_costs_no_more_than_the_edits() -> None:
    compared = []

    class Number(int):
        __hash__ = int.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return int(self) == other

    left_out: Any = {"action": "leave_out", "line": 1, "old": None}
    many = 1000
    history = [left_out] * many + [{"action": "undo", "edit": Number(many - number)} for number in range(many)]
    assert edits.effective(history) == [] and len(compared) < 3 * many
    assert edits.effective([*history[:many], {"action": "undo"}])[-1][0] == many - 1
    with pytest.raises(UserError, match="takes an edit back, and before it none is left"):
        edits.effective([left_out, {"action": "undo", "edit": 1}, {"action": "undo"}])


MISFITS = [
    (change(2, "label", "zzz", "good"), "label", "where \"bad\" stands now and not \"zzz\""),
    (change(2, "mood", "x", "good"), "mood", "which line 2 of rows.csv doesn't have"),
    (change(999, "label", "bad", "good"), "label", "line 999 of rows.csv, where no row begins"),
    (change(2, "label", "bad", "good", file="other.csv"), "label", "'other.csv', which isn't among the files"),
    ({"action": "leave_out", "line": 2, "old": {"text": "another"}}, "", "another row stands there now"),
    ({"action": "add", "line": 2, "values": {"text": "x", "label": "bad"}}, "", "one stands there"),
    (change(2, ["label", 0], "b", "g"), "label.0", "which line 2 of rows.csv doesn't have"),
]  # fmt: skip


@pytest.mark.parametrize("on_fault", ["stop", "drop"])
def test_an_edit_that_no_longer_fits_is_a_fault_and_never_dropped(tmp_path, on_fault):
    fitting = change(3, "label", "good", "bad")
    path = written(tmp_path, fitting, *(edit for edit, _, _ in MISFITS))
    dataset = data.read(str(table(tmp_path)), edits=path, on_fault=on_fault)
    told = [fault for fault in dataset.faults if fault.file == "edits.jsonl"]
    assert [(fault.line, fault.field) for fault in told] == [(2 + i, field) for i, (_, field, _) in enumerate(MISFITS)]
    for fault, (_, _, problem) in zip(told, MISFITS, strict=True):
        assert problem in fault.problem
    with pytest.raises(UserError):
        prepare(ReadConfig(data=str(tmp_path / "rows.csv"), edits=path, on_fault=on_fault))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"action": "rename", "line": 3}', "action is 'rename', not one of"),
        ('{"action": "change", "line": 3, "field": "label", "new": "x"}', "old is missing"),
        ('{"action": "add", "line": 3, "values": ["x"]}', "values is"),
        ('{"action": "change", "line": 1, "field": [], "old": null, "new": "x"}', "has an empty field; name a column"),
        ('{"action": "change", "line": 2, "field": [0], "old": null, "new": "x"}', "field that begins with 0"),
        ('{"action": "add", "line": 0, "values": {"text": "x"}}', "has the line 0, and they are counted from 1"),
        ('{"action": "add", "line": -3, "values": {"text": "x"}}', "has the line -3"),
        ('{"action": "leave_out", "line": 2, "nth": 0, "old": null}', "has the nth 0"),
        ("not JSON", "Line 1 of the edits"),
        ('{"action": "undo"}', "Edit 1 takes an edit back"),
        ('{"action": "undo", "edit": 0}', "has the edit 0"),
        ('{"action": "undo", "edit": 1}', "Edit 1 takes an edit back"),
        (None, "There is no file of edits"),
    ],
)
def test_a_history_that_is_none_is_refused_in_one_line(tmp_path, text, problem):
    if text is not None:
        (tmp_path / "edits.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=problem) as caught:
        data.read(str(table(tmp_path)), edits=str(tmp_path / "edits.jsonl"))
    assert "\n" not in str(caught.value)


def test_rows_that_were_not_edited_stay_in_their_split(tmp_path):
    path = table(tmp_path)
    before = places(prepare(ReadConfig(data=str(path))))
    held_out = [number for number, name in before.items() if name == "test"]
    rows = {row.line: row.values for row in _raw(path)}
    a, b = held_out[:2]
    other = {"good": "bad", "bad": "good"}
    in_train = next(number for number, name in before.items() if name == "train")
    history = [
        change(a, "label", rows[a]["label"], other[rows[a]["label"]]),
        {"action": "leave_out", "line": b, "old": rows[b]},
        {"action": "add", "line": 100, "values": {"text": "quite another text", "label": "fair"}},
        # A train row that becomes a held-out one: it follows that one, or it would leak.
        change(in_train, "text", rows[in_train]["text"], rows[held_out[2]]["text"].upper()),
    ]
    edited = prepare(ReadConfig(data=str(path), edits=written(tmp_path, *history)))
    after = places(edited)
    moved = {number for number in before.keys() | after.keys() if before.get(number) != after.get(number)}
    assert moved == {b, 100, in_train}
    assert after[a] == "test" and after[100] == "train" and after[in_train] == "test" and edited.leaked == 0


@pytest.mark.parametrize("repeated", [True, False])
def test_an_edited_sentence_of_a_token_table_stays_in_its_split(tmp_path, repeated):
    """A sentence's number stands at each of its tokens, or at the first alone; that may be the token left out."""
    path = tmp_path / "tokens.csv"
    lines = [
        f"{f'S{i}' if repeated or not at else ''},{token},{tag}"
        for i in range(60)
        for at, (token, tag) in enumerate(((f"Bo{i * 7}", "B-PER"), ("Li", "I-PER"), ("saw", "O"), (f"{i}x{i}", "O")))
    ]
    path.write_text("\n".join(["Sentence #,Word,Tag", *lines]) + "\n", encoding="utf-8")
    before = places(prepare(ReadConfig(data=str(path))))
    rows = {row.line: row.values for row in _raw(path)}
    held_out = [number for number, name in before.items() if name == "test"]
    left_out = [{"action": "leave_out", "line": number, "old": rows[number]} for number in held_out]
    first = next(number for number, name in before.items() if name == "train")
    history = [*left_out, change(first + 2, "Tag", "O", "B-PER")]
    after = prepare(ReadConfig(data=str(path), edits=written(tmp_path, *history)))
    assert len(held_out) == 6 and places(after) == before
    edited = {row["meta"]["line"] for part in after.splits.values() for row in part if row["meta"].get("edited")}
    assert edited == {*held_out, first}
    texts = [line(after, number)["messages"][-2]["content"].split("\n\n")[-1] for number in held_out]
    assert texts == [f"Li saw {(number - 2) // 4}x{(number - 2) // 4}" for number in held_out]
    whole = [{"action": "leave_out", "line": held_out[0] + at, "old": rows[held_out[0] + at]} for at in range(4)]
    rest = places(data.read(str(path), edits=written(tmp_path, *whole)))
    assert rest.keys() == before.keys() - {held_out[0]}


def test_each_label_keeps_a_row_in_train(tmp_path):
    path = tmp_path / "rows.jsonl"
    labels = ["rare"] * 4 + ["usual"] * 40
    path.write_text(files.jsonl({"text": f"number {i * 7}", "label": label} for i, label in enumerate(labels)))
    before = places(prepare(ReadConfig(data=str(path))))
    rare = [number for number in before if number <= 4]
    assert any(before[number] != "train" for number in rare)
    history = [change(n, "label", "rare", "usual") for n in rare if before[n] == "train"]
    after = prepare(ReadConfig(data=str(path), edits=written(tmp_path, *history)))
    assert any(row["label"] == "rare" for row in after.splits["train"])


def class_table(path: Path) -> list[dict[str, Any]]:
    """A Parquet file with a column of class numbers, as the library `datasets` writes it; its rows with these numbers."""
    import pyarrow
    import pyarrow.parquet

    rows = [{"text": f"text number {i}", "label": label} for i, label in enumerate([0, 1, 1, -1, 0, 1])]
    features = {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata), path)
    return rows


def test_edits_saved_with_class_numbers_fit_columns_that_are_read_by_name(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = class_table(path)
    numbers = [
        change(1, "label", 0, 1, row_hash=edits.row_hash(rows[0])),
        change(1, "text", "text number 0", "x", row_hash=edits.row_hash(rows[0] | {"label": 1})),
        change(4, "label", -1, 0, row_hash=edits.row_hash(rows[3])),
        {"action": "leave_out", "line": 3, "old": rows[2]},
        {"action": "add", "line": 7, "values": {"text": "a new text", "label": 1}},
    ]
    names = [change(2, "label", "good", "bad", row_hash=edits.row_hash({"text": "text number 1", "label": "good"}))]
    dataset = data.read(str(path), edits=written(tmp_path, *numbers, *names))
    assert not dataset.faults and dataset.labels == {"good": 3, "bad": 3}
    assert line(dataset, 1)["label"] == "good" and line(dataset, 2)["label"] == "bad"


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (change(2, "label", 0, 1), '"good" stands now and not "bad"'),
        (change(2, "label", 7, 1), '"good" stands now and not 7'),
        (change(2, "label", "good", 2), "puts class 2 in 'label', whose classes are 0 to 1"),
        ({"action": "add", "line": 7, "values": {"text": "x", "label": -2}}, "puts class -2 in 'label'"),
        (
            {"action": "leave_out", "line": 2, "old": {"text": "text number 1", "label": 0}},
            "another row stands there now",
        ),
        (change(2, "label", 1, 0, row_hash="0" * 16), "another row stands now"),
    ],
)
def test_class_numbers_that_do_not_fit_are_a_fault(tmp_path, edit, problem):
    class_table(tmp_path / "rows.parquet")
    dataset = data.read(str(tmp_path / "rows.parquet"), edits=written(tmp_path, edit), on_fault="drop")
    (fault,) = dataset.faults
    assert problem in fault.problem


def _raw(path: Path) -> list[Any]:
    kept: list[Any] = []
    read_rows(ReadConfig(data=str(path)), OWNER, kept)
    return kept


def test_several_sources_share_one_history(tmp_path):
    one, other = table(tmp_path, 30, "one.csv"), table(tmp_path, 40, "other.csv")
    mixture = f"{one} + {other}"
    dataset = data.read(mixture, edits=written(tmp_path, change(2, "label", "bad", "good", file="other.csv")))
    edited = [row["meta"]["file"] for row in dataset.splits["train"] if "edited" in row["meta"]]
    assert edited == ["other.csv"] and not dataset.faults
    unsaid = data.read(mixture, edits=written(tmp_path, change(2, "label", "bad", "good")))
    assert "doesn't say which of the files" in unsaid.faults[0].problem


def test_a_run_keeps_its_edits(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path))
    monkeypatch.setattr(jobs, "_spawn_training", lambda *_: None)
    path = written(tmp_path, change(2, "label", "bad", "good"))
    run = jobs.start(TrainConfig(data=str(table(tmp_path)), edits=path))
    assert edits.read(str(run.path / "data" / "edits.jsonl")) == edits.read(path)
    Path(path).write_text("no edit\n", encoding="utf-8")
    with pytest.raises(UserError):
        jobs.start(TrainConfig(data=str(tmp_path / "rows.csv"), edits=path))
    assert [each.name for each in runs.list_runs()] == [run.name]
