"""Selective tuning: what `train_only` names is trained, and everything else stays as it was, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import label_rows
from families import FAMILIES, build
from listener import Listener
from safetensors.torch import load_file
from test_resume import at_step

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.inference.load_run import load
from sftdemo.model import memory_estimate, selection
from sftdemo.training.train import train


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)), encoding="utf-8")
    return {"data": str(path), "model": tiny, "name": "r", "precision": "float32", "method": "full", "max_steps": 3,
            "learning_rate": 1e-3}  # fmt: skip


def changed(run: runs.Run, base: str) -> set[str]:
    """The tensors that aren't bit for bit the base's."""
    before, after = load_file(Path(base) / "model.safetensors"), load_file(run.model_path / "model.safetensors")
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("norms, last=1", lambda name: "norm" in name or ".1." in name),
        pytest.param(
            "layers=0, self_attn.q_proj", lambda name: ".0." in name or "q_proj" in name, marks=pytest.mark.slow
        ),
        pytest.param("head", lambda name: "embed_tokens" in name, marks=pytest.mark.slow),
    ],
)
def test_only_what_was_named_is_trained(settings, tiny, asked, wanted):
    notes = Listener()
    summary = train(TrainConfig(**settings, train_only=asked), reporter=notes)
    names = load_file(Path(tiny) / "model.safetensors")
    expected = {name for name in names if wanted(name)}
    assert changed(runs.find("r"), tiny) == expected
    assert summary["trained_parameters"] == sum(names[name].numel() for name in expected)
    assert any(f"Trained: {summary['trained_parameters']:,} of " in text for text in notes.notes)
    assert any("tied weights" in text for text in notes.notes) == (asked == "head")


@pytest.mark.slow
def test_its_run_answers_and_goes_on_after_a_stop(settings, tiny):
    config = TrainConfig(**settings, train_only="last=1", weight_decay=0.1)
    train(config)
    whole = load_file(runs.find("r").model_path / "model.safetensors")
    (answers,) = load("r").complete([[{"role": "user", "content": "the soup was fine and good"}]])
    assert set(answers) == {"base", "tuned"}
    runs.find("r").delete()
    train(config, reporter=at_step(2, lambda: runs.find("r").ask_to_stop()))
    assert train(TrainConfig(resume="r"))["resumed"] == [2]
    resumed = load_file(runs.find("r").model_path / "model.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def by_modules(model: Any) -> dict[str, set[str]]:
    """What the groups mean by the model's own modules."""
    parameters = dict(model.named_parameters())
    decoder = next(path for path, module in model.named_modules() if module is model.get_decoder())
    inside = [path for path, _ in model.named_modules() if path.startswith(decoder) and path.rpartition(".")[2] == "0"]
    first = min(inside, key=lambda path: path.count(".")).rpartition(".")[0]
    count = len(model.get_submodule(first))
    return {
        "embeddings": set(selection._names_of(model.get_input_embeddings(), parameters)),
        "head": set(selection._names_of(model.get_output_embeddings(), parameters)),
        "norms": {
            f"{path}.{leaf}"
            for path, module in model.named_modules()
            if "norm" in type(module).__name__.lower() and path.startswith(decoder)
            for leaf, _ in module.named_parameters(recurse=False)
        },
        f"layers=0-{count - 1}": {name for name in parameters if name.startswith(first)},
        "last=1": {name for name in parameters if name.startswith(f"{first}.{count - 1}.")},
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "Bloom")) for name in FAMILIES]
)
def test_groups_are_what_each_family_s_model_says_they_are(name):
    """By the names alone, as the estimate of memory sees them, and by the model's own modules."""
    _, model = build(name)
    names = [name for name, _ in model.named_parameters()]
    wanted = by_modules(model)
    assert {group: selection.select([group], names) for group in wanted} == wanted


def test_the_estimate_counts_only_what_is_trained(tiny):
    model = memory_estimate.Model.read(Path(tiny))
    rows = memory_estimate.LengthStatistics([100] * 8, [10] * 8)

    def needed(train_only: str | None) -> memory_estimate.Estimate:
        return memory_estimate.estimate(model, TrainConfig(method="full", train_only=train_only, max_steps=9), rows, 4)

    whole, last, norms = needed(None), needed("last=1"), needed("norms")
    assert norms.optimizer < last.optimizer < whole.optimizer and last.activations < whole.activations
    assert norms.activations == whole.activations  # the first layer's norms need all that comes after
    assert needed("embeddings").optimizer == 3 * 4 * model.vocabulary * model.hidden


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"method": "lora"}, "train_only chooses among the model's own weights, and lora trains none of them"),
        ({"quantization": "nf4"}, "method full can't train nf4 weights"),
        ({"train_only": " , "}, "train_only is empty; name what is trained: .*embeddings"),
        ({"train_only": "layers=3-1"}, r"train_only has 'layers=3-1'; write layers=0-9"),
        ({"train_only": "last=0"}, "train_only has 'last=0'"),
        ({"train_only": "layers=two"}, "train_only has 'layers=two'"),
    ],
)
def test_what_cannot_be_is_one_line(settings, changes, fault):
    with pytest.raises(UsageError, match=fault):
        TrainConfig(**settings | {"train_only": "last=1"} | changes).check()


@pytest.mark.parametrize("part", ["layers=1-2", "last=3", "lm_haed", "*.nothing"])
def test_a_part_that_the_model_lacks_is_refused_before_there_is_a_run(settings, part):
    with pytest.raises(UserError, match=r"which the model doesn't have; it has the layers 0 to 1, and: .*q_proj"):
        train(TrainConfig(**settings, train_only=part))
    assert not runs.list_runs()
