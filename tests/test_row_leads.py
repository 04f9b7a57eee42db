"""What leads to a row to edit: a wrong label in the outputs, an answer of the chat; and who may edit what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from test_tabs import request
from test_ui import made_run

from sftdemo import data, files
from sftdemo.errors import UserError
from sftdemo.ui import row_edits
from sftdemo.ui.access import rights, uploads
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.tabs import row_leads, row_list
from sftdemo.ui.tabs.chat import ChatTab
from sftdemo.ui.tabs.conversation import Answer, Conversation, Talk, Turn, talks_with
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.outputs import OutputsView
from tests.test_row_edits import Session, tab, table  # noqa: F401 (fixtures)


def test_visitors_edit_their_own_uploads_alone(tab, tmp_path):  # noqa: F811
    rights.use(AppConfig(visitors_own_data=True), "0.0.0.0")
    try:
        ann, bob = (rights.Visitor("visitor", key, address="1.2.3.4", browser=True) for key in ("ann", "bob"))
        upload = uploads.folder_of(ann) / "t" / "h" / "rows.csv"
        upload.parent.mkdir(parents=True)
        upload.write_text(Path(table(tmp_path)).read_text(encoding="utf-8"), encoding="utf-8")
        edit = {"action": "add", "file": "rows.csv", "line": 99, "values": {"text": "x", "label": "a"}}
        path = row_edits.add("", str(upload), [edit], ann)
        assert Path(path).parent == upload.parents[1] and row_edits.kept(str(upload), ann) == path
        for data_path, visitor in ((str(upload), bob), ("support_tickets", ann), (table(tmp_path), ann)):
            assert not row_edits.may_edit(data_path, visitor) and row_edits.kept(data_path, visitor) == ""
            with pytest.raises(UserError, match="can't be edited here"):
                row_edits.add("", data_path, [edit], visitor)
        rights.use(AppConfig(visitors_own_data=True, visitor_kept_mb=1), "0.0.0.0")
        with pytest.raises(UserError, match="may keep 1 MB"):
            row_edits.add(
                path, str(upload), [{**edit, "line": 100, "values": {"text": "x" * 2**20, "label": "a"}}], ann
            )
        assert len(row_edits.history(path)) == 1
    finally:
        rights.use(AppConfig(), "127.0.0.1")


def evaluated(dataset: data.Dataset, source: str, **settings: Any) -> str:
    """A run of that data with an evaluation of two of its rows."""
    run = made_run(Path(source).stem, **settings)
    config = run.config()
    files.write_json(run.path / "config.json", {**config, "settings": {**config["settings"], "data": source}})
    rows = dataset.splits["train"][:2]
    outputs = [
        {"row": number, "messages": row["messages"][:-1], "references": [row["label"]], "label": row["label"]}
        | {"base": "x", "tuned": "b"}
        for number, row in enumerate(rows)
    ]
    files.write_jsonl(run.path / "evaluations" / "one" / "outputs.jsonl", outputs)
    files.write_json(
        run.path / "evaluations" / "one" / "scores.json", {"n": 2, "base": {}, "tuned": {}, "difference": {}}
    )
    return run.name


def leads(tab: DataTab) -> row_leads.RowLeads:  # noqa: F811
    page = tab.page
    page.tabs = gr.Tabs()
    return row_leads.RowLeads(page, tab, OutputsView(page, gr.HTML()), ChatTab(page, gr.Tab()))


def test_a_wrong_label_in_the_outputs_leads_to_its_row(tab, tmp_path):  # noqa: F811
    session = Session(tab, table(tmp_path), on_fault="drop")
    source = session.looked["data"]
    lead = leads(tab)
    name = evaluated(session.dataset(), source, on_fault="drop")
    elsewhere = Session(tab, "house_style")
    for where in (session, elsewhere):  # the data is looked at, or chosen as the run was made with it
        where.take(lead.relabel(request(), where.looked, name, "", 1))
        assert where.looked["data"] == source and where.looked["read"]["on_fault"] == "drop"
        assert where.values[tab.page.tabs].selected == "data" and where.values[tab.rows.box]["open"]
        assert where.value(tab.rows.label) == "b" and "number&lt;/b&gt; 7 of it" in where.values[tab.rows.opened]
    assert elsewhere.values[tab.choices["on_fault"]] == "drop"  # or the next setting would read it otherwise
    elsewhere.save(own_label="a")
    assert elsewhere.dataset().labels == {"a": 16, "b": 14}
    with pytest.raises(UserError, match="isn't in data that you can edit"):
        gone = evaluated(session.dataset(), str(tmp_path / "gone.csv"))
        list(lead.relabel(request(), Session(tab, "house_style").looked, gone, "", 0))


def test_an_answer_of_the_chat_becomes_a_training_row(tab, tmp_path):  # noqa: F811
    lead = leads(tab)
    session = Session(tab, table(tmp_path), on_fault="drop")
    name = made_run("r").name
    turn = Turn("what I typed", {name: "Which?\n\nwhat I typed"}, {name: Answer(" c\n")})
    talks = talks_with({}, name, Talk(Conversation(turns=[turn])))
    session.take(lead.teach(None, session.looked, name, talks))
    assert session.values[tab.page.tabs].selected == "data"
    assert not session.value(tab.rows.label), "what a model makes up isn't put among the labels"
    with pytest.raises(UserError, match="needs a prompt and an answer"):
        session.save(prompt=session.value(tab.rows.prompt), own_label=session.value(tab.rows.label))
    session.save(prompt=session.value(tab.rows.prompt), own_label="c")
    new = next(row for row in session.dataset().splits["train"] if row["meta"].get("edited") == "add")
    assert new["label"] == "c" and new["messages"][-2]["content"].endswith("what I typed")
    with pytest.raises(UserError, match="ask something first"):
        lead.teach(None, session.looked, name, {})


class Counted(list[int]):
    """A list that counts how many of its items are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[int]:
        for item in super().__iter__():
            Counted.looks += 1
            yield item


def test_of_a_long_list_no_more_is_looked_at_than_can_be_edited() -> None:
    values = {"a": Counted(range(10_000)), "b": "never reached"}
    assert row_edits.leaves(values)[-1] == (["a", row_edits.MOST_LEAVES - 1], row_edits.MOST_LEAVES - 1)
    assert Counted.looks == row_edits.MOST_LEAVES
    record: Any = {"values": values, "problems": [], "edited": "", "asked": [], "label": "", "line": 1}
    assert "a · 59" in row_list.opened(record, {}, 0, "en")
    assert Counted.looks == 2 * row_edits.MOST_LEAVES, "once for all of its fields"
