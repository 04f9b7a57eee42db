"""The mask: exactly the assistant's tokens and their end of turn, on templates of many families."""

from __future__ import annotations

import pytest
from conftest import CHATML, make_tokenizer

from sftdemo.encoding.detokenizer import Answer, Detokenizer, without_empty_thoughts
from sftdemo.encoding.encode import TemplateError, encode, encode_prompt, encode_turns, stop_ids

GENERATION_TAGS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% if loop.first %}{{ '<|im_start|>' }}{% endif %}{{ '<|endoftext|>' + message['role'] + "
    "'<|endoftext|>\n\n' + message['content'] | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|endoftext|>assistant<|endoftext|>\n\n' }}{% endif %}"
)
# As in Qwen 3: an answer without thoughts gets an empty block, and earlier turns lose theirs.
THINKING = (
    "{% for message in messages %}{% if message['role'] == 'assistant' and loop.last %}{{ '<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n' + message['content'] + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_END = (
    "{% for message in messages %}{{ message['role'] + '\n' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)
SPANNING = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
REFUSING = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURN = [{"role": "user", "content": "the film was good"}, {"role": "assistant", "content": "nice film"}]
MULTI = [{"role": "system", "content": "the system"}, *TURN, {"role": "user", "content": "bad"}, *TURN[1:]]


def spans(tokenizer, messages) -> list[str]:
    """The learned stretches as text."""
    encoded = encode(tokenizer, messages)
    found, inside = [], False
    for token, keep in zip(encoded.ids, encoded.supervised, strict=True):
        if keep:
            found = [*found[:-1], [*found[-1], token]] if inside else [*found, [token]]
        inside = keep
    return [tokenizer.decode(ids) for ids in found]


@pytest.mark.parametrize("template", [CHATML, GENERATION_TAGS, LLAMA3], ids=["chatml", "generation", "llama3"])
@pytest.mark.parametrize("messages", [TURN, MULTI], ids=["single", "multi"])
def test_only_answers_and_their_end_are_learned(template, messages):
    tokenizer = make_tokenizer(template)
    answers = sum(message["role"] == "assistant" for message in messages)
    assert spans(tokenizer, messages) == ["nice film<|im_end|>"] * answers


def test_generation_tags_change_nothing():
    plain, tagged = make_tokenizer(CHATML), make_tokenizer(GENERATION_TAGS)
    assert encode(plain, MULTI) == encode(tagged, MULTI)
    own = tagged.apply_chat_template(MULTI, return_assistant_tokens_mask=True, return_dict=True, tokenize=True)
    assert [bool(bit) for bit in own["assistant_masks"]] == encode(tagged, MULTI).supervised


def test_training_begins_as_chat_does(tokenizer):
    encoded = encode(tokenizer, TURN)
    prompt = encode_prompt(tokenizer, TURN[:1])
    assert encoded.ids[: encoded.prompt_length] == prompt
    assert encoded.ids.count(tokenizer.bos_token_id) == 2, "one <|im_start|> a turn, none added"


def test_what_a_template_rewrites_later_has_a_row_of_its_own():
    tokenizer = make_tokenizer(THINKING)
    answer = "<think>\n\n</think>\n\nnice film<|im_end|>"
    assert spans(tokenizer, TURN) == [answer]
    (first, early), (second, late) = encode_turns(tokenizer, MULTI)
    assert (first, second) == ([2], [4])
    for at, row in ((2, early), (4, late)):
        assert row.ids[: row.prompt_length] == encode_prompt(tokenizer, MULTI[:at])
        assert tokenizer.decode(row.ids[row.prompt_length : len(row.inputs) + 1]) == answer


def test_a_conversation_without_an_answer_at_its_end_is_refused(tokenizer):
    with pytest.raises(TemplateError, match="doesn't end with an assistant's turn"):
        encode(tokenizer, MULTI[:-1])


def test_a_template_without_end_of_turn_is_refused():
    with pytest.raises(TemplateError, match="never learn to stop"):
        encode(make_tokenizer(NO_END), TURN)


def test_a_token_over_the_border_is_parted():
    tokenizer = make_tokenizer(SPANNING)
    row = encode(tokenizer, TURN)
    assert row.ids[: row.prompt_length] == encode_prompt(tokenizer, TURN[:1])
    assert tokenizer.decode(row.ids[row.prompt_length : len(row.inputs) + 1]) == "nice film<|im_end|>"


@pytest.mark.parametrize("answer", ["\n\n    x = 4", "\nnice", "  nice", "\t\tgood\n"])
def test_an_answer_may_begin_with_blanks(tokenizer, answer):
    row = encode(tokenizer, [TURN[0], {"role": "assistant", "content": answer}])
    assert row.ids[: row.prompt_length] == encode_prompt(tokenizer, TURN[:1])
    assert spans(tokenizer, [TURN[0], {"role": "assistant", "content": answer}]) == [f"{answer}<|im_end|>"]


def test_what_the_template_refuses_is_said_in_one_line():
    with pytest.raises(TemplateError, match="refuses this conversation: System role not supported"):
        encode(make_tokenizer(REFUSING), MULTI)


def test_no_template_is_a_plain_refusal():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(TemplateError, match="no chat template"):
        encode_prompt(tokenizer, TURN[:1])


def test_an_end_of_turn_written_in_the_answer_ends_nothing_early(tokenizer):
    messages = [TURN[0], {"role": "assistant", "content": "a <|im_end|> b"}]
    assert spans(tokenizer, messages) == ["a <|im_end|> b<|im_end|>"]


def test_an_answer_that_repeats_the_question_is_found(tokenizer):
    messages = [{"role": "user", "content": "bad"}, {"role": "assistant", "content": "bad"}]
    assert spans(tokenizer, messages) == ["bad<|im_end|>"]


@pytest.mark.parametrize("answer", ["end", "i", "think", "</think>", "|", "assistant", " good ", "a\n"])
@pytest.mark.parametrize("template", [CHATML, LLAMA3, THINKING], ids=["chatml", "llama3", "thinking"])
def test_an_answer_that_is_a_part_of_the_template_is_told_apart(template, answer):
    """ "end" stands in "<|im_end|>" too."""
    tokenizer = make_tokenizer(template)
    (span,) = spans(tokenizer, [TURN[0], {"role": "assistant", "content": answer}])
    written = answer.strip() if template == LLAMA3 else answer
    assert span.removeprefix("<think>\n\n</think>\n\n") == f"{written}<|im_end|>"


def test_stop_ids_have_the_end_of_turn(tokenizer):
    assert stop_ids(tokenizer) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}


@pytest.mark.parametrize("text", ["nice film", "好的，谢谢！", "日本 🎉🎉 fin", "é"])
def test_text_grows_by_whole_characters(tokenizer, text):
    decoder = Detokenizer(tokenizer)
    pieces = [decoder.add(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_a_cut_character_is_not_shown(tokenizer):
    decoder = Detokenizer(tokenizer)
    ids = tokenizer("ok 🎉", add_special_tokens=False)["input_ids"]
    assert "".join(decoder.add(token) for token in ids[:-1]) == "ok "


def test_thoughts_keep_their_marks_and_those_of_the_prompt():
    from tokenizers import AddedToken

    tokenizer = make_tokenizer()
    marks = [AddedToken(text, special=True, normalized=False) for text in ("<think>", "</think>", "<|other|>")]
    tokenizer.add_tokens(marks)
    prompt = tokenizer("<|im_start|>assistant\n<think>\n", add_special_tokens=False)["input_ids"]
    said = tokenizer("nice?</think>good<|other|><|im_end|>", add_special_tokens=False)["input_ids"]
    answer = Answer(tokenizer, prompt)
    assert "".join(answer.add(token) for token in said) == "<think>\nnice?</think>good"
    answer = Answer(tokenizer, prompt[:2])
    assert "".join(answer.add(token) for token in said) == "nice?</think>good"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<think>\n\n</think>\n\ngood", "good"),
        ("<|channel|>final<|message|>good", "good"),
        ("<think>\nhm</think>good", "<think>\nhm</think>good"),
        ("<think>\nhm", "<think>\nhm"),
        ("good", "good"),
    ],
)
def test_an_answer_without_thoughts_has_no_marks(text, shown):
    assert without_empty_thoughts(text) == shown
