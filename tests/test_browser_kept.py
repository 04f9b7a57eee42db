"""Nothing is lost in Chromium: upload, columns, settings and results outlive reloads, another language and a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import label_rows

from tests.browser import NEEDS_CHROMIUM, SLOW_MS, end, expect, free_port, go, new_page, open_settings, serve, settled

pytestmark = NEEDS_CHROMIUM


def load_again(page: Any, data: str) -> None:
    page.reload()
    is_back(page, data)


def is_back(page: Any, data: str) -> None:
    """The data that was chosen stands there, and the settings."""
    expect(page.locator("#chosen-data")).to_contain_text(data, timeout=SLOW_MS)
    expect(page.locator("#verdict")).to_contain_text("60 ", timeout=SLOW_MS)
    expect(page.locator("#plan")).to_contain_text("40 ", timeout=SLOW_MS)


def test_a_reload_at_every_step_loses_nothing(browser: Any, tiny: str, tmp_path: Path) -> None:
    home, port = tmp_path / "kept", free_port()
    file = tmp_path / "moods.csv"
    rows = [f"{row['text']},{row['label']}" for row in label_rows(60)]
    file.write_text("\n".join(["remark,mood", *rows]) + "\n", encoding="utf-8")
    url, app = serve(home, port)
    try:
        other = new_page(browser)
        other.goto(url)
        expect(other.locator("#verdict")).to_contain_text("ready", timeout=SLOW_MS)
        page = new_page(browser, locale="en-US")
        page.goto(url)
        expect(page.locator("#verdict")).to_contain_text("ready")
        settled(page)
        page.locator("#upload input[type=file]").set_input_files(str(file))
        expect(page.locator("#data-preview")).to_contain_text("remark", timeout=SLOW_MS)
        settled(page)  # what the upload hides and shows is drawn before the next click changes it
        page.click("#confirm-columns")
        expect(page.locator("#verdict")).to_contain_text("60 rows", timeout=SLOW_MS)
        page.locator("#data-model input").fill(tiny)
        page.locator("#data-model input").press("Enter")
        expect(page.locator("#template-checks")).to_contain_text("✓", timeout=SLOW_MS)
        open_settings(page)
        expect(page.locator("#train-command")).to_contain_text("--max-examples 600 --epochs 2.0", timeout=SLOW_MS)
        expect(page.locator("#train-command")).to_contain_text(f"--model {tiny}", timeout=SLOW_MS)
        page.locator("#TrainConfig-max_examples input, #TrainConfig-max_examples textarea").first.fill("40")
        expect(page.locator("#train-command")).to_contain_text("--max-examples 40", timeout=SLOW_MS)
        load_again(page, "moods.csv")
        page.click("[data-do=lang]")
        expect(page.locator("#tab-train-button")).to_contain_text("训练", timeout=SLOW_MS)
        expect(page.locator("#chosen-data")).to_contain_text("moods.csv", timeout=SLOW_MS)
        where = page.url
        page.goto("about:blank")  # Gradio loads its page again by itself once the app is back
        end(app)
        url, app = serve(home, port)
        page.goto(where)
        is_back(page, "moods.csv")
        expect(page.locator("#plan")).to_contain_text(tiny, timeout=SLOW_MS)

        expect(page.locator("#fine-tune")).to_be_enabled(timeout=SLOW_MS)
        page.click("#fine-tune")
        expect(page.locator("#train-view")).not_to_be_empty(timeout=SLOW_MS)
        load_again(page, "moods.csv")
        expect(page.locator("#train-done")).to_be_visible(timeout=SLOW_MS)
        expect(other.locator("#run-chip")).to_contain_text("No run", timeout=SLOW_MS)
        page.click("#to-evaluate")
        expect(page.locator("#evaluate-progress .big, #claim").first).to_be_visible(timeout=SLOW_MS)
        page.reload()
        expect(page.locator("#claim")).to_be_visible(timeout=SLOW_MS)
        go(page, "chat")
        page.fill("#chat-input textarea", "the film was good and nice")
        page.click("#chat-send")
        expect(page.locator("#chat-talk")).to_contain_text("the film was good and nice", timeout=SLOW_MS)
        expect(page.locator("#chat-send")).to_be_visible(timeout=SLOW_MS)
        settled(page)
        page.reload()
        expect(page.locator("#chat-talk")).to_contain_text("the film was good and nice", timeout=SLOW_MS)
        expect(page.locator("#run-chip")).to_contain_text("moods", timeout=SLOW_MS)
        expect(other.locator("#samples [aria-pressed=true]")).to_contain_text("support tickets", ignore_case=True)
    finally:
        end(app)
