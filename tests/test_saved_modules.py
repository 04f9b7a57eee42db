"""Embeddings and head trained whole beside LoRA: learned, saved, answered and exported as plain PEFT has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import label_rows
from families import build
from listener import Listener
from safetensors.torch import load_file
from test_resume import at_step

from sftdemo import ExportConfig, export, runs
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.encoding.encode import encode_prompt
from sftdemo.errors import UsageError, UserError
from sftdemo.files import read_json
from sftdemo.inference.load_run import check_together, load
from sftdemo.model import memory_estimate, saved_modules
from sftdemo.model.fresh_answers import greedy
from sftdemo.model.loading import add_adapter, add_lora, load_base, tokenizer
from sftdemo.training import continual, trainer
from sftdemo.training.train import train

SLOW = pytest.mark.slow
EMBEDDINGS, HEAD = "base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"
MESSAGES = [{"role": "user", "content": "the soup 3 was fine and good"}]


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)), encoding="utf-8")
    return {"data": str(path), "model": tiny, "name": "r", "precision": "float32", "learning_rate": 5e-3, "lora_r": 4,
            "modules_to_save": "embeddings", "max_steps": 6}  # fmt: skip


def untied(tokenizer: Any, folder: Path, name: str = "Llama") -> str:
    """A model whose head is a weight of its own."""
    build(name, len(tokenizer), tie_word_embeddings=False)[1].save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def plain_answers(run: runs.Run, quantization: str = "none") -> dict[str, str]:
    """What the base and PEFT's own model of the run's adapter write, greedily."""
    config = run.config()
    names = tokenizer(Path(config["base_model"]))
    ids, answers = encode_prompt(names, MESSAGES), {}
    for side in ("base", "tuned"):
        model = load_base(Path(config["base_model"]), torch.float32, quantization).eval()
        model = add_adapter(model, run.model_path).eval() if side == "tuned" else model
        answers[side] = names.decode(
            greedy(model, [ids], [names.eos_token_id], 12)[0][0], skip_special_tokens=True
        ).rstrip("\ufffd")
    return answers


def check_answers(run: runs.Run, quantization: str = "none") -> None:
    (answers,) = load(run).complete([MESSAGES], GenerateConfig(max_new_tokens=12))
    assert answers == plain_answers(run, quantization) and answers["base"] != answers["tuned"]


def test_a_tied_weight_is_learned_once_and_answers_as_under_plain_peft(settings, tiny):
    heard = Listener()
    summary = train(TrainConfig(**settings, neftune_alpha=5.0), reporter=heard)
    run = runs.find("r")
    saved = load_file(run.model_path / "adapter_model.safetensors")
    before = load_file(Path(tiny) / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(saved[EMBEDDINGS], saved[HEAD]) and not torch.equal(saved[EMBEDDINGS], before)
    assert any("tied weights" in note for note in heard.notes)
    lora = sum(tensor.numel() for name, tensor in saved.items() if ".lora_" in name)
    assert summary["trained_parameters"] == lora + before.numel()
    model = memory_estimate.Model.read(Path(tiny))
    assert model.trained(TrainConfig(**settings)) == summary["trained_parameters"]
    check_answers(run)
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert "modules_to_save" in card


@SLOW
def test_it_goes_on_after_a_stop_to_the_same_weights(settings):
    config = TrainConfig(**settings, lora_dropout=0.2, checkpoint_every=2)
    train(config)
    run = runs.find("r")
    curve, weights = [row.get("loss") for row in run.metrics()], load_file(run.model_path / "adapter_model.safetensors")
    run.delete()
    train(config, reporter=at_step(3, lambda: runs.find("r").ask_to_stop()))
    assert train(TrainConfig(resume="r"))["resumed"] == [3]
    again = load_file(runs.find("r").model_path / "adapter_model.safetensors")
    assert [row.get("loss") for row in runs.find("r").metrics()] == curve
    assert again.keys() == weights.keys() and all(torch.equal(again[key], weights[key]) for key in again)


@SLOW
def test_each_module_that_was_named_is_learned_at_a_tenth_of_the_rate(settings, tokenizer, tmp_path, monkeypatch):
    made, create = [], trainer.SftTrainer.create_optimizer
    monkeypatch.setattr(
        trainer.SftTrainer, "create_optimizer", lambda *arguments: made.append(create(*arguments)) or made[-1]
    )
    folder = untied(tokenizer, tmp_path / "untied")
    for asked, names in (("head", {HEAD}), ("both", {HEAD, EMBEDDINGS})):
        train(TrainConfig(**settings | {"model": folder, "name": asked, "modules_to_save": asked, "max_steps": 2}))
        saved = load_file(runs.find(asked).model_path / "adapter_model.safetensors")
        assert {name for name in saved if ".lora_" not in name} == names
        rates = {group["initial_lr"]: len(group["params"]) for group in made[-1].param_groups if group["params"]}
        assert rates[5e-4] == len(names) and rates[5e-3] > len(names)
        check_answers(runs.find(asked))


@SLOW
@pytest.mark.parametrize(("quantization", "precision"), [("nf4", "float32"), ("none", "bfloat16")])
def test_of_16_and_4_bits_it_is_kept_in_float32(settings, tiny, quantization, precision):
    train(TrainConfig(**settings | {"quantization": quantization, "precision": precision}))
    run = runs.find("r")
    saved = load_file(run.model_path / "adapter_model.safetensors")[EMBEDDINGS]
    before = load_file(Path(tiny) / "model.safetensors")["model.embed_tokens.weight"]
    assert saved.dtype == torch.float32 and 0 < (saved - before).abs().max() < 0.1
    assert not torch.equal(saved, saved.bfloat16().float()), "as precise as it was learned"
    check_answers(run, quantization)


@SLOW
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_export_answers_as_the_run(settings, tmp_path, form):
    train(TrainConfig(**settings))
    exported = export("r", tmp_path / "out", config=ExportConfig(format=form, dtype="float32"))
    assert exported.check and exported.check.exact


def test_a_later_run_goes_on_with_its_embeddings(settings, tiny):
    train(TrainConfig(**settings))
    first = load_file(runs.find("r").model_path / "adapter_model.safetensors")[EMBEDDINGS]
    later = {"data": settings["data"], "from_run": "r", "name": "s", "precision": "bfloat16", "learning_rate": 1e-8}
    config = continual.inherited(TrainConfig(**later), continual.find(TrainConfig(**later)))
    assert config.modules_to_save == "embeddings"
    model = load_base(Path(tiny), torch.bfloat16)
    adapted = add_adapter(model, runs.find("r").model_path, learns=config)
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight, first) and weight.requires_grad and model.get_output_embeddings().weight is weight
    assert model.get_input_embeddings()(torch.tensor([[5]])).dtype == torch.bfloat16
    assert adapted(torch.tensor([[5, 6]])).logits.shape[-1] == len(first)


@SLOW
def test_it_answers_beside_its_base_alone(settings):
    for name, saved in (("r", "embeddings"), ("plain", "none")):
        train(TrainConfig(**settings | {"name": name, "modules_to_save": saved, "max_steps": 1}))
    alone, plain = runs.find("r"), runs.find("plain")
    assert not saved_modules.shares_base(alone) and saved_modules.shares_base(plain)
    for chosen in ([plain, alone], [alone, plain]):
        with pytest.raises(UserError, match="Run r has embeddings or a head of its own"):
            check_together(chosen)


def test_what_cannot_be_is_one_line(settings, tokenizer, tmp_path):
    with pytest.raises(UsageError, match="modules_to_save is for method lora"):
        TrainConfig(**settings | {"method": "full"}).check()
    with pytest.raises(UsageError, match="task seq2seq has no modules_to_save"):
        TrainConfig(**settings | {"task": "seq2seq"}).check()
    build("GPT-2", len(tokenizer))[1].save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match=r"this model's embeddings, transformer\.wte, are its head, too"):
        train(TrainConfig(**settings | {"model": str(tmp_path / "gpt2")}))
    assert not runs.list_runs()


@SLOW
@pytest.mark.parametrize("name", ["Gemma 3 with vision", "Falcon-H1", "Bloom", "GPT-NeoX"])
def test_other_families_keep_them_or_says_that_it_can_not(name, tmp_path):
    """As PEFT itself opens the adapter again."""
    build(name)[1].save_pretrained(tmp_path / "base")
    model = load_base(tmp_path / "base", torch.float32)
    try:
        adapted = add_lora(model, TrainConfig(modules_to_save="both", lora_r=2))
    except UserError as refused:
        assert "are its head, too" in str(refused)
        return
    with torch.no_grad():
        for weights in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            weights += 0.05 * torch.randn_like(weights)
    ids = torch.tensor([[5, 6, 7, 8]])
    wanted = adapted.eval()(input_ids=ids).logits
    adapted.save_pretrained(tmp_path / "adapter")
    again = add_adapter(load_base(tmp_path / "base", torch.float32), tmp_path / "adapter").eval()
    torch.testing.assert_close(again(input_ids=ids).logits, wanted)
    assert read_json(tmp_path / "adapter" / "adapter_config.json")["modules_to_save"]
    torch.testing.assert_close(again.merge_and_unload()(input_ids=ids).logits, wanted, atol=1e-4, rtol=1e-4)
