"""A metric of answers to validation rows while a model is trained: right, without a trace in the training, kept and resumed."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import encoders as tiny_encoders
import pytest
from conftest import label_rows, make_tokenizer
from listener import Listener
from safetensors.torch import load_file
from seq2seq_models import save
from test_conversations import QWEN3
from test_resume import at_step, forked, signal_self
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sftdemo import runs
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.config.sweep import SweepConfig
from sftdemo.data import take
from sftdemo.encoding.encode import encode
from sftdemo.errors import UsageError, UserError
from sftdemo.inference import kinds
from sftdemo.inference.load_run import load
from sftdemo.runs import samples
from sftdemo.training.train import train
from sftdemo.training.validation_answers import LONGEST_ANSWER, ROWS, SHOWN, fitting, score, written_answers
from sftdemo.ui.tabs.train_view import live

pytestmark = pytest.mark.slow

SLOW = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in label_rows(100)), encoding="utf-8")
    return {"data": str(path), "model": tiny, "name": "r", "precision": "float32", "learning_rate": 5e-3, "lora_r": 4,
            "lora_dropout": 0.2, "max_steps": 8, "evaluate_every": 4, "best_by": "accuracy"}  # fmt: skip


def scores(run: runs.Run) -> list[float]:
    return [row["eval_score"] for row in run.metrics() if "eval_score" in row]


def asked(run: runs.Run, most: int = ROWS) -> list[dict[str, Any]]:
    rows = run.examples("validation")
    return take(rows, len(rows), run.config()["settings"]["seed"])[:most]  # type: ignore[arg-type, return-value]


def test_it_is_the_accuracy_of_what_the_model_answers_and_changes_nothing_else(settings):
    summary = train(TrainConfig(**settings))
    run = runs.find("r")
    rows = asked(run)
    pair = load(run)
    answers = [each["tuned"] for each in pair.complete([row["messages"][:-1] for row in rows], GenerateConfig())]
    right = [answer.strip() == row["label"] for answer, row in zip(answers, rows, strict=True)]
    assert len(scores(run)) == 3 and scores(run)[-1] == summary["eval_score"] == pytest.approx(sum(right) / len(rows))
    kept = samples.read(run)
    assert [row["step"] for row in kept] == [step for step in (0, 4, 8) for _ in range(SHOWN)]
    assert [row["answer"] for row in kept[-SHOWN:]] == answers[:SHOWN] != [row["answer"] for row in kept[:SHOWN]]
    assert [row["reference"] for row in kept[:SHOWN]] == [row["label"] for row in rows[:SHOWN]]
    shown = live(run, "en")
    assert (
        "accuracy" in shown
        and kept[-1]["reference"] in shown
        and "After step 8" in shown
        and "第 8 步后" in live(run, "zh")
    )
    train(TrainConfig(**settings | {"best_by": "loss", "name": "plain"}))
    plain = runs.find("plain")
    assert [row.get("loss") for row in plain.metrics()] == [row.get("loss") for row in run.metrics()]
    assert not scores(plain) and not samples.read(plain)


def example(asked: str, answer: str, **more: Any) -> Any:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer, **more}]}


def test_rows_are_asked_whose_own_answer_fits(tokenizer):
    rows = [example("q", "a" * n) for n in (40, 3, 80, LONGEST_ANSWER, 2)]
    size = len(encode(tokenizer, rows[0]["messages"]).ids)
    assert fitting(rows, tokenizer, 1024) == [rows[0], rows[1], rows[2], rows[4]], (
        "with the end of its turn it is too long"
    )
    assert fitting(rows, tokenizer, size) == [rows[0], rows[1], rows[4]]
    assert fitting(rows, tokenizer, size - 1) == [rows[1], rows[4]] and not fitting(rows, tokenizer, 8)
    with pytest.raises(UserError, match=f"answered in {LONGEST_ANSWER} tokens at most, and all their right answers"):
        fitting([rows[3]], tokenizer, 1024)


def test_an_answer_has_room_for_its_reference_and_a_batch_is_within_the_limit(babbler):
    model: Any = AutoModelForCausalLM.from_pretrained(babbler)
    tokenizer = AutoTokenizer.from_pretrained(babbler)
    rows = [example("q" * 150, "a" * 9), example("q", "a" * 140), example("q" * 3, "a" * 100)]
    config = GenerationConfig(eos_token_id=[10_000], pad_token_id=0)
    widths: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, ids, out: widths.append(ids[0].shape[1]))
    apart = written_answers(model, tokenizer, None, config, 200, rows)
    assert sum(width > 1 for width in widths) == 2, "the long prompt is asked by itself"
    assert [len(tokenizer(answer)["input_ids"]) > 64 for answer in apart[1:]] == [True, True]


@pytest.mark.parametrize(
    "more",
    [
        {"reasoning_content": "two and three"},
        {"reasoning_content": "look", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]},
    ],
)
def test_thoughts_and_calls_are_compared_as_the_model_writes_them(more):
    tokenizer = make_tokenizer(QWEN3)
    rows = fitting([example("q", "five", **more)], tokenizer, 512)
    calls = '\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>' if "tool_calls" in more else ""
    assert score("exact_match", rows, [f"<think>\nhm, another thought\n</think>\n\nfive{calls}"], []) == 1
    assert score("exact_match", rows, [f"<think>\nhm\n</think>\n\nsix{calls}"], []) == 0


@SLOW
def test_the_best_is_kept_by_it_and_a_killed_training_comes_to_the_same(settings, home):
    config = TrainConfig(**settings | {"patience": 1, "max_steps": 40, "checkpoint_every": 3})
    summary = train(config)
    run = runs.find("r")
    measured = [row for row in run.metrics() if "eval_score" in row and row["step"]]
    best = max(measured, key=lambda row: (row["eval_score"], -row["eval_loss"]))
    assert (summary["best_step"], summary["eval_score"]) == (best["step"], best["eval_score"]) and summary[
        "early_stopped"
    ]
    assert measured[-1]["step"] == best["step"] + 4 < 40 and "kept for its accuracy on validation rows" in (run.path / "README.md").read_text()  # fmt: skip
    before = run.metrics(), samples.read(run), load_file(run.model_path / "adapter_model.safetensors")
    run.delete()
    assert forked(lambda: train(config, reporter=at_step(7, signal_self(signal.SIGKILL)))) == -signal.SIGKILL
    again = train(TrainConfig(resume="r"))
    assert again["resumed"] and again["best_step"] == summary["best_step"]
    assert [{**row, "tokens_per_s": 0} for row in run.metrics()] == [{**row, "tokens_per_s": 0} for row in before[0]]
    assert samples.read(run) == before[1]
    weights = load_file(run.model_path / "adapter_model.safetensors")
    assert all(weights[name].equal(tensor) for name, tensor in before[2].items())


@pytest.mark.parametrize("method", [pytest.param("full", marks=SLOW), "lora"])
def test_a_run_that_labels_texts_is_measured_on_all_its_validation_rows(settings, tmp_path, method):
    bert = tiny_encoders.make("bert", tmp_path / "bert")
    own = {"model": bert, "task": "classification", "method": method, "keep_best": True}
    own |= {"lora_r": 16, "lora_dropout": 0.0} if method == "full" else {}
    summary = train(TrainConfig(**settings | own))
    run = runs.find("r")
    models, rows = kinds.load(run), asked(run, 200)
    texts = [row["messages"][0]["content"].rsplit("\n\n", 1)[-1] for row in rows]
    labelled = [max(each, key=each.__getitem__) for each in models.label(texts, "tuned")]
    assert summary["eval_score"] == pytest.approx(
        sum(label == row["label"] for label, row in zip(labelled, rows, strict=True)) / len(rows)
    )
    assert summary["best_step"] in (4, 8) and samples.read(run)[-1]["answer"] in ("good", "bad")


@SLOW
def test_a_sequence_to_sequence_run_is_measured_as_it_writes(settings, tmp_path):
    (tmp_path / "t5").mkdir()
    own = {"model": save("t5", tmp_path / "t5"), "task": "seq2seq", "best_by": "exact_match", "learning_rate": 1e-2}
    summary = train(TrainConfig(**settings | own))
    run = runs.find("r")
    rows = asked(run)
    answers = [each["tuned"] for each in load(run).complete([row["messages"][:-1] for row in rows], GenerateConfig())]
    assert [row["answer"] for row in samples.read(run)[-SHOWN:]] == [answer.strip() for answer in answers[:SHOWN]]
    assert summary["eval_score"] == pytest.approx(
        sum(answer.strip() == row["label"] for answer, row in zip(answers, rows, strict=True)) / len(rows)
    )


def test_where_it_does_not_apply_it_is_one_line_and_nothing_is_written(settings, tmp_path, babbler):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"say {n}", "completion": f"it is {n}"}) + "\n" for n in range(40)))
    with pytest.raises(UserError, match="best_by is accuracy, which doesn't apply to the answers of these validation"):
        train(TrainConfig(**settings | {"data": str(pairs), "model": babbler}), reporter=Listener())
    with pytest.raises(UserError, match="best_by is field_f1, which doesn't apply"):
        train(TrainConfig(**settings | {"best_by": "field_f1"}))
    with pytest.raises(UsageError, match="A sweep goes by the validation loss; leave out best_by"):
        SweepConfig().trials(TrainConfig(data="d", best_by="chrf"))
    with pytest.raises(UsageError, match="best_by is 'blue'"):
        TrainConfig(data="d", best_by="blue").check()
    with pytest.raises(UsageError, match="method frozen has no best_by"):
        TrainConfig(data="d", task="classification", model="m", method="frozen", best_by="accuracy").check()
    assert not runs.list_runs()


def test_texts_with_several_labels_have_no_such_metric(settings, tmp_path):
    bert, rows = tiny_encoders.make("bert", tmp_path / "bert"), tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"text": f"the film {n} was good", "labels": ["a", "b"][: 1 + n % 2]}) + "\n" for n in range(60)
        )
    )
    with pytest.raises(UserError, match="these rows have several labels; leave it out"):
        train(TrainConfig(data=str(rows), model=bert, task="classification", best_by="exact_match"))
    assert not runs.list_runs()
