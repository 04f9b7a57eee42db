"""Before the page and behind it: Gradio without its editor stubs; then libraries and models, in calm moments."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from sftdemo.log import LOG

CALM_S = 1.0  # without a request: the page has all it asked for
LONGEST_WAIT_S = 10.0  # somebody may ask all the time


class WithoutStubs(SourceFileLoader):
    """Imports Gradio's component classes without writing a .pyi file for each, which takes half of Gradio's import.

    It does so at every start, into its own package and for editors only.
    """

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == "gradio.component_meta" else None
        if spec and spec.origin:
            spec.loader = cls(fullname, spec.origin)
        return spec

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__dict__["create_or_modify_pyi"] = lambda *_: None


def quicken_gradio() -> None:
    """Make the first import of Gradio in this process cheaper."""
    sys.meta_path.insert(0, WithoutStubs)


class Calm:
    """ASGI middleware that keeps when the last request came."""

    first = threading.Event()
    last = 0.0

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        Calm.last = time.monotonic()
        Calm.first.set()
        await self.app(scope, receive, send)

    @classmethod
    def wait(cls) -> None:
        """Return when the app is up and nobody has asked for anything for a while, or asks all the time."""
        cls.first.wait()
        deadline = time.monotonic() + LONGEST_WAIT_S
        while (now := time.monotonic()) < min(cls.last + CALM_S, deadline):
            time.sleep(min(cls.last + CALM_S, deadline) - now)


def warm() -> None:
    """Get ready what the first click will need; a visitor who comes meanwhile is served between two pieces."""
    try:
        from sftdemo.ui import chosen_data, work

        for name in work.LIBRARIES:
            Calm.wait()
            work.load_libraries([name])
        Calm.wait()
        chosen_data.warm()
        Calm.wait()
        work.preload(work.newest_ready())
    except Exception:  # noqa: BLE001 (what is really wrong is said when it is used)
        LOG.exception("Getting ready failed")
