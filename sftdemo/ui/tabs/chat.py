"""4 Chat: one question, all answers at the same moment, each side with its own history."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields, replace
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.ui import work
from sftdemo.ui.access import rights
from sftdemo.ui.parts import forms, html
from sftdemo.ui.parts.forms import MODEL_CLICK, wire
from sftdemo.ui.parts.page import EACH_PICK, Page, find_ready, picked, picker, waits
from sftdemo.ui.parts.stopping import SessionStop
from sftdemo.ui.tabs.exchange import (
    SIDES,
    Exchange,
    Side,
    folded,
    has_instruction,
    histories_to_answer,
    messages,
    question,
    spells_control_tokens,
    stream,
    system_prompt,
)
from sftdemo.ui.texts import duration, label, language, say

PROMPTS = 4


def example_prompts(run: runs.Run) -> list[dict[str, str]]:
    """A few questions from the held-out rows, different ones, with the system prompt they came with."""
    prompts: dict[str, dict[str, str]] = {}
    for row in run.examples("test") or run.examples("validation"):
        questions = [message for message in row["messages"][:-1] if message["role"] == "user"]
        system = row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else ""
        if len(questions) == 1 and questions[0]["content"] not in prompts:
            prompts[questions[0]["content"]] = {
                "text": questions[0]["content"],
                "system": system,
                "label": row.get("label", ""),
            }
    rows, by_label = list(prompts.values()), dict[str, dict[str, str]]()
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
    last_lines = [html.last_paragraph(prompt["text"]) for prompt in prompts]
    chips = "".join(html.card(str(i), html.esc(html.cut(text, 60)), False) for i, text in enumerate(last_lines))
    return html.block(f'<div class="prompts">{chips}</div>')


def head(side: str, lang: str, state: Side | None = None, note: str = "", name: str = "") -> str:
    """The name of a column, and how fast it answers; why it ended only where that needs a word."""
    notes = [note] if note else []
    if state and state.tokens_per_s:
        notes.append(say(lang, "chat_speed", n=f"{state.tokens_per_s:.1f}"))
    if state and state.finish_reason in ("length", "stopped"):
        notes.append(say(lang, f"chat_{state.finish_reason}"))
    title = html.cut_name(name, 28) if name else say(lang, "name_" + side)
    kind = "base" if side == "base" else "tuned"
    return html.block(f'{html.chip(title, kind)} <span class="muted small num">{" · ".join(notes)}</span>')


def in_line(place: Any, lang: str) -> str:
    """Where a question stands in line, and about how long it will take until it is answered."""
    where = say(lang, "chat_line", n=place.ahead)
    return (
        where if place.seconds is None else f"{where}, {say(lang, 'chat_line_time', t=duration(lang, place.seconds))}"
    )


def column_name(side: str, run_names: Sequence[str]) -> str:
    """What stands over a column instead of "base" or "tuned": its run, where there are several."""
    return ["", *run_names][SIDES.index(side)] if len(run_names) > 1 else ""


class ChatTab:
    """Columns side by side, one question for all of them; the models are loaded when the tab is opened."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page, self.tab = page, tab
        self.gate = gr.HTML("", elem_id="chat-gate")
        self.prompts = gr.State([])
        self.columns: dict[str, Any] = {}
        self.heads: dict[str, Any] = {}
        self.places: dict[str, Any] = {}
        with gr.Column(visible=False) as self.body:
            with gr.Row(elem_id="chat-columns", elem_classes="columns"):
                for side in SIDES:
                    self._build_column(side)
            self.fault = gr.HTML("", elem_id="chat-fault")
            self._build_bottom()
            self.beside = gr.Dropdown(
                [],
                multiselect=True,
                max_choices=len(SIDES) - 2,
                label=label("chat_beside"),
                info=label("chat_beside_help"),
                visible=False,
                elem_id="chat-beside",
            )
            with gr.Accordion(label("chat_settings"), open=False):
                self.system = gr.Textbox(
                    "", label=label("set_system"), info=label("chat_system_help"), lines=2, elem_id="chat-system"
                )
                with gr.Row():
                    self.settings = {
                        spec.name: forms.field(GenerateConfig, spec.name, min_width=180)
                        for spec in fields(GenerateConfig)
                    }

    def _build_column(self, side: str) -> None:
        visible = side in SIDES[:2]
        with gr.Column(visible=visible, min_width=240) as self.places[side]:
            self.heads[side] = gr.HTML(head(side, "en") if visible else "", elem_id=f"head-{side}")
            self.columns[side] = gr.Chatbot(
                show_label=False,
                height=340,
                buttons=["copy"],
                feedback_options=None,
                render_markdown=False,  # answers and what visitors write are text: nothing in them is drawn or fetched
                layout="bubble",
                elem_id=f"chat-{side}",
                elem_classes="chat-base" if side == "base" else "chat-tuned",
                placeholder=label("chat_placeholder"),
            )

    def _build_bottom(self) -> None:
        with gr.Column(elem_id="chat-bottom"):
            self.chips = picker(elem_id="chat-prompts")
            with gr.Row():
                self.text = gr.Textbox(
                    "",
                    show_label=False,
                    container=False,
                    label=label("chat_ask"),
                    placeholder=label("chat_ask"),
                    lines=1,
                    max_lines=6,
                    scale=6,
                    elem_id="chat-input",
                    min_width=200,
                )
                width = {"scale": 1, "min_width": 90}
                self.send = gr.Button(label("chat_send"), variant="primary", elem_id="chat-send", **width)
                self.stop = gr.Button(label("chat_stop"), visible=False, elem_id="chat-stop", **width)
            with gr.Row(elem_classes="small-row"):
                self.again = gr.Button(label("chat_again"), size="sm", elem_id="chat-again", min_width=90)
                self.clear = gr.Button(label("chat_clear"), size="sm", elem_id="chat-clear", min_width=90)
                self.as_trained = gr.Checkbox(
                    True,
                    label=label("as_trained"),
                    visible=False,
                    container=False,
                    elem_id="chat-as-trained",
                    min_width=200,
                )
        self.stopping = SessionStop(self.stop)

    # What is shown

    def draw(self, exchange: Exchange, lang: str, run_names: Sequence[str]) -> dict[Any, Any]:
        if exchange.place:
            note = in_line(exchange.place, lang)
            return {
                self.heads[side]: head(side, lang, None, note, column_name(side, run_names)) for side in exchange.sides
            }
        drawn: dict[Any, Any] = {}
        for side, state in exchange.sides.items():
            drawn[self.columns[side]] = state.shown(lang)
            drawn[self.heads[side]] = head(side, lang, state, name=column_name(side, run_names))
        return drawn

    def buttons(self, streaming: bool) -> dict[Any, Any]:
        return {
            self.send: gr.update(visible=not streaming),
            self.stop: gr.update(visible=streaming, interactive=True),
            self.again: gr.update(interactive=not streaming),
            self.clear: gr.update(interactive=not streaming),
        }

    def waiting(
        self, histories: Mapping[str, Any], config: GenerateConfig, lang: str, run_names: Sequence[str]
    ) -> dict[Any, Any]:
        """The page until the first token comes."""
        note = say(lang, "chat_reading" if work.is_loaded(*run_names) else "chat_loading")
        return {
            **{self.columns[side]: folded(history, lang) for side, history in histories.items()},
            **{self.heads[side]: head(side, lang, None, note, column_name(side, run_names)) for side in histories},
            **self.buttons(True),
            self.text: "",
            self.settings["seed"]: config.seed,
        }

    # Handlers

    async def answer(
        self,
        request: gr.Request,
        run_name: str,
        beside: list[str] | None,
        text: str,
        system: str,
        retry: bool,
        as_trained: bool = True,
        **values: Any,
    ) -> AsyncIterator[dict[Any, Any]]:
        """Stream all columns' answers; `values` holds the columns' values by side and the settings by name."""
        lang, run_names = language(request), [run_name, *(beside or [])]
        before = {side: messages(values[side]) for side in SIDES[: 1 + len(run_names)]}
        config: GenerateConfig = forms.config(GenerateConfig, {name: values[name] for name in self.settings})
        asked = question(find_ready(run_name), text, as_trained) if text.strip() else text
        histories = histories_to_answer(before, asked, retry)
        if retry and config.temperature:
            config = replace(config, seed=config.seed + 1)
        with self.stopping.running(request) as stopped:
            yield self.waiting(histories, config, lang, run_names)
            try:
                asker = rights.asker(request)
                async with aclosing(stream(run_names, histories, system, config, asker, stopped.is_set)) as exchanges:
                    async for exchange in exchanges:
                        yield self.draw(exchange, lang, run_names)
                if await spells_control_tokens(run_names, [text, system]):
                    gr.Info(say(lang, "chat_control"))
                yield self.buttons(False)
            except UserError:
                restored = {self.columns[side]: folded(history, lang) for side, history in before.items()}
                yield restored | {self.text: text} | self.buttons(False)
                raise

    def start_over(self, request: gr.Request, run_name: str, beside: list[str] | None) -> dict[Any, Any]:
        """Empty columns, as many as there are models."""
        lang, run_names = language(request), [run_name, *(beside or [])]
        drawn: dict[Any, Any] = {self.columns[side]: [] for side in SIDES}
        for index, side in enumerate(SIDES):
            used = index <= len(run_names)
            drawn[self.places[side]] = gr.update(visible=used)
            drawn[self.heads[side]] = head(side, lang, name=column_name(side, run_names)) if used else ""
        return drawn

    def refresh(self, run_name: str, request: gr.Request) -> dict[Any, Any]:
        lang = language(request)
        if not run_name:
            return {self.gate: waits(lang, "wait_run"), self.body: gr.update(visible=False)}
        run = runs.named(run_name)
        prompts, others = example_prompts(run), companions(run)
        return {
            self.gate: "",
            self.body: gr.update(visible=True),
            self.prompts: prompts,
            self.chips: prompt_chips(prompts, lang),
            self.system: system_prompt(run),
            self.as_trained: gr.update(visible=has_instruction(run)),
            self.beside: gr.update(choices=others, value=[], visible=bool(others)),
            **self.start_over(request, run_name, []),
        }

    def take_prompt(self, prompts: list[dict[str, str]], event: gr.EventData) -> dict[Any, Any]:
        pick = picked(event)
        if not pick.isdecimal() or int(pick) >= len(prompts):
            raise UserError("That example isn't there any more; reload the page.")
        prompt = prompts[int(pick)]
        return {self.text: prompt["text"], **({self.system: prompt["system"]} if prompt["system"] else {})}

    def preload(self, run_name: str) -> None:
        threading.Thread(target=work.preload, args=(run_name,), name="preload", daemon=True).start()

    def wire(self) -> None:
        page, fault = self.page, self.fault
        asked = {"run_name": page.run, "beside": self.beside, "text": self.text, "system": self.system}
        asked |= {"as_trained": self.as_trained, **self.columns, **self.settings}
        drawn = [*self.columns.values(), *self.heads.values()]
        answered = [*drawn, self.text, self.send, self.stop, self.again, self.clear, self.settings["seed"]]
        sent = partial(gr.on, [self.send.click, self.text.submit])
        for trigger, retry in ((sent, False), (self.again.click, True)):
            wire(
                trigger,
                self.answer,
                {**asked, "retry": gr.State(retry)},
                answered,
                fault,
                needs="chat",
                **MODEL_CLICK,
            )
        self.stopping.wire()
        emptied = [*drawn, *self.places.values()]
        for trigger in (self.clear.click, self.beside.change):
            wire(trigger, self.start_over, [page.run, self.beside], emptied)
        wire(self.chips.select, self.take_prompt, [self.prompts], [self.text, self.system], fault, **EACH_PICK)
        refreshed = [
            self.gate,
            self.body,
            self.prompts,
            self.chips,
            self.system,
            self.as_trained,
            self.beside,
            *emptied,
        ]
        wire(page.run.change, self.refresh, [page.run], refreshed, fault)
        wire(self.tab.select, self.preload, [page.run], needs="chat")
        page.blocks.unload(rights.guarded(self.stopping.leave, "look"))
