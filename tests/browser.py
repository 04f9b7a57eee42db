"""The app in Chromium for tests: how it is served, opened, waited for, and walked through."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
expect = sync_api.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = [
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
REAL_MS = 900_000  # a training of the shipped model may take this long
SLOW_MS = 120_000  # two shared cores may take this long for a step
expect.set_options(timeout=SLOW_MS)  # Playwright's own five seconds fail on a busy machine
# A control as the browser tells it to a screen reader, and what Gradio calls one that was given no name.
CONTROL = re.compile(
    r"""- '?(button|checkbox|combobox|group|link|radio|radiogroup|slider|spinbutton|switch|tab|textbox)\b(?: "([^"]*))?"""
)
NO_NAMES = {"radio", "textbox", "dropdown", "checkbox", "checkbox group", "number", "slider", "file", "html"}
NO_NAMES |= {"单选框", "文本框", "下拉菜单", "复选框", "复选框组", "数字", "滑块", "文件"}
# In the page: what it is sent, chunk by chunk, and what it still awaits: replies, and events in Gradio's queue until
# they are completed. A stream may stay open with no event in it, and the heartbeat never ends.
LISTEN = r"""
window.heard = [];
window.awaited = new Map();
const real = window.fetch, completed = new Set();
const follow = (line) => {
  const message = JSON.parse(line.replace(/^data: /, ""));
  if (message.msg === "process_completed" && !awaited.delete(message.event_id)) completed.add(message.event_id);
};
const join = (sent, {event_id: id}) => {
  const index = JSON.parse(sent.body).fn_index;
  const name = window.gradio_config.dependencies.find((handler) => handler.id === index).api_name;
  if (!completed.delete(id)) awaited.set(id, name);
};
window.fetch = async (...asked) => {
  const url = String(asked[0].url ?? asked[0]), stream = url.includes("/queue/data"), request = {};
  if (url.includes("/heartbeat/")) return real(...asked);
  if (!stream) awaited.set(request, url);
  const reply = real(...asked), at = heard.push("") - 1, text = new TextDecoder();
  (async () => {
    const whole = (await reply).clone(), reader = whole.body?.getReader();
    for (let part, rest = ""; reader && !(part = await reader.read()).done;) {
      const chunk = text.decode(part.value, {stream: true}), lines = (rest + chunk).split("\n\n");
      heard[at] += chunk;
      rest = lines.pop();
      if (stream) lines.forEach(follow);
    }
    if (whole.ok && url.includes("/queue/join")) join(asked[1], JSON.parse(heard[at]));
  })().catch((fault) => { heard[at] += ` (broken off: ${fault})`; }).finally(() => { awaited.delete(request); });
  return reply;
};
"""


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


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of one app for all files, and its home: an app that starts loads libraries for a dozen seconds."""
    home = tmp_path_factory.mktemp("app") / "home"
    url, app = serve(home)
    yield url, home
    end(app)


@pytest.fixture(scope="module")
def app_home(served: tuple[str, Path]) -> Iterator[Path]:
    """The app's home, which a file's tests find without runs, votes and chats."""
    home = served[1]
    yield home
    for name in ("runs", "trash", "chats"):
        shutil.rmtree(home / name, ignore_errors=True)
    for path in home.glob("votes.sqlite*"):
        path.unlink()


@pytest.fixture(scope="module")
def url(served: tuple[str, Path], app_home: Path) -> str:
    return served[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def new_page(browser: Any, width: int = 1280, height: int = 900, **options: Any) -> Any:
    """A page in a browser context of its own, which is listened to and has the time that a busy machine needs."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    context.set_default_timeout(SLOW_MS)
    context.add_init_script(LISTEN)
    return context.new_page()


def settled(page: Any) -> None:
    """Wait until the page has all that it asked the server for, and all that followed from that.

    What goes on for longer than a busy machine needs is told; the test goes on, too, to what it asserts.
    """
    page.evaluate("() => { window.idleFrames = 0; }")
    idle = "() => (window.idleFrames = window.awaited.size ? 0 : window.idleFrames + 1) > 8"
    try:
        page.wait_for_function(idle, timeout=SLOW_MS / 2)
    except sync_api.TimeoutError:
        warnings.warn(f"still awaited: {page.evaluate('[...awaited.values()]')}", stacklevel=2)


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Open the app in a context of its own; at the end the page must have asked nobody but the app and logged no error."""
    pages, strangers, errors = [], [], []

    def opened(width: int = 1280, **options: Any) -> Any:
        page = new_page(browser, width, **options)
        pages.append(page)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((url, "data:", "blob:")) else strangers.append(asked.url),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#verdict")
        settled(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert not strangers and not errors


def nameless(page: Any) -> list[str]:
    """The controls in sight without a name of their own; a group may do without one."""
    controls = CONTROL.findall(page.locator("body").aria_snapshot())
    return [f"{role}: {name!r}" for role, name in controls if name.lower() in NO_NAMES or not (name or role == "group")]


def go(page: Any, tab: str) -> None:
    """Click the step's tab and wait for what it shows; tabs of tabs don't count."""
    button = page.locator("#steps > .tab-wrapper button[role=tab]").nth(TABS.index(tab))
    button.click()
    expect(button).to_have_attribute("aria-selected", "true")
    settled(page)


def open_settings(page: Any) -> None:
    """From the chosen data to the settings, once nothing that they get from it is still to come."""
    expect(page.locator("#to-train")).to_be_enabled(timeout=SLOW_MS)  # where it isn't, the failure shows the page
    page.click("#to-train")
    page.locator("#train-settings button").first.click()
    settled(page)


def fine_tune(page: Any, model: str, data: str | None = None) -> None:
    """From the open page to a tuned model: choose data unless the sample will do, name the model, click Fine-tune."""
    if data:
        page.locator("#upload input[type=file]").set_input_files(data)
        expect(page.locator("#verdict")).to_contain_text("100 rows", timeout=SLOW_MS)
    open_settings(page)
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


def choose(page: Any, menu: str, value: str) -> None:
    page.locator(f"{menu} input").click()
    # The list of the menu before may still be fading out.
    page.locator(menu).get_by_role("option", name=value, exact=True).click()
