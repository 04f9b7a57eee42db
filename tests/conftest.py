"""A fresh home for every test, and tiny real models: a tokenizer trained here, two layers, saved as any model is."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Tests run on both cores, a file on each; threads that wait for each other there cost more than they bring.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("SFTDEMO_NICENESS", "0")  # both cores are full, and a nice training would wait for them
os.environ["SFTDEMO_COMPILED"] = "0"  # a home of its own each would be compiled for anew; test_decode_step compiles

pytest_plugins = ["tests.browser"] if find_spec("playwright") else []  # its fixtures, for all files the same app

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# One word tells the label.
TEXTS = ("good fine great lovely nice", "bad awful sad poor dreadful")
PLACES = ["film", "book", "song", "meal", "room", "phone", "train", "park"]


def pytest_configure() -> None:
    """Half of Gradio's import is to write stubs for editors."""
    from sftdemo.ui.server import quicken_gradio

    quicken_gradio()
    gc.disable()


def pytest_collection_finish() -> None:
    """All that was imported stays: a million objects that no search for garbage, and each training asks for one, need visit."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the largest part of slow tests first, so that no worker has one left when the other is done.

    Whether they are chosen or not: the rest of such a file is above the average, too.
    """
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path] / tests[item.path], -tests[item.path]))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own SFTDEMO_HOME and no network for models."""
    path = tmp_path / "home"
    monkeypatch.setenv("SFTDEMO_HOME", str(path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return path


@pytest.fixture
def store(home: Path) -> Any:
    """The votes of the test's home."""
    from sftdemo.votes import Store

    return Store()


@contextmanager
def home_at(path: Path) -> Iterator[Path]:
    """Another SFTDEMO_HOME for a while, as fixtures that outlive a test need it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFTDEMO_HOME", str(path))
        yield path


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A place that all workers have in common; its lock is the same with `.lock`."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that had nothing until a command asked for the shipped model, and what that printed (`check.json`).

    One worker fetches and converts it, the others take it from there.
    """
    from filelock import FileLock

    folder = shared_folder(tmp_path_factory, "shipped")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            home = tmp_path_factory.mktemp("fetched") / "home"
            done = subprocess.run(
                [sys.executable, "-m", "sftdemo", "check", "support_tickets", "--row", "1", "--json"],
                cwd=Path(__file__).parents[1],
                env={**os.environ, "SFTDEMO_HOME": str(home), "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert done.returncode == 0, done.stderr
            (home / "check.json").write_text(done.stdout, encoding="utf-8")
            home.rename(folder)
    return folder


@pytest.fixture(scope="session")
def shipped_home(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the shipped model, which a worker's tests share."""
    home = tmp_path_factory.mktemp("shipped") / "home"
    shutil.copytree(shipped / "models", home / "models", copy_function=os.link)
    return home


@pytest.fixture(scope="session")
def built_page() -> Any:
    """The whole page as gr.Blocks, which no test changes."""
    from sftdemo.ui import build

    return build()


@pytest.fixture
def page() -> Iterator[Any]:
    """What the tabs share, with nothing around it."""
    import gradio as gr

    from sftdemo.ui.parts.page import Page

    with gr.Blocks() as blocks:
        yield Page(
            blocks,
            run=gr.State(None),
            picked=gr.State(""),
            data=gr.State({}),
            timer=gr.Timer(active=False),
            tabs=gr.Tabs(),
        )


@pytest.fixture(scope="session")
def running_app(built_page: Any) -> Iterator[tuple[Any, str]]:
    """The app that serves the page to whole files of tests, and its address; each test says who may do what."""
    from tests.in_process import serving

    with serving(built_page) as served:
        yield served


def make_tokenizer(template: str = CHATML):
    """A byte-level BPE trained on a few sentences; its end-of-turn token is also its pad token, as in the shipped model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    corpus = [f"user assistant system the {place} was {' '.join(TEXTS)} 好的 谢谢 ." for place in PLACES]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    """The ChatML tokenizer of `tiny`."""
    return make_tokenizer()


def make_model(tokenizer):
    """A two-layer Llama with grouped heads and tied embeddings, untrained: it babbles on."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> str:
    """The folder of the untrained model."""
    folder = tmp_path_factory.mktemp("babbler")
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> str:
    """The folder of the model once it has learned to repeat a word: a base that fine-tuning can build on.

    One worker teaches it, the others take it from there.
    """
    from filelock import FileLock

    folder = shared_folder(tmp_path_factory, "tiny")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            model = make_model(tokenizer)
            learn_to_repeat(model, tokenizer)
            saved = tmp_path_factory.mktemp("taught")
            model.save_pretrained(saved)
            tokenizer.save_pretrained(saved)
            saved.rename(folder)
    return str(folder)


def on(model, batch: dict[str, Any]) -> dict[str, Any]:
    """What a model takes of a batch, where the model is."""
    given = {name: value for name, value in batch.items() if name != "row_tokens"}
    return {name: value.to(model.device) if hasattr(value, "to") else value for name, value in given.items()}


def learn_to_repeat(model, tokenizer, steps: int = 80) -> None:
    """Asked with two adjectives, it answers with the first and stops."""
    import torch

    from sftdemo.encoding.encode import encode
    from sftdemo.encoding.packing import Collator

    draw = random.Random(1)
    adjectives = " ".join(TEXTS).split()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = []
        for _ in range(24):
            one, other = draw.sample(adjectives, 2)
            asked = {"role": "user", "content": f"the {draw.choice(PLACES)} was {one} and {other}"}
            rows.append(encode(tokenizer, [asked, {"role": "assistant", "content": one}]))
        batch = Collator(packed=False)(rows)
        logits = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], logits_to_keep=batch["logits_to_keep"]
        ).logits
        torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
        optimizer.step()
        optimizer.zero_grad()


def label_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Distinct rows whose label a small model can learn from one word."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        kind = number % 2
        words = [draw.choice(TEXTS[kind].split()) for _ in range(2)]
        text = f"the {draw.choice(PLACES)} {number} was {words[0]} and {words[1]}"
        rows.append({"text": text, "label": ("good", "bad")[kind], "split": "test" if number % 5 == 4 else "train"})
    return rows


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    """A file of 100 labelled rows, 20 of them held out."""
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(100)), encoding="utf-8")
    return str(path)
