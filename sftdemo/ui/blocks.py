"""The page as Gradio runs it: whether a visitor may do something, and what was sent, are looked at before anything else."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, zip_longest
from types import SimpleNamespace
from typing import Any

import gradio as gr
import gradio.blocks
from gradio.exceptions import ComponentProcessingError
from gradio.utils import deep_hash, get_type_hints

from sftdemo.errors import Text, UserError, unexpected
from sftdemo.log import LOG
from sftdemo.ui import handlers
from sftdemo.ui.access import payload, rights, sessions
from sftdemo.ui.texts import language, say
from sftdemo.ui.texts.faults import in_words


class Blocks(gr.Blocks):  # type: ignore[misc]
    """gr.Blocks whose events refuse whom they must, by queue or direct, and say in one line what they can't take."""

    def __exit__(self, *exception: Any) -> None:
        with _served_later():
            super().__exit__(*exception)

    def get_config_file(self) -> Any:
        return super().get_config_file() if self.exited else {}  # what is asked for sooner is thrown away

    def queue(self, *arguments: Any, **named: Any) -> Blocks:
        with _served_later():
            super().queue(*arguments, **named)
        self._queue.push = sessions.joined(self._queue.push)
        # After each event Gradio would sum up the last 10,000, with pandas, for a dashboard that is off here.
        self._queue.ANAYLTICS_CACHE_FREQUENCY, self._queue.ANALYTICS_MAX_EVENTS = sys.maxsize, 1
        return self

    async def process_api(self, block_fn: Any, inputs: list[Any], *arguments: Any, **named: Any) -> Any:
        event = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        request = named.get("request")
        if isinstance(request, list):  # as Gradio makes it of an event that says it is several
            named["request"] = request = request[0]
        try:
            rights.require(request, getattr(event.fn, "needs", "look"))  # what has none is a component's own
            if named.get("iterator") is None:  # at the first of an event's updates
                self._check_sent(event, inputs, request, named.get("event_data"))
        except UserError as error:
            raise _told(error, request) from None
        try:
            return await super().process_api(block_fn, inputs, *arguments, **named)
        except gr.Error:
            raise
        except Unfit as error:
            raise _told(error, request) from None
        except Exception as error:  # noqa: BLE001 (what a component can't show, which Gradio would tell without a word)
            LOG.warning("What an event came to can't be shown.", exc_info=error)
            misfit = isinstance(error, ComponentProcessingError)  # it came in as odd as it comes out
            said = payload.MISFIT if misfit else unexpected(error, private=True)
            raise _told(said, request) from None

    @functools.cached_property
    def _followed(self) -> set[int]:
        """The components whose changes are events."""
        return {target for event in self.fns.values() for target, kind in event.targets if kind == "change"}

    def get_state_ids_to_track(self, block_fn: Any, state: Any) -> tuple[list[int], list[Any]]:
        """As Gradio's, which looks through all events for each state at each update."""
        if state is None:
            return [], []
        followed = [part._id for part in block_fn.outputs if part.stateful and part._id in self._followed]
        return followed, [deep_hash(state[key]) for key in followed]

    async def call_function(self, *arguments: Any, **named: Any) -> Any:
        """As Gradio's. A handler with one thing to show is a generator only so that a fault is shown before its toast; it isn't
        called again to hear that it has ended, with all that Gradio does around a call."""
        result = await super().call_function(*arguments, **named)
        if isinstance(result["prediction"], handlers.Final):
            await result["iterator"].aclose()
            result |= {"is_generating": False, "iterator": None}
        return result

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> Any:
        # Nothing to change; where there is one output, Gradio would take the empty dict for its value.
        nothing = isinstance(predictions, dict) and not predictions
        return await super().postprocess_data(block_fn, gr.skip() if nothing else predictions, state)

    def _check_sent(self, event: Any, inputs: list[Any], request: Any, event_data: Any) -> None:
        """Raise UserError for another visitor's session, and for values that no component may be given."""
        sender = rights.visitor(getattr(request, "request", None))
        if refused := sessions.refusal(getattr(request, "session_hash", None), sender):
            raise UserError(refused[1])
        picked = getattr(event_data, "_data", None)
        # Of a field that changed it is what the field holds, which nobody asks for.
        unread = picked is None or not _takes_event_data(event.fn)
        # Gradio says where there are too few inputs or too many.
        values = ((value, isinstance(part, gr.File)) for part, value in zip_longest(event.inputs, inputs))
        if not (unread or isinstance(picked, Mapping)) or not payload.are_fit(chain([(picked, False)], values), sender):
            raise UserError(payload.MISFIT)
        for part, value in zip(event.inputs, inputs, strict=False):
            # Browsers see to it themselves, and no more than that is kept of the field.
            if isinstance(part, gr.Textbox) and part.max_length and len(str(value)) > part.max_length:
                raise UserError("A text has more than {most} characters; send a shorter one.", most=part.max_length)

    async def preprocess_data(self, *arguments: Any, **named: Any) -> Any:
        try:
            return await super().preprocess_data(*arguments, **named)
        except gr.Error:  # as of a choice that there isn't; with what was sent, which the log has no use for
            raise Unfit(NOT_OFFERED) from None
        except Exception as error:  # noqa: BLE001 (each component has its own)
            LOG.info("An event was sent what it can't take: %s", type(error).__name__)
            raise Unfit(payload.MISFIT) from None


@contextmanager
def _served_later() -> Iterator[None]:
    """Leave out the web app with all its routes that Gradio makes after each step of building a page; launch makes the one
    that is served."""
    made, gradio.blocks.App = gradio.blocks.App, SimpleNamespace(create_app=lambda *_, **__: None)  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        gradio.blocks.App = made  # type: ignore[misc]


NOT_OFFERED = Text("What a field holds isn't offered any more; reload the page.")


class Unfit(UserError):
    """What was sent is nothing that a component of the page takes."""


def _told(said: str | UserError, request: Any) -> gr.Error:
    """The toast, in the language of who sent the event."""
    lang = language(request)
    return gr.Error(in_words(said, lang), title=say(lang, "toast_title"), print_exception=False)


def _takes_event_data(handler: Any) -> bool:
    """Whether a handler is told what was clicked on."""
    return any(isinstance(kind, type) and issubclass(kind, gr.EventData) for kind in get_type_hints(handler).values())
