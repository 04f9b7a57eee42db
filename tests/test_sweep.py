"""A sweep: what it tries, what it keeps to its minutes, what it chooses by, and that the best one is an ordinary run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import encoders
import pytest
import seq2seq_models
from conftest import home_at, label_rows
from listener import Listener
from safetensors.torch import load_file

from sftdemo import runs
from sftdemo.__main__ import main
from sftdemo.config import TrainConfig
from sftdemo.config.sweep import MOST, SweepConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.runs import Run, sweep_record
from sftdemo.system import resources
from sftdemo.training import halving, kinds, resume
from sftdemo.training.progress import Progress
from sftdemo.training.signals import Interruption
from sftdemo.training.sweep_trials import ROOM, Search
from sftdemo.training.train import train
from sftdemo.verbs import jobs
from sftdemo.verbs.sweep import new, sweep

LOSS = "validation loss"


def write(path: Path, held_out: str = "") -> str:
    """Rows of two moods; with a word for the test rows, these have it and the other label."""
    rows = label_rows(100)
    for row in rows:
        if held_out and row["split"] == "test":
            row |= {"text": f"{row['text']} {held_out}", "label": {"good": "bad", "bad": "good"}[row["label"]]}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config(data: str, tiny: str, **changes: Any) -> TrainConfig:
    settings = {"data": data, "model": tiny, "precision": "float32", "name": "best", "max_examples": 64}
    return TrainConfig.from_json({**settings, **changes})


def outcome(record: sweep_record.Sweep) -> list[Any]:
    """What a sweep came to, without what the clock decides."""
    return [record["chosen"], [[t["settings"], t["measured"], t["curve"], t["ended"]] for t in record["trials"]]]


# Two trials of 16 steps: one goes on from the eighth.
TRIED = SweepConfig(minutes=100, learning_rate="1e-5,5e-3", rank="4", epochs="2")
SHARE = 0.5


@pytest.fixture(scope="module")
def swept(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any], list[str]]:
    """A sweep that ran through: its run, what it returned, and what it said."""
    folder = tmp_path_factory.mktemp("swept")
    with home_at(folder / "home"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(halving, "SHARES", (SHARE,))
        heard = Listener()
        value = sweep(config(write(folder / "moods.jsonl"), tiny), TRIED, heard)
        run = runs.find("best")
    return run, value, heard.notes


@pytest.mark.slow
def test_the_best_by_validation_loss_is_trained_to_its_end_as_an_ordinary_run(
    swept: tuple[Run, dict[str, Any], list[str]], tiny: str, tmp_path: Path, home: Path
) -> None:
    run, value, notes = swept
    record = value["sweep"]
    assert value["status"] == "finished" and value["steps"] == 16 and record == sweep_record.read(run)
    best, other = sorted(record["trials"], key=lambda trial: trial["measured"][-1]["eval_loss"])
    assert best["settings"]["learning_rate"] == 5e-3 and best["number"] == record["chosen"]
    assert (best["ended"], other["ended"]) == ("chosen", "beaten") and len(other["curve"]) == 8
    assert record["rungs"] == [{"share": 0.5, "trials": 2}] and best["measured"][0]["step"] == 8
    assert any("combinations are tried" in note for note in notes) and sum(LOSS in note for note in notes) == 2
    settings = run.config()["settings"]
    assert (settings["learning_rate"], settings["lora_r"], settings["lora_alpha"]) == (5e-3, 4, 8)
    assert run.config()["sweep"]["trial"] == record["chosen"]
    # The same settings without a sweep: the same curve, weights and test rows.
    with home_at(home):
        train(TrainConfig.from_json({**settings, "data": write(tmp_path / "moods.jsonl"), "model": tiny}))
        plain = runs.find("best")
    losses = [[row["loss"] for row in each.metrics() if "loss" in row] for each in (run, plain)]
    assert losses[0] == losses[1] and len(losses[0]) == 16
    ours, theirs = (load_file(each.model_path / "adapter_model.safetensors") for each in (run, plain))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert run.examples("test") == plain.examples("test") and len(plain.examples("test")) == 20
    # Trials are no runs, keep no data and, once beaten, no weights.
    assert [each.name for each in runs.list_runs()] == ["best"]
    kept = {path.name for path in (run.path / "trials").rglob("*") if path.is_file()}
    assert kept == {"config.json", "metrics.jsonl", "status.json", "README.md"}


@pytest.mark.slow
def test_the_test_rows_are_never_looked_at(
    swept: tuple[Run, dict[str, Any], list[str]], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sftdemo.encoding import examples
    from sftdemo.training import sweep_trials

    monkeypatch.setattr(halving, "SHARES", (SHARE,))
    texts: list[str] = []
    encode_all = examples.encode_all

    def watched(rows: Any, *arguments: Any) -> Any:
        texts.extend(message["content"] for row in rows for message in row["messages"])
        return encode_all(rows, *arguments)

    fit = sweep_trials.fit

    def fitted(prepared: Any, *arguments: Any) -> Any:
        assert not prepared.dataset.splits  # nothing but the token ids of train and validation is left
        return fit(prepared, *arguments)

    monkeypatch.setattr(examples, "encode_all", watched)
    monkeypatch.setattr(sweep_trials, "fit", fitted)
    value = sweep(config(write(tmp_path / "other.jsonl", "zebra"), tiny), TRIED)
    assert any("train" in text or "was" in text for text in texts) and not any("zebra" in text for text in texts)
    assert "zebra" in (runs.find("best").path / "data" / "test.jsonl").read_text(encoding="utf-8")
    # Equal seeds, other test rows, a machine of another speed: the same losses, curves and choice.
    assert outcome(value["sweep"]) == outcome(swept[1]["sweep"])


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 5, 12])
def test_a_sweep_that_was_stopped_or_killed_goes_on_with_what_it_had(
    swept: tuple[Run, dict[str, Any], list[str]],
    tiny: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    from sftdemo.training import sweep_trials

    monkeypatch.setattr(halving, "SHARES", (SHARE,))
    data, heard = write(tmp_path / "moods.jsonl"), 0

    class Killed(BaseException):
        """As a kill: nothing is written after it."""

    def step(*arguments: Any) -> None:
        nonlocal heard
        heard += 1
        if heard > after:
            raise Killed if after == 5 else KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Killed if after == 5 else KeyboardInterrupt):
        patch.setattr(sweep_trials._Stretch, "trained", step)
        if after == 5:
            patch.setattr("sftdemo.training.train._note_failure", lambda *_: None)
            patch.setattr(sweep_trials.Search, "_write", lambda _: None)
        sweep(config(data, tiny), TRIED)
    run = runs.find("best")
    if after == 5:
        status = json.loads((run.path / "status.json").read_text(encoding="utf-8"))
        (run.path / "status.json").write_text(json.dumps({**status, "pid": 2**22}), encoding="utf-8")
    else:
        assert run.state == "stopped" and "settings were tried" in str(run.status()["error"])
        assert jobs.can_resume(run)
    measured = len([trial for trial in sweep_record.read(run)["trials"] if trial["measured"]])  # type: ignore[index]
    assert measured == (after == 12)
    again: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Listener, "info", lambda self, text: again.append(str(text)))
        assert train(TrainConfig(resume="best"), reporter=Listener())["status"] == "finished"
    assert sum(LOSS in note for note in again) == 2 - measured
    assert outcome(sweep_record.read(run)) == outcome(swept[1]["sweep"])  # type: ignore[arg-type]
    assert [row.get("loss") for row in run.metrics()] == [row.get("loss") for row in swept[0].metrics()]


@pytest.mark.slow
def test_a_best_trial_that_was_trained_to_its_end_is_the_run(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halving, "SHARES", (1.0,))
    data = write(tmp_path / "moods.jsonl")
    value = sweep(config(data, tiny, max_examples=32), SweepConfig(100, "1e-4,5e-3", "4", "1"))
    run = runs.find("best")
    assert value["run"] == "best" and value["status"] == "finished" == run.state and run.model_path.is_dir()
    assert value["steps"] == 4 == value["sweep"]["trials"][value["sweep"]["chosen"] - 1]["steps"]
    assert "best" in (run.path / "README.md").read_text(encoding="utf-8") and run.damage() is None
    assert runs.details(run)["sweep"] == value["sweep"]


@pytest.mark.slow
def test_too_few_minutes_are_told_with_what_is_needed_and_leave_no_run(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0\.1 min are too few.*about \d+ min"):
        sweep(config(write(tmp_path / "moods.jsonl"), tiny), SweepConfig(0.1, "1e-4,1e-3", "4", "100"))
    assert runs.list_runs() == []


def test_a_rank_that_one_trial_could_not_take_is_refused_before_any_is_trained(tiny: str, tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(UserError, match="lora_r is 48, and pissa takes at most 32"):
        sweep(
            config(write(tmp_path / "moods.jsonl"), tiny, pissa=True, lora_r=4),
            SweepConfig(100, None, "4,48", "1"),
            listener,
        )
    assert runs.list_runs() == [] and not [note for note in listener.notes if note.startswith("Trial")]


def came_to(search: Search, number: int, state: str, share: float, step: int, loss: float) -> None:
    """A trial's stretch, as its training leaves it in its folder."""
    trial = search.trials[number - 1]
    folder = sweep_record.folder(search.run, trial)
    (folder.path / "model").mkdir(parents=True, exist_ok=True)
    folder.write_status(state, step=step, total=trial["steps"], steps=step, eval_loss=loss)  # type: ignore[arg-type]
    assert search._measure(trial, folder, share, round(share * trial["steps"]))


def test_a_trial_that_ended_early_is_compared_by_its_loss_and_never_chosen_once_it_is_beaten(home: Path) -> None:
    run = new(TrainConfig(data="d", patience=1), SweepConfig(100, "1e-5,1e-4,1e-3", "4", "1"))
    search = Search(run, None, Interruption(None), Progress(Listener()))  # type: ignore[arg-type]
    for trial in search.trials:
        trial["steps"] = 16
    came_to(search, 1, "finished", 0.25, 3, 0.5)
    came_to(search, 2, "stopped", 0.25, 4, 0.4)
    assert search.trials[0]["measured"] == [{"share": 0.25, "step": 3, "eval_loss": 0.5, "whole": True}]
    assert search._best() is search.trials[1]
    came_to(search, 2, "stopped", 0.5, 8, 0.6)
    assert search._best() is search.trials[0], "it is at each later rung what it came to"
    came_to(search, 3, "stopped", 0.5, 8, 0.3)
    search._drop(search.trials[0])
    assert search._best() is search.trials[2] and search._end(timed_out=True) is search.trials[2]
    assert [trial["ended"] for trial in search.trials] == ["beaten", "beaten", "waiting"]
    assert not (run.path / "trials/01/model").exists() and (run.path / "trials/03/model").is_dir()
    search.sweep["chosen"] = 1
    search.settled = lambda trial: SimpleNamespace(config=TrainConfig(data="d"))  # type: ignore[assignment,method-assign,return-value]
    with pytest.raises(UserError, match="The model of trial 1, the best of the sweep, is gone"):
        search.take_over()
    assert run.state != "finished"


def test_a_sweep_that_no_disk_can_hold_is_refused_and_one_that_goes_on_does_not_begin_anew(
    home: Path, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(write(tmp_path / "moods.jsonl"), tiny, method="full")
    run = new(settings, SweepConfig(100, "1e-5,1e-4,1e-3", None, "1"))
    (run.path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n', encoding="utf-8")
    assert resume.start(run).notes == ()
    prepared = kinds.prepare(settings, Listener(), None, None)
    search = Search(run, prepared, Interruption(None), Progress(Listener()))
    free = SimpleNamespace(free=ROOM + 2 * prepared.kept_bytes)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda folder: free)
    search._check_disk({"share": 1.0, "trials": 2})
    with pytest.raises(UserError, match="The sweep, which keeps up to 3 trials at once, needs about 2"):
        search._check_disk({"share": 1.0, "trials": 3})


def test_the_plan_takes_as_many_trials_and_steps_as_fit() -> None:
    steps = [64] * 8
    every = halving.rungs(8, 0.125)
    assert [(rung["share"], rung["trials"]) for rung in every] == [(0.125, 8), (0.25, 4), (0.5, 2)]
    assert [rung["trials"] for rung in halving.rungs(5, 0.5)] == [5, 3]
    assert halving.first_share([9, 64]) == 1 and halving.first_share([16]) == 0.5 and halving.first_share([64]) == 0.125
    whole = halving.plan(steps, 1e6, 1.0, 1.0)
    assert whole and whole.rungs == [{"share": 1.0, "trials": 8}] and whole.search_s == 8 * 65 and whole.last_s == 0
    # 64 s each: 8 + 4 + 4 eighths for the rungs, 4 for the last.
    halved = halving.plan(steps, 64 * 2.5 * halving.SAFETY, 1.0, 0.0)
    assert halved and halved.rungs == every and (halved.search_s, halved.last_s) == (128.0, 32.0)
    fewer = halving.plan(steps, 64 * 1.5, 1.0, 0.0)
    assert fewer and 2 <= fewer.rungs[0]["trials"] < 8
    assert halving.SAFETY * (fewer.search_s + fewer.last_s) <= 64 * 1.5
    assert halving.plan(steps, 64, 1.0, 0.0) is None


def test_combinations_begin_with_the_usual_one_and_keep_the_scale() -> None:
    base = TrainConfig(data="d")
    trials = SweepConfig().trials(base)
    assert len(trials) == 18 and (trials[0].learning_rate, trials[0].lora_r, trials[0].epochs) == (5e-4, 16, 1.0)
    assert {trial.lora_alpha / trial.lora_r for trial in trials} == {2.0} and len(set(trials)) == 18
    own = SweepConfig().trials(TrainConfig(data="d", epochs=3.0, lora_r=64))
    assert {trial.epochs for trial in own} == {1, 2, 3} and {trial.lora_r for trial in own} == {8, 16, 32, 64}
    assert trials == SweepConfig().trials(base) != SweepConfig().trials(TrainConfig(data="d", seed=1))
    full = SweepConfig(learning_rate="1e-5, 2e-5", epochs="1").trials(TrainConfig(data="d", method="full"))
    assert [trial.lora_r for trial in full] == [16, 16]


@pytest.mark.parametrize(
    ("tried", "base", "said"),
    [
        ({"learning_rate": "fast"}, {}, "learning_rate is 'fast'; give numbers as a list"),
        ({"rank": "8.5,4"}, {}, "lora_r is 8.5; give a whole number"),
        ({"epochs": "1,nan"}, {}, "epochs is nan"),
        ({"learning_rate": "1e-4,7"}, {}, "learning_rate is 7; the most is 1"),
        ({"learning_rate": "1e-4", "rank": "8", "epochs": "1,1.0"}, {}, "one combination"),
        ({"learning_rate": ",".join(f"{n}e-5" for n in range(1, MOST))}, {}, "combinations are too many"),
        ({"rank": "8"}, {"method": "full"}, "rank is for method lora"),
        ({}, {"max_minutes": 3.0}, "leave out max_minutes"),
        ({}, {"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"minutes": 0.0}, {}, "minutes is 0"),
        ({}, {"teacher": "t"}, "A sweep has no teacher"),
        ({}, {"report_to": "tensorboard"}, "leave out report_to"),
    ],
)
def test_what_can_be_no_sweep_is_refused_in_a_line(tried: dict[str, Any], base: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        new(TrainConfig(data="d", **base), SweepConfig(**tried))
    assert runs.list_runs() == []


@pytest.mark.slow
def test_the_command_line_tells_each_trial(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "moods.jsonl")
    monkeypatch.setattr(halving, "SHARES", (1.0,))
    flags = ["--model", tiny, "--max-examples", "16", "--learning-rate", "1e-4,1e-3", "--rank", "4", "--epochs", "1"]
    assert main(["sweep", data, "--minutes", "100", "--name", "s", *flags]) == 0
    printed = capsys.readouterr().out
    assert "beaten" in printed and "the best" in printed and "Run s: finished after 2 steps" in printed
    assert main(["sweep", data, "--learning-rate", "x"]) == 2


@pytest.mark.slow
def test_a_sweep_ends_within_its_minutes_however_slow_its_steps_become(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands still but for the steps: ten seconds each in the first trial, forty after it."""
    from sftdemo.training import budget, callback, signals, sweep_trials

    clock = {"now": 1000.0}
    stood = SimpleNamespace(**{**vars(time), **dict.fromkeys(("monotonic", "perf_counter"), lambda: clock["now"])})
    for module in (budget, callback, signals, sweep_trials):
        monkeypatch.setattr(module, "time", stood)
    before, steps = callback.RunCallback.on_step_end, [0]

    def on_step_end(self: Any, *arguments: Any, **keywords: Any) -> Any:
        steps[0] += 1
        clock["now"] += 10 if steps[0] <= 8 else 40
        return before(self, *arguments, **keywords)

    monkeypatch.setattr(callback.RunCallback, "on_step_end", on_step_end)
    monkeypatch.setattr(halving, "SHARES", (SHARE,))
    heard = Listener()
    tried = SweepConfig(minutes=6, learning_rate="1e-5,5e-3", rank="4", epochs="2")
    value = sweep(config(write(tmp_path / "moods.jsonl"), tiny), tried, heard)
    run = runs.find("best")
    first, second = value["sweep"]["trials"]
    assert (first["ended"], second["ended"]) == ("chosen", "no_time") and not second["measured"]
    assert value["status"] == run.state == "stopped" and 8 < value["steps"] < 16
    assert 240 <= clock["now"] - 1000 <= 360 and any("The 6 min are over" in note for note in heard.notes)
    assert run.model_path.is_dir() and jobs.can_resume(run)
    assert train(TrainConfig(resume="best"))["steps"] == 16, "what is resumed goes on to its end"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "seq2seq"])
def test_a_sweep_of_another_kind_comes_to_an_ordinary_run(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    model = encoders.make("bert", folder) if task == "classification" else seq2seq_models.save("t5", folder)
    monkeypatch.setattr(halving, "SHARES", (SHARE,))
    heard = Listener()
    value = sweep(config(write(tmp_path / "moods.jsonl"), model, task=task), TRIED, heard)
    losses = [trial["measured"][-1]["eval_loss"] for trial in value["sweep"]["trials"]]
    chosen = value["sweep"]["trials"][value["sweep"]["chosen"] - 1]
    assert value["status"] == "finished" and value["steps"] == 16 and min(losses) == chosen["measured"][-1]["eval_loss"]
    settings = runs.find("best").config()["settings"]
    plain = train(TrainConfig.from_json({**settings, "name": "plain"}))
    assert plain["eval_loss"] == value["eval_loss"]
    ours, theirs = (load_file(runs.find(name).model_path / "adapter_model.safetensors") for name in ("best", "plain"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
