"""4 Chat: one question, all answers at the same moment, each side with its own history."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.ui import forms, html, work
from sftdemo.ui.data_tab import last_paragraph
from sftdemo.ui.forms import wire
from sftdemo.ui.page import EACH_PICK, Page, find_ready, picked, picker
from sftdemo.ui.texts import label, language, say

SIDES = ("base", "tuned", "second", "third")  # columns: the base, the chosen run, and runs of the same base beside it
UPDATE_S = 1 / 12  # every update sends both columns again, so not each token gets one
PROMPTS = 4

_stops: dict[str, threading.Event] = {}  # by browser session, while it streams


@dataclass
class Side:
    """What one column shows: the conversation, the answer in the making, its speed and why it ended."""

    history: list[dict[str, str]]
    text: str = ""
    tokens_per_s: float = 0.0
    finish_reason: str | None = None

    def shown(self) -> list[dict[str, str]]:
        return [*self.history, {"role": "assistant", "content": self.text}] if self.text else self.history


@dataclass
class Exchange:
    """Both columns during one answer."""

    sides: dict[str, Side] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)  # by the name that the models give a side

    def take(self, chunk: Any) -> None:
        side = self.sides[self.columns.get(chunk.side, chunk.side)]
        side.text += chunk.text
        side.tokens_per_s = chunk.tokens_per_s
        side.finish_reason = chunk.finish_reason or side.finish_reason


def messages(history: Sequence[Mapping[str, Any]] | None) -> list[dict[str, str]]:
    """A Chatbot's value as plain messages: its contents are lists of blocks."""
    return [{"role": str(m["role"]), "content": html.plain(m["content"])} for m in history or []]


def without_last_answer(history: list[dict[str, str]]) -> list[dict[str, str]]:
    return history[:-1] if history and history[-1]["role"] == "assistant" else history


def conversation(history: list[dict[str, str]], system: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system.strip()}, *history] if system.strip() else history


def coalesced(chunks: Iterator[Any], exchange: Exchange, every: float = UPDATE_S) -> Iterator[Exchange]:
    """Fill the exchange from the stream; yield at most every so many seconds, and at the end."""
    last = 0.0
    for chunk in chunks:
        exchange.take(chunk)
        if time.monotonic() - last >= every:
            last = time.monotonic()
            yield exchange
    yield exchange


def example_prompts(run: runs.Run) -> list[dict[str, str]]:
    """A few questions from the held-out rows, different ones, with the system prompt they came with."""
    found: dict[str, dict[str, str]] = {}
    for row in run.examples("test") or run.examples("validation"):
        asked = [message for message in row["messages"][:-1] if message["role"] == "user"]
        system = row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else ""
        if len(asked) == 1 and asked[0]["content"] not in found:
            found[asked[0]["content"]] = {"text": asked[0]["content"], "system": system, "label": row.get("label", "")}
    rows, by_label = list(found.values()), dict[str, dict[str, str]]()
    for row in rows:
        by_label.setdefault(row["label"], row)
    varied = list(by_label.values())
    return (varied + [row for row in rows if row not in varied])[:PROMPTS]


def companions(run: runs.Run) -> list[str]:
    """The other runs that can answer in one batch with this one: LoRA on the same base."""
    if not _is_lora(run):
        return []
    others = [other for other in runs.list_runs() if other.name != run.name and work.is_ready(other)]
    return [other.name for other in others if _is_lora(other) and runs.same_base(run, other)]


def _is_lora(run: runs.Run) -> bool:
    return bool(run.config().get("settings", {}).get("method") == "lora")


def prompt_chips(prompts: Sequence[Mapping[str, str]], lang: str) -> str:
    if not prompts:
        return ""
    last_lines = [last_paragraph(prompt["text"]) for prompt in prompts]
    chips = "".join(html.card(str(i), html.esc(html.cut(text, 60)), False) for i, text in enumerate(last_lines))
    return html.block(f'<div class="prompts">{chips}</div>')


def head(side: str, lang: str, state: Side | None = None, note: str = "", name: str = "") -> str:
    """The name of a column, and how fast it answers; why it ended only where that needs a word."""
    notes = [note] if note else []
    if state and state.tokens_per_s:
        notes.append(say(lang, "chat_speed", n=f"{state.tokens_per_s:.1f}"))
    if state and state.finish_reason in ("length", "stopped"):
        notes.append(say(lang, f"chat_{state.finish_reason}"))
    shown = html.cut(name, 28) if name else say(lang, "name_" + side)
    kind = "base" if side == "base" else "tuned"
    return html.block(f'{html.chip(shown, kind)} <span class="muted small num">{" · ".join(notes)}</span>')


def stream(
    names: Sequence[str],
    histories: Mapping[str, list[dict[str, str]]],
    system: str,
    config: GenerateConfig,
    stopped: Callable[[], bool],
) -> Iterator[Exchange]:
    """The answers of a base and these runs of it to their histories, by column; each ends with the user's turn."""
    pair = work.pair(*names)
    columns = dict(zip(pair.names, histories, strict=True))
    asked = {name: conversation(histories[column], system) for name, column in columns.items()}
    exchange = Exchange({side: Side(list(history)) for side, history in histories.items()}, columns)
    yield from coalesced(pair.stream(asked, config, stopped), exchange)


def build(page: Page, tab: Any) -> None:
    """The tab's components and how they are connected; `tab` is its own tab, which loads the models when opened."""
    gate = gr.HTML("", elem_id="chat-gate")
    prompts = gr.State([])
    columns: dict[str, Any] = {}
    heads: dict[str, Any] = {}
    places: dict[str, Any] = {}
    with gr.Column(visible=False) as body:
        with gr.Row(elem_id="chat-columns", elem_classes="columns"):
            for side in SIDES:
                with gr.Column(visible=side in SIDES[:2], min_width=240) as places[side]:
                    heads[side] = gr.HTML(head(side, "en") if side in SIDES[:2] else "", elem_id=f"head-{side}")
                    columns[side] = gr.Chatbot(
                        show_label=False,
                        height=340,
                        buttons=["copy"],
                        feedback_options=None,
                        layout="bubble",
                        elem_id=f"chat-{side}",
                        elem_classes="chat-base" if side == "base" else "chat-tuned",
                        placeholder=label("chat_placeholder"),
                    )
        fault = gr.HTML("", elem_id="chat-fault")
        with gr.Column(elem_id="chat-bottom"):
            chips = picker(elem_id="chat-prompts")
            with gr.Row():
                text = gr.Textbox(
                    "",
                    show_label=False,
                    container=False,
                    placeholder=label("chat_ask"),
                    lines=1,
                    max_lines=6,
                    scale=6,
                    elem_id="chat-input",
                    min_width=200,
                )
                send = gr.Button(label("chat_send"), variant="primary", scale=1, min_width=90, elem_id="chat-send")
                stop = gr.Button(label("chat_stop"), visible=False, scale=1, min_width=90, elem_id="chat-stop")
            with gr.Row(elem_classes="small-row"):
                again = gr.Button(label("chat_again"), size="sm", elem_id="chat-again", min_width=90)
                clear = gr.Button(label("chat_clear"), size="sm", elem_id="chat-clear", min_width=90)
        beside = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=len(SIDES) - 2,
            label=label("chat_beside"),
            info=label("chat_beside_help"),
            visible=False,
            elem_id="chat-beside",
        )
        with gr.Accordion(label("chat_settings"), open=False):
            system = gr.Textbox(
                "", label=label("set_system"), info=label("chat_system_help"), lines=2, elem_id="chat-system"
            )
            with gr.Row():
                made = {
                    spec.name: forms.field(GenerateConfig, spec.name, min_width=180) for spec in fields(GenerateConfig)
                }
    sides = [*columns.values(), *heads.values()]
    drawing = [*sides, *places.values()]

    def named(side: str, others: Sequence[str], name: str) -> str:
        """What stands over a column: its run, where there are several."""
        return ["", name, *others][SIDES.index(side)] if others else ""

    def drawn(exchange: Exchange, lang: str, name: str, others: Sequence[str]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for side, state in exchange.sides.items():
            found |= {
                columns[side]: state.shown(),
                heads[side]: head(side, lang, state, name=named(side, others, name)),
            }
        return found

    def buttons(streaming: bool) -> dict[Any, Any]:
        return {
            send: gr.update(visible=not streaming),
            stop: gr.update(visible=streaming, interactive=True),
            again: gr.update(interactive=not streaming),
            clear: gr.update(interactive=not streaming),
        }

    def answer(
        request: gr.Request,
        name: str,
        others: list[str],
        shown: Sequence[Any],
        asked: str,
        system_text: str,
        given: Sequence[Any],
        retry: bool,
    ) -> Iterator[dict[Any, Any]]:
        lang, used = language(request), SIDES[: 2 + len(others)]
        before = {side: messages(value) for side, value in zip(SIDES, shown, strict=True) if side in used}
        config: GenerateConfig = forms.config(GenerateConfig, dict(zip(made, given, strict=True)))
        find_ready(name)
        if retry:
            histories = {side: without_last_answer(history) for side, history in before.items()}
            config = replace(config, seed=config.seed + 1) if config.temperature else config
            if not histories["base"]:
                raise UserError(say(lang, "chat_nothing"))
        elif not asked.strip():
            raise UserError(say(lang, "chat_empty"))
        else:
            histories = {side: [*history, {"role": "user", "content": asked}] for side, history in before.items()}
        stopped = _stops[str(request.session_hash)] = threading.Event()
        waits = say(lang, "chat_reading" if work.is_loaded(name, *others) else "chat_loading")
        yield {
            **{columns[side]: history for side, history in histories.items()},
            **buttons(True),
            text: "",
            **{heads[side]: head(side, lang, None, waits, named(side, others, name)) for side in used},
            made["seed"]: config.seed,
        }
        try:
            for exchange in stream([name, *others], histories, system_text, config, stopped.is_set):
                yield drawn(exchange, lang, name, others)
            yield buttons(False)
        except UserError:
            yield {columns[side]: before[side] for side in used} | {text: asked} | buttons(False)
            raise
        finally:
            stopped.set()
            _stops.pop(str(request.session_hash), None)

    def ask(request: gr.Request, name: str, others: Any, *rest: Any) -> Any:
        shown, (asked, system_text, *given) = rest[: len(SIDES)], rest[len(SIDES) :]
        yield from answer(request, name, others or [], shown, asked, system_text, given, retry=False)

    def ask_again(request: gr.Request, name: str, others: Any, *rest: Any) -> Any:
        shown, (asked, system_text, *given) = rest[: len(SIDES)], rest[len(SIDES) :]
        yield from answer(request, name, others or [], shown, asked, system_text, given, retry=True)

    def ask_stop(request: gr.Request) -> dict[Any, Any]:
        if event := _stops.get(str(request.session_hash)):
            event.set()
        return {stop: gr.update(interactive=False)}

    def start_over(request: gr.Request, name: str, others: Any) -> dict[Any, Any]:
        lang, others = language(request), others or []
        found: dict[Any, Any] = {columns[side]: [] for side in SIDES}
        for place, side in enumerate(SIDES):
            used = place < 2 + len(others)
            found[places[side]] = gr.update(visible=used)
            found[heads[side]] = head(side, lang, name=named(side, others, name)) if used else ""
        return found

    def refresh(name: str, request: gr.Request) -> dict[Any, Any]:
        lang = language(request)
        if not name:
            return {gate: html.empty(say(lang, "wait_run"), say(lang, "wait_run_text")), body: gr.update(visible=False)}
        run = runs.named(name)
        found, near = example_prompts(run), companions(run)
        return {
            gate: "",
            body: gr.update(visible=True),
            prompts: found,
            chips: prompt_chips(found, lang),
            system: run.config().get("settings", {}).get("system") or "",
            beside: gr.update(choices=near, value=[], visible=bool(near)),
            **start_over(request, name, []),
        }

    def take_prompt(found: list[dict[str, str]], event: gr.EventData) -> dict[Any, Any]:
        pick = picked(event)
        if not pick.isdecimal() or int(pick) >= len(found):
            raise UserError("That example isn't there any more; reload the page.")
        prompt = found[int(pick)]
        return {text: prompt["text"], **({system: prompt["system"]} if prompt["system"] else {})}

    def leave(request: gr.Request) -> None:
        if event := _stops.pop(str(request.session_hash), None):
            event.set()

    def look(name: str) -> None:
        threading.Thread(target=work.preload, args=(name,), name="preload", daemon=True).start()

    inputs = [page.run, beside, *columns.values(), text, system, *made.values()]
    outputs = [*sides, text, send, stop, again, clear, made["seed"]]
    options = {"concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "once"}
    wire(partial(gr.on, [send.click, text.submit]), ask, inputs, outputs, fault, **options)
    wire(again.click, ask_again, inputs, outputs, fault, **options)
    wire(stop.click, ask_stop, None, [stop])
    wire(clear.click, start_over, [page.run, beside], drawing)
    wire(beside.change, start_over, [page.run, beside], drawing)
    wire(chips.select, take_prompt, [prompts], [text, system], fault, **EACH_PICK)
    wire(page.run.change, refresh, [page.run], [gate, body, prompts, chips, system, beside, *drawing], fault)
    wire(tab.select, look, [page.run])
    page.blocks.unload(leave)
