"""Kinds of LoRA: each trains as PEFT has it, and its model answers side by side as it does alone under plain PEFT."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import label_rows
from safetensors.torch import load_file
from test_resume import at_step

from sftdemo import ExportConfig, export, runs
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.encoding.encode import encode_prompt
from sftdemo.encoding.examples import encode_all
from sftdemo.encoding.packing import Collator
from sftdemo.errors import UsageError, UserError
from sftdemo.files import read_json
from sftdemo.inference import adapters
from sftdemo.inference.load_run import load
from sftdemo.model.fresh_answers import greedy
from sftdemo.model.loading import add_adapter, load_base, tokenizer
from sftdemo.training import loss, trainer
from sftdemo.training.train import train


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)), encoding="utf-8")
    return {"data": str(path), "model": tiny, "name": "r", "precision": "float32", "learning_rate": 5e-3, "lora_r": 4}


KINDS: dict[str, dict[str, Any]] = {
    "rslora": {"rslora": True, "lora_targets": "q_proj, down_proj"},
    "dora": {"dora": True, "lora_dropout": 0.1},
    "dora_nf4": {"dora": True, "quantization": "nf4"},
    "pissa": {"pissa": True, "rslora": True},
    "lora_plus": {"lora_plus_ratio": 16.0},
}


def eval_loss(run: runs.Run, base: str) -> float:
    """Of the run's model under plain PEFT, in nats a token of its validation rows."""
    model = load_base(Path(base), torch.float32, run.config()["settings"]["quantization"])
    loss.enable(model)
    rows = encode_all(run.examples("validation"), tokenizer(Path(base)), "stop", "").rows
    batch = Collator(packed=False)(list(rows))
    batch.pop("row_tokens")
    with torch.no_grad():
        return float(add_adapter(model, run.model_path).eval()(**batch)) / len(batch["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_side_by_side_as_under_plain_peft_and_goes_on_after_a_stop(settings, tiny, kind):
    config = TrainConfig(**settings | KINDS[kind], max_steps=5)
    summary = train(config)
    run = runs.find("r")
    losses = [row.get("loss", row.get("eval_loss")) for row in run.metrics()]
    weights = load_file(run.model_path / "adapter_model.safetensors")
    names = tokenizer(Path(tiny))
    messages = [{"role": "user", "content": "the soup 3 was fine and good"}]
    ids = encode_prompt(names, messages)
    base = load_base(Path(tiny), torch.float32, config.quantization).eval()
    (base_tokens,), _ = greedy(base, [ids], [names.eos_token_id], 12)
    (tokens,), _ = greedy(add_adapter(base, run.model_path).eval(), [ids], [names.eos_token_id], 12)
    (answers,) = load("r").complete([messages], GenerateConfig(max_new_tokens=12))
    assert answers["tuned"] == names.decode(tokens, skip_special_tokens=True)
    assert answers["base"] == names.decode(base_tokens, skip_special_tokens=True) != answers["tuned"]
    assert eval_loss(run, tiny) == pytest.approx(summary["eval_loss"], rel=1e-4), (
        "it has the loss that training measured"
    )
    run.delete()
    train(config, reporter=at_step(3, lambda: runs.find("r").ask_to_stop()))
    assert train(TrainConfig(resume="r"))["resumed"] == [3]
    assert [row.get("loss", row.get("eval_loss")) for row in runs.find("r").metrics()] == losses
    again = load_file(runs.find("r").model_path / "adapter_model.safetensors")
    assert again.keys() == weights.keys() and all(torch.equal(again[key], weights[key]) for key in again)


def test_what_is_trained_and_how_fast_is_as_it_was_set(settings, monkeypatch):
    made, create = [], trainer.SftTrainer.create_optimizer
    monkeypatch.setattr(
        trainer.SftTrainer, "create_optimizer", lambda *arguments: made.append(create(*arguments)) or made[-1]
    )
    chosen = {"lora_targets": "q_proj, mlp.down_proj", "lora_plus_ratio": 8.0, "rslora": True, "weight_decay": 0.1}
    summary = train(TrainConfig(**settings | chosen, max_steps=1))
    assert summary["lora_targets"] == ["down_proj", "q_proj"]
    adapter = read_json(runs.find("r").model_path / "adapter_config.json")
    assert adapter["use_rslora"] and adapter["r"] == 4
    rates = {group["initial_lr"] for group in made[0].param_groups for _ in group["params"]}
    assert rates == {5e-3, 4e-2}
    assert {group["weight_decay"] for group in made[0].param_groups if group["params"]} == {0.1}


def test_the_sizes_of_dora_learn_at_the_plain_rate_and_are_not_drawn_to_zero(settings, monkeypatch):
    made, create = [], trainer.SftTrainer.create_optimizer
    monkeypatch.setattr(
        trainer.SftTrainer, "create_optimizer", lambda *arguments: made.append(create(*arguments)) or made[-1]
    )
    for ratio in (8.0, 1.0):
        train(
            TrainConfig(
                **settings | {"name": f"d{ratio:g}"}, dora=True, weight_decay=0.1, lora_plus_ratio=ratio, max_steps=1
            )
        )
        [sizes] = [
            group
            for group in made[-1].param_groups
            if group["params"] and all(each.dim() == 1 for each in group["params"])
        ]
        assert (sizes["initial_lr"], sizes["weight_decay"]) == (5e-3, 0.0)


def test_the_sizes_of_dora_stay_precise_where_answers_are_made_in_bfloat16():
    output = torch.full((2, 3), 4.0, dtype=torch.bfloat16)
    factor = torch.tensor([1.0035, 0.9965, 1.0])  # bfloat16 has nothing between 0.9961, 1 and 1.0078
    rescaled = adapters._rescaled(output * 100, (factor, torch.zeros(3)))
    assert rescaled.tolist()[0] == [402.0, 398.0, 400.0] and rescaled.dtype == torch.bfloat16


def test_pissa_begins_at_the_base_and_is_saved_as_plain_lora(settings):
    first = train(TrainConfig(**settings | {"name": "plain"}, max_steps=1))["first_eval_loss"]
    summary = train(TrainConfig(**settings, pissa=True, rslora=True, max_steps=1))
    assert summary["first_eval_loss"] == pytest.approx(first, rel=1e-4)
    adapter = read_json(runs.find("r").model_path / "adapter_config.json")
    assert (adapter["r"], adapter["use_rslora"], adapter["init_lora_weights"]) == (8, False, True)
    assert adapter["lora_alpha"] / 8 == pytest.approx(32 / math.sqrt(4))


def test_what_cannot_be_is_one_line(settings):
    for changes, fault in (
        ({"method": "full", "rslora": True}, "rslora is for method lora; leave it out, or choose lora"),
        ({"dora": True, "quantization": "int8"}, "dora can't learn beside int8 weights; use quantization nf4"),
        ({"dora": True, "pissa": True}, "pissa changes the weights whose sizes dora learns"),
        ({"quantization": "nf4", "pissa": True}, "pissa takes the weights apart, and nf4 weights can't be"),
    ):
        with pytest.raises(UsageError, match=fault):
            TrainConfig(**settings | changes).check()
    with pytest.raises(UserError, match=r"lora_r is 200, and pissa takes at most \d+ of this model's weights"):
        train(TrainConfig(**settings | {"lora_r": 200}, pissa=True))
    assert not runs.list_runs()
    for names, unknown in (("q_proj,nothing", "nothing"), (" , ", " , ")):
        with pytest.raises(
            UserError, match=f"lora_targets names '?{unknown}'?; the model's linear layers are: .*q_proj"
        ):
            train(TrainConfig(**settings, lora_targets=names))
        assert not runs.list_runs(), "said before there is a run"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), [("dora", "merged")])
def test_it_leaves_as_it_answers(settings, tmp_path, kind, form):
    """The export is opened again in a process of its own, and every token has to be the run's."""
    train(TrainConfig(**settings | KINDS[kind], max_steps=8))
    exported = export("r", tmp_path / "out", config=ExportConfig(format=form, dtype="float32"))
    assert exported.check and exported.check.exact
