"""The web app as it is served: the page put together, our script at its start, and what is warmed in calm moments."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType, SimpleNamespace
from typing import Any

from sftdemo import log
from sftdemo.log import LOG
from sftdemo.runs import home
from sftdemo.system import hub, zero_gpu
from sftdemo.system.compute import YIELDING_THREADS
from sftdemo.ui.access.settings import AppConfig
from sftdemo.verbs import jobs

MOST_UPLOADED = "200mb"
CALM_S = 1.0  # without a request: the page has all it asked for
LONGEST_WAIT_S = 10.0  # somebody may ask all the time

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def build() -> Any:
    """The whole page as gr.Blocks; nothing heavy is imported and nothing is read from disk yet."""
    import gradio as gr

    from sftdemo.ui import api
    from sftdemo.ui.blocks import Blocks
    from sftdemo.ui.parts.page import TICK_S, Header, Page
    from sftdemo.ui.parts.redraw import named, redraw_all
    from sftdemo.ui.tabs.chat import ChatTab
    from sftdemo.ui.tabs.clone import Clone
    from sftdemo.ui.tabs.data import DataTab
    from sftdemo.ui.tabs.evaluate import EvaluateTab
    from sftdemo.ui.tabs.invitation import RATE_PATH
    from sftdemo.ui.tabs.rate import RatePage
    from sftdemo.ui.tabs.row_leads import RowLeads
    from sftdemo.ui.tabs.runs import RunsTab
    from sftdemo.ui.tabs.train import TrainTab
    from sftdemo.ui.tabs.vote import VoteTab
    from sftdemo.ui.texts import label

    with Blocks(title="sftdemo", analytics_enabled=False) as blocks:
        api.build()  # first, so that the public names are free
        timer = gr.Timer(TICK_S, active=False)
        page = Page(blocks, run=gr.State(None), picked=gr.State(""), data=gr.State({}), timer=timer)
        parts: list[Any] = [Header(page)]
        with gr.Tabs(selected="data", elem_id="steps", overflow_behavior="wrap") as page.tabs:
            with gr.Tab(label("step_data"), id="data", elem_id="tab-data"):
                parts.append(data := DataTab(page))
            with gr.Tab(label("step_train"), id="train", elem_id="tab-train"):
                parts.append(train := TrainTab(page))
            with gr.Tab(label("step_evaluate"), id="evaluate", elem_id="tab-evaluate") as evaluate:
                parts.append(judge := EvaluateTab(page, evaluate, train.evaluate, train.watched))
            with gr.Tab(label("step_chat"), id="chat", elem_id="tab-chat") as chat:
                parts.append(talk := ChatTab(page, chat))
            with gr.Tab(label("step_vote"), id="vote", elem_id="tab-vote") as vote:
                parts.append(VoteTab(page, vote))
            with gr.Tab(label("step_runs"), id="runs", elem_id="tab-runs", alignment="right") as runs:
                parts.append(listed := RunsTab(page, runs))
        parts.append(Clone(page, data, train, listed))
        parts.append(RowLeads(page, data, judge.outputs, talk))
        for part in parts:
            part.wire()
        redraw_all(page, named(blocks))
    with blocks.route("Vote", RATE_PATH, show_in_navbar=False):
        RatePage(blocks).wire()
    return blocks


def launch(host: str | None = None, port: int | None = None, config: AppConfig | None = None, **options: Any) -> Any:
    """Serve the app; what isn't given is taken from the environment (SFTDEMO_…, GRADIO_SERVER_NAME, GRADIO_SERVER_PORT).

    Only this machine can reach it, unless a host says otherwise or it runs on a Space. `options` go to Gradio's launch.
    Raises UsageError where others could reach it and nobody could sign in as its owner.
    """
    from sftdemo.ui.access import rights
    from sftdemo.ui.hosting import shutdown, storage

    config = config or AppConfig.from_environment()
    usual_host = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    bound = host or config.host or os.environ.get("GRADIO_SERVER_NAME") or usual_host
    rights.check_owner_can_sign_in(config, bound)
    storage.use_volume()
    os.environ.setdefault("GRADIO_TEMP_DIR", str(home() / "tmp"))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    for name, value in YIELDING_THREADS.items():
        os.environ.setdefault(name, value)
    quicken_gradio()
    from sftdemo.ui import bounds, downloads
    from sftdemo.ui.access import allowance
    from sftdemo.ui.parts import style
    from sftdemo.ui.texts import i18n

    log.show(log.FOR_OPERATORS)
    if zero_gpu.is_here():  # its package looks for functions with GPU calls before the app is served
        importlib.import_module("sftdemo.inference.gpu_answers")
    rights.use(config, bound)
    hub.tell_owner(lambda: rights.current().owner)
    exports = downloads.folder().resolve()
    exports.mkdir(parents=True, exist_ok=True)
    # First of all it brings back what this home has lost.
    keeper = (
        importlib.import_module("sftdemo.ui.hosting.hub_backup").start(config.backup_repo)
        if config.backup_repo
        else None
    )
    blocks = build()
    allowance.limit_waiting(blocks._queue)
    blocks.api_open = False  # as queue(api_open=False) does, which would make all the routes once more
    start_background_work(config)
    blocking = threading.current_thread() is threading.main_thread() and not options.get("prevent_thread_lock")
    with shutdown.saving(*([keeper.finish] if keeper else [])) if blocking else contextlib.nullcontext():
        return blocks.launch(
            server_name=bound,
            server_port=port or config.port or int(os.environ.get("GRADIO_SERVER_PORT") or 7860),
            theme=style.theme(),
            css_paths=[style.CSS_PATH],
            app_kwargs=app_options(blocks),
            i18n=i18n(),
            allowed_paths=[str(exports)],
            max_file_size=MOST_UPLOADED,
            footer_links=["api", "settings"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            **bounds.keep(blocks),
            **options,
        )


def start_background_work(config: AppConfig) -> None:
    """What the app does beside serving, each in a thread of its own."""
    from sftdemo.ui.access import rights, uploads
    from sftdemo.ui.tabs import chat_store

    work = {"warm": warm, "uploads": uploads.sweep_forever, "chats": chat_store.sweep_forever}
    if config.resume:
        work["resume"] = jobs.resume_cut_off
    for name, target in work.items():
        threading.Thread(target=rights.for_owner()(target), name=name, daemon=True).start()


def app_options(blocks: Any) -> dict[str, Any]:
    """Our routes and middleware, for Gradio's app; its own CORS goes."""
    import gradio.http_server
    import gradio.networking
    import gradio.route_utils
    import gradio.routes
    import uvicorn
    from fastapi.exceptions import RequestValidationError
    from starlette.middleware import Middleware

    from sftdemo.ui import bounds, openai_api
    from sftdemo.ui.access import connections, guard, rights, sign_in, uploads
    from sftdemo.ui.hosting import monitoring
    from sftdemo.ui.parts import style
    from sftdemo.ui.served_page import ServedPage
    from sftdemo.ui.tabs import shared_chat

    # Asked once Gradio's own first request has come through; it gives up after 3 s, and a busy machine would have no app.
    gradio.networking.url_ok = lambda url: True
    gradio.routes.upload_fn = uploads.kept_apart(gradio.route_utils.upload_fn)
    gradio.route_utils.get_fn = bounds.find_function
    served = partial(uvicorn.Config, http=connections.Connection, proxy_headers=False)  # whose word counts, Hosts says
    gradio.http_server.uvicorn = SimpleNamespace(Config=served)  # type: ignore[assignment]
    gradio.routes.CustomCORSMiddleware = guard.WithoutCors  # type: ignore[assignment,misc]
    middleware = [Middleware(guard.Guard), Middleware(Calm), Middleware(ServedPage, script=style.HEAD)]
    routes = [*monitoring.routes(blocks), *sign_in.ROUTES, *shared_chat.ROUTES]
    if rights.policy().config.openai:
        routes += openai_api.ROUTES
    handlers = {RequestValidationError: guard.misfit}
    return {"middleware": middleware, "routes": routes, "openapi_url": None, "exception_handlers": handlers}


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

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
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
        from sftdemo.ui import chosen_data, models

        for name in models.LIBRARIES:
            Calm.wait()
            models.load_libraries([name])
        Calm.wait()
        chosen_data.warm()
        Calm.wait()
        models.preload(models.newest_ready())
    except Exception:  # noqa: BLE001 (what is really wrong is said when it is used)
        LOG.exception("Getting ready failed")
