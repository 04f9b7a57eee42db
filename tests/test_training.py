"""Real trainings of a tiny model: every mode learns, leaves exactly its files, stops when told, and fails in words."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sftdemo import data, runs
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.config.export import ExportConfig
from sftdemo.encoding.examples import encode_all
from sftdemo.encoding.packing import ShardedBatchSampler
from sftdemo.errors import DataError, UserError
from sftdemo.inference import load_run
from sftdemo.model import loading
from sftdemo.system import compute
from sftdemo.training.prepare import Prepared
from sftdemo.training.train import train
from sftdemo.verbs.evaluate import evaluate
from sftdemo.verbs.export import export
from tests.listener import Impatient, Listener

MODES = [
    pytest.param(
        method, quantization, id=f"{method}-{quantization}", marks=[pytest.mark.slow] * (quantization != "none")
    )
    for method, quantization in (("lora", "none"), ("lora", "int8"), ("lora", "nf4"), ("full", "none"))
]


def config(labelled: str, tiny: str, **changes) -> TrainConfig:
    settings = {"data": labelled, "model": tiny, "name": "r", "epochs": 4.0, "learning_rate": 5e-3}
    settings |= {"precision": "float32", **changes}  # the same figures on any processor
    return TrainConfig.from_json(settings)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("method", "quantization"), MODES)
def test_every_mode_learns_and_can_be_talked_to(labelled, tiny, method, quantization):
    before = load_file(f"{tiny}/model.safetensors")
    summary = train(config(labelled, tiny, method=method, quantization=quantization))
    run = runs.find("r")
    assert summary["status"] == run.status()["state"] == "finished"
    assert summary["eval_loss"] < 0.7 * summary["first_eval_loss"]
    assert summary["steps"] == 4 * 9 and summary["tokens_per_s"] > 0
    weights = {
        "lora": {"adapter_model.safetensors", "adapter_config.json"},
        "full": {"model.safetensors", "config.json"},
    }
    words = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"}
    assert files(run.model_path) == weights[method] | words
    assert files(run.path) - {f"model/{name}" for name in files(run.model_path)} == {
        "config.json", "status.json", "metrics.jsonl", "README.md",
        "data/train.jsonl", "data/validation.jsonl", "data/test.jsonl",
    }  # fmt: skip
    for name, tensor in load_file(f"{tiny}/model.safetensors").items():
        assert torch.equal(tensor, before[name]), "the base's files are untouched"
    scores = evaluate(run)
    assert scores["tuned"]["accuracy"] >= 0.9 > scores["base"]["accuracy"]
    assert scores["difference"]["accuracy"]["low"] > 0


def test_the_adapter_has_rank_times_dimensions_parameters(labelled, tiny):
    train(config(labelled, tiny, epochs=0.2, lora_r=4))
    saved = load_file(runs.find("r").model_path / "adapter_model.safetensors")
    square, narrow, wide = 64, 32, 128
    layer = 2 * (square + square) + 2 * (square + narrow) + 3 * (square + wide)
    assert sum(tensor.numel() for tensor in saved.values()) == 2 * 4 * layer


def test_metrics_and_card_tell_the_run(labelled, tiny):
    summary = train(config(labelled, tiny))
    run = runs.find("r")
    rows = run.metrics()
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 37))
    assert {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_s"} <= steps[0].keys()
    assert len([row for row in rows if "eval_loss" in row]) >= 3, "before, on the way, after"
    assert max(row["learning_rate"] for row in steps) == pytest.approx(5e-3)
    known = run.config()
    assert known["data"]["sizes"] == {"train": 72, "validation": 8, "test": 20}
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert known["data"]["sha256"] in card
    assert ", ".join(summary["lora_targets"]) in card and "q_proj" in summary["lora_targets"]
    assert known["settings"]["seed"] == 42 and known["versions"]["torch"] == importlib.metadata.version("torch")


def test_the_same_seed_gives_the_same_weights(labelled, tiny):
    for name in ("a", "b"):
        train(config(labelled, tiny, name=name, epochs=0.2))
    one, other = (load_file(runs.find(name).model_path / "adapter_model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_bfloat16_learns_too(labelled, tiny, method):
    summary = train(config(labelled, tiny, method=method, precision="bfloat16"))
    assert summary["eval_loss"] < summary["first_eval_loss"] / 2


@pytest.mark.parametrize(
    ("units", "speeds", "taken"), [(True, (2, 1), "bfloat16"), (True, (1, 2), "float32"), (False, (2, 1), "float32")]
)
def test_precision_is_what_the_processor_is_faster_in(monkeypatch, units, speeds, taken):
    monkeypatch.setattr(compute, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(compute, "has_bfloat16_units", lambda: units)
    monkeypatch.setattr(compute, "_product_seconds", lambda: dict(bfloat16=1 / speeds[0], float32=1 / speeds[1]))
    compute.bfloat16_pays.cache_clear()
    found, reason = compute.training_precision("auto")
    compute.bfloat16_pays.cache_clear()
    assert str(found) == f"torch.{taken}" and reason.startswith(f"{taken}: ")


def test_a_precision_that_was_agreed_on_is_kept(labelled, tiny):
    """Several processes that time their products may each find another."""
    prepared = Prepared(config(labelled, tiny), Listener(), (torch.bfloat16, "bfloat16: the first says so"))
    assert prepared.dtype == torch.bfloat16 and prepared.precision.endswith("the first says so")


@pytest.mark.slow
def test_accumulation_gives_the_losses_of_the_whole_batch(labelled, tiny):
    for name, batch, accumulation in (("whole", 8, 1), ("parts", 2, 4)):
        train(config(labelled, tiny, name=name, batch_size=batch, gradient_accumulation=accumulation, epochs=0.5))
    whole, parts = ([row["loss"] for row in runs.find(name).metrics() if "loss" in row] for name in ("whole", "parts"))
    assert parts == pytest.approx(whole, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loss_curve_is_a_plain_loops(labelled, tiny, method):
    """Against a loop written out: a row at a time, no packing, PEFT's own layers, AdamW, clipping, the same schedule."""
    settings = config(
        labelled, tiny, method=method, epochs=2.0, gradient_accumulation=2, batch_size=4, weight_decay=0.1
    )
    rows = Prepared(settings, Listener()).rows["train"]
    train(settings)
    logged = [row for row in runs.find("r").metrics() if "loss" in row]

    torch.manual_seed(settings.seed)
    model = loading.load_base(Path(tiny), torch.float32)
    model = loading.add_lora(model, settings) if method == "lora" else model
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim == 1]  # norms aren't pulled to zero
    decay = settings.weight_decay
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    )
    steps, warmup = len(logged), round(settings.warmup_ratio * len(logged))
    shares = ShardedBatchSampler(len(rows), 8, settings.seed)
    for step, batch in enumerate([*shares, *shares]):
        rising = step / warmup if step < warmup else (steps - step) / (steps - warmup)
        for group in optimizer.param_groups:
            group["lr"] = settings.peak_learning_rate * rising
        learned = sum(sum(rows[index].supervised) for index in batch)
        total = 0.0
        for index in batch:
            ids, wanted = (
                torch.tensor(each, device=model.device) for each in ([rows[index].ids], rows[index].supervised[1:])
            )
            logits = model(input_ids=ids).logits[0, :-1][wanted]
            row_loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:][wanted], reduction="sum") / learned
            row_loss.backward()
            total += row_loss.item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert logged[step]["loss"] == pytest.approx(total, rel=2e-4), step
        assert logged[step]["grad_norm"] == pytest.approx(norm.item(), rel=2e-3), step
    assert step == steps - 1


def test_a_rows_weight_reaches_the_loss(labelled, tiny):
    settings = config(labelled, tiny)
    prepared = Prepared(settings, Listener())
    examples = prepared.dataset.splits["validation"]
    weighted = [{**example, "weight": 0.5 + index} for index, example in enumerate(examples)]
    rows = encode_all(weighted, prepared.tokenizer, "stop", "").rows
    assert [row.weight for row in rows] == [0.5 + index for index in range(len(examples))]
    assert {row.weight for row in prepared.rows["train"]} == {1.0}


def test_full_tuning_saves_no_trace_of_our_attention(labelled, tiny):
    train(config(labelled, tiny, method="full", epochs=0.2))
    assert "packed" not in (runs.find("r").model_path / "config.json").read_text()


def test_the_data_are_saved_as_they_were_used(labelled, tiny):
    train(config(labelled, tiny, max_examples=24, epochs=0.5))
    run = runs.find("r")
    used = run.examples("train")
    assert len(used) == 24 == run.config()["data"]["sizes"]["train"]
    whole = data.split(data.read(labelled), 42)
    assert run.examples("test") == whole.splits["test"]
    assert all(example in whole.splits["train"] for example in used)


def test_stop_keeps_what_was_learned(labelled, tiny):
    def stop_at_five(row):
        if row["step"] == 5:
            runs.find("r").ask_to_stop()

    summary = train(config(labelled, tiny), reporter=Listener(stop_at_five))
    run = runs.find("r")
    assert summary["status"] == run.status()["state"] == "stopped"
    assert summary["steps"] == 5
    assert load_run.load(run).complete([[{"role": "user", "content": "bad"}]], GenerateConfig(max_new_tokens=3))


def test_a_reporter_stops_a_training(labelled, tiny):
    summary = train(config(labelled, tiny), reporter=Impatient(3))
    assert summary["status"] == "stopped" and 0 < summary["steps"] < 18 and runs.find("r").model_path.is_dir()


def test_a_signal_stops_and_keeps(labelled, tiny):
    def interrupt(row):
        if row["step"] == 3 and "loss" in row:  # once: a second signal would end it at once
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    summary = train(config(labelled, tiny), reporter=Listener(interrupt))
    assert summary["status"] == "stopped" and runs.find("r").model_path.is_dir()
    assert signal.getsignal(signal.SIGINT) is before


def test_rows_over_the_limit_are_left_out_and_counted(labelled, tiny, tmp_path):
    rows = Path(labelled).read_text().splitlines()
    rows.append(json.dumps({"text": "bad " * 300, "label": "bad", "split": "train"}))
    Path(labelled).write_text("\n".join(rows), encoding="utf-8")
    listener = Listener()
    train(config(labelled, tiny, max_length=200, epochs=0.2), reporter=listener)
    assert runs.find("r").config()["data"]["too_long"]["train"] == 1
    assert "In train: 1 row is over max_length 200 tokens (on_long drop): 1 is left out." in listener.notes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_length": 16}, "No row fits into max_length 16"),
        ({"model": "nowhere/at/all"}, "There is no model 'nowhere/at/all'"),
        ({"data": "nothing.jsonl"}, "There is no file"),
        ({"columns": "text=nope"}, "nope"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(labelled, tiny, home, changes, words):
    with pytest.raises(UserError) as caught:
        train(config(labelled, tiny, **changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (home / "runs").exists()


def test_all_faults_of_the_data_come_at_once(tiny, tmp_path, home):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "", "label": "x"}\nnot json\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        train(config(str(path), tiny))
    assert {fault.line for fault in caught.value.faults} >= {2, 3}
    assert not (home / "runs").exists()


def test_a_disk_too_small_is_refused_before_anything_is_written(labelled, tiny, home, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000_000))
    with pytest.raises(UserError, match=r"needs about 20[01] MB under .* and 10 MB are free; make room"):
        train(config(labelled, tiny))
    assert not home.exists()


def test_a_disk_that_fills_up_fails_the_run_in_words(labelled, tiny, monkeypatch):
    def full(self, row):
        raise OSError(28, "No space left on device", str(self.path / "metrics.jsonl"))

    monkeypatch.setattr(runs.Run, "append_metrics", full)
    with pytest.raises(UserError, match=r"The disk under .* is full; make room and try again"):
        train(config(labelled, tiny))
    assert runs.find("r").status()["state"] == "failed"


@pytest.mark.slow
def test_merged_export_answers_like_the_adapter(labelled, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "answering_precision", lambda: torch.float32)
    train(config(labelled, tiny))
    run = runs.find("r")
    unchecked = ExportConfig(verify=False)
    merged = export(run, tmp_path / "merged", merge=True, config=unchecked).path
    plain = export(run, tmp_path / "plain", config=unchecked).path
    assert "model.safetensors" in files(merged) and "adapter_model.safetensors" in files(plain)
    ids = torch.tensor([[3, 4, 5, 6, 7]], device=compute.device())
    pair = load_run.load(run)
    pair.sides[0].rows.chosen = [slice(0, 5)]
    with torch.no_grad():
        wanted = pair.sides[0].model(ids).logits
        torch.testing.assert_close(loading.load_base(merged, torch.float32)(ids).logits, wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="is not an empty folder"):
        export(run, merged)


def test_training_in_a_thread_leaves_signals_alone(labelled, tiny):
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train, args=(config(labelled, tiny, epochs=0.2),))
    thread.start()
    thread.join()
    assert runs.find("r").status()["state"] == "finished"
    assert signal.getsignal(signal.SIGINT) is before
