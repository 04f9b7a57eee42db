"""Side by side equals alone, token for token; streams join to what a batch gives; seeds repeat; likelihoods are exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from sftdemo.config import GenerateConfig
from sftdemo.encoding import encode_prompt
from sftdemo.errors import UserError
from sftdemo.generate import Batch, Pair, Row, Side, choose
from sftdemo.lora import by_row
from sftdemo.models import load_base

CHATS = [
    [{"role": "user", "content": text}]
    for text in ("the film was good", "bad", "the room and the park were lovely and nice", "好的 谢谢")
]
GREEDY = GenerateConfig(max_new_tokens=12)


@pytest.fixture(scope="module")
def adapter(babbler, tmp_path_factory) -> Path:
    """An adapter with a large effect, saved as PEFT saves it."""
    torch.manual_seed(1)
    model = get_peft_model(
        load_base(Path(babbler), torch.float32), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(babbler, adapter, tokenizer) -> Pair:
    model = PeftModel.from_pretrained(load_base(Path(babbler), torch.float32), str(adapter))
    rows = by_row(model, torch.float32)
    return Pair(tokenizer, [Side(model.get_base_model().eval(), ("base", "tuned"), rows)])


@pytest.fixture(scope="module")
def alone(babbler, adapter):
    """Plain transformers models: the base, and the base with PEFT's adapter."""
    tuned = PeftModel.from_pretrained(load_base(Path(babbler), torch.float32), str(adapter))
    return {"base": load_base(Path(babbler), torch.float32).eval(), "tuned": tuned.eval()}


def plain(model, tokenizer, chat) -> str:
    ids = torch.tensor([encode_prompt(tokenizer, chat)])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).replace("\ufffd", "").strip()


def streamed(pair, messages, config=GREEDY) -> dict[str, str]:
    texts = {"base": "", "tuned": ""}
    for chunk in pair.stream(messages, config):
        texts[chunk.side] += chunk.text
    return {side: text.strip() for side, text in texts.items()}


@pytest.mark.parametrize("chat", CHATS, ids=["short", "word", "long", "chinese"])
def test_each_side_answers_as_it_does_alone(pair, alone, tokenizer, chat):
    answers = streamed(pair, chat)
    assert answers["base"] != answers["tuned"]
    assert answers == {side: plain(model, tokenizer, chat) for side, model in alone.items()}


def test_a_batch_of_unlike_lengths_equals_streams(pair):
    together = pair.complete(CHATS, GREEDY, batch_size=3)
    assert together == [streamed(pair, chat) for chat in CHATS]


def test_two_full_models_equal_one_with_rows(pair, alone, tokenizer):
    merged = alone["tuned"].merge_and_unload()
    two = Pair(tokenizer, [Side(alone["base"], ("base",)), Side(merged.eval(), ("tuned",))])
    assert two.complete(CHATS, GREEDY) == pair.complete(CHATS, GREEDY)


def test_both_sides_start_together_and_end_once(pair):
    chunks = list(pair.stream(CHATS[0], GREEDY))
    assert {chunk.side for chunk in chunks[:2]} == {"base", "tuned"}
    ends = [chunk for chunk in chunks if chunk.finish_reason]
    assert sorted(chunk.side for chunk in ends) == ["base", "tuned"]
    assert all(chunk.tokens <= 12 and chunk.tokens_per_s > 0 for chunk in ends)


def test_each_side_may_have_its_own_history(pair):
    histories = {
        "base": CHATS[0],
        "tuned": [*CHATS[0], {"role": "assistant", "content": "fine"}, {"role": "user", "content": "and the song"}],
    }
    assert streamed(pair, histories) == {side: streamed(pair, histories[side])[side] for side in histories}


def test_a_seed_repeats_and_matters(pair):
    draws = [
        streamed(pair, CHATS[0], GenerateConfig(max_new_tokens=12, temperature=1.5, seed=seed)) for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_equal_sides_draw_equal_tokens(babbler, tokenizer):
    side = load_base(Path(babbler), torch.float32).eval()
    same = Pair(tokenizer, [Side(side, ("base",)), Side(side, ("tuned",))])
    answers = streamed(same, CHATS[0], GenerateConfig(max_new_tokens=12, temperature=1.0, top_p=0.9))
    assert answers["base"] == answers["tuned"]


def test_top_p_keeps_the_nucleus_only():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(200, -1)
    rows = [Row("base", i, [], 9, torch.Generator().manual_seed(i)) for i in range(200)]
    drawn = {
        top_p: set(choose(logits, rows, GenerateConfig(temperature=1.0, top_p=top_p))) for top_p in (0.01, 0.6, 1.0)
    }
    assert drawn == {0.01: {0}, 0.6: {0, 1}, 1.0: {0, 1, 2, 3}}


def test_stop_ends_both_sides_and_frees_the_lock(pair):
    calls = iter([False, False, True])
    chunks = list(pair.stream(CHATS[0], GREEDY, should_stop=lambda: next(calls)))
    assert [chunk.finish_reason for chunk in chunks[-2:]] == ["stopped", "stopped"]
    assert not pair.lock.locked()
    stream = pair.stream(CHATS[0], GREEDY)
    next(stream)
    stream.close()
    assert not pair.lock.locked()


def test_a_conversation_too_long_is_refused(pair):
    with pytest.raises(UserError, match=r"has \d+ tokens and the model takes 512"):
        next(pair.stream([{"role": "user", "content": "bad " * 900}], GREEDY))


@pytest.mark.parametrize("floats", [2**26, 1])
def test_label_likelihoods_equal_plain_forwards(pair, alone, tokenizer, monkeypatch, floats):
    """Prompt computed once, labels of unlike length behind it, in one group or one by one."""
    monkeypatch.setattr("sftdemo.generate.SCORE_FLOATS", floats)
    prompts = [encode_prompt(tokenizer, chat) for chat in CHATS]
    labels = [
        tokenizer(text, add_special_tokens=False)["input_ids"] + [1]
        for text in ("good", "very bad indeed", "n", "nice")
    ]
    rows = [Row(side, i, prompt, 9, None) for side in ("base", "tuned") for i, prompt in enumerate(prompts)]
    batch = Batch(pair.sides[0], rows)
    before = batch.logits.clone()
    scores = batch.score(labels)
    for row, got in zip(batch.rows, scores, strict=True):
        for label, value in zip(labels, got, strict=True):
            with torch.no_grad():
                logits = alone[row.side](torch.tensor([row.prompt + label])).logits[0].log_softmax(-1)
            wanted = sum(logits[len(row.prompt) + i - 1, token] for i, token in enumerate(label))
            assert value.item() == pytest.approx(wanted.item(), abs=1e-3)
    # Decoding goes on as if nothing had been scored.
    batch.advance(before.argmax(-1).tolist(), list(range(len(rows))))
    fresh = Batch(pair.sides[0], rows)
    fresh.advance(before.argmax(-1).tolist(), list(range(len(rows))))
    torch.testing.assert_close(batch.logits, fresh.logits, rtol=1e-4, atol=1e-4)
