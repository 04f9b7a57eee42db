"""4 Chat: one question, all answers to it side by side."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields, replace
from functools import partial
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config.generate import GenerateConfig
from sftdemo.config.kinds import LABELLING, SEQ2SEQ
from sftdemo.errors import UserError
from sftdemo.ui import models
from sftdemo.ui.access import rights
from sftdemo.ui.parts import forms, html, style
from sftdemo.ui.parts.address import TALKS_AND_SEARCH_JS
from sftdemo.ui.parts.forms import MODEL_CLICK, wire
from sftdemo.ui.parts.page import EACH_PICK, Page, find_ready, picked, picker, title_of, waits
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.parts.stopping import SessionStop
from sftdemo.ui.tabs import conversation as talk_of
from sftdemo.ui.tabs.chat_prompts import chips, example_prompts, expected_row, judged
from sftdemo.ui.tabs.chat_setup import MOST_BESIDE, Setup, companions, joining, waiting
from sftdemo.ui.tabs.chat_systems import beside_title, checked, is_system, offered
from sftdemo.ui.tabs.conversation import Answer, Conversation, Talk, Turn, columns_of
from sftdemo.ui.tabs.exchange import Exchange, asked_wordings, has_instruction, spells_control_tokens
from sftdemo.ui.tabs.kept_chats import KeptChats
from sftdemo.ui.tabs.transcript import View, last_turn, past_and_now, title
from sftdemo.ui.texts import label, language, say

WARMER = 0.7  # offered where an answer at temperature 0 is to be made again


class ChatTab:
    """The conversation, one field for all who answer, and what they are asked with; the page holds the conversations."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page, self.tab = page, tab
        self.gate = gr.HTML("", elem_id="chat-gate")
        self.prompts, self.editing, self.pending = gr.State([]), gr.State(None), gr.State([])
        self.talks = gr.BrowserState({}, storage_key="sftdemo-chats", secret="only this browser has it")
        with gr.Column(visible=False) as self.body:
            with gr.Column(elem_id="chat-talk"):
                self.past = gr.HTML("", elem_id="chat-past", js_on_load=style.TALK_JS)
                self.now = gr.HTML("", elem_id="chat-now", js_on_load=style.TALK_JS)
            self._build_bar()
            self._build_tools()
            self.beside = gr.Dropdown(
                [],
                multiselect=True,
                max_choices=MOST_BESIDE,
                label=label("chat_beside"),
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
            self.kept = KeptChats(page, self.talks, self.beside)
        self.parts = [self.past, self.now, self.talks]

    def _build_bar(self) -> None:
        with gr.Column(elem_id="chat-bottom"):
            self.fault = gr.HTML("", elem_id="chat-fault")
            with gr.Row(elem_classes="small-row"):
                self.note = gr.HTML("", elem_id="chat-note")
                self.warmer = gr.Button(label("chat_warmer"), size="sm", visible=False, elem_id="chat-warmer")
                self.leave_edit = gr.Button(
                    label("chat_edit_cancel"), size="sm", visible=False, elem_id="chat-edit-cancel"
                )
            self.chips = picker(elem_id="chat-prompts")
            self.offer = gr.Textbox("", visible="hidden", elem_classes="carried", label=label("chat_ask"))
            with gr.Row(elem_id="chat-ask"):
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
                    min_width=120,
                )
                width = {"scale": 1, "min_width": 90}
                self.send = gr.Button(
                    label("chat_send"), variant="primary", interactive=False, elem_id="chat-send", **width
                )
                self.stop = gr.Button(label("chat_stop"), visible=False, elem_id="chat-stop", **width)
        self.stopping = SessionStop(self.stop)

    def _build_tools(self) -> None:
        with gr.Row(elem_id="chat-tools", elem_classes="small-row"):
            self.again = gr.Button(label("chat_again"), size="sm", elem_id="chat-again", min_width=90)
            self.clear = gr.Button(label("chat_clear"), size="sm", elem_id="chat-clear", min_width=90)
            self.undo = gr.Button(label("chat_undo"), size="sm", elem_id="chat-undo", interactive=False, min_width=90)
            self.teach = gr.Button(label("chat_teach"), size="sm", elem_id="chat-teach", min_width=90)
            self.as_trained = self._switch("as_trained", "chat-as-trained", visible=False)
            self.marks = self._switch("chat_marks", "chat-marks")
        self.wording = gr.Dropdown([], label=label("chat_wording"), visible=False, elem_id="chat-wording")

    def _switch(self, key: str, elem_id: str, **options: Any) -> Any:
        return gr.Checkbox(True, label=label(key), container=False, elem_id=elem_id, min_width=160, **options)

    # What is shown

    def draw(self, conversation: Conversation, view: View) -> dict[Any, Any]:
        past, now = past_and_now(conversation, view)
        empty = html.block(say(view.lang, "chat_placeholder"), "state empty")
        return {self.past: past, self.now: now or empty}

    def buttons(self, streaming: bool, talk: Talk) -> dict[Any, Any]:
        idle, asked = not streaming, not streaming and bool(talk.now.turns)
        return {
            self.send: gr.update(visible=idle),
            self.stop: gr.update(visible=streaming, interactive=True),
            **{button: gr.update(interactive=asked) for button in (self.again, self.clear, self.teach)},
            self.undo: gr.update(interactive=idle and talk.before is not None),
        }

    def shown(self, setup: Setup, talk: Talk) -> dict[Any, Any]:
        """The conversation at rest, and kept."""
        return {
            **self.draw(talk.now, View(setup.names, setup.lang)),
            self.talks: talk_of.talks_with(setup.talks, setup.run_names[0], talk),
            **self.buttons(False, talk),
        }

    def quiet(self, note: str = "") -> dict[Any, Any]:
        """A note above the field, and nothing that waits for a decision."""
        hidden = gr.update(visible=False)
        return {self.note: note, self.warmer: hidden, self.leave_edit: hidden, self.editing: None, self.pending: []}

    # Handlers

    def setup(self, request: gr.Request, **page: Any) -> Setup:
        run, beside = find_ready(page["run_name"]), list(dict.fromkeys(page["beside"] or []))[:MOST_BESIDE]
        run_names = [run.name, *(name for name in beside if not is_system(name))]
        config = forms.config(GenerateConfig, {name: page[name] for name in self.settings})
        talk = talk_of.talk_with(page["talks"], run_names[0])
        return Setup(
            run_names,
            talk,
            page["talks"],
            page["system"] or "",
            config,
            bool(page["as_trained"]),
            page["wording"] or "",
            language(request),
            checked(run, companions(run), beside),
        )

    async def ask(
        self, request: gr.Request, text: str, editing: int | None, **page: Any
    ) -> AsyncGenerator[dict[Any, Any], None]:
        """What was typed to all, as a new turn or in the place of an earlier one, behind which everything is dropped."""
        if not text.strip():
            raise UserError("Type a question first.")
        setup = self.setup(request, **page)
        asked, unsure = setup.asked(text)
        kept = setup.talk.now if editing is None else setup.talk.now.up_to(editing)
        conversation = replace(kept, system=setup.system).and_turn(Turn(text, asked))
        if conversation.is_full:
            raise UserError("The conversation is too long to go on; export it if you need it, and clear it.")
        note = html.block(html.esc(self.bare(unsure, setup)), "muted small") if unsure else ""
        before: dict[Any, Any] = self.quiet(note) | {self.text: ""}
        async with aclosing(self.respond(request, setup, conversation, setup.names, before)) as updates:
            try:
                async for update in updates:
                    yield update
            except UserError:
                yield {self.text: text, self.editing: editing, self.note: ""}
                raise
        if models.is_loaded(*setup.run_names) and await spells_control_tokens(setup.run_names, [text, setup.system]):
            gr.Info(say(setup.lang, "chat_control"), title=say(setup.lang, "toast_note"))

    def bare(self, names: Sequence[str], setup: Setup) -> str:
        """Who is asked the text as it stands, and how it would have to be typed."""
        name = names[0]
        patterns = [wording.pattern for wording in asked_wordings(runs.named(name))]
        key = "chat_bare_several" if len(patterns) > 1 else "chat_bare_pattern"
        named = html.cut_name(title_of(name), 28)
        return say(setup.lang, key, name=named, pattern=patterns[0].replace("\n", " ⏎ "))

    async def regenerate(
        self, request: gr.Request, which: list[str], warmer: bool = False, **page: Any
    ) -> AsyncGenerator[dict[Any, Any], None]:
        """The last answers once more with the next seed: of those named, or of all."""
        setup = self.setup(request, **page)
        if not setup.talk.now.turns:
            raise UserError("There is no answer to make again yet.")
        which = [name for name in which if name in setup.names] or setup.names
        if not setup.config.temperature and not warmer and self.is_complete(setup, which):
            note = html.block(say(setup.lang, "chat_same_again"), "muted small")
            yield self.quiet(note) | {self.warmer: gr.update(visible=True), self.pending: which}
            return
        temperature = WARMER if warmer else setup.config.temperature
        setup = replace(setup, config=replace(setup.config, temperature=temperature, seed=setup.config.seed + 1))
        *earlier, last = setup.talk.now.turns
        others = {name: answer for name, answer in last.answers.items() if name not in which}
        conversation = replace(setup.talk.now, turns=[*earlier, replace(last, answers=others)], system=setup.system)
        before: dict[Any, Any] = self.quiet() | {
            self.settings["seed"]: setup.config.seed,
            self.settings["temperature"]: temperature,
        }
        async with aclosing(self.respond(request, setup, conversation, which, before)) as updates:
            async for update in updates:
                yield update

    def is_complete(self, setup: Setup, which: Sequence[str]) -> bool:
        """Whether each of them has answered to the end, with the greatest probability throughout."""
        answers = [setup.talk.now.turns[-1].answers.get(name) for name in which]
        return all(answer and answer.finish_reason != "stopped" and not answer.temperature for answer in answers)

    async def respond(
        self,
        request: gr.Request,
        setup: Setup,
        conversation: Conversation,
        answering: Sequence[str],
        before: Mapping[Any, Any],
    ) -> AsyncGenerator[dict[Any, Any], None]:
        """Stream these models' answers to the last question; a fault puts back what was there."""
        run, *_ = setup.run_names
        *earlier, last = conversation.turns
        talk = setup.talk.changed(replace(conversation, turns=[*earlier, last]))
        row = await models.in_thread(partial(expected_row, runs.named(run), last.question(run)))
        last = replace(last, expected=row["references"][0] if row else None)

        def turn(answers: Mapping[str, Answer]) -> Conversation:
            return replace(conversation, turns=[*earlier, replace(last, answers={**last.answers, **answers})])

        note = say(setup.lang, "chat_reading" if models.is_loaded(*setup.run_names) else "chat_loading")
        view = View(setup.names, setup.lang, dict.fromkeys(answering, note), streaming=True)
        begun = turn(dict.fromkeys(answering, Answer()))
        exchange = Exchange()
        with self.stopping.running(request) as stopped:
            yield {
                **before,
                **await models.in_thread(partial(self.draw, begun, view)),
                **self.buttons(True, talk),
                self.talks: talk_of.talks_with(setup.talks, run, talk),
            }
            asked = setup.answered(conversation, answering, rights.asker(request), stopped.is_set)
            try:
                async with aclosing(asked) as exchanges:
                    async for exchange in exchanges:
                        notes = dict.fromkeys(answering, waiting(exchange, setup.lang))
                        yield {self.now: last_turn(turn(exchange.answers), replace(view, notes=notes))}
            except UserError:
                yield await models.in_thread(partial(self.shown, setup, setup.talk))
                raise
        answers = exchange.answers
        if row:
            answers = await models.in_thread(partial(judged, runs.named(run), row, {**last.answers, **answers}))
        yield await models.in_thread(partial(self.shown, setup, replace(talk, now=turn(answers))))

    async def act(self, request: gr.Request, event: gr.EventData, **page: Any) -> AsyncGenerator[dict[Any, Any], None]:
        """A button in the transcript: an earlier question into the field, or one answer once more."""
        what, _, which = picked(event).partition(":")
        setup = self.setup(request, **page)
        if what == "again" and which in setup.names:
            async with aclosing(self.regenerate(request, [which], **page)) as updates:
                async for update in updates:
                    yield update
        elif what == "edit" and which.isdecimal() and int(which) < len(setup.talk.now.turns):
            number = int(which)
            note = html.block(say(setup.lang, "chat_editing", n=number + 1), "muted small")
            editing = {self.leave_edit: gr.update(visible=True), self.editing: number}
            yield self.quiet(note) | editing | {self.offer: setup.talk.now.turns[number].text}
        else:
            raise UserError("That turn isn't there any more; reload the page.")

    def leave_editing(self) -> dict[Any, Any]:
        return self.quiet() | {self.text: ""}

    def start_over(self, request: gr.Request, **page: Any) -> dict[Any, Any]:
        setup = self.setup(request, **page)
        return self.shown(setup, setup.talk.changed(Conversation())) | self.quiet()

    def take_back(self, request: gr.Request, **page: Any) -> dict[Any, Any]:
        """The conversation as it was before the last change; once more brings that change back."""
        setup = self.setup(request, **page)
        before = setup.talk.before
        return (self.shown(setup, setup.talk.changed(before)) if before is not None else {}) | self.quiet()

    def change_columns(self, request: gr.Request, **page: Any) -> dict[Any, Any]:
        """The conversation goes on with these models; who joins takes over what the first run has answered so far."""
        setup = self.setup(request, **page)
        turns = setup.talk.now.turns
        joining = [name for name in setup.names[1:] if turns and name not in turns[-1].answers]
        view = View(setup.names, setup.lang)
        notes = [
            say(setup.lang, "chat_joins", name=html.cut_name(title_of(name), 28), first=title(setup.run_names[0], view))
            for name in joining
        ]
        drawn = self.draw(setup.talk.now, view)
        return drawn | {self.note: html.block("<br>".join(map(html.esc, notes)), "muted small") if notes else ""}

    def refresh(self, run_name: str, talks: Any, request: gr.Request, search: str = "") -> dict[Any, Any]:
        """The run's prompts and wording, and the conversation that this browser keeps of it; in a new one the runs answer
        that the address compares it with."""
        lang = language(request)
        if not run_name:
            return {self.gate: waits(lang, "wait_run", "then_chat"), self.body: gr.update(visible=False)}
        run = runs.named(run_name)
        prompts, others, talk = example_prompts(run), companions(run), talk_of.talk_with(talks, run_name)
        others = [*others, *offered(run, others, rights.visitor(request).owner)]
        names = talk.now.turns[-1].answers if talk.now.turns else ()
        beside = [name for name in others if name in names][:MOST_BESIDE]
        if not talk.now.turns:
            beside = joining(run_name, search, others)
        choices = [(words.source or say(lang, "chat_wording"), words.template) for words in asked_wordings(run)]
        alone = run.kind == SEQ2SEQ
        return {
            self.gate: html.block(say(lang, "chat_alone"), "muted small") if alone else "",
            self.settings["beams"]: gr.update(visible=True) if alone else gr.update(visible=False, value=1),
            self.body: gr.update(visible=True),
            self.prompts: prompts,
            self.chips: chips(prompts),
            self.system: run.system_message if talk.now.system is None else talk.now.system,
            self.as_trained: gr.update(visible=has_instruction(run)),
            self.marks: gr.update(visible=run.kind not in LABELLING),
            self.wording: gr.update(
                choices=choices, value=choices[0][1] if choices else None, visible=len(choices) > 1
            ),
            self.beside: gr.update(
                choices=[(beside_title(name, lang), name) for name in others], value=beside, visible=bool(others)
            ),
            **self.draw(talk.now, View(columns_of([run_name, *beside]), lang)),
            **self.buttons(False, talk),
            self.teach: gr.update(visible=rights.visitor(request).may("own_data"), interactive=bool(talk.now.turns)),
            **self.quiet(),
        }

    def take_prompt(self, prompts: list[dict[str, str]], event: gr.EventData) -> dict[Any, Any]:
        pick = picked(event)
        if not pick.isdecimal() or int(pick) >= len(prompts):
            raise UserError("That example isn't there any more; reload the page.")
        prompt = prompts[int(pick)]
        return {self.offer: prompt["text"], **({self.system: prompt["system"]} if prompt["system"] else {})}

    def preload(self, run_name: str) -> None:
        asker = contextvars.copy_context()
        threading.Thread(target=asker.run, args=(models.preload, run_name), name="preload", daemon=True).start()

    def wire(self) -> None:
        page, fault = self.page, self.fault
        state = {"run_name": page.run, "beside": self.beside, "system": self.system, "talks": self.talks}
        state |= {"as_trained": self.as_trained, "wording": self.wording, **self.settings}
        noted = [self.note, self.warmer, self.leave_edit, self.editing, self.pending]
        drawn = [*self.parts, self.send, self.stop, self.again, self.clear, self.undo, self.teach, *noted]
        answered = [*drawn, self.text, self.offer, self.settings["seed"], self.settings["temperature"]]
        sent = partial(gr.on, [self.send.click, self.text.submit])
        typed = {"text": self.text, "editing": self.editing}
        options: dict[str, Any] = {"needs": "chat", **MODEL_CLICK}
        wire(sent, self.ask, {**state, **typed}, answered, fault, **options)
        wire(self.again.click, self.regenerate, {**state, "which": gr.State([])}, answered, fault, **options)
        warmer = {**state, "which": self.pending, "warmer": gr.State(True)}
        wire(self.warmer.click, self.regenerate, warmer, answered, fault, **options)
        turn = wire(partial(gr.on, [self.past.select, self.now.select]), self.act, state, answered, fault, **options)
        wire(self.text.change, None, [self.text], [self.send], js=style.SEND_JS)
        wire(self.marks.change, None, [self.marks], None, js=style.MARKS_JS)
        self.stopping.wire()
        wire(self.leave_edit.click, self.leave_editing, None, [*noted, self.text])
        wire(self.clear.click, self.start_over, state, drawn, fault)
        wire(self.undo.click, self.take_back, state, drawn, fault)
        wire(self.beside.input, self.change_columns, state, [self.past, self.now, self.note], fault)
        chip = wire(self.chips.select, self.take_prompt, [self.prompts], [self.offer, self.system], fault, **EACH_PICK)
        for pick in (turn, chip):
            wire(pick.success, None, [self.text, self.offer], [self.text, self.offer], js=style.FILL_JS)
        refreshed = [self.gate, self.body, self.prompts, self.chips, self.system, self.as_trained]
        refreshed += [self.marks, self.settings["beams"]]
        state_and_search = {"run_name": page.run, "talks": self.talks, "search": page.address}
        redrawn = [*refreshed, self.wording, self.beside, *drawn]

        def refresh_on(trigger: Any) -> Any:
            return wire(trigger, self.refresh, state_and_search, redrawn, fault, js=TALKS_AND_SEARCH_JS)

        page.redraw_chat = refresh_on
        for trigger in (page.run.change, self.kept.wire().success):
            refresh_on(trigger)
        redraw(page, self.refresh, [page.run, self.talks], [self.gate, self.chips, self.wording, self.beside])
        redraw(page, self.change_columns, state, [self.past, self.now])
        wire(self.tab.select, self.preload, [page.run], needs="chat")
        page.blocks.unload(rights.guarded(self.stopping.leave, "look"))
