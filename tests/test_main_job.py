"""The main job with the shipped model: fetched, fine-tuned, measured and talked to by command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_packing import leaking

ROOT = Path(__file__).parents[1]
TWEETS = ROOT.parent / "shared" / "data" / "tweets_sentiment_en.jsonl"
pytestmark = pytest.mark.slow


@pytest.fixture
def home(shipped_home: Path) -> Path:
    """One home for all tests with the shipped model, in place of a fresh one."""
    return shipped_home


def sftdemo(home: Path, *words: str) -> Any:
    """A command as a user types it; its JSON."""
    env = {**os.environ, "SFTDEMO_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sftdemo", *words, "--json"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_shipped_model_comes_from_its_package(home):
    found = sftdemo(home, "check", "support_tickets", "--row", "1")
    assert found["tokens"]["max"] < 200 and found["supervised_tokens"] >= 2 * found["examples"]
    assert "".join(token["text"] for token in found["xray"] if token["supervised"]).endswith("<|im_end|>")
    assert {path.name for path in (home / "models").iterdir()} == {"smollm2-135m"}, (
        "nothing else is left of the download"
    )


def test_tickets_are_learned_and_measured(home):
    summary = sftdemo(home, "train", "--data", "support_tickets", "--name", "tickets", "--max-examples", "160")
    assert summary["status"] == "finished" and summary["model_source"] in ("cache", "Python package")
    assert summary["eval_loss"] < 0.5 * summary["first_eval_loss"]
    scores = sftdemo(home, "evaluate", "tickets", "--max-examples", "40")
    assert scores["tuned"]["accuracy"] >= 0.3 > scores["base"]["accuracy"], "six labels; 160 rows once are little"
    assert scores["difference"]["accuracy"]["low"] > 0 and scores["difference"]["accuracy"]["p"] < 0.05


def test_base_is_the_base_token_for_token(home):
    """The base side of a run, and plain transformers on the model's folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompt = "Name three fruits."
    found = sftdemo(home, "compare", "tickets", "--prompt", prompt, "--max-new-tokens", "24")
    folder = home / "models" / "smollm2-135m"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**asked, max_new_tokens=24, do_sample=False)
    assert found["base"] == tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert found["tuned"] != found["base"]


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized_weights_learn_on_this_machine(home, quantization):
    name = f"tickets-{quantization}"
    words = ("--quantization", quantization, "--name", name, "--max-examples", "64")
    summary = sftdemo(home, "train", "--data", "support_tickets", *words)
    assert summary["eval_loss"] < 0.6 * summary["first_eval_loss"]


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_it_packs_in_bfloat16(home, quantization, monkeypatch):
    """In thirty layers rounding grows, and still is no leak between rows."""
    import torch

    from sftdemo.model.loading import load_base
    from sftdemo.training import packed_attention

    model = load_base(home / "models" / "smollm2-135m", torch.bfloat16, quantization)
    assert packed_attention.enable(model)
    monkeypatch.setattr(packed_attention, "packed_attention", leaking)
    model.set_attn_implementation("sdpa")
    assert not packed_attention.enable(model)


@pytest.mark.skipif(
    not TWEETS.is_file(), reason="../shared/data is not here: the tweets belong to the workplace, not to us"
)
def test_real_tweets_are_learned_from_few_rows(home):
    """A naive Bayes on all 2,654 rows reaches 0.69, the largest class 0.64; 128 rows of fine-tuning must reach the latter."""
    sftdemo(home, "train", "--data", str(TWEETS), "--name", "tweets", "--max-examples", "128")
    scores = sftdemo(home, "evaluate", "tweets", "--max-examples", "40")
    assert scores["tuned"]["accuracy"] >= 0.64 and scores["tuned"]["likelihood_accuracy"] >= 0.64
