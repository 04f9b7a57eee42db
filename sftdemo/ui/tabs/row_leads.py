"""From other tabs to the rows of the data: an output whose label is wrong, an answer of the chat as a new row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import Superseded, UserError
from sftdemo.ui import row_edits
from sftdemo.ui.access import rights
from sftdemo.ui.chosen_data import FROM_FILE
from sftdemo.ui.data_reader import Reading
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import Page, find_ready
from sftdemo.ui.tabs import row_list
from sftdemo.ui.tabs.chat import ChatTab
from sftdemo.ui.tabs.conversation import talk_with
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.outputs import OutputsView, find_row
from sftdemo.ui.tabs.row_editing import read
from sftdemo.ui.texts import language
from sftdemo.verbs.row_records import asked

# In the browser: the row in sight, and the menu of its labels open.
LABELS_JS = """() => { setTimeout(() => {
  document.getElementById("rows-beside")?.scrollIntoView({block: "center"});
  document.querySelector("#rows-set-label input")?.focus();
}, 300); return []; }"""
Update = dict[Any, Any]


class RowLeads:
    """The buttons on Evaluate and Chat that lead to the list of rows."""

    def __init__(self, page: Page, tab: DataTab, outputs: OutputsView, chat: ChatTab) -> None:
        self.page, self.tab, self.outputs, self.chat = page, tab, outputs, chat

    def shown(self, update: Update) -> Update:
        return {
            self.page.tabs: gr.Tabs(selected="data"),
            self.tab.rows.box: gr.update(open=True, visible=True),
            **update,
        }

    def relabel(self, request: gr.Request, looked: Any, run_name: str, metric: str, number: Any) -> Iterator[Update]:
        """The row of an output, opened where it stands in the data: those looked at, else those of the run."""
        output, lang = find_row(run_name, metric, number), language(request)
        prompt = asked(output["messages"])
        record = find_in(looked, prompt, request)
        if record is None:
            for update in self.data_of(run_name, request):
                looked = update.get(self.tab.looked, looked)
                yield update
            record = find_in(looked, prompt, request)
        if record is None:
            raise not_at_hand(run_name)
        yield self.shown(self.tab.rows.open(read(looked), record, None, run_name, lang))

    def data_of(self, run_name: str, request: gr.Request) -> Iterator[Update]:
        """Choose the data of a run with the settings that it was read with, where the visitor may and it is still there."""
        settings = runs.named(run_name).config().get("settings", {})
        visitor, data = rights.visitor(request), str(settings.get("data") or "")
        chosen = {name: value for name, value in settings.items() if name in FROM_FILE and name != "edits"}
        chosen["edits"] = row_edits.kept(data, visitor)
        try:
            updates = list(self.tab.restore(chosen, request))
        except Superseded:
            raise
        except UserError:  # its reason may name what only the owner may read
            raise not_at_hand(run_name) from None
        yield from updates

    def teach(self, request: gr.Request, looked: Any, run_name: str, talks: Any) -> Update:
        """The last question of the chat and its answer, as a row that isn't saved yet."""
        turns = talk_with(talks, find_ready(run_name).name).now.turns
        if not turns or run_name not in turns[-1].answers:
            raise UserError("There is no answer to make a row of yet; ask something first.")
        reading = read(looked)
        if not row_edits.may_edit(looked["data"], rights.visitor(request)) or not row_edits.can_add(reading.summary):
            raise UserError("A row can't be added to the data that is chosen; choose your own on the Data tab first.")
        answer = turns[-1].answers[run_name].text.strip()
        return self.shown(self.tab.rows.open_new(reading, language(request), turns[-1].text, answer))

    def wire(self) -> None:
        rows, tab, page = self.tab.rows, self.tab, self.page
        outputs = self.outputs
        led = [page.tabs, *tab.views]
        row = {"looked": tab.looked, "run_name": page.run, "metric": outputs.metric, "number": outputs.open_number}
        once: dict[str, Any] = {"needs": "own_data", "trigger_mode": "once"}
        found = wire(outputs.mislabelled.click, self.relabel, row, led, outputs.fault, **once)
        wire(found.success, None, None, None, js=LABELS_JS)
        talk = {"looked": tab.looked, "run_name": page.run, "talks": self.chat.talks}
        taught = wire(self.chat.teach.click, self.teach, talk, [page.tabs, *rows.views], self.chat.fault, **once)
        wire(taught.success, None, None, None, js=LABELS_JS)


def find_in(looked: Mapping[str, Any], prompt: str, request: gr.Request) -> row_edits.Record | None:
    """The record of the row with this prompt in the data that is looked at, if it may be edited."""
    if not looked.get("read") or not row_edits.may_edit(looked["data"], rights.visitor(request)):
        return None
    reading: Reading = read(looked)
    return row_list.find_asked(reading, prompt)


def not_at_hand(run_name: str) -> UserError:
    return UserError(
        "The row isn't in data that you can edit here; choose the data of run {name} on the Data tab first.",
        name=run_name,
    )
