"""Connections that end: who asks for nothing, or reads nothing of what it asked for, holds one for a minute or two, not for good."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 60.0  # until a request's headers are there, from the connection's begin or the end of the last reply
UNREAD_S = 120.0  # until some of what was sent is read; a page that reads its stream does so at once


class Connection(H11Protocol):
    """A connection of uvicorn's, which ends one alone that is silent between two requests; a byte now and then is no request."""

    waiting: asyncio.TimerHandle | None = None
    unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.wait()

    def wait(self) -> None:
        if self.waiting:
            self.waiting.cancel()
        self.waiting = self.loop.call_later(REQUEST_S, self.end_unless_asked)

    def end_unless_asked(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def on_response_complete(self) -> None:
        self.wait()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle and not self.cycle.response_complete:  # it would reply after this reply, and break
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # there was a reply, or half of one
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.unread:
            self.unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.waiting, self.unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)
