"""The app in Chromium, as a newcomer meets it; with a tiny model, so that the whole walk takes a minute."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NEEDS_CHROMIUM, SLOW_MS, TABS, expect, fine_tune, go, open_settings, settled, vote
from tests.test_ui import made_run

pytestmark = NEEDS_CHROMIUM


def test_a_newcomer_finds_everything_chosen_and_what_must_wait_says_for_what(open_page: Callable[..., Any]) -> None:
    page = open_page()
    expect(page.locator("#samples [aria-pressed=true]")).to_contain_text("support tickets", ignore_case=True)
    expect(page.locator("#to-train")).to_be_enabled()
    page.click("#to-train")
    expect(page.locator("#plan")).to_contain_text("SmolLM2-135M")
    expect(page.locator("#plan .next")).to_be_hidden()
    expect(page.locator("#fine-tune")).to_be_enabled()
    for tab in ("evaluate", "chat", "vote"):
        go(page, tab)
        expect(page.locator(f"#{tab}-gate")).to_contain_text("No tuned model yet")
    page.locator("#vote-gate .go").click()
    expect(page.locator("#fine-tune")).to_be_visible()


def test_every_sample_can_be_looked_at(open_page: Callable[..., Any]) -> None:
    page = open_page()
    cards = page.locator("#samples [data-pick]")
    expect(cards.nth(4)).to_be_visible()
    for index in range(cards.count()):
        cards.nth(index).click()
        expect(cards.nth(index)).to_have_attribute("aria-pressed", "true", timeout=SLOW_MS)
        settled(page)
        expect(page.locator("#verdict")).to_contain_text("ready")


def test_a_faulty_file_is_explained_and_the_good_rows_kept(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    bad = tmp_path / "bad.jsonl"
    rows = [f'{{"text": "number {i} <b>bold</b>", "label": "{"ab"[i % 2]}"}}' for i in range(20)]
    bad.write_text("\n".join([*rows, '{"text": "no label"}', "not json"]) + "\n")
    page.locator("#upload input[type=file]").set_input_files(str(bad))
    expect(page.locator("#verdict")).to_contain_text("rows with problems: 2", timeout=SLOW_MS)
    expect(page.get_by_text("not json").or_(page.get_by_text("22", exact=True)).first).to_be_visible()
    expect(page.locator("#data-examples")).to_contain_text("<b>bold</b>")
    expect(page.locator("#data-examples b")).to_have_count(0)  # text from a file must not become HTML
    settled(page)
    expect(page.locator(".toast-body")).to_have_count(0)  # the sample's column split is gone, which is nobody's fault


def test_columns_are_mapped_and_faults_settled_on_the_page(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    odd = tmp_path / "odd.jsonl"
    rows = [f'{{"utt": "number {i} at me{i}@mail.example", "mood": "{"ab"[i % 2]}"}}' for i in range(30)]
    odd.write_text("\n".join([*rows, '{"utt": "no mood", "mood": ""}']) + "\n")
    page.locator("#upload input[type=file]").set_input_files(str(odd))
    expect(page.locator("#data-preview")).to_contain_text("number 0 at", timeout=SLOW_MS)
    page.locator("#data-columns button").first.click()
    page.click("#confirm-columns")
    expect(page.locator("#verdict")).to_contain_text("rows with problems: 1", timeout=SLOW_MS)
    expect(page.locator("#to-train")).to_be_disabled()
    expect(page.locator("#data-faults")).to_contain_text("The field is empty", timeout=SLOW_MS)
    page.click("#leave-out-rows")
    expect(page.locator("#verdict")).to_contain_text("30 rows, 2 labels, ready", timeout=SLOW_MS)
    page.locator("#data-choices button").first.click()
    page.locator("#clean").get_by_text("Personal data").click()
    expect(page.locator("#data-cleaning")).to_contain_text("<EMAIL>", timeout=SLOW_MS)
    # Half a placeholder is said on the page, and the preview follows once it is whole.
    asked = page.locator("#ReadConfig-instruction textarea")
    asked.fill("Which mood? {ut}")
    expect(page.locator("#data-fault")).to_contain_text("{ut}", timeout=SLOW_MS)
    asked.fill("Which mood? {utt}")
    expect(page.locator("#data-examples")).to_contain_text("Which mood? number 0 at <EMAIL>", timeout=SLOW_MS)
    expect(page.locator("#data-fault .fault")).to_have_count(0)
    open_settings(page)
    for part in ("--columns text=utt,label=mood", "--on-fault drop", "--clean personal", "Which mood? {utt}"):
        expect(page.locator("#train-command")).to_contain_text(part, timeout=SLOW_MS)


def test_any_row_is_seen_through_with_the_model_that_trains(open_page: Callable[..., Any], tiny: str) -> None:
    page = open_page()
    page.locator("#data-model input").fill(tiny)
    page.locator("#data-model input").press("Enter")
    expect(page.locator("#xray")).to_contain_text("X-ray of row 1", timeout=SLOW_MS)
    expect(page.locator("#template-checks")).to_contain_text("✓ the end of each answer is learned")
    page.locator("#xray-row input").fill("3")
    expect(page.locator("#xray")).to_contain_text("X-ray of row 3", timeout=SLOW_MS)
    expect(page.locator("#xray .sup").last).to_have_text("<|im_end|>")
    page.locator("#xray-settings button").first.click()
    page.locator("#data-max_length input").fill("20")
    expect(page.locator("#xray")).to_contain_text("isn't trained on", timeout=SLOW_MS)
    expect(page.locator("#data-statistics")).to_contain_text("354 are left out", timeout=SLOW_MS)
    open_settings(page)
    expect(page.locator("#train-command")).to_contain_text("--max-length 20", timeout=SLOW_MS)
    expect(page.locator("#train-command")).to_contain_text(tiny)
    page.locator("#TrainConfig-max_length input").fill("300")
    go(page, "data")
    expect(page.locator("#data-max_length input")).to_have_value("300", timeout=SLOW_MS)


def test_a_broken_bound_is_said_and_a_preset_counts_at_once(open_page: Callable[..., Any]) -> None:
    """Before the server has heard of it: whoever clicks on the button right after it trains as chosen."""
    page = open_page()
    open_settings(page)
    epochs = page.locator("#TrainConfig-epochs input")
    epochs.fill("-1")
    expect(page.locator("#train-fault")).to_contain_text("“Epochs” is -1", timeout=SLOW_MS)
    epochs.fill("2")
    expect(page.locator("#train-fault .fault")).to_have_count(0)
    rows = page.locator("#TrainConfig-max_examples textarea, #TrainConfig-max_examples input").first
    expect(rows).to_have_value("600")
    chosen = page.locator("#presets input:checked")
    expect(chosen).to_have_value("balanced")
    epochs.fill("7")
    expect(chosen, "what was set by hand is none of them").to_have_count(0)
    epochs.fill("2")
    expect(chosen).to_have_value("balanced")
    for place, value in ((2, ""), (1, "600"), (0, "150")):
        settled(page)
        page.context.set_offline(place == 0)
        page.locator("#presets input").nth(place).click()
        expect(rows).to_have_value(value)
        expect(page.locator("#presets input").nth(place)).to_be_checked()


def test_language_follows_the_browser(open_page: Callable[..., Any]) -> None:
    page = open_page(locale="zh-CN")
    expect(page.locator("#to-train")).to_have_text("下一步：训练")
    expect(page.locator("#verdict")).to_contain_text("可以训练")
    go(page, "train")
    expect(page.locator("#fine-tune")).to_have_text("开始微调")


def test_language_and_dark_can_be_chosen(open_page: Callable[..., Any]) -> None:
    page = open_page(locale="en-US", color_scheme="dark")
    expect(page.locator("#to-train")).to_have_text("Continue to training")
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.click("[data-do=theme]")
    expect(page.locator("body")).not_to_have_class(re.compile("dark"))
    page.click("[data-do=lang]")
    expect(page.locator("#to-train")).to_have_text("下一步：训练", timeout=SLOW_MS)
    expect(page.locator("#verdict")).to_contain_text("可以训练")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<span class=\"toast-title error\">Error</span>')")
    title = page.evaluate("getComputedStyle(document.querySelector('.toast-title'), '::before').content")
    assert title == '"没有成功"', "Gradio says Error in every language"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_screen_scrolls_sideways(open_page: Callable[..., Any], width: int) -> None:
    page = open_page(width)
    for tab in TABS:
        go(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        assert not re.search(r"\d\.\ds", page.locator(f"#tab-{tab}").aria_snapshot()), "Gradio's own seconds"


def test_the_whole_walk(open_page: Callable[..., Any], tiny: str, labelled: str, app_home: Path) -> None:
    page = open_page()
    fine_tune(page, tiny, labelled)
    expect(page.locator("#run-chip")).to_contain_text("moods")
    expect(page.locator("#plan .next")).to_be_visible()  # what is planned isn't what was trained

    page.click("#to-evaluate")
    expect(page.locator("#claim")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator("#evaluate-bars")).to_contain_text("Accuracy")
    page.locator("#outputs tr[data-pick]").first.click()
    expect(page.locator("#opened-row")).to_contain_text("Row 1")

    page.click("#to-chat")
    page.locator("#chat-prompts [data-pick]").first.click()
    expect(page.locator("#chat-input textarea")).not_to_be_empty()
    page.click("#chat-send")
    for side in ("base", "tuned"):
        expect(page.locator(f"#chat-now .{side}-side .under")).to_contain_text("tokens:", timeout=SLOW_MS)
    expect(page.locator("#chat-send")).to_be_visible(timeout=SLOW_MS)
    page.click("#chat-clear")
    expect(page.locator("#chat-now .answer")).to_have_count(0, timeout=SLOW_MS)

    go(page, "vote")
    answers = page.locator("#vote-view .answer")
    expect(answers.first.or_(page.get_by_text("All pairs are voted on"))).to_be_visible()
    if answers.count():  # of what both have answered alike there is no pair
        assert not re.search(r"\b(base|tuned)\b", page.locator("#vote-view").inner_html())
        vote(page, "1")
        assert (app_home / "votes.sqlite").exists()
        page.keyboard.press("u")
        expect(page.locator("#revealed")).to_have_count(0, timeout=SLOW_MS)

    go(page, "runs")
    page.locator("#runs-table tr[data-pick]").first.click()
    page.click("#runs-delete")
    expect(page.locator("#runs-table")).to_contain_text("No runs here", timeout=SLOW_MS)
    assert not list((app_home / "runs").iterdir())


def test_on_a_phone_what_was_chosen_stands_first_and_so_does_a_run(
    open_page: Callable[..., Any], app_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(390)

    def in_order(*places: str) -> bool:
        tops = [page.locator(place).bounding_box()["y"] for place in places]
        return tops == sorted(tops)

    assert in_order("#upload", "#verdict", "#to-train", "#samples", "#data-preview")
    rows = "".join(f"The room was fine {i},{('praise', 'complaint', 'Praise')[i % 3]}\n" for i in range(60))
    (tmp_path / "guests.csv").write_text(f"text,label\n{rows}No verdict,\n")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "guests.csv")
    expect(page.locator("#leave-out-rows")).to_be_visible(timeout=SLOW_MS)
    settled(page)
    assert in_order("#upload", "#verdict", "#repair-rows", "#leave-out-rows", "#data-preview", "#samples")
    assert page.locator("#repair-rows").bounding_box()["height"] < 60, "its words are in one line"
    page.click("#repair-rows")
    expect(page.locator("#hold-out")).to_be_visible(timeout=SLOW_MS)
    assert in_order("#to-train", "#edit-rows", "#data-few", "#hold-out", "#data-preview")
    assert page.locator("#data-few .s").evaluate("e => e.scrollWidth <= e.clientWidth"), "the sentence wraps"
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    made_run("busy", "running")
    made_run("next", "queued")
    page.reload()
    settled(page)
    go(page, "train")
    expect(page.locator("#train-view")).to_contain_text("busy", timeout=SLOW_MS)
    assert in_order("#train-view", "#train-plan", "#presets")
    buttons = page.locator("#train-queue button")
    expect(buttons).to_have_count(2)
    show, cancel = buttons.nth(0).bounding_box(), buttons.nth(1).bounding_box()
    assert (show["y"], show["height"]) == (cancel["y"], cancel["height"])
    page.click("#stop-train")
    expect(page.locator("#work")).to_contain_text("stopping after this step", timeout=SLOW_MS)
    expect(page.locator("#train-view")).to_contain_text("what was learned is kept", timeout=SLOW_MS)
    expect(page.locator("#stop-train")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
