"""The address in Chromium: tab, run and row are named there, Back leads back, a link opens them, typed text outlives a reload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NEEDS_CHROMIUM, SLOW_MS, expect, go, settled
from tests.test_ui import add_evaluation, made_run

pytestmark = NEEDS_CHROMIUM


def addressed(page: Any, part: str) -> None:
    page.wait_for_function("part => location.search.includes(part)", arg=part, timeout=SLOW_MS)


def test_the_address_leads_there_and_back(
    app_home: Path,
    url: str,
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    for name in ("first", "second"):
        add_evaluation(made_run(name))
    page = open_page()
    chip, row = page.locator("#run-chip"), page.locator("#opened-row")
    addressed(page, "run=second")
    go(page, "evaluate")
    page.locator("#outputs tr[data-pick]").nth(1).click()
    addressed(page, "answer=2")
    expect(row).to_contain_text("Row 2", timeout=SLOW_MS)
    link = page.url
    go(page, "runs")
    page.locator("#runs-table tr[data-pick]", has_text="first").click()
    addressed(page, "run=first")
    for _ in range(2):
        page.go_back()
        settled(page)
    expect(chip).to_contain_text("second", timeout=SLOW_MS)
    expect(row).to_contain_text("Row 2", timeout=SLOW_MS)
    page.goto(link)
    expect(row).to_contain_text("Row 2", timeout=SLOW_MS)
    go(page, "chat")
    page.fill("#chat-input textarea", "half a thought")
    page.locator("[data-do=lang]").click()
    for name in ("对话", "盲评"):  # the one that is open, and one that never was
        expect(page.locator("#steps > .tab-wrapper")).to_contain_text(name, timeout=SLOW_MS)
    expect(page.locator("#chat-input textarea")).to_have_value("half a thought", timeout=SLOW_MS)
    addressed(page, "tab=chat")
    addressed(page, "run=second")
    page.goto(f"{url}?run=nowhere")
    fault = page.locator("#work-fault")
    expect(fault).to_have_text("网址指定的运行 'nowhere' 不存在或还没有模型。", use_inner_text=True)
    page.locator("[data-do=lang]").click()
    english = "The address asks for run 'nowhere', and there is no model of that name."
    expect(fault).to_have_text(english, use_inner_text=True)
    (app_home / "runs" / "second" / "status.json").write_text('{"state": "failed", "error": "Out of luck."}')
    page.goto(f"{url}?tab=runs&run=second")
    expect(page.locator("#runs-info")).to_contain_text("Out of luck.", timeout=SLOW_MS)
    expect(fault).to_be_empty()
