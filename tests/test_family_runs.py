"""Each family of models from data to an evaluation, with rounded weights and checkpointing, too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, build
from peft import PeftModel

from sftdemo import runs
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.encoding.encode import encode
from sftdemo.model import loading
from sftdemo.model.loading import tokenizer as tokenizer_of
from sftdemo.training import packed_attention
from sftdemo.training.train import train
from sftdemo.verbs.evaluate import evaluate
from tests.test_families import SETTINGS, data, folder, plain, summed_loss  # noqa: F401 (fixtures)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("Llama", set()),
        ("Mamba", {"x_proj", "dt_proj", "out_proj"}),
        ("Granite 4 hybrid", {"out_proj"}),
        ("Qwen3.5", set()),
        ("LFM2", set()),
        ("Gemma 4 with experts", {"proj"}),
        ("Qwen3-Next", {"shared_expert_gate", "gate_proj", "up_proj", "down_proj"}),
        ("GPT-2", set()),
    ],
)
def test_lora_stands_beside_layers_that_are_called(name, left_out):
    """Not beside Mamba's that kernels read, routers, or names that PEFT takes for experts; never beside an experts' tensor."""
    base = build(name)[1]
    linear = {path.split(".")[-1] for path, module in base.named_modules() if "Linear" in type(module).__name__}
    model = loading.add_lora(base, TrainConfig(**SETTINGS))
    targeted = {name.rpartition(".")[2] for name in model.targeted_module_names}
    assert linear - targeted - {"lm_head"} == left_out
    assert not model.targeted_parameter_names


def check_run(summary: Any, base: Path, quantization: str = "none") -> None:
    """The validation loss is that of transformers and PEFT on what was saved."""
    run = runs.find(summary["run"])
    examples = [json.loads(line) for line in (run.path / "data" / "validation.jsonl").read_text("utf-8").splitlines()]
    rows = [encode(tokenizer_of(run.model_path), example["messages"]) for example in examples]
    if quantization == "none":
        alone, near = plain(base, run.model_path), 1e-5
    else:  # inputs that lie between two steps of 8 bits may be rounded to either
        rounded = loading.load_base(base, torch.float32, quantization)
        alone, near = PeftModel.from_pretrained(rounded, str(run.model_path)).eval(), 2e-3
    with torch.no_grad():
        total = sum(summed_loss(alone, row).item() for row in rows)
    assert summary["eval_loss"] == pytest.approx(total / sum(sum(row.supervised) for row in rows), rel=near)
    assert summary["eval_loss"] != summary["first_eval_loss"]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_run_from_data_to_evaluation(name, folder, data):  # noqa: F811
    """As people do it: train, then base and tuned answer what was held out, and labels are scored."""
    config = TrainConfig(
        data=data, model=str(folder(name)), epochs=2.0, learning_rate=1e-2, precision="float32", **SETTINGS
    )
    summary = train(config)
    check_run(summary, folder(name))
    scores = evaluate(summary["run"], EvaluateConfig(max_new_tokens=8))
    assert scores["n"] == 4


@pytest.mark.parametrize(
    ("method", "quantization"), [("lora", "int8"), ("lora", "nf4"), ("lora", "none"), ("full", "none")]
)
@pytest.mark.parametrize("name", ["Gemma 3", "Qwen3-MoE", "Qwen3.5"])
def test_rounded_weights_and_checkpoints(name, method, quantization, folder, data):  # noqa: F811
    """With windows and tied embeddings, experts, and recurrences; checkpointing changes no loss of a step."""
    given = {"method": method, "quantization": quantization, "precision": "float32", "epochs": 2.0, **SETTINGS}
    asked = TrainConfig(data=data, model=str(folder(name)), learning_rate=1e-3, **given)
    kept, made_again = train(asked), train(replace(asked, gradient_checkpointing=True))
    for summary in (kept, made_again):
        check_run(summary, folder(name), quantization)
    near = 1e-5 if quantization == "none" else 2e-3
    assert kept["eval_loss"] == pytest.approx(made_again["eval_loss"], rel=near)


def test_a_recurrence_too_faint_for_the_trial_is_not_packed_either():
    """Where numbers have 16 bits, the trial must let a little pass."""
    _, model = build("LFM2")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "conv.out_proj" in name:
                parameter.mul_(0.001)
    assert not packed_attention.enable(model.bfloat16())
