"""The `score` rows: what is asked of them, what comes back, and that nothing else is touched."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sftdemo.errors import DataError, UsageError, UserError
from sftdemo.evaluation.predictions import read_predictions
from sftdemo.evaluation.scoring import score
from tests.listener import Listener

KEYS = ["n", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "accuracy", "macro_f1", "signatures"]
TEXTS = [
    {"prediction": "The dog bit the man.", "references": ["The dog bit the man.", "The dog had bit the man."]},
    {"prediction": "It wasn't surprising.", "references": ["It was not unexpected.", "No one was surprised."]},
    {
        "prediction": "The man had just bitten him.",
        "references": ["The man bit him first.", "The man had bitten the dog."],
    },
]
LABELS = [
    {"prediction": " Positive ", "label": "positive"},
    {"prediction": "negative", "label": "positive"},
    {"prediction": "I don't know", "label": "negative"},
    {"prediction": "negative", "label": "negative"},
]
CHINESE = [
    {"prediction": "我爱北京天安门。", "references": ["我爱北京的天安门。"]},
    {"prediction": "今天天气很好，我们去公园吧。", "references": ["今天天气不错，我们去公园吧。"]},
]


def faults(rows):
    with pytest.raises(DataError) as caught:
        score(rows)
    return [(fault.line, fault.field) for fault in caught.value.faults]


def test_texts():
    found = score(TEXTS)
    assert list(found)[:10] == KEYS
    assert found["n"] == 3 and found["bleu"] == pytest.approx(48.530827, abs=1e-6)
    assert found["accuracy"] is None and found["macro_f1"] is None
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert set(found["signatures"]) == {"bleu", "chrf", "rouge", "exact_match", "ter", "answers"}
    assert json.loads(json.dumps(found)) == found


def test_labels():
    found = score(LABELS)
    assert list(found)[:10] == KEYS
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 * 1 / 3 + 2 * 1 / 4) / 2)
    assert found["exact_match"] == 0.25
    assert found["signatures"]["accuracy"].startswith("match:whole-label")
    assert found["signatures"]["lenient_accuracy"].startswith("match:named-label")


def test_lenient_accuracy_is_of_the_label_named():
    answers = ["**Positive**", "Label: negative", "positive or negative", "not positive"]
    found = score([{"prediction": text, "label": "positive"} for text in answers], labels=["positive", "negative"])
    assert (found["accuracy"], found["lenient_accuracy"]) == (0, 0.25)
    assert found["classes"]["lenient_unparsed"] == 2
    assert score(TEXTS)["lenient_accuracy"] is None


def test_rows_with_both():
    rows = [{"prediction": "yes", "label": "yes", "references": ["Yes, it is."]}] * 2
    found = score(rows, labels=["yes", "no"])
    assert found["accuracy"] == 1 and found["exact_match"] == 0


def test_chinese_is_found():
    found = score(CHINESE)
    assert found["bleu"] == pytest.approx(67.050706, abs=1e-6) and "tok:zh" in found["signatures"]["bleu"]
    assert score(CHINESE, language="zh") == found
    assert score(CHINESE, language="en")["bleu"] == 0


def test_tokenizer_overrides():
    found = score(CHINESE, tokenizer="intl")
    assert found["bleu"] == pytest.approx(53.728497, abs=1e-6) and "tok:intl" in found["signatures"]["bleu"]
    with pytest.raises(UsageError, match="'words'; choose one of: 13a, zh, intl, char, none"):
        score(CHINESE, tokenizer="words")
    with pytest.raises(UsageError, match="'fr'; choose one of: auto, en, zh"):
        score(CHINESE, language="fr")


def test_empty_predictions_score_nothing():
    found = score([{"prediction": "", "references": ["a b c d"]}, {"prediction": "", "references": ["e"]}])
    assert [found[key] for key in KEYS[1:7]] == [0.0] * 6


# Faults


def test_all_faults_come_at_once():
    rows = [
        {"prediction": "ok", "references": ["ok"]},
        ["not", "an object"],
        {"references": ["no prediction"]},
        {"prediction": "a"},
        {"prediction": "a", "references": []},
        {"prediction": "a", "references": None},
        {"prediction": "a", "reference": float("nan")},
        {"prediction": "a", "references": ["a", None]},
        {"prediction": "\ud83d", "references": ["a"]},
    ]
    assert faults(rows) == [
        (2, ""),
        (3, "prediction"),
        (4, "references"),
        (5, "references"),
        (6, "references"),
        (7, "references"),
        (8, "references"),
        (9, "prediction"),
    ]


def test_labels_must_be_on_every_row():
    assert faults([{"prediction": "1", "label": ["a", "b"]}]) == [(1, "label")]
    assert faults([{"prediction": "1", "label": " "}]) == [(1, "label")]
    assert faults([LABELS[0], TEXTS[0]]) == [(2, "label")]


@pytest.mark.parametrize("rows", [[], {}, "text", None])
def test_no_rows(rows):
    with pytest.raises(UserError):
        score(rows)


# Values that are no texts, and other names


@pytest.mark.parametrize(
    "row",
    [
        {"prediction": 4, "reference": "4"},
        {"prediction": "4", "reference": 4.0},
        {"prediction": 0.5, "target": "0.5"},
        {"prediction": True, "answer": "true"},
        {"prediction": "a", "references": "a"},
        {"prediction": "a", "gold": ["b", "a"]},
        {"Prediction": "a", "Ground Truth": "a"},
        {"output": "a", "expected": "a"},
        {"y_pred": 1, "y_true": 1},
        {"prediction": "1", "label": [1.0]},
        {"prediction": {"a": 1}, "reference": {"a": 1}},
        {"prediction": [{"a": 1}], "reference": [{"a": 1}]},
        {"prediction": '{"a": 2}', "references": [{"a": 1}, {"a": 2}]},
    ],
)
def test_numbers_single_references_and_other_names(row):
    assert score([row])["exact_match"] == 1


def test_a_single_reference_is_one_text_and_not_its_letters():
    assert score([{"prediction": "a b c d", "reference": "a b c d"}])["bleu"] == pytest.approx(100)


@pytest.mark.parametrize("nothing", [None, float("nan"), ""])
def test_no_prediction_is_an_empty_answer(nothing):
    found = score([{"prediction": nothing, "label": "a"}, {"prediction": "a", "label": "a"}])
    assert (found["accuracy"], found["lenient_accuracy"], found["classes"]["unparsed"]) == (0.5, 0.5, 1)


# Files


def read(tmp_path, name, content):
    path, listener = tmp_path / name, Listener()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_predictions(path, reporter=listener), listener.notes


def test_read_predictions(tmp_path):
    content = (b"\xef\xbb\xbf" + b'{"prediction": "a", "references": ["a"], "id": 7}\r\n\n'
               b'{"prediction": "\xe4\xbd\xa0", "references": ["b"]}')  # fmt: skip
    rows, notes = read(tmp_path, "predictions.jsonl", content)
    assert rows == [{"prediction": "a", "references": ["a"]}, {"prediction": "你", "references": ["b"]}]
    assert notes == ["Columns that are not used: 'id'."]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,Prediction,Reference\n1,yes,yes\n2,,no\n"),
        ("a.tsv", "id\tprediction\ttarget\n1\tyes\tyes\n2\t\tno\n"),
        ("a.json", '[{"id": 1, "prediction": "yes", "gold": "yes"}, {"id": 2, "prediction": NaN, "gold": "no"}]'),
        ("a.jsonl", '{"id": 1, "pred": "yes", "answer": "yes"}\n{"id": 2, "pred": null, "answer": "no"}\n'),
    ],
)
def test_every_kind_of_file(tmp_path, name, content):
    rows, notes = read(tmp_path, name, content)
    assert rows == [{"prediction": "yes", "references": ["yes"]}, {"prediction": "", "references": ["no"]}]
    assert "Columns that are not used: 'id'." in notes
    assert "Predictions that are empty, and count as wrong: 1 of 2." in notes


def test_parquet_with_numbers(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prediction": [1.0, None], "label": [1, 2]}), path)
    assert read_predictions(path) == [{"prediction": "1", "label": "1"}, {"prediction": "", "label": "2"}]


def test_a_cell_may_spell_several_references(tmp_path):
    rows, _ = read(tmp_path, "a.csv", "prediction,references\nb,\"['a', 'b']\"\n[1],[1]\n")
    assert [row["references"] for row in rows] == [["a", "b"], ["[1]"]]
    single, _ = read(tmp_path, "b.csv", 'prediction,reference\nb,"[""a"", ""b""]"\n')
    assert single[0]["references"] == ['["a", "b"]']


def test_file_faults_have_their_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'{"prediction": "a", "references": ["a"]}\n\n{"prediction": "a"\n"text"\n{"prediction": 1, "label": "x"}\n'
    )
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    assert sorted({fault.line for fault in caught.value.faults}) == [1, 3, 4]
    text = str(caught.value)
    assert "bad.jsonl, line 3" in text and "bad.jsonl, line 4: The row is text" in text
    assert "bad.jsonl, line 1, field 'label': is missing, while line 5 has one." in text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "The file is empty"),
        ("a.jsonl", "\n \n", "The file is empty"),
        ("a.csv", "prediction,reference\n", "no rows"),
        (
            "a.csv",
            "text,label\na,b\n",
            "a.csv has no column of predictions, only 'text', 'label'; name it 'prediction'.",
        ),
        ("a.csv", "prediction,id\na,1\n", "a.csv has no column to compare with, only 'prediction', 'id'; name it"),
        ("a.exe", "prediction\n", "Files that end in '.exe' can't be read"),
    ],
)
def test_a_file_that_cannot_be_scored_is_one_line(tmp_path, name, content, said):
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path, name, content)
    assert len(str(caught.value).splitlines()) == 1


def test_a_row_without_its_reference_is_a_fault(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv, line 3, field 'references': is missing"):
        read(tmp_path, "a.csv", "prediction,reference\na,a\nb,\n")


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(UserError, match="can't be read"):
            read_predictions(path)


# Threads, network, files


def test_threads_and_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    expected = [score(rows) for rows in (TEXTS, LABELS, CHINESE)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(score, [TEXTS, LABELS, CHINESE] * 8))
    assert found == expected * 8


SCRIPT = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from sftdemo.evaluation import scoring
rows = json.loads(sys.stdin.read())
plain = [scoring.score(one) for one in rows]
loaded = [name for name in ("torch", "gradio", "transformers", "datasets", "evaluate") if name in sys.modules]
from sftdemo.evaluation import hf_metrics
import evaluate, socket
socket.socket = None
def through(one):
    references = [row.get("references") or [row["label"]] for row in one]
    texts = {"predictions": [row["prediction"] for row in one], "references": references}
    classes = [hf_metrics.Bleu(), hf_metrics.Chrf(), hf_metrics.Ter(), hf_metrics.Rouge(), hf_metrics.ExactMatch()]
    found = {}
    for metric in (*classes, hf_metrics.Answers()):
        found |= metric.compute(**texts)
    if "label" in one[0]:
        labels = [row["label"] for row in one]
        found |= hf_metrics.Classification().compute(predictions=texts["predictions"], references=labels)
    return found
with ThreadPoolExecutor(6) as pool:
    through = list(pool.map(through, rows * 4))
both = evaluate.combine([hf_metrics.Bleu(language="en"), hf_metrics.Ter()])
combined = both.compute(predictions=["a b c d"], references=[["a b c d"]])
try:
    hf_metrics.Bleu().compute(predictions=[None], references=[["a"]])
    refused = ""
except ValueError as error:
    refused = str(error)
print(json.dumps([plain, loaded, through, combined, refused]))
"""


@pytest.mark.slow
def test_the_evaluate_classes_give_the_same_and_write_nothing(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([TEXTS, LABELS, CHINESE]),
        capture_output=True,
        text=True,
        cwd=home,
        env={"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"},
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    plain, loaded, through, combined, refused = json.loads(result.stdout)
    assert loaded == []
    for found, expected in zip(through, plain * 4, strict=True):
        shared = found.keys() & expected.keys()
        assert {"bleu", "chrf", "ter", "rougeL", "exact_match", "token_f1"} <= shared
        assert {name: found[name] for name in shared} == {name: expected[name] for name in shared}
    assert combined["bleu"] == pytest.approx(100) and combined["ter"] == 0
    assert "don't match the expected format" in refused
    assert list(home.rglob("*")) == []
