"""GGUF of the families that llama.cpp computes alike: opened by llama.cpp, each gives transformers' own greedy tokens."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from conftest import CHATML, PLACES, make_tokenizer
from families import FAMILIES, SIZES, build
from transformers import AutoConfig

from sftdemo import files
from sftdemo.errors import UserError
from sftdemo.model import fresh_answers, gguf_export
from sftdemo.model.gguf_vocabulary import CUTS, PHI_KEEPS, SPACE, Vocabulary

SPECIALS = ("<unk>", "<s>", "<|endoftext|>", "</s>", "<|im_start|>", "<|im_end|>")
WORDS = [*PLACES, "user", "assistant", "the", "was", "good", "bad", "and", "it", "is", "of"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,  # so that most rotations of heads this small are slowed down
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SIX = {"num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
# By name: the family, how its config differs, and its tokenizer.
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "Llama 3": ("Llama", {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}, "llama-bpe"),
    "Mistral": ("Mistral", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}, "prefix"),
    "Qwen2": ("Qwen2 with a window", {}, "qwen2"),
    "Qwen3": ("Qwen3", {}, "gpt-2"),
    "Gemma 3": ("Gemma 3 with vision", SIX, "no prefix"),
    "Phi-3": ("Phi-3", {}, "prefix"),
    "Phi-4": ("Phi-4", {}, "gpt-4o"),
}


def sentencepiece(prefix: bool, strips: bool = False) -> Any:
    """A tokenizer as transformers makes it of a SentencePiece model: every way to join two pieces to a third is a merge."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), SPACE]
    pieces += sorted(set("".join(WORDS)))
    joined = [SPACE + word[:length] for word in WORDS for length in range(1, len(word) + 1)]
    joined += [word[start : start + 2] for word in WORDS for start in range(len(word) - 1)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *joined]))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in list(vocabulary)[len(pieces) :]
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    to_space = normalizers.Replace(" ", SPACE)
    core.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), to_space]) if prefix else to_space
    core.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    swallow = {text: strips and text not in PHI_KEEPS for text in SPECIALS}
    core.add_special_tokens(
        [AddedToken(text, rstrip=swallow[text], normalized=False, special=True) for text in SPECIALS]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def byte_level(cut: str) -> Any:
    """The tests' tokenizer, which cuts text as another one."""
    from tokenizers import Regex, pre_tokenizers

    tokenizer = make_tokenizer()
    if pattern := next((pattern for pattern, name in CUTS.items() if name == cut), ""):
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    return tokenizer


def saved(folder: Path, case: str) -> tuple[Any, Any]:
    """The family's model and tokenizer, and both in a folder; the matrices are such as 16 bits hold."""
    family, changes, kind = CASES[case]
    prefix = {"prefix": True, "no prefix": False}.get(kind)
    tokenizer = byte_level(kind) if prefix is None else sentencepiece(prefix, strips=family == "Phi-3")
    _, model = build(family, len(tokenizer), **changes)
    model.half().float()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def texts(tokenizer: Any) -> list[str]:
    """Conversations in letters of several kinds; the last one is longer than any window."""
    asked = ["it's the   Good FilmBook of 2024, isn't it?", "\n\n naïve 好的 😀\tend ", "a"]
    asked.append(" ".join(f"the {place} was good and bad" for place in PLACES * 2))
    rows = [[{"role": "user", "content": text}] for text in asked]
    return [tokenizer.apply_chat_template(row, tokenize=False, add_generation_prompt=True) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_answers_as_transformers(tmp_path, case):
    pytest.importorskip("xllamacpp")
    model, tokenizer = saved(tmp_path, case)
    stops = [tokenizer.eos_token_id]
    target = tmp_path / "f16.gguf"
    gguf_export.check(tmp_path)
    gguf_export.write(tmp_path, target, "f16", CHATML, stops, "a run")
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts(tokenizer)]
    if "Gemma" not in case:  # whose windows llama.cpp honours
        prompts = [ids for ids in prompts if len(ids) < 48]
    question = {"stop_ids": stops, "max_new_tokens": 16, "prompts": prompts, "texts": texts(tokenizer)[: len(prompts)]}
    reply = fresh_answers.by_llama_cpp(question | {"path": str(target)})
    assert reply["prompts_same"] == len(prompts) >= 3
    answers, leads = fresh_answers.greedy(model, prompts, stops, 16)
    specials = set(tokenizer.all_special_ids)
    for answer, theirs, ahead in zip(answers, reply["answers"], leads, strict=True):
        # llama.cpp knows by their names other tokens that end an answer.
        ours = answer[: len(theirs)] if answer[len(theirs) - 1] in specials else answer
        parts = next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        assert parts is None or ahead[parts] < 0.1, (ours, theirs, ahead)
        assert parts is not None or len(ours) == len(theirs), (ours, theirs)


@pytest.mark.parametrize(
    ("case", "changes", "fault"),
    [
        ("Gemma 3", {"query_pre_attn_scalar": 64}, "with query_pre_attn_scalar 64"),
        ("Gemma 3", {"final_logit_softcapping": 30.0}, "with final_logit_softcapping 30.0"),
        ("Gemma 3", {"layer_types": ["sliding_attention"] * 3 + ["full_attention"] * 3}, "with layer_types"),
        ("Llama 3", {"hidden_act": "gelu"}, "with hidden_act gelu"),
        (
            "Qwen3",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "with yarn positions",
        ),
        ("Qwen3", {"rope_parameters": LLAMA3}, "with llama3 positions"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(tmp_path, case, changes, fault):
    family, own, _ = CASES[case]
    kind, sizes = FAMILIES[family.removesuffix(" with vision")]
    AutoConfig.for_model(kind, **{**SIZES, "vocab_size": 400, **sizes, **own, **changes}).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=fault):
        gguf_export.check(tmp_path)


@pytest.mark.parametrize(
    ("changes", "is_alike"), [({}, True), ({"rope_parameters": LLAMA3}, False), ({"head_dim": 32}, False)]
)
def test_what_transformers_reads_otherwise_is_for_llama_cpp_alone(tmp_path, changes, is_alike):
    config = AutoConfig.for_model("llama", **{**SIZES, "vocab_size": 400, **changes})
    config.save_pretrained(tmp_path)
    gguf_export.check_opened_by(tmp_path, "llama.cpp")
    with contextlib.nullcontext() if is_alike else pytest.raises(UserError, match=r"Only llama\.cpp opens"):
        gguf_export.check_opened_by(tmp_path, "transformers")


@pytest.mark.parametrize("kind", ["merges", "prefix", "regex", "unigram"])
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(tmp_path, kind):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = sentencepiece(True) if kind == "merges" else make_tokenizer()
    core = tokenizer.backend_tokenizer
    if kind == "prefix":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    if kind == "regex":
        split = pre_tokenizers.Split(Regex(r"\p{N}{1,3}|\s+"), "isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    if kind == "unigram":
        core = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    core.save(str(tmp_path / "tokenizer.json"))
    if kind == "merges":  # one way to join two pieces is not a merge here
        Vocabulary.read(tmp_path)
        whole = files.read_json(tmp_path / "tokenizer.json")
        whole["model"]["merges"].pop()
        files.write_json(tmp_path / "tokenizer.json", whole)
    with pytest.raises(UserError, match="tokenizer can't be written as GGUF here"):
        Vocabulary.read(tmp_path)
