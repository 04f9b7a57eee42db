"""The app at a public address in Chromium, as a visitor and as its owner; test_guard.py has the strangers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sftdemo.ui.access.settings import AppConfig
from tests.browser import NEEDS_CHROMIUM, SLOW_MS, end, expect, new_page, serve
from tests.test_ui import add_evaluation, made_run

pytestmark = NEEDS_CHROMIUM

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("public") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFTDEMO_HOME", str(home))
        add_evaluation(made_run("tickets"))
        patch.setenv("SFTDEMO_PASSWORD", PASSWORD)
        patch.setenv("SFTDEMO_HOST", "0.0.0.0")
        assert AppConfig.from_environment().host == "0.0.0.0"
        url, app = serve(home)
    yield url
    end(app)


def test_a_visitor_sees_what_visitors_may_and_the_owner_signs_in_for_the_rest(browser: Any, url: str) -> None:
    page = new_page(browser)
    tabs = page.locator("#steps > .tab-wrapper button[role=tab]:visible")
    page.goto(url)
    expect(page.locator("a[href=login]")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator("#tab-chat-button")).to_have_attribute("aria-selected", "true", timeout=SLOW_MS)
    expect(tabs).to_have_count(4)
    expect(tabs).to_contain_text(["Evaluate", "Chat", "Vote", "Runs"])
    page.click("#tab-runs-button")
    page.click("#runs-table tr[data-pick]")
    expect(page.locator("#runs-evaluate")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator("#runs-delete")).to_be_hidden()
    expect(page.locator("body")).not_to_contain_text("/home")
    page.click("#tab-evaluate-button")
    expect(page.locator("#outputs tr[data-pick]").first).to_be_visible(timeout=SLOW_MS)
    expect(page.locator("#evaluate")).to_be_hidden()

    page.click("a[href=login]")
    page.fill("input[type=password]", PASSWORD)
    page.click("button")
    expect(page.locator("a[href=logout]")).to_be_visible(timeout=SLOW_MS)
    expect(tabs).to_have_count(6)
    expect(page.locator("#verdict")).to_be_visible(timeout=SLOW_MS)
    page.click("a[href=logout]")
    expect(page.locator("a[href=login]")).to_be_visible(timeout=SLOW_MS)
