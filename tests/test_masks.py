"""Windows, chunks, soft caps and sinks: honoured exactly in packed training and in answering, or refused."""

from __future__ import annotations

import pytest
import torch
from families import WINDOW, build
from transformers import AttentionMaskInterface
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from sftdemo.config import GenerateConfig
from sftdemo.encoding.detokenizer import Detokenizer
from sftdemo.encoding.encode import encode_prompt
from sftdemo.encoding.packing import Collator
from sftdemo.encoding.rows import Encoded
from sftdemo.inference import grouped_attention, kv_cache
from sftdemo.inference.batch import Batch
from sftdemo.inference.load_run import answering
from sftdemo.inference.request import Request
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.model import parity
from sftdemo.model.masks import CAUSAL, LayerMask, Pattern, UnknownAttention, layer_mask
from sftdemo.training import packed_attention

LIMITED = [
    "Mistral", "Ministral", "Qwen2 with a window", "Gemma 2", "Gemma 3", "Gemma 4", "Phi-3", "OLMo 3", "Cohere 2",
    "EXAONE 4", "GPT-OSS", "Llama 4",
]  # fmt: skip
FIRST_FAST = [LIMITED[0], *(pytest.param(name, marks=pytest.mark.slow) for name in LIMITED[1:])]
# Plain, with soft caps, with sinks, in chunks.
KINDS_FAST = [name if name in ("Mistral", "Gemma 2", "GPT-OSS", "Llama 4") else pytest.param(name, marks=pytest.mark.slow)
              for name in LIMITED]  # fmt: skip
LONG = 2 * WINDOW + 30  # tokens


def drawn(count: int, seed: int) -> list[int]:
    return torch.randint(5, 300, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def near(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return bool((got - wanted).norm() <= tolerance * wanted.norm())


def test_a_pattern_is_what_transformers_masks_show():
    """Its mask tensors on the one side, the pattern evaluated at positions on the other."""
    config, _ = build("Gemma 3", sliding_window=4)
    places = torch.arange(11)
    for make, pattern in ((create_causal_mask, CAUSAL), (create_sliding_window_causal_mask, Pattern(window=4))):
        given = {"config": config, "inputs_embeds": torch.zeros(1, 11, 64), "attention_mask": None, "cache": None}
        config._attn_implementation = "eager"
        visible = make(**given)[0, 0] == 0
        assert torch.equal(visible, pattern.visible(places[:, None], places))
        config._attn_implementation = "declared"
        AttentionMaskInterface.register("declared", layer_mask)
        assert make(**given).pattern == pattern
        with pytest.raises(UnknownAttention):
            make(**given, and_mask_function=lambda batch, head, query, key: key != 3)
        config._attn_implementation = "eager"


@pytest.mark.parametrize("pattern", [CAUSAL, Pattern(window=3), Pattern(chunk=4)])
def test_padding_between_tokens_changes_no_distance(pattern):
    tokens = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1]]).bool()
    for row, here in enumerate(tokens):
        shown = LayerMask(pattern, tokens).additive(8, 8, torch.zeros(1))[row, 0] == 0
        count = int(here.sum())
        alone = LayerMask(pattern).additive(count, count, torch.zeros(1))[0, 0] == 0
        assert torch.equal(shown[here][:, here], alone) and not shown[here][:, ~here].any()


@pytest.mark.parametrize("shared", [0, WINDOW + 20])
@pytest.mark.parametrize("family", KINDS_FAST)
def test_rows_longer_than_a_window_are_packed_exactly(family, shared):
    """Loss and every gradient, against the rows padded under transformers' own attention."""
    _, model = build(family)
    first = drawn(shared, 0)
    rows = [Encoded(ids, [False] * (len(ids) - 4) + [True] * 4) for ids in (first + drawn(n, n) for n in (LONG, 9, 80))]
    results = []
    for packed in (False, True):
        assert not packed or packed_attention.enable(model)
        batch = Collator(packed)(rows)
        batch.pop("row_tokens")
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits.flatten(0, -2)
        total = torch.nn.functional.cross_entropy(logits, labels)
        model.zero_grad()
        total.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((total.item(), gradients))
    (wanted, plain), (got, own) = results
    assert got == pytest.approx(wanted, rel=1e-5) and near(own, plain, 1e-3)
    assert not shared or batch["packing"][0] == shared


@pytest.mark.parametrize(
    ("family", "lost"),
    [("Mistral", "window"), ("Gemma 3", "window"), ("Gemma 2", "softcap"), ("GPT-OSS", "s_aux"), ("Llama 4", "chunk")],
)
def test_the_trial_refuses_attention_that_loses_what_a_layer_declares(family, lost, monkeypatch):
    """Windows of 64 are none to rows of 17 tokens; the trial has them shorter."""
    plain, together = packed_attention.packed_attention, grouped_attention.grouped_attention

    def without(function):
        def attend(module, query, key, value, mask, **kwargs):
            if lost in ("window", "chunk"):
                return function(module, query, key, value, LayerMask(CAUSAL, mask.tokens), **kwargs)
            return function(module, query, key, value, mask, **{**kwargs, lost: None})

        return attend

    _, model = build(family)
    before = model.config._attn_implementation
    monkeypatch.setattr(packed_attention, "packed_attention", without(plain))
    monkeypatch.setattr(grouped_attention, "grouped_attention", without(together))
    assert not packed_attention.enable(model) and not grouped_attention.group(model)
    assert model.config._attn_implementation == before
    monkeypatch.undo()
    assert packed_attention.enable(model)
    assert getattr(model.config, "sliding_window", None) in (WINDOW, None), "the trial leaves the config as it was"
    model.set_attn_implementation(before)
    assert grouped_attention.group(model)


def test_what_a_layer_asks_for_beside_is_refused():
    query = torch.randn(1, 2, 4, 8)
    for asked in ({"position_bias": query}, {"is_causal": False}, {"output_attentions": True}, {"a_new_word": 1}):
        for function in (packed_attention.packed_attention, grouped_attention.grouped_attention):
            with pytest.raises(UnknownAttention):
                function(torch.nn.Module(), query, query, query, LayerMask(CAUSAL), **asked)
    with pytest.raises(UnknownAttention):
        packed_attention.packed_attention(torch.nn.Module(), query, query, query, None)


def test_a_span_of_unknown_name_is_refused():
    _, model = build("Llama")
    model.config.attention_window_size = 64
    assert parity.unknown_spans(model.config) == ["attention_window_size"]
    assert not packed_attention.enable(model) and not grouped_attention.group(model)
    _, mixture = build("Qwen3-MoE")
    assert not parity.unknown_spans(mixture.config)


@pytest.fixture(scope="module")
def pairs(tokenizer):
    """A plain model and a Pair of the same weights, by family."""
    made = {}

    def of(family: str):
        if family not in made:
            span = "attention_chunk_size" if family == "Llama 4" else "sliding_window"
            plain, own = (build(family, len(tokenizer), **{span: 16})[1] for _ in range(2))
            made[family] = plain, SideBySide(tokenizer, [answering(own, ("tuned",))])
        return made[family]

    return of


def greedy(model, pair: SideBySide, messages, count: int = 24) -> str:
    """The answer by whole passes without a cache, over the whole row for every token."""
    prompt = encode_prompt(pair.tokenizer, messages)
    assert len(prompt) > 40
    ids, text = list(prompt), Detokenizer(pair.tokenizer)
    answer = ""
    with torch.inference_mode():
        for _ in range(count):
            token = int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token in pair.stop_ids:
                break
            ids.append(token)
            answer += text.add(token)
    return answer.strip()


def said(*words: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in words]


@pytest.mark.parametrize("family", FIRST_FAST)
def test_answers_behind_a_window_are_those_of_whole_passes(family, pairs, tokenizer):
    """Batched with prompts of unlike length that begin alike, alone, and from one turn to the next."""
    model, pair = pairs(family)
    assert pair.sides[0].model.config._attn_implementation in (kv_cache.GROUPED, kv_cache.MASKED)
    beginning = "the film was good and the room was bad . " * 3
    conversations = said(beginning + "nice", beginning + "a sad song in the park " * 3, beginning + "poor")
    config = GenerateConfig(max_new_tokens=24)
    answers = pair.complete(conversations, config)
    assert [answer["tuned"] for answer in answers] == [greedy(model, pair, messages) for messages in conversations]
    assert len({answer["tuned"] for answer in answers}) > 1
    turns = list(conversations[0])
    for question in ("and the book ?", "and the train in the park ?"):
        wanted = greedy(model, pair, turns)
        assert "".join(chunk.text for chunk in pair.stream(turns, config)).strip() == wanted
        assert pair._prefix_cache, "what was computed is kept for the next turn"
        turns += [{"role": "assistant", "content": wanted or "nice"}, {"role": "user", "content": question}]


@pytest.mark.parametrize("family", LIMITED)
def test_likelihoods_behind_a_window_are_those_of_whole_passes(family, pairs, tokenizer):
    """Labels side by side in one pass, longer than the window, and references by row; prompts padded."""
    model, pair = pairs(family)
    prompts, labels = [drawn(50, 1), drawn(21, 2)], [drawn(3, 3), drawn(20, 4), drawn(1, 5)]

    def likelihood(prompt, answer):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None])[:, 0]

    batch = Batch(pair.sides[0], [Request("tuned", number, prompt, 0) for number, prompt in enumerate(prompts)])
    wanted = torch.tensor([[likelihood(prompt, label).sum().item() for label in labels] for prompt in prompts])
    torch.testing.assert_close(batch.score(labels), wanted, rtol=1e-4, atol=1e-3)
    for got, prompt, label in zip(batch.likelihood(labels[:2]), prompts, labels, strict=False):
        torch.testing.assert_close(got, likelihood(prompt, label), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", ["Llama", "Gemma 4", "Gemma 4 with experts", "DeepSeek V3"])
def test_what_a_token_takes_is_what_the_cache_keeps(family):
    _, model = build(family)
    assert grouped_attention.group(model)
    kept = kv_cache.new(model.config)
    with torch.inference_mode():
        model(torch.tensor([drawn(10, 0)]), cache=kept)
    shown = sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.layers)
    assert shown == 10 * kv_cache.token_bytes(model)
