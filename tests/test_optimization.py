"""Schedule, optimizer, clipping, label smoothing, noise and packing: each does what it says, on every path of the loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import label_rows
from safetensors.torch import load_file
from test_loss import IDS, KEEP, LABELS, WEIGHTS, ask, small
from test_resume import at_step

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.config.train import GPU_OPTIMIZERS
from sftdemo.encoding.packing import Collator
from sftdemo.encoding.rows import Encoded
from sftdemo.errors import UsageError, UserError
from sftdemo.model.loading import add_lora, load_base
from sftdemo.training import embedding_noise, fused_layers, loss, trainer
from sftdemo.training.budget import Budget
from sftdemo.training.train import train


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)), encoding="utf-8")
    return {"data": str(path), "model": tiny, "name": "r", "precision": "float32"}


def curve(run: runs.Run) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name) for name in ("step", "loss", "learning_rate", "eval_loss")) for row in run.metrics()]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("architecture", ["Qwen2", "Gemma2"])
def test_smoothed_labels_give_torch_s_loss_and_gradients(monkeypatch, weights, architecture):
    """Chunked, whole (Gemma2 caps its logits) and weighted; without training it is the plain loss."""
    model = small(architecture)
    logits = model(input_ids=IDS).logits[KEEP].float()
    scale = torch.ones(len(LABELS)) if weights is None else weights

    def wanted(smoothing: float) -> torch.Tensor:
        each = torch.nn.functional.cross_entropy(logits, LABELS, reduction="none", label_smoothing=smoothing)
        return (each * scale).sum()

    wanted(0.2).backward(retain_graph=True)
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]
    loss.enable(model, 0.2)
    monkeypatch.setattr(loss, "LOGIT_FLOATS", 2 * logits.shape[-1])
    model.train()
    smoothed, found = ask(model, weights)
    torch.testing.assert_close(smoothed, wanted(0.2).detach())
    for gradient, other in zip(gradients, found, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ask(model.eval(), weights)[0], wanted(0.0).detach())


ROWS = [Encoded(list(range(5, 5 + n)), [False] * 2 + [True] * (n - 2), 2) for n in (6, 10)]


@pytest.mark.parametrize("packed", [True, False])
def test_noise_is_as_large_as_the_row_is_short_and_only_in_training(tiny, packed):
    model = load_base(Path(tiny), torch.float32)
    noise = embedding_noise.EmbeddingNoise(5.0)
    noise.begin(model.get_input_embeddings())
    loss.enable(model, 0.0, noise)
    lora = add_lora(model, TrainConfig())
    fused_layers.fuse(lora)
    seen: list[torch.Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda module, ids, output: seen.append(output.detach()))
    batch = Collator(packed, noisy=True)(ROWS)
    assert batch.get("packing", (0,))[0] == 0, "no row shares another's noise"
    batch.pop("row_tokens")
    lora.train()(**batch)
    lora.eval()(**batch)
    difference = (seen[0] - seen[1]).abs()
    plain = torch.nn.functional.embedding(batch["input_ids"], model.get_input_embeddings().weight)
    assert torch.equal(seen[1], plain)
    lengths = [len(row.inputs) for row in ROWS]
    parts = difference[0].split(lengths) if packed else [difference[n, :length] for n, length in enumerate(lengths)]
    for part, length in zip(parts, lengths, strict=True):
        most = 5.0 / math.sqrt(length * difference.shape[-1])
        assert 0.9 * most < part.max() <= most


@pytest.mark.slow
def test_a_row_reads_the_same_packed_or_padded(settings):
    """The same curve but for rounding, also in two batches a step and with smoothed labels."""
    losses = []
    for name, changes in (("a", {}), ("b", {"packing": False}), ("c", {"batch_size": 4, "gradient_accumulation": 2})):
        train(TrainConfig(**settings | {"name": name, "label_smoothing": 0.1, "learning_rate": 5e-3, **changes}))
        losses.append([row["loss"] for row in runs.find(name).metrics() if "loss" in row])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[2] == pytest.approx(losses[0], rel=1e-4)


OPTIMIZERS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "adamw": ({"beta1": 0.8, "beta2": 0.95}, "AdamW", {"betas": (0.8, 0.95), "lr": 5e-4}),
    "adam": ({"beta1": 0.8, "beta2": 0.95}, "Adam", {"betas": (0.8, 0.95), "lr": 5e-4}),
    "sgd": ({"beta1": 0.8}, "SGD", {"momentum": 0.8, "lr": 0.1}),
    "adafactor": ({}, "Adafactor", {"relative_step": False, "scale_parameter": False, "lr": 5e-4}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_gets_what_was_asked_for_and_goes_on_after_a_stop(settings, name, monkeypatch):
    """With noise and dropout, whose random numbers go on as well."""
    changes, kind, wanted = OPTIMIZERS[name]
    made, create = [], trainer.SftTrainer.create_optimizer
    monkeypatch.setattr(
        trainer.SftTrainer, "create_optimizer", lambda *arguments: made.append(create(*arguments)) or made[-1]
    )
    chosen = {"optimizer": name, "weight_decay": 0.01, "neftune_alpha": 5, "lora_dropout": 0.1, "schedule": "cosine"}
    config = TrainConfig(**settings | chosen | changes, max_steps=5)
    train(config)
    optimizer = getattr(made[0], "optimizer", made[0])
    assert type(optimizer).__name__ == kind and optimizer.param_groups[0]["weight_decay"] == 0.01
    assert {key: optimizer.defaults[key] for key in wanted} == wanted
    whole, weights = curve(runs.find("r")), load_file(runs.find("r").model_path / "adapter_model.safetensors")
    runs.find("r").delete()
    train(config, reporter=at_step(3, lambda: runs.find("r").ask_to_stop()))
    assert train(TrainConfig(resume="r"))["resumed"] == [3]
    assert curve(runs.find("r")) == whole
    resumed = load_file(runs.find("r").model_path / "adapter_model.safetensors")
    assert all(torch.equal(resumed[key], weights[key]) for key in weights)


@pytest.mark.parametrize("limit", [1e-3, pytest.param(0.0, marks=pytest.mark.slow)])
def test_gradients_are_clipped_to_the_norm_that_was_set(settings, limit):
    """A step of plain SGD moves the weights by rate times gradient; LoRA's B begins at 0, and A then has no gradient."""
    one_step = {"optimizer": "sgd", "beta1": 0.0, "schedule": "constant", "warmup_steps": 0, "max_steps": 1}
    train(TrainConfig(**settings | one_step, max_grad_norm=limit, learning_rate=0.5))
    weights = load_file(runs.find("r").model_path / "adapter_model.safetensors")
    moved = math.sqrt(sum(float(weight.square().sum()) for key, weight in weights.items() if "lora_B" in key))
    assert moved == pytest.approx(0.5 * limit, rel=1e-3) if limit else moved > 0.01


@pytest.mark.slow
def test_the_schedule_is_the_one_that_was_set(settings):
    def rates(**changes: Any) -> list[float]:
        train(TrainConfig(**settings | {"learning_rate": 1.0, "max_steps": 4, "label_smoothing": 0.1, **changes}))
        run = runs.find("r")
        found = [row["learning_rate"] for row in run.metrics() if "loss" in row]
        run.delete()
        return found

    assert rates(schedule="constant", warmup_steps=2) == pytest.approx([0, 0.5, 1, 1])
    assert rates(schedule="cosine", warmup_steps=0) == pytest.approx(
        [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    )


@pytest.mark.parametrize(
    ("schedule", "changes", "rates"),
    [
        ("linear", {"warmup_ratio": 0.0}, [1, 0.5, 0]),
        ("cosine", {"warmup_ratio": 0.0}, [1, 0.5, 0]),
        ("constant", {"warmup_ratio": 0.75}, [0.1, 2 / 3, 1]),
        ("linear", {"warmup_steps": 4}, [0.1, 0.25, 0]),
    ],
)
def test_a_budget_of_minutes_has_the_same_schedules(schedule, changes, rates):
    budget = Budget(60, 0.0, 0.0)
    found = []
    for step, share in ((0, 0.0), (2, 0.5), (4, 1.0)):
        budget.share = share
        found.append(budget.rate(TrainConfig(schedule=schedule, **changes), step))
    assert found == pytest.approx(rates)


def test_what_would_do_nothing_is_refused_before_anything_is_written(settings, home):
    for changes, fault in (
        ({"optimizer": "sgd", "beta2": 0.9}, "optimizer sgd has no beta2; leave it at 0.999"),
        ({"optimizer": "adafactor", "beta1": 0.5}, "optimizer adafactor has no beta1; leave it at 0.9"),
    ):
        with pytest.raises(UsageError, match=fault):
            TrainConfig(**settings | changes).check()
    with pytest.raises(UserError, match="warmup_steps is 50, and the training has 6 steps"):
        train(TrainConfig(**settings, warmup_steps=50))
    if not torch.cuda.is_available():
        for name in GPU_OPTIMIZERS:
            with pytest.raises(UserError, match=f"optimizer {name} needs a GPU, and there is none; choose adamw"):
                train(TrainConfig(**settings, optimizer=name))
    assert not runs.list_runs()
