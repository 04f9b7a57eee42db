"""The page in another language without loading it again: what the server wrote is drawn anew, and nothing else is touched."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from sftdemo.errors import UserError
from sftdemo.ui.access import rights
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.texts import language, say

TRANSLATED = "__i18n__"  # what Gradio keeps of a button's name begins with, and holds the name's key
STATED = ("fine-tune", "vote-next")
WRITTEN = (gr.HTML, gr.Markdown, gr.Button)  # their value is text of ours; that of all others is the user's


def language_switch() -> Any:
    """The event of the language having been switched; the browser clicks the hidden button, see style.HEAD."""
    return gr.Button("", visible="hidden", elem_id="language-switched").click


def redraw(
    page: Any,
    handler: Callable[..., Any],
    inputs: Sequence[Any] | Mapping[str, Any] | None,
    outputs: Sequence[Any],
    needs: rights.Action = "look",
    **options: Any,
) -> None:
    """When the language is switched, let a handler that draws these outputs give them its texts.

    What was typed, chosen, opened or hidden stays, whatever else the handler returns; for a visitor who may not what it
    `needs`, all does. Labels are Gradio's to translate.
    """
    wire(page.language_switched, texts_alone(rights.guarded(handler, needs), outputs), inputs, outputs, **options)


def redraw_names(page: Any) -> None:
    """Gradio translates the names of tabs that have been opened, and of buttons in sight; all have their names from here.

    Not buttons whose name says what is the case.
    """
    parts = page.blocks.blocks.values()
    keys = {part: part.label.key for part in parts if isinstance(part, gr.Tab)}
    for part in parts:
        if isinstance(part, gr.Button) and part.value.startswith(TRANSLATED) and part.elem_id not in STATED:
            keys[part] = json.loads(part.value.removeprefix(TRANSLATED))["key"]

    def names(request: gr.Request) -> dict[Any, Any]:
        lang = language(request)
        return {
            part: gr.update(**{"label" if isinstance(part, gr.Tab) else "value": say(lang, key)})
            for part, key in keys.items()
        }

    wire(page.language_switched, names, None, list(keys))


def redraw_where(
    page: Any,
    shown: Any,
    handler: Callable[..., Any],
    inputs: Sequence[Any] | Mapping[str, Any] | None,
    outputs: Sequence[Any],
    **options: Any,
) -> None:
    """As `redraw`, for what takes a while: asked for only where the component `shown` has a value, so that nobody waits,
    or is refused, for what isn't there."""
    switches = gr.State(0)

    def count_switch(value: Any, count: int) -> dict[Any, Any]:
        return {switches: count + 1} if value else {}

    wire(page.language_switched, count_switch, [shown, switches], [switches])
    wire(switches.change, texts_alone(handler, outputs), inputs, outputs, **options)


def texts_alone(handler: Callable[..., Any], outputs: Sequence[Any]) -> Callable[..., dict[Any, Any]]:
    """The handler, of whose last updates only the texts of these outputs are left."""

    @functools.wraps(handler)
    def texts(*arguments: Any, **named: Any) -> dict[Any, Any]:
        updates: dict[Any, Any] = {}
        with contextlib.suppress(UserError):  # what it drew before is gone, and stays in sight as it is
            result = handler(*arguments, **named)
            for update in result if inspect.isgenerator(result) else [result]:
                updates |= update or {}
        return {part: text_of(part, updates[part]) if part in updates else gr.skip() for part in outputs}

    return texts


def text_of(part: Any, update: Any) -> Any:
    """What of an update of a component is text, as an update."""
    properties = update if isinstance(update, dict) else {"value": update}
    kept = ("value",) if isinstance(part, WRITTEN) else ("choices", "placeholder", "label")
    texts = {name: properties[name] for name in kept if name in properties}
    texts = {name: text for name, text in texts.items() if not isinstance(text, I18nData)}  # a label
    return gr.update(**texts) if texts else gr.skip()
