"""Runs: what was trained, how it did, side by side, and what to keep."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import files, runs
from sftdemo.errors import UserError
from sftdemo.ui import models, work
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html, lineage
from sftdemo.ui.parts.forms import EVALUATION_CLICK, wire
from sftdemo.ui.parts.page import EACH_PICK, Page, picked, picker, show_title
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.tabs.export import ExportPanel
from sftdemo.ui.tabs.importing import ImportPanel
from sftdemo.ui.tabs.push import PushPanel
from sftdemo.ui.tabs.run_comparison import ComparePanel
from sftdemo.ui.tabs.run_notes import NotesPanel
from sftdemo.ui.tabs.run_trash import TrashPanel
from sftdemo.ui.tabs.runs_table import (
    MOST_SEARCHED,
    NEWEST,
    PAGE_ROWS,
    SORT,
    all_tags,
    filtered,
    order_choices,
    ordered,
    runs_table,
    turned,
)  # fmt: skip
from sftdemo.ui.tabs.sweep_view import tried
from sftdemo.ui.texts import label, language, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.ui.trainings import resume_training
from sftdemo.verbs import jobs

OFFERED = 200  # runs in the menu of the comparison
UNDO_IN_SIGHT_JS = """() => {
  setTimeout(() => document.getElementById("runs-undo-row")?.scrollIntoView({block: "center"}), 100);
  return [];
}"""


def details(run: runs.Run, lang: str, owner: bool = True) -> str:
    """What the run is called, and why it failed or is damaged; for the owner, notes and where it is."""
    line = runs.overview(run)
    error = html.fault(in_words(line["error"] or "", lang)) if line["state"] == "failed" else ""
    if line["state"] == "damaged":
        error = html.fault(say(lang, "runs_damaged", reason=in_words(line["error"], lang)))
    tags = "".join(html.chip(tag) for tag in line["tags"] or ())
    noted = ""
    if owner and line["state"] != "damaged" and (text := run.notes().get("notes")):
        noted = f'<p class="note" dir="auto">{html.esc(text)}</p>'
    path = (
        f'<p class="muted small">{say(lang, "runs_folder")}</p><pre class="cmd">{html.esc(files.real(run.path))}</pre>'
    )
    config: Mapping[str, Any] = run.config() if owner and line["state"] != "damaged" else {}
    before = f'<p class="small">{lineage.line(origin, lang)}</p>' if (origin := config.get("from")) else ""
    if student := config.get("student"):
        before += f'<p class="small">{lineage.taught(student, lang)}</p>'
    settings_tried = tried(run, lang) if line["state"] != "damaged" else ""
    content = f"{error}{tags}{noted}{before}{path if owner else ''}"
    return html.sheet(content, line["display_name"] or run.name) + settings_tried


class RunsTab:
    """The list of runs, what can be done with the one picked, and a comparison; drawn anew whenever it is opened."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page, self.tab = page, tab
        self.shown, self.focus = gr.State(PAGE_ROWS), page.picked  # rows listed; the run picked
        with gr.Row(elem_id="runs-filters"):
            self.search = gr.Textbox("", label=label("runs_search"), placeholder=label("runs_search_help"), elem_id="runs-search", max_lines=1, max_length=MOST_SEARCHED)  # fmt: skip
            self.tags = gr.Dropdown([], value=[], multiselect=True, label=label("notes_tags"), visible=False, elem_id="runs-tags")  # fmt: skip
            self.order = gr.Dropdown(order_choices("en"), value=NEWEST, label=label("runs_order"), elem_id="runs-order")
        self.fault = gr.HTML("", elem_id="runs-fault")
        self.trash = TrashPanel()
        self.table = picker(elem_id="runs-table")
        self.more = gr.Button(label("runs_more"), size="sm", visible=False)
        self.info = gr.HTML("", elem_id="runs-info")
        with gr.Row(visible=False, elem_classes="small-row") as self.actions:
            self.to_evaluate = gr.Button(label("train_evaluate"), size="sm", elem_id="runs-evaluate")
            self.resume = gr.Button(label("train_resume"), size="sm", visible=False, elem_id="runs-resume")
            self.clone = gr.Button(label("runs_clone"), size="sm", visible=False, elem_id="runs-clone")
            self.again = gr.Button(label("runs_again"), size="sm", visible=False, elem_id="runs-again")
            self.delete = gr.Button(label("runs_delete"), size="sm", elem_id="runs-delete")
        self.notes = NotesPanel()
        self.export = ExportPanel(page, self.focus)
        self.push = PushPanel(page, self.focus)
        self.comparison = ComparePanel()
        self.imports = ImportPanel()
        self.trash.build_list()

    def list_runs(
        self,
        request: gr.Request,
        search: str = "",
        tags: Sequence[str] | None = None,
        order: str | None = NEWEST,
        shown: int = PAGE_ROWS,
        focus: str = "",
        run_name: str | None = "",
        compared: Sequence[str] | None = None,
    ) -> dict[Any, Any]:
        """The runs with the text and the tags, in their order; the one picked, or else the chosen one, is marked."""
        lang, owner = language(request), rights.visitor(request).owner
        order, known_tags = order or NEWEST, all_tags()
        matches = filtered(search, tags or [], owner)
        listed = ordered(matches, order)
        return {
            self.table: runs_table(listed, shown, focus or run_name or "", lang, order),
            self.more: gr.update(visible=len(listed) > shown),
            **self.comparison.offer(matches[:OFFERED], compared),
            self.tags: gr.update(choices=known_tags, visible=bool(known_tags or tags)),
            self.order: gr.update(choices=order_choices(lang), value=order),
        }

    def open_tab(self, request: gr.Request, seen: str = "", focus: str = "", **listing: Any) -> dict[Any, Any]:
        """The list as it is now, and all of the run that was picked where that isn't shown yet: the one that the page's address
        asks for or, if none was picked, as after a reload, the chosen one while it is being exported."""
        job, chosen = work.export(), listing.get("run_name")
        exported = job and job.active and job.run.name == chosen and job.run.path.is_dir()
        if exported and not focus and rights.visitor(request).owner:
            focus, seen = str(chosen), ""
        picked = self.show_run(runs.named(focus), request) if focus and not seen else {}
        listed = self.list_runs(request, focus=focus, **listing)
        return {**listed, **picked, **self.trash.show(language(request)), **self.imports.show()}

    def follow_export(self, focus: str, request: gr.Request) -> dict[Any, Any]:
        """What the export of the run that was picked has told, or come to, wherever it was begun."""
        with contextlib.suppress(UserError):  # it was deleted on another page
            if focus and rights.visitor(request).owner:
                run, lang = runs.named(focus), language(request)
                return {**self.export.progress.draw(run, lang), **self.push.progress.draw(run, lang)}
        return {}

    def list_again(self, request: gr.Request, focus: str = "", **listing: Any) -> dict[Any, Any]:
        """The list as it stands, and the run that was picked."""
        shown = {**self.list_runs(request, focus=focus, **listing), **self.trash.show(language(request))}
        return {**shown, **(self.show_run(runs.named(focus), request) if focus else {})}

    def list_more(self, request: gr.Request, shown: int = PAGE_ROWS, **listing: Any) -> dict[Any, Any]:
        more = shown + PAGE_ROWS
        return {self.shown: more, **self.list_runs(request, shown=more, **listing)}

    def pick(self, event: gr.EventData, request: gr.Request, **listing: Any) -> dict[Any, Any]:
        """Sort by the column whose head was picked, or show the run that was; one with a model is chosen for the other tabs."""
        value = picked(event)
        if value.startswith(SORT):
            return self.list_runs(
                request, **listing | {"order": turned(listing.get("order") or NEWEST, value.removeprefix(SORT))}
            )
        run = runs.named(value)
        chosen = {self.page.run: run.name} if models.is_ready(run) else {}
        return {**self.show_run(run, request), **chosen, **self.list_runs(request, **listing | {"focus": run.name})}

    def show_run(self, run: runs.Run, request: gr.Request) -> dict[Any, Any]:
        """A run and what can be done with it."""
        lang, owner = language(request), rights.visitor(request).owner
        return {
            self.focus: run.name,
            self.info: details(run, lang, owner),
            self.actions: gr.update(visible=True),
            self.to_evaluate: gr.update(visible=models.is_ready(run)),
            self.resume: gr.update(visible=owner and jobs.can_resume(run)),
            self.clone: gr.update(visible=owner),
            self.again: gr.update(visible=owner),
            self.delete: gr.update(visible=owner),
            **self.notes.show(run),
            **self.export.show(run, lang),
            **self.push.show(run, lang),
        }

    def resume_run(self, request: gr.Request, focus: str = "", **listing: Any) -> dict[Any, Any]:
        """Go on with the run that was picked; the bar at the top shows how far it is."""
        resume_training(runs.named(focus))
        return {
            self.resume: gr.update(visible=False),
            self.page.timer: gr.update(active=True),
            **self.list_runs(request, focus=focus, **listing),
        }

    def save_notes(
        self,
        request: gr.Request,
        name: str,
        written_tags: str,
        text: str,
        seen: bool = True,
        focus: str = "",
        **listing: Any,
    ) -> dict[Any, Any]:
        """Write name, notes and tags of the run that was picked and who sees it, and show them as they were kept."""
        run = runs.named(focus)
        self.notes.write(run, name, written_tags, text, seen)
        return {**self.show_run(run, request), **self.list_runs(request, focus=focus, **listing)}

    def show_title(self, run_name: str | None, request: gr.Request) -> dict[Any, Any]:
        """The chosen run may have another name now."""
        return {self.page.chip: show_title(run_name, request)}

    def delete_run(
        self, request: gr.Request, focus: str = "", run_name: str | None = "", **listing: Any
    ) -> dict[Any, Any]:
        """Move the run that was picked to the trash."""
        discarded = self.trash.discard(runs.named(focus), language(request))
        models.release()
        chosen = run_name if run_name != focus else models.newest_ready()
        return {
            **discarded,
            self.focus: "",
            self.page.run: chosen,
            self.actions: gr.update(visible=False),
            self.info: "",
            **self.notes.hide(),
            **self.export.hide(),
            **self.push.hide(),
            **self.list_runs(request, run_name=chosen, **listing),
        }

    def undo_delete(self, request: gr.Request, deleted: str, **listing: Any) -> dict[Any, Any]:
        """Bring back what was deleted last on this page."""
        return self.restored(f"restore/{deleted}", deleted, request, listing)

    def pick_deleted(self, event: gr.EventData, request: gr.Request, deleted: str, **listing: Any) -> dict[Any, Any]:
        """A button in the trash: restore, or delete for good, which is asked once more."""
        return self.restored(picked(event), deleted, request, listing)

    def restored(self, pick: str, deleted: str, request: gr.Request, listing: dict[str, Any]) -> dict[Any, Any]:
        run, shown = self.trash.act(pick, language(request))
        if pick.endswith(f"/{deleted}") and not pick.startswith("ask/"):
            shown |= self.trash.undone()
        if run is None:
            return shown
        chosen = {self.page.run: run.name} if models.is_ready(run) and not listing.get("run_name") else {}
        return {**shown, **self.show_run(run, request), **chosen, **self.list_runs(request, **listing | {"focus": run.name})}  # fmt: skip

    def import_run(self, request: gr.Request, source: str, base: str, name: str, **listing: Any) -> dict[Any, Any]:
        """Make a run of what was named, and pick it."""
        run = self.imports.import_run(source, base, name)
        listed = self.list_runs(request, **listing | {"focus": run.name})
        return {self.page.run: run.name, **self.imports.done(run, language(request)), **self.show_run(run, request), **listed}  # fmt: skip

    def wire(self) -> None:
        page, fault = self.page, self.fault
        listing = {"search": self.search, "tags": self.tags, "order": self.order, "shown": self.shown}
        listing |= {"focus": self.focus, "run_name": page.run, "compared": self.comparison.runs}
        listed = [self.table, self.more, self.comparison.runs, self.tags, self.order]
        shown_run = [self.focus, self.info, self.actions, self.to_evaluate, self.resume, self.clone, self.again]
        shown_run += [self.delete, *self.notes.parts, *self.export.parts, *self.push.parts, page.timer, page.exporting]
        # The input event of a text carries the text before it.
        changes = [self.search.change, self.tags.input, self.order.input, page.run.change]
        wire(partial(gr.on, changes), self.list_runs, listing, listed, fault)
        opened = [*shown_run, *listed, *self.trash.parts, self.imports.panel]
        wire(self.tab.select, self.open_tab, {"seen": self.info, **listing}, opened, fault)
        progress = [self.export.progress.view, self.push.progress.view, page.timer, page.exporting]
        wire(page.exporting.change, self.follow_export, [self.focus], progress)
        wire(self.more.click, self.list_more, listing, [self.shown, *listed], fault)
        wire(self.table.select, self.pick, listing, [page.run, *shown_run, *listed], fault, **EACH_PICK)
        resumed = [self.resume, page.timer, *listed]
        wire(self.resume.click, self.resume_run, listing, resumed, fault, needs="manage")
        written = {"name": self.notes.name, "written_tags": self.notes.tags, "text": self.notes.text}
        written["seen"] = self.notes.seen
        saved = wire(
            self.notes.save.click, self.save_notes, {**written, **listing}, [*shown_run, *listed], fault, needs="manage"
        )
        wire(saved.then, self.show_title, [page.run], [page.chip])
        changed = [*self.trash.parts, page.run, *shown_run, *listed]
        deleted = wire(self.delete.click, self.delete_run, listing, changed, fault, needs="manage", trigger_mode="once")
        wire(deleted.success, None, None, None, js=UNDO_IN_SIGHT_JS)
        undoing = {"deleted": self.trash.deleted, **listing}
        wire(self.trash.undo.click, self.undo_delete, undoing, changed, fault, needs="manage", trigger_mode="once")
        wire(self.trash.list.select, self.pick_deleted, undoing, changed, fault, needs="manage", **EACH_PICK)
        panels = [self.export.format, self.export.progress.view, self.push.what, self.push.progress.view]
        redraw(page, self.list_again, listing, [self.table, self.order, self.info, self.trash.list, *panels])
        self.export.wire()
        self.push.wire()
        imported = {"source": self.imports.source, "base": self.imports.base, "name": self.imports.name, **listing}
        shown = [self.imports.source, self.imports.name, self.imports.view, page.run, *shown_run, *listed]
        wire(self.imports.start.click, self.import_run, imported, shown, self.imports.fault, needs="manage", **EVALUATION_CLICK)  # fmt: skip
        page.opens(self.to_evaluate.click, "evaluate")
        self.comparison.wire(page)
