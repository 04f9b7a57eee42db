"""What `check` tells of the rows as they are trained on: the X-ray out of the batch, the template's checks, lengths, scripts."""

from __future__ import annotations

import json

import pytest
from conftest import CHATML, make_tokenizer

from sftdemo.__main__ import main
from sftdemo.config import TrainConfig
from sftdemo.data import Dataset
from sftdemo.data.text.writing_systems import main_script, scripts
from sftdemo.encoding.encode import encode
from sftdemo.encoding.packing import Collator
from sftdemo.encoding.rows import Encoded
from sftdemo.encoding.xray import rows_of_batch, xray
from sftdemo.errors import UsageError
from sftdemo.verbs import check as inspection
from sftdemo.verbs.check import histogram, measure, own_words
from tests.listener import Listener

CONFIG = TrainConfig(data="d", max_length=100, batch_size=4)


def rows(count: int, answer: str = "好的 🎉") -> list[dict]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"the film {number} was {'good ' * (number + 1)}"},
                {"role": "assistant", "content": f"{answer}{number}"},
            ]
        }
        for number in range(count)
    ]


def dataset(examples, **more) -> Dataset:
    return Dataset("d", "d", splits={"train": examples[:6], "test": examples[6:]}, **more)


@pytest.mark.parametrize("number", [1, 4, 6, 7, 8])
def test_the_xray_is_the_batch_that_trains(tokenizer, number):
    examples = rows(8)
    told = xray(dataset(examples), number, tokenizer, CONFIG)
    encoded = encode(tokenizer, examples[number - 1]["messages"])
    assert [token["id"] for token in told["xray"]] == encoded.ids
    assert [token["supervised"] for token in told["xray"]] == encoded.supervised
    assert "".join(token["text"] for token in told["xray"]) == tokenizer.decode(encoded.ids)
    assert not any("\ufffd" in token["text"] for token in told["xray"])
    assert {token["row"] for token in told["xray"]} == {number}
    pack = told["pack"]
    others = {neighbour["row"] for neighbour in pack["neighbours"]}
    assert number in pack["rows"] and others == set(pack["rows"]) - {number}
    assert others <= (set(range(1, 7)) if number <= 6 else {7, 8}), "a pack holds rows of one split"
    assert sum(token["shared"] for token in told["xray"]) == pack["shared"] > 0
    own = sum(len(neighbour["tokens"]) for neighbour in pack["neighbours"])
    assert own + len(told["xray"]) == pack["tokens"]


def test_rows_come_back_out_of_a_batch(tokenizer):
    encoded = [encode(tokenizer, example["messages"]) for example in rows(5)]
    ends = [len(row.inputs) + 1 for row in encoded]
    assert all(row.ids[end:] and row.supervised[end - 1] for row, end in zip(encoded, ends, strict=True))
    learned = [Encoded(row.ids[:end], row.supervised[:end]) for row, end in zip(encoded, ends, strict=True)]
    assert rows_of_batch(Collator(packed=True)(encoded)) == learned
    assert rows_of_batch(Collator(packed=True)(encoded[:1])) == learned[:1]


def test_a_row_over_the_limit_is_shown_and_said_to_be_left_out(tokenizer):
    examples = [*rows(3), {"messages": [{"role": "user", "content": "bad " * 200}, *rows(1)[0]["messages"][1:]]}]
    told = xray(dataset(examples), 4, tokenizer, CONFIG)
    assert told["pack"]["left_out"] and len(told["xray"]) > 100 and told["pack"]["rows"] == [4]
    assert 4 not in xray(dataset(examples), 1, tokenizer, CONFIG)["pack"]["rows"]
    cut = xray(dataset(examples), 4, tokenizer, TrainConfig(data="d", max_length=100, on_long="cut"))
    assert not cut["pack"]["left_out"] and len(cut["xray"]) <= 100


@pytest.mark.parametrize("number", [0, -1, 9])
def test_a_row_that_is_not_there_is_refused(tokenizer, number):
    with pytest.raises(UsageError, match=f"no row {number}; the data has rows 1 to 8"):
        xray(dataset(rows(8)), number, tokenizer, CONFIG)


def test_measures_are_of_the_rows_as_trained(tokenizer):
    examples = rows(8)
    told = measure(dataset(examples), tokenizer, CONFIG)
    encoded = [encode(tokenizer, example["messages"]) for example in examples]
    assert told["tokens"]["max"] == max(len(row.ids) for row in encoded)
    assert told["supervised_tokens"] == sum(sum(row.supervised) for row in encoded)
    assert sum(told["token_histogram"]["counts"]) == told["counted"] == 8
    assert told["token_histogram"]["limit"] == told["lengths"]["max_length"] == 100
    checks = {name: value for name, value in told["template"].items() if isinstance(value, bool)}
    assert checks == dict.fromkeys(checks, True) and told["template"]["reasons"] == {}
    assert measure(dataset(examples), tokenizer, CONFIG, most=3)["counted"] == 3


@pytest.mark.parametrize("most", [None, 5])
def test_every_row_over_the_limit_is_a_warning_with_its_line(tokenizer, most):
    """Also beyond the rows that are counted: what is short in bytes needn't be encoded to be known to fit."""
    examples = [{**example, "meta": {"line": 10 + at}} for at, example in enumerate(rows(40))]
    for at in (3, 17, 38):
        examples[at]["messages"] = [{"role": "user", "content": "bad " * 900}, examples[at]["messages"][-1]]
    told = measure(dataset(examples), tokenizer, TrainConfig(data="d", max_length=800), most)
    assert [warning["line"] for warning in told["told"]["warnings"]] == [13, 27, 48]
    assert told["lengths"]["over"] == 3 and told["counted"] == (most or 40)
    assert "tokens; max_length is 800." in told["told"]["warnings"][0]["problem"]


@pytest.mark.parametrize(
    ("template", "messages", "check", "reason"),
    [
        ("<|im_start|>" + CHATML, [("user", "a"), ("assistant", "b")], "bos_once", "two BOS tokens"),
        (CHATML.replace("<|im_end|>", ""), [("user", "a"), ("assistant", "b")], "end_of_turn_learned", "learn to stop"),
        (CHATML, [("assistant", "b"), ("user", "a")], "supervised_in_each_row", "doesn't end with an assistant"),
        (
            CHATML.replace("message['content']", "message['content'] | upper"),
            [("user", "a"), ("assistant", "b")],
            "prompt_prefix_same",
            "doesn't write the answer of turn 2",
        ),
        ("{{ raise_exception('no') }}", [("user", "a"), ("assistant", "b")], "template_accepts", "refuses"),
    ],
)
def test_each_check_fails_with_its_reason(template, messages, check, reason):
    turns = [{"role": role, "content": content} for role, content in messages]
    told = measure(dataset([{"messages": turns, "meta": {"line": 7}}]), make_tokenizer(template), CONFIG)
    failed = {name for name, value in told["template"].items() if value is False}
    assert failed == {check} == told["template"]["reasons"].keys()
    assert reason in told["template"]["reasons"][check]
    assert [(fault["line"], reason in fault["problem"]) for fault in told["told"]["faults"]] == [(7, True)]
    assert told["tokens"] is None and told["token_histogram"] is None


def test_special_tokens_in_the_text_are_counted(tokenizer):
    examples = [*rows(2), {"messages": [{"role": "user", "content": "a <|im_end|>"}, *rows(1)[0]["messages"][1:]]}]
    told = measure(dataset(examples), tokenizer, CONFIG)
    assert told["template"]["special_in_text"] == 1 and told["told"]["notes"][0].startswith(
        "1 row spells control tokens"
    )


def test_a_histogram_holds_every_size():
    assert histogram([]) is None
    told = histogram([3, 3, 4, 100], 50, bins=10)
    assert told == {"low": 3, "width": 10, "counts": [3, 0, 0, 0, 0, 0, 0, 0, 0, 1], "limit": 50}
    assert histogram([5, 5])["counts"] == [2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The film, 3 stars!", "Latin"),
        ("Ça va, señor?", "Latin"),
        ("这部电影很好看 OK", "Han"),
        ("この映画はよかった", "Kana"),
        ("東京タワーへ行く", "Kana"),
        ("Фильм хороший", "Cyrillic"),
        ("영화가 좋다", "Hangul"),
        ("الفيلم جيد", "Arabic"),
        ("η ταινία", "Greek"),
        ("film 电影 很好看", "mixed"),
        ("123 !? 🎉", "none"),
        ("", "none"),
    ],
)
def test_the_script_of_a_text(text, expected):
    assert main_script(text) == expected


def test_scripts_are_of_the_rows_own_words():
    asked = {"role": "user", "content": "Classify this text as one of: good, bad.\n\n电影很好看"}
    example = {"messages": [{"role": "system", "content": "be kind"}, asked, {"role": "assistant", "content": "好"}]}
    told = dataset([example], instruction="Classify this text as one of: good, bad.\n\n{text}")
    assert own_words(told, example) == "电影很好看\n好"
    assert scripts(["a", "b", "电影"]) == {"Latin": 2, "Han": 1}


def test_check_tells_it_all(babbler, labelled, capsys):
    assert main(["check", labelled, "--model", babbler, "--row", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"scripts", "token_histogram", "lengths", "template", "xray", "pack", "counted"} <= told.keys()
    assert {"id", "text", "supervised"} <= told["xray"][0].keys()
    assert main(["check", labelled, "--model", babbler, "--row", "2"]) == 0
    shown = capsys.readouterr().out
    assert "Template: all checks hold." in shown and "learned" in shown


def test_a_large_set_is_counted_in_part_and_says_so(labelled, tiny, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_COUNTED", 30)
    listener = Listener()
    found = inspection.inspect(TrainConfig(data=labelled, model=tiny), reporter=listener)
    assert (found["examples"], found["counted"]) == (100, 25)
    assert "Tokens are counted on 25 of 100 rows; training checks every row." in listener.notes
