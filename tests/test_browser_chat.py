"""Chat in Chromium, on a phone: both answers in sight above a low bar, kept through a reload, shared, edited; faults once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sftdemo import train
from sftdemo.config import TrainConfig
from tests.browser import NEEDS_CHROMIUM, expect, settled

pytestmark = NEEDS_CHROMIUM


BOTH_IN_SIGHT_JS = """() => {
  const bar = document.getElementById("chat-bottom").getBoundingClientRect();
  const boxes = [...document.querySelectorAll("#chat-now .answer")].map((answer) => answer.getBoundingClientRect());
  return bar.height <= innerHeight / 6 && boxes.length === 2 && boxes.every((box) => box.top >= 0 && box.bottom <= bar.top);
}"""


@contextmanager
def answers_late(page: Any) -> Iterator[None]:
    """What is asked of the server meanwhile reaches it only at the end."""
    held: list[Any] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    with page.expect_request("**/queue/join*"):
        yield
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")


def test_a_chat_on_a_phone(
    app_home: Path,
    url: str,
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tiny: str,
    labelled: str,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    train(TrainConfig(data=labelled, model=tiny, name="r", max_examples=16))
    page = open_page(390)
    page.goto(f"{url}?tab=chat&run=r")
    expect(page.locator("#chat-prompts [data-pick]").first).to_be_visible()
    settled(page)
    page.locator("#chat-prompts [data-pick]").first.click()
    page.click("#chat-send")
    answers, question = page.locator("#chat-now .answer"), page.locator("#chat-now .says")
    expect(answers.locator("[data-copy]")).to_have_count(2)
    expect(page.locator("#chat-now .expected")).to_be_visible()
    expect(page.locator("#chat-now .asked")).to_have_count(1)
    typed = question.inner_text()
    assert "Answer with the label only" not in typed
    page.wait_for_function(BOTH_IN_SIGHT_JS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    expect(page.locator("#chat-send")).to_be_disabled()
    box, fault = page.locator("#chat-input textarea"), page.locator("#chat-fault .fault")
    box.press("Enter")
    settled(page)
    expect(fault).to_contain_text("Type a question first")
    expect(page.locator(".toast-body:visible")).to_have_count(0)

    page.locator("#chat-kept button").first.click()
    page.click("#chat-keep")
    expect(page.locator("#kept-chats tr[data-pick]")).to_have_count(1)
    page.click("#kept-share")
    shared = page.context.new_page()
    shared.goto(page.locator("#kept-link .link").get_attribute("href"))
    expect(shared.locator(".turn .says")).to_have_text(typed)
    shared.close()

    page.locator("#chat-now [data-pick='edit:0']").click()
    expect(box).to_have_value(typed)
    page.click("#chat-edit-cancel")
    expect(box).to_have_value("")
    with answers_late(page):
        page.locator("#chat-now [data-pick='edit:0']").click()
        box.fill("<b>the film</b> was bad")
    expect(page.locator("#chat-edit-cancel")).to_be_visible()
    settled(page)
    expect(box).to_have_value("<b>the film</b> was bad")
    page.click("#chat-send")
    expect(question).to_have_text("<b>the film</b> was bad")
    expect(answers.locator("[data-copy]")).to_have_count(2)
    page.reload()
    expect(question).to_have_text("<b>the film</b> was bad")
    page.click("#chat-undo")
    expect(question).to_have_text(typed)
