"""Draw the tutorial's pictures: make its table, then walk through the app in Chromium. `python docs/pictures.py [tweets.csv]`.

Takes about two minutes on two cores; needs playwright and chromium, and the package that the tutorial names beside it, or the table.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from PIL import Image

from tests.browser import CHROMIUM, QUIET, REAL_MS, end, expect, go, new_page, serve, sync_api

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1180, 860
COLOURS = 128  # of a picture, which makes it half as large


def make_table(folder: Path) -> Path:
    """tweets.csv, by the tutorial's own commands."""
    tutorial = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    download = re.search(r"^pip (download .*)$", tutorial, re.M)
    code = re.search(r"```python\n(.*?)```", tutorial, re.S)
    assert download and code
    subprocess.run([sys.executable, "-m", "pip", *download[1].split()], cwd=folder, check=True)
    subprocess.run([sys.executable, "-c", code[1]], cwd=folder, check=True)
    return folder / "tweets.csv"


def walk(page: Any, table: Path) -> None:
    """From the table to a vote, a picture at each step."""
    page.locator("#upload input[type=file]").set_input_files(str(table))
    page.click("#confirm-columns")
    expect(page.locator("#verdict")).to_contain_text("3 labels", timeout=REAL_MS)
    shoot(page, "data")
    page.click("#to-train")
    page.get_by_label("Quick look").check()
    expect(page.locator("#plan")).to_contain_text("150 rows", timeout=REAL_MS)
    page.click("#fine-tune")
    expect(page.locator("#train-done")).to_contain_text("Validation loss", timeout=REAL_MS)
    shoot(page, "train")
    page.click("#to-evaluate")
    expect(page.locator("#claim")).to_contain_text("base", timeout=REAL_MS)
    expect(page.locator("#outputs tr[data-pick]").first).to_be_visible(timeout=REAL_MS)
    shoot(page, "evaluate")
    page.click("#to-chat")
    page.locator("#chat-input textarea").fill("Third day of rain, and the tent leaks. Best holiday ever!")
    page.click("#chat-send")
    for side in ("base", "tuned"):
        expect(page.locator(f"#chat-now .{side}-side .under")).to_contain_text("tokens:", timeout=REAL_MS)
    expect(page.locator("#chat-send")).to_be_visible(timeout=REAL_MS)
    shoot(page, "chat")
    go(page, "vote")
    expect(page.locator("#vote-view .answer").first).to_be_visible(timeout=REAL_MS)
    shoot(page, "vote")


def shoot(page: Any, name: str) -> None:
    """The top of the page as it stands."""
    page.evaluate("window.scrollTo(0, 0); document.fonts.ready")
    path = DOCS / "pictures" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path.relative_to(DOCS.parent), path.stat().st_size // 1000, "kB")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        given = sys.argv[1:2]
        table = Path(shutil.copy(given[0], Path(scratch) / "tweets.csv")) if given else make_table(Path(scratch))
        os.environ["SFTDEMO_HOME"] = str(Path(scratch) / "home")
        url, app = serve(Path(scratch) / "home")
        try:
            with sync_api.sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
                page = new_page(browser, WIDTH, HEIGHT, locale="en-US")
                page.set_default_timeout(REAL_MS)
                page.goto(url)
                walk(page, table)
                browser.close()
        finally:
            end(app)


if __name__ == "__main__":
    main()
