"""Editing rows in Chromium: two problems mended by hand, and an output that is labelled wrong led back to its row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftdemo import data, files
from sftdemo.evaluation.scorecard import score_outputs
from tests.browser import NEEDS_CHROMIUM, choose, expect, go, settled
from tests.test_ui import made_run

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def table(app_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file whose last label is missing, and a run with an evaluation of some of its rows."""
    path = tmp_path / "notes.csv"
    lines = [f"note <b>number</b> {i * 7},{('ham', 'spam')[i % 2]}" for i in range(60)]
    path.write_text("\n".join(["text,label", *lines, "a last note,"]) + "\n", encoding="utf-8")
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    rows = data.read(str(path), on_fault="drop").splits["train"][:4]
    outputs: list[Any] = [
        {"row": at, "task": None, "messages": row["messages"][:-1], "references": [row["label"]], "label": row["label"]}
        | {"base": "no idea", "tuned": "ham"}
        for at, row in enumerate(rows)
    ]
    folder = made_run("notes").path / "evaluations" / "one"
    files.write_jsonl(folder / "outputs.jsonl", outputs)
    scores = score_outputs(outputs, ["ham", "spam"], 0) | {"outputs": str(folder / "outputs.jsonl"), "seconds": 1.0}
    files.write_json(folder / "scores.json", scores)
    return str(path)


def test_problems_are_mended_and_a_wrong_label_is_found_from_the_outputs(
    open_page: Callable[..., Any],
    table: str,
) -> None:
    page = open_page()
    page.locator("#upload input[type=file]").set_input_files(table)
    expect(page.locator("#data-faults")).to_contain_text("is empty")
    page.locator("#edit-rows").click()
    rows, row = page.locator("#rows tr[data-pick]"), page.locator("#rows-opened")
    expect(rows).to_have_count(1)
    rows.first.click()
    expect(row).to_contain_text("a last note")
    settled(page)
    choose(page, "#rows-set-label", "spam")
    typed, label = page.locator("#rows-text textarea"), page.locator("#rows-set-label input")
    before = typed.input_value()
    typed.fill("half a no")
    for head in ("编辑", "edit"):
        page.click("[data-do=lang]")
        expect(page.locator("#rows-box button").first).to_contain_text(head)
        settled(page)
        expect(typed).to_have_value("half a no")
        expect(label).to_have_value("spam")
    typed.fill(before)
    page.locator("#rows-save").click()
    expect(page.locator("#verdict")).to_contain_text("61 rows, 2 labels, ready")
    go(page, "evaluate")
    page.locator("#outputs tr[data-pick]").nth(1).click()
    page.locator("#row-mislabelled").click()
    expect(row).to_contain_text("note <b>number</b> 7")
    expect(row).to_contain_text("The tuned model says: ham")
    settled(page)
    choose(page, "#rows-set-label", "ham")
    page.locator("#rows-save").click()
    expect(page.locator("#rows-edits summary")).to_contain_text("Edits: 2")
    page.locator("#rows-undo").click()
    expect(page.locator("#rows-edits summary")).to_contain_text("Edits: 1")
    page.locator("#rows-download").click()
    with page.expect_download() as saved:
        page.locator("#rows-files a").nth(1).click()
    assert Path(saved.value.path()).read_text(encoding="utf-8-sig").splitlines()[-1] == "a last note,spam"
