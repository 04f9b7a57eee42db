"""The model card of an export: what the Hub reads of it, its pictures, and that its lines of use run."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from sftdemo import files, runs
from sftdemo.evaluation.summary import base_of_labels
from sftdemo.model.label_facts import LabelFacts
from sftdemo.training import card_pictures
from sftdemo.training.model_card import Terms, write_card

pytestmark = pytest.mark.slow

OLD = Path(__file__).parent / "old"


@pytest.fixture
def run(home) -> runs.Run:
    """An evaluated run with votes, from an older version."""
    shutil.copytree(OLD, home)
    return runs.named("old")


def test_the_hub_reads_the_card_as_it_is_meant(run, tmp_path):
    terms = Terms("me/moods", "me/moods-data", "mit", "cc-by-4.0")
    write_card(run, tmp_path, "adapter", "It answers as the run does.", terms)
    card = ModelCard.load(tmp_path / "README.md")
    scores = run.scores(run.evaluations()[0])
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["chrf"] == scores["tuned"]["chrf"] and card.data.model_name == "old"
    assert (card.data.license, card.data.datasets, card.data.library_name) == ("mit", ["me/moods-data"], "peft")
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    assert "co2" not in str(card) and "licence: cc-by-4.0" in card.text and "licence isn't known" not in card.text
    assert "tuned 1, base 4" in card.text and "It answers as the run does." in card.text
    assert run.config()["data"]["sha256"] in card.text
    for picture in (card_pictures.CURVE, card_pictures.SCORES):
        with Image.open(tmp_path / picture) as image:
            assert f"]({picture})" in card.text and image.width == 2 * card_pictures.WIDTH
            assert len(image.getcolors()) > 10


def test_no_path_of_this_machine_is_published(run, tmp_path):
    config = run.config()
    own = {"edits": "/home/me/customers/edits.jsonl", "data": "/home/me/a.csv", "from_run": "secret"}
    files.write_json(run.path / "config.json", {**config, "settings": {**config["settings"], **own}})
    write_card(run, tmp_path, "adapter", "")
    card = (tmp_path / "README.md").read_text()
    assert "edits" not in card and "/home/me" not in card and "secret" not in card


@pytest.mark.parametrize("method", ["lora", "full"])
def test_settings_of_lora_are_told_of_lora_alone(run, tmp_path, method):
    config = run.config()
    files.write_json(run.path / "config.json", config | {"settings": config["settings"] | {"method": method}})
    write_card(run, tmp_path, "adapter", "")
    assert ("lora_r" in (tmp_path / "README.md").read_text()) is (method == "lora")


def test_nothing_is_drawn_of_nothing(run, tmp_path):
    shutil.rmtree(run.path / "evaluations")
    (run.path / "metrics.jsonl").unlink()
    write_card(run, tmp_path, "merged", "")
    card = (tmp_path / "README.md").read_text()
    assert [path.name for path in tmp_path.glob("*.png")] == [] and "![" not in card and "Not evaluated yet" in card
    assert "licence isn't known" in card


@pytest.mark.parametrize(("form", "repository"), [("adapter", ""), ("merged", "me/Moods"), ("gguf-q8_0", "me/Moods")])
def test_each_format_says_how_three_programs_use_it(run, tmp_path, form, repository):
    write_card(run, tmp_path, form, "", Terms(repository))
    blocks = re.findall(r"```\w+\n(.*?)\n```", (tmp_path / "README.md").read_text().partition("## Use")[2], re.DOTALL)
    assert len(blocks) == 3 and all(len(block.splitlines()) <= 5 for block in blocks)
    python, vllm, ollama = blocks
    compile(python, "card", "exec")
    assert f'"{repository or "."}"' in python and "vllm serve" in vllm and "ollama run" in ollama
    assert ('gguf_file="q8_0.gguf"' in python) is form.startswith("gguf")


@pytest.mark.parametrize(
    ("kind", "tag", "code"),
    [
        ("seq2seq", "text-generation", "AutoModelForSeq2SeqLM"),
        ("classification", "text-classification", 'pipeline("text-classification", ".")'),
    ],
)
def test_what_does_not_chat_is_used_otherwise(run, tmp_path, kind, tag, code):
    config = files.read_json(run.path / "config.json")
    config["settings"]["task"] = kind
    files.write_json(run.path / "config.json", config)
    run.model_path.mkdir(exist_ok=True)
    LabelFacts(["bad", "good"], False, 24, 4, "mean", [], {"base": 1.0, "tuned": 1.0}).save(run.model_path)
    write_card(run, tmp_path, "merged", "")
    card = ModelCard.load(tmp_path / "README.md")
    use = card.text.partition("## Use")[2]
    assert card.data.pipeline_tag == tag and code in use and not {"vllm", "ollama", "chat_template"} & set(use.split())
    compile(re.search(r"```python\n(.*?)\n```", use, re.DOTALL)[1], "card", "exec")
    assert "assistant" not in card.text and ("greedily" in card.text) is (kind == "seq2seq")
    write_card(run, tmp_path, "adapter", "")
    assert "Its base is a folder `base` of the machine" in (tmp_path / "README.md").read_text()
    if kind == "classification":  # as a newer evaluation's verdict says it
        (evaluation, *_) = run.evaluations()
        path, (said, _) = run.path / "evaluations" / evaluation / "scores.json", base_of_labels("lora", kind)
        assert card.text.count(said) == 1
        files.write_json(path, {**files.read_json(path), "summary": {"en": f"It is better. {said}", "zh": ""}})
        write_card(run, tmp_path, "merged", "")
        assert (tmp_path / "README.md").read_text().count(said) == 1


def test_its_python_runs(run, tiny, tmp_path, monkeypatch):
    write_card(run, tmp_path, "merged", "")
    code = re.search(r"```python\n(.*?)\n```", (tmp_path / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tiny)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code.replace("…", "the film was good and bad"), {})
    assert printed.getvalue().strip()
