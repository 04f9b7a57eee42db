"""The page as Gradio runs it: whether a visitor may do something is asked before anything that was sent is looked at."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sftdemo.errors import Text, UserError
from sftdemo.log import LOG
from sftdemo.ui.access import rights
from sftdemo.ui.texts import language, say
from sftdemo.ui.texts.faults import in_words

MISFIT = Text("What was sent doesn't fit this endpoint; see its description under the page's API link.")


class Blocks(gr.Blocks):  # type: ignore[misc]
    """gr.Blocks whose events refuse whom they must, by queue or direct, and say in one line what they can't take."""

    async def process_api(self, block_fn: Any, inputs: list[Any], *arguments: Any, **named: Any) -> Any:
        event = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        request = named.get("request")
        try:
            rights.require(request, getattr(event.fn, "needs", "look"))  # what has none is a component's own
        except UserError as error:
            lang = language(request)
            raise gr.Error(in_words(error, lang), title=say(lang, "toast_title"), print_exception=False) from None
        return await super().process_api(block_fn, inputs, *arguments, **named)

    async def preprocess_data(self, *arguments: Any, **named: Any) -> Any:
        try:
            return await super().preprocess_data(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 (each component has its own)
            LOG.info("An event was sent what it can't take: %s", type(error).__name__)
            raise gr.Error(MISFIT, print_exception=False) from None
