"""Side by side equals alone, token for token; streams join to what a batch gives; seeds repeat; likelihoods are exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from sftdemo.config import GenerateConfig
from sftdemo.encoding.encode import answer_ids, encode_prompt
from sftdemo.encoding.rows import common_prefix
from sftdemo.errors import UserError
from sftdemo.inference import kv_cache
from sftdemo.inference.adapters import RoutedLinear, route_adapters, stack
from sftdemo.inference.batch import Batch
from sftdemo.inference.grouped_attention import group
from sftdemo.inference.load_run import answering
from sftdemo.inference.request import Request, Side
from sftdemo.inference.sampling import choose
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.model import last_layer
from sftdemo.model.loading import load_base
from sftdemo.system.compute import device

CHATS = [
    [{"role": "user", "content": text}]
    for text in ("the film was good", "bad", "the room and the park were lovely and nice", "好的 谢谢")
]
GREEDY = GenerateConfig(max_new_tokens=12)


@pytest.fixture(scope="module")
def adapter(babbler, tmp_path_factory) -> Path:
    """An adapter with a large effect, saved as PEFT saves it."""
    torch.manual_seed(1)
    base = load_base(Path(babbler), torch.float32).cpu()  # drawn there, the same numbers come on any device
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(babbler, adapter, tokenizer) -> SideBySide:
    model = PeftModel.from_pretrained(load_base(Path(babbler), torch.float32), str(adapter))
    rows = route_adapters(model, ["default"], torch.float32)
    side = answering(model.get_base_model(), ("base", "tuned"), rows)
    assert (side.model.config._attn_implementation == kv_cache.GROUPED) == (device().type == "cpu")
    assert len({layer.stack for layer in side.model.modules() if isinstance(layer, RoutedLinear)} - {None}) == 2 * 4
    assert side.last
    return SideBySide(tokenizer, [side])


@pytest.fixture(scope="module")
def alone(babbler, adapter):
    """Plain transformers models: the base, and the base with PEFT's adapter."""
    tuned = PeftModel.from_pretrained(load_base(Path(babbler), torch.float32), str(adapter))
    return {"base": load_base(Path(babbler), torch.float32).eval(), "tuned": tuned.eval()}


def plain(model, tokenizer, chat, tokens=12) -> str:
    ids = torch.tensor([encode_prompt(tokenizer, chat)], device=device())
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
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


@pytest.mark.parametrize("head", [[], [{"role": "system", "content": "lovely nice good great fine and the room"}]])
@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_prompts_read_in_parts_are_answered_as_if_alone(pair, monkeypatch, head, at_once):
    """With a common prefix and without; the likelihoods after a joined batch are those after a whole one."""
    chats = [[*head, *chat] for chat in CHATS]
    labels = [answer_ids(pair.tokenizer, CHATS[0], text) for text in ("good", "very bad indeed")]
    whole, parted = {}, {}
    for done in pair.answers(chats, GREEDY, labels=labels):
        whole |= done
    monkeypatch.setattr("sftdemo.inference.scheduler.PREFILL_ROWS", at_once)
    for done in pair.answers(chats, GREEDY, labels=labels):
        parted |= done
    for index, chat in enumerate(chats):
        assert {side: parted[index][side] for side in pair.names} == streamed(pair, chat)
        for side in pair.names:
            both = (found[index][f"{side}_likelihoods"] for found in (parted, whole))
            assert next(both) == pytest.approx(next(both), rel=1e-4)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_long_prompts_are_answered_fewer_at_once(pair, monkeypatch, at_once):
    """Others begin where some have ended, in the places that they leave."""
    whole = pair.complete(CHATS * 2, GREEDY)
    longest = max(len(encode_prompt(pair.tokenizer, chat)) for chat in CHATS) + GREEDY.max_new_tokens
    monkeypatch.setattr("sftdemo.inference.scheduler.kv_token_budget", lambda model: 2 * at_once * longest)
    monkeypatch.setattr("sftdemo.inference.scheduler.PREFILL_ROWS", 2)
    counts = []
    advance = Batch.advance
    monkeypatch.setattr(
        Batch, "advance", lambda batch, tokens, keep: (counts.append(len(batch.rows)), advance(batch, tokens, keep))
    )
    assert pair.complete(CHATS * 2, GREEDY) == whole
    assert max(counts) == 2 * at_once


def test_two_full_models_equal_one_with_rows(pair, alone, tokenizer):
    merged = alone["tuned"].merge_and_unload()
    two = SideBySide(tokenizer, [Side(alone["base"], ("base",)), Side(merged.eval(), ("tuned",))])
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
    same = SideBySide(tokenizer, [Side(side, ("base",)), Side(side, ("tuned",))])
    answers = streamed(same, CHATS[0], GenerateConfig(max_new_tokens=12, temperature=1.0, top_p=0.9))
    assert answers["base"] == answers["tuned"]


def test_top_p_keeps_the_nucleus_only():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(200, -1)

    def drawn(top_p: float) -> set[int]:
        config = GenerateConfig(temperature=1.0, top_p=top_p)
        generators = (torch.Generator().manual_seed(i) for i in range(200))
        return set(choose(logits, [Request("base", 0, [], 9, each, config=config) for each in generators]))

    assert {top_p: drawn(top_p) for top_p in (0.01, 0.6, 1.0)} == {0.01: {0}, 0.6: {0, 1}, 1.0: {0, 1, 2, 3}}


@pytest.mark.parametrize("top_p", [1.0, 0.5])
@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-45, 1e-9])
def test_the_least_temperatures_draw_the_likeliest(temperature: float, top_p: float):
    config = GenerateConfig(temperature=temperature, top_p=top_p).check()
    row = Request("base", 0, [], 9, torch.Generator().manual_seed(1), config=config)
    assert choose(torch.tensor([[0.5, 3.0, 1.0, 2.9]]), [row]) == [1]


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
    monkeypatch.setattr("sftdemo.inference.batch.MAX_LOGITS", floats)
    prompts = [encode_prompt(tokenizer, chat) for chat in CHATS]
    labels = [
        tokenizer(text, add_special_tokens=False)["input_ids"] + [1]
        for text in ("good", "very bad indeed", "n", "nice")
    ]
    rows = [Request(side, i, prompt, 9, None) for side in ("base", "tuned") for i, prompt in enumerate(prompts)]
    batch = Batch(pair.sides[0], rows)
    before = batch.logits.clone()
    scores = batch.score(labels)
    for row, got in zip(batch.rows, scores, strict=True):
        for label, value in zip(labels, got, strict=True):
            with torch.no_grad():
                logits = alone[row.side](torch.tensor([row.prompt + label], device=device())).logits[0].log_softmax(-1)
            wanted = sum(logits[len(row.prompt) + i - 1, token] for i, token in enumerate(label))
            assert value.item() == pytest.approx(wanted.item(), abs=1e-3)
    # Decoding goes on as if nothing had been scored.
    batch.advance(before.argmax(-1).tolist(), list(range(len(rows))))
    fresh = Batch(pair.sides[0], rows)
    fresh.advance(before.argmax(-1).tolist(), list(range(len(rows))))
    torch.testing.assert_close(batch.logits, fresh.logits, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def three(babbler, adapter, tokenizer, tmp_path_factory) -> tuple[SideBySide, dict[str, Path]]:
    """A base and three adapters in one batch; one of them touches other layers than the rest."""
    folders = {"one": adapter}
    for number, (name, targets) in enumerate({"two": ["q_proj", "v_proj"], "three": "all-linear"}.items(), 2):
        torch.manual_seed(number)
        model = get_peft_model(load_base(Path(babbler), torch.float32), LoraConfig(r=number, target_modules=targets))
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.4)
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
    model = PeftModel.from_pretrained(load_base(Path(babbler), torch.float32), str(adapter), adapter_name="0")
    for number, name in enumerate(("two", "three"), 1):
        model.load_adapter(str(folders[name]), adapter_name=str(number))
    rows = route_adapters(model, ["0", "1", "2"], torch.float32)
    base = model.get_base_model().eval()
    assert group(base) == (device().type == "cpu") and stack(base) == 2 * 4
    return SideBySide(tokenizer, [Side(base, ("base", *folders), rows, last_layer.enable(base, rows))]), folders


def test_three_adapters_answer_in_one_batch_as_each_alone(three, alone, babbler, tokenizer):
    together, folders = three
    answers = together.complete(CHATS, GREEDY)
    for name, folder in folders.items():
        model = PeftModel.from_pretrained(load_base(Path(babbler), torch.float32), str(folder)).eval()
        assert [answer[name].replace("\ufffd", "") for answer in answers] == [
            plain(model, tokenizer, chat) for chat in CHATS
        ]
    assert [answer["base"] for answer in answers] == [plain(alone["base"], tokenizer, chat) for chat in CHATS]


def test_a_second_turn_begins_where_the_first_ended(pair, monkeypatch):
    """Each side computes only what is new, and answers as if it had computed all."""
    widths = []
    forward = Batch._forward

    def watched(batch, ids, *rest, **options):
        widths.append(ids.shape[1])
        return forward(batch, ids, *rest, **options)

    monkeypatch.setattr(Batch, "_forward", watched)
    pair._prefix_cache = {}
    first = streamed(pair, CHATS[2])
    prompt = widths[0]
    histories = {
        side: [*CHATS[2], {"role": "assistant", "content": text}, {"role": "user", "content": "and the song"}]
        for side, text in first.items()
    }
    widths.clear()
    second = streamed(pair, histories)
    whole = max(len(encode_prompt(pair.tokenizer, history)) for history in histories.values())
    assert widths[0] <= whole - prompt
    pair._prefix_cache = {}
    assert streamed(pair, histories) == second


def test_a_closed_stream_leaves_a_past_that_holds(pair):
    pair._prefix_cache = {}
    fresh = streamed(pair, CHATS[2])
    stream = pair.stream(CHATS[2], GREEDY)
    next(stream)
    stream.close()
    assert set(pair._prefix_cache) == {"base", "tuned"}
    assert streamed(pair, CHATS[2]) == fresh


@pytest.mark.parametrize("held", [True, False])
def test_what_all_prompts_begin_with_is_computed_once(pair, monkeypatch, held):
    """On a CPU held once for all rows, which are read end to end; where attention can't take that, copied into each, padded."""
    chats = [[{"role": "system", "content": "lovely nice good great fine and the room"}, *chat] for chat in CHATS]
    wanted = [streamed(pair, chat) for chat in chats]
    prompts = [encode_prompt(pair.tokenizer, chat) for chat in chats]
    if not held:
        monkeypatch.setattr("sftdemo.inference.scheduler.takes_shared_prefix", lambda model: False)
    read, copied = [], []
    forward, put = Batch._forward, kv_cache.put
    monkeypatch.setattr(
        Batch,
        "_forward",
        lambda batch, ids, *rest, **more: (read.append(ids.shape), forward(batch, ids, *rest, **more))[1],
    )
    monkeypatch.setattr(
        kv_cache, "put", lambda made, prefixes, counts: (copied.extend(counts), put(made, prefixes, counts))
    )
    assert pair.complete(chats, GREEDY) == wanted
    common = common_prefix(prompts)
    rest = [len(prompt) - common for prompt in prompts]
    once = held and device().type == "cpu"
    assert read[:2] == [(2, common), (1, 2 * sum(rest)) if once else (8, max(rest))]
    assert copied == ([] if once else [common] * 8)


@pytest.mark.parametrize("chats", [CHATS, CHATS[:1]], ids=["unlike lengths", "one length"])
def test_the_last_feed_forward_reads_only_each_prompts_last_token(pair, alone, tokenizer, chats):
    layers = pair.sides[0].model.get_decoder().layers
    seen = {layer.mlp: [] for layer in (layers[0], layers[-1])}
    hooks = [layer.register_forward_hook(lambda layer, given, made: seen[layer].append(given[0].shape[:2].numel()))
             for layer in seen]  # fmt: skip
    pair._prefix_cache = {}
    answers = pair.complete(chats, GREEDY) if len(chats) > 1 else [streamed(pair, chats[0])]
    for hook in hooks:
        hook.remove()
    first, last = seen.values()
    one_pass = len(chats) == 1 or device().type == "cpu"
    assert first[0] >= sum(len(encode_prompt(tokenizer, chat)) for chat in chats)
    assert last[0] == (2 * len(chats) if one_pass else last[0]) and last[1:] == first[1:]
    for side, model in alone.items():
        assert [answer[side].replace("\ufffd", "") for answer in answers] == [
            plain(model, tokenizer, chat) for chat in chats
        ]


def test_a_prompt_that_is_the_common_beginning_is_still_read(pair):
    """The last token of the shortest is computed, for its logits."""
    prompts = [[*range(5, 20)], [*range(5, 20), 7, 8]]
    common = pair._common(prompts)
    assert {len(past.ids) for past in common.values()} == {14}


def test_answers_longer_than_the_room_kept_ahead(pair, alone, tokenizer):
    answers = streamed(pair, CHATS[0], GenerateConfig(max_new_tokens=150))
    wanted = {side: plain(model, tokenizer, CHATS[0], 150) for side, model in alone.items()}
    assert {side: text.replace("\ufffd", "") for side, text in answers.items()} == wanted


@pytest.mark.parametrize("floats", [2**26, 1])
def test_likelihood_of_references_equals_plain_forwards(pair, alone, tokenizer, monkeypatch, floats):
    monkeypatch.setattr("sftdemo.inference.batch.MAX_LOGITS", floats)
    prompts = [encode_prompt(tokenizer, chat) for chat in CHATS]
    references = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("good", "very bad indeed", "n", "好的")]
    found = {}
    for done in pair.answers(CHATS, GREEDY, references=references):
        found |= done
    for side, model in alone.items():
        for index, (prompt, reference) in enumerate(zip(prompts, references, strict=True)):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + reference], device=device())).logits[0].log_softmax(-1)
            wanted = -sum(logits[len(prompt) + i - 1, token] for i, token in enumerate(reference))
            assert found[index][f"{side}_nll"] == pytest.approx(wanted.item(), abs=1e-3)
            assert found[index][side] == plain(model, tokenizer, CHATS[index])


def test_explain_gives_each_tokens_probability(pair, alone, tokenizer):
    found = pair.explain(CHATS[0], "very nice")
    prompt, ids = encode_prompt(tokenizer, CHATS[0]), answer_ids(tokenizer, CHATS[0], "very nice")
    for side, model in alone.items():
        with torch.no_grad():
            shares = model(torch.tensor([prompt + ids], device=device())).logits[0, len(prompt) - 1 : -1].softmax(-1)
        assert "".join(word["token"] for word in found[side]) == "very nice<|im_end|>"
        for word, token, share in zip(found[side], ids, shares, strict=True):
            likeliest = [tokenizer.decode([share.argmax()]), pytest.approx(share.max().item(), abs=1e-4)]
            assert word["probability"] == pytest.approx(share[token].item(), abs=1e-4)
            assert word["alternatives"][0] == likeliest and len(word["alternatives"]) == 5
