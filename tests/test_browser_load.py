"""The page in Chromium as it loads: nothing jumps, every locale's Chinese is found, and axe-core finds nothing serious."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NEEDS_CHROMIUM, SLOW_MS, TABS, expect, go, new_page, open_settings, settled
from tests.test_ui import add_evaluation, made_run

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python isn't installed")
pytestmark = NEEDS_CHROMIUM

MOST_SHIFT = 0.05
SHIFT_JS = """() => new Promise((resolve) => {
  let total = 0;
  const add = (list) => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) total += entry.value; };
  new PerformanceObserver(add).observe({type: "layout-shift", buffered: true});
  setTimeout(() => resolve(total), 500);  // the entries so far come with the first callback
})"""


def serious(page: Any) -> list[str]:
    violations = axe.Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:120]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical") or violation["id"] == "page-has-heading-one"
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize(
    ("width", "scheme", "locale", "first"),
    [(1280, "light", "en-US", "1 Data"), (390, "dark", "zh-HK", "1 数据")],
)
def test_nothing_jumps_and_nobody_is_shut_out(
    app_home: Path,
    url: str,
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    scheme: str,
    locale: str,
    first: str,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    if width == 1280:
        add_evaluation(made_run("first"))
    page = open_page(width, color_scheme=scheme, locale=locale)
    expect(page.locator("html")).to_have_class("arrived ready", timeout=SLOW_MS)
    expect(page.locator("#to-train")).to_be_visible(timeout=SLOW_MS)
    assert page.evaluate(SHIFT_JS) < MOST_SHIFT
    expect(page.locator("#steps button[role=tab]").first).to_have_text(first)
    for tab in TABS:
        go(page, tab)
        expect(page.locator(f"#tab-{tab}")).to_be_visible()
        assert serious(page) == [], tab
    page.goto(f"{url}rate?run=first")
    expect(page.locator("#vote-view")).to_be_visible(timeout=SLOW_MS)
    assert serious(page) == []


def test_the_plan_is_asked_for_once_of_all_that_changes_at_once(app_home: Path, url: str, browser: Any) -> None:
    """A page that opens puts a dozen settings in place; each typed one asks anew."""
    page = new_page(browser)
    asked: list[int] = []
    page.on("request", lambda sent: asked.append(sent.post_data_json["fn_index"]) if "queue/join" in sent.url else None)
    page.goto(url)
    page.wait_for_selector("#verdict")
    settled(page)
    names = {each["id"]: each["api_name"] for each in page.evaluate("window.gradio_config.dependencies")}
    assert [names[number] for number in asked].count("follow_form") <= 2, "the fields, and the data"
    open_settings(page)
    asked.clear()
    page.locator("#TrainConfig-epochs input").fill("7")
    expect(page.locator("#train-command")).to_contain_text("--epochs 7", timeout=SLOW_MS)
    settled(page)
    assert [names[number] for number in asked] == ["follow_form"]
    page.context.close()
