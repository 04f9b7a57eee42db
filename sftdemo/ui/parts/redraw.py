"""The page in another language without loading it again: what the server wrote is drawn anew, and nothing else is touched."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import gradio as gr
from gradio.i18n import I18nData

from sftdemo.errors import UserError
from sftdemo.log import LOG
from sftdemo.ui.access import rights
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.texts import language, say

TRANSLATED = "__i18n__"  # what Gradio keeps of a button's name begins with, and holds the name's key
STATED = ("fine-tune", "vote-next")
WRITTEN = (gr.HTML, gr.Markdown, gr.Button)  # their value is text of ours; that of all others is the user's


def language_switch() -> Any:
    """The event of the language having been switched; the browser clicks the hidden button, see style.HEAD."""
    return gr.Button("", visible="hidden", elem_id="language-switched").click


@dataclass
class Redraw:
    """A handler that draws texts anew, what of the page it is told, and where its texts stand."""

    handler: Callable[..., Any]
    inputs: Sequence[Any] | Mapping[str, Any]
    outputs: Sequence[Any]

    def __post_init__(self) -> None:
        """Raises TypeError unless the handler takes just what it is told."""
        kinds = get_type_hints(inspect.unwrap(self.handler))
        signature = inspect.signature(self.handler)
        self.asking = [name for name, kind in kinds.items() if kind is gr.Request]
        names = [name for name in signature.parameters if name not in self.asking]
        told = self.inputs if isinstance(self.inputs, Mapping) else dict(zip(names, self.inputs, strict=False))
        self.parts: dict[str, Any] = dict(told)
        signature.bind(**dict.fromkeys([*self.parts, *self.asking]))

    def texts(self, held: Mapping[Any, Any], request: gr.Request) -> dict[Any, Any]:
        """The texts, where the page's parts hold these values."""
        values = {name: held[part] for name, part in self.parts.items()}
        try:
            return texts_alone(self.handler, self.outputs)(**values, **dict.fromkeys(self.asking, request))
        except Exception as error:  # noqa: BLE001 (the other texts are drawn all the same)
            LOG.error("A text couldn't be drawn in another language.", exc_info=error)
            return {}


def redraw(
    page: Any,
    handler: Callable[..., Any],
    inputs: Sequence[Any] | Mapping[str, Any] | None,
    outputs: Sequence[Any],
    needs: rights.Action = "look",
) -> None:
    """When the language is switched, let a handler that draws these outputs give them its texts.

    What was typed, chosen, opened or hidden stays, whatever else the handler returns; for a visitor who may not what it
    `needs`, all does. Labels are Gradio's to translate.
    """
    page.redraws.append(Redraw(rights.guarded(handler, needs), inputs or [], outputs))


def redraw_all(page: Any, keys: Mapping[Any, str]) -> None:
    """Wire what is drawn anew as one event, whose texts all come at once, with the names of these keys; only then does Gradio
    translate its labels.

    As an event each they came over seconds on a busy machine, in two languages meanwhile.
    """
    redraws = page.redraws
    inputs = list(dict.fromkeys(part for each in redraws for part in each.parts.values()))
    outputs = list(dict.fromkeys(part for each in redraws for part in each.outputs))

    def draw_all(request: gr.Request, *values: Any) -> dict[Any, Any]:
        held, lang = dict(zip(inputs, values, strict=True)), language(request)
        drawn: dict[Any, Any] = {
            part: gr.update(**{"label" if isinstance(part, gr.Tab) else "value": say(lang, key)})
            for part, key in keys.items()
        }
        for each in redraws:
            for part, text in each.texts(held, request).items():
                if text != gr.skip() or part not in drawn:
                    drawn[part] = text
        return drawn

    drawn = wire(page.language_switched, draw_all, inputs, list(dict.fromkeys([*outputs, *keys])))
    wire(drawn.then, None, None, None, js="() => { window.sftdemo.spoken(); return []; }")


def named(blocks: Any) -> dict[Any, str]:
    """The keys of the names of tabs, of which Gradio translates those that have been opened, and of buttons, of which it
    translates those in sight; not of buttons whose name says what is the case."""
    parts = blocks.blocks.values()
    keys = {part: part.label.key for part in parts if isinstance(part, gr.Tab)}
    for part in parts:
        if isinstance(part, gr.Button) and part.value.startswith(TRANSLATED) and part.elem_id not in STATED:
            keys[part] = json.loads(part.value.removeprefix(TRANSLATED))["key"]
    return keys


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
