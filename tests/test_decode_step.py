"""The compiled decode step against torch: weights found again as blocks, and every family's logits step by step."""

from __future__ import annotations

import copy
import queue
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from sftdemo.decode import kernels
from sftdemo.encoding.detokenizer import Answer
from sftdemo.inference import engine as engines
from sftdemo.inference import load_run, step_trial
from sftdemo.inference.adapters import route_adapters
from sftdemo.inference.batch import Batch
from sftdemo.inference.engine import Engine
from sftdemo.inference.fair_lock import FairLock
from sftdemo.inference.grouped_attention import SharedPrefix
from sftdemo.inference.line import Question
from sftdemo.inference.request import Request
from sftdemo.model.loading import load_base
from tests.test_serving import wait_until

pytestmark = pytest.mark.slow  # compiling takes longer than all else here

SIZES = {
    "vocab_size": 224, "hidden_size": 192, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 256, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOW = 16
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama-scaled": LlamaConfig(
        **SIZES,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    ),
    "mistral": MistralConfig(**SIZES, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3": Qwen3Config(**{**SIZES, "intermediate_size": 256}),
    "gemma3": Gemma3TextConfig(**SIZES, sliding_window=WINDOW, layer_types=LAYERS, query_pre_attn_scalar=24),
    "phi3": Phi3Config(**SIZES, partial_rotary_factor=0.5, sliding_window=WINDOW),
    "phi3-long": Phi3Config(
        **{**SIZES, "max_position_embeddings": 1024}, original_max_position_embeddings=32,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 16, "long_factor": [2.0] * 16,
            "original_max_position_embeddings": 32,
        },
    ),
}  # fmt: skip
PROMPTS = [40, 23, 3]
STEPS = 24


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """The step's module, compiled by a child as the app has it done, and loaded from there."""
    folder = tmp_path_factory.mktemp("kernels")
    kernels._compile(folder)
    assert (folder / "done").exists()
    module = kernels.load(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kernels._modules, "step", module)
        yield module


def model_of(family: str, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[family])).to(dtype).eval()
    for name, parameter in model.named_parameters():  # random norms and biases, whose places then count
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and family != "gemma3" else 0.0, std=0.2)
        else:
            torch.nn.init.normal_(parameter, std=0.08)
    return model


def adapted(family: str, tmp_path, dtype: torch.dtype = torch.float32, **options):
    """A side with its base and two adapters of unlike ranks."""
    base = model_of(family, dtype)
    folders = []
    for rank in (4, 8):
        torch.manual_seed(rank)
        model = get_peft_model(model_of(family), LoraConfig(r=rank, target_modules="all-linear", **options))
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                torch.nn.init.normal_(parameter, mean=1.0 if "magnitude" in name else 0.0, std=0.1)
        folders.append(tmp_path / str(rank))
        model.save_pretrained(folders[-1])
    model = PeftModel.from_pretrained(base, str(folders[0]), adapter_name="0")
    model.load_adapter(str(folders[1]), adapter_name="1")
    rows = route_adapters(model, ["0", "1"], dtype)
    return load_run.answering(model.get_base_model(), ("base", "0", "1"), rows)


def decoded(side, step, common: SharedPrefix | None = None) -> list[torch.Tensor]:
    """Logits of every step: rows of three lengths for each name, of which some end and others come in."""
    side.compiled._step = step
    generator = np.random.default_rng(0)

    def rows(lengths):
        prompts = [generator.integers(3, 224, length).tolist() for length in lengths]
        ids = common.prefixes[0].ids if common else []
        return [Request(name, 0, ids + prompt, 0) for name in side.names for prompt in prompts]

    batch = Batch(side, rows(PROMPTS), common=common, keep_prefixes=not common)
    logits = []
    for number in range(STEPS):
        keep = list(range(len(batch.rows)))
        if number == 8:
            del keep[1]
        if number == 12 and not common:
            batch.join(Batch(side, rows([9])))
            keep = list(range(len(batch.rows)))
        batch.advance(generator.integers(3, 224, len(keep)).tolist(), keep)
        logits.append(batch.logits.float())
    return logits


def check(side, tolerance: float = 2e-4, common: SharedPrefix | None = None) -> None:
    step = side.compiled.ready()
    assert step, "the trial refused it"
    ours, plain = decoded(side, step, common), decoded(side, None, common)
    side.compiled._step = step
    for mine, theirs in zip(ours, plain, strict=True):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_torch(family, tmp_path):
    check(load_run.answering(model_of(family), ("base",)))
    side = adapted(family, tmp_path)
    check(side)
    check(side, common=step_trial._common(side, list(range(5, 35))))


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3"])
def test_bfloat16_is_as_near_to_the_exact_as_torch(family, tmp_path):
    side = adapted(family, tmp_path, torch.bfloat16)
    exact = adapted(family, tmp_path / "exact")
    for mine, theirs in zip(exact.model.parameters(), side.model.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    step = side.compiled.ready()
    assert step
    wanted = decoded(exact, None)
    ours, plain = decoded(side, step), decoded(side, None)
    off = [sum(float((a - b).norm() / b.norm()) for a, b in zip(some, wanted, strict=True)) for some in (ours, plain)]
    assert off[0] <= 1.1 * off[1]


def test_rotary_embeddings_by_what_was_read_before_are_torchs():
    model = model_of("llama")
    model.get_decoder().rotary_emb.rope_type = "dynamic"
    assert load_run.answering(model, ("base",)).compiled.ready() is None


@pytest.mark.parametrize("preloaded", [False, True])
def test_no_first_answer_waits_for_the_step(tokenizer, monkeypatch, preloaded):
    monkeypatch.setattr(engines, "IDLE_S", 0.1 if preloaded else 600)
    side = load_run.answering(model_of("llama"), ("base",), deferred=True)
    engine = Engine([side], FairLock())

    def answer() -> tuple[list[int], list[bool]]:
        row, heard = Request("base", 0, list(range(5, 15)), 6), queue.Queue()
        texts, taken = {"base": Answer(tokenizer, row.prompt)}, []
        with engine.asked(Question("me", "", [row], texts, {"base": "base"}, heard.put)):
            while not getattr(heard.get(timeout=60), "finish_reason", None):
                taken.append(side.compiled.ready() is not None)
        return row.fed, taken

    engine.prepare_step()
    if preloaded:  # and nobody asks
        wait_until(lambda: side.compiled._step is not None)
    first, taken = answer()
    assert preloaded == any(taken)
    wait_until(lambda: side.compiled._step is not None)
    assert answer()[0] == first
    engine.retire()


def test_dora_is_computed_too(tmp_path):
    check(adapted("llama", tmp_path, use_dora=True))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_weights_of_bitsandbytes_are_read_as_they_are(tmp_path, quantization):
    model_of("qwen3").save_pretrained(tmp_path / "base")
    tuned = get_peft_model(model_of("qwen3"), LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    base = load_base(tmp_path / "base", torch.float32, quantization)
    rows = route_adapters(
        model := PeftModel.from_pretrained(base, str(tmp_path / "adapter")), ["default"], torch.float32
    )
    side = load_run.answering(model.get_base_model(), ("base", "tuned"), rows)
    check(side, 2e-4 if quantization == "nf4" else 0.12)  # torch rounds inputs to 8 bits


def test_more_threads_than_cores_give_the_same(tmp_path):
    from sftdemo.decode.threads import Workers
    from sftdemo.system.thread_count import ThreadCount

    side = adapted("llama", tmp_path)
    step = side.compiled.ready()
    wanted = decoded(side, step)
    for count in (1, 2, 5):
        step.workers, step.threads = Workers(count), ThreadCount(count, steps=10)
        step._scratch_bytes = 0
        for mine, theirs in zip(decoded(side, step), wanted, strict=True):
            assert torch.equal(mine, theirs)


def test_a_failure_is_told_and_not_tried_again_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="exit status 1"):
        kernels._compile(tmp_path)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(RuntimeError, match="exit status 1"):
        kernels._compile(tmp_path)


def quantized(kind: str, outputs: int, inputs: int) -> torch.Tensor:
    """Random weights as GGUF's reference quantization leaves them."""
    from gguf import GGMLQuantizationType, dequantize, quantize

    weights = np.random.default_rng(1).normal(size=(outputs, inputs)).astype(np.float32)
    return torch.from_numpy(dequantize(quantize(weights, GGMLQuantizationType[kind]), GGMLQuantizationType[kind]))


def test_blocks_are_found_again_exactly(compiled):
    from sftdemo.decode import packing

    four, eight = quantized("Q4_1", 192, 160), quantized("Q8_0", 192, 160)
    assert packing.four_bits(four) is not None
    assert packing.eight_bits(eight) is not None
    assert packing.four_bits(four.t().contiguous().t()) is not None  # laid out by input
    assert packing.four_bits(eight) is None
    assert packing.eight_bits(four) is None
    four[100, 77] += 1e-6
    assert packing.four_bits(four) is None
    assert packing.four_bits(torch.randn(192, 160)) is None


def test_a_model_in_blocks_answers_as_in_float32(tmp_path):
    from sftdemo.decode import tables

    model = model_of("llama")
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            parameter.data = quantized("Q8_0" if "embed" in name else "Q4_1", *parameter.shape) * 1.0
    side = load_run.answering(model, ("base",))
    kinds = side.compiled.ready().tables.segments[:, 0].tolist()
    assert set(kinds) == {tables.FOUR_BITS, tables.EIGHT_BITS}
    check(side)
