"""The Runs tab in Chromium: sort, name, delete and undo, compare, and save what was drawn; nothing is asked of another host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftdemo import runs
from sftdemo.ui.texts import say
from tests.browser import NEEDS_CHROMIUM, SLOW_MS, expect, settled
from tests.test_ui import add_evaluation, made_run

pytestmark = NEEDS_CHROMIUM


def test_runs_are_sorted_named_deleted_restored_and_compared(
    app_home: Path,
    url: str,
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    for name in ("alpha", "beta"):
        add_evaluation(made_run(name, lora_r=len(name)))
    page = open_page()
    requested: list[str] = []
    page.on("request", lambda sent: requested.append(sent.url))
    page.goto(f"{url}?tab=runs")
    rows = page.locator("#runs-table tr[data-pick]")
    expect(rows.first).to_contain_text("beta", timeout=SLOW_MS)
    page.locator("[data-pick='sort/run']").click()
    expect(rows.first).to_contain_text("alpha", timeout=SLOW_MS)
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Run")

    rows.first.click()
    settled(page)
    page.locator("#runs-notes button").first.click()
    settled(page)  # a field that opens takes what it was told while it was folded
    page.locator("#runs-name").locator("input, textarea").fill("Best <b>")
    page.locator("#runs-tags-text").locator("input, textarea").fill("good, 中文")
    page.click("#runs-save")
    expect(rows.first).to_contain_text("Best <b>", timeout=SLOW_MS)
    expect(page.locator("#run-chip")).to_contain_text("Best <b>", timeout=SLOW_MS)
    expect(page.locator("#runs-info")).to_contain_text("中文")

    page.set_viewport_size({"width": 390, "height": 500})
    page.dblclick("#runs-delete")
    expect(page.locator("#runs-undo")).to_be_in_viewport(timeout=SLOW_MS)
    expect(rows).to_have_count(1)
    page.click("#runs-undo")
    page.set_viewport_size({"width": 1280, "height": 900})
    expect(rows).to_have_count(2, timeout=SLOW_MS)
    assert runs.title(runs.named("alpha")) == "Best <b>"

    box = page.locator("#compare input")
    for name in ("Best", "beta"):
        box.click()
        box.fill(name)
        page.locator("[role=option]", has_text=name).first.click()
        settled(page)
    expect(page.locator("#compare-view .keys")).to_contain_text("B beta", timeout=SLOW_MS)
    expect(page.locator("#compare-measured")).to_contain_text(say("en", "set_lora_r"), timeout=SLOW_MS)
    expect(page.locator("#compare-answers")).to_contain_text("gave the same answers", timeout=SLOW_MS)
    page.locator("#compare-differing input").uncheck()
    expect(page.locator("#compare-answers")).to_contain_text("delivery", timeout=SLOW_MS)
    for kind, text in (("svg", "<svg"), ("csv", "run,step,loss")):
        with page.expect_download() as saved:
            page.locator(f"#compare-view a[download$='.{kind}']").click()
        assert text in Path(saved.value.path()).read_text(encoding="utf-8-sig")
    page.locator("#compare-curve").get_by_label("Learning rate").check()
    expect(page.locator("#compare-view")).to_contain_text("logged", timeout=SLOW_MS)
    assert not [sent for sent in requested if not sent.startswith((url, "data:", "blob:"))]
    page.reload()
    expect(page.locator("#compare-view .keys")).to_contain_text("B beta", timeout=SLOW_MS)
