"""Settings as form fields, made from where the settings are declared; and faults, said on the page and in a toast."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from sftdemo.config.settings import Settings, value_type
from sftdemo.errors import Superseded, Text, UserError, unexpected
from sftdemo.log import LOG
from sftdemo.ui import handlers
from sftdemo.ui.access import private, rights, sources
from sftdemo.ui.parts import html
from sftdemo.ui.texts import TEXTS, choices, help_key, label, language, say
from sftdemo.ui.texts.faults import in_words

# Questions wait in the engine's line, by its rules; more than it takes at once come through to be refused with its words.
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 128}
MODEL_CLICK: dict[str, Any] = {**MODEL_QUEUE, "trigger_mode": "once"}
EVALUATION_QUEUE: dict[str, Any] = {"concurrency_id": "evaluation", "concurrency_limit": 1}
# Resampling takes a core for a moment: one comparison at a time, whoever asks.
ONE_COMPARISON: dict[str, Any] = {"concurrency_id": "comparison", "concurrency_limit": 1}
EVALUATION_CLICK: dict[str, Any] = {**EVALUATION_QUEUE, "trigger_mode": "once"}


def groups(owner: type[Settings], leave_out: set[str], rare: bool) -> dict[str, list[dataclasses.Field[Any]]]:
    """The usual or the rare settings of a config class by their group, in the order they are declared."""
    by_group: dict[str, list[dataclasses.Field[Any]]] = {}
    for spec in dataclasses.fields(owner):  # type: ignore[arg-type]
        if spec.name not in leave_out and spec.metadata["rare"] == rare:
            by_group.setdefault(spec.metadata["group"], []).append(spec)
    return by_group


def field(owner: type[Settings], name: str, **options: Any) -> Any:
    """The component for one setting, with its name, help, default, bounds and choices."""
    spec = next(spec for spec in dataclasses.fields(owner) if spec.name == name)  # type: ignore[arg-type]
    kind, optional = value_type(spec, owner)
    meta = spec.metadata
    options = {"label": label(f"set_{name}"), "info": label(help_key(owner, name)), "value": spec.default} | options
    options.setdefault("elem_id", f"{owner.__name__}-{name}")
    if meta["choices"]:
        shown = ((choices.key(name, value), value) for value in meta["choices"])
        named = [(label(key) if key in TEXTS["en"] else value, value) for key, value in shown]
        return gr.Dropdown(choices=named, **options)
    if kind is bool:
        return gr.Checkbox(**options)
    # Gradio turns an empty number field into 0 as soon as it is shown, so numbers that may be empty are typed as text.
    if kind in (int, float) and not optional:
        whole = 0 if kind is int else None
        component = gr.Number(minimum=meta["low"], maximum=meta["high"], precision=whole, **options)
        # Gradio would say a broken bound in a toast alone; the config checks them all, and the page says it in its place.
        component.preprocess = lambda payload: payload
        return component
    return gr.Textbox(**{"max_lines": 1, **options})


def choice_field(owner: type[Settings], name: str, choices: list[tuple[str, str]], **options: Any) -> Any:
    """The component for a setting whose choices are known only while the app runs; other values may be typed."""
    texts = {"label": label(f"set_{name}"), "info": label(help_key(owner, name))}
    return gr.Dropdown(choices=choices, allow_custom_value=True, elem_id=f"{owner.__name__}-{name}", **texts, **options)


def settled(field: Any) -> list[Any]:
    """The events with which the user settles a field's value; the `input` event of a text carries the text before it."""
    return [field.submit, field.blur] if isinstance(field, gr.Textbox) else [field.input]


def settled_any(*fields: Any) -> Any:
    """The trigger of the user settling one of these fields."""
    return functools.partial(gr.on, [event for field in fields for event in settled(field)])


def as_number(text: str) -> float | str:
    """The number that was typed; what is none stays as it is, for the config to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def values(owner: type[Settings], fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the form's fields hold, as settings: an empty field is the setting's own default."""
    settings = {}
    for spec in dataclasses.fields(owner):  # type: ignore[arg-type]
        if spec.name not in fields:
            continue
        value = fields[spec.name]
        kind, _ = value_type(spec, owner)
        if isinstance(value, str):
            value = value.strip()
        if isinstance(value, str) and kind in (int, float):
            value = as_number(value)
        if value is None or value == "":
            value = spec.default
        elif kind is int and isinstance(value, float) and value.is_integer():  # NaN and infinity aren't
            value = int(value)
        elif kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        settings[spec.name] = value
    return settings


def config(owner: type[Settings], fields: Mapping[str, Any]) -> Any:
    """The checked config that the form describes; raises UsageError naming every problem.

    Raises UserError if it names data or a model that the visitor whose event is handled may not use.
    """
    checked = owner.from_json(values(owner, fields))
    sources.check(checked, rights.current())
    return checked


def toast(sentence: str) -> gr.Error:
    """The error that Gradio sends; it draws a toast as HTML, and texts of visitors and files are in it."""
    title = say(_asked_language(), "toast_title")
    return gr.Error(sentence.replace("&", "&amp;").replace("<", "&lt;"), title=title, print_exception=False)


def _asked_language() -> str:
    return language(LocalContext.request.get(None))


def foreseen(error: Exception) -> UserError | Text:
    """What the page says of an error; one that nobody foresaw goes to the log with its traceback."""
    if isinstance(error, UserError):
        return error
    LOG.error("An event of the page failed.", exc_info=error)
    return unexpected(error, private=True)


def explained(error: Exception) -> str:
    """One line on an error in the visitor's language."""
    return _sentence(foreseen(error))


def _sentence(said: UserError | Text) -> str:
    return private.shown(in_words(said, _asked_language()))


def fault(said: UserError | str | None) -> str:
    """What went wrong, in a box that can be read in either language; nothing for no fault."""
    return html.fault_in({lang: in_words(said, lang) for lang in TEXTS}) if said else ""


def shown_errors(handler: Callable[..., Any], place: Any) -> Callable[..., Any]:
    """Run a handler that returns or yields {component: value}; an error is said at `place` and in a toast.

    Success clears the place. A generator gives the page its text before the toast is raised.
    """

    @functools.wraps(handler)
    def safe(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        try:
            result: Any = handler(*arguments, **keywords)
            if not inspect.isgenerator(result):
                yield handlers.Final({place: "", **(result or {})})
                return
            update: Any
            for update in result:
                yield {place: "", **(update or {})}
        except Superseded:
            return
        except Exception as error:  # noqa: BLE001 (said on the page, and what nobody foresaw in the log)
            said = foreseen(error)
            yield {place: fault(said)}
            raise toast(_sentence(said)) from None

    @functools.wraps(handler)
    async def safe_async(*arguments: Any, **keywords: Any) -> AsyncIterator[Any]:
        kind = handlers.Final if inspect.iscoroutinefunction(handler) else dict
        try:
            async with aclosing(each_update(handler, *arguments, **keywords)) as updates:
                async for update in updates:
                    yield kind({place: "", **(update or {})})
        except Exception as error:  # noqa: BLE001 (as above)
            said = foreseen(error)
            yield {place: fault(said)}
            raise toast(_sentence(said)) from None

    return safe_async if inspect.isasyncgenfunction(handler) or inspect.iscoroutinefunction(handler) else safe


async def each_update(handler: Callable[..., Any], *arguments: Any, **keywords: Any) -> AsyncGenerator[Any, None]:
    """What a coroutine returns, or an asynchronous generator yields."""
    if inspect.iscoroutinefunction(handler):
        yield await handler(*arguments, **keywords)
        return
    async with aclosing(handler(*arguments, **keywords)) as updates:
        async for update in updates:
            yield update


@contextmanager
def gradio_errors() -> Iterator[None]:
    """An error is the one that Gradio sends to the page and to its clients."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (as in shown_errors)
        raise toast(explained(error)) from None


def as_error(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, with its errors said as Gradio sends them."""
    return handlers.inside(handler, gradio_errors)


def never_silent(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler; where a generator has nothing to say all stays as it is, while Gradio would empty all its outputs."""

    @functools.wraps(handler)
    def spoken(*arguments: Any, **named: Any) -> Iterator[Any]:
        silent = True
        with closing(handler(*arguments, **named)) as updates:
            for update in updates:
                silent = False
                yield update
        if silent:
            yield gr.skip()

    @functools.wraps(handler)
    async def spoken_async(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        silent = True
        async with aclosing(handler(*arguments, **named)) as updates:
            async for update in updates:
                silent = False
                yield update
        if silent:
            yield gr.skip()

    if inspect.isasyncgenfunction(handler):
        return spoken_async
    return spoken if inspect.isgeneratorfunction(handler) else handler


def wire(
    trigger: Callable[..., Any],
    handler: Callable[..., Any] | None,
    inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    outputs: Sequence[Any] | None = None,
    place: Any = None,
    needs: rights.Action = "look",
    **options: Any,
) -> Any:
    """Connect an event of the page: private, without Gradio's own veil, and with a place for faults.

    `needs` is what a visitor must be allowed to do for the handler to run. Inputs are components, or {parameter of the
    handler: component}. A click while the last one is still being worked on waits for its turn, instead of being lost.
    """
    options = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"} | options
    if "concurrency_id" not in options:
        options.setdefault("concurrency_limit", None)
    if options["show_progress"] == "hidden":
        # Else each event's status is told anew to every output that an event ever had, by a search of the whole page for each.
        options["show_progress_on"] = []
    outputs = list(outputs or [])
    if handler:
        handler = rights.guarded(handler, needs)
        handler = never_silent(as_error(handler) if place is None else shown_errors(handler, place))
        outputs += [] if place is None else [place]
    if isinstance(inputs, Mapping):
        return trigger(handler, None, outputs, inputs_kwargs=dict(inputs), **options)
    return trigger(handler, inputs, outputs, **options)
