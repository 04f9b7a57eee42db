"""Continual tuning: from an earlier run's adapter or weights, with its rows kept apart and some of them rehearsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import label_rows
from safetensors.torch import load_file

from sftdemo import ExportConfig, export, files, runs
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.data import rehearsal
from sftdemo.data.types import Dataset
from sftdemo.errors import DataError, UsageError, UserError
from sftdemo.inference.load_run import load
from sftdemo.model import loading
from sftdemo.training import continual
from sftdemo.training.train import train
from sftdemo.verbs.evaluate import evaluate
from tests.interrupting import at_step

QUESTION = [{"role": "user", "content": "the soup 3 was fine and good"}]
# A step over all rows, without momentum: what a training does then depends on its weights alone.
FULL_BATCH = {"batch_size": 64, "optimizer": "sgd", "beta1": 0.0, "schedule": "constant", "warmup_ratio": 0.0}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def settings(tmp_path: Path, tiny: str) -> dict[str, Any]:
    data = written(tmp_path / "moods.jsonl", label_rows(60))
    return {"data": data, "model": tiny, "precision": "float32", "lora_r": 4, "max_steps": 2} | FULL_BATCH


def weights(name: str) -> dict[str, torch.Tensor]:
    (path,) = runs.find(name).model_path.glob("*.safetensors")
    return load_file(path)


@pytest.mark.slow
def test_an_adapter_goes_on_as_in_one_training(settings):
    first = train(TrainConfig(**settings, name="first"))
    second = train(TrainConfig(data=settings["data"], name="second", from_run="first", max_steps=2, **FULL_BATCH))
    assert second["first_eval_loss"] == first["eval_loss"], "it begins at the very weights"
    train(TrainConfig(**settings | {"max_steps": 4, "name": "whole"}))
    for name, weight in weights("whole").items():
        torch.testing.assert_close(weights("second")[name], weight, rtol=1e-4, atol=1e-6)  # rows in another order
    config = runs.find("second").config()
    assert config["settings"]["lora_r"] == 4 and config["settings"]["model"] == settings["model"]
    assert config["base_model"] == runs.find("first").config()["base_model"], "the base stays the original one"
    assert config["from"] == {
        "run": "first",
        "method": "lora",
        "weights": continual.weights_sha256(runs.find("first")),
        "data": runs.find("first").config()["data"]["sha256"],
        "before": [],
    }
    assert not (runs.find("second").path / "start").exists()
    runs.find("first").delete()
    assert set(load("second").complete([QUESTION])[0]) == {"base", "tuned"}


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("full", "full"), ("lora", "full"), ("full", "lora")])
def test_whole_weights_go_on_and_need_nothing_of_the_earlier_run(settings, tmp_path, before, after):
    """From an adapter they are the base with it merged; LoRA beside whole weights is merged into them in the end."""
    first = train(
        TrainConfig(**settings | {"name": "first", "method": before} | ({} if before == "lora" else {"lora_r": 16}))
    )
    same = {"data": settings["data"], "from_run": "first", **FULL_BATCH}
    second = train(TrainConfig(**same, name="second", method=after, max_steps=2))
    assert second["first_eval_loss"] == pytest.approx(first["eval_loss"], rel=1e-5)
    run = runs.find("second")
    assert not run.has_adapter and not (run.path / "start").exists()
    runs.find("first").delete()
    evaluated = evaluate("second", EvaluateConfig(max_examples=4))
    assert evaluated["n"] == 4
    exported = export("second", tmp_path / "out", config=ExportConfig(dtype="float32"))
    assert exported.format == "merged" and exported.check and exported.check.exact
    assert first["eval_loss"] != second["eval_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_is_resumed_to_the_same_weights_where_the_earlier_run_is_gone(settings, method):
    train(TrainConfig(**settings, name="first"))
    config = TrainConfig(
        data=settings["data"], name="second", from_run="first", method=method, max_steps=4, batch_size=8
    )
    train(config)
    whole = weights("second")
    runs.find("second").delete()

    def stop_without_the_earlier_run() -> None:
        runs.find("first").delete()
        runs.find("second").ask_to_stop()

    train(config, reporter=at_step(2, stop_without_the_earlier_run))
    assert (runs.find("second").path / "start").is_dir()
    assert train(TrainConfig(resume="second"))["resumed"] == [2]
    assert all(torch.equal(weight, weights("second")[name]) for name, weight in whole.items())
    assert not (runs.find("second").path / "start").exists()


@pytest.mark.slow
def test_rows_are_kept_apart_over_a_chain_and_some_are_rehearsed(settings, tmp_path):
    rows = [{"text": row["text"], "label": row["label"]} for row in label_rows(90)]  # split by the seed
    data = written(tmp_path / "rows.jsonl", rows[:60])
    train(TrainConfig(**settings | {"data": data}, name="first"))
    first = runs.find("first")
    tested = {row["messages"][0]["content"] for row in first.examples("test")}
    learned = {row["messages"][0]["content"] for row in first.examples("train")}
    other = written(tmp_path / "other.jsonl", [*rows[:30], *rows[60:]])
    train(TrainConfig(data=other, name="second", from_run="first", seed=7, rehearsal=0.2, max_steps=1))
    second = runs.find("second")
    splits = {
        split: {row["messages"][0]["content"] for row in second.examples(split)}
        for split in ("train", "test", "rehearsal")
    }
    assert splits["rehearsal"] <= learned and len(splits["rehearsal"]) == round(0.2 * len(splits["train"]))
    assert not splits["train"] & tested and not splits["test"] & learned and not splits["rehearsal"] & splits["test"]
    facts = second.config()["data"]
    assert facts["sizes"]["rehearsal"] == len(splits["rehearsal"])
    assert any("rows are left out" in note for note in facts["notes"]) and any(
        "Rehearsed:" in note for note in facts["notes"]
    )
    first.delete()
    train(TrainConfig(data=data, name="third", from_run="second", seed=3, test_size=0.5, max_steps=1))
    third = runs.find("third")
    assert not {row["messages"][0]["content"] for row in third.examples("train")} & (tested | splits["test"])
    assert not {row["messages"][0]["content"] for row in third.examples("test")} & (learned | splits["train"])
    assert [each["run"] for each in (third.config()["from"], *third.config()["from"]["before"])] == ["second", "first"]
    scores = evaluate("third", EvaluateConfig(against="run:second"))
    assert "run:second" in scores["systems"]


def test_a_student_and_what_goes_on_from_it_keep_away_from_all_rows_of_the_teacher(home):
    """Also from those that the student took no part of."""
    teacher, student = (runs.create(name, "", {"settings": {}}) for name in ("t", "s"))
    rows = {split: [example(f"{split} {n}") for n in range(3)] for split in ("train", "validation", "test")}
    for split, examples in rows.items():
        files.write_jsonl(teacher.path / "data" / f"{split}.jsonl", examples)
    files.write_jsonl(student.path / "data" / "train.jsonl", rows["train"][:1])
    continual.write_ancestry(student, None, teacher)
    before = continual.Predecessor("s", student).rows
    assert before.trained_hashes == {*rehearsal.hashes(rows["train"])} and before.test_hashes == {
        *rehearsal.hashes(rows["test"])
    }


def example(text: str, answer: str = "good") -> dict[str, Any]:
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "label": answer, "meta": {}}


NAMES = ["amber kettle by the window", "seven painted wooden boats", "a letter from Lisbon", "the quiet orchard path",
         "ten silver spoons in a drawer", "mountain rain on tin roofs", "an old piano without keys", "blue ink on his sleeve",
         "bread that never rises", "a map of empty rooms"]  # fmt: skip


def earlier(**rows: Any) -> rehearsal.EarlierRows:
    return rehearsal.EarlierRows(**{"name": "old", "trained": [], "validation": [], "test": [], **rows})


def test_a_row_that_stands_in_a_test_is_not_trained_on_however_it_is_written():
    rows = [example(f"How is this: {name}") for name in NAMES]
    dataset = Dataset("d", "d", splits={"train": rows[:6], "validation": rows[6:7], "test": rows[7:]})
    old = earlier(
        test=[example(f"Rate the mood of {name.upper()}!") for name in NAMES[:1]]
        + [example("Rate the mood of SOMETHING ELSE!")],
        trained=[example(f"How is this: {NAMES[7]}"), example("How is this: nothing of the kind")],
        test_hashes=frozenset(rehearsal.hashes([rows[2]])),
        trained_hashes=frozenset(rehearsal.hashes([rows[6]])),
    )
    notes = rehearsal.keep_apart(dataset, old, 42)
    assert [row["messages"][0]["content"].partition(": ")[2] for row in dataset.splits["train"]] == [
        NAMES[number] for number in (1, 3, 4, 5)
    ]
    assert [len(dataset.splits[split]) for split in ("validation", "test")] == [0, 2]
    assert [str(note).split()[0] for note in notes] == ["2", "1", "1"]


def test_nothing_left_is_one_line():
    rows = [example(name) for name in NAMES]
    with pytest.raises(UserError, match=r"All 2 test rows were learned by run old .* the same seed \(now 42\)"):
        dataset = Dataset("d", "d", splits={"train": rows[:6], "test": rows[8:]})
        rehearsal.keep_apart(dataset, earlier(trained=rows[8:]), 42)
    with pytest.raises(DataError, match="training rows are left out"):
        rehearsal.keep_apart(Dataset("d", "d", splits={"train": rows[:2]}), earlier(test=rows[:2]), 42)
    with pytest.raises(UserError, match="Run old keeps no training rows to rehearse"):
        rehearsal.draw(Dataset("d", "d", splits={"train": rows}), earlier(), 0.1, 42)


def test_what_is_rehearsed_is_drawn_by_the_seed_and_never_from_a_test():
    rows = [example(name) for name in NAMES]
    new = [example(f"item {number} of the new catalogue") for number in range(10)]
    drawn = []
    for seed in (1, 1, 2):
        dataset = Dataset("d", "d", splits={"train": [*new, rows[0]], "test": [rows[1]]})
        rehearsal.draw(dataset, earlier(trained=[*rows, rows[5]], test=[rows[2]]), 0.4, seed)
        drawn.append([row["messages"][0]["content"] for row in dataset.splits["rehearsal"]])
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 4
    assert not set(drawn[0] + drawn[2]) & {NAMES[0], NAMES[1], NAMES[2]}


def test_what_cannot_be_is_one_line(settings, tmp_path):
    with pytest.raises(UsageError, match="rehearsal takes rows of the run that from_run names"):
        TrainConfig(**settings, rehearsal=0.1).check()
    with pytest.raises(UserError, match="There is no run 'nothing'"):
        train(TrainConfig(**settings, from_run="nothing"))
    run = runs.create("first", "", {"settings": TrainConfig(**settings).to_json(), "base_model": "b", "data": {"task": "", "format": "", "instruction": ""}})  # fmt: skip
    run.write_status("failed")
    with pytest.raises(UserError, match="Run first has no model to go on from"):
        train(TrainConfig(**settings, from_run="first"))
    run.model_path.mkdir()
    adapter = {"r": 4, "lora_alpha": 32, "use_rslora": False}
    (run.model_path / "adapter_config.json").write_text(json.dumps(adapter))
    found = continual.find(TrainConfig(**settings, from_run="first"))
    assert continual.inherited(TrainConfig(data="d", from_run="first"), found).lora_r == 4
    for changes, fault in (
        ({"lora_r": 8}, "lora_r is 8, and run first, which this one goes on from, has 4; leave it out"),
        ({"model": "other"}, "model is 'other', and run first"),
        ({"pissa": True}, "pissa begins a new adapter, and from_run goes on with that of run first"),
        ({"quantization": "nf4"}, "quantization is 'nf4', and run first, which this one goes on from, has 'none'"),
    ):
        with pytest.raises(UserError, match=fault):
            continual.inherited(TrainConfig(**settings | {"from_run": "first"} | changes), found)
    (run.model_path / "adapter_config.json").write_text(json.dumps({**adapter, "lora_alpha": 90.5}))
    with pytest.raises(UserError, match=r"The adapter of run first has the scale 90.5, as pissa with rslora leaves it"):
        continual.inherited(TrainConfig(data="d", from_run="first"), found)


def test_merging_keeps_what_the_adapter_answers(settings, tmp_path, tiny):
    train(TrainConfig(**settings, name="first"))
    folder = runs.find("first").model_path
    ids = torch.tensor([[5, 6, 7, 8]])
    model: Any = loading.add_adapter(loading.load_base(Path(tiny), torch.float32), folder).eval()
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        continual.merge(Path(tiny), folder)
        merged = loading.load_base(folder, torch.float32).eval()(input_ids=ids).logits
    torch.testing.assert_close(merged, wanted, rtol=1e-4, atol=1e-4)


def test_where_it_comes_from_is_told_everywhere(settings, monkeypatch):
    """On Runs, in the report and in the model card; and to a visitor no other run's name."""
    from sftdemo.training.model_card import model_card
    from sftdemo.ui.parts import lineage
    from sftdemo.ui.report import of_run
    from sftdemo.ui.tabs import runs as runs_tab

    before = {"run": "oldest", "method": "full", "weights": "b" * 64, "data": "d" * 64}
    origin = {"run": "older<b>", "method": "lora", "weights": "a" * 64, "data": "c" * 64, "before": [before]}
    facts = {"task": "generation", "format": "messages", "instruction": "", "sha256": "e" * 64, "source": "s"}
    config = {"settings": TrainConfig(**settings).to_json(), "base_model": "b", "data": facts, "from": origin}
    run = runs.create("young", "", config)
    run.write_status("finished", steps=1)
    for text in (runs_tab.details(run, "zh"), of_run.data(run, "en"), lineage.line(origin, "en")):
        assert "older&lt;b&gt;" in text and "oldest" in text and "a" * 12 in text and "<b>older<b>" not in text
    assert "older" not in runs_tab.details(run, "en", owner=False)
    assert f"- **Went on from**: older<b> (lora, weights `{'a' * 12}`) ← oldest (full" in model_card(run, run.status())
    assert run.damage() is None


def test_the_page_says_what_stays_before_it_trains(settings):
    from sftdemo.ui.access import rights
    from sftdemo.ui.tabs import start_from
    from sftdemo.ui.tabs.train import config_of, plan

    facts = {"task": "", "format": "", "instruction": ""}
    run = runs.create("first", "", {"settings": TrainConfig(**settings).to_json(), "base_model": "b", "data": facts})
    run.write_status("finished")
    run.model_path.mkdir()
    (run.model_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 32, "use_rslora": False}))
    config = config_of({"data": settings["data"]}, {"from_run": "first", "lora_r": 16})
    assert (config.lora_r, config.model) == (4, settings["model"])
    assert "from first" in plan(config, [], "en") and "从 first 继续" in plan(config, [], "zh")
    with pytest.raises(UserError, match="lora_r is 8, and run first"):
        config_of({"data": settings["data"]}, {"from_run": "first", "lora_r": 8})
    offered = start_from.offered(rights.LOCAL, "en")
    assert offered["choices"] == [("the base model", ""), ("first", "first")]
