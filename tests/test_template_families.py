"""The mask equals the ids written out by hand, for the templates of many families, single and multi-turn, with and without
a system prompt; where a template allows no mask, the reason is said."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from conftest import TEXTS

from sftdemo.encoding.encode import TemplateError, encode, encode_prompt, encode_turns, stop_ids

TEMPLATES = Path(__file__).with_name("templates")
SYSTEM = [{"role": "system", "content": "be kind"}]
SINGLE = [{"role": "user", "content": "the film was good"}, {"role": "assistant", "content": "nice film"}]
MULTI = [*SINGLE, {"role": "user", "content": "a bad book"}, {"role": "assistant", "content": "sad"}]
THOUGHT = [SINGLE[0], {"role": "assistant", "content": "<think>\nlovely?\n</think>\n\nnice film"}]
CONVERSATIONS = {
    "single": SINGLE,
    "multi": MULTI,
    "system": [*SYSTEM, *SINGLE],
    "system_multi": [*SYSTEM, *MULTI],
    "thought": THOUGHT,
    "thought_multi": [*THOUGHT, *MULTI[2:3], {"role": "assistant", "content": "<think>\nawful\n</think>\n\nsad"}],
}
CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
LLAMA2 = ("<unk>", "<s>", "</s>")
THINK = (*CHATML, "<think>", "</think>")
# template: (special tokens, BOS, EOS, the way text is cut before BPE)
FAMILIES = {
    "chatml": (CHATML, None, "<|im_end|>", "bytes"),
    "smollm2": (CHATML, "<|im_start|>", "<|im_end|>", "bytes"),
    "llama3": (
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
        "bytes",
    ),
    "gemma": (("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", "words"),
    "gemma3": (("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", "words"),
    "mistral": (LLAMA2, "<s>", "</s>", "words"),
    "mistral_v3": ((*LLAMA2, "[INST]", "[/INST]"), "<s>", "</s>", "words"),
    "zephyr": (LLAMA2, "<s>", "</s>", "words"),
    "qwen2_5": (CHATML, None, "<|im_end|>", "bytes"),
    "qwen3": (THINK, None, "<|im_end|>", "bytes"),
    "qwen3_5": (THINK, None, "<|im_end|>", "bytes"),
    "phi3": (("<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), "<s>", "<|endoftext|>", "words"),
    "phi4": ((*CHATML, "<|im_sep|>"), "<|endoftext|>", "<|im_end|>", "bytes"),
    "deepseek_r1_distill": (
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "bytes",
    ),
}  # fmt: skip


@cache
def family(name: str):
    """A tokenizer with the family's special tokens and its template, trained on a few sentences."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials, bos, eos, cut = FAMILIES[name]
    core = Tokenizer(models.BPE(byte_fallback=cut == "words"))
    if cut == "bytes":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:  # as sentencepiece does: a blank before the first word, newlines inside the text
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\n"), "isolated"), pre_tokenizers.Metaspace(prepend_scheme="first")]
        )
        core.decoder = decoders.Metaspace(prepend_scheme="first")
        alphabet = [chr(code) for code in (*range(33, 127), 10, 0x2581)]
    words = f"user assistant system model INST the film book was be kind {' '.join(TEXTS)}"
    core.train_from_iterator(
        [words, "[INST] the film [/INST] nice film", "a bad book sad"],
        trainers.BpeTrainer(vocab_size=500, special_tokens=list(specials), initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return tokenizer


def chatml(*turns: str, think: str = "") -> list[tuple[str, bool]]:
    """Segments of a ChatML conversation; its answers are learned, marked by a leading ! where they are."""
    segments = []
    for turn in turns:
        role, _, text = turn.partition(":")
        segments.append((f"<|im_start|>{role.lstrip('!')}\n", False))
        segments.append((f"{text}<|im_end|>", role.startswith("!")))
        segments.append(("\n", False))
    return segments


def llama3(*turns: str) -> list[tuple[str, bool]]:
    segments = [("<|begin_of_text|>", False)]
    for turn in turns:
        role, _, text = turn.partition(":")
        segments.append((f"<|start_header_id|>{role}<|end_header_id|>\n\n", False))
        segments.append((f"{text}<|eot_id|>", role == "assistant"))
    return segments


def gemma(*turns: str) -> list[tuple[str, bool]]:
    segments = [("<bos>", False)]
    for turn in turns:
        role, _, text = turn.partition(":")
        segments.append((f"<start_of_turn>{role}\n", False))
        segments += [(f"{text}<end_of_turn>", role == "model"), ("\n", False)]
    return segments


USER, ANSWER, USER2, ANSWER2 = "user:the film was good", "assistant:nice film", "user:a bad book", "assistant:sad"
BE_KIND, LEARNED, LEARNED2 = "system:be kind", "!assistant:nice film", "!assistant:sad"
SMOL = "system:You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QWEN = "system:You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
EMPTY = "<think>\n\n</think>\n\n"


def zephyr(*turns: str) -> list[tuple[str, bool]]:
    segments = []
    for turn in turns:
        role, _, text = turn.partition(":")
        segments += [(f"<|{role}|>\n", False), (f"{text}</s>", role == "assistant"), ("\n", False)]
    return segments


def phi3(*turns: str) -> list[tuple[str, bool]]:
    segments = []
    for turn in turns:
        role, _, text = turn.partition(":")
        segments += [(f"<|{role}|>\n", False), (f"{text}<|end|>", role == "assistant"), ("\n", False)]
    return [*segments, ("<|endoftext|>", False)]


def phi4(*turns: str) -> list[tuple[str, bool]]:
    segments = []
    for turn in turns:
        role, _, text = turn.partition(":")
        segments += [(f"<|im_start|>{role}<|im_sep|>", False), (f"{text}<|im_end|>", role == "assistant")]
    return segments


QWEN3_FIRST = chatml(USER, f"!assistant:{EMPTY}nice film")


def QWEN3_5(answer: str) -> list[tuple[str, bool]]:
    return [(f"<|im_start|>assistant\n{EMPTY}", False), (f"{answer}<|im_end|>", True), ("\n", False)]


MISTRAL = [("<s>[INST] the film was good [/INST]", False), ("nice film</s>", True)]
MISTRAL_V3 = [("<s>[INST] the film was good[/INST]", False), (" nice film</s>", True)]
R1_ASKED = ("<｜begin▁of▁sentence｜><｜User｜>the film was good<｜Assistant｜><think>\n", False)
# Written by hand: what stands in the row, and what of it is learned; several rows where history is rewritten. A string is the reason
# for a refusal.
EXPECTED: dict[tuple[str, str], list | str] = {
    ("chatml", "single"): chatml(USER, LEARNED),
    ("chatml", "multi"): chatml(USER, LEARNED, USER2, LEARNED2),
    ("chatml", "system"): chatml(BE_KIND, USER, LEARNED),
    ("chatml", "system_multi"): chatml(BE_KIND, USER, LEARNED, USER2, LEARNED2),
    ("smollm2", "single"): chatml(SMOL, USER, LEARNED),
    ("smollm2", "multi"): chatml(SMOL, USER, LEARNED, USER2, LEARNED2),
    ("smollm2", "system"): chatml(BE_KIND, USER, LEARNED),
    ("smollm2", "system_multi"): chatml(BE_KIND, USER, LEARNED, USER2, LEARNED2),
    ("qwen2_5", "single"): chatml(QWEN, USER, LEARNED),
    ("qwen2_5", "multi"): chatml(QWEN, USER, LEARNED, USER2, LEARNED2),
    ("qwen2_5", "system"): chatml(BE_KIND, USER, LEARNED),
    ("qwen2_5", "system_multi"): chatml(BE_KIND, USER, LEARNED, USER2, LEARNED2),
    # Only the last answer has its block of thoughts: each answer has a row that ends with it.
    ("qwen3", "single"): chatml(USER, f"!assistant:{EMPTY}nice film"),
    ("qwen3", "multi"): [QWEN3_FIRST, chatml(USER, ANSWER, USER2, f"!assistant:{EMPTY}sad")],
    ("qwen3", "system"): chatml(BE_KIND, USER, f"!assistant:{EMPTY}nice film"),
    ("qwen3", "system_multi"): [
        chatml(BE_KIND, USER, f"!assistant:{EMPTY}nice film"),
        chatml(BE_KIND, USER, ANSWER, USER2, f"!assistant:{EMPTY}sad"),
    ],
    ("qwen3", "thought"): chatml(USER, "!assistant:<think>\nlovely?\n</think>\n\nnice film"),
    ("qwen3", "thought_multi"): [
        chatml(USER, "!assistant:<think>\nlovely?\n</think>\n\nnice film"),
        chatml(USER, ANSWER, USER2, "!assistant:<think>\nawful\n</think>\n\nsad"),
    ],
    # Its prompt has the empty block, so that is read and not learned.
    ("qwen3_5", "single"): [*chatml(USER), *QWEN3_5("nice film")],
    ("qwen3_5", "multi"): [
        [*chatml(USER), *QWEN3_5("nice film")], [*chatml(USER, ANSWER, USER2), *QWEN3_5("sad")],
    ],
    ("qwen3_5", "system"): [*chatml(BE_KIND, USER), *QWEN3_5("nice film")],
    ("qwen3_5", "system_multi"): [
        [*chatml(BE_KIND, USER), *QWEN3_5("nice film")], [*chatml(BE_KIND, USER, ANSWER, USER2), *QWEN3_5("sad")],
    ],
    # A prompt that closes the thoughts asks for none.
    ("qwen3_5", "thought"): [*chatml(USER), *QWEN3_5("nice film")],
    ("llama3", "single"): llama3(USER, ANSWER),
    ("llama3", "multi"): llama3(USER, ANSWER, USER2, ANSWER2),
    ("llama3", "system"): llama3(BE_KIND, USER, ANSWER),
    ("llama3", "system_multi"): llama3(BE_KIND, USER, ANSWER, USER2, ANSWER2),
    ("gemma", "single"): gemma(USER, "model:nice film"),
    ("gemma", "multi"): gemma(USER, "model:nice film", USER2, "model:sad"),
    ("gemma", "system"): "System role not supported",
    ("gemma", "system_multi"): "System role not supported",
    ("gemma3", "single"): gemma(USER, "model:nice film"),
    ("gemma3", "multi"): gemma(USER, "model:nice film", USER2, "model:sad"),
    ("gemma3", "system"): gemma("user:be kind\n\nthe film was good", "model:nice film"),
    ("gemma3", "system_multi"): gemma("user:be kind\n\nthe film was good", "model:nice film", USER2, "model:sad"),
    ("mistral", "single"): MISTRAL,
    ("mistral", "multi"): [*MISTRAL, ("[INST] a bad book [/INST]", False), ("sad</s>", True)],
    ("mistral", "system"): "must alternate",
    ("mistral", "system_multi"): "must alternate",
    ("mistral_v3", "single"): MISTRAL_V3,
    ("mistral_v3", "multi"): [*MISTRAL_V3, ("[INST] a bad book[/INST]", False), (" sad</s>", True)],
    # It writes the system prompt before the last question in chat, and leaves it out where an answer follows.
    ("mistral_v3", "system"): [("<s>[INST] be kind\n\nthe film was good[/INST]", False), (" nice film</s>", True)],
    ("mistral_v3", "system_multi"): [
        [("<s>[INST] be kind\n\nthe film was good[/INST]", False), (" nice film</s>", True)],
        [*[(text, False) for text, _ in MISTRAL_V3], ("[INST] be kind\n\na bad book[/INST]", False), (" sad</s>", True)],
    ],
    ("zephyr", "single"): zephyr(USER, ANSWER),
    ("zephyr", "multi"): zephyr(USER, ANSWER, USER2, ANSWER2),
    ("zephyr", "system"): zephyr(BE_KIND, USER, ANSWER),
    ("zephyr", "system_multi"): zephyr(BE_KIND, USER, ANSWER, USER2, ANSWER2),
    ("phi3", "single"): phi3(USER, ANSWER),
    ("phi3", "multi"): phi3(USER, ANSWER, USER2, ANSWER2),
    ("phi3", "system"): phi3(BE_KIND, USER, ANSWER),
    ("phi3", "system_multi"): phi3(BE_KIND, USER, ANSWER, USER2, ANSWER2),
    ("phi4", "single"): phi4(USER, ANSWER),
    ("phi4", "multi"): phi4(USER, ANSWER, USER2, ANSWER2),
    ("phi4", "system"): phi4(BE_KIND, USER, ANSWER),
    ("phi4", "system_multi"): phi4(BE_KIND, USER, ANSWER, USER2, ANSWER2),
    # The prompt opens the thoughts: an answer without them closes them at once, with them it goes on from there.
    ("deepseek_r1_distill", "single"): [R1_ASKED, ("\n</think>\n\nnice film<｜end▁of▁sentence｜>", True)],
    ("deepseek_r1_distill", "system"): [
        ("<｜begin▁of▁sentence｜>be kind<｜User｜>the film was good<｜Assistant｜><think>\n", False),
        ("\n</think>\n\nnice film<｜end▁of▁sentence｜>", True),
    ],
    ("deepseek_r1_distill", "thought"): [R1_ASKED, ("lovely?\n</think>\n\nnice film<｜end▁of▁sentence｜>", True)],
    ("deepseek_r1_distill", "thought_multi"): [
        [R1_ASKED, ("lovely?\n</think>\n\nnice film<｜end▁of▁sentence｜>", True)],
        [
            ("<｜begin▁of▁sentence｜><｜User｜>the film was good<｜Assistant｜>\n\nnice film<｜end▁of▁sentence｜>", False),
            ("<｜User｜>a bad book<｜Assistant｜><think>\n", False),
            ("awful\n</think>\n\nsad<｜end▁of▁sentence｜>", True),
        ],
    ],
}  # fmt: skip


def expected(tokenizer, segments) -> tuple[list[int], list[bool]]:
    """The ids of the segments up to the last learned one, and for each whether it lies in a learned segment.

    A prompt is tokenized as chat does, by itself.
    """
    text = "".join(piece for piece, _ in segments)
    learned = [flag for piece, flag in segments for _ in piece]
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    straddle = [span for span in batch["offset_mapping"] if len(set(learned[span[0] : span[1]])) > 1]
    if straddle:
        *_, (answer, _) = segments
        prompt = tokenizer(text.removesuffix(answer), add_special_tokens=False)["input_ids"]
        return prompt, [False] * len(prompt)
    mask = [learned[max(right - 1, 0)] for _, right in batch["offset_mapping"]]
    end = len(mask) - mask[::-1].index(True)
    return batch["input_ids"][:end], mask[:end]


@pytest.mark.parametrize(("name", "conversation"), EXPECTED)
def test_the_mask_is_the_one_written_by_hand(name, conversation):
    tokenizer, messages, segments = family(name), CONVERSATIONS[conversation], EXPECTED[name, conversation]
    if isinstance(segments, str):
        with pytest.raises(TemplateError, match=segments):
            encode(tokenizer, messages)
        return
    rows = encode_turns(tokenizer, messages)
    for (_, row), wanted in zip(rows, segments if isinstance(segments[0], list) else [segments], strict=True):
        ids, mask = expected(tokenizer, wanted)
        assert row.ids[: len(ids)] == ids and row.supervised[: len(mask)] == mask
        last = len(row.inputs)
        if any(mask):
            assert last == len(ids) - 1 and not any(row.supervised[last + 1 :])
        else:  # a token would span prompt and answer
            answer = tokenizer.decode(row.ids[len(ids) : last + 1])
            assert answer == wanted[-1][0] and all(row.supervised[len(ids) : last + 1])
        assert row.ids[last] in stop_ids(tokenizer)
    assert [turn for turns, _ in rows for turn in turns] == [
        at for at, message in enumerate(messages) if message["role"] == "assistant"
    ]


def test_every_template_is_met():
    assert {path.stem for path in TEMPLATES.glob("*.jinja")} == {name for name, _ in EXPECTED} == set(FAMILIES)


@pytest.mark.parametrize("name", ["llama3", "gemma", "mistral", "phi3"])
def test_a_bos_in_the_text_stays_text(name):
    tokenizer = family(name)
    messages = [{"role": "user", "content": f"{tokenizer.bos_token}the film"}, SINGLE[1]]
    row = encode(tokenizer, messages)
    assert row.ids.count(tokenizer.bos_token_id) == encode(tokenizer, SINGLE).ids.count(tokenizer.bos_token_id) <= 1
    assert tokenizer.bos_token in tokenizer.decode(row.ids[1:])


def test_a_template_that_writes_bos_twice_is_refused():
    tokenizer = family("llama3")
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ bos_token }}" + before
        with pytest.raises(TemplateError, match="begins with two BOS tokens"):
            encode(tokenizer, SINGLE)
    finally:
        tokenizer.chat_template = before


@pytest.mark.parametrize("name", FAMILIES)
def test_no_token_of_the_family_can_be_typed(name):
    """BOS, ends, roles and thoughts spelled by a user or standing in an answer are text; the row has none more."""
    tokenizer = family(name)
    control = set(tokenizer.added_tokens_decoder)

    def controls(ids: list[int]) -> list[int]:
        return [token for token in ids if token in control]

    for token in FAMILIES[name][0]:
        asked = [{"role": "user", "content": f"the {token} film"}]
        assert controls(encode_prompt(tokenizer, asked)) == controls(encode_prompt(tokenizer, SINGLE[:1])), token
        if token not in ("<think>", "</think>"):  # an answer may hold thoughts
            row = [
                {"role": "user", "content": "the film was good"},
                {"role": "assistant", "content": f"nice {token} film"},
            ]
            try:
                ids = encode(tokenizer, row).inputs  # what follows its last learned token is no part of it
            except TemplateError:
                continue
            assert controls(ids) == controls(encode(tokenizer, SINGLE).inputs), token


def test_templates_are_applied_in_one_place():
    """So that what holds of prompts holds in chat, votes, comparisons, evaluations and training alike."""

    def applies(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "apply_chat_template"

    package = Path(__file__).parents[1] / "sftdemo"
    texts = {
        path.name: text for path in package.rglob("*.py") if "apply_chat_template" in (text := path.read_text("utf-8"))
    }
    trees = {name: ast.parse(text) for name, text in texts.items()}
    assert [name for name, tree in trees.items() if any(map(applies, ast.walk(tree)))] == ["chat_template.py"]
