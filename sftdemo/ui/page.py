"""What the tabs share: the chosen run, the chosen data, the tabs themselves, the header and the bar of running work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from sftdemo import jobs, runs
from sftdemo.errors import UserError
from sftdemo.ui import html, work
from sftdemo.ui.forms import wire
from sftdemo.ui.style import HEADER_JS, PICK_JS
from sftdemo.ui.texts import duration, label, language, say

TICK_S = 2.5  # every tick costs the machine that trains
# Gradio's "always_last" sends the data of the first click again, so every pick is worked on, in order.
EACH_PICK = {"trigger_mode": "multiple", "concurrency_limit": 1}


@dataclass
class Page:
    """Components and states that more than one tab reads or writes."""

    run: Any  # gr.State: the chosen run's name, "" without one, None until the page has loaded
    data: Any  # gr.State: the chosen data as ReadConfig's values, or {}
    timer: Any
    blocks: Any
    tick: Any = None  # the last thing done on a tick; tabs hang theirs after it, so that they see the same or later
    tabs: Any = None
    head: Any = None
    chip: Any = None
    work_row: Any = None
    work_bar: Any = None
    work_stop: Any = None
    work_fault: Any = None
    preparing: Any = None  # settings the Data and the Train tab both show, by name: the Data tab's fields


def picker(value: str = "", **options: Any) -> Any:
    """HTML whose elements with data-pick can be clicked; the event's `value` is what was picked."""
    return gr.HTML(value, js_on_load=PICK_JS, **options)


def picked(event: Any) -> str:
    """What was picked. It comes from the browser, so whoever uses it checks it."""
    value = getattr(event, "value", None)
    return str(value) if value is not None else ""


def header(lang: str) -> str:
    switches = (
        f'<button data-do="lang" aria-label="{say(lang, "switch_lang_help")}">{say(lang, "switch_lang")}</button>'
        f'<button data-do="theme" aria-label="{say(lang, "switch_theme")}" title="{say(lang, "switch_theme")}">◐</button>'
    )
    return f'<div class="switches">{switches}</div>'


def brand(lang: str) -> str:
    return html.block(f'<span class="name">sftdemo</span><span class="line">{say(lang, "tagline_text")}</span>')


def chip_text(lang: str, name: str) -> str:
    return say(lang, "chip_run", name=html.cut(name, 34)) if name else say(lang, "chip_none")


def work_line(lang: str, items: Sequence[work.Work]) -> str:
    """One line for each running work: what, how far, how long still."""
    lines = []
    for item in items:
        if item.state == "stopping":
            rest = say(lang, "work_stopping")
        elif item.state == "queued" or not item.total:
            rest = say(lang, "work_queued")
        else:
            rest = f"{item.done}/{item.total}" + (
                f" · {say(lang, 'work_left', t=duration(lang, item.eta_s))}" if item.eta_s else ""
            )
        what = say(lang, f"work_{item.kind}", name=html.esc(html.cut(item.name, 30)))
        lines.append(
            f'<div class="s workline"><b>{what}</b>{html.track(item.share)}<span class="num">{rest}</span></div>'
        )
    return "".join(lines)


def stop_all() -> None:
    """Ask all running work to stop and keep what it has."""
    for item in work.running():
        if item.kind == "train":
            jobs.stop(runs.named(item.name))
        elif current := work.evaluation():
            current.stop.set()


def begin(blocks: Any) -> Page:
    """Make the shared states and the header."""
    page = Page(run=gr.State(None), data=gr.State({}), timer=gr.Timer(TICK_S, active=False), blocks=blocks)
    with gr.Row(elem_id="head"):
        page.head = gr.HTML(brand("en"), elem_id="brand")
        page.chip = gr.Button(label("chip_none"), elem_id="run-chip", size="sm")
        switches = gr.HTML(header("en"), elem_id="switches", js_on_load=HEADER_JS)
    with gr.Row(elem_id="work", visible=False) as page.work_row:
        page.work_bar = gr.HTML("", elem_id="work-bar")
        page.work_stop = gr.Button(label("stop_keep"), elem_id="work-stop", size="sm")
    page.work_fault = gr.HTML("", elem_id="work-fault")

    def show_chip(name: str, request: gr.Request) -> dict[Any, Any]:
        return {page.chip: gr.update(value=chip_text(language(request), name))}

    def refresh_bar(request: gr.Request) -> dict[Any, Any]:
        items = work.running()
        return {
            page.work_row: gr.update(visible=bool(items)),
            page.work_bar: work_line(language(request), items),
            page.timer: gr.Timer(active=bool(items)),
        }

    def stop(request: gr.Request) -> dict[Any, Any]:
        stop_all()
        return {page.work_bar: work_line(language(request), work.running())}

    def open_page(request: gr.Request) -> dict[Any, Any]:
        lang = language(request)
        chosen = work.newest_ready()
        return {
            page.head: brand(lang),
            switches: header(lang),
            page.run: chosen,
            page.chip: gr.update(value=chip_text(lang, chosen)),
            **refresh_bar(request),
        }

    bar = [page.work_row, page.work_bar, page.timer]
    page.tick = wire(page.timer.tick, refresh_bar, None, bar)
    wire(page.work_stop.click, stop, None, [page.work_bar], page.work_fault, queue=True)
    wire(page.run.change, show_chip, [page.run], [page.chip])
    wire(blocks.load, open_page, None, [page.head, switches, page.run, page.chip, *bar])
    return page


def find_ready(name: str) -> runs.Run:
    """The chosen run, if it has a model."""
    if not name:
        raise UserError("No run is chosen; fine-tune one first, or choose one under Runs.")
    return runs.named(name)
