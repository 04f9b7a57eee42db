"""Evaluations of a run: they repeat, go on after a stop, leave out what is too long, and read other data."""

from __future__ import annotations

import json
import time

import pytest
from conftest import PLACES

from sftdemo import runs
from sftdemo.config import EvaluateConfig
from sftdemo.errors import UserError
from sftdemo.training.train import train
from sftdemo.verbs.evaluate import evaluate
from tests.listener import Listener
from tests.test_training import config


@pytest.mark.slow
def test_evaluation_repeats_to_the_last_digit_and_from_its_file(labelled, tiny):
    from sftdemo.verbs.evaluate import score_outputs

    train(config(labelled, tiny))
    run = runs.find("r")
    one = evaluate(run, EvaluateConfig(max_examples=15, batch_size=4))
    time.sleep(1.1)  # evaluations are named by the second
    other = evaluate(run, EvaluateConfig(max_examples=15, batch_size=4))
    figures = ("n", "base", "tuned", "difference", "confusion", "summary")
    assert [one[key] for key in figures] == [other[key] for key in figures]
    saved = run.outputs(one["evaluation"])
    assert len(saved) == 15 and {"base", "tuned", "base_likelihood", "tuned_likelihood", "tuned_nll"} <= saved[0].keys()
    assert score_outputs(saved, one["labels"], 42)["difference"] == one["difference"]


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_where_it_was(labelled, tiny):
    train(config(labelled, tiny, epochs=0.2))
    run = runs.find("r")
    asked = EvaluateConfig(batch_size=4)
    listener = Listener(most=2)
    with pytest.raises(UserError, match="of 20 rows; the same evaluation asked again goes on from there") as stopped:
        evaluate(run, asked, reporter=listener)
    done = listener.rows[-1]
    assert 0 < done < 20 and str(stopped.value).startswith(f"Stopped after {done} of")
    assert run.evaluations() == []
    [partial] = (run.path / "evaluations").glob(".*.jsonl")
    # As after a kill in the middle of writing.
    partial.write_text(partial.read_text()[:-40])
    listener = Listener()
    resumed = evaluate(run, asked, reporter=listener)
    seen, read = listener.rows, listener.read
    assert seen[0] == done - 1 and seen[-1] == 20 and seen == sorted(set(seen))
    assert done - 1 < read[0] < 20 and read[-1] == 20 and read == sorted(set(read))
    assert not list((run.path / "evaluations").glob(".*.jsonl"))
    time.sleep(1.1)  # evaluations are named by the second
    whole = evaluate(run, asked)
    # A row answered in another batch has other rounding, and the same words.
    for one, other in zip(run.outputs(resumed["evaluation"]), run.outputs(whole["evaluation"]), strict=True):
        assert (one["base"], one["tuned"]) == (other["base"], other["tuned"])
        assert one["base_nll"] == pytest.approx(other["base_nll"], rel=1e-4)


def test_rows_too_long_for_the_model_are_left_out_and_counted(labelled, tiny, tmp_path):
    train(config(labelled, tiny, epochs=0.2))
    path, listener = tmp_path / "long.jsonl", Listener()
    rows = [
        {"text": f"{PLACES[n % 8]} number {n} here" + " here" * 600 * (n == 3), "label": "ab"[n % 2]} for n in range(6)
    ]
    rows_of = [{**row, "split": "train"} for row in rows[:2]] + [{**row, "split": "test"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of), encoding="utf-8")
    scores = evaluate("r", EvaluateConfig(data=str(path)), reporter=listener)
    assert (scores["n"], scores["left_out"]) == (5, 1)
    assert "Rows left out, since prompt and answer would pass the model's 512 tokens: 1." in listener.notes
    assert [row["row"] for row in runs.find("r").outputs(scores["evaluation"])] == list(range(5))


def test_other_data_is_read_as_its_flags_say_and_told(labelled, tiny, tmp_path):
    train(config(labelled, tiny, epochs=0.2))
    path, listener = tmp_path / "other.csv", Listener()
    path.write_bytes("".join(f"caf\xe9 {n};{('good', 'bad')[n % 2]}\n" for n in range(6)).encode("latin-1"))
    scores = evaluate("r", EvaluateConfig(data=str(path), header="no", encoding="latin-1"), reporter=listener)
    assert scores["n"] == 6 and any("it is read without a header" in line for line in listener.notes)


@pytest.mark.slow
def test_a_mixed_run_is_scored_by_task_and_together(labelled, tiny, tmp_path):
    """A label is chosen among those of its own task; texts beside labels leave accuracy to the task that has it."""
    places = tmp_path / "places.jsonl"
    rows = [{"text": f"{PLACES[n % 8]} number {n} here", "label": ("song", "meal")[n % 2]} for n in range(40)]
    places.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train(config(f"{labelled} + {places}", tiny, epochs=0.2))
    run = runs.find("r")
    scores = evaluate(run, EvaluateConfig(batch_size=16))
    assert scores["by_task"].keys() == {"moods", "places"} and scores["labels"] == ["bad", "good", "meal", "song"]
    assert sum(task["n"] for task in scores["by_task"].values()) == scores["n"]
    assert {row["tuned_likelihood"] for row in run.outputs(scores["evaluation"]) if row["task"] == "places"} <= {"meal", "song"}  # fmt: skip

    texts = tmp_path / "texts.jsonl"
    rows = [{"prompt": f"{PLACES[n % 8]} {n}", "completion": f"the {PLACES[n % 8]} was nice"} for n in range(40)]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train(config(f"{labelled} + {texts}", tiny, epochs=0.2, name="s"))
    scores = evaluate("s", EvaluateConfig(batch_size=16))
    assert "accuracy" not in scores["tuned"] and "accuracy" in scores["by_task"]["moods"]["tuned"]
    assert "accuracy" not in scores["by_task"]["texts"]["tuned"] and scores["tuned"]["perplexity"] > 1
