"""What Chromium downloads of runs with odd names, adapter, merged and full weights, answers in a new environment as the run does."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftdemo import load, runs, train
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.runs import listing
from tests.browser import NEEDS_CHROMIUM, expect, go, settled
from tests.test_browser_journey import MORE, MOST, PROCESS_MS, elsewhere, taken_home

pytestmark = NEEDS_CHROMIUM
LONG, CHINESE = "a.B_c-" * 16 + "1234", "情感分类" * 16 + "甲乙"
CASES = [(LONG, "adapter", "lora"), (LONG, "merged", "lora"), (CHINESE, "merged", "full")]


def test_what_is_downloaded_answers_as_its_run(
    open_page: Callable[..., Any],
    app_home: Path,
    tiny: str,
    labelled: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    for name, method in {name: method for name, _, method in CASES}.items():
        asked = {"data": labelled, "model": tiny, "name": name, "method": method, "learning_rate": 5e-3}
        train(TrainConfig.from_json({**asked, "precision": "float32", "epochs": 2.0}))
        listing.rename(runs.find(name), f"""it's "{name[:9]}" & <b> 100% ü/..""")
    page = open_page()
    go(page, "runs")
    for name, form, _ in CASES:
        run = runs.find(name)
        folder = taken_home(page, run, tmp_path / form / name[:9], form)
        assert folder.name == f"{name}-{form}"
        card = (folder / "README.md").read_text(encoding="utf-8")
        for base in re.findall(r"Its base is a folder `(.+?)`", card):
            shutil.copytree(tiny, folder / base)
        questions = [example["messages"][:-1] for example in run.examples("test")][:10]
        (code, *_) = re.findall(r"```python\n(.+?)```", card, re.DOTALL)
        lines = elsewhere(folder, code + MORE, json.dumps(questions)).splitlines()
        own = load(name)
        written = [own.tokenizer.decode(json.loads(line)) for line in lines[-len(questions) :]]
        answers = own.complete(questions, GenerateConfig(temperature=0.0, max_new_tokens=MOST))
        assert written == [answer["tuned"] for answer in answers] != [answer["base"] for answer in answers]


def test_an_export_goes_on_through_a_reload_and_is_seen_on_other_pages(
    open_page: Callable[..., Any], app_home: Path, tiny: str, labelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    train(TrainConfig.from_json({"data": labelled, "model": tiny, "name": "reloaded", "precision": "float32"}))
    page = open_page()
    go(page, "runs")
    page.locator("#runs-table tr[data-pick='reloaded']").click()
    settled(page)
    page.locator("#export button").first.click()
    page.locator("#export-format input[value='merged']").check()
    page.click("#export-go")
    expect(page.locator("#stop-export")).to_be_visible()
    page.reload()
    other = open_page()
    for each in (page, other):
        expect(each.locator("#work")).to_contain_text("Exporting")
        expect(each.locator("#stop-export")).to_be_visible()
    link = page.locator("#export-view a[download='reloaded-merged.zip']")
    expect(link).to_be_visible(timeout=PROCESS_MS)
    with page.expect_download() as saved:
        link.click()
    assert zipfile.is_zipfile(saved.value.path())
    for each in (page, other):
        expect(each.locator("#work")).not_to_be_visible()
