"""Own data in Chromium: odd column names, two faults and too few test rows, from a workbook, to a verdict in five clicks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NEEDS_CHROMIUM, SLOW_MS, expect, settled

pytestmark = NEEDS_CHROMIUM


def test_own_workbook_to_a_verdict_in_five_clicks(open_page: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    rows = [[f"guest {i} says it was", ("good", "bad")[i % 2], i] for i in range(200)]
    for row in (["Guest comment", "Verdict so far", "No"], *rows, ["fine, thanks", "Good", 1], ["nothing said", "", 2]):
        book.active.append(row)
    book.save(tmp_path / "guests.xlsx")
    page = open_page()
    page.locator("#data-model input").fill(tiny)
    page.locator("#data-model input").press("Enter")
    expect(page.locator("#template-checks")).to_contain_text("✓", timeout=SLOW_MS)
    upload = page.locator("#upload input[type=file]")
    upload.set_input_files({"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4"})
    expect(page.locator("#data-faults")).to_contain_text("'.pdf' can't be read", timeout=SLOW_MS)
    page.locator("#upload button[aria-label]").first.click()
    settled(page)
    upload.set_input_files(str(tmp_path / "guests.xlsx"))
    expect(page.locator("#data-preview")).to_contain_text("guest 0 says it was", timeout=SLOW_MS)
    clicks = ["#confirm-columns", "#repair-rows", "#hold-out", "#fine-tune", "#to-evaluate"]
    for click in clicks:
        page.locator(click).and_(page.locator(":enabled")).click(timeout=SLOW_MS)
    expect(page.locator("#claim")).to_contain_text("interval", timeout=SLOW_MS)
    expect(page.locator("#evaluate-claim")).to_contain_text("33 test rows")
