"""Texts with several labels: how they are read and scored, and an encoder that learns them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import encoders as tiny_encoders
import pytest
from conftest import PLACES, TEXTS, home_at
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from sftdemo import files, runs
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.data import read
from sftdemo.data.conversion.label_fields import divider
from sftdemo.evaluation import label_sets
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.inference import labelling
from sftdemo.log import TO_LOG
from sftdemo.model.label_facts import LabelFacts
from sftdemo.training.model_card import model_card
from sftdemo.training.train import train
from sftdemo.ui.tabs import task_choice
from sftdemo.verbs.evaluate import evaluate, rescore
from sftdemo.verbs.evaluation_rows import held_out, rows_of

pytestmark = pytest.mark.slow


def set_rows(count: int) -> list[dict]:
    """Distinct rows, each of whose labels a small model can learn from one word."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        kinds = [("good",), ("bad",), ("bad", "good")][number % 3]
        words = [draw.choice(TEXTS[kind == "bad"].split()) for kind in kinds]
        text = f"the {draw.choice(PLACES)} {number} was {' and '.join(words)}"
        rows.append({"text": text, "labels": list(kinds), "split": "test" if number % 5 == 4 else "train"})
    return rows


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("answer", "names", "others"),
    [
        ("good, bad", "bad good", 0),
        (" Good;BAD. ", "bad good", 0),
        ('["good", "so so"]', "good", 1),
        ("- good\n- new york, us", "good,new york, us", 0),
        ("good and bad", "", 1),
        ("", "", 0),
    ],
)
def test_labels_are_found_in_an_answer(answer, names, others):
    known = sorted(["good", "bad", "New York, US"])
    ((found, more),) = label_sets.parse([answer], known)
    expected = {name for name in known if name.casefold() in names}
    assert ({known[place] for place in found}, more) == (expected, others)


def test_labels_that_differ_in_a_mark_or_in_case_alone_are_told_apart():
    names = sorted(["-1", "1", "C", "c", "*", "late"])
    expected = {"-1, c": {"-1", "c"}, "1; C; LATE": {"1", "C", "late"}, "*": {"*"}, "- late": {"late"}}
    for answer, (known, others) in zip(expected, label_sets.parse(list(expected), names), strict=True):
        assert {names[place] for place in known} == expected[answer] and others == 0
    assert label_sets.parse(["'1'", "1, 1, -, 2, 2"], names) == [(frozenset(), 1), (frozenset({names.index("1")}), 1)]
    assert label_sets.named(["LATE;new;1;new"], names) == [["late", "new", "1"]]


def test_scores_are_scikit_learns():
    draw, names = random.Random(1), ["a", "b", "c", "d"]
    true, base, tuned = ([draw.sample(names, draw.randint(1, 3)) for _ in range(40)] for _ in range(3))
    rows = [
        {"row": number, "task": None, "messages": [{"role": "user", "content": f"t {number}"}], "label": None}
        | {"references": [", ".join(wanted)], "labels": wanted, "base": ", ".join(one), "tuned": ", ".join(two)}
        for number, (wanted, one, two) in enumerate(zip(true, base, tuned, strict=True))
    ]
    scores = score_outputs(rows, [], 42)
    table = MultiLabelBinarizer().fit([names])
    wanted = table.transform(true)
    for side, sets in (("base", base), ("tuned", tuned)):
        own = table.transform(sets)
        assert scores[side]["labels_f1"] == pytest.approx(f1_score(wanted, own, average="micro"))
        assert scores[side]["labels_macro_f1"] == pytest.approx(f1_score(wanted, own, average="macro"))
        assert scores[side]["labels_exact"] == pytest.approx(accuracy_score(wanted, own))
    assert scores["leading"] == "labels_f1"
    assert all({"low", "high", "p"} <= set(scores["difference"][name]) for name in ("labels_f1", "labels_exact"))


@pytest.mark.parametrize(
    ("labels", "mark"),
    [
        (["a", "b", "a; b", "b; c", "c"], ";"),
        (["a,b", "b,c", "a,c", "a"], ","),
        (["Films, Music", "Books", "Sport", "Food"], ""),
        (["New York, US", "Paris, France", "US"], ""),
        (["a", "b"], ""),
        (["a", ["b", "c"], "d"], ""),
        ([f"{kind},{grade}" for kind in ("bug", "high", "question") for grade in ("high", "low")], ""),
    ],
)
def test_labels_in_one_text_are_told_from_one_label(labels, mark):
    assert divider(labels * 2) == mark


def test_lists_and_divided_texts_are_read_alike(tmp_path):
    rows = set_rows(30)
    listed = read(write(tmp_path / "a.jsonl", rows))
    divided = read(write(tmp_path / "b.jsonl", [row | {"labels": "; ".join(row["labels"])} for row in rows]))
    assert divided.splits == listed.splits and "stands between them" in str(divided.notes[0])
    assert listed.splits["train"][2]["labels"] == ["bad", "good"] and "label" not in listed.splits["train"][0]
    assert task_choice.offered(listed) == ["chat", "classification", "seq2seq"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A home with a run of each method."""
    folder = tmp_path_factory.mktemp("sets")
    bert, data = tiny_encoders.make("bert", folder / "bert"), write(folder / "sets.jsonl", set_rows(90))
    settings = {"data": data, "model": bert, "task": "classification"}
    with home_at(folder / "home") as home:
        train(TrainConfig(**settings, method="full", learning_rate=3e-3, epochs=8.0, name="full"))
        train(TrainConfig(**settings, method="frozen", name="frozen"))
    return home


def test_an_encoder_learns_several_labels(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained))
    run = runs.find("full")
    assert LabelFacts.read(run.model_path).several
    scores = evaluate("full", EvaluateConfig(against="run:frozen"))
    outputs = list(files.read_jsonl(Path(scores["outputs"])))
    assert scores["leading"] == "labels_f1" and scores["tuned"]["labels_f1"] > 0.9
    for row in outputs:
        applying = [label for label, share in row["tuned_probabilities"].items() if share >= 0.5]
        assert row["tuned"] == ", ".join(applying)
    assert "labels_f1" in scores["systems"]["run:frozen"]["scores"]
    told = labelling.label(run, "the film was good and bad")
    assert told["tuned"].answer == "bad, good" and list(told["tuned"].values) and " %" in told["tuned"].shown
    assert "those that apply of 2 labels: bad, good" in model_card(run, run.status())
    labelling.release()


def test_other_data_have_several_labels_as_the_training_has_also_where_the_file_alone_does_not_show_it(
    trained, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained))
    labels = ["Good; bad", "bad", "bad;new"]
    data = write(tmp_path / "a.jsonl", [{"text": f"film {n}", "label": label} for n, label in enumerate(labels)])
    caplog.set_level("INFO", "sftdemo")
    examples = held_out(runs.find("frozen"), EvaluateConfig(data=data), TO_LOG)
    assert [row["labels"] for row in examples] == [["good", "bad"], ["bad"], ["bad", "new"]]
    assert rows_of(examples)[0]["references"] == ["good, bad"] and rows_of(examples)[0]["label"] is None
    assert "In 2 rows the label is read as several" in caplog.text


def test_labels_of_several_fields_stay_whole_in_other_data(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "runs" / "frozen", tmp_path / "home" / "runs" / "frozen")
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "home"))
    run = runs.find("frozen")
    wholes = [f"{kind},{grade}" for kind in ("bug", "wish", "question") for grade in ("high", "low")]
    learned = [{**row, "label": whole} for row, whole in zip(run.examples("train"), wholes, strict=False)]
    files.write_jsonl(
        run.path / "data" / "train.jsonl",
        [{key: value for key, value in row.items() if key != "labels"} for row in learned],
    )
    for more, whole in (("bug", True), ("bug,high,low", False)):
        rows = [{"text": f"film {n}", "label": label} for n, label in enumerate([*wholes, more])]
        examples = held_out(run, EvaluateConfig(data=write(tmp_path / "a.jsonl", rows)), TO_LOG)
        assert [row.get("label") for row in examples] == ([*wholes, more] if whole else [None] * 7)


def test_the_base_of_a_frozen_run_gives_all_texts_the_same(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained))
    scores = evaluate("frozen")
    outputs = list(files.read_jsonl(Path(scores["outputs"])))
    shares = outputs[0]["base_probabilities"]
    train_rows = runs.find("frozen").examples("train")
    for label, share in shares.items():
        assert share == pytest.approx(sum(label in row["labels"] for row in train_rows) / len(train_rows), abs=1e-4)
    assert "labels that more than half" in rescore("frozen", scores["evaluation"])["summary"]["en"]
