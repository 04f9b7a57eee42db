"""Odd files as people bring them, from the upload to data that can be trained on, through the Data tab's own handlers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from openpyxl import Workbook

from sftdemo import files
from sftdemo.data import read
from sftdemo.errors import UserError
from sftdemo.ui import chosen_data
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.data import DataTab
from tests.test_data_handlers import form_of
from tests.test_tabs import last, request

pytestmark = pytest.mark.slow


@pytest.fixture
def tab() -> Iterator[DataTab]:
    with gr.Blocks() as blocks:
        yield DataTab(Page(blocks, run=gr.State(None), data=gr.State({}), timer=gr.Timer(active=False), tabs=gr.Tabs()))


def shown(tab: DataTab, path: Path, **settings: Any) -> dict[Any, Any]:
    return last(tab.show({"data": str(path), **form_of(tab, **settings), "clean": ""}, 1, "en"))


def said(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Is {number} odd?"}, {"role": "assistant", "content": "Yes."}]}


def test_conversations_inside_objects_are_read_without_a_word(tab: DataTab, tmp_path: Path) -> None:
    path = tmp_path / "threads.json"
    path.write_text(json.dumps([{"id": number, "chat": said(number)} for number in range(40)]))
    parts = shown(tab, path)
    assert "40 rows, ready" in parts[tab.verdict] and "chat.messages" in parts[tab.mapping]


def test_rows_two_objects_deep_are_found(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    rows = [{"question": f"What costs item {number}?", "answer": f"It costs {number}."} for number in range(40)]
    path.write_text(json.dumps({"version": 2, "data": {"entries": rows}}))
    dataset = read(path)
    assert dataset.examples == 40 and any("under 'data.entries'" in note for note in dataset.notes)
    path.write_text(json.dumps({"data": {"turns": said(1)["messages"]}}))
    assert read(path).examples == 1, "turns are one row"


def test_the_pair_that_is_proposed_can_be_taken(tab: DataTab, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    rows = [{"meta": {"note": f"the item number {n} is long", "kind": "ab"[n % 2]}, "n": n} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = shown(tab, path)
    assert (parts[tab.prompt]["value"], parts[tab.answer]["value"]) == ("meta.note", "meta.kind")
    with pytest.raises(UserError, match=r"'meta.kind' is a part of 'meta'"):
        last(tab.pick_pair(request(), parts[tab.looked], 1, "meta", "meta.kind", **form_of(tab)))
    taken = last(
        tab.pick_pair(
            request(), parts[tab.looked], 1, parts[tab.prompt]["value"], parts[tab.answer]["value"], **form_of(tab)
        )
    )
    assert "40 rows, 2 labels, ready" in taken[tab.verdict]


def test_the_sheet_with_a_table_is_read_and_notes_are_not(tmp_path: Path) -> None:
    book = Workbook()
    book.active.title = "Notes"
    book.active.append(["About this file"])
    book.active.append(["Made by Ann"])
    table = book.create_sheet("Answers")
    table.append(["Question", "Answer"])
    for number in range(40):
        table.append([f"What costs item {number}?", f"It costs {number} euro."])
    book.save(tmp_path / "two.xlsx")
    dataset = read(tmp_path / "two.xlsx")
    assert dataset.examples == 40 and "Only the sheet 'Answers' is read; there are also 'Notes'" in str(
        dataset.warnings[0]
    )


def test_prompt_and_answer_are_in_sight_among_forty_columns(tab: DataTab, tmp_path: Path) -> None:
    path, marks = tmp_path / "survey.csv", [f"q{n}" for n in range(38)]
    lines = [",".join([*(str((n * k) % 5) for k in range(38)), f"the guest {n} was quite happy"]) for n in range(60)]
    path.write_text("\n".join([",".join([*marks, "remark in words"]), *lines]))
    parts = shown(tab, path)
    assert "remark in words · Prompt" in parts[tab.preview] and parts[tab.preview].count("<th>") == 13
    pair = parts[tab.prompt]["value"], "q30"
    taken = last(tab.pick_pair(request(), parts[tab.looked], 1, *pair, **form_of(tab)))
    assert "remark in words · Prompt" in taken[tab.preview] and "q30 · Answer" in taken[tab.preview]


def test_one_label_is_told_before_training(tab: DataTab, tmp_path: Path) -> None:
    path = tmp_path / "spam.csv"
    path.write_text("text,label\n" + "".join(f"the mail number {n} is long,spam\n" for n in range(60)))
    parts = shown(tab, path)
    assert "1 label," in parts[tab.verdict] and "nothing to tell apart" in parts[tab.verdict]


def test_three_rows_are_told_what_is_missing(tab: DataTab, tmp_path: Path) -> None:
    path = tmp_path / "three.csv"
    path.write_text("text,label\ngood day,pos\nbad day,neg\nfine,pos\n")
    parts = shown(tab, path)
    assert "too few to be split" in parts[tab.verdict] and "add rows" in parts[tab.verdict]


def test_one_column_is_told_as_such(tab: DataTab, tmp_path: Path) -> None:
    path = tmp_path / "remarks.csv"
    path.write_text("remark\n" + "".join(f"the guest {n} was quite happy\n" for n in range(60)))
    parts = shown(tab, path)
    assert "The only column is" in parts[tab.faults] and "Choose above" not in parts[tab.faults]


def test_buttons_are_offered_only_for_what_they_mend(tab: DataTab, tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    rows = [f"the mail {n} is long,{'ab'[n % 2]}\n" for n in range(60)]
    path.write_text("text,label\n" + "".join(rows) + "the mail 0 is long,b\n")
    parts = shown(tab, path)
    warned = chosen_data.summarize(chosen_data.chosen_config({"data": str(path)}))["warnings"]
    assert any(fault["line"] for fault in warned) and not parts[tab.repair]["visible"], "no repair knows which is right"
    path = tmp_path / "empty.csv"
    path.write_text("question,answer\n" + "".join(f"what costs item {n},\n" for n in range(40)))
    parts = shown(tab, path)
    assert not parts[tab.leave_out]["visible"], "no row would be left"
    path = tmp_path / "spelt.csv"
    path.write_text("text,label\n" + "".join(f"the mail {n} is long,{('a', 'b', 'A')[n % 3]}\n" for n in range(60)))
    assert shown(tab, path)[tab.repair]["visible"]
    rest = "".join(f"the mail {n} is long,{'ab'[n % 2]}\n" for n in range(60))
    (tmp_path / "holes.csv").write_text(f"text,label\n{rest}nothing said,\n,a\n")
    parts = shown(tab, tmp_path / "holes.csv")
    assert not parts[tab.repair]["visible"] and parts[tab.leave_out]["visible"], "nobody knows what is missing"
    assert parts[tab.leave_out]["variant"] == "primary" and "repair" not in parts[tab.verdict]
    assert chosen_data.dataset(chosen_data.chosen_config({"data": str(path)})).repairable == 20


USER, BOT = {"role": "user", "content": "a question"}, {"role": "assistant", "content": "an answer"}


@pytest.mark.parametrize(
    ("row", "repairable"),
    [
        ({"prompt": "what is the answer", "completion": "fÃ¼r immer"}, 1),
        ({"prompt": "the word \ufffd is lost", "completion": "yes"}, 0),
        ({"prompt": 42, "completion": "yes"}, 1),
        ({"prompt": "", "completion": "yes"}, 0),
        ({"messages": [USER, BOT, USER]}, 1),
        ({"messages": [USER, USER, BOT]}, 1),
        ({"messages": [USER, USER]}, 0),
        ({"messages": [USER, {"role": "system", "content": "be brief"}, BOT, USER]}, 0),
    ],
)
def test_a_repair_is_offered_where_it_mends_the_row(
    tab: DataTab, tmp_path: Path, row: dict[str, Any], repairable: int
) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"messages": [USER, BOT]} if "messages" in row else {"prompt": "what is this", "completion": "a thing"}
    files.write_jsonl(path, [*({**good, "n": n} for n in range(40)), row])
    parts = shown(tab, path)
    assert parts[tab.repair]["visible"] == bool(repairable)
    read = [
        chosen_data.dataset(chosen_data.chosen_config({"data": str(path), "on_fault": how})) for how in ("stop", "fix")
    ]
    assert read[0].repairable == repairable and read[1].repairable == 0
    assert read[1].examples == (41 if repairable or "lost" in str(row) else 40)
