"""The run itself in fewer bits, on the rows of its evaluation: what it answers, weighs, and what is left on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import home_at, label_rows

from sftdemo import EvaluateConfig, evaluate, files, runs, train
from sftdemo.cli.commands import table
from sftdemo.config import TrainConfig
from sftdemo.evaluation.systems_table import QUANTIZED
from sftdemo.inference.merged import adapter_base, save
from sftdemo.model import fresh_answers, fresh_process, memory_estimate
from sftdemo.model.loading import load_base
from sftdemo.systems.quantized import LOADED, NAMES


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """A home with a LoRA run `r`."""
    path = tmp_path_factory.mktemp("quantized")
    files.write_jsonl(path / "r.jsonl", label_rows(60))
    with home_at(path / "home"):
        train(TrainConfig(data=str(path / "r.jsonl"), model=tiny, name="r", learning_rate=5e-3, epochs=2.0))
    return path / "home"


def answered_here(question: dict[str, Any], path: Path, runtime: str, **_: Any) -> dict[str, Any]:
    """In this process, which saves seconds; the slow test has the real one."""
    assert path.is_file()
    return fresh_answers.by_transformers(question | {"path": str(path), "base": "", "quantization": "none"})


@pytest.mark.slow
def test_the_run_in_fewer_bits_answers_the_same_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_process, "ask", answered_here)
    monkeypatch.setattr(fresh_process, "runtime_for", lambda form: "transformers")
    with home_at(home):
        scores = evaluate("r", EvaluateConfig(against="merged,int8,nf4,gguf-q8_0"))
        run, systems = runs.find("r"), scores["systems"]
        outputs = run.outputs(scores["evaluation"])
        kept = list(files.read_jsonl(run.path / "evaluations" / systems["merged"]["answers"]))
        assert [row["answer"] for row in kept] == [row["tuned"] for row in outputs], "merged is the run, asked alone"
        assert systems["merged"]["difference"]["accuracy"]["delta"] == 0
        sizes = [systems[name]["bytes"] for name in ("merged", "int8", "nf4")]
        assert scores["bytes"]["tuned"] == sizes[0] > sizes[1] > sizes[2] > 0
        assert all(systems[name]["ms_per_answer"] > 0 for name in ("merged", "int8", "nf4"))
        assert "ms_per_answer" not in systems["gguf-q8_0"], "another runtime's time tells nothing of llama.cpp's"
        assert systems["gguf-q8_0"]["about"] == {"runtime": "transformers, one row at a time"}
        assert len(list(files.read_jsonl(run.path / "evaluations" / systems["gguf-q8_0"]["answers"]))) == scores["n"]
        assert not list(run.path.glob(".quantized-*")), "nothing is left"
        assert all(name in table(scores) for name in systems)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_sizes_are_those_of_the_loaded_weights(home: Path, tmp_path: Path, kind: str) -> None:
    with home_at(home):
        run = runs.find("r")
        save(run, adapter_base(run), tmp_path)
    model = load_base(tmp_path, torch.float32, LOADED[kind])
    plain = {id(weights): weights for weights in model.parameters() if weights.is_floating_point()}
    codes = {id(weights): weights for weights in model.parameters() if not weights.is_floating_point()}
    codes_bytes = sum(weights.numel() * weights.itemsize for weights in codes.values())
    scales = codes_bytes // 8 if kind == "nf4" else sum(4 * weights.shape[0] for weights in codes.values())
    loaded = codes_bytes + scales + sum(2 * weights.numel() for weights in plain.values())
    assert memory_estimate.Model.read(tmp_path).weights(2, kind) == loaded


def test_the_page_and_the_command_have_the_same_ones() -> None:
    assert tuple(QUANTIZED) == NAMES


@pytest.mark.slow
def test_llama_cpp_answers_and_its_time_is_told(home: Path) -> None:
    pytest.importorskip("xllamacpp")
    with home_at(home):
        scores = evaluate("r", EvaluateConfig(against="gguf-q8_0,gguf-q4_0"))
        for name in ("gguf-q8_0", "gguf-q4_0"):
            assert scores["systems"][name]["ms_per_answer"] > 0
            assert scores["systems"][name]["about"]["runtime"].startswith("llama.cpp")
        assert scores["systems"]["gguf-q8_0"]["scores"]["accuracy"] == scores["tuned"]["accuracy"]
