"""A run and votes of an earlier version still open, answer, score and count as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sftdemo import load, runs
from sftdemo.config import GenerateConfig
from sftdemo.runs import Run
from sftdemo.verbs.evaluate import rescore
from sftdemo.votes import Store

OLD = Path(__file__).parent / "old"
BASE = "/tmp/old/base"  # where its base lay on the machine that trained it


@pytest.fixture
def run(home: Path, babbler: str) -> Run:
    """The run in this test's home, its base where it is on this machine."""
    shutil.copytree(OLD, home)
    config = home / "runs" / "old" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace(BASE, babbler), encoding="utf-8")
    return runs.find("old")


def test_it_is_listed_and_shown(run: Run) -> None:
    assert [each.name for each in runs.list_runs()] == ["old"] and run.status()["state"] == "finished"
    line = runs.overview(run)
    assert (line["state"], line["data"], line["method"]) == ("finished", "moods", "lora")
    assert set(runs.details(run)["evaluations"]) == set(run.evaluations()) and len(run.metrics()) == 17
    assert {split: len(run.examples(split)) for split in runs.SPLITS} == {"train": 25, "validation": 5, "test": 10}


def test_it_answers_as_it_did(run: Run) -> None:
    (name,) = run.evaluations()
    rows = run.outputs(name)
    answers = load("old").complete([row["messages"] for row in rows], GenerateConfig(max_new_tokens=4))
    assert [answer["tuned"] for answer in answers] == [row["tuned"] for row in rows]


def test_its_scores_made_anew_are_those_it_had(run: Run) -> None:
    (name,) = run.evaluations()
    before = json.loads((OLD / "runs" / "old" / "evaluations" / name / "scores.json").read_text(encoding="utf-8"))
    after = rescore(run, name)
    for side in ("base", "tuned"):
        assert {metric: after[side][metric] for metric in before[side]} == pytest.approx(before[side])


def test_its_votes_count_as_they_did(run: Run) -> None:
    store = Store()
    totals = store.totals(run).to_json()
    assert (totals["base"], totals["tuned"], totals["raters"]) == (4, 1, 2)
    assert len(store.export(run, "jsonl").splitlines()) == 5
    pair = store.next_pair(run, run.evaluations()[0], "eve")
    assert pair and store.vote(pair.ballot, "tie", "eve").winner == "tie"
