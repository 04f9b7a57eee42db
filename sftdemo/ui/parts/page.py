"""What the tabs share: the chosen run, the chosen data, the tabs themselves, the header and the bar of running work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.ui import models, work
from sftdemo.ui.access import private, rights
from sftdemo.ui.hosting import storage
from sftdemo.ui.parts import address, html
from sftdemo.ui.parts.address import Address
from sftdemo.ui.parts.forms import fault, wire
from sftdemo.ui.parts.progress import line as stage_line
from sftdemo.ui.parts.progress import share as stage_share
from sftdemo.ui.parts.redraw import language_switch, redraw
from sftdemo.ui.parts.style import HEADER_JS, PICK_JS
from sftdemo.ui.texts import duration, label, language, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs import jobs

TICK_S = 2.5  # every tick costs the machine that trains
CHIP_LENGTH = 22  # what a phone shows of a run's name
# Gradio's "always_last" sends the data of the first click again, so every pick is worked on, in order.
EACH_PICK: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": 1}


@dataclass
class Page:
    """Components and states that more than one tab reads or writes."""

    blocks: Any
    run: Any  # gr.State: the chosen run's name, "" without one, None until the page has loaded
    picked: Any = None  # gr.State: the name of the run that Runs shows, "" for none
    data: Any = None  # gr.State: the chosen data as ReadConfig's values, or {}
    unready: Any = (
        None  # gr.State: the name of what Data shows if that can't be trained on; what was chosen before stays so
    )
    timer: Any = None
    chip: Any = None  # the button in the header with the chosen run's name
    tick: Any = None  # the last thing done on a tick; tabs hang theirs after it, so that they see the same or later
    tabs: Any = None
    # The chosen run's name for the browser's address; by an event's js, what stands in that address.
    address: Any = None
    continued: Any = None  # the event of going on from the data to a training
    exporting: Any = field(default_factory=gr.State)  # what the running export has told, see work.export_told
    stopped: dict[str, Any] = field(default_factory=dict)  # by kind of work, that it was asked to stop
    travelled: Any = None  # follows the browser's Back and Forward, once tab and run are the address's
    redraw_chat: Any = None  # lets an event draw the chat of the chosen run anew
    redraws: list[Any] = field(default_factory=list)  # what draws texts anew, see redraw.py
    language_switched: Any = None  # the event after which all texts are drawn anew, see redraw.py
    preparing: dict[str, Any] = field(default_factory=dict)  # settings on Data and on Train, by name: Data's fields

    def opens(self, trigger: Callable[..., Any], tab: str) -> Any:
        """Let an event open a tab; what follows it hangs on the value returned."""
        return wire(trigger, lambda: {self.tabs: gr.Tabs(selected=tab)}, None, [self.tabs])


def picker(value: str = "", **options: Any) -> Any:
    """HTML whose elements with data-pick can be clicked; the event's `value` is what was picked."""
    return gr.HTML(value, js_on_load=PICK_JS, **options)


def picked(event: Any) -> str:
    """What was picked. It comes from the browser, so whoever uses it checks it."""
    value = getattr(event, "value", None)
    return str(value) if value is not None else ""


def header(lang: str, visitor: rights.Visitor = rights.LOCAL) -> str:
    switches = (
        f'<button data-do="lang" aria-label="{say(lang, "switch_lang_help")}">{say(lang, "switch_lang")}</button>'
        f'<button data-do="theme" aria-label="{say(lang, "switch_theme")}" title="{say(lang, "switch_theme")}">◐</button>'
    )
    return f'<div class="switches">{sign_link(lang, visitor)}{switches}</div>{hidden_tabs(visitor)}'


def banner(lang: str) -> str:
    """What visitors should know of a Space whose disk is empty after each restart."""
    lost = storage.is_lost_at_restart(rights.policy().config.backup_repo)
    return html.fault(say(lang, "lost_at_restart")) if lost else ""


def hidden_tabs(visitor: rights.Visitor) -> str:
    """Takes the tabs that aren't for this visitor out of sight; Gradio 6.31 shows a tab once drawn whatever it is told."""
    hidden = [f"#tab-{name}-button" for name, shown in tabs_for(visitor).items() if not shown]
    return f"<style>{','.join(hidden)}{{display:none}}</style>" if hidden else ""


def sign_link(lang: str, visitor: rights.Visitor) -> str:
    """The way to sign in for who isn't the owner, and out for who signed in; at home nobody needs either."""
    if rights.policy().at_home and visitor.owner:
        return ""
    way = "logout" if visitor.owner or visitor.name else "login"
    return f'<a href="{way}">{say(lang, "sign_out" if way == "logout" else "sign_in")}</a>'


def tabs_for(visitor: rights.Visitor) -> dict[str, bool]:
    """Which tabs this visitor sees."""
    trains = visitor.may("train") or visitor.may("own_data")
    shown = {"data": trains, "train": trains, "evaluate": True, "runs": True}
    return shown | {"chat": visitor.may("chat"), "vote": visitor.may("vote")}


def tab_for(asked: Address, visitor: rights.Visitor) -> str:
    """The tab that is asked for, or the first one, of those that this visitor sees."""
    shown = [name for name, visible in tabs_for(visitor).items() if visible]
    usual = next(name for name in ("data", "chat", "evaluate") if name in shown)
    return asked.tab if asked.tab in shown else usual


def brand(lang: str) -> str:
    return html.block(f'<h1 class="name">sftdemo</h1><span class="line">{say(lang, "tagline_text")}</span>')


def chip_text(lang: str, name: str) -> str:
    return say(lang, "chip_run", name=html.cut_name(title_of(name), CHIP_LENGTH)) if name else say(lang, "chip_none")


def title_of(name: str) -> str:
    """What the run of that name is called; one that is gone has its folder's name. Of another system (a run of another base,
    an endpoint, "system:linear") the name without its kind and its address."""
    kind, colon, rest = name.partition(":")
    if colon:
        return title_of(rest) if kind == "run" else rest.partition("@")[0]
    with contextlib.suppress(UserError):
        return runs.title(runs.named(name))
    return name


def runs_named(names: Sequence[str] | None, most: int) -> list[runs.Run]:
    """The runs of these names, each once; raises UserError before any is looked for where there are too many."""
    if len(unique := list(dict.fromkeys(names or ()))) > most:
        raise UserError("{n} runs are chosen; compare at most {most}.", n=len(unique), most=most)
    return [runs.named(name) for name in unique]


def show_title(name: str | None, request: gr.Request) -> Any:
    """The chosen run's name in the header's button, as an update."""
    return gr.update(value=chip_text(language(request), name or ""))


# The tabs where that is got for which a screen waits.
WAYS = {"wait_data": "data", "wait_mend": "data", "wait_run": "train", "runs_empty": "train", "vote_waits": "evaluate"}


def waits(lang: str, key: str, then: str = "") -> str:
    """The state of a screen that waits for something: the text of `key`, how to get it, and with the key `then` what will
    be there. Who may not get it is told to wait for the owner."""
    tab, visitor = WAYS.get(key, ""), rights.current()
    closed = tab == "train" and not visitor.may("train")
    how = "wait_run_closed" if closed else "wait_run_text" if tab == "train" else f"{key}_text"
    texts = [how, *([then] if then else [])]
    text = say(lang, "space").join(say(lang, name) for name in texts)
    if not tab or closed or not tabs_for(visitor)[tab]:
        return html.empty(say(lang, key), text)
    return html.empty(say(lang, key), text, tab, say(lang, f"go_{tab}"))


def work_line(lang: str, items: Sequence[work.Work], visitor: rights.Visitor = rights.LOCAL) -> str:
    """One line for each running work: what, how far, how long still; others' runs without their names."""
    lines = []
    for item in items:
        own = rights.may_stop(item.key, visitor)
        if item.state == "stopping":
            progress = say(lang, "work_stopping")
        elif item.stage:
            progress = html.esc(stage_line(item.stage, lang))
        elif item.note:
            progress = html.esc(private.shown(in_words(item.note, lang))) if own else ""
        elif item.state == "queued" or not item.total:
            progress = say(lang, "work_queued")
        else:
            progress = f"{item.done}/{item.total}" + (
                f" · {say(lang, 'work_left', t=duration(lang, item.eta_s))}" if item.eta_s else ""
            )
        name = html.cut_name(title_of(item.name), 30) if own else say(lang, "work_others")
        title = say(lang, item.title or f"work_{item.kind}", name=html.esc(name))
        share = stage_share(item.stage) if item.stage else item.share
        track = "" if share is None else html.track(share)
        lines.append(f'<div class="s workline"><b>{title}</b>{track}<span class="num">{progress}</span></div>')
    return "".join(lines)


def may_stop(item: work.Work, visitor: rights.Visitor) -> bool:
    """Whether there is something to stop, and it is the visitor's."""
    return item.state != "stopping" and rights.may_stop(item.key, visitor)


def stop(kind: str, visitor: rights.Visitor) -> None:
    """Ask the running work of this kind that the visitor may stop to stop and keep what it has."""
    items = [item for item in work.running() if item.kind == kind]
    if items and not any(rights.may_stop(item.key, visitor) for item in items):
        raise UserError(rights.NOT_YOURS)
    for item in items:
        if not may_stop(item, visitor):
            continue
        if kind == "train":
            jobs.stop(runs.named(item.name))
        elif current := work.evaluation() if kind == "evaluate" else work.export():
            current.stop.set()


class Header:
    """What stands over the tabs: the brand, the chosen run, the switches, and the bar of running work, where it is stopped."""

    def __init__(self, page: Page) -> None:
        self.page = page
        with gr.Row(elem_id="head"):
            self.brand = gr.HTML(brand("en"), elem_id="brand")
            self.chip = page.chip = gr.Button("…", elem_id="run-chip", size="sm")
            if storage.on_space():
                gr.DuplicateButton(size="sm", elem_id="duplicate")
            self.switches = gr.HTML(header("en"), elem_id="switches", js_on_load=HEADER_JS)
        self.banner = gr.HTML("", elem_id="banner")
        self.bars: dict[str, tuple[Any, Any, Any]] = {}  # by the kind of work: its row, its lines, its Stop
        with gr.Column(elem_id="work", visible=False) as self.work:
            for kind, word in (("train", "stop_keep"), ("evaluate", "evaluate_stop"), ("export", "evaluate_stop")):
                with gr.Row(visible=False) as row:
                    self.bars[kind] = row, gr.HTML(""), gr.Button(label(word), elem_id=f"stop-{kind}", size="sm")
        self.fault = gr.HTML("", elem_id="work-fault")
        page.address = gr.Textbox("", visible="hidden", elem_id="address", label=label("step_runs"))
        self.travel = gr.Button("", visible="hidden", elem_id="travel")  # the browser clicks these, see style.HEAD
        self.look = gr.Button("", visible="hidden", elem_id="look-for-work")
        page.language_switched = language_switch()

    def show_run(self, name: str | None, request: gr.Request) -> dict[Any, Any]:
        return {self.chip: show_title(name, request), self.page.address: name or ""}

    def refresh_bar(self, request: gr.Request) -> dict[Any, Any]:
        items, visitor = work.running(), rights.visitor(request)
        shown = {self.work: gr.update(visible=bool(items)), self.page.timer: gr.update(active=bool(items))}
        shown[self.page.exporting] = work.export_told()
        for kind, (row, lines, button) in self.bars.items():
            of_kind = [item for item in items if item.kind == kind]
            shown[row] = gr.update(visible=bool(of_kind))
            shown[lines] = work_line(language(request), of_kind, visitor)
            shown[button] = gr.update(visible=any(may_stop(item, visitor) for item in of_kind))
        return shown

    def stop_training(self, request: gr.Request) -> dict[Any, Any]:
        stop("train", rights.visitor(request))
        return self.refresh_bar(request)

    def stop_evaluation(self, request: gr.Request) -> dict[Any, Any]:
        stop("evaluate", rights.visitor(request))
        return self.refresh_bar(request)

    def stop_export(self, request: gr.Request) -> dict[Any, Any]:
        stop("export", rights.visitor(request))
        return self.refresh_bar(request)

    def open_page(self, request: gr.Request) -> dict[Any, Any]:
        lang, visitor, asked = language(request), rights.visitor(request), Address.of(request.query_params)
        run_name, missing = asked.chosen_run(models.newest_ready())
        return {
            self.brand: brand(lang),
            self.switches: header(lang, visitor),
            self.banner: banner(lang),
            self.fault: fault(missing),
            self.page.tabs: gr.Tabs(selected=tab_for(asked, visitor)),
            self.page.run: run_name,
            self.page.picked: asked.picked_run(),
            **self.show_run(run_name, request),
            **self.refresh_bar(request),
        }

    def follow_address(self, search: str, run_name: str | None, request: gr.Request) -> dict[Any, Any]:
        """Show what the address names after the browser's Back or Forward."""
        asked = Address.parse(search)
        chosen, missing = asked.chosen_run(run_name or models.newest_ready())
        return {
            self.fault: fault(missing),
            self.page.tabs: gr.Tabs(selected=tab_for(asked, rights.visitor(request))),
            self.page.run: chosen,
        }

    def wire(self) -> None:
        page, bar = self.page, [self.work, *chain(*self.bars.values()), self.page.timer, self.page.exporting]
        page.tick = wire(page.timer.tick, self.refresh_bar, None, bar)
        stops = {"train": self.stop_training, "evaluate": self.stop_evaluation, "export": self.stop_export}
        for kind, handler in stops.items():
            page.stopped[kind] = wire(self.bars[kind][2].click, handler, None, bar, self.fault)
        run_shown = wire(page.run.change, self.show_run, [page.run], [self.chip, page.address])
        wire(run_shown.then, None, [page.address], None, js=address.RUN_SHOWN_JS)
        where = [page.tabs, page.run, self.fault]
        opened = [self.brand, self.switches, self.banner, *where, page.picked, self.chip, page.address, *bar]
        arrived = wire(page.blocks.load, self.open_page, None, opened)
        wire(arrived.then, None, None, None, js=address.ARRIVED_JS)
        for tab in page.tabs.children:
            wire(tab.select, None, None, None, js=address.tab_shown_js(tab.id))
        followed = {"search": page.address, "run_name": page.run}
        page.travelled = wire(self.travel.click, self.follow_address, followed, where, js=address.SEARCH_JS)
        wire(self.look.click, self.refresh_bar, None, bar)
        page.opens(self.chip.click, "runs")
        redraw(page, self.open_page, None, [self.brand, self.switches, self.banner])
        redraw(page, self.show_run, [page.run], [self.chip])
        redraw(page, self.refresh_bar, None, [lines for _, lines, _ in self.bars.values()])


def find_ready(name: str) -> runs.Run:
    """The chosen run, if it has a model."""
    if not name:
        raise UserError("No run is chosen; fine-tune one first, or choose one under Runs.")
    return runs.named(name)


def latest_evaluation(run: runs.Run) -> str:
    """The newest evaluation of a run, or ""."""
    return next(iter(run.evaluations()), "")
