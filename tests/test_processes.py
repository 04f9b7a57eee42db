"""Two real processes train as one: the same losses, one run folder, and they stop and fail together.

What the launcher adds is seen by two trainings; the other processes are forked from this one, which has torch already.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import encoders
import pytest
import torch
from accelerate.state import AcceleratorState
from families import build
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from sftdemo import runs
from sftdemo.__main__ import main
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
KEY_BIAS = "self.key.bias"
TrainTogether = Callable[[list[str]], tuple[str, str]]  # of a command's words, to what both write to stdout and stderr
pytestmark = pytest.mark.slow


def command(labelled: str, tiny: str, *words: str) -> list[str]:
    return ["train", "--data", labelled, "--model", tiny, "--learning-rate", "0.005", *words, "--json"]


@dataclass
class Rank:
    """One of the processes of a training, and the files that its output goes to."""

    process: Any
    out: Path
    err: Path

    def runs(self) -> bool:
        return bool(self.process.is_alive())

    def ended(self) -> tuple[str, str]:
        """What it has written in the end."""
        self.process.join(200)
        assert self.process.exitcode is not None
        return self.out.read_text(), self.err.read_text()


def pair(arguments: list[str], place: Path, folders: Sequence[Path] = (ROOT, ROOT)) -> list[Rank]:
    """The two processes with the environment that a launcher gives them, each in its folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}

    def work(rank: int, streams: dict[str, Path]) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # this process trains alone
        os.environ.update({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        os.chdir(folders[rank])
        for number, (name, path) in enumerate(streams.items(), start=1):
            stream = path.open("w")
            os.dup2(stream.fileno(), number)
            setattr(sys, name, stream)
        sys.exit(main(arguments))

    ranks = []
    for rank in (0, 1):
        streams = {name: place / f"{name}-{shared['MASTER_PORT']}-{rank}" for name in ("stdout", "stderr")}
        process = multiprocessing.get_context("fork").Process(target=work, args=(rank, streams), daemon=True)
        process.start()
        ranks.append(Rank(process, *streams.values()))
    return ranks


def wait_for_lines(path: Path, lines: int, both: Sequence[Rank]) -> None:
    """Until both have trained so far that the metrics have so many lines."""
    deadline = time.monotonic() + 200
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline and all(rank.runs() for rank in both)
        time.sleep(0.01)


@pytest.mark.parametrize(("launch", "method"), WAYS)
def test_two_processes_learn_what_one_learns(labelled, tiny, home, launch, method):
    """The same rows a step; 72 rows in batches of 10 leave a last batch that is cut unevenly."""
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *launch, "-m", "sftdemo"]
    told = {**os.environ, "DS_ACCELERATOR": "cpu"}  # else DeepSpeed's launcher writes to stdout what it has found

    def train_together(words: list[str]) -> tuple[str, str]:
        done = subprocess.run([*launcher, *words], cwd=ROOT, env=told, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    check_two(labelled, tiny, train_together, method)


@pytest.mark.parametrize(
    ("name", "method"), [("Gemma 3", "full"), ("Qwen3-MoE", "lora"), ("Qwen3-MoE", "full"), ("Qwen3.5", "lora")]
)
def test_two_processes_learn_models_of_other_layers(labelled, tmp_path, tokenizer, home, name, method):
    """Windows and tied embeddings; experts, of which a step leaves some out; recurrences."""
    folder = tmp_path / "model"
    build(name, len(tokenizer))[1].save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    check_two(labelled, str(folder), forked_together(tmp_path), method, 5e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_learn_to_label_texts(labelled, tmp_path, home, method):
    """The head is trained whole in both; without the encoder's own dropout, which each process draws for its rows."""
    model = encoders.make("bert", tmp_path / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    check_two(labelled, model, forked_together(tmp_path), method, task="classification", free=KEY_BIAS)


def test_nothing_depends_on_a_bias_of_keys(tmp_path):
    """It adds the same to all of a query's scores, which softmax takes away: its gradient is rounding."""
    model = AutoModelForSequenceClassification.from_pretrained(encoders.make("bert", tmp_path / "bert")).double().eval()
    ids = torch.arange(4, 16).reshape(2, 6)
    before = model(ids).logits
    torch.nn.functional.cross_entropy(before, torch.tensor([0, 1])).backward()
    sizes = {name: float(weights.grad.norm()) for name, weights in model.named_parameters()}
    keys = {name for name in sizes if name.endswith(KEY_BIAS)}
    assert len(keys) == 2 and max(sizes[name] for name in keys) < 1e-12
    assert min(sizes[name.replace("key", side)] for name in keys for side in ("query", "value")) > 1e-5
    with torch.no_grad():
        for name in keys:
            model.get_parameter(name).add_(torch.randn(32, dtype=torch.float64))
        torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=1e-12)


def forked_together(place: Path) -> TrainTogether:
    def train_together(words: list[str]) -> tuple[str, str]:
        both = pair(words, place)
        out, err = zip(*(rank.ended() for rank in both), strict=True)
        assert [rank.process.exitcode for rank in both] == [0, 0], err
        return "".join(out), "".join(err)

    return train_together


def check_two(
    labelled: str,
    model: str,
    train_together: TrainTogether,
    method: str,
    rate: float = 5e-3,
    task: str = "chat",
    free: str | None = None,
) -> None:
    """Weights whose names end in `free` may be anything: the loss doesn't depend on them."""
    settings = {"learning_rate": rate, "batch_size": 10, "epochs": 2.0, "method": method, "precision": "float32"}
    one = train(TrainConfig(data=labelled, model=model, name="one", task=task, **settings))
    asked = f"--name two --batch-size 5 --epochs 2 --precision float32 --task {task}"
    out, err = train_together(
        command(labelled, model, *asked.split(), "--method", method, "--learning-rate", str(rate))
    )
    two = json.loads(out)
    assert two["steps"] == one["steps"] == 16
    assert err.count("Loading the model") == 1
    alone, together = runs.find("one"), runs.find("two")
    assert [run.name for run in runs.list_runs()] == ["two", "one"]
    for row, other in zip(alone.metrics(), together.metrics(), strict=True):
        assert row.keys() == other.keys() and row["step"] == other["step"]
        for key in {"loss", "eval_loss", "grad_norm", "learning_rate"} & row.keys():
            assert other[key] == pytest.approx(row[key], rel=1e-3), (key, row["step"])
    paths = [{str(path.relative_to(run.path)) for path in run.path.rglob("*")} for run in (alone, together)]
    assert paths[0] == paths[1]
    assert together.status()["state"] == "finished" and together.status()["tokens_per_s"] > 0
    weights = [
        {
            f"{path.name} {name}": tensor
            for path in run.model_path.glob("*.safetensors")
            for name, tensor in load_file(path).items()
        }
        for run in (alone, together)
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        if free and name.endswith(free):
            continue
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-4)


def test_both_stop_together_and_keep(labelled, tiny, home, tmp_path):
    """The word reaches one process only: a signal, as `kill` sends it."""
    both = pair(command(labelled, tiny, "--name", "r", "--epochs", "100"), tmp_path)
    wait_for_lines(home / "runs" / "r" / "metrics.jsonl", 3, both)
    both[1].process.terminate()
    (out, _), (nothing, _) = (rank.ended() for rank in both)
    assert [rank.process.exitcode for rank in both] == [130, 130]
    summary = json.loads(out)
    assert summary["status"] == runs.find("r").status()["state"] == "stopped" and summary["steps"] >= 1
    assert not nothing and runs.find("r").model_path.is_dir()


def test_a_fault_in_one_process_is_told_once_and_ends_both(labelled, tiny, home, tmp_path):
    """The second finds no data where it runs."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "rows.jsonl").write_text(Path(labelled).read_text())
    both = pair(command("rows.jsonl", tiny), tmp_path, (here, there))
    told = [rank.ended() for rank in both]
    assert [rank.process.exitcode for rank in both] == [1, 1]
    assert [out for out, _ in told] == ["", ""]
    lines = [[line for line in err.splitlines() if line.startswith("sftdemo: ")] for _, err in told]
    assert len(lines[0]) == 1 and lines[0][0].startswith("sftdemo: Process 1 of 2: There is no file")
    assert not lines[1] and not any("Traceback" in err for _, err in told)
    assert not (home / "runs").exists()


def test_who_loses_the_other_says_so(labelled, tiny, home, tmp_path):
    both = pair(command(labelled, tiny, "--name", "r", "--epochs", "100"), tmp_path)
    wait_for_lines(home / "runs" / "r" / "metrics.jsonl", 1, both)
    both[1].process.kill()
    _, err = both[0].ended()
    assert both[0].process.exitcode == 1
    assert "sftdemo: Another process of this training has ended" in err and "Traceback" not in err
    assert "Another process" in runs.find("r").status()["error"]


def test_two_processes_go_on_as_two(labelled, tiny, home, tmp_path):
    """Killed between checkpoints, each goes on with its own random states; one alone is told what to do."""
    words = "--epochs 5 --batch-size 4 --lora-dropout 0.2 --precision float32 --checkpoint-every 2"
    for name in ("whole", "r"):
        both = pair(command(labelled, tiny, "--name", name, *words.split()), tmp_path)
        if name == "r":
            wait_for_lines(home / "runs" / name / "metrics.jsonl", 9, both)
            for rank in both:
                rank.process.kill()
        for rank in both:
            rank.ended()
    run, whole = runs.find("r"), runs.find("whole")
    assert run.status()["state"] == "failed" and whole.status()["state"] == "finished"
    with pytest.raises(
        UserError, match="trained by 2 processes, and now there are 1; resume it with accelerate launch"
    ):
        train(TrainConfig(resume="r"))
    both = pair(["train", "--resume", "r", "--json"], tmp_path)
    (out, err), _ = (rank.ended() for rank in both)
    assert [rank.process.exitcode for rank in both] == [0, 0], err
    assert json.loads(out)["resumed"]
    for row, other in zip(run.metrics(), whole.metrics(), strict=True):
        assert {**row, "tokens_per_s": 0} == {**other, "tokens_per_s": 0}
    weights, expected = (load_file(each.model_path / "adapter_model.safetensors") for each in (run, whole))
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
