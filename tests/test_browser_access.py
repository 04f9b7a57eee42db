"""The app at a public address in Chromium, as a visitor and as its owner; test_guard.py has the strangers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sftdemo.ui.access.settings import AppConfig
from tests.test_browser import SLOW_MS, browser, end, expect, pytestmark, serve  # noqa: F401
from tests.test_ui import add_evaluation, made_run

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


def shown_tabs(page: Any) -> list[str]:
    buttons = page.locator("#steps > .tab-wrapper button[role=tab]").all()
    return [button.get_attribute("id").removesuffix("-button") for button in buttons if button.is_visible()]


def test_a_visitor_sees_what_visitors_may_and_the_owner_signs_in_for_the_rest(browser: Any, url: str) -> None:  # noqa: F811
    page = browser.new_context().new_page()
    page.goto(url)
    expect(page.locator("a[href=login]")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator("#tab-chat-button")).to_have_attribute("aria-selected", "true", timeout=SLOW_MS)
    assert shown_tabs(page) == ["tab-evaluate", "tab-chat", "tab-vote", "tab-runs"]
    page.click("#tab-runs-button")
    page.click("#runs-table tr[data-pick]")
    expect(page.locator("#runs-evaluate")).to_be_visible(timeout=SLOW_MS)
    assert not page.locator("#runs-delete").is_visible() and "/home" not in page.inner_text("body")
    page.click("#tab-evaluate-button")
    expect(page.locator("#outputs tr[data-pick]").first).to_be_visible(timeout=SLOW_MS)
    assert not page.locator("#evaluate").is_visible()

    page.click("a[href=login]")
    page.fill("input[type=password]", PASSWORD)
    page.click("button")
    expect(page.locator("a[href=logout]")).to_be_visible(timeout=SLOW_MS)
    assert len(shown_tabs(page)) == 6
    expect(page.locator("#verdict")).to_be_visible(timeout=SLOW_MS)
    page.click("a[href=logout]")
    expect(page.locator("a[href=login]")).to_be_visible(timeout=SLOW_MS)
