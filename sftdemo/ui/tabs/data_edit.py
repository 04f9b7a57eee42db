"""The rows of the chosen data, to look through and to edit: each edit is a line of a history, and the data is read anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo import files
from sftdemo.data import edits as histories
from sftdemo.errors import UserError
from sftdemo.read_config import ReadConfig
from sftdemo.schema import Edit
from sftdemo.ui import chosen_data, data_reader, row_edits, uploads
from sftdemo.ui.access import rights
from sftdemo.ui.data_reader import Reading
from sftdemo.ui.parts import downloads
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import EACH_PICK, Page, picked, picker
from sftdemo.ui.parts.pager import Pager
from sftdemo.ui.row_edits import Record
from sftdemo.ui.tabs import row_list
from sftdemo.ui.tabs.row_list import SHOWS, Filters
from sftdemo.ui.texts import label, language, say

BOM = "\ufeff"  # without it Excel reads UTF-8 as the machine's own encoding
MOST_LABELS = 200
IN_SIGHT_JS = """() => { setTimeout(() => document.getElementById("rows-box")?.scrollIntoView(), 100); return []; }"""
Update = dict[Any, Any]
# Reads the data that is looked at and fills the tab: (looked, settings, row of the X-ray, language).
Shows = Callable[[Mapping[str, Any], Mapping[str, Any], int, str], Iterator[Update]]


class RowsView:
    """A list of rows with filters, the row that is open beside it, what was edited so far, and the downloads."""

    def __init__(self, page: Page, lead: Any) -> None:
        """`lead` is the button, further up on the tab, that leads to the list."""
        self.page, self.lead = page, lead
        self.at, self.key, self.field = gr.State(0), gr.State([]), gr.State(0)  # the page listed; the row, its value
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
            self.leave_out,
            self.key,
            self.field,
        ]
        self.listed = [self.table, *self.pager.parts]
        self.asked = {"show": self.show_only, "of_label": self.of_label, "search": self.search, "run_name": page.run}
        self.views = [
            self.lead,
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

    # What is shown

    def show(self, config: ReadConfig, lang: str) -> Update:
        """The rows of data that was just read, from the first on, with no filter and no row open."""
        reading = data_reader.read(chosen_data.of_file(config))
        summary = reading.summary
        may = row_edits.may_edit(config.data, rights.current()) and reading.listed is not None
        if not may:
            hidden = dict.fromkeys((self.box, self.lead), gr.update(visible=False))
            return {**hidden, self.table: "", **self.closed()}
        entries = histories.effective(row_edits.history(config.edits or ""))
        return {
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
            **self.list_page(reading, Filters(), 0, "", lang),
        }  # fmt: skip

    def list_page(self, reading: Reading, filters: Filters, at: int, run_name: str | None, lang: str) -> Update:
        said = row_list.opinions(run_name) if filters.show == "disagree" else {}
        rows = row_list.listing(reading, filters, at, said)
        return {
            self.table: row_list.table(rows, reading.summary, said, filters.show, lang),
            **self.pager.shown(rows, lang),
        }

    def closed(self) -> Update:
        return {self.beside: gr.update(visible=False), self.opened: "", self.key: [], self.field: 0}

    def open(self, reading: Reading, record: Record, field: int | None, run_name: str | None, lang: str) -> Update:
        """A row in full, with one of its values in the text field and its label in the menu."""
        field = row_list.first_field(record, reading.summary) if field is None else field
        values = row_list.fields(record)
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
            self.leave_out: gr.update(visible=True),
            self.key: row_list.key_of(record),
            self.field: field,
        }

    def open_new(self, reading: Reading, lang: str, prompt: str = "", answer: str = "") -> Update:
        """An empty row, or one that was begun elsewhere."""
        classes = bool(reading.summary["labels"]) and reading.summary["format"] == "text_label"
        return {
            self.beside: gr.update(visible=True),
            self.opened: row_list.new_title(lang),
            self.prompt: gr.update(visible=True, value=prompt),
            self.text: gr.update(visible=not classes, value=answer, label=say(lang, "column_answer")),
            self.label: gr.update(visible=classes, choices=labels(reading.summary, answer), value=answer or None),
            self.leave_out: gr.update(visible=False),
            self.key: [],
            self.field: 0,
        }

    # Handlers

    def list_rows(self, request: gr.Request, looked: Any, at: int = 0, step: int = 0, **asked: Any) -> Update:
        """The page of rows `step` pages from `at`; the first one where neither is given."""
        filters = Filters.of(asked["show"], asked["of_label"], asked["search"])
        rows = self.list_page(read(looked), filters, at + step, asked["run_name"], language(request))
        return {**rows, **self.closed()}

    def lead_here(self, request: gr.Request, looked: Any, run_name: Any) -> Update:
        """The list opened; where there are rows with problems, at those."""
        reading = read(looked)
        open_faults = any(fault["line"] for fault in reading.summary["faults"])
        filters = Filters(show="problems") if open_faults else Filters()
        shown = {self.box: gr.update(open=True), self.show_only: filters.show, self.of_label: "", self.search: ""}
        return {**shown, **self.list_page(reading, filters, 0, run_name, language(request)), **self.closed()}

    def open_row(self, request: gr.Request, event: gr.EventData, looked: Any, run_name: Any) -> Update:
        reading, pick = read(looked), picked(event)
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

    def close_row(self) -> Update:
        return self.closed()

    def wanted(self, looked: Any, key: Any, field: int, text: str, own_label: Any, prompt: str) -> list[Edit]:
        """The edits that the open row's fields ask for."""
        reading = read(looked)
        if not key:
            answer = own_label if reading.summary["format"] == "text_label" and reading.summary["labels"] else text
            return [new_row(reading, prompt or "", str(answer or ""))]
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

    def wire(self, form: Mapping[str, Any], tab_views: Sequence[Any], shows: Shows, fault: Any) -> None:
        """`form` is what the tab reads its data by, `tab_views` what `shows` fills."""
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
        wire(self.undo.click, edited.undo, inputs, tab_views, fault, **once)
        wire(self.download.click, self.offer, {"looked": looked}, [self.files], fault, needs="own_data")

    def offer(self, request: gr.Request, looked: Any) -> Update:
        """Links to the rows as edited, to what is trained on, and to the history of edits."""
        lang, reading = language(request), read(looked)
        paths = written(reading, looked, rights.visitor(request))
        links = [downloads.link(path, say(lang, f"download_{kind}")) for kind, path in paths.items()]
        return {self.files: "".join(f"<p>{link}</p>" for link in links)}


class Editing:
    """The handlers that change the history, and read the data with it."""

    def __init__(self, view: RowsView, looked: Any, shows: Shows) -> None:
        self.view, self.looked, self.shows = view, looked, shows

    def save(
        self,
        request: gr.Request,
        looked: Any,
        key: Any,
        field: Any,
        text: Any,
        own_label: Any,
        prompt: Any,
        **rest: Any,
    ) -> Iterator[Update]:
        wanted = self.view.wanted(looked, key, field, str(text or ""), own_label, str(prompt or ""))
        if not wanted:
            yield self.view.closed()
            return
        path = row_edits.add(looked.get("edits", ""), looked.get("data", ""), wanted, rights.visitor(request))
        yield from self.read_anew(request, {**looked, "edits": path}, rest)

    def leave_out(self, request: gr.Request, looked: Any, key: Any, **rest: Any) -> Iterator[Update]:
        edit = row_edits.left_out(row_list.find(read(looked), key))
        path = row_edits.add(looked.get("edits", ""), looked.get("data", ""), [edit], rights.visitor(request))
        yield from self.read_anew(request, {**looked, "edits": path}, rest)

    def undo(self, request: gr.Request, looked: Any, **rest: Any) -> Iterator[Update]:
        row_edits.undo(looked.get("edits", ""), looked.get("data", ""), rights.visitor(request))
        yield from self.read_anew(request, looked, rest)

    def read_anew(self, request: gr.Request, looked: Any, rest: dict[str, Any]) -> Iterator[Update]:
        """All of the tab with the edited data, and the same page of the list under the same filters."""
        lang, view = language(request), self.view
        asked = {name: rest.pop(name) for name in view.asked}
        at, row = rest.pop("at"), int(rest.pop("row") or 1)
        filters = Filters.of(asked["show"], asked["of_label"], asked["search"])
        for update in self.shows(looked, rest, row, lang):
            if view.table in update:
                same = {view.show_only: asked["show"], view.of_label: asked["of_label"], view.search: asked["search"]}
                update |= same | view.list_page(read(update[self.looked]), filters, at, asked["run_name"], lang)
            yield update


def labels(summary: Mapping[str, Any], own: str = "") -> list[tuple[str, str]]:
    names = list(summary["labels"])[:MOST_LABELS]
    return [(name, name) for name in (names if not own or own in names else [*names, own])]


def read(looked: Mapping[str, Any]) -> Reading:
    """The data that is looked at, as it was read."""
    if not looked.get("read"):
        raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
    return data_reader.read(ReadConfig.from_json(looked["read"]))


def new_row(reading: Reading, prompt: str, answer: str) -> Edit:
    """The edit that adds a row behind the last line."""
    listed = reading.listed
    records = [listed.read(place) for place in range(len(listed))] if listed else []
    line = 1 + max((record["line"] for record in records), default=0)
    return row_edits.added(prompt, answer, records, reading.summary, line)


def written(reading: Reading, looked: Mapping[str, Any], visitor: rights.Visitor) -> dict[str, Path]:
    """What is offered for download, by kind, as files written now: of an upload beside it, where its visitor may fetch them."""
    listed = reading.listed
    rows = [listed.read(place)["values"] for place in range(len(listed))] if listed else []
    rows = [row for row in rows if row]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = ([row_edits.as_text(row.get(column)) for column in columns] for row in rows)
    texts = {"rows_jsonl": ("edited.jsonl", files.jsonl(rows))}
    texts["rows_csv"] = ("edited.csv", BOM + files.csv_text(columns, cells))
    if trained := reading.prepared:
        examples = ({**row, "split": split} for split, part in trained.splits.items() for row in part)
        texts["trained_jsonl"] = ("examples.jsonl", files.jsonl(examples))
    if no_room := uploads.no_room(visitor, sum(len(text.encode()) for _, text in texts.values())):
        raise UserError(no_room)
    paths, own = {}, uploads.is_own(looked["data"], visitor)
    for kind, (end, text) in texts.items():
        name = f"{reading.dataset.name}-{end}"
        paths[kind] = uploads.place_of(Path(looked["data"])) / name if own else downloads.new_place(name)
        files.write_text(paths[kind], text)
    if looked.get("edits"):
        paths["history"] = Path(looked["edits"])
    return paths
