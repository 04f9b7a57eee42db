"""A folded hint for those whose data was made for OpenAI's fine-tuning: what each field and step of theirs is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from sftdemo.ui import texts
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import Page
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.texts import label, language

FOLDER = Path(texts.__file__).parent


def guide(lang: str) -> str:
    """The words of docs/openai.md, in Markdown."""
    return (FOLDER / f"openai.{lang}.md").read_text(encoding="utf-8")


class ComingFromOpenAI:
    """The hint; its words are sent when it is opened."""

    def __init__(self) -> None:
        with gr.Accordion(label("openai_hint"), open=False, elem_id="from-openai") as self.hint:
            self.words = gr.Markdown("", elem_id="from-openai-words")

    def show(self, request: gr.Request) -> dict[Any, Any]:
        _, _, words = guide(language(request)).partition("\n\n")  # the page has its own heading
        return {self.words: words}

    def show_again(self, words: str, request: gr.Request) -> dict[Any, Any]:
        return self.show(request) if words else {}

    def wire(self, page: Page) -> None:
        wire(self.hint.expand, self.show, None, [self.words])
        redraw(page, self.show_again, [self.words], [self.words])
