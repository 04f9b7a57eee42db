"""What models and visitors write is drawn as text in Chromium: nothing of it is run, drawn as HTML, or fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo.errors import UserError
from sftdemo.ui.parts import html, style
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.chat import ChatTab
from sftdemo.ui.tabs.conversation import BASE, Answer, Conversation, Turn
from sftdemo.ui.tabs.transcript import View
from tests.browser import CHROMIUM, NEEDS_CHROMIUM, QUIET, SLOW_MS

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
pytestmark = NEEDS_CHROMIUM

AWAY = "http://evil.invalid"
TEXT = (
    f"<img src={AWAY}/a.png> ![b]({AWAY}/b.png) [c]({AWAY}/c) <form action={AWAY}/d><input name=e></form>"
    f"<script>document.title = 'run'</script> <iframe src={AWAY}/f></iframe> {AWAY}/g.png <b>bold</b> **bold** $x$\na < b && c\n&amp; d"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A page without the headers that would forbid to load what its texts name."""
    with gr.Blocks() as blocks:
        page = Page(blocks, run=gr.State(""), timer=gr.Timer(60, active=False))
        with gr.Tabs() as page.tabs, gr.Tab("x") as tab:
            chat = ChatTab(page, tab)
        drawn, fault = gr.HTML(elem_id="drawn"), gr.HTML(elem_id="fault")

        def show() -> Iterator[dict[Any, Any]]:
            answers = {name: Answer(f"<think>{TEXT}</think>{TEXT}", finish_reason="stop") for name in (BASE, "run")}
            turn = Turn(TEXT, asked={"run": f"asked {TEXT}"}, answers=answers, expected=TEXT)
            shown = chat.draw(Conversation([turn]), View([BASE, "run"], "en"))
            bubbles = html.bubbles([{"role": "user", "content": TEXT}])
            yield {chat.body: gr.update(visible=True), drawn: bubbles, **shown}
            raise UserError("There is no run {name!r}.", name=TEXT)

        wire(blocks.load, show, None, [chat.body, chat.past, chat.now, drawn], fault)
    _, url, _ = blocks.launch(
        server_name="127.0.0.1",
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        css_paths=[style.CSS_PATH],
    )
    yield url
    blocks.close()


def test_nothing_written_is_run_drawn_or_fetched(url: str) -> None:
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.locator(".toast-body").first.wait_for(timeout=SLOW_MS)
        page.locator("#chat-now .answer").nth(1).wait_for(timeout=SLOW_MS)
        places = ("#chat-now", "#drawn", "#fault", ".toast-body")
        for place in places:
            sync_api.expect(page.locator(place).first).to_contain_text(f"<img src={AWAY}/a.png>")
            shown = page.locator(place).first.inner_text()
            assert "</iframe>" in shown, f"{place} shows the text"
            assert "a < b && c\n&amp; d" in shown or place != "#chat-now", "also its lines"
            for element in ("form", "iframe", "script", "b", "strong", f"img[src*='{AWAY}']", f"a[href*='{AWAY}']"):
                assert page.locator(f"{place} {element}:not(label b)").count() == 0, f"{element} in {place}"
        assert "run" not in page.title()
        browser.close()
    assert not [address for address in asked if "evil.invalid" in address]
