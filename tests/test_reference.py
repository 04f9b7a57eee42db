"""docs/ against the code: what is written from it, the metrics, and every key of every file that a run leaves."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
import shutil
import sqlite3
import subprocess
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sftdemo import runs
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.data import Example, Message
from sftdemo.evaluation.registry import METRICS
from sftdemo.files import read_jsonl
from sftdemo.runs import sweep_record
from sftdemo.schema import evaluation, lineage, owner, run
from sftdemo.schema.evaluation import Difference, GeneralRow, OutputRow, Scores
from sftdemo.schema.run import DataConfig, MetricsRow, RunConfig, State, Status, Summary
from sftdemo.training.train import train
from sftdemo.verbs.evaluate import evaluate, rescore
from sftdemo.votes import Store

DOCS = Path(__file__).parents[1] / "docs"
RUN_FOLDER = (DOCS / "run-folder.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def write() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write", DOCS / "write.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_code_knows_is_written_down(write) -> None:
    stale = [path.name for path, text in write.documents().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"{stale} are out of date: run `python docs/write.py`"


def test_every_metric_has_its_line_with_scale_and_direction() -> None:
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.M)
    cells = {name: [cell.strip() for cell in rest.split("|")] for name, rest in lines}
    assert set(cells) == set(METRICS)
    assert cells["ter"][1:3] == ["0–100", "lower"] and cells["accuracy"][1:4] == ["0–1", "higher", "McNemar"]


def test_every_key_of_the_run_folder_is_written_down() -> None:
    partly_checked = ("Turn", "ExampleRow")  # of messages and rows, whose own tables are there
    for home in (run, evaluation, owner, lineage, sweep_record):
        for name, value in vars(home).items():
            if typing.is_typeddict(value) and not name.startswith("_") and name not in partly_checked:
                assert f"<!-- keys of {name} " in RUN_FOLDER, name


def test_each_step_of_the_walks_is_there() -> None:
    walks = (DOCS / "architecture.md").read_text(encoding="utf-8").split("## Five walks")[1].split("\n### ")[1:]
    assert len(walks) == 5
    for walk in walks:
        steps = re.findall(r"`sftdemo\.([\w.]+)`", walk)
        assert len(steps) >= 3, walk
        for step in steps:
            assert callable(pkgutil.resolve_name(f"sftdemo.{step}")), step


EXTENSIONS = {
    "A metric": """
from sftdemo import score
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.ui.parts.charts import score_rows
rows = [{"prediction": "Yes, sir", "references": ["yes"]}, {"prediction": "no", "references": ["yes"]}]
assert score(rows)["first_word"] == 0.5
row = {"messages": [], "references": ["yes"], "label": None, "base": "no", "tuned": "yes indeed"}
scores = score_outputs([row] * 9, [], 1)
difference = scores["difference"]["first_word"]
assert scores["tuned"]["first_word"] == difference["delta"] == 1 and difference["p"] == 2 / 2**9
assert all(text in score_rows(scores, lang) for lang, text in (("en", "First word"), ("zh", "首词准确率")))
""",
    "A data layout": """
import json, pathlib, sftdemo
rows = [{"code": f"x = {k}", "review": f"Name it. {k}"} for k in range(20)]
pathlib.Path("rows.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
dataset = sftdemo.read("rows.jsonl")
assert dataset.format == "code_review" and not dataset.faults
assert dataset.splits["train"][0]["messages"][0]["content"] == "Review this code.\\n\\nx = 0"
""",
    "A setting": """
import pathlib
from sftdemo import TrainConfig
from sftdemo.__main__ import parser
assert parser().parse_args(["train", "--data", "x", "--adam-epsilon", "1e-6"]).adam_epsilon == 1e-6
assert TrainConfig().adam_epsilon == 1e-8
assert any("config.adam_epsilon" in path.read_text() for path in pathlib.Path("sftdemo").rglob("*.py"))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTENSIONS)
def test_each_extension_applies_and_does_what_it_says(name, tmp_path) -> None:
    text = (DOCS / "extend.md").read_text(encoding="utf-8")
    diff = re.search(rf"^## {name}$.*?^```diff\n(.*?)^```$", text, re.M | re.S)
    assert diff
    shutil.copytree(DOCS.parent / "sftdemo", tmp_path / "sftdemo", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", "-"], input=diff[1], cwd=tmp_path, text=True, check=True)
    subprocess.run([sys.executable, "-c", EXTENSIONS[name]], cwd=tmp_path, check=True)


def check(value: Any, kind: Any) -> None:
    """A value has all keys of its TypedDict that are always there, and none that it doesn't know."""
    hints = typing.get_type_hints(kind, include_extras=True)
    required = {key for key, hint in hints.items() if typing.get_origin(hint) is not typing.NotRequired}
    assert set(value) <= set(hints), (kind.__name__, set(value) - set(hints))
    assert not kind.__total__ or set(value) >= required, (kind.__name__, required - set(value))


def test_a_run_leaves_the_keys_that_are_written_down(tiny, labelled) -> None:
    summary = train(TrainConfig(data=labelled, model=tiny, name="r", precision="float32", best_by="accuracy"))
    scores = evaluate("r", EvaluateConfig(max_examples=4, general=True))
    run = runs.find("r")
    assert set(summary) == set(typing.get_type_hints(Summary))
    check(run.status(), Status)
    assert {"state", "pid", "process_start", "updated", "step", "total"} | set(summary) <= set(run.status())
    check(run.config(), RunConfig)
    check(run.config()["data"], DataConfig)
    assert set().union(*run.metrics()) == set(typing.get_type_hints(MetricsRow))
    for row in run.metrics():
        check(row, MetricsRow)
    for split in runs.SPLITS:
        for example in run.examples(split):
            check(example, Example)
            for message in example["messages"]:
                check(message, Message)
    for found in (scores, rescore("r", scores["evaluation"]), run.scores(scores["evaluation"])):
        check(found, Scores)
        for difference in found["difference"].values():
            check(difference, Difference)
    folder = run.path / "evaluations" / scores["evaluation"]
    for row in run.outputs(scores["evaluation"]):
        check(row, OutputRow)
    for row in read_jsonl(folder / "general.jsonl"):
        check(row, GeneralRow)
    for path in run.path.rglob("*"):
        name = path.relative_to(run.path).parts[0] if path.is_dir() else path.name
        assert f"{name}" in RUN_FOLDER or "model" in path.parts, f"{path} is not in run-folder.md"


@pytest.mark.slow
def test_a_mixture_of_texts_leaves_the_keys_that_are_written_down(tiny, tmp_path) -> None:
    for name in ("one", "two"):
        rows = [{"prompt": f"the film {k} was fine", "completion": f"{name} {k}"} for k in range(20)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    train(TrainConfig(data=f"{tmp_path / 'one.jsonl'} + {tmp_path / 'two.jsonl'}", model=tiny, name="mixed"))
    scores = evaluate("mixed", EvaluateConfig(max_new_tokens=4))
    run = runs.find("mixed")
    check(run.config()["data"], DataConfig)
    check(scores, Scores)
    assert set(scores["by_task"]) == {"one", "two"}
    for row in run.outputs(scores["evaluation"]):
        check(row, OutputRow)


def test_a_run_that_waits_or_failed_has_a_status_as_written_down(home) -> None:
    run = runs.create("r", "", {"settings": {}})
    for state, values in (("queued", {}), ("failed", {"error": "no"}), ("running", {"phase": "preparing"})):
        run.write_status(state, **values)
        check(run.status(), Status)
        assert run.status()["state"] in typing.get_args(State)


def test_the_votes_file_has_the_tables_that_are_written_down(home) -> None:
    with sqlite3.connect(Store().path) as db:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        told = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", RUN_FOLDER.split("## votes.sqlite")[1], re.M))
        assert set(told) == {name for name in names if not name.startswith("sqlite_")}
        for table in ("ballots", "typed", "events"):
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({table})")} - {"id"}
            words = set(re.findall(r"`(\w+)`", told[table]))
            shared = set(re.findall(r"`(\w+)`", told["ballots"])) if table == "events" else set()
            assert words <= columns and columns <= words | shared, (table, columns ^ words)
