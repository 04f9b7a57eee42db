"""The table of outputs in Chromium: sorted, filtered by mark, label and text, turned over, and a row opened."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftdemo import files
from sftdemo.evaluation.scorecard import score_outputs
from tests.browser import NEEDS_CHROMIUM, SLOW_MS, choose, expect, go
from tests.test_ui import made_run

pytestmark = NEEDS_CHROMIUM
ROWS = 120  # three pages; every third row is lost by the tuned model, the others won


@pytest.fixture
def page(
    app_home: Path,
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Any:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    run = made_run(request.node.name[:40])
    rows = []
    for number in range(ROWS):
        label, lost = ("ham", "spam")[number % 2], number % 3 == 0
        right, wrong = label, "no idea " + "nice" * 40
        sides = {"base": right, "tuned": wrong} if lost else {"base": wrong, "tuned": right}
        ask = [{"role": "user", "content": f"Mail number {number}."}]
        rows.append({"row": number, "task": None, "messages": ask, "references": [label], "label": label, **sides})
    folder = run.path / "evaluations" / "one"
    files.write_jsonl(folder / "outputs.jsonl", rows)
    scores = score_outputs(rows, ["ham", "spam"], 0) | {"outputs": str(folder / "outputs.jsonl"), "seconds": 1.0}
    files.write_json(folder / "scores.json", scores)
    found = open_page()
    go(found, "evaluate")
    expect(found.locator("#outputs tbody tr")).to_have_count(50, timeout=SLOW_MS)
    return found


def test_rows_are_turned_over_sorted_filtered_searched_and_opened(page: Any) -> None:
    table, place = page.locator("#outputs tbody"), page.locator("#outputs-place")
    first = table.locator("tr").first
    expect(first).to_contain_text("Mail number 0.")
    page.click("#outputs-next")
    expect(first).to_contain_text("Mail number 50.", timeout=SLOW_MS)
    page.click("#outputs-next")
    expect(table.locator("tr")).to_have_count(20, timeout=SLOW_MS)
    expect(place).to_contain_text("page 3 of 3")
    expect(page.locator("#outputs-next")).to_be_disabled()
    page.locator("#outputs-sort input").click()
    page.get_by_role("option").filter(has_text=re.compile("regress", re.I)).first.click()
    expect(first.locator(".worse")).to_be_visible(timeout=SLOW_MS)
    expect(place).to_contain_text("page 1 of 3")

    expect(page.locator("#outputs-counts")).to_contain_text("80 better")
    expect(page.locator("#outputs-counts")).to_contain_text("40 worse")
    page.locator("#filter").get_by_text("Tuned is worse").click()
    expect(place).to_contain_text("40 rows", timeout=SLOW_MS)
    choose(page, "#outputs-label", "spam")
    expect(place).to_contain_text("20 rows", timeout=SLOW_MS)
    page.locator("#outputs-search textarea, #outputs-search input").first.fill("number 9.")
    page.keyboard.press("Enter")
    expect(table.locator("tr")).to_have_count(1, timeout=SLOW_MS)
    expect(table).to_contain_text("Mail number 9.")
    first.click()
    expect(page.locator("#opened-row")).to_contain_text("Row 10", timeout=SLOW_MS)
    expect(page.locator("#opened-row")).to_contain_text("no idea")
    wide = "() => ['scrollWidth', 'clientWidth'].map(of => document.querySelector('#outputs .scroll')[of])"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert len(set(page.evaluate(wide))) == 1, "a long word hides nothing, beside an open row or on a phone"


def test_the_report_is_saved_at_a_click_and_opens_from_disk(page: Any, browser: Any, tmp_path: Path) -> None:
    saved_at, requests = tmp_path / "report.html", []
    with page.expect_download(timeout=SLOW_MS) as saved:
        page.click("#evaluate-report")
    expect(page.get_by_label("Download report").locator("visible=true")).to_have_count(0)  # what carries the file
    assert saved.value.suggested_filename.endswith(".html")
    saved.value.save_as(saved_at)
    report = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    report.on("request", lambda request: requests.append(request.url))
    report.goto(saved_at.as_uri())
    expect(report.locator("#claim")).to_be_visible()
    assert requests == [saved_at.as_uri()], "nothing is fetched"
    assert report.evaluate("document.documentElement.scrollWidth") == 390
    dark = report.evaluate("getComputedStyle(document.body).backgroundColor")
    folded = report.locator("details table").last
    expect(folded).not_to_be_visible()
    report.emulate_media(media="print", color_scheme="dark")
    expect(folded).to_be_visible()
    assert report.evaluate("getComputedStyle(document.body).backgroundColor") != dark, "paper is white"
    report.close()
