"""A model's files are a stranger's: no code of theirs runs, nothing but safetensors is read, and no size is believed."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sftdemo.errors import UserError
from sftdemo.model import download, loading, memory_estimate, validation

ROOT = Path(__file__).parents[1]
LOADERS = ("from_pretrained", "from_config", "pipeline")
EVIL = "import pathlib\npathlib.Path({mark!r}).write_text('ran')\nclass Own: pass\n"


def calls_that_load() -> list[tuple[str, int, ast.Call]]:
    """Every call by which transformers or PEFT may load what a stranger wrote."""
    calls = []
    for path in (*ROOT.glob("sftdemo/**/*.py"), *ROOT.glob("benchmarks/**/*.py"), ROOT / "app.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if any(name in text for name in LOADERS) else ():
            function = node.func if isinstance(node, ast.Call) else None
            if getattr(function, "attr", getattr(function, "id", "")) in LOADERS:
                calls.append((str(path.relative_to(ROOT)), node.lineno, node))
    return calls


def test_every_call_says_that_no_code_is_run():
    calls = calls_that_load()
    assert len(calls) > 10
    for path, line, call in calls:
        said = {keyword.arg: keyword.value for keyword in call.keywords}.get("trust_remote_code")
        assert isinstance(said, ast.Constant) and said.value is False, f"{path}:{line}"


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def change(file: Path, **keys) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **keys}))


FILES = ["config.json", "tokenizer_config.json", "generation_config.json"]


def with_code(folder: Path, file: str, mark: Path) -> None:
    """Code beside the model, which one of its files asks for."""
    for name in ("evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(EVIL.format(mark=str(mark)))
    auto = {name: "evil.Own" for name in ("AutoConfig", "AutoModelForCausalLM")} | {"AutoTokenizer": [None, "evil.Own"]}
    change(folder / file, auto_map=auto, custom_generate="evil.py", tokenizer_class="Own")


@pytest.mark.parametrize("file", FILES)
def test_code_in_a_folder_is_neither_run_nor_asked_for(file, copy, tmp_path, monkeypatch):
    with_code(copy, file, tmp_path / "ran")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    for load in (lambda: loading.tokenizer(copy), lambda: loading.load_base(copy, torch.float32)):
        with contextlib.suppress(UserError):
            load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_code_is_not_run_on_the_command_line_either(file, copy, tmp_path, labelled):
    """With "y" on the standard input, as `echo y |` gives it."""
    with_code(copy, file, tmp_path / "ran")
    done = subprocess.run(
        [sys.executable, "-m", "sftdemo", "train", "--data", labelled, "--model", str(copy), "--max-examples", "8"],
        input="y\n" * 9,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert not (tmp_path / "ran").exists() and "[y/N]" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.returncode in (0, 1)


def test_weights_in_pickles_are_refused_in_one_line(copy):
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    for attempt in (lambda: download.find(str(copy)), lambda: loading.load_base(copy, torch.float32)):
        with pytest.raises(UserError, match=r"pytorch_model\.bin, and only safetensors are loaded"):
            attempt()


def test_an_adapter_that_points_elsewhere_is_not_followed(copy):
    (copy / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "else/where", "peft_type": "LORA"})
    )
    for attempt in (lambda: download.find(str(copy)), lambda: loading.load_base(copy, torch.float32)):
        with pytest.raises(UserError, match="holds an adapter of 'else/where', not a model"):
            attempt()


HEADERS = {
    "longer than the file": lambda data: struct.pack("<Q", 2**63) + data[8:],
    "gigabytes": lambda data: struct.pack("<Q", 2**34) + data[8:],
    "no JSON": lambda data: struct.pack("<Q", 8) + b"nonsense" + data,
    "too deep": lambda data: struct.pack("<Q", 100_000) + b"[" * 100_000,
    "shape": lambda data: rewritten(data, shape=[10**9, 10**9]),
    "negative": lambda data: rewritten(data, shape=[-1]),
    "offsets": lambda data: rewritten(data, data_offsets=[0, 2**60]),
    "kind": lambda data: rewritten(data, dtype="PICKLE"),
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
}


def rewritten(data: bytes, **keys) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    header[name] |= keys
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize("lie", HEADERS)
def test_headers_that_lie_are_one_line(lie, copy):
    file = copy / "model.safetensors"
    file.write_bytes(HEADERS[lie](file.read_bytes()))
    for attempt in (lambda: memory_estimate.Model.read(copy), lambda: loading.load_base(copy, torch.float32)):
        with pytest.raises(UserError, match=r"model\.safetensors are damaged") as fault:
            attempt()
        assert "\n" not in str(fault.value) and "unpack" not in str(fault.value)


def test_an_index_that_leads_elsewhere_is_refused(copy):
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(UserError, match="names files that aren't there"):
        loading.load_base(copy, torch.float32)


CONFIGS = {
    "vocab_size": 10**9,
    "num_hidden_layers": 10**6,
    "hidden_size": 10**8,
    "intermediate_size": 2**25,
    "num_labels": 10**8,
    "max_position_embeddings": 10**40,
    "num_attention_heads": "many",
    "padding": "x" * 2_000_000,
}


@pytest.mark.parametrize("key", CONFIGS)
def test_sizes_of_a_config_are_checked_before_anything_is_allocated(key, copy):
    change(copy / "config.json", **{key: CONFIGS[key]})
    with pytest.raises(UserError) as fault:
        loading.load_base(copy, torch.float32)
    assert "\n" not in str(fault.value) and len(str(fault.value)) < 400


def test_layers_that_are_not_in_the_weights_are_no_model(copy):
    """They would be drawn at random, and the run would look right."""
    layers = json.loads((copy / "config.json").read_text())["num_hidden_layers"]
    change(copy / "config.json", num_hidden_layers=layers + 1)
    with pytest.raises(UserError, match=r"lack \d+ tensors that its config\.json asks for"):
        loading.load_base(copy, torch.float32)


@pytest.mark.parametrize(("pattern", "refused"), [
    ("(a+)+b", True), (r"(?:\w*)*", True), (r"((a|b+)c?)+", True), ("([a+]x)+", False), (r"\s+(?!\S)", False),
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+", False), (r"\d(?=(?:\d{3})+\b)", False),
    (r"(\(+)", False), ("[[:alpha:]+]+", False),
])  # fmt: skip
def test_regular_expressions_that_run_for_ever_are_refused(pattern, refused, copy):
    assert validation.repeats_a_repetition(pattern) is refused
    whole = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    (copy / "tokenizer.json").write_text(
        json.dumps({**whole, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, whole["pre_tokenizer"]]}})
    )
    if refused:
        with pytest.raises(UserError, match="regular expression that could run for ever"):
            loading.tokenizer(copy)
    else:
        loading.tokenizer(copy)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100_000, '{"model": 1}', '{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[1]}}'],
)
def test_a_damaged_tokenizer_is_one_line(text, copy):
    (copy / "tokenizer.json").write_text(text)
    with pytest.raises(UserError) as fault:
        loading.tokenizer(copy)
    assert "\n" not in str(fault.value)


STRAY = {"SpecialToken": {"id": "[X]", "type_id": 0}}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "Cannot parse precompiled_charsmap"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [STRAY], "pair": [], "special_tokens": {}}}, "no entry"),
        ({"model": {"type": "WordPiece", "unk_token": "x", "continuing_subword_prefix": "#", "max_input_chars_per_word": 9, "vocab": {}}}, "Missing \\[UNK\\]"),
        ({"added_tokens": "x"}, "its files hold other values than a tokenizer's"),
    ],
)  # fmt: skip
def test_why_a_tokenizer_cannot_be_used_is_told(changed, reason, copy):
    """The library ends in a panic, which is no Exception, or at the first text alone."""
    whole = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    (copy / "tokenizer.json").write_text(json.dumps({**whole, **changed}))
    with pytest.raises(UserError, match=f"can't be read: .*{reason}"):
        loading.tokenizer(copy)


def test_an_adapter_must_be_plain_lora_in_safetensors(tmp_path):
    folder = Path(shutil.copytree(ROOT / "tests" / "old" / "runs" / "old" / "model", tmp_path / "adapter"))
    validation.check_adapter(folder)
    for key, value in {
        "megatron_config": {"a": 1},
        "peft_type": "IA3",
        "r": 10**9,
        "layer_replication": [[0, 9]],
    }.items():
        before = (folder / "adapter_config.json").read_text()
        change(folder / "adapter_config.json", **{key: value})
        with pytest.raises(UserError, match="isn't plain LoRA"):
            validation.check_adapter(folder)
        (folder / "adapter_config.json").write_text(before)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="isn't in safetensors"):
        validation.check_adapter(folder)
