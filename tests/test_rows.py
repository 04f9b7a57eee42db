"""From examples to rows: one for each answer that history would change, the faults of a template as `on_fault` wants them,
and what is told of keys that a template has no place for."""

from __future__ import annotations

import json

import pytest
from conftest import CHATML, make_model, make_tokenizer
from listener import Listener
from test_conversations import TOOLS, kind, learned

from sftdemo import runs
from sftdemo.__main__ import main
from sftdemo.config import TrainConfig
from sftdemo.data import Dataset
from sftdemo.encoding.encode import encode, encode_prompt
from sftdemo.encoding.examples import encode_all, encode_example, unused
from sftdemo.encoding.xray import xray
from sftdemo.errors import DataError
from sftdemo.training.prepare import Prepared
from sftdemo.training.train import train

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% endfor %}" + CHATML
)


def said(role: str, content: str, **more) -> dict:
    return {"role": role, "content": content, **more}


TWO = {
    "messages": [said("user", "the film"), said("assistant", "nice"), said("user", "a book"), said("assistant", "sad")]
}


def test_each_row_comes_with_the_example_that_has_it_alone():
    tokenizer = kind("qwen3")
    pairs = encode_example(tokenizer, {**TWO, "weight": 0.5})
    assert len(pairs) == 2 and [row.weight for _, row in pairs] == [0.5, 0.5]
    assert [len(alone["messages"]) for alone, _ in pairs] == [2, 4]
    for alone, row in pairs:
        ((_, again),) = encode_example(tokenizer, alone)
        assert again.inputs == row.inputs and again.prompt_length == row.prompt_length
    ((alone, _),) = encode_example(kind("chatml"), TWO)
    assert alone is TWO


def test_a_turn_of_weight_0_is_read():
    messages = [*TWO["messages"][:1], {**TWO["messages"][1], "weight": 0}, *TWO["messages"][2:]]
    row = encode(kind("chatml"), messages)
    assert learned(kind("chatml"), row) == ["sad<|im_end|>"] and "nice" in kind("chatml").decode(row.ids)
    assert len(encode_example(kind("qwen3"), {"messages": messages})) == 1


def rows(*faulty: dict) -> list[dict]:
    good = [
        {"messages": [said("user", f"the film {n}"), said("assistant", "good")], "meta": {"line": n}} for n in range(3)
    ]
    return [*good, *({"messages": list(messages), "meta": {"line": 9}} for messages in faulty)]


SYSTEM = (said("system", "be kind"), said("user", "the film"), said("assistant", "nice"))
OPENING = (said("assistant", "hello", weight=0.0), said("user", "the film"), said("assistant", "nice"))


@pytest.mark.parametrize(
    ("template", "messages", "how"),
    [
        (NO_SYSTEM, SYSTEM, "The system prompt is put before the first question."),
        (ALTERNATING, OPENING, "The assistant's opening turn is left out."),
    ],
)
def test_faults_of_a_template_stop_are_dropped_or_repaired(template, messages, how):
    tokenizer = make_tokenizer(template)
    stopped = encode_all(rows(messages), tokenizer, "stop", "f")
    assert [fault.line for fault in stopped.faults] == [9] and "refuses" in stopped.faults[0].problem
    dropped = encode_all(rows(messages), tokenizer, "drop", "f")
    assert not dropped.faults and [fault.line for fault in dropped.dropped] == [9] and len(dropped.kept) == 3
    fixed = encode_all(rows(messages), tokenizer, "fix", "f")
    assert not fixed.faults and not fixed.dropped and [fault.remedy for fault in fixed.fixed] == [how]
    assert learned(tokenizer, fixed.rows[3]) == ["nice<|im_end|>"] and fixed.kept[3]["messages"][0]["role"] == "user"
    if template == NO_SYSTEM:
        assert fixed.kept[3]["messages"][0]["content"] == "be kind\n\nthe film"


def test_the_xray_shows_a_repaired_row():
    tokenizer = make_tokenizer(NO_SYSTEM)
    seen = xray(Dataset("d", "d", splits={"train": rows(SYSTEM)}), 4, tokenizer, TrainConfig(data="d", on_fault="fix"))
    assert "".join(token["text"] for token in seen["xray"]).startswith("<|im_start|>user\nbe kind\n\nthe film")


def test_what_no_repair_helps_is_left_out():
    made = encode_all(rows(*[SYSTEM] * 2), make_tokenizer("{{ raise_exception('no') }}"), "fix", "f")
    assert len(made.dropped) == 5 and not made.kept


def test_keys_without_a_place_are_named():
    thought = {"messages": [said("user", "a"), said("assistant", "b", reasoning_content="hm")], "tools": TOOLS}
    assert unused(thought, kind("moving_system")) == ["tools"]
    assert unused(thought, make_tokenizer()) == ["tools", "reasoning_content"]
    assert unused(thought, kind("qwen3")) == [] and unused(thought, kind("qwen3", "off")) == ["reasoning_content"]
    made = encode_all([thought, thought, TWO], make_tokenizer(), "stop", "f")
    assert {fault.field: fault.problem[0] for fault in made.warnings("f")} == {"tools": "2", "reasoning_content": "2"}


def test_the_xray_shows_every_learned_turn():
    tokenizer = kind("qwen3")
    dataset = Dataset("d", "d", splits={"train": [TWO, TWO]})
    seen = xray(dataset, 1, tokenizer, TrainConfig(data="d", batch_size=4))
    marked = "".join(token["text"] for token in seen["xray"] if token["supervised"])
    assert marked == "<think>\n\n</think>\n\nnice<|im_end|><think>\n\n</think>\n\nsad<|im_end|>"
    assert seen["pack"]["rows"] == [1, 2] and {token["row"] for token in seen["xray"]} == {1}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory) -> str:
    """A tiny model whose template rewrites history and knows tools and a switch for thoughts."""
    folder = tmp_path_factory.mktemp("thinker")
    make_model(kind("qwen3")).save_pretrained(folder)
    kind("qwen3").save_pretrained(folder)
    return str(folder)


def file_of(tmp_path, *examples: dict) -> str:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8")
    return str(path)


def numbered(count: int) -> list[dict]:
    return [{"messages": [{**m, "content": f"{m['content']} {n}"} for m in TWO["messages"]]} for n in range(count)]


def test_every_answer_trains_and_the_run_keeps_its_mode(thinker, tmp_path):
    data = file_of(tmp_path, *numbered(30))
    prepared = Prepared(TrainConfig(data=data, model=thinker, thinking="off"), Listener())
    assert len(prepared.rows["train"]) == 2 * len(prepared.dataset.splits["train"])
    train(TrainConfig(data=data, model=thinker, thinking="off", name="r", epochs=0.3, checkpoint_every=0))
    from sftdemo.inference import load_run

    pair = load_run.load(runs.find("r"))
    asked = [said("user", "the film")]
    assert pair.tokenizer.decode(encode_prompt(pair.tokenizer, asked)).endswith("<think>\n\n</think>\n\n")


def test_training_drops_what_the_template_refuses(tmp_path, tiny):
    from transformers import AutoTokenizer

    model = tmp_path / "model"
    make_model(tokenizer := AutoTokenizer.from_pretrained(tiny)).save_pretrained(model)
    tokenizer.chat_template = NO_SYSTEM
    tokenizer.save_pretrained(model)
    faulty = [{"messages": [said("system", "be kind"), *example["messages"]]} for example in numbered(40)[30:]]
    data = file_of(tmp_path, *numbered(30), *faulty)
    with pytest.raises(DataError, match="System role not supported"):
        Prepared(TrainConfig(data=data, model=str(model)), Listener())
    listener = Listener()
    prepared = Prepared(TrainConfig(data=data, model=str(model), on_fault="drop"), listener)
    kept = prepared.dataset.splits
    assert sum(map(len, kept.values())) == 30 and any("left out" in note for note in listener.notes)
    assert len(prepared.run_config()["data"]["dropped"]) == 10
    fixed = Prepared(TrainConfig(data=data, model=str(model), on_fault="fix"), Listener()).dataset
    assert sum(map(len, fixed.splits.values())) == 40 and len(fixed.fixed) == 10


def test_check_lists_faults_of_the_template_by_on_fault(tmp_path, thinker, capsys):
    data = file_of(tmp_path, *numbered(12), {"messages": [said("user", "a <|im_end|>"), said("assistant", "b")]})
    assert main(["check", data, "--model", thinker, "--thinking", "off", "--row", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["template"]["special_in_text"] == 1
    marked = "".join(token["text"] for token in told["xray"] if token["supervised"])
    assert marked == "nice 0<|im_end|>sad 0<|im_end|>"


def test_an_evaluation_gives_tools_and_keeps_thoughts(thinker, tmp_path):
    call = {"type": "function", "function": {"name": "stock_level", "arguments": {"sku": "a1"}}}
    examples = [
        {"messages": [said("user", f"the film {n}"), said("assistant", "", tool_calls=[call])], "tools": TOOLS}
        for n in range(15)
    ] + [
        {"messages": [said("user", f"a book {n}"), said("assistant", "nice", reasoning_content=f"hm {n}")]}
        for n in range(15)
    ]  # fmt: skip
    data = file_of(tmp_path, *examples)
    train(TrainConfig(data=data, model=thinker, name="r", epochs=0.3, checkpoint_every=0, test_size=8))
    from sftdemo.config import EvaluateConfig
    from sftdemo.verbs.evaluate import evaluate

    found = evaluate("r", EvaluateConfig(max_new_tokens=8))
    assert found["n"] == 8
    outputs = runs.find("r").outputs(found["evaluation"])
    with_tools = [row for row in outputs if row.get("tools")]
    assert with_tools and len(with_tools) < len(outputs)
    for row in outputs:
        expected = '{"name": "stock_level", "arguments": {"sku": "a1"}}' if row.get("tools") else "nice"
        assert row["references"] == [expected]
        ids = row["answer_tokens"]
        alone = encode(kind("qwen3"), [*row["messages"], row["answer"]], row.get("tools"))
        assert ids == sum(alone.supervised)


def test_an_evaluation_tells_of_thoughts_that_never_ended():
    from sftdemo.verbs.evaluate import _say_unfinished

    listener = Listener()
    rows = [{"base": "<think>\nhm", "tuned": "nice"}, {"base": "<think>\nhm</think>good", "tuned": ""}]
    _say_unfinished(rows, 8, listener)
    assert len(listener.notes) == 1 and listener.notes[0].startswith(
        "1 of 2 answers of base end amid their thoughts, after 8 tokens"
    )


def test_a_switch_that_the_template_lacks_stops_check(tmp_path, tiny, capsys):
    assert main(["check", file_of(tmp_path, *numbered(12)), "--model", tiny, "--thinking", "off"]) == 2
    assert "no switch for thoughts" in capsys.readouterr().err
