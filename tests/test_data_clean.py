"""Rows at fault fixed or dropped, cleaning with its counts, and planted repetitions found among ten thousand rows."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from sftdemo.config.read import ReadConfig
from sftdemo.data import Dataset, Example, prepare, read
from sftdemo.data.cleaning.duplicates import duplicates, leaks, near_duplicates
from sftdemo.data.cleaning.pii import replace
from sftdemo.data.cleaning.steps import without_html, without_whitespace
from sftdemo.errors import DataError, UsageError

ENGLISH = sorted({word for word in Path(__file__).read_text(encoding="utf-8").split() if word.isalpha()})
CHINESE = "的一是不了在人有我他这中大来上国和地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"


@pytest.fixture
def load(tmp_path: Path):
    """Write rows and read them; rows may be text."""

    def write_and_read(*rows: object, **settings: object) -> Dataset:
        text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
        (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
        return read(tmp_path / "a.jsonl", **settings)

    return write_and_read


def qa(prompt: str, completion: str = "yes", **more: object) -> dict[str, object]:
    return {"prompt": prompt, "completion": completion, **more}


def told(faults: list[object]) -> list[str]:
    return [str(fault).removeprefix("a.jsonl, ") for fault in faults]


def asked(dataset: Dataset) -> list[str]:
    return [row["messages"][-2]["content"] for row in dataset.splits.get("train", [])]


def test_rows_at_fault_are_dropped_and_listed(load):
    rows = [qa("a"), qa(""), "{", qa("b"), qa("c", None)]
    assert len(load(*rows).faults) == 3 and load(*rows).dropped == []
    dataset = load(*rows, on_fault="drop")
    assert (dataset.faults, asked(dataset)) == ([], ["a", "b"])
    assert [fault.line for fault in dataset.dropped] == [2, 3, 5]
    assert dataset.notes == ["3 rows at fault were left out; each is listed."]


def test_what_dropping_rows_can_not_mend_still_blocks(load, tmp_path):
    assert told(load(qa(""), on_fault="drop").faults) == ["a: No row is left. Give rows without faults, or clean less."]
    (tmp_path / "b.csv").write_text('prompt,completion\na,"b\nc,d\n')
    (fault, *_) = read(tmp_path / "b.csv", on_fault="drop").faults
    assert fault.problem.startswith("A quote that opens here is never closed")
    rows = [{"text": "a", "label": "x", "split": "train"}] + [
        {"text": f"b{i}", "label": "y", "split": "test"} for i in (1, 2)
    ]
    dataset = load(*rows, on_fault="drop")
    assert (dataset.faults, list(dataset.splits), [fault.line for fault in dataset.dropped]) == ([], ["train"], [2, 3])


def test_what_is_safe_to_mend_is_mended_and_listed(load):
    user, assistant = ({"role": role, "content": role} for role in ("user", "assistant"))
    chat = load({"messages": [user, user, assistant, assistant, user]}, on_fault="fix")
    assert [turn["content"] for turn in chat.splits["train"][0]["messages"]] == [
        "user\n\nuser",
        "assistant\n\nassistant",
    ]
    assert told(chat.fixed) == [
        "line 1, field 'messages': Turns 1 and 2 are both the user's. They were joined.",
        "line 1, field 'messages': Turns 3 and 4 are both the assistant's. They were joined.",
        "line 1, field 'messages': The last turn is not the assistant's. It was cut off.",
    ]
    pairs = load(qa("itâ€™s\u0000", 4), qa("caf\ufffd"), on_fault="fix")
    assert (asked(pairs), pairs.splits["train"][0]["messages"][1]["content"]) == (["it’s", "caf\ufffd"], "4")
    assert len(pairs.fixed) == 3 and [fault.line for fault in pairs.warnings] == [2], "what is lost can't be mended"
    labels = [{"text": text, "label": label} for text, label in [("a", "good"), ("b", "Good "), ("c", "good")]]
    dataset = load(*labels, on_fault="fix")
    assert dataset.labels == {"good": 3} and "one of: good. " in dataset.instruction
    assert told(dataset.fixed) == [
        "line 2, field 'label': The label 'Good' is 'good' in another spelling (1 row, and 2). It was written 'good'."
    ]
    assert load(*labels).labels == {"Good": 1, "good": 2}
    rest = load(qa("a\u0000"), qa(""), *[qa(text) for text in "bc"], on_fault="fix")
    assert (asked(rest), rest.faults) == (["a", "b", "c"], []), "what can't be repaired is left out"
    assert [fault.line for fault in rest.dropped] == [2] and [fault.line for fault in rest.fixed] == [1]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("<p>Hi <b>you</b> &amp; me<br/>bye</p>", "Hi you & me\nbye"),
        ("<script>alert(1)</script>x<style>p{}</style>", "x"),
        ("if a < b and c > d: List<String> x", "if a < b and c > d: List<String> x"),
        ("a<!-- note -->b", "ab"),
        ("AT&T &lt;3 &nope;", "AT&T <3 &nope;"),
        ("plain", "plain"),
    ],
)
def test_html(text, clean):
    assert without_html(text) == clean


def test_whitespace_keeps_how_code_is_indented():
    assert without_whitespace("  a \t b\u00a0\u3000c \r\n\n\n\n    d  e\n") == "a b c\n\n    d e"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (
            "Mail joe.smith+x@mail.example.co.uk or call (415) 555-2671, +44 20 7946 0958.",
            "Mail <EMAIL> or call <PHONE>, <PHONE>.",
        ),
        (
            "卡号4111 1111 1111 1111，身份证11010519491231002X，电话13800138000。",
            "卡号<CARD>，身份证<ID>，电话<PHONE>。",
        ),
        ("SSN 536-90-4399, IBAN GB82 WEST 1234 5698 7654 32, from 192.168.0.1", "SSN <ID>, IBAN <IBAN>, from <IP>"),
        (
            "Order 12345678 of 2024-01-02 10:30:45, pi 3.14159265358979, card 4111 1111 1111 1112",
            "Order 12345678 of 2024-01-02 10:30:45, pi 3.14159265358979, card 4111 1111 1111 1112",
        ),
    ],
)
def test_personal_data(text, clean):
    assert replace(text)[0] == clean


def test_each_step_is_counted_with_examples(load):
    rows = [qa("<p>Hi</p>"), qa("a   b"), qa("write to a@b.org or c@d.org"), qa("x"), qa("a b"), qa("A, B!")]
    dataset = load(*rows, clean="html, whitespace, personal, duplicates", min_characters=5)
    assert asked(dataset) == ["Hi", "a b", "write to <EMAIL> or <EMAIL>"]
    assert {step.step: step.count for step in dataset.cleaning} == {
        "html": 1,
        "whitespace": 1,
        "personal": 1,
        "length": 1,
        "duplicates": 2,
    }
    html, _, personal, length, repeated = dataset.cleaning
    assert html.examples == [{"line": 1, "before": "<p>Hi</p>", "after": "Hi", "like": None}]
    assert personal.kinds == {"EMAIL": 2}
    assert length.examples == [{"line": 4, "before": "x", "after": None, "like": None}]
    assert [(example["line"], example["like"]) for example in repeated.examples] == [(5, 2), (6, 2)]
    assert any("names and postal addresses are not found" in note for note in dataset.notes)


def test_labels_and_references_when_text_is_cleaned(load):
    labelled = load({"text": "<b>x</b>", "label": "<b>"}, clean="html").splits["train"][0]
    assert labelled["label"] == labelled["messages"][-1]["content"] == "<b>"
    row = load(qa("q", "<i>a</i>", references=["<i>a</i>", "b"]), clean="html").splits["train"][0]
    assert (row["messages"][-1]["content"], row["references"]) == ("a", ["a", "b"])
    gone = load(qa("<br>"), qa("stays"), clean="html")
    assert asked(gone) == ["stays"] and gone.cleaning[0].examples[0]["after"] is None


def test_leaks_are_taken_out_of_train(load):
    rows = [qa(f"question number {i} about the weather in town", split="train") for i in range(8)]
    rows += [qa("QUESTION number 3, about the weather in town!", split="test")]
    config = ReadConfig(data=load(*rows).source, clean="leaks")
    before = read(config)
    after = prepare(config, dataset=before)
    assert (before.leaked, after.leaked) == (1, 0)
    assert len(after.splits["test"]) == 1 and sum(map(len, after.splits.values())) == 8
    assert [(step.step, step.count) for step in after.cleaning] == [("leaks", 1)] and before.cleaning == []
    assert after.cleaning[0].examples[0]["line"] == 4 and after.cleaning[0].examples[0]["like"] == 9
    all_leak = ReadConfig(data=load(qa("a", split="train"), qa("a", split="test"), qa("b", split="val")).source)
    with pytest.raises(DataError):
        prepare(ReadConfig(data=all_leak.data, clean="leaks"))


def test_settings_that_make_no_sense():
    for settings, words in [
        ({"clean": "soap"}, "clean names 'soap'; the steps are: html, whitespace, personal, duplicates, near_dup"),
        ({"min_characters": 9, "max_characters": 5}, "min_characters is 9, more than max_characters, 5"),
        ({"test_size": 1.5}, "test_size is 1.5; give a share below 1, or a count of rows."),
        ({"validation_size": 0}, "validation_size is 0; give a share below 1, or a count of rows."),
        ({"on_fault": "ignore"}, "on_fault is 'ignore'; choose one of: stop, drop, fix."),
    ]:
        with pytest.raises(UsageError) as caught:
            ReadConfig(data="x", **settings).check()
        assert words in str(caught.value)


def planted(rows: int, share: float, language: str) -> tuple[list[Example], list[Example], set[int], set[int]]:
    """(train, held-out, leaked held-out rows, train rows that repeat an earlier one): of the planted ones half are the
    same but for case and punctuation, half have one word (or two characters in a hundred) changed."""
    draw = random.Random(f"{rows} {share} {language}")
    words, joint, length = (ENGLISH, " ", 30) if language == "en" else (list(CHINESE), "", 50)

    def text() -> list[str]:
        return draw.choices(words, k=length)

    def paraphrased(parts: list[str]) -> str:
        parts = list(parts)
        if draw.random() < 0.5:
            parts[draw.randrange(length)] = draw.choice(words)
            return joint.join(parts)
        for _ in range(4):
            at = draw.randrange(length)
            parts[at] = parts[at].upper() + draw.choice(",.!?;" if language == "en" else "，。！？；")
        return joint.join(parts) + draw.choice("!?…")

    def row(question: str) -> Example:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "ok"}]}

    source = [text() for _ in range(rows)]
    train, repeats = [row(joint.join(parts)) for parts in source], set[int]()
    for index in range(rows // 2, rows):
        if draw.random() < share:
            train[index] = row(paraphrased(source[draw.randrange(rows // 2)]))
            repeats.add(index)
    held_out, leaked = [row(joint.join(text())) for _ in range(rows // 10)], set[int]()
    for index in range(len(held_out)):
        if draw.random() < share:
            held_out[index] = row(paraphrased(source[draw.randrange(rows // 2)]))
            leaked.add(index)
    return train, held_out, leaked, repeats


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("rows", "share"), [(2_000, 0.05), *(pytest.param(10_000, share, marks=pytest.mark.slow) for share in (0.01, 0.05))]
)
def test_planted_leaks_and_near_duplicates_are_found(language, rows, share):
    train, held_out, leaked, repeats = planted(rows, share, language)
    for found, right in [
        ({index for index, _ in leaks(train, held_out)}, leaked),
        ({index for index, _ in near_duplicates(train)}, repeats),
    ]:
        assert right and len(found & right) >= 0.95 * len(right) and len(found & right) >= 0.95 * len(found)
    exact = {index for index, _ in duplicates(train)}
    assert exact <= repeats and 0.3 * len(repeats) <= len(exact) <= 0.7 * len(repeats)


def test_rows_that_differ_in_what_matters_are_no_repetition():
    def row(question: str, label: str) -> Example:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": label}]
        return {"messages": turns, "label": label, "meta": {}}  # type: ignore[typeddict-item]

    long = "please turn to chapter {} of the long instruction book on the table"
    rows = [row(long.format(3), "a"), row(long.format(4), "a"), row(long.format(3), "b"), row(long.format(3), "a")]
    assert near_duplicates(rows) == [(3, 0)]


def test_a_template_of_thousands_takes_no_time():
    turns = [
        [{"role": "user", "content": f"What is {i} plus {i + 1}, said in one short sentence?"}] for i in range(3000)
    ]
    rows: list[Example] = [{"messages": [*turn, {"role": "assistant", "content": "x"}]} for turn in turns]
    assert near_duplicates(rows) == []
