"""Editing rows on the page: opened, changed, relabelled, left out, added, taken back; by whom, and in every kind of file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from test_edits import CHAT, workbook
from test_ui import made_run

from sftdemo import data, files
from sftdemo.config.read import ReadConfig
from sftdemo.errors import UserError
from sftdemo.ui import row_edits
from sftdemo.ui.access import rights
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import row_editing, row_files, row_list, rows_view
from sftdemo.ui.tabs.data import DataTab, default_of
from sftdemo.ui.tabs.data_form import chosen_of
from sftdemo.verbs.row_records import asked

pytestmark = pytest.mark.slow


@pytest.fixture
def tab() -> Iterator[DataTab]:
    with gr.Blocks() as blocks:
        made = DataTab(Page(blocks, run=gr.State(""), data=gr.State({})))
        made.rows.editing = row_editing.Editing(
            made.rows, made.looked, lambda looked, settings, *rest: made.show(chosen_of(looked, settings), *rest)
        )
        yield made


class Session:
    """What a page holds: the values of the tab's components after each event."""

    def __init__(self, tab: DataTab, path: str, **chosen: Any) -> None:
        self.tab, self.rows = tab, tab.rows
        self.values: dict[Any, Any] = {}
        self.take(tab.show({"data": path, **chosen}, 1, "en"))

    def take(self, updates: Any) -> None:
        for update in [updates] if isinstance(updates, dict) else updates:
            self.values |= update

    def value(self, component: Any) -> Any:
        value = self.values.get(component)
        return value.get("value") if isinstance(value, dict) and "__type__" in value else value

    @property
    def looked(self) -> dict[str, Any]:
        return self.values[self.tab.looked]

    def asked(self, **filters: Any) -> dict[str, Any]:
        return {"show": "all", "of_label": "", "search": "", "run_name": "", **filters}

    def list(self, **filters: Any) -> str:
        self.take(self.rows.list_rows(None, self.looked, **self.asked(**filters)))
        return str(self.values[self.rows.table])

    def open(self, place: int | str) -> None:
        event = SimpleNamespace(value=str(place))
        self.take(self.rows.open_row(None, event, self.looked, ""))

    def pick(self, field: int) -> None:
        event = SimpleNamespace(value=str(field))
        self.take(self.rows.pick_field(None, event, self.looked, self.values[self.rows.key], ""))

    def _rest(self) -> dict[str, Any]:
        settings = {name: default_of(name) for name in self.tab.settings}
        return {**settings, "at": 0, "row": 1, **self.asked()}

    def save(self, **typed: Any) -> None:
        names = {"key": self.rows.key, "field": self.rows.field, "text": self.rows.text, "own_label": self.rows.label}
        held = {name: self.value(part) for name, part in names.items()} | {"prompt": ""}
        self.take(self.rows.editing.save(None, self.looked, **{**held, **typed}, **self._rest()))

    def leave_out(self) -> None:
        self.take(self.rows.editing.leave_out(None, self.looked, self.values[self.rows.key], **self._rest()))

    def undo(self) -> None:
        self.take(self.rows.editing.undo(None, self.looked, **self._rest()))

    def take_back(self) -> None:
        self.take(self.rows.editing.take_back(None, self.looked, self.values[self.rows.key], **self._rest()))

    def dataset(self) -> data.Dataset:
        """What the command line makes of the same data and edits."""
        return data.read(ReadConfig.from_json(self.looked["read"]))


def table(folder: Path) -> str:
    path = folder / "rows.csv"
    lines = [f"text <b>number</b> {i * 7} of it,{'ab'[i % 2]}" for i in range(30)]
    path.write_text("\n".join(["text,label", *lines, "one without a label,"]) + "\n", encoding="utf-8")
    return str(path)


def test_of_a_file_that_cannot_be_read_no_rows_are_offered(tab, tmp_path):
    path = tmp_path / "brochure.pdf"
    path.write_bytes(b"%PDF-1.4 nothing")
    session = Session(tab, str(path))
    shown = [session.values[part] for part in (tab.rows.box, tab.rows.lead)]
    assert [part["visible"] for part in shown] == [False, False] and not session.values[tab.rows.why]


def test_a_row_is_relabelled_changed_left_out_added_and_all_taken_back(tab, tmp_path):
    session = Session(tab, table(tmp_path))
    before = session.dataset()
    listed = session.list()
    assert session.values[tab.rows.box]["visible"] and listed.count("data-pick") == 20
    assert "text &lt;b&gt;number&lt;/b&gt; 0 of it" in listed and "<b>number" not in listed
    assert session.list(search="number</b> 203").count("data-pick") == 1
    assert session.list(of_label="a").count("data-pick") == 15
    assert session.list(show="problems").count("data-pick") == 1
    session.open(30)  # the one without a label
    assert "is empty" in session.values[tab.rows.opened] and not session.values[tab.to_train]["interactive"]
    session.save(own_label="b")
    assert session.values[tab.to_train]["interactive"] and session.dataset().labels == {"a": 15, "b": 16}
    assert session.values[tab.page.data]["edits"] == session.looked["edits"]
    session.open(0)
    assert session.value(tab.rows.text) == "text <b>number</b> 0 of it" and session.value(tab.rows.label) == "a"
    session.save(text="another text", own_label="b")
    session.open(1)
    session.leave_out()
    session.take(tab.rows.begin_row(None, session.looked))
    session.save(prompt="a new text", own_label="c", key=[])
    dataset = session.dataset()
    assert dataset.labels == {"a": 14, "b": 16, "c": 1} and not dataset.faults
    assert "another text" in session.list(show="edited") and session.list(show="edited").count("data-pick") == 3
    assert session.values[tab.rows.made].count("<li>") == 5
    for _ in range(5):
        session.undo()
    assert session.dataset().sha256 == before.sha256 and len(row_edits.history(session.looked["edits"])) == 10
    with pytest.raises(UserError, match="no edit to take back"):
        session.undo()


def test_an_edit_that_was_begun_comes_back_after_a_reload(tab, tmp_path):
    session, rows = Session(tab, table(tmp_path)), tab.rows
    session.open(30)  # the one without a label
    place = session.values[rows.draft.place]
    session.take(rows.close_row())
    assert session.values[rows.draft.place] == "" and session.values[rows.key] == []
    kept = json.dumps({"place": place, "text": "half", "label": "b"})
    session.take(rows.reopen(None, session.looked, "", kept))
    assert session.value(rows.text) == "half" and session.value(rows.label) == "b"
    session.save()
    assert session.dataset().labels == {"a": 15, "b": 16} and not session.dataset().faults
    session.take(rows.open_new(row_editing.read(session.looked), "en", "from the chat", "a"))
    kept = json.dumps({"place": session.values[rows.draft.place]})
    session.take(rows.close_row())
    session.take(rows.reopen(None, session.looked, "", kept))
    assert session.value(rows.prompt) == "from the chat" and session.value(rows.label) == "a"
    far = json.dumps({"key": json.loads(place)["key"], "field": 99})
    assert rows.reopen(None, session.looked, "", json.dumps({"place": far}))[rows.field] == 0
    gone = json.dumps({"key": ["rows.csv", 99, 1], "field": 0})
    for junk in (None, "", "[", '{"place": 3}', '{"place": "{}"}', json.dumps({"place": gone})):
        assert rows.reopen(None, session.looked, "", junk) == {}


def test_an_edit_of_the_page_fits_no_other_row_with_the_same_label(tab, tmp_path):
    session = Session(tab, table(tmp_path))
    session.open(4)
    session.save(text="another text", own_label="b")
    session.open(6)
    session.save(own_label="b")
    dataset, history = session.dataset(), session.looked["edits"]
    assert not [fault for fault in dataset.faults if fault.file == "edits.jsonl"]
    path = Path(table(tmp_path))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text(
        "\n".join([lines[0], "a new first row,b", "a new second row,a", *lines[1:]]) + "\n", encoding="utf-8"
    )
    faults = [fault for fault in data.read(str(path), edits=history).faults if fault.file == "edits.jsonl"]
    assert [(fault.line, fault.field) for fault in faults] == [(1, "text"), (2, "label"), (3, "label")]
    assert all("another row stands now" in fault.problem for fault in faults[1:])
    without = [{key: value for key, value in edit.items() if key != "row_hash"} for edit in row_edits.history(history)]
    files.write_jsonl(tmp_path / "old.jsonl", without)
    assert data.read(table(tmp_path), edits=str(tmp_path / "old.jsonl")).sha256 == dataset.sha256


def test_the_downloads_are_the_rows_as_edited(tab, tmp_path):
    session = Session(tab, table(tmp_path))
    session.open(30)
    session.save(own_label="=1+1")
    paths = row_files.written(row_editing.read(session.looked), session.looked, rights.LOCAL)
    rows = list(files.read_jsonl(paths["rows_jsonl"]))
    assert len(rows) == 31 and rows[30] == {"text": "one without a label", "label": "=1+1"}
    assert paths["rows_csv"].read_text(encoding="utf-8-sig").splitlines()[-1] == "one without a label,'=1+1"
    assert {row["split"] for row in files.read_jsonl(paths["trained_jsonl"])} == {"train", "validation", "test"}
    again = data.read(table(tmp_path), edits=str(paths["history"]))
    assert again.sha256 == session.dataset().sha256
    assert "edits.jsonl" in tab.rows.offer(None, session.looked)[tab.rows.files]


NESTED = [{"input": {"text": f"text number {i * 3}"}, "meta": {"kind": i % 2}} for i in range(6)]
KINDS: list[tuple[str, list[Any] | None, dict[str, Any], int, dict[str, Any], dict[str, Any]]] = [
    ("chat.jsonl", [CHAT] * 3, {}, 3, {"text": "四点。"}, {"text": "一句", "prompt": "问题"}),
    ("rows.xlsx", None, {"columns": "text=评论,label=标签"}, 0, {"own_label": "差"}, {"own_label": "好", "prompt": "问题"}),
    ("n.jsonl", NESTED, {"columns": "text=input.text,label=meta.kind"}, 0, {"own_label": "1"}, {"own_label": "1", "prompt": "问题"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "settings", "field", "typed", "new"), KINDS, ids=[kind[0] for kind in KINDS])
def test_other_kinds_of_rows_are_edited_and_added_alike(tab, tmp_path, name, rows, settings, field, typed, new):
    path = tmp_path / name
    workbook(path) if rows is None else path.write_text(files.jsonl(rows), encoding="utf-8")
    session = Session(tab, str(path), **settings)
    count = session.dataset().examples
    session.open(0)
    session.pick(field)
    session.save(**typed)
    session.take(tab.rows.begin_row(None, session.looked))
    session.save(**new, key=[])
    dataset = session.dataset()
    assert not dataset.faults and dataset.examples == count + 1
    edited = {row["meta"]["edited"]: row for row in dataset.splits["train"] if "edited" in row["meta"]}
    assert edited["change"]["messages"][-1]["content"] == next(iter(typed.values()))
    assert edited["add"]["messages"][-1]["content"] == (new.get("text") or new["own_label"])
    assert edited["add"]["messages"][-2]["content"].endswith("问题")
    assert len(dataset.labels) in (0, 2)


def test_a_line_that_cannot_be_read_is_left_out(tab, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(files.jsonl([CHAT] * 3) + "{broken\n", encoding="utf-8")
    session = Session(tab, str(path))
    assert session.list(show="problems").count("data-pick") == 1
    session.open(3)
    session.leave_out()
    assert not session.dataset().faults and session.list(show="problems").count("data-pick") == 0


def test_each_left_out_row_can_be_taken_back_from_the_list(tab, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(files.jsonl({"text": f"number {i * 7}", "label": "ab"[i % 2]} for i in range(8)) + "{broken\n")
    session = Session(tab, str(path))
    assert session.list(show="left_out").count("data-pick") == 0
    for place in (8, 7, 0):  # the broken line, the row before it, the first
        session.open(place)
        session.leave_out()
    session.open(0)
    session.save(own_label="a")
    listed = session.list(show="left_out")
    assert [f'data-pick="out{number}"' in listed for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert session.list(show="left_out", search="number 49").count("data-pick") == 1
    session.open("out2")
    assert "number 49" in session.values[tab.rows.opened] and "data-pick" not in session.values[tab.rows.opened]
    shown = [session.values[part]["visible"] for part in (tab.rows.take_back, tab.rows.save, tab.rows.leave_out)]
    assert shown == [True, False, False]
    session.take_back()
    dataset = session.dataset()
    assert (
        dataset.labels == {"a": 4, "b": 3}
        and not dataset.faults
        and session.list(show="left_out").count("data-pick") == 2
    )
    with pytest.raises(UserError, match="isn't left out any more"):
        session.open("out2")
    session.open("out1")
    session.take_back()
    assert len(session.dataset().faults) == 1, "the broken line is at fault again"
    session.open("out3")
    for number in (4, 99, 0):  # an edit of another kind, and none
        with pytest.raises(UserError, match="isn't left out any more"):
            row_edits.take_row_back(session.looked["edits"], str(path), number, rights.LOCAL)
    added = {"action": "add", "file": "rows.jsonl", "line": 1, "values": {"text": "x", "label": "a"}}
    row_edits.add(session.looked["edits"], str(path), [added], rights.LOCAL)
    with pytest.raises(UserError, match="was added in its place"):
        session.take_back()


def test_a_row_that_is_added_takes_no_left_out_line(tab, tmp_path):
    session = Session(tab, table(tmp_path))
    session.open(30)
    session.leave_out()
    session.take(tab.rows.begin_row(None, session.looked))
    session.save(prompt="a new text", own_label="b", key=[])
    session.open("out1")
    session.take_back()
    assert {fault.line for fault in session.dataset().faults} == {32}, "both are there; that one has no label"


def test_data_without_a_list_of_rows_says_why(tab, tmp_path):
    session = Session(tab, "support_tickets*2 + house_style")
    assert "a mixture" in session.values[tab.rows.why] and not session.values[tab.rows.box]["visible"]
    session = Session(tab, table(tmp_path))
    assert session.values[tab.rows.why] == ""
    long = replace(row_editing.read(session.looked), listed=None)
    assert "more than 50,000" in rows_view.why_unlisted(long, session.looked["data"], "en")
    assert "50,000" in rows_view.why_unlisted(long, session.looked["data"], "zh")


def test_rows_that_the_model_disagrees_on_most_come_first(tab, tmp_path):
    session = Session(tab, table(tmp_path), on_fault="drop")
    held_out = session.dataset().splits["train"][:4]
    said = [("a", 0.1), ("b", 0.5), ("b", 2.5), ("a", 4.0)]  # the labels are a, b, a, b
    outputs = [
        {
            "row": number,
            "messages": row["messages"][:-1],
            "references": [row["label"]],
            "label": row["label"],
            "base": "",
            "tuned": "no label" if number == 3 else answer,
            "tuned_likelihood": answer,
            "tuned_nll": nll,
            "answer_tokens": 1,
        }
        for number, (row, (answer, nll)) in enumerate(zip(held_out, said, strict=True))
    ]
    folder = made_run("r").path / "evaluations" / "one"
    files.write_jsonl(folder / "outputs.jsonl", outputs)
    files.write_json(folder / "scores.json", {"n": 4, "base": {}, "tuned": {}, "difference": {}})
    listed = session.list(show="disagree", run_name="r")
    assert [int(line.split("<")[0]) for line in listed.split('muted num">')[1:]] == [5, 4]
    first, second = listed.split('muted num">')[1:]
    assert "most probable label: a" in first and "no label" not in first, "not as if it had answered so"
    assert "The tuned model says: b" in second
    session.open(3)
    session.save(own_label="a")  # as the model says: no more to disagree on
    assert session.list(show="disagree", run_name="r").count("data-pick") == 1


def test_the_rows_of_a_saved_split_are_listed_with_their_own_prompts(tab, tmp_path):
    """A run's saved rows bring the lines of the file that the run read: here the order of these, turned round."""
    path = tmp_path / "test.jsonl"
    saved = [
        {
            "messages": [{"role": "user", "content": f"number {i * 7}"}, {"role": "assistant", "content": "ab"[i % 2]}],
            "label": "ab"[i % 2],
            "meta": {"line": 6 - i, "nth": 2, "edited": "change", "group": f"g{i}"},
        }
        for i in range(6)
    ]
    path.write_text(files.jsonl(saved), encoding="utf-8")
    session = Session(tab, str(path))
    for number, row in enumerate(saved):
        record = row_list.find_asked(row_editing.read(session.looked), asked(row["messages"][:-1]))
        assert record and (record["line"], record["nth"], record["label"]) == (number + 1, 1, row["label"])
    metas = [example["meta"] for example in session.dataset().splits["train"]]
    assert metas == [{"line": 6 - i, "nth": 2, "group": f"g{i}"} for i in range(6)]
    session.open(0)
    session.leave_out()
    before = {
        row["messages"][0]["content"]: name
        for name, rows in data.prepare(ReadConfig(data=str(path))).splits.items()
        for row in rows
    }
    config = ReadConfig.from_json(session.looked["read"])
    after = {row["messages"][0]["content"]: name for name, rows in data.prepare(config).splits.items() for row in rows}
    assert after.items() <= before.items() and len(after) == 5


def test_the_edits_that_a_run_keeps_are_never_written_to(tmp_path):
    path = table(tmp_path)
    edit = {"action": "add", "file": "rows.csv", "line": 99, "values": {"text": "x", "label": "a"}}
    files.write_jsonl(tmp_path / "run" / "data" / "edits.jsonl", [edit])
    kept = str(tmp_path / "run" / "data" / "edits.jsonl")
    new = row_edits.add(kept, path, [{**edit, "line": 100}], rights.LOCAL)
    assert new != kept and len(row_edits.history(kept)) == 1 and len(row_edits.history(new)) == 2
    assert row_edits.add(new, path, [{**edit, "line": 101}], rights.LOCAL) == new
    with pytest.raises(UserError, match="half a character"):
        row_edits.add(new, path, [{**edit, "values": {"text": "\ud800", "label": "a"}}], rights.LOCAL)
