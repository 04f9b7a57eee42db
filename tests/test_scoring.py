"""The `score` rows: what is asked of them, what comes back, and that nothing else is touched."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sftdemo.errors import DataError, UsageError, UserError
from sftdemo.scoring import read_predictions, row_scores, score

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


def test_row_scores_are_for_tables():
    found = row_scores("我爱北京天安门。", ["我爱北京的天安门。"])
    assert found["rouge1"] == pytest.approx(93.3333, abs=1e-4) and 0 < found["bleu"] < 100


def test_empty_predictions_score_nothing():
    found = score([{"prediction": "", "references": ["a b c d"]}, {"prediction": "", "references": ["e"]}])
    assert [found[key] for key in KEYS[1:7]] == [0.0] * 6


# Faults


def test_all_faults_come_at_once():
    rows = [
        {"prediction": "ok", "references": ["ok"]},
        ["not", "an object"],
        {"references": ["no prediction"]},
        {"prediction": 3, "references": ["a"]},
        {"prediction": "a"},
        {"prediction": "a", "references": []},
        {"prediction": "a", "references": "a b c d"},
        {"prediction": "a", "references": ["a", None]},
        {"prediction": "\ud83d", "references": ["a"]},
    ]
    assert faults(rows) == [
        (2, ""),
        (3, "prediction"),
        (4, "prediction"),
        (5, "references"),
        (6, "references"),
        (7, "references"),
        (8, "references"),
        (9, "prediction"),
    ]


def test_labels_must_be_texts_on_every_row():
    assert faults([{"prediction": "1", "label": 1}]) == [(1, "label")]
    assert faults([{"prediction": "1", "label": " "}]) == [(1, "label")]
    assert faults([LABELS[0], TEXTS[0]]) == [(2, "label")]


@pytest.mark.parametrize("rows", [[], {}, "text", None])
def test_no_rows(rows):
    with pytest.raises(UserError):
        score(rows)


# Files


def test_read_predictions(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"prediction": "a", "references": ["a"], "id": 7}\r\n\n'
                     b'{"prediction": "\xe4\xbd\xa0", "references": ["b"]}')  # fmt: skip
    assert [row["prediction"] for row in read_predictions(path)] == ["a", "你"]


def test_file_faults_have_their_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'{"prediction": "a", "references": ["a"]}\n\n{"prediction": "a"\n"\xff"\n{"prediction": 1, "label": "x"}\n'
    )
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    lines = [fault.line for fault in caught.value.faults]
    assert sorted(set(lines)) == [1, 3, 4, 5]
    text = str(caught.value)
    assert f"{path}, line 3: This is not JSON" in text
    assert f"{path}, line 4: Byte 2 is not UTF-8" in text
    assert f"{path}, line 5, field 'prediction': is 1, not a text." in text


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_empty_files(tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="has no rows"):
        read_predictions(path)


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
from sftdemo import scoring
rows = json.loads(sys.stdin.read())
plain = [scoring.score(one) for one in rows]
loaded = [name for name in ("torch", "gradio", "transformers", "datasets", "evaluate") if name in sys.modules]
from sftdemo import measures
import evaluate, socket
socket.socket = None
with ThreadPoolExecutor(6) as pool:
    through = list(pool.map(lambda one: scoring.score(one, through_evaluate=True), rows * 4))
both = evaluate.combine([measures.Bleu(language="en"), measures.Ter()])
combined = both.compute(predictions=["a b c d"], references=[["a b c d"]])
try:
    measures.Bleu().compute(predictions=[None], references=[["a"]])
    refused = ""
except ValueError as error:
    refused = str(error)
print(json.dumps([plain, loaded, through, combined, refused]))
"""


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
    assert through == plain * 4
    assert combined["bleu"] == pytest.approx(100) and combined["ter"] == 0
    assert "don't match the expected format" in refused
    assert list(home.rglob("*")) == []
