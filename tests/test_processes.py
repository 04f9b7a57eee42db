"""Two real processes train as one: the same losses, one run folder, and they stop and fail together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from families import build
from safetensors.torch import load_file

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.training.train import train

ROOT = Path(__file__).parents[1]
PLAIN = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
DDP = ["--multi_gpu", *PLAIN]
BF16 = ["--mixed_precision", "bf16"]  # said to the launcher, where `--precision` decides
# The last two because accelerate asks for an accelerator to do either.
FSDP = [
    "--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP", *PLAIN,
    "--fsdp_sync_module_states", "false", "--fsdp_cpu_ram_efficient_loading", "false",
]  # fmt: skip
ZERO3 = ["--use_deepspeed", "--zero_stage", "3", "--zero3_save_16bit_model", "true", *PLAIN, *BF16]
NO_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="asks for deepspeed, which pip builds")
WAYS = [
    pytest.param([*DDP, *BF16], "lora", id="ddp-lora"),
    pytest.param(FSDP, "full", id="fsdp-full"),
    pytest.param(ZERO3, "full", id="zero3-full", marks=NO_DEEPSPEED),
    pytest.param(ZERO3, "lora", id="zero3-lora", marks=NO_DEEPSPEED),
]
pytestmark = pytest.mark.slow


def command(labelled: str, tiny: str, *words: str) -> list[str]:
    return ["train", "--data", labelled, "--model", tiny, "--learning-rate", "0.005", *words, "--json"]


def pair(arguments: list[str], folders: tuple[Path, Path] = (ROOT, ROOT)) -> list[subprocess.Popen[str]]:
    """The two processes as a launcher starts them, each in its folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "sftdemo", *arguments],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]


@pytest.mark.parametrize(("launch", "method"), WAYS)
def test_two_processes_learn_what_one_learns(labelled, tiny, home, launch, method):
    """The same rows a step; 72 rows in batches of 10 leave a last batch that is cut unevenly."""
    check_two(labelled, tiny, launch, method)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", ["Gemma 3", "Qwen3-MoE", "Qwen3.5"])
def test_two_processes_learn_models_of_other_layers(labelled, tmp_path, tokenizer, home, name, method):
    """Windows and tied embeddings; experts, of which a step leaves some out; recurrences."""
    folder = tmp_path / "model"
    build(name, len(tokenizer))[1].save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    check_two(labelled, str(folder), DDP, method, 5e-5)


def check_two(labelled: str, model: str, launch: list[str], method: str, rate: float = 5e-3) -> None:
    settings = {"learning_rate": rate, "batch_size": 10, "epochs": 2.0, "method": method, "precision": "float32"}
    one = train(TrainConfig(data=labelled, model=model, name="one", **settings))
    asked = "--name two --batch-size 5 --epochs 2 --precision float32"
    words = command(labelled, model, *asked.split(), "--method", method, "--learning-rate", str(rate))
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *launch, "-m", "sftdemo"]
    told = {**os.environ, "DS_ACCELERATOR": "cpu"}  # else DeepSpeed's launcher writes to stdout what it has found
    done = subprocess.run([*launcher, *words], cwd=ROOT, env=told, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    assert two["steps"] == one["steps"] == 16
    assert done.stderr.count("Loading the model") == 1
    alone, together = runs.find("one"), runs.find("two")
    assert [run.name for run in runs.list_runs()] == ["two", "one"]
    for row, other in zip(alone.metrics(), together.metrics(), strict=True):
        assert row.keys() == other.keys() and row["step"] == other["step"]
        for key in {"loss", "eval_loss", "grad_norm", "learning_rate"} & row.keys():
            assert other[key] == pytest.approx(row[key], rel=1e-3), (key, row["step"])
    paths = [{str(path.relative_to(run.path)) for path in run.path.rglob("*")} for run in (alone, together)]
    assert paths[0] == paths[1]
    assert together.status()["state"] == "finished" and together.status()["tokens_per_s"] > 0
    weights = [load_file(next(run.model_path.glob("*.safetensors"))) for run in (alone, together)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-4)


def test_both_stop_together_and_keep(labelled, tiny, home):
    """The word reaches one process only: a signal, as `kill` sends it."""
    both = pair(command(labelled, tiny, "--name", "r", "--epochs", "100"))
    path = home / "runs" / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not path.exists() or len(path.read_text().splitlines()) < 3:
        assert time.monotonic() < deadline and all(process.poll() is None for process in both)
        time.sleep(0.1)
    both[1].terminate()
    (out, _), (nothing, _) = (process.communicate(timeout=100) for process in both)
    assert [process.returncode for process in both] == [130, 130]
    summary = json.loads(out)
    assert summary["status"] == runs.find("r").status()["state"] == "stopped" and summary["steps"] >= 1
    assert not nothing and runs.find("r").model_path.is_dir()


def test_a_fault_in_one_process_is_told_once_and_ends_both(labelled, tiny, home, tmp_path):
    """The second finds no data where it runs."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "rows.jsonl").write_text(Path(labelled).read_text())
    both = pair(command("rows.jsonl", tiny), (here, there))
    told = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [1, 1]
    assert [out for out, _ in told] == ["", ""]
    lines = [[line for line in err.splitlines() if line.startswith("sftdemo: ")] for _, err in told]
    assert len(lines[0]) == 1 and lines[0][0].startswith("sftdemo: Process 1 of 2: There is no file")
    assert not lines[1] and not any("Traceback" in err for _, err in told)
    assert not (home / "runs").exists()


def test_who_loses_the_other_says_so(labelled, tiny, home):
    both = pair(command(labelled, tiny, "--name", "r", "--epochs", "100"))
    path = home / "runs" / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < deadline and all(process.poll() is None for process in both)
        time.sleep(0.1)
    both[1].kill()
    told = [process.communicate(timeout=100) for process in both]
    assert both[0].returncode == 1
    assert "sftdemo: Another process of this training has ended" in told[0][1] and "Traceback" not in told[0][1]
    assert "Another process" in runs.find("r").status()["error"]


def test_two_processes_go_on_as_two(labelled, tiny, home):
    """Killed between checkpoints, each goes on with its own random states; one alone is told what to do."""
    words = [
        "--epochs",
        "12",
        "--batch-size",
        "4",
        "--lora-dropout",
        "0.2",
        "--precision",
        "float32",
        "--checkpoint-every",
        "2",
    ]
    for name in ("whole", "r"):
        both = pair(command(labelled, tiny, "--name", name, *words))
        path = home / "runs" / name / "metrics.jsonl"
        deadline = time.monotonic() + 200
        while name == "r" and (not path.exists() or len(path.read_text().splitlines()) < 9):
            assert time.monotonic() < deadline and all(process.poll() is None for process in both)
            time.sleep(0.01)
        for process in both:
            if name == "r":
                process.kill()
            process.communicate(timeout=200)
    run, whole = runs.find("r"), runs.find("whole")
    assert run.status()["state"] == "failed" and whole.status()["state"] == "finished"
    with pytest.raises(
        UserError, match="trained by 2 processes, and now there are 1; resume it with accelerate launch"
    ):
        train(TrainConfig(resume="r"))
    both = pair(["train", "--resume", "r", "--json"])
    (out, err), _ = (process.communicate(timeout=200) for process in both)
    assert [process.returncode for process in both] == [0, 0], err
    assert json.loads(out)["resumed"]
    for row, other in zip(run.metrics(), whole.metrics(), strict=True):
        assert {**row, "tokens_per_s": 0} == {**other, "tokens_per_s": 0}
    weights, expected = (load_file(each.model_path / "adapter_model.safetensors") for each in (run, whole))
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
