"""Rows as people, tools and public sets lay them out: what is asked, what is learned, and what is said of the rest."""

from __future__ import annotations

import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftdemo.data import Dataset, read
from sftdemo.errors import UserError
from sftdemo.files import write_jsonl

AB, ABCD = "ab", "ABCD"


def each(make: Any, count: int = 8) -> list[Any]:
    return [make(number) for number in range(count)]


@pytest.fixture
def load(tmp_path: Path):
    """Write rows (as JSONL), an object (as JSON) or text (as CSV), and read it."""

    def write_and_read(content: Any, **settings: Any) -> Dataset:
        if isinstance(content, list):
            write_jsonl(path := tmp_path / "a.jsonl", content)
        else:
            path = tmp_path / ("a.csv" if isinstance(content, str) else "a.json")
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read(path, **settings)

    return write_and_read


def first(dataset: Dataset) -> tuple[str, str]:
    """What is read, and what is learned, of the first row."""
    *before, last = next(iter(dataset.splits.values()))[0]["messages"]
    return "\n".join(turn["content"] for turn in before), last["content"]


def node(parent: str | None, role: str, *parts: Any, **changed: Any) -> dict[str, Any]:
    """A turn of ChatGPT's export."""
    content = {"content_type": "text", "parts": list(parts)}
    return {"parent": parent, "message": {"author": {"role": role}, "content": content, "recipient": "all"} | changed}


def exported(number: int) -> dict[str, Any]:
    """A conversation of it: asked twice, the second time with a tool."""
    code = {"content_type": "code", "text": "1 + 1"}
    branches = {
        "root": {"parent": None, "message": None},
        "rules": node("root", "system", ""),
        "ask": node("rules", "user", f"Hi {number}"),
        "old": node("ask", "assistant", "The first answer"),
        "call": node("ask", "assistant", content=code, recipient="python"),
        "result": node("call", "tool", "2"),
        "new": node("result", "assistant", "Ho"),
    }
    return {"mapping": branches, "current_node": "new", "id": f"c{number}"}


# (content, its layout, a pattern in what is read, one in what is learned)
READ: dict[str, tuple[Any, str, str, str]] = {
    # Parts of a question.
    "dolly": (each(lambda i: {"instruction": f"Who {i}?", "context": f"It was Bo {i}.", "response": f"Bo {i}"}), "instruction", r"Who 0\?\n\nIt was Bo 0", "^Bo 0$"),
    "passage": (each(lambda i: {"passage": f"Bo {i} sat.", "question": f"Did {i}?", "answer": i % 2 == 0}), "prompt_completion", r"Bo 0 sat.\n\nDid 0\?", "^true$"),
    "instruction and prompt": (each(lambda i: {"instruction": f"Like a pirate {i}.", "prompt": f"Hi {i}", "response": "Arr"}), "instruction", "pirate 0.\n\nHi 0", "^Arr$"),
    "in camel case": (each(lambda i: {"userMessage": f"Hi {i}", "assistantMessage": f"Ho {i}"}), "prompt_completion", "^Hi 0$", "^Ho 0$"),
    "plural": (each(lambda i: {"inputs": f"Hi {i}", "targets": f"Ho {i}"}), "prompt_completion", "^Hi 0$", "^Ho 0$"),
    "user and assistant": (each(lambda i: {"user": f"Hi {i}", "assistant": f"Ho {i}"}), "prompt_completion", "^Hi 0$", "^Ho 0$"),
    "history of turns": (each(lambda i: {"prompt": f"And {i}?", "completion": "c", "history": [{"role": "user", "content": "First?"}, {"role": "assistant", "content": "b"}]}), "prompt_completion", "First\\?\nb\nAnd 0", "^c$"),
    "thoughts": (each(lambda i: {"Question": f"Q {i}", "Complex_CoT": "hm", "Response": f"R {i}"}), "prompt_completion", "^Q 0$", "^R 0$"),
    "title": (each(lambda i: {"title": f"T{i}", "text": f"body {i}", "label": AB[i % 2]}), "text_label", "T0\n\nbody 0", "^a$"),
    "half stars": (each(lambda i: {"rating": [4.5, 1.0][i % 2], "text": f"body {i}"}), "text_label", "body 0", "^4.5$"),
    "moods below 0": (each(lambda i: {"text": f"t {i}", "label": [-1, 0, 1][i % 3]}), "text_label", "t 0", "^-1$"),
    "asked twice": (each(lambda i: {"question1": f"t {i}", "question2": f"u {i}", "is_duplicate": i % 2}), "text_label", "t 0\nQuestion 2: u 0", "^0$"),
    "Bard": (each(lambda i: {"conversations": [{"from": "user", "value": f"Hi {i}"}, {"from": "bard", "value": "Ho"}]}), "sharegpt", "^Hi 0$", "^Ho$"),
    "mail": (each(lambda i: {"subject": f"T{i}", "body": f"body {i}", "queue": AB[i % 2]}), "text_label", "T0\n\nbody 0", "^a$"),
    "summary": (each(lambda i: {"dialogue": f"A: hi {i}\nB: yo", "summary": f"They greet {i}"}), "summary", "^Summarize this text.\n\nA: hi 0", "They greet 0"),
    "text and summary": (each(lambda i: {"text": f"Long {i}", "summary": f"Short {i}"}), "summary", "Long 0", "Short 0"),
    # Options.
    "options in columns": ("Question,A,B,C,D,Answer\n" + "".join(f"What {i}?,w{i},x{i},y,z,{ABCD[i % 4]}\n" for i in range(8)), "prompt_completion", r"What 0\?\n\nA. w0\nB. x0", "^A$"),
    "an index": (each(lambda i: {"question": f"Q {i}", "choices": [f"w{i}", "x", "y", "z"], "answer": (i + 1) % 4}), "prompt_completion", "A. w0\nB. x", "^B$"),
    "an index from 1": (each(lambda i: {"question": f"Q {i}", "option1": f"w{i}", "option2": "x", "answer": i % 2 + 1}), "prompt_completion", "A. w0\nB. x", "^A$"),
    "a text": (each(lambda i: {"question": f"Q {i}", "options": [f"w{i}", "x"], "answer": "x"}), "prompt_completion", "A. w0", "^B$"),
    "an option's name": (each(lambda i: {"question": f"Q {i}", "option_a": f"w{i}", "option_b": "x", "correct_option": "option_b"}), "prompt_completion", "A. w0\nB. x", "^B$"),
    "named options": (each(lambda i: {"question": f"Q {i}", "choices": {"text": [f"w{i}", "x"], "label": ["A", "B"]}, "answerKey": "B"}), "prompt_completion", "A. w0", "^B$"),
    "endings": (each(lambda i: {"ctx": f"A man {i}", "endings": ["runs", "sits"], "label": str((i + 1) % 2)}), "prompt_completion", "A man 0\n\nA. runs", "^B$"),
    "options of a sentence": (each(lambda i: {"sentence": f"Bo hit Al, _ cried {i}", "option1": "Bo", "option2": "Al", "answer": str(i % 2 + 1)}), "prompt_completion", "cried 0\n\nA. Bo\nB. Al", "^A$"),
    # Pairs, labels.
    "premise": (each(lambda i: {"premise": f"A {i}", "hypothesis": f"B {i}", "label": AB[i % 2]}), "text_label", "Premise: A 0\nHypothesis: B 0", "^a$"),
    "two questions": (each(lambda i: {"question1": f"A {i}", "question2": f"B {i}", "label": i % 2}), "text_label", "Question 1: A 0\nQuestion 2: B 0", "^0$"),
    "label names": (each(lambda i: {"text": f"t {i}", "label": i % 2, "label_name": AB[i % 2]}), "text_label", "one of: a, b", "^a$"),
    "a label in a list": (each(lambda i: {"text": f"t {i}", "labels": [AB[i % 2]]}), "text_label", "one of: a, b", "^a$"),
    "several labels": (each(lambda i: {"text": f"t {i}", "labels": ["a", "b"][: 2 - i % 2]}), "text_label", "Which of these labels", "^a, b$"),
    "labels as pandas writes them": ("text,label\n" + "".join(f"t {i},\"['a' 'b']\"\n" for i in range(4)), "text_label", "t 0", "^a, b$"),
    "spam": (each(lambda i: {"v1": ["ham", "spam"][i % 2], "v2": f"call {i}"}), "text_label", "call 0", "^ham$"),
    "target": (each(lambda i: {"text": f"this is {i}", "target": i % 2}), "text_label", "this is 0", "^0$"),
    "news": (each(lambda i: {"Class Index": i % 2, "Title": f"T{i}", "Description": f"D {i}"}), "text_label", "T0\n\nD 0", "^0$"),
    # Answers.
    "a number": (each(lambda i: {"question": f"Q {i}", "answer": i + 0.5}), "prompt_completion", "Q 0", "^0.5$"),
    "an object": (each(lambda i: {"input": f"Q {i}", "output": {"n": i, "of": ["é"]}}), "prompt_completion", "Q 0", r'^\{"n": 0, "of": \["é"\]\}$'),
    "a list": (each(lambda i: {"input": f"Q {i}", "output": ["x", "y"]}), "prompt_completion", "Q 0", r'^\["x", "y"\]$'),
    "several right ones": (each(lambda i: {"question": f"Q {i}", "answer": ["x", "y"]}), "prompt_completion", "Q 0", "^x$"),
    "JSON": (each(lambda i: {"text": f"{i} pears", "json": {"n": i}}), "prompt_completion", "0 pears", '^{"n": 0}$'),
    "lists by name": (each(lambda i: {"text": f"{i} pears", "entities": {"fruit": ["pears"]}}), "prompt_completion", "0 pears", '^{"fruit": \\["pears"\\]}$'),
    # Languages.
    "languages": (each(lambda i: {"en": f"cat {i}", "fr": f"chat {i}"}), "source_target", "^Translate to French:\ncat 0", "^chat 0$"),
    "named languages": (each(lambda i: {"id": i, "German": f"Katze {i}", "English": f"cat {i}"}), "source_target", "English:\nKatze", "^cat 0$"),
    "languages and more": (each(lambda i: {"English sentence": f"cat {i}", "French sentence": f"chat {i}"}), "source_target", "^Translate to French:\ncat 0", "^chat 0$"),
    "translation": (each(lambda i: {"translation": {"de": f"Katze {i}", "zh-CN": f"猫 {i}"}}), "source_target", "Chinese:\nKatze", "^猫 0$"),
    # Public sets and APIs.
    "SQuAD": ({"version": "1", "data": [{"title": "Bins", "paragraphs": [{"context": "It is green.", "qas": [{"id": "1", "question": "Colour?", "answers": [{"text": "green", "answer_start": 6}]}]}]}]}, "prompt_completion", r"Bins\n\nIt is green.\n\nColour\?", "^green$"),
    "unanswerable": (each(lambda i: {"context": f"C {i}", "question": f"Q {i}", "answers": {"text": [], "answer_start": []}}), "prompt_completion", "C 0\n\nQ 0", "^unanswerable$"),
    "SQuAD through pandas": ("context,question,answers\n" + "".join(f"C {i},Q {i},\"{{'text': array(['x'], dtype=object), 'answer_start': array([0])}}\"\n" for i in range(4)), "prompt_completion", "C 0", "^x$"),
    "OpenAI's preferences": (each(lambda i: {"input": {"messages": [{"role": "user", "content": f"Hi {i}"}]}, "preferred_output": [{"role": "assistant", "content": "Yes"}], "non_preferred_output": [{"role": "assistant", "content": "No"}]}), "preference", "^Hi 0$", "^Yes$"),
    "LLaMA-Factory's preferences": (each(lambda i: {"conversations": [{"from": "human", "value": f"Hi {i}"}], "chosen": {"from": "gpt", "value": "Yes"}, "rejected": {"from": "gpt", "value": "No"}}), "preference", "^Hi 0$", "^Yes$"),
    "DailyDialog": (each(lambda i: {"dialog": [f"Hi {i}", "Ho"]}), "messages", "^Hi 0$", "^Ho$"),
    "UltraChat": (each(lambda i: {"id": str(i), "data": [f"Hi {i}", "Ho", "More?", "Yes"]}), "messages", "Hi 0\nHo\nMore", "^Yes$"),
    "Gemini": (each(lambda i: {"systemInstruction": {"parts": [{"text": "Be kind"}]}, "contents": [{"role": "user", "parts": [{"text": f"Hi {i}"}]}, {"role": "model", "parts": [{"text": "Ho"}]}]}), "messages", "Be kind\nHi 0", "^Ho$"),
    "calls beside tools": (each(lambda i: {"query": f"Q {i}", "answers": json.dumps([{"name": "f", "arguments": {}}]), "tools": json.dumps([{"name": "f"}])}), "prompt_completion", "Q 0", "^$"),
    # Files that are one object.
    "columns": ({"text": ["a b", "c d", "e f"], "label": ["x", "y", "x"]}, "text_label", "a b", "^x$"),
    "numbered columns": ({"text": {"0": "a b", "1": "c d"}, "label": {"0": "x", "1": "y"}}, "text_label", "a b", "^x$"),
    "splits": ({"train": [{"text": "a b", "label": "x"}], "test": [{"text": "c d", "label": "x"}]}, "text_label", "a b", "^x$"),
    # Annotation tools.
    "Label Studio": (each(lambda i: {"id": i, "data": {"text": f"t {i}"}, "annotations": [{"result": [{"from_name": "k", "type": "choices", "value": {"choices": [AB[i % 2]]}}]}]}), "text_label", "t 0", "^a$"),
    "Label Studio's text": (each(lambda i: {"data": {"text": f"t {i}"}, "annotations": [{"result": [{"from_name": "k", "type": "textarea", "value": {"text": [f"a whole answer of {i}"]}}]}]}), "prompt_completion", "t 0", "^a whole answer of 0$"),
    "Label Studio's answers": (each(lambda i: {"data": {"question": f"Q {i}", "context": f"C {i}"}, "annotations": [{"result": [{"from_name": "k", "type": "textarea", "value": {"text": [f"A{i}"]}}]}]}), "prompt_completion", "C 0\n\nQ 0", "^A0$"),
    "Label Studio's spans": (each(lambda i: {"data": {"text": f"Bo {i}"}, "annotations": [{"result": [{"from_name": "k", "type": "labels", "value": {"start": 0, "end": 2, "text": "Bo", "labels": ["PER"]}}]}]}), "extraction", "Bo 0", r'^\[\{"text": "Bo", "label": "PER"\}\]$'),
    "Label Studio, flat": (each(lambda i: {"text": f"t {i}", "kind": AB[i % 2], "annotator": 1, "annotation_id": i, "lead_time": i / 3}), "text_label", "t 0", "^a$"),
    "Argilla": (each(lambda i: {"status": "completed", "fields": {"text": f"t {i}"}, "responses": {"kind": [{"value": AB[i % 2]}]}, "suggestions": {"kind": {"value": "z"}}}), "text_label", "t 0", "^a$"),
    "Argilla, published": (each(lambda i: {"text": f"t {i}", "kind.responses": [AB[i % 2]], "kind.responses.status": ["submitted"], "kind.suggestion": "z"}), "text_label", "t 0", "^a$"),
    "doccano's spans": (each(lambda i: {"id": i, "text": f"Bo {i}", "label": [[0, 2, "PER"]]}), "extraction", "kinds: PER", '"text": "Bo"'),
    "doccano's texts": (each(lambda i: {"id": i, "text": f"t {i}", "label": [f"the whole text of {i}"]}), "prompt_completion", "^t 0$", "^the whole text of 0$"),
    "Prodigy's options": (each(lambda i: {"text": f"t {i}", "options": [{"id": "P", "text": "Pipes"}], "accept": ["P"], "answer": "accept", "_task_hash": i}), "text_label", "t 0", "^Pipes$"),
    "tags": (each(lambda i: {"tokens": ["Bo", "Li", "met", f"Kim{i}"], "ner_tags": ["B-PER", "I-PER", "O", "B-PER"]}), "extraction", "Bo Li met Kim0", '^\\[{"text": "Bo Li", "label": "PER"}, {"text": "Kim0"'),
    "a token a row": ("Sentence #,Word,Tag\n" + "".join(f"S{i},Bo,B-PER\n,Li,I-PER\n,sat,O\n" for i in range(6)), "extraction", "Bo Li sat", '^\\[{"text": "Bo Li", "label": "PER"}\\]$'),
    "spaCy": (each(lambda i: {"text": f"Bo {i}", "annotations": {"entities": [[0, 2, "PER"]]}}), "extraction", "Bo 0", '"text": "Bo"'),
    "tags of characters": (each(lambda i: {"tokens": list("李四来了"), "tags": ["B-人", "I-人", "O", "O"]}), "extraction", "李四来了", '"text": "李四"'),
    # Conversations written out.
    "### Human": (each(lambda i: {"text": f"### Human: Hi {i}?### Assistant: Ho {i}."}), "messages", r"^Hi 0\?$", "^Ho 0.$"),
    "ChatML": (each(lambda i: {"text": f"<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi {i}<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"}), "messages", "^Be kind\nHi 0$", "^Ho$"),
    "[INST]": (each(lambda i: {"text": f"<s>[INST] <<SYS>>\nBe kind\n<</SYS>>\n\nHi {i} [/INST] Ho </s><s>[INST] More [/INST] Yes </s>"}), "messages", "^Be kind\nHi 0\nHo\nMore$", "^Yes$"),
    "User and Bot": (each(lambda i: {"text": f"User: Hi {i} Bot: Ho"}), "messages", "^Hi 0$", "^Ho$"),
    "in Chinese": (each(lambda i: {"text": f"用户：你好{i}\n助手：好"}), "messages", "^你好0$", "^好$"),
    "Alpaca": (each(lambda i: {"text": f"Below is an instruction that describes a task.\n\n### Instruction:\nAdd.\n\n### Input:\n{i} 1\n\n### Response:\n{i + 1}"}), "messages", "^Add.\n\n0 1$", "^1$"),
    "ChatGPT's export": (each(exported), "messages", "^Hi 0$", "^Ho$"),
    "Claude's export": (each(lambda i: {"uuid": f"c{i}", "chat_messages": [{"sender": "human", "text": f"Hi {i}"}, {"sender": "assistant", "text": "Ho"}]}), "messages", "^Hi 0$", "^Ho$"),
    "Vicuna": (each(lambda i: {"conversations": f"A chat. USER: Hi {i} ASSISTANT: Ho"}), "messages", "^A chat.\nHi 0$", "^Ho$"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_rows_are_read_as_they_are_meant(load, name):
    content, layout, asked, answer = READ[name]
    dataset = load(content)
    assert (dataset.faults, dataset.warnings, dataset.format) == ([], [], layout)
    question, learned = first(dataset)
    assert re.search(asked, question) and re.search(answer, learned), (question, learned)


# (rows, how many of them are learned, what none of those may learn, a note)
LEFT_OUT: dict[str, tuple[list[Any], int, str, str]] = {
    "unwanted": (each(lambda i: {"prompt": f"Q {i}", "completion": f"{AB[i % 2]}", "label": i % 2 == 0}), 4, "b", "4 rows were left out: they are marked as unwanted."),
    "unwanted, as numbers": (each(lambda i: {"messages": [{"role": "user", "content": f"Q {i}"}, {"role": "assistant", "content": AB[i % 2]}], "kto_tag": (i + 1) % 2}), 4, "b", "4 rows were left out: they are marked as unwanted."),
    "rejected": (each(lambda i: {"text": f"t {i}", "label": AB[i % 2], "answer": ["accept", "reject"][i % 2], "_task_hash": i}), 4, "b", "4 rows were left out: an annotator rejected them."),
    "ignored": (each(lambda i: {"text": f"Bo {i}", "spans": [{"start": 0, "end": 2, "label": "PER"}], "answer": "ignore" if i else "accept"}), 1, "Bo 1", "7 rows were left out: an annotator ignored them."),
    "cancelled": (each(lambda i: {"data": {"text": f"t {i}"}, "annotations": [{"was_cancelled": i % 2 == 1, "result": [{"from_name": "k", "type": "choices", "value": {"choices": [AB[i % 2]]}}]}]}), 4, "b", "4 rows were left out: their annotation was cancelled."),
    "discarded": (each(lambda i: {"fields": {"text": f"t {i}"}, "responses": {"k": [{"value": AB[i % 2], "status": ["submitted", "discarded"][i % 2]}]}}), 4, "b", "4 rows were left out: their answers were discarded."),
    "only suggested": (each(lambda i: {"fields": {"text": f"t {i}"}, "responses": {} if i % 2 else {"k": [{"value": "a"}]}, "suggestions": {"k": {"value": "b"}}}), 4, "b", "4 rows were left out: nobody has annotated them."),
    "hidden": (each(lambda i: {"premise": f"t {i}", "hypothesis": f"u {i}", "label": [0, 1, 2, -1][i % 4]}), 6, "-1", "2 rows were left out: they have no label."),
    "not labelled": (each(lambda i: {"id": i, "text": f"t {i}", "label": ["a"][: (i + 1) % 2]}), 4, "b", "4 rows were left out: they have no label."),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_marked_as_not_to_be_learned_is_not(load, name):
    rows, count, never, note = LEFT_OUT[name]
    dataset = load(rows)
    assert dataset.faults == [] and dataset.examples == count and note in dataset.notes
    assert not [row for row in dataset.splits["train"] if never in row["messages"][-1]["content"]]


def test_what_stands_beside_the_rows_is_told(load):
    dataset = load(
        {"style": "Be kind", "train": [{"text": "a b", "label": "x"}], "test": [{"text": "c d", "label": "x"}]}
    )
    assert dataset.notes == ["Beside its rows the file has 'style', which was not used."]


def test_marks_that_differ_are_told(load):
    def marked(*labels: str) -> list[dict[str, Any]]:
        return [{"result": [{"from_name": "k", "type": "choices", "value": {"choices": [label]}}]} for label in labels]

    rows = each(lambda i: {"data": {"text": f"t {i}"}, "annotations": marked("a", AB[i % 2])})
    note = "4 rows are marked differently by several people: one of the marks is learned."
    assert load(rows).notes == [note] and load(rows).labels == {"a": 8}


def test_unused_columns_are_named(load):
    rows = each(
        lambda i: {"id": i, "prompt": f"Q {i}", "completion": f"A {i}", "tone": AB[i % 2], "lang": "en", "src": f"s{i}"}
    )
    dataset = load(rows)
    assert [fault.problem for fault in dataset.warnings] == ["Columns that are not used: 'tone', 'src'."]
    assert dataset.notes == [
        "Columns not used, since they number or name the rows: 'id'.",
        "Columns not used, since they are the same in every row: 'lang'.",
    ]
    shown = load(rows, instruction="{prompt} ({tone}, {src})")
    assert shown.warnings == [] and first(shown)[0] == "Q 0 (a, s0)"
    # An id that is a sentence is no id.
    named = load(each(lambda i: {"id": f"kucing nomor {i}", "prompt": f"Q {i}", "completion": "A"}))
    assert "'id'" in named.warnings[0].problem


def test_what_is_used_already_is_no_warning(load):
    full = "### Instruction:\nDo {0}\n### Input:\nin {0}\n### Response:\nout {0}"
    alpaca = load(
        each(lambda i: {"instruction": f"Do {i}", "input": f"in {i}", "output": f"out {i}", "text": full.format(i)})
    )
    assert alpaca.warnings == [] and alpaca.notes == ["Columns not used, since they repeat what is used: 'text'."]
    twice = load(each(lambda i: {"instruction": "Be short.", "prompt": f"Be short. Q {i}", "completion": "A"}))
    assert first(twice)[0] == "Be short. Q 0"
    assert twice.notes == ["'instruction' is not shown again: it stands in 'prompt' already."]
    # Another label of the same rows does tell something.
    other = load(each(lambda i: {"text": f"t {i}", "label": i % 2, "label_text": AB[i // 2 % 2]}))
    assert [fault.field for fault in other.warnings] == ["label"]


GUESSES = [
    (each(lambda i: {"Grund": AB[i % 2], "Nachricht": f"das ist Nachricht {i} hier"}), "text=Nachricht,label=Grund"),
    (each(lambda i: {"Anfrage": f"was ist mit {i} los", "Reaktion": f"das ist {i} dazu"}), "prompt=Anfrage,completion=Reaktion"),
    (each(lambda i: {"data": {"body text": f"hi there you {i}"}, "meta": {"kind": AB[i % 2]}}), "'text=data.body text,label=meta.kind'"),
    (each(lambda i: {"inputs": {"question": f"was ist mit {i} los"}, "outputs": {"answer": f"das ist {i} dazu"}}), "prompt=inputs.question,completion=outputs.answer"),
    (each(lambda i: {"year": 1900 + i % 2, "title": f"Film {i}", "genre": AB[i % 2], "plot": f"they met {i} times and more often than that"}), "text=plot,label=genre"),
    (each(lambda i: {"body": f"how do I sort {i} things", "tags": f"<sort><x{i}>", "y": AB[i % 2]}), "text=body,label=y"),
    (each(lambda i: {"locale": AB[i // 2 % 2], "utt": f"wake me up at {i}", "intent": AB[i % 2]}), "text=utt,label=intent"),
    (each(lambda i: {"text": f"wake me up at {i}", "language": "en", "mood": AB[i % 2]}), "text=text,label=mood"),
    (each(lambda i: {"en": f"the cat {i}", "fr": f"le chat {i}", "de": f"die Katze {i}"}), "source=en,target=fr"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "pairs"), GUESSES)
def test_a_guess_is_a_question_that_one_flag_answers(load, rows, pairs):
    (fault,) = load(rows).faults
    assert fault.whole and fault.remedy.startswith(f"If so, read them with --columns {pairs}; ")
    dataset = load(rows, columns=pairs.strip("'"))
    assert dataset.faults == [] and dataset.examples == len(rows)


def test_who_names_the_layout_is_not_asked(load):
    film = each(
        lambda i: {"title": f"Film {i}", "category": AB[i % 2], "plot": f"they met {i} times and more often than that"}
    )
    assert load(film).faults and load(film).suggested == {"text": "plot", "label": "category"}
    dataset = load(film, format="text_label")
    assert not dataset.faults and dataset.mapping == {"text": "title", "label": "category"}
    assert [fault.field for fault in dataset.warnings] == ["plot"]
    facts = each(
        lambda i: {"text": f"row {i} of all", "score": i % 5, "toxic": i % 2, "threat": i // 2 % 2, "insult": i // 4}
    )
    assert load(facts).faults and not load(facts, format="text_label").faults


def test_a_spoilt_export_of_chatgpt_gives_faults(load):
    def spoilt(**nodes: Any) -> dict[str, Any]:
        whole = exported(0)
        return whole | {"mapping": whole["mapping"] | nodes}

    picture = {"content_type": "image_asset_pointer"}
    circle, seen = spoilt(ask=node("new", "user", "Hi")), spoilt(ask=node("root", "user", "Look", picture))
    odd = [spoilt(ask=value) for value in ([], {"message": 1}, {"message": {"author": "x"}}, node("root", "user", 1))]
    dataset = load([circle, seen, *odd, exported(1)])
    assert dataset.examples == 2 and {fault.line for fault in dataset.faults} == {2, 3, 4, 5, 6}


def test_dotted_paths(load):
    rows = each(lambda i: {"data": {"text": f"t {i}", "by": f"B {i}"}, "meta": {"kind": AB[i % 2], "tags": [f"x{i}"]}})
    dataset = load(rows, columns="text=data.text,label=meta.kind")
    assert dataset.labels == {"a": 4, "b": 4} and dataset.mapping == {"text": "data.text", "label": "meta.kind"}
    assert dataset.warnings[0].problem == "Columns that are not used: 'data.by', 'meta.tags'."
    assert first(load(rows, columns="prompt=data.text,completion=meta.tags.0"))[1] == "x0"
    with pytest.raises(UserError, match=r"columns names 'meta\.nothing', which no row has"):
        load(rows, columns="text=data.text,label=meta.nothing")


def test_a_column_the_user_names_is_the_files_own(load):
    rows = each(
        lambda i: {"text": f"t {i}", "label": AB[i % 2], "answer": ["accept", "reject"][i % 2], "_task_hash": i}
    )
    dataset = load(rows, columns="text=text,label=answer")
    assert dataset.labels == {"accept": 4, "reject": 4}


def test_splits_by_any_name(load):
    rows = each(lambda i: {"text": f"t {i}", "label": AB[i // 2 % 2], "fold": ["train", "test"][i % 2]})
    assert {name: len(part) for name, part in load(rows).splits.items()} == {"train": 4, "test": 4}
    for name in ("fold", "split"):
        numbered = load(each(lambda i, name=name: {"text": f"t {i}", "label": AB[i % 2], name: i % 5}))
        assert numbered.faults == [] and numbered.examples == len(numbered.splits["train"]) == 8
        assert [fault.field for fault in numbered.warnings] == [name]
    other = load(each(lambda i: {"text": f"t {i}", "label": AB[i % 2], "set": f"set {i // 3}"}))
    assert list(other.splits) == ["train"] and [fault.field for fault in other.warnings] == ["set"]


ROW_FAULTS = [
    (each(lambda i: {"question": f"Q {i}", "choices": ["w", "x"], "answer": "A" if i else "Z"}, 20), "The answer 'Z' is none of the options."),
    (each(lambda i: {"text": f"Bo {i}", "entities": [[0, 2 if i else 99, "PER"]]}, 20), "The field marks the characters 0 to 99 of a text of 4."),
    (each(lambda i: {"tokens": ["Bo", f"{i}"], "ner_tags": ["B-PER", "O"][: 2 - (i == 0)]}, 20), "The field has 1 tag for 2 tokens."),
    (each(lambda i: {"text": f"User: Hi {i} Bot: Ho" if i else "nothing"}, 20), "The field is no list of turns."),
    (each(lambda i: {"contents": [{"role": "user", "parts": [{"text": "Hi"} if i else {"fileData": {}}]}, {"role": "model", "parts": [{"text": "Ho"}]}]}), "Turn 1 holds a fileData, which can't be trained on."),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "problem"), ROW_FAULTS)
def test_a_fault_is_one_rows(load, rows, problem):
    (fault,) = load(rows).faults
    assert (fault.line, fault.problem) == (1, problem)
    dropped = load(rows, on_fault="drop")
    assert dropped.examples == len(rows) - 1 and dropped.faults == []


def test_numbered_tags_are_told_and_not_guessed(load):
    dataset = load(each(lambda i: {"tokens": ["Bo", f"{i}"], "ner_tags": [1, 0]}))
    assert dataset.examples == 0 and "not the names of tags" in dataset.faults[0].problem


CONLL = "-DOCSTART- -X- O O\n\nBo NNP B-NP B-PER\nLi NNP I-NP I-PER\nmet VBD O O\nKim NNP B-NP B-PER\n\nIt O O O\nrained O O O\n"


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.bio"])
def test_a_token_on_each_line(tmp_path, name):
    (tmp_path / name).write_text(CONLL)
    dataset = read(tmp_path / name)
    assert (dataset.faults, dataset.warnings, dataset.format) == ([], [], "extraction")
    assert [json.loads(row["messages"][-1]["content"]) for row in dataset.splits["train"]] == [
        [{"text": "Bo Li", "label": "PER"}, {"text": "Kim", "label": "PER"}], [],
    ]  # fmt: skip
    assert [row["meta"]["line"] for row in dataset.splits["train"]] == [3, 8]


def test_pairs_as_spacy_trains_on_them(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([["Bo met Kim", {"entities": [[7, 10, "PER"], [0, 2, "PER"]]}]] * 3))
    (answer,) = {row["messages"][-1]["content"] for row in read(tmp_path / "a.json").splits["train"]}
    assert [mark["text"] for mark in json.loads(answer)] == ["Bo", "Kim"]


def test_an_index_that_may_count_from_0_or_1(load):
    dataset = load(each(lambda i: {"question": f"Q {i}", "choices": ["w", "x", "y"], "answer": 1}))
    assert first(dataset)[1] == "B" and "doesn't tell" in dataset.warnings[0].problem


def test_all_is_said_in_chinese(load):
    pytest.importorskip("gradio")
    from sftdemo.ui.texts.faults import in_words

    told: set[str] = set()
    for content in [case[0] for case in (*READ.values(), *LEFT_OUT.values(), *GUESSES, *ROW_FAULTS)]:
        dataset = load(content)
        faults = [*dataset.faults, *dataset.warnings]
        told |= {text for fault in faults for text in (fault.problem, fault.remedy)} | set(dataset.notes)
    assert len(told) > 20 and [text for text in told if not re.search("[\u4e00-\u9fff]", in_words(text, "zh"))] == []


def test_a_runs_saved_data_is_read_back_unchanged(load, tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": {"n": 1}}}
    turns = [
        {"role": "assistant", "content": "Hello!", "weight": 0.0},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "I'll look"},
        {"role": "tool", "content": "40", "name": "f"},
        {"role": "assistant", "content": "Forty."},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    chats = [{"messages": turns, "tools": tools, "meta": {"line": 7, "group": "g", "file": "b.jsonl"}, "weight": 0.5}]
    for rows in (chats, *(next(iter(load(content).splits.values())) for content, *_ in READ.values())):
        again = load(rows)
        assert (again.faults, again.warnings) == ([], []) and again.splits["train"] == rows


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just([]), st.just({}), st.just([[]]),
    st.sampled_from(["[", "['a' 'b']", "train", "B-PER", [1, 2], [{"role": "user"}], {"text": None}, {"start": 1}, [None]]),
)  # fmt: skip


def spoilt(draw: Any, value: Any, depth: int) -> Any:
    """The value with junk for one of its parts."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or not depth or draw(st.integers(0, 5)) == 0:
        return draw(JUNK)
    key = draw(st.sampled_from(keys))
    changed = copy.copy(value)
    if draw(st.booleans()) or draw(st.booleans()):
        changed[key] = spoilt(draw, value[key], depth - 1)
    else:
        del changed[key]
    return changed


@st.composite
def spoilt_rows(draw: Any) -> list[Any]:
    """Rows of a known layout, or of two, some of them with junk in them."""
    cases = [case[0] for case in (*READ.values(), *LEFT_OUT.values(), *GUESSES) if isinstance(case[0], list | dict)]
    rows: list[Any] = []
    for case in draw(st.lists(st.sampled_from(cases), min_size=1, max_size=2)):
        rows += (case if isinstance(case, list) else [case])[: draw(st.integers(1, 4))]
    return [spoilt(draw, row, 6) if draw(st.booleans()) else row for row in rows]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=spoilt_rows(), on_fault=st.sampled_from(["stop", "drop", "fix"]))
def test_spoilt_rows_give_faults_and_no_traceback(load, rows, on_fault):
    dataset = load(rows, on_fault=on_fault)
    assert dataset.examples or dataset.faults
    for part in dataset.splits.values():
        for example in part:
            last = example["messages"][-1]
            assert last["role"] == "assistant" and last.get("weight") != 0
            assert last["content"].strip() or last.get("tool_calls")
            json.dumps(example)


@pytest.mark.slow
def test_many_labels_and_columns_take_a_moment(tmp_path):
    rows = each(lambda i: {"text": f"some words and more of them {i // 7}", "label": f"l{i % 20_000}"}, 40_000)
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.csv").write_text(
        ",".join(["text", "label", *(f"c{i}" for i in range(40_000))]) + "\n" + 3 * ("a b,x" + 40_000 * ",y" + "\n")
    )
    start = time.process_time()
    assert len(read(tmp_path / "a.jsonl").labels) == 20_000 and read(tmp_path / "b.csv").examples == 3
    assert time.process_time() - start < 10
