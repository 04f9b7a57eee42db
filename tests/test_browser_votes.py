"""Voting in Chromium: blind to the last response, by keys, by thumb, by two at once, and with a disk that fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sftdemo import runs
from sftdemo.votes import Store
from tests.browser import NEEDS_CHROMIUM, SLOW_MS, expect, new_page, settled
from tests.test_votes import make_run

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def rate(app_home: Path, url: str, browser: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open the raters' page of a run of the given name and rows, each time in a browser context of its own."""
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    pages = []

    def opened(name: str, rows: int = 14, width: int = 1280) -> Any:
        if not (runs.home() / "runs" / name).exists():
            make_run(rows, name=name)
        page = new_page(browser, width, height=844, has_touch=width < 500)
        pages.append(page)
        page.goto(f"{url}rate?run={name}")
        expect(page.locator("#vote-view .answer")).to_have_count(2, timeout=SLOW_MS)
        settled(page)
        return page

    yield opened
    for page in pages:
        page.context.close()


def place(page: Any) -> str:
    """Which pair is shown, as "2 of 14"."""
    return str(page.locator("#vote-view .workline .num").inner_text())


def press(page: Any, key: str) -> None:
    """One key is a vote, and the next pair is there."""
    before = place(page)
    page.keyboard.press(key)
    expect(page.locator("#vote-view .workline .num")).not_to_have_text(before, timeout=SLOW_MS)


def votes(name: str) -> int:
    return len(Store().export(runs.named(name), "jsonl").splitlines())


def test_no_response_tells_the_sides_before_the_vote(rate: Any) -> None:
    page = rate("blind")
    answers = page.locator("#vote-view .answer").all_inner_texts()
    assert {re.search(r"word \d+", text, re.I)[0].casefold() for text in answers} == {  # type: ignore[index]
        re.search(r"word \d+", answers[0], re.I)[0].casefold()  # type: ignore[index]
    }
    telling = [body for body in page.evaluate("window.heard") if re.search(r"word \d", body, re.I)]
    assert telling, "the pair came in some response"
    assert not [body for body in telling if re.search(r"\b(base|tuned|row_?\d*|held-out)\b", body.split("i18n")[0])]
    press(page, "1")
    assert not re.search(r"\b(base|tuned)\b", page.locator("#vote-view").inner_html()), "names are told at the end"
    page.click("#vote-finish")
    expect(page.locator("#revealed")).to_be_visible(timeout=SLOW_MS)
    # Of the one vote the side that was chosen: by chance either.
    assert re.search(r"\b(base|tuned)\b", page.locator("#vote-view").inner_html())


def test_two_browsers_vote_at_once_on_the_same_evaluation(rate: Any) -> None:
    ann, bob = rate("both"), rate("both")
    for turn in range(3):
        for page in (ann, bob):
            page.keyboard.press("12"[turn % 2])
        for page in (ann, bob):
            expect(page.locator("#vote-view .workline .num")).to_contain_text(f"{turn + 2} of", timeout=SLOW_MS)
    totals = Store().totals("both")
    assert (totals.n, totals.raters) == (6, 2)


def test_keys_vote_but_not_while_typing_or_composing(rate: Any) -> None:
    page = rate("keys")
    name = page.locator("#vote-name input, #vote-name textarea").first
    name.focus()
    page.keyboard.type("1 2 3")
    page.evaluate(
        """() => { for (const more of [{isComposing: true}, {keyCode: 229}, {ctrlKey: true}, {repeat: true}])
        document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "1", bubbles: true, ...more})); }"""
    )
    settled(page)
    assert votes("keys") == 0
    name.fill("")
    name.blur()
    page.locator("#vote-tags label").first.click()  # a chip has the focus; the keys go on
    for key in "34us":
        press(page, key)
    expect(page.locator("#vote-view")).to_contain_text("3 of", timeout=SLOW_MS)
    records = Store().export(runs.named("keys"), "jsonl")
    assert [re.search(r'"choice": "(\w+)"', line)[1] for line in records.splitlines()] == ["tie", "skip"]  # type: ignore[index]
    assert '"tags": ["correct"]' in records.splitlines()[0] and '"tags": []' in records.splitlines()[1]


def test_a_vote_that_cannot_be_saved_stays_and_is_saved_later(rate: Any, app_home: Path) -> None:
    page = rate("disk")
    file, aside = app_home / "votes.sqlite", app_home / "aside.sqlite"
    file.rename(aside)
    file.mkdir()  # SQLite can't open a folder, as it can't write to a full disk
    page.keyboard.press("2")
    expect(page.locator("#vote-fault")).to_contain_text("Nothing was saved", timeout=SLOW_MS)
    expect(page.locator("#vote-next")).to_have_text("Save the vote again")
    expect(page.locator("#vote-view .answer")).to_have_count(2)
    expect(page.locator("#vote-view .workline .num")).to_contain_text("1 of")
    file.rmdir()
    aside.rename(file)
    page.click("#vote-next")
    expect(page.locator("#vote-view .workline .num")).to_contain_text("2 of", timeout=SLOW_MS)
    expect(page.locator("#vote-fault .fault")).to_have_count(0)
    assert Store().export(runs.named("disk"), "jsonl").count('"choice": "b"') == 1


def test_one_thumb_reaches_every_button_on_a_phone(rate: Any) -> None:
    page = rate("phone", width=390)
    for name in ("vote-a", "vote-b", "vote-tie", "vote-bad", "vote-skip", "vote-undo"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["height"] >= 44 and box["y"] > 422 and box["y"] + box["height"] <= 844, name
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    answer_b = page.locator("#vote-view .answer").nth(1).bounding_box()
    assert answer_b["y"] + answer_b["height"] <= page.locator("#vote-a").bounding_box()["y"], (
        "both answers are in sight"
    )
    expect(page.locator("#rate-instruction")).to_contain_text("15 pairs, about")  # one of 14 comes again
    page.locator("#vote-b").dblclick()  # the second click of a double click is no vote on the next pair
    expect(page.locator("#vote-view .workline .num")).to_contain_text("2 of 15", timeout=SLOW_MS)
    settled(page)
    assert page.locator("#vote-finish").bounding_box()["height"] >= 44
    assert votes("phone") == 1


def test_a_wrong_link_tells_a_rater_neither_folders_nor_runs(rate: Any, url: str) -> None:
    page = rate("known")
    page.goto(f"{url}rate?run=nope")
    expect(page.locator(".fault").first).to_contain_text("no run 'nope' to rate", timeout=SLOW_MS)
    assert "known" not in page.locator("body").inner_text() and "/runs" not in page.locator("body").inner_text()
