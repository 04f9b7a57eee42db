"""Encoders to take away: opened by transformers they label as the run does, or nothing is left."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from dataclasses import replace

import encoders as tiny_encoders
import pytest
from conftest import label_rows
from huggingface_hub import ModelCard
from listener import Impatient
from test_tokens import entity_rows
from transformers import pipeline

from sftdemo import export, runs
from sftdemo.config.export import ExportConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UserError
from sftdemo.inference import kinds
from sftdemo.model import encoders, fresh_labels
from sftdemo.model.label_facts import LabelFacts
from sftdemo.training.train import train
from sftdemo.ui.tabs.export import formats
from sftdemo.verbs import encoder_export

pytestmark = pytest.mark.slow

ROWS = {"classification": label_rows, "tokens": entity_rows}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A home, and what trains a run of a task and a method in it, once."""
    folder = tmp_path_factory.mktemp("exported")
    models = {family: tiny_encoders.make(family, folder / family) for family in ("bert", "modernbert")}

    def run(task: str, method: str, pooling: str = "mean", family: str = "bert") -> str:
        name = f"{task}-{method}-{pooling}-{family}"
        if name not in {known.name for known in runs.list_runs()}:
            data = folder / f"{name}.jsonl"
            data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[task](40)), encoding="utf-8")
            steps = {} if method == "frozen" else {"learning_rate": 3e-3, "max_steps": 3}
            own = {"pooling": pooling} if task == "classification" else {}
            settings = {"model": models[family], "task": task, "method": method, **steps, **own}
            train(TrainConfig(data=str(data), name=name, **settings))
        return name

    return folder / "home", run


@pytest.fixture
def run(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    return trained[1]


@pytest.fixture
def answered_here(monkeypatch) -> None:
    """The question is answered in this process, which saves seconds; the slow test has the real one."""

    def ask(question, path, runtime, base, should_stop):
        return fresh_labels.by_pipeline(question | {"path": str(path), "base": str(base or "")})

    monkeypatch.setattr(encoder_export, "ask", ask)


KINDS = [("tokens", "lora", "adapter"), ("tokens", "lora", "merged"), ("tokens", "full", "merged")]
KINDS += [("classification", method, form) for _, method, form in KINDS]


@pytest.mark.parametrize(
    ("task", "method", "form"),
    [pytest.param(*kind, marks=[pytest.mark.slow] * (number > 1)) for number, kind in enumerate(KINDS)],
)
def test_an_export_labels_as_its_run(run, answered_here, tmp_path, task, method, form):
    exported = export(run(task, method), tmp_path / "out", config=ExportConfig(format=form))
    assert exported.check.exact and exported.check.rows == 10
    card = (tmp_path / "out" / "README.md").read_text()
    assert str(exported.sentence) in card and f"{fresh_labels.TASKS[task]}" in card
    assert not (tmp_path / "out" / "frozen_head.safetensors").exists()
    written = [path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix in (".md", ".json")]
    assert not any(str(runs.home().parent) in text for text in written)
    if form == "adapter":
        assert "AutoPeftModelFor" in card and "id2label" in card
    else:
        labels = pipeline(fresh_labels.TASKS[task], str(tmp_path / "out")).model.config.id2label
        assert list(labels.values()) == LabelFacts.read(runs.find(run(task, method)).model_path).labels


@pytest.mark.parametrize(
    ("task", "pooling"), [("tokens", "mean"), ("classification", "mean"), ("classification", "cls")]
)
def test_a_frozen_encoder_and_its_head_are_one_model(run, answered_here, tmp_path, monkeypatch, task, pooling):
    name = run(task, "frozen", pooling)
    exported = export(name, tmp_path / "out")
    assert exported.format == "merged" and exported.check.exact and exported.check.rows == 10
    card = ModelCard.load(tmp_path / "out" / "README.md")
    code = re.search(r"```python\n(.*?)\n```", card.text, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path / "out")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code.replace("…", "the film was good and bad"), {})
    if task == "tokens":
        assert card.data.pipeline_tag == "token-classification" and "aggregation_strategy" in code
        return
    # Its pipeline would put a new head before the labels.
    assert card.data.pipeline_tag is None and "pipeline(" not in card.text
    models = kinds.load(runs.find(name))
    models = replace(models, facts=replace(models.facts, temperatures={"base": 1.0, "tuned": 1.0}))
    (own,) = models.label(["the film was good and bad"], "tuned")
    assert ast.literal_eval(printed.getvalue()) == pytest.approx(own, abs=1e-4)


def test_which_families_take_a_linear_head(trained):
    linear = {family: encoders.has_linear_head(trained[0].parent / family) for family in ("bert", "modernbert")}
    assert linear == {"bert": True, "modernbert": False}


def test_what_no_pipeline_opens_is_refused_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="only chat models are written as GGUF; export it as merged"):
        export(run("tokens", "lora"), tmp_path / "out", config=ExportConfig(format="gguf-q8_0"))
    with pytest.raises(UserError, match="get more than a linear head from transformers; train with method lora"):
        export(run("classification", "frozen", family="modernbert"), tmp_path / "out")
    frozen = run("tokens", "frozen")
    with pytest.raises(UserError, match="has no adapter; export it as merged"):
        export(frozen, tmp_path / "out", config=ExportConfig(format="adapter"))
    assert not list(tmp_path.iterdir())
    assert formats(runs.find(run("tokens", "lora"))) == ["adapter", "merged"]
    assert formats(runs.find(frozen)) == ["merged"]


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_an_export_that_is_stopped_leaves_nothing(run, answered_here, tmp_path, looks):
    """Before the run is asked, and before and after its files are written."""

    with pytest.raises(KeyboardInterrupt):
        export(run("tokens", "lora"), tmp_path / "out", merge=True, reporter=Impatient(looks))
    assert not list(tmp_path.iterdir())


def test_an_export_that_labels_otherwise_leaves_nothing(run, tmp_path, monkeypatch):
    def ask(question, path, runtime, base, should_stop):
        return {"answers": [{"answer": ["other"], "scores": [0.5]} for _ in question["texts"]]}

    monkeypatch.setattr(encoder_export, "ask", ask)
    with pytest.raises(UserError, match="0 of 10 rows are the same"):
        export(run("tokens", "lora"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_export_is_opened_in_a_new_process(run, tmp_path):
    assert export(run("classification", "lora"), tmp_path / "adapter").check.exact
    assert export(run("classification", "frozen"), tmp_path / "frozen").check.exact
