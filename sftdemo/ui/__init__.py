"""The web app: the page is put together here, and served."""

from __future__ import annotations

import os
import threading
from typing import Any

from sftdemo import log
from sftdemo.runs import home

MOST_UPLOADED = "200mb"


def build() -> Any:
    """The whole page as gr.Blocks; nothing heavy is imported and nothing is read from disk yet."""
    import gradio as gr

    from sftdemo.ui import api
    from sftdemo.ui.parts.page import TICK_S, Header, Page
    from sftdemo.ui.tabs import ballot
    from sftdemo.ui.tabs.chat import ChatTab
    from sftdemo.ui.tabs.data import DataTab
    from sftdemo.ui.tabs.evaluate import EvaluateTab
    from sftdemo.ui.tabs.rate import RatePage
    from sftdemo.ui.tabs.runs import RunsTab
    from sftdemo.ui.tabs.train import TrainTab
    from sftdemo.ui.tabs.vote import VoteTab
    from sftdemo.ui.texts import label

    with gr.Blocks(title="sftdemo", analytics_enabled=False) as blocks:
        api.build()  # first, so that the public names are free
        timer = gr.Timer(TICK_S, active=False)
        page = Page(blocks, run=gr.State(None), data=gr.State({}), timer=timer)
        parts: list[Any] = [Header(page)]
        with gr.Tabs(selected="data", elem_id="steps", overflow_behavior="wrap") as page.tabs:
            with gr.Tab(label("step_data"), id="data"):
                parts.append(DataTab(page))
            with gr.Tab(label("step_train"), id="train"):
                parts.append(train := TrainTab(page))
            with gr.Tab(label("step_evaluate"), id="evaluate") as evaluate:
                parts.append(EvaluateTab(page, evaluate, train.evaluate))
            with gr.Tab(label("step_chat"), id="chat") as chat:
                parts.append(ChatTab(page, chat))
            with gr.Tab(label("step_vote"), id="vote") as vote:
                parts.append(VoteTab(page, vote))
            with gr.Tab(label("step_runs"), id="runs", alignment="right") as runs:
                parts.append(RunsTab(page, runs))
        for part in parts:
            part.wire()
    with blocks.route("Vote", ballot.RATE_PATH, show_in_navbar=False):
        RatePage(blocks).wire()
    return blocks


def launch(host: str | None = None, port: int | None = None, **options: Any) -> Any:
    """Serve the app; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT count where no argument is given.

    Only this machine can reach it, unless a host says otherwise or it runs on a Space. `options` go to Gradio's launch.
    """
    os.environ.setdefault("GRADIO_TEMP_DIR", str(home() / "tmp"))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from sftdemo.ui import startup

    startup.quicken_gradio()
    from starlette.middleware import Middleware

    from sftdemo.ui.early import EarlyScript
    from sftdemo.ui.parts import downloads, style
    from sftdemo.ui.texts import i18n

    log.show(log.FOR_OPERATORS)
    exports = downloads.folder().resolve()
    exports.mkdir(parents=True, exist_ok=True)
    blocks = build()
    blocks.api_open = False  # as queue(api_open=False) does, which would make all the routes once more
    usual_host = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    threading.Thread(target=startup.warm, name="warm", daemon=True).start()
    return blocks.launch(
        server_name=host or os.environ.get("GRADIO_SERVER_NAME") or usual_host,
        server_port=port or int(os.environ.get("GRADIO_SERVER_PORT") or 7860),
        theme=style.theme(),
        css_paths=[style.CSS_PATH],
        app_kwargs={"middleware": [Middleware(startup.Calm), Middleware(EarlyScript, script=style.HEAD)]},
        i18n=i18n(),
        allowed_paths=[str(exports)],
        max_file_size=MOST_UPLOADED,
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        **options,
    )
