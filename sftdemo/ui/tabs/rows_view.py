"""The rows of the chosen data, to look through and to edit; what saves an edit and reads the data anew is `row_editing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from sftdemo.config.read import ReadConfig
from sftdemo.data import edits as histories
from sftdemo.data import mixture
from sftdemo.data.types import Edit
from sftdemo.errors import UserError
from sftdemo.ui import chosen_data, data_reader, row_edits
from sftdemo.ui.access import rights
from sftdemo.ui.data_reader import Reading
from sftdemo.ui.parts import html
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import EACH_PICK, Page, picked, picker
from sftdemo.ui.parts.pager import Pager
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.row_edits import Record
from sftdemo.ui.tabs import left_out_rows, row_draft, row_files, row_list
from sftdemo.ui.tabs.row_editing import Editing, Shows, Update, read
from sftdemo.ui.tabs.row_list import SHOWS, Filters
from sftdemo.ui.texts import label, language, number, say
from sftdemo.verbs.row_records import MOST_ROWS

MOST_LABELS = 200
IN_SIGHT_JS = """() => { setTimeout(() => document.getElementById("rows-box")?.scrollIntoView(), 100); return []; }"""


class RowsView:
    """A list of rows with filters, the row that is open beside it, what was edited so far, and the downloads."""

    def __init__(self, page: Page, lead: Any) -> None:
        """`lead` is the button, further up on the tab, that leads to the list."""
        self.page, self.lead = page, lead
        self.at, self.key, self.field = gr.State(0), gr.State([]), gr.State(0)  # the page listed; the row, its value
        self.draft = row_draft.Draft()
        self.why = gr.HTML("", elem_id="rows-why")  # why there is no list
        with gr.Accordion(label("rows_title"), open=False, visible=False, elem_id="rows-box") as self.box:
            self._build_filters()
            with gr.Row(elem_classes="columns"):
                with gr.Column(scale=3, min_width=0):
                    self.table = picker(elem_id="rows")
                    self.pager = Pager(self.at, "rows")
                self._build_opened()
            with gr.Row(elem_classes="small-row"):
                self.new = gr.Button(label("rows_new"), size="sm", elem_id="rows-new")
                self.undo = gr.Button(label("rows_undo"), size="sm", elem_id="rows-undo")
                self.download = gr.Button(label("rows_download"), size="sm", elem_id="rows-download")
            self.made = gr.HTML("", elem_id="rows-edits")
            self.files = gr.HTML("", elem_id="rows-files")
        self.panel = [
            self.beside,
            self.opened,
            self.prompt,
            self.text,
            self.label,
            self.save,
            self.leave_out,
            self.take_back,
            self.key,
            self.field,
            self.draft.place,
        ]
        self.listed = [self.table, *self.pager.parts]
        self.asked = {"show": self.show_only, "of_label": self.of_label, "search": self.search, "run_name": page.run}
        self.views = [
            self.lead,
            self.why,
            self.box,
            self.show_only,
            self.of_label,
            self.search,
            self.made,
            self.files,
            self.undo,
            self.new,
        ]
        self.views += [*self.listed, *self.panel]

    def _build_filters(self) -> None:
        with gr.Row(elem_classes="small-fields"):
            narrow = {"min_width": 130, "scale": 1}
            shows = [(label(f"rows_show_{name}"), name) for name in SHOWS]
            self.show_only = gr.Dropdown(shows, value="all", label=label("rows_show"), elem_id="rows-show", **narrow)
            self.of_label = gr.Dropdown([], label=label("outputs_label"), elem_id="rows-label", **narrow)
            self.search = gr.Textbox(label=label("outputs_search"), max_lines=1, elem_id="rows-search", **narrow)

    def _build_opened(self) -> None:
        with gr.Column(scale=2, min_width=0, visible=False, elem_id="rows-beside") as self.beside:
            self.close = gr.Button(label("row_close"), size="sm", elem_id="rows-close")
            self.opened = picker(elem_id="rows-opened")
            self.prompt = gr.Textbox(label=label("column_prompt"), lines=2, max_lines=12, elem_id="rows-prompt")
            self.text = gr.Textbox(label=label("rows_value"), lines=2, max_lines=12, elem_id="rows-text")
            self.label = gr.Dropdown(
                [],
                label=label("role_label"),
                info=label("rows_label_help"),
                allow_custom_value=True,
                elem_id="rows-set-label",
            )
            with gr.Row():
                self.save = gr.Button(label("rows_save"), variant="primary", elem_id="rows-save", min_width=90)
                self.leave_out = gr.Button(label("rows_leave_out"), elem_id="rows-leave-out", min_width=90)
                self.take_back = gr.Button(label("rows_take_back"), elem_id="rows-take-back", min_width=90)

    # What is shown

    def show(self, config: ReadConfig, lang: str) -> Update:
        """The rows of data that was just read, from the first on, with no filter and no row open."""
        reading = data_reader.read(chosen_data.of_file(config))
        summary = reading.summary
        listed = reading.listed if row_edits.may_edit(config.data, rights.current()) else None
        entries = histories.effective(row_edits.history(config.edits or ""))
        unlisted = html.block(why_unlisted(reading, config.data, lang), "muted small") if listed is None else ""
        why = {self.why: unlisted}
        if listed is None or not (len(listed) or entries):  # of a file that can't be read there is no row
            hidden = dict.fromkeys((self.box, self.lead), gr.update(visible=False))
            return {**hidden, **why, self.table: "", **self.closed()}
        return {
            **why,
            self.box: gr.update(visible=True),
            self.lead: gr.update(visible=True),
            self.show_only: "all",
            self.search: "",
            self.of_label: gr.update(choices=[(say(lang, "outputs_all"), ""), *labels(summary)], value="", visible=bool(summary["labels"])),
            self.made: row_list.edits_made(entries, lang),
            self.files: "",
            self.undo: gr.update(interactive=bool(entries)),
            self.new: gr.update(visible=row_edits.can_add(summary)),
            **self.closed(),
            **self.list_page(reading, Filters(), 0, "", lang, config.edits),
        }  # fmt: skip

    def list_page(
        self, reading: Reading, filters: Filters, at: int, run_name: str | None, lang: str, history: str | None
    ) -> Update:
        said = row_list.opinions(run_name) if filters.show == "disagree" else {}
        rows = row_list.listing(reading, filters, at, said, history or "")
        return {
            self.table: row_list.table(rows, reading.summary, said, filters.show, lang),
            **self.pager.shown(rows, lang),
        }

    def closed(self) -> Update:
        place = {self.key: [], self.field: 0, self.draft.place: ""}
        return {self.beside: gr.update(visible=False), self.opened: "", **place}

    def placed(self, key: list[Any], field: int = 0, **begun: str) -> Update:
        """The row at that key is the one that is open."""
        return {self.key: key, self.field: field, self.draft.place: row_draft.place(key, field, **begun)}

    def open(self, reading: Reading, record: Record, field: int | None, run_name: str | None, lang: str) -> Update:
        """A row in full, with one of its values in the text field and its label in the menu."""
        values = row_list.fields(record)
        if field is None or field not in range(len(values)):
            field = row_list.first_field(record, reading.summary)
        path = row_edits.label_path(record, reading.summary["mapping"])
        own = row_edits.as_text(histories.value_at(record["values"], path)) if path else ""
        text: dict[str, Any] = {"visible": bool(values)}
        if values:
            way, value = values[field]
            text |= {"value": row_edits.as_text(value), "label": row_list.field_title(record, way)}
        return {
            self.beside: gr.update(visible=True),
            self.opened: row_list.opened(record, row_list.opinions(run_name), field, lang),
            self.prompt: gr.update(visible=False, value=""),
            self.text: gr.update(**text),
            self.label: gr.update(visible=path is not None, choices=labels(reading.summary, own), value=own or None),
            self.save: gr.update(visible=bool(values)),
            self.leave_out: gr.update(visible=True),
            self.take_back: gr.update(visible=False),
            **self.placed(row_list.key_of(record), field),
        }

    def open_left_out(self, record: Record, number: int, lang: str) -> Update:
        """A row that is left out, to look at and to take back."""
        hidden = (self.prompt, self.text, self.label, self.save, self.leave_out)
        return {
            **dict.fromkeys(hidden, gr.update(visible=False)),
            self.beside: gr.update(visible=True),
            self.opened: row_list.opened(record, {}, -1, lang),
            self.take_back: gr.update(visible=True),
            **self.placed([number]),
        }

    def open_new(self, reading: Reading, lang: str, prompt: str = "", answer: str = "") -> Update:
        """An empty row, or one that was begun elsewhere; what a model answered is no label because of that."""
        classes = bool(reading.summary["labels"]) and reading.summary["format"] == "text_label"
        answer = answer if not classes or answer in reading.summary["labels"] else ""
        return {
            self.beside: gr.update(visible=True),
            self.opened: row_list.new_title(lang),
            self.prompt: gr.update(visible=True, value=prompt),
            self.text: gr.update(visible=not classes, value=answer, label=say(lang, "column_answer")),
            self.label: gr.update(visible=classes, choices=labels(reading.summary, answer), value=answer or None),
            self.save: gr.update(visible=True),
            self.leave_out: gr.update(visible=False),
            self.take_back: gr.update(visible=False),
            **self.placed([], prompt=prompt, text=answer, label=answer),
        }

    # Handlers

    def list_rows(self, request: gr.Request, looked: Any, at: int = 0, step: int = 0, **asked: Any) -> Update:
        """The page of rows `step` pages from `at`; the first one where neither is given."""
        filters = Filters.of(asked["show"], asked["of_label"], asked["search"])
        history = looked.get("edits")
        rows = self.list_page(read(looked), filters, at + step, asked["run_name"], language(request), history)
        return {**rows, **self.closed()}

    def lead_here(self, request: gr.Request, looked: Any, run_name: Any) -> Update:
        """The list opened; where there are rows with problems, at those."""
        reading = read(looked)
        open_faults = any(fault["line"] for fault in reading.summary["faults"])
        filters = Filters(show="problems") if open_faults else Filters()
        shown = {self.box: gr.update(open=True), self.show_only: filters.show, self.of_label: "", self.search: ""}
        rows = self.list_page(reading, filters, 0, run_name, language(request), looked.get("edits"))
        return {**shown, **rows, **self.closed()}

    def open_row(self, request: gr.Request, event: gr.EventData, looked: Any, run_name: Any) -> Update:
        reading, pick = read(looked), picked(event)
        number = pick.removeprefix(row_list.LEFT_OUT)
        if number != pick and number.isdecimal():
            record = left_out_rows.find(looked.get("edits", ""), int(number))
            return self.open_left_out(record, int(number), language(request))
        if reading.listed is None or not pick.isdecimal() or int(pick) >= len(reading.listed):
            raise UserError("That row isn't there any more; list the rows anew.")
        return self.open(reading, reading.listed.read(int(pick)), None, run_name, language(request))

    def pick_field(self, request: gr.Request, event: gr.EventData, looked: Any, key: Any, run_name: Any) -> Update:
        """Another value of the open row is to be changed."""
        reading, pick = read(looked), picked(event)
        record = row_list.find(reading, key)
        if not pick.isdecimal() or int(pick) >= len(row_list.fields(record)):
            raise UserError("That row isn't there any more; list the rows anew.")
        return self.open(reading, record, int(pick), run_name, language(request))

    def begin_row(self, request: gr.Request, looked: Any) -> Update:
        return self.open_new(read(looked), language(request))

    def list_again(
        self, request: gr.Request, looked: Any, at: int, drawn: str, key: Any, field: int, **asked: Any
    ) -> Update:
        """The list as it stands, and the row that is open."""
        shown = self.list_rows(request, looked, at, **asked)
        if not drawn:
            return shown
        return {**shown, **self.open_at(looked, key, field, asked["run_name"], language(request))}

    def open_at(self, looked: Any, key: Any, field: int, run_name: str | None, lang: str) -> Update:
        """The row at a key, which may be left out; without a key one that is to be added."""
        if len(key) == 1:
            number = left_out_rows.number_in(key)
            return self.open_left_out(left_out_rows.find(looked.get("edits", ""), number), number, lang)
        reading = read(looked)
        if not key:
            return self.open_new(reading, lang)
        return self.open(reading, row_list.find(reading, key), field, run_name, lang)

    def reopen(self, request: gr.Request, looked: Any, run_name: Any, kept: Any) -> Update:
        """The row that was open before the page was loaded again, with what had been put into its fields."""
        begun = row_draft.parse(kept)
        if not begun or not row_edits.may_edit(looked.get("data", ""), rights.visitor(request)):
            return {}
        key, field, texts = begun
        try:
            shown = self.open_at(looked, key, field, run_name, language(request))
        except UserError:  # the row is gone, with the data or since
            return {}
        for name, part in zip(row_draft.FIELDS, (self.prompt, self.text, self.label), strict=True):
            if name in texts:
                shown[part] = {**shown[part], "value": texts[name]}
        return {self.box: gr.update(open=True), **shown}

    def close_row(self) -> Update:
        return self.closed()

    def wanted(self, looked: Any, key: Any, field: int, text: str, own_label: Any, prompt: str) -> list[Edit]:
        """The edits that the open row's fields ask for."""
        reading = read(looked)
        if not key:
            answer = own_label if reading.summary["format"] == "text_label" and reading.summary["labels"] else text
            return [new_row(reading, prompt or "", str(answer or ""), looked.get("edits") or "")]
        record = row_list.find(reading, key)
        paths = row_list.fields(record)
        label_path = row_edits.label_path(record, reading.summary["mapping"])
        changed = []
        if isinstance(field, int) and 0 <= field < len(paths):
            changed.append(row_edits.change(record, paths[field][0], text or ""))
        if changed and changed[0]:  # the edit of the label comes after it, of the row as it is by then
            record = {**record, "values": histories.with_value(record["values"], paths[field][0], changed[0]["new"])}
        if label_path and own_label is not None and (not changed or paths[field][0] != label_path or not changed[0]):
            changed.append(row_edits.change(record, label_path, str(own_label)))
        return [edit for edit in changed if edit]

    def wire(
        self, form: Mapping[str, Any], tab_views: Sequence[Any], shows: Shows, fault: Any, opened_page: Any
    ) -> None:
        """`form` is what the tab reads its data by, `tab_views` what `shows` fills, `opened_page` the event of its first
        data having been read."""
        looked = form["looked"]
        asked = {"looked": looked, **self.asked}
        rows = [*self.listed, *self.panel]
        for trigger in (self.show_only.input, self.of_label.input, self.search.submit):
            wire(trigger, self.list_rows, asked, rows, fault, needs="own_data")
        for button, turn in self.pager.turns:
            wire(button.click, self.list_rows, {**asked, **turn}, rows, fault, needs="own_data")
        row = {"looked": looked, "run_name": self.page.run}
        opened = [self.box, self.show_only, self.of_label, self.search, *rows]
        led = wire(self.lead.click, self.lead_here, row, opened, fault, needs="own_data")
        wire(led.success, None, None, None, js=IN_SIGHT_JS)
        wire(self.table.select, self.open_row, row, self.panel, fault, needs="own_data", **EACH_PICK)
        one_field = {**row, "key": self.key}
        wire(self.opened.select, self.pick_field, one_field, self.panel, fault, needs="own_data", **EACH_PICK)
        wire(self.new.click, self.begin_row, {"looked": looked}, self.panel, fault, needs="own_data")
        wire(self.close.click, self.close_row, None, self.panel, fault, needs="own_data")
        edited = Editing(self, looked, shows)
        inputs = {**form, "at": self.at, **self.asked}
        one = {"key": self.key, "field": self.field, "text": self.text, "own_label": self.label, "prompt": self.prompt}
        once: dict[str, Any] = {"needs": "own_data", "trigger_mode": "once"}
        wire(self.save.click, edited.save, {**inputs, **one}, tab_views, fault, **once)
        wire(self.leave_out.click, edited.leave_out, {**inputs, "key": self.key}, tab_views, fault, **once)
        wire(self.take_back.click, edited.take_back, {**inputs, "key": self.key}, tab_views, fault, **once)
        wire(self.undo.click, edited.undo, inputs, tab_views, fault, **once)
        again = {**asked, "at": self.at, "drawn": self.opened, "key": self.key, "field": self.field}
        redraw(
            self.page, self.list_again, again, [self.table, self.pager.place, self.opened, self.text], needs="own_data"
        )
        came_back = self.draft.wire(opened_page, [self.prompt, self.text, self.label])
        wire(came_back, self.reopen, {**row, "kept": self.draft.kept}, [self.box, *self.panel], fault)
        wire(self.download.click, self.offer, {"looked": looked}, [self.files], fault, needs="own_data")

    def offer(self, request: gr.Request, looked: Any) -> Update:
        """Links to the rows as edited, to what is trained on, and to the history of edits."""
        lang, reading = language(request), read(looked)
        paths = row_files.written(reading, looked, rights.visitor(request))
        links = [html.download_link(path, say(lang, f"download_{kind}")) for kind, path in paths.items()]
        return {self.files: "".join(f"<p>{link}</p>" for link in links)}


def why_unlisted(reading: Reading, data: str, lang: str) -> str:
    """Why the rows of data aren't listed for who might edit them elsewhere; "" where they may not."""
    visitor = rights.current()
    if not visitor.may("own_data"):
        return ""
    if len(mixture.parse(data)) > 1 or reading.dataset.sources:
        return say(lang, "rows_of_mixture")
    return say(lang, "rows_too_many", most=number(MOST_ROWS)) if row_edits.may_edit(data, visitor) else ""


def labels(summary: Mapping[str, Any], own: str = "") -> list[tuple[str, str]]:
    names = list(summary["labels"])[:MOST_LABELS]
    return [(name, name) for name in (names if not own or own in names else [*names, own])]


def new_row(reading: Reading, prompt: str, answer: str, history: str = "") -> Edit:
    """The edit that adds a row behind the last line."""
    listed = reading.listed
    records = [listed.read(place) for place in range(len(listed))] if listed else []
    left_out = [record for _, record in left_out_rows.records(history)]  # which may be taken back to their lines
    line = 1 + max((record["line"] for record in [*records, *left_out]), default=0)
    return row_edits.added(prompt, answer, records, reading.summary, line)
