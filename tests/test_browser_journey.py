"""One journey in Chromium: train, reload, stop, go on, compare two runs, download one, and use the download elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftdemo import load, runs, train
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.ui.texts import say
from tests.browser import NEEDS_CHROMIUM, SLOW_MS, expect, go, open_settings, settled

pytestmark = NEEDS_CHROMIUM
LENGTH = {"epochs": "100", "batch_size": "1", "gradient_accumulation": "8"}
STEPS = 900  # so many, of 72 rows, that no part of it ends before it is stopped; each is a point of the curve
PROCESS_MS = 3 * SLOW_MS  # what begins a process that loads all libraries
IS_FURTHER = rf"at => document.querySelector('#train-view').innerText.match(/(\d+) \/ {STEPS}/)?.[1] > at"
MOST = 16  # tokens of an answer
# After the card's lines, which load the model by transformers and PEFT: questions come on stdin, the
# tokens of the answers go to stdout.
MORE = f"""
import json, sys
for messages in json.load(sys.stdin):
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**ids, do_sample=False, max_new_tokens={MOST})[0, ids["input_ids"].shape[1]:]
    print([token for token in answer.tolist() if token != tokenizer.eos_token_id])
assert "sftdemo" not in sys.modules
"""


def test_a_run_is_stopped_resumed_compared_and_taken_home(
    open_page: Callable[..., Any],
    app_home: Path,
    tiny: str,
    labelled: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    train(TrainConfig(data=labelled, model=tiny, name="short"))  # what the other one is compared with
    page = open_page()
    run = stopped_and_resumed(page, tiny, labelled)
    compare(page, runs.find("short"), run)
    folder = taken_home(page, run, tmp_path)
    card = (folder / "README.md").read_text(encoding="utf-8")
    (base,) = re.findall(r"Its base is a folder `(.+?)`", card)
    shutil.copytree(tiny, folder / base)

    asked = [example["messages"][:-1] for example in run.examples("test")][:10]
    own, config = load(run.name), GenerateConfig(temperature=0.0, max_new_tokens=MOST)
    answers = own.complete(asked, config)
    chunks = [[chunk for chunk in own.stream(messages, config) if chunk.side == "tuned"] for messages in asked]
    (code, *_) = re.findall(r"```python\n(.+?)```", card, re.DOTALL)
    text = re.search(r"the \w+ \d+ was \w+ and \w+", asked[0][-1]["content"])
    assert text
    lines = elsewhere(folder, code.replace("…", text[0]) + MORE, json.dumps(asked)).splitlines()
    written = [json.loads(line) for line in lines[-len(asked) :]]
    said = [own.tokenizer.decode(tokens) for tokens in written]
    assert said == [answer["tuned"] for answer in answers] != [answer["base"] for answer in answers]
    assert [len(tokens) for tokens in written] == [each[-1].tokens for each in chunks]
    # The card asks as the run was trained to be asked.
    assert "\n".join(lines[: -len(asked)]).endswith(f"assistant\n{answers[0]['tuned']}")


def elsewhere(folder: Path, code: str, told: str) -> str:
    """What Python prints that knows of nothing but this folder and its libraries."""
    known = {"HOME": str(folder.parent), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=folder, env=known, input=told, capture_output=True, text=True, timeout=PROCESS_MS / 1000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def stopped_and_resumed(page: Any, model: str, data: str) -> runs.Run:
    """Train for long, load the page again, stop, go on, and stop for good."""
    page.locator("#upload input[type=file]").set_input_files(data)
    expect(page.locator("#verdict")).to_contain_text("100 rows")
    open_settings(page)
    page.locator("#TrainConfig-model textarea, #TrainConfig-model input").first.fill(model)
    for name, value in LENGTH.items():
        page.locator(f"#TrainConfig-{name} input").fill(value)
    for part in (model, "--epochs 100.0", "--batch-size 1", "--gradient-accumulation 8"):
        expect(page.locator("#train-command")).to_contain_text(part)
    settled(page)
    page.click("#fine-tune")
    page.wait_for_function(IS_FURTHER, arg=0, timeout=PROCESS_MS)
    page.reload()
    settled(page)
    go(page, "train")
    first = stop(page, after=0)
    page.click("#train-resume")
    last = stop(page, after=first)
    (run, _) = runs.list_runs()
    assert run.status()["resumed"] == [first]
    assert [row["step"] for row in run.metrics() if "loss" in row] == list(range(1, last + 1))
    return run


def stop(page: Any, after: int) -> int:
    """Stop the training that is shown once it is further; returns how far it came."""
    page.wait_for_function(IS_FURTHER, arg=after, timeout=PROCESS_MS)
    page.click("#stop-train")
    expect(page.locator("#train-done")).to_contain_text("what was learned is kept")
    run = runs.list_runs()[0]
    status = run.status()
    assert status["state"] == "stopped" and after < status["steps"] < STEPS and run.model_path.is_dir()
    return int(status["steps"])


def compare(page: Any, *compared: runs.Run) -> None:
    go(page, "runs")
    box = page.locator("#compare input")
    for run in compared:
        box.click()
        box.fill(run.name)
        page.locator("[role=option]", has_text=run.name).first.click()
        settled(page)
    for run in compared:
        expect(page.locator("#compare-view .keys")).to_contain_text(run.name)
    expect(page.locator("#compare-measured")).to_contain_text(say("en", "set_epochs"))
    expect(page.locator("#compare-measured")).not_to_contain_text(say("en", "set_learning_rate"))


def taken_home(page: Any, run: runs.Run, place: Path, form: str = "adapter") -> Path:
    """The folder of the ZIP that was downloaded."""
    page.locator(f"#runs-table tr[data-pick='{run.name}']").click()
    settled(page)
    if not page.locator("#export-go").is_visible():
        page.locator("#export button").first.click()
    page.locator(f"#export-format input[value='{form}']").check()
    page.click("#export-go")
    link = page.locator(f"#export-view a[download='{run.name}-{form}.zip']")
    expect(link).to_be_visible(timeout=PROCESS_MS)
    with page.expect_download() as saved:
        link.click()
    with zipfile.ZipFile(saved.value.path()) as archive:
        archive.extractall(place / "unpacked")
    (folder,) = (place / "unpacked").iterdir()
    return folder
