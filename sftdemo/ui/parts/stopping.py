"""A Stop button: it ends the answers that its own browser session waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from sftdemo.ui.parts.forms import wire


class SessionStop:
    """The button, and by browser session the event that says stop while answers are made."""

    def __init__(self, button: Any) -> None:
        self.button = button
        self._events: dict[str, threading.Event] = {}

    @contextmanager
    def running(self, request: gr.Request) -> Iterator[threading.Event]:
        """The session's event for as long as its answers are made; it is set at the end, whatever the end was."""
        session, event = str(request.session_hash), threading.Event()
        self._events[session] = event
        try:
            yield event
        finally:
            event.set()
            if self._events.get(session) is event:
                del self._events[session]

    def ask(self, request: gr.Request) -> dict[Any, Any]:
        """The button was clicked."""
        self._set(request)
        return {self.button: gr.update(interactive=False)}

    def leave(self, request: gr.Request) -> None:
        """The page was closed: nobody waits for the answers."""
        self._set(request)

    def _set(self, request: gr.Request) -> None:
        if event := self._events.get(str(request.session_hash)):
            event.set()

    def wire(self) -> None:
        """Let a click stop. Leaving stops once `blocks.unload(self.leave)` is said, where there is one page only."""
        wire(self.button.click, self.ask, None, [self.button])
