"""Files, folders, samples, the recipe, the Hub: found, or one line that says what is there."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import time
from pathlib import Path

import pytest

from sftdemo.data import hub, read, samples, sources, split
from sftdemo.errors import UserError
from sftdemo.evaluation.summary import FEW_ROWS

SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL = {
    "tweets_sentiment_en": ("text_label", 2654, 624),
    "intents_home_en": ("text_label", 2986, 879),
    "ui_en_fr": ("source_target", 2507, 675),
    "ui_en_zh": ("source_target", 2489, 673),
    "math_qa_en": ("prompt_completion", 3858, 942),
    "construction_faq_en": ("prompt_completion", 375, 60),
    "chatterbot_qa_en": ("messages", 532, 161),
}
SAMPLES = {
    "support_tickets": 300,
    "house_style": 150,
    "interface_en_fr": 200,
    "interface_en_zh": 200,
    "reviews_zh": 200,
}
ROW = {"text": "a b", "label": "x"}


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    layout, train, test = REAL[name]
    dataset = read(path)
    assert (dataset.format, dataset.faults) == (layout, [])
    assert {key: len(part) for key, part in dataset.splits.items()} == {"train": train, "test": test}
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert dataset.leaked <= 0.1 * test
    if layout == "text_label":
        assert sum(dataset.labels.values()) == train + test


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_files(name):
    dataset = read(name)
    card = sources.front_matter(sources.card_path(name))
    assert card.keys() >= {"title", "title_zh", "task", "language", "license"}
    assert card["task"] == dataset.task
    assert dataset.faults == []
    assert set(dataset.splits) == {"train", "test"}
    assert dataset.examples >= SAMPLES[name]
    test_rows = dataset.splits["test"]
    groups = {row.get("meta", {}).get("group", number) for number, row in enumerate(test_rows)}
    assert len(groups) >= FEW_ROWS, "a verdict can be had, where rows of a group count as one, too"
    assert (dataset.duplicates, dataset.leaked, split(dataset, 42).notes) == (0, 0, [])


def test_samples_are_listed():
    listed = {sample.name: sample for sample in samples()}
    assert set(listed) >= {*SAMPLES, "docstrings"}
    for sample in listed.values():
        assert sample.card_path.is_file()
        assert sample.title and sample.title_zh and sample.rows
        assert sample.example["messages"][-1]["role"] == "assistant"
        assert sample.path is None or sample.path.is_file()
    assert not (sources.SAMPLES / "__init__.py").exists()  # with one it would hide the library `datasets`


def test_front_matter(tmp_path):
    card = tmp_path / "card.md"
    card.write_text("---\ntitle: One: two\ntask: 'chat'\nnothing\n---\nlicense: none\n", encoding="utf-8")
    assert sources.front_matter(card) == {"title": "One: two", "task": "chat"}
    card.write_text("title: One\n", encoding="utf-8")
    assert sources.front_matter(card) == sources.front_matter(tmp_path / "none.md") == {}


@pytest.mark.slow
def test_docstrings():
    missing = [name for name in ("networkx", "numpy", "sympy") if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    start = time.process_time()
    dataset = read("docstrings")
    assert time.process_time() - start < 5
    assert (dataset.examples, dataset.faults, dataset.duplicates) == (1200, [], 0)
    assert dataset.sha256 == read("docstrings").sha256
    rows = dataset.splits["train"]
    assert samples()[0].example["messages"] == rows[0]["messages"]
    for row in rows:
        question, answer = (turn["content"] for turn in row["messages"])
        instruction, body = question.split("\n\n", 1)
        assert instruction == "Summarize this function's documentation in one short line."
        assert 80 <= len(body) <= 800 and ">>>" not in body
        assert 10 <= len(answer) <= 100 and answer.endswith(".")
    divided = split(dataset, 42)
    assert [len(part) for part in divided.splits.values()] == [960, 120, 120]
    groups = [{row["meta"]["group"] for row in part} for part in divided.splits.values()]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert divided.leaked <= 3


def test_folders(tmp_path):
    write(tmp_path / "one" / "rows.jsonl", ROW)
    (tmp_path / "one" / "README.md").write_text("words")
    assert read(tmp_path / "one").splits["train"][0]["label"] == "x"
    for name in ("train-00000-of-00002", "train-00001-of-00002", "dev", "test"):
        write(tmp_path / "many" / f"{name}.jsonl", {**ROW, "text": name, "split": "ignored"})
    dataset = read(tmp_path / "many")
    assert {name: len(part) for name, part in dataset.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert (dataset.name, dataset.faults) == ("many", [])
    write(tmp_path / "many" / "test.jsonl", {"text": "", "label": "x"})
    assert [str(fault) for fault in read(tmp_path / "many").faults] == [
        "test.jsonl, line 1, field 'text': The field is empty. Fill it in, or remove the row."
    ]


def test_folders_that_can_not_be_read(tmp_path):
    with pytest.raises(UserError, match=r"No data file is in .*; give a file in \.jsonl, "):
        read(tmp_path)
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", ROW)
    with pytest.raises(UserError, match="has 2 data files; name them train, validation and test, or give one"):
        read(tmp_path)


@pytest.mark.parametrize("source", ["no_such", "no/such.jsonl", "/no/such/file.csv", "~nosuch/x.csv", "x" * 300])
def test_what_is_not_there(source):
    with pytest.raises(UserError) as caught:
        read(source)
    assert str(caught.value).startswith(f"There is no file, folder or sample {source!r}; the samples are: docstrings, ")


def test_hub_names():
    assert hub.parse("owner/name") == ("owner/name", None, None)
    assert hub.parse("owner/name:en-fr") == ("owner/name", "en-fr", None)
    assert hub.parse("owner/name:en-fr:test") == ("owner/name", "en-fr", "test")
    assert hub.parse("owner/name::test") == ("owner/name", None, "test")
    assert hub.parse("name") is hub.parse("a/b/c") is hub.parse("../b") is None


def test_a_hub_that_does_not_answer(tmp_path, monkeypatch):
    import socket

    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(
            UserError, match="There is no file or sample 'owner/name', and the Hugging Face Hub doesn't"
        ):
            read("owner/name")
        assert 0.4 < time.monotonic() - start < 5
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_a_set_fetched_by_the_library(tmp_path, monkeypatch):
    """The child process with the real library, on a local folder in the Hub's layout."""
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    write(tmp_path / "set" / "train.jsonl", ROW, {"text": "c d", "label": "y"})
    write(tmp_path / "set" / "test.jsonl", ROW)
    info = "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
    names = "      class_label:\n        names:\n          '0': x\n          '1': y\n"
    (tmp_path / "set" / "README.md").write_text(f"---\n{info}{names}---\n")
    folder = tmp_path / "home" / "hub" / "sets" / "owner--set"
    hub._download(str(tmp_path / "set"), None, folder, None, 10**6)
    dataset = read("owner/set")  # what was fetched once is not fetched again
    assert dataset.name == "set"
    assert {name: [row["label"] for row in part] for name, part in dataset.splits.items()} == {
        "train": ["x", "y"],
        "test": ["x"],
    }
    hub._download(str(tmp_path / "set"), None, folder.with_name("owner--set----train"), "train", 10**6)
    assert {name: len(part) for name, part in read("owner/set::train").splits.items()} == {"train": 2}
    assert not (tmp_path / "user").exists()


@pytest.mark.slow
def test_the_tags_of_tokens_get_their_names(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "home"))
    write(tmp_path / "set" / "train.jsonl", {"tokens": ["Bo", "sat"], "ner_tags": [1, 0]})
    info = "dataset_info:\n  features:\n  - name: tokens\n    sequence: string\n  - name: ner_tags\n    sequence:\n"
    names = "      class_label:\n        names:\n          '0': O\n          '1': B-PER\n"
    (tmp_path / "set" / "README.md").write_text(f"---\n{info}{names}---\n")
    hub._download(str(tmp_path / "set"), None, tmp_path / "home" / "hub" / "sets" / "owner--set", None, 10**6)
    (row,) = read("owner/set").splits["train"]
    assert row["messages"][-1]["content"] == '[{"text": "Bo", "label": "PER"}]'


def test_the_package_loads_neither_torch_nor_gradio_nor_pandas():
    """Layer 1: heavy libraries only inside functions, and never torch or gradio."""
    for path in Path(sources.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
                root = module.split(".")[0]
                assert root not in ("torch", "transformers", "gradio"), path
                assert root not in ("pandas", "pyarrow", "datasets", "huggingface_hub") or node.col_offset, path
