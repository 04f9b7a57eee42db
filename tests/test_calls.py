"""Tool calls are compared as calls, in whatever way a model's template writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_conversations import TOOLS, kind

from sftdemo.encoding.calls import MOST_CHARACTERS, rewritten, written
from sftdemo.encoding.thoughts import answers_only
from sftdemo.evaluation import outputs_table
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.verbs.evaluation_rows import add_spelled_calls, rows_of

PROPERTIES = {"sku": {"type": "string"}, "n": {"type": "integer"}}
STOCK = {
    "type": "function",
    "function": {"name": "stock_level", "parameters": {"type": "object", "properties": PROPERTIES}},
}
CALL = {"name": "stock_level", "arguments": {"sku": "7", "n": 2}}
OBJECT = '{"sku": "7", "n": 2}'
SPELLINGS = {
    "plain": '{"arguments": {"n": 2.0, "sku": "7"}, "name": "stock_level"}',
    "hermes": f'<tool_call>\n{{"name": "stock_level", "arguments": {OBJECT}}}\n</tool_call>',
    "text": f'<tool_call>{{"name": "stock_level", "arguments": {json.dumps(OBJECT)}}}</tool_call>',
    "llama": f'<|python_tag|>{{"name": "stock_level", "parameters": {OBJECT}}}',
    "llama_tag": f"<function=stock_level>{OBJECT}</function>",
    "openai": f'{{"id": "a", "type": "function", "function": {{"name": "stock_level", "arguments": {OBJECT}}}}}',
    "mistral": f'[TOOL_CALLS] [{{"name": "stock_level", "arguments": {OBJECT}, "id": "abcdefghi"}}]',
    "mistral_args": f"[TOOL_CALLS]stock_level[ARGS]{OBJECT}",
    "command": f'Action: ```json\n[{{"tool_name": "stock_level", "parameters": {OBJECT}}}]\n```',
    "deepseek": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>stock_level\n```json\n{OBJECT}\n```<｜tool▁call▁end｜>",
    "gpt_oss": f"<|channel|>commentary to=functions.stock_level <|constrain|>json<|message|>{OBJECT}",
    "kimi": f"<|tool_call_begin|>functions.stock_level:0<|tool_call_argument_begin|>{OBJECT}<|tool_call_end|>",
    "glm": "<tool_call>stock_level\n<arg_key>sku</arg_key>\n<arg_value>7</arg_value>\n<arg_key>n</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
    "qwen_coder": "<tool_call>\n<function=stock_level>\n<parameter=sku>\n7\n</parameter>\n<parameter=n>\n2\n</parameter>\n</function>\n</tool_call>",
    "invoke": '<calls><x:invoke name="stock_level"><x:parameter name="sku" string="true">7</x:parameter><x:parameter name="n">2</x:parameter></x:invoke></calls>',
    "python": '<|tool_call_start|>[stock_level(sku="7", n=2)]<|tool_call_end|>',
}  # fmt: skip
OTHERWISE = [
    f'{{"name": "other", "arguments": {OBJECT}}}',
    '{"name": "stock_level", "arguments": {"sku": 7, "n": 2}}',
    '{"name": "stock_level", "arguments": {"sku": "7"}}',
    f'Let me see. <tool_call>{{"name": "stock_level", "arguments": {OBJECT}}}</tool_call>',
    f'<tool_call>{{"name": "stock_level", "arguments": {OBJECT}}}</tool_call> It is 5.',
    SPELLINGS["hermes"] * 2,
    "stock_level",
    "stock_level(sku=7, n=2)",
    f"{SPELLINGS['hermes']}{' ' * MOST_CHARACTERS}",
    '<tool_call>{"name": "stock_level", "arguments": ',
    "",
]


def row(number: int, tuned: str, content: str = "") -> dict[str, Any]:
    answer = {"role": "assistant", "content": content, "tool_calls": [{"type": "function", "function": CALL}]}
    example: Any = {"messages": [{"role": "user", "content": "how many?"}, answer], "tools": [STOCK]}
    return rows_of([example])[0] | {"row": number, "base": "Seven.", "tuned": tuned}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_call_is_read_back_however_it_is_written(spelling):
    only = answers_only(row(0, f"<think>hm</think>\n\n{SPELLINGS[spelling]}"))
    assert only["tuned"] == only["references"][0] == '{"name": "stock_level", "arguments": {"n": 2, "sku": "7"}}'


@pytest.mark.parametrize("text", OTHERWISE)
def test_another_call_or_more_than_the_call_is_not_the_same(text):
    only = answers_only(row(0, text))
    assert only["tuned"] != only["references"][0]


def test_exact_match_compares_calls_with_calls():
    outputs = [row(number, text) for number, text in enumerate([*SPELLINGS.values(), *OTHERWISE])]
    scores = score_outputs(outputs, [], 1)
    assert scores["tuned"]["exact_match"] == pytest.approx(len(SPELLINGS) / len(outputs))
    assert scores["base"]["exact_match"] == 0 and scores["tuned"]["json_exact"] > 0
    marks = [each["mark"] for each in outputs_table.judged(outputs, "exact_match")]
    assert marks == ["better"] * len(SPELLINGS) + ["both_wrong"] * len(OTHERWISE)


def test_words_before_a_call_are_part_of_the_answer():
    said = row(0, f"I'll look.\n{SPELLINGS['hermes']}", "I'll look.")
    assert said["references"] == [written("I'll look.", [CALL])]
    only = answers_only(said)
    assert only["tuned"] == only["references"][0]
    assert answers_only(said | {"tuned": SPELLINGS["hermes"]})["tuned"] != only["references"][0]


def test_calls_at_once_stand_in_their_order():
    pair = '[{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]'
    assert rewritten(pair, []) == '{"name": "a", "arguments": {}}\n{"name": "b", "arguments": {}}'


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        '{"a":' * 3000,
        "{}" * 5000,
        "<function=stock_level>" * 800,
        "<tool_call>stock_level" + "<arg_key>a</arg_value>" * 800,
        "<tool_call>stock_level" + "<arg_key>a</arg_key>" * 800 + "</tool_call>",
        "stock_level(" * 1500 + ")" * 1500,
        "stock_level(sku=" + "-" * 3000 + "1)",
        "stock_level(sku={1, 2}, n=b'x')",
        'stock_level{"sku": "\\ud800"}',
        '{"name": "stock_level", "arguments": ' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_hostile_answers_are_read_in_no_time(text):
    only = answers_only(row(0, text))
    assert only["tuned"] != only["references"][0] and only["tuned"].encode()


def test_answers_without_calls_stay_as_they_are():
    text = '<b>{"name": "stock_level", "arguments": {}}</b>'
    outputs = {"references": [text], "base": text, "tuned": "<think>x</think>y", "tools": [STOCK]}
    assert answers_only(outputs) == outputs | {"tuned": "y"}


GEMMA = (
    "{{ '<call>call:' + c.function.name + '{' }}{% for key, value in c.function.arguments.items() %}"
    "{{ key + ':<escape>' + value + '<escape>' }}{% endfor %}{{ '}</call>' }}"
)


@pytest.mark.parametrize(("name", "own"), [("qwen3", ""), ("next_role", ""), ("qwen3", GEMMA)])
def test_what_the_template_writes_is_a_right_answer(name, own):
    tokenizer = kind(name)
    before = tokenizer.chat_template
    call = {"type": "function", "function": {"name": "stock_level", "arguments": {"sku": "a1"}}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    rows = rows_of([{"messages": [{"role": "user", "content": "nice"}, answer], "tools": TOOLS}])
    try:
        if own:
            head, _, rest = before.partition("{{ '\n<tool_call>\n'")
            tokenizer.chat_template = f"{head}{own}{rest[rest.index('{% endfor %}') :]}"
        add_spelled_calls(rows, tokenizer)
    finally:
        tokenizer.chat_template = before
    spelled = rows[0]["references"][1:]
    assert spelled == (["<call>call:stock_level{sku:<escape>a1<escape>}</call>"] if own else [])
