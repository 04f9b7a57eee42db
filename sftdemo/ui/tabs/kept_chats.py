"""Conversations kept under a name: listed, opened, renamed, shared by a link, deleted; and the present one as a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from sftdemo.ui.access import rights
from sftdemo.ui.downloads import SAVE_JS
from sftdemo.ui.parts import html, style
from sftdemo.ui.parts.address import absolute
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import EACH_PICK, Page, find_ready, picked, picker, title_of
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.tabs import chat_store, shared_chat
from sftdemo.ui.tabs.chat_files import FORMATS, exported
from sftdemo.ui.tabs.chat_store import KeptChat
from sftdemo.ui.tabs.conversation import talk_with, talks_with
from sftdemo.ui.texts import label, language, number, say

SYSTEMS = ("system:", "api:")  # what answers beside runs and is none


def kept_table(chats: Sequence[KeptChat], chosen: str, lang: str) -> str:
    """The kept chats, the newest first; one can be picked."""
    if not chats:
        return html.block(say(lang, "kept_none"), "muted small")
    headers = [say(lang, f"kept_{column}") for column in ("name", "run", "questions", "when", "link")]
    rows = []
    for chat in chats:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(chat.kept))
        shared = say(lang, "kept_shared") if chat.shared else "–"
        runs_named = ", ".join(html.cut_names(list(map(title_of, chat.run_names)), 28))
        cells = (chat.name, runs_named, str(len(chat.conversation.turns)), when, shared)
        rows.append((chat.id, [html.esc(cell) for cell in cells], chat.id == chosen))
    return html.table(headers, rows)


def shared_link(chat: KeptChat, root_path: str | None, request: gr.Request) -> str:
    """The address of a shared chat, for others, with a button that copies it."""
    lang, url = language(request), html.esc(absolute(shared_chat.link(chat), root_path, request))
    copy = f'<button class="small-button" data-copy="{say(lang, "chat_copied")}" data-from=".link">{say(lang, "kept_copy")}</button>'
    link = f'<a class="link" href="{url}" target="_blank" rel="noopener">{url}</a>'
    return html.block(f'{link} {copy}<p class="muted">{say(lang, "kept_link_note")}</p>', "small")


class KeptChats:
    """Folded below the chat, whose conversations `talks` holds by run."""

    def __init__(self, page: Page, talks: Any, beside: Any) -> None:
        self.page, self.talks, self.beside = page, talks, beside
        self.chosen, self.deleted = gr.State(""), gr.State("")  # ids
        with gr.Accordion(label("kept_title"), open=False, elem_id="chat-kept") as self.box:
            with gr.Row(elem_classes="small-fields"):
                self.name = gr.Textbox(
                    "", label=label("kept_as"), max_lines=1, max_length=chat_store.MOST_NAME, elem_id="kept-as", scale=3
                )
                self.keep = self._button("kept_keep", "chat-keep")
                self.files = {form: self._button(f"kept_{form}", f"chat-{form}") for form in FORMATS}
            self.fault = gr.HTML("", elem_id="kept-fault")
            self.table = picker(elem_id="kept-chats")
            with gr.Row(visible=False, elem_classes="small-row") as self.actions:
                self.open = self._button("kept_open", "kept-open")
                self.rename = self._button("kept_rename", "kept-rename")
                self.share = self._button("kept_share", "kept-share")
                self.unshare = self._button("kept_unshare", "kept-unshare")
                self.delete = self._button("kept_delete", "kept-delete")
            with gr.Row(visible=False, elem_id="kept-undo-row", elem_classes="small-row") as self.undo_row:
                self.undo_note = gr.HTML("", elem_id="kept-undo-note")
                self.undo = self._button("kept_undo", "kept-undo")
            self.link = gr.HTML("", elem_id="kept-link", js_on_load=style.COPY_JS)
            self.about = gr.HTML("", elem_id="kept-about")
            with gr.Row(visible=False, elem_classes="small-row") as self.of_visitors:
                self.clear = self._button("kept_clear", "kept-clear")
                self.sure = self._button("kept_sure", "kept-sure")
            self.file = [
                gr.Textbox("", visible="hidden", elem_classes="carried", label=label("kept_title")) for _ in range(2)
            ]  # name, text

    def _button(self, key: str, elem_id: str) -> Any:
        return gr.Button(label(key), size="sm", elem_id=elem_id, scale=1, min_width=100)

    def listed(self, request: gr.Request, chosen: str = "") -> dict[Any, Any]:
        """The list with one of it chosen, and what can be done with that."""
        lang, visitor = language(request), rights.visitor(request)
        chats = chat_store.listed(visitor)
        chat = next((chat for chat in chats if chat.id == chosen), None)
        may_share, root_path = visitor.may("share"), getattr(self.page.blocks, "root_path", None)
        return {
            self.table: kept_table(chats, chosen, lang),
            self.chosen: chosen if chat else "",
            self.actions: gr.update(visible=chat is not None),
            self.share: gr.update(visible=may_share and chat is not None and not chat.shared),
            self.unshare: gr.update(visible=chat is not None and chat.shared),
            self.link: shared_link(chat, root_path, request) if chat and chat.shared else "",
            self.undo_row: gr.update(visible=False),
            **self.limits(lang, visitor),
        }

    def list_again(self, request: gr.Request, chosen: str, drawn: str) -> dict[Any, Any]:
        return self.listed(request, chosen) if drawn else {}

    def limits(self, lang: str, visitor: rights.Visitor, asking: bool = False) -> dict[Any, Any]:
        """How long visitors' chats are kept; for the owner also how many there are, and a way to delete them all."""
        config, count = rights.policy().config, chat_store.of_visitors() if visitor.owner else 0
        values = {"n": number(count), "most": number(config.all_chats), "days": f"{config.chat_days:g}"}
        text = say(lang, "kept_of_visitors" if visitor.owner else "kept_days", **values)
        return {
            self.about: html.block(text, "muted small") if count or not visitor.owner else "",
            self.of_visitors: gr.update(visible=count > 0),
            self.sure: gr.update(visible=asking),
        }

    def ask_to_clear(self, request: gr.Request) -> dict[Any, Any]:
        return self.limits(language(request), rights.visitor(request), asking=True)

    def clear_visitors(self, request: gr.Request) -> dict[Any, Any]:
        chat_store.delete_of_visitors()
        return self.listed(request)

    def keep_it(
        self, request: gr.Request, run_name: str, beside: list[str] | None, talks: Any, name: str
    ) -> dict[Any, Any]:
        """The present conversation under this name, or that of its first question."""
        # Whoever reads a shared chat is told what its runs are called.
        seen = [name for name in beside or [] if name.startswith(SYSTEMS) or rights.sees(name.removeprefix("run:"))]
        run_names = [find_ready(run_name).name, *seen]
        conversation = talk_with(talks, run_name).now
        asked = html.cut(conversation.turns[0].text, chat_store.MOST_NAME) if conversation.turns else ""
        asked = "".join(filter(str.isprintable, asked))
        chat = chat_store.keep(rights.visitor(request), name or asked, run_names, conversation)
        return self.listed(request, chat.id) | {self.name: ""}

    def save(self, run_name: str, talks: Any, name: str, form: str) -> dict[Any, Any]:
        file = exported(talk_with(talks, run_name).now, form, name or run_name)
        return dict(zip(self.file, file, strict=True))

    def choose(self, request: gr.Request, event: gr.EventData) -> dict[Any, Any]:
        return self.listed(request, picked(event))

    def bring_back(self, request: gr.Request, chosen: str, talks: Any) -> dict[Any, Any]:
        """Go on with a kept chat, with its run; the conversation that was there can be brought back by Undo."""
        chat = chat_store.find(rights.visitor(request), chosen)
        run_name = find_ready(chat.run_names[0] if chat.run_names else "").name
        talk = talk_with(talks, run_name).changed(chat.conversation)
        return {self.talks: talks_with(talks, run_name, talk), self.page.run: run_name}

    def rename_it(self, request: gr.Request, chosen: str, name: str) -> dict[Any, Any]:
        chat_store.change(rights.visitor(request), chosen, name=name)
        return self.listed(request, chosen) | {self.name: ""}

    def share_it(self, request: gr.Request, chosen: str) -> dict[Any, Any]:
        chat_store.change(rights.visitor(request), chosen, shared=True)
        return self.listed(request, chosen)

    def unshare_it(self, request: gr.Request, chosen: str) -> dict[Any, Any]:
        chat_store.change(rights.visitor(request), chosen, shared=False)
        return self.listed(request, chosen)

    def delete_it(self, request: gr.Request, chosen: str) -> dict[Any, Any]:
        visitor = rights.visitor(request)
        chats = {chat.id: chat.name for chat in chat_store.listed(visitor)}
        chat_store.delete(visitor, chosen)
        note = say(language(request), "kept_deleted", name=chats.get(chosen, ""))
        undo = {self.undo_row: gr.update(visible=True), self.undo_note: html.block(html.esc(note), "small")}
        return self.listed(request) | undo | {self.deleted: chosen}

    def take_back(self, request: gr.Request, deleted: str) -> dict[Any, Any]:
        chat_store.restore(rights.visitor(request), deleted)
        return self.listed(request, deleted)

    def wire(self) -> Any:
        """Connect the events; what is returned happens after a kept chat has been opened."""
        limits = [self.about, self.of_visitors, self.sure]
        fault = self.fault
        listed = [self.table, self.chosen, self.actions, self.share, self.unshare, self.link, self.undo_row, *limits]
        chat: dict[str, Any] = {"needs": "chat"}
        kept = {"run_name": self.page.run, "beside": self.beside, "talks": self.talks, "name": self.name}
        wire(self.box.expand, self.listed, None, listed, fault, **chat)
        wire(self.keep.click, self.keep_it, kept, [*listed, self.name], fault, **chat)
        for form, button in self.files.items():
            saved = {"run_name": self.page.run, "talks": self.talks, "name": self.name, "form": gr.State(form)}
            written = wire(button.click, self.save, saved, self.file, fault, **chat)
            wire(written.success, None, self.file, self.file, js=SAVE_JS)
        wire(self.table.select, self.choose, None, listed, fault, **chat, **EACH_PICK)
        wire(self.rename.click, self.rename_it, [self.chosen, self.name], [*listed, self.name], fault, **chat)
        wire(self.share.click, self.share_it, [self.chosen], listed, fault, needs="share")
        wire(self.unshare.click, self.unshare_it, [self.chosen], listed, fault, **chat)
        gone = [*listed, self.undo_note, self.deleted]
        wire(self.delete.click, self.delete_it, [self.chosen], gone, fault, **chat)
        wire(self.undo.click, self.take_back, [self.deleted], listed, fault, **chat)
        wire(self.clear.click, self.ask_to_clear, None, limits, fault, needs="manage")
        wire(self.sure.click, self.clear_visitors, None, listed, fault, needs="manage")
        again = {"chosen": self.chosen, "drawn": self.table}
        redraw(self.page, self.list_again, again, [self.table, self.link, self.about], **chat)
        return wire(
            self.open.click, self.bring_back, [self.chosen, self.talks], [self.talks, self.page.run], fault, **chat
        )
