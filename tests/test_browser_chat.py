"""Chat in Chromium, on a phone: both answers in sight above a low bar, kept through a reload, shared, edited; faults once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftdemo import train
from sftdemo.config import TrainConfig
from tests.test_browser import CHROMIUM, app_home, browser, open_page, sync_api, url  # noqa: F401

expect = sync_api.expect
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here"),
]


def test_a_chat_on_a_phone(
    app_home: Path,  # noqa: F811
    url: str,  # noqa: F811
    open_page: Callable[..., Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tiny: str,
    labelled: str,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    train(TrainConfig(data=labelled, model=tiny, name="r", max_examples=16))
    page = open_page(390)
    page.goto(f"{url}?tab=chat&run=r")
    page.locator("#chat-prompts [data-pick]").first.click()
    page.click("#chat-send")
    answers, question = page.locator("#chat-now .answer"), page.locator("#chat-now .says")
    expect(answers.locator("[data-copy]")).to_have_count(2)
    expect(page.locator("#chat-now .expected")).to_be_visible()
    typed = question.inner_text()
    assert "Answer with the label only" not in typed and page.locator("#chat-now .asked").count() == 1
    bar, height = page.locator("#chat-bottom").bounding_box(), page.viewport_size["height"]
    assert bar["height"] <= height / 6 and page.evaluate("document.documentElement.scrollWidth") <= 390
    for box in (answers.nth(0).bounding_box(), answers.nth(1).bounding_box()):
        assert box["y"] >= 0 and box["y"] + box["height"] <= bar["y"], "both in sight"

    expect(page.locator("#chat-send")).to_be_disabled()
    page.locator("#chat-input textarea").press("Enter")
    expect(page.locator("#chat-fault .fault")).to_contain_text("Type a question first")
    expect(page.locator(".toast-body:visible")).to_have_count(0)

    page.locator("#chat-kept button").first.click()
    page.click("#chat-keep")
    page.click("#kept-share")
    shared = page.context.new_page()
    shared.goto(page.locator("#kept-link .link").get_attribute("href"))
    expect(shared.locator(".turn .says")).to_have_text(typed)
    shared.close()

    page.locator("#chat-now [data-pick='edit:0']").click()
    page.locator("#chat-input textarea").fill("<b>the film</b> was bad")
    page.click("#chat-send")
    expect(question).to_have_text("<b>the film</b> was bad")
    expect(answers.locator("[data-copy]")).to_have_count(2)
    page.reload()
    expect(question).to_have_text("<b>the film</b> was bad")
    page.click("#chat-undo")
    expect(question).to_have_text(typed)
