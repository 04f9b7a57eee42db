"""The app in Chromium, as a newcomer meets it; with a tiny model, so that the whole walk takes a minute."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sftdemo import runs
from sftdemo.votes import Store
from tests.test_ui import add_evaluation, made_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
expect = sync_api.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here"),
]

ROOT = Path(__file__).parents[1]
TABS = ("data", "train", "evaluate", "chat", "vote", "runs")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
REAL_MS = 900_000  # and this long for a training of the shipped model
SLOW_MS = 120_000  # two shared cores may take this long for a step
expect.set_options(timeout=SLOW_MS)  # Playwright's own five seconds fail on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(home: Path, port: int | None = None) -> tuple[str, subprocess.Popen[bytes]]:
    """Start `python app.py`, on a free port unless one is given, and wait until it answers."""
    port = port or free_port()
    environment = {**os.environ, "SFTDEMO_HOME": str(home), "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    home.mkdir(parents=True, exist_ok=True)
    with (home / "app.log").open("wb") as log:
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(720):
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return url, app
        except OSError:
            assert app.poll() is None, (home / "app.log").read_text()
            time.sleep(0.25)
    end(app)
    raise AssertionError((home / "app.log").read_text())


def end(app: subprocess.Popen[bytes]) -> None:
    app.terminate()
    try:
        app.wait(20)
    except subprocess.TimeoutExpired:
        app.kill()
        app.wait()


@pytest.fixture(scope="module")
def app_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app") / "home"


@pytest.fixture(scope="module")
def url(app_home: Path) -> Iterator[str]:
    url, app = serve(app_home)
    yield url
    end(app)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Open the app in a context of its own; at the end the page must have asked nobody but the app and logged no error."""
    contexts, strangers, errors = [], [], []

    def opened(width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((url, "data:", "blob:")) else strangers.append(asked.url),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#verdict", timeout=SLOW_MS)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not strangers and not errors


def go(page: Any, tab: str) -> None:
    """Click the step's tab; tabs of tabs don't count."""
    page.locator("#steps > .tab-wrapper button[role=tab]").nth(TABS.index(tab)).click()


def fine_tune(page: Any, model: str, data: str | None = None) -> None:
    """From the open page to a tuned model: choose data unless the sample will do, name the model, click Fine-tune."""
    if data:
        page.locator("#upload input[type=file]").set_input_files(data)
        expect(page.locator("#verdict")).to_contain_text("100 rows", timeout=SLOW_MS)
    page.click("#to-train")
    page.locator("#train-settings button").first.click()
    page.locator("#TrainConfig-model textarea, #TrainConfig-model input").first.fill(model)
    expect(page.locator("#train-command")).to_contain_text(model, timeout=SLOW_MS)
    page.click("#fine-tune")
    expect(page.locator("#train-done")).to_contain_text("Validation loss", timeout=SLOW_MS)


def vote(page: Any, key: str) -> str:
    """Vote by key and return what is said once it is stored."""
    page.keyboard.press(key)
    said = page.locator("#revealed")
    expect(said).to_be_visible(timeout=SLOW_MS)
    return str(said.inner_text())


# Without a model


def test_a_newcomer_finds_everything_chosen(open_page: Callable[..., Any]) -> None:
    page = open_page()
    expect(page.locator("#samples [aria-pressed=true]")).to_contain_text("support tickets", ignore_case=True)
    expect(page.locator("#to-train")).to_be_enabled()
    page.click("#to-train")
    expect(page.locator("#plan")).to_contain_text("SmolLM2-135M")
    expect(page.locator("#fine-tune")).to_be_enabled()


def test_a_step_that_must_wait_says_for_what(open_page: Callable[..., Any]) -> None:
    page = open_page()
    for tab in ("evaluate", "chat", "vote"):
        go(page, tab)
        expect(page.locator(f"#{tab}-gate")).to_contain_text("No tuned model yet")
    page.locator("#vote-gate .go").click()
    expect(page.locator("#fine-tune")).to_be_visible()


def test_every_sample_can_be_looked_at(open_page: Callable[..., Any]) -> None:
    page = open_page()
    cards = page.locator("#samples [data-pick]")
    assert cards.count() >= 5
    for index in range(cards.count()):
        cards.nth(index).click()
        expect(cards.nth(index)).to_have_attribute("aria-pressed", "true", timeout=SLOW_MS)
        expect(page.locator("#verdict")).to_contain_text("ready")


def test_a_faulty_file_is_explained_and_the_good_rows_kept(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    bad = tmp_path / "bad.jsonl"
    rows = [f'{{"text": "number {i} <b>bold</b>", "label": "{"ab"[i % 2]}"}}' for i in range(20)]
    bad.write_text("\n".join([*rows, '{"text": "no label"}', "not json"]) + "\n")
    page.locator("#upload input[type=file]").set_input_files(str(bad))
    expect(page.locator("#verdict")).to_contain_text("rows with problems: 2", timeout=SLOW_MS)
    expect(page.get_by_text("not json").or_(page.get_by_text("22", exact=True)).first).to_be_visible()
    assert page.locator("#data-examples b").count() == 0, "text from a file must not become HTML"
    page.wait_for_timeout(1500)
    toasts = page.locator(".toast-body")
    assert toasts.count() == 0, (
        f"the sample's column split is gone, which is nobody's fault: {toasts.all_inner_texts()}"
    )


def choose(page: Any, menu: str, value: str) -> None:
    page.locator(f"{menu} input").click()
    # The list of the menu before may still be fading out.
    page.locator(menu).get_by_role("option", name=value, exact=True).click()


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
    page.click("#to-train")
    page.locator("#train-settings button").first.click()
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
    page.click("#to-train")
    page.locator("#train-settings button").first.click()
    expect(page.locator("#train-command")).to_contain_text("--max-length 20", timeout=SLOW_MS)
    expect(page.locator("#train-command")).to_contain_text(tiny)
    page.locator("#TrainConfig-max_length input").fill("300")
    go(page, "data")
    expect(page.locator("#data-max_length input")).to_have_value("300", timeout=SLOW_MS)


def test_a_broken_bound_is_said_on_the_page(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.click("#to-train")
    page.locator("#train-settings button").first.click()
    page.locator("#TrainConfig-epochs input").fill("-1")
    expect(page.locator("#train-fault")).to_contain_text("epochs is -1", timeout=SLOW_MS)


def test_a_preset_counts_at_once(open_page: Callable[..., Any]) -> None:
    """Before the server has heard of it: whoever clicks on the button right after it trains as chosen."""
    page = open_page()
    page.click("#to-train")
    page.locator("#train-settings button").first.click()
    rows = page.locator("#TrainConfig-max_examples textarea, #TrainConfig-max_examples input").first
    expect(rows).to_have_value("600")
    for place, value in ((2, ""), (1, "600"), (0, "150")):
        page.wait_for_timeout(2000)  # what the click before has asked the server for is back
        page.context.set_offline(place == 0)
        page.locator("#presets input").nth(place).click()
        expect(rows).to_have_value(value)


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_language_follows_the_browser(open_page: Callable[..., Any], locale: str) -> None:
    page = open_page(locale=locale)
    chinese = locale.startswith("zh")
    expect(page.locator("#to-train")).to_have_text("继续：训练" if chinese else "Continue to training")
    expect(page.locator("#verdict")).to_contain_text("可以训练" if chinese else "ready")
    go(page, "train")
    expect(page.locator("#fine-tune")).to_have_text("开始微调" if chinese else "Fine-tune")


def test_language_can_be_chosen(open_page: Callable[..., Any]) -> None:
    page = open_page(locale="en-US")
    page.click("[data-do=lang]")
    expect(page.locator("#to-train")).to_have_text("继续：训练", timeout=SLOW_MS)
    expect(page.locator("#verdict")).to_contain_text("可以训练")


def test_dark_follows_the_browser_and_can_be_chosen(open_page: Callable[..., Any]) -> None:
    page = open_page(color_scheme="dark")
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.click("[data-do=theme]")
    expect(page.locator("body")).not_to_have_class(re.compile("dark"))


@pytest.mark.parametrize("width", [390, 1280])
def test_no_screen_scrolls_sideways(open_page: Callable[..., Any], width: int) -> None:
    page = open_page(width)
    for tab in TABS:
        go(page, tab)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab


# With a tiny model


def test_the_whole_walk(open_page: Callable[..., Any], tiny: str, labelled: str, app_home: Path) -> None:
    page = open_page()
    fine_tune(page, tiny, labelled)
    expect(page.locator("#run-chip")).to_contain_text("moods")

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
    if page.locator("#vote-view .answer").count():
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


# With the shipped model


def test_a_newcomer_with_the_shipped_model(shipped_home: Path, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three clicks to a tuned model, then its measure, both answers at once, and a vote; all with the shipped model.

    An older run with two held-out rows is there already: nothing of it may reach the new one's measure.
    """
    monkeypatch.setenv("SFTDEMO_HOME", str(shipped_home))
    add_evaluation(made_run("older"))
    url, app = serve(shipped_home)
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(REAL_MS)
        page.goto(url)
        expect(page.locator("#verdict")).to_contain_text("ready", timeout=REAL_MS)
        page.click("#to-train")
        page.get_by_label("Quick look").check()
        expect(page.locator("#plan")).to_contain_text("150 rows", timeout=REAL_MS)
        page.click("#fine-tune")
        expect(page.locator("#train-done")).to_contain_text("Validation loss", timeout=REAL_MS)
        page.click("#to-evaluate")
        expect(page.locator("#claim")).to_contain_text("Better: right on", timeout=REAL_MS)
        expect(page.locator("#evaluate-claim")).to_contain_text("72 test rows")

        page.click("#to-chat")
        page.locator("#chat-input textarea").fill("My parcel never came.")
        page.click("#chat-send")
        for side in ("base", "tuned"):
            expect(page.locator(f"#chat-now .{side}-side .under")).to_contain_text("tokens:", timeout=REAL_MS)

        go(page, "vote")
        expect(page.locator("#vote-view .answer").first).to_be_visible(timeout=REAL_MS)
        vote(page, "1")
        newest = runs.list_runs()[0]
        assert len(Store(shipped_home / "votes.sqlite").export(newest, "jsonl").splitlines()) == 1
    finally:
        end(app)
