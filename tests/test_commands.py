"""The command line as a user meets it: keys, exit statuses, one line for a fault, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sftdemo import runs
from sftdemo.__main__ import main

ROOT = Path(__file__).parents[1]


def ask(capsys, *words: str) -> tuple[int, dict, str]:
    """Run a command with --json: (exit status, the object, stderr)."""
    capsys.readouterr()
    status = main([*words, "--json"])
    said = capsys.readouterr()
    return status, json.loads(said.out) if said.out else {}, said.err


def test_the_main_job(capsys, labelled, tiny):
    status, found, _ = ask(capsys, "check", labelled, "--model", tiny, "--row", "1")
    assert status == 0
    assert {
        "format",
        "task",
        "examples",
        "faults",
        "labels",
        "tokens",
        "supervised_tokens",
        "duplicates",
        "leaked",
    } <= found.keys()
    assert found["format"] == "text_label" and found["task"] == "classification" and found["examples"] == 100
    assert found["labels"] == {"bad": 50, "good": 50} and found["faults"] == []
    assert found["tokens"].keys() == {"p50", "p95", "max"} and found["supervised_tokens"] >= 200
    assert "".join(token["text"] for token in found["xray"] if token["supervised"]) in (
        "good<|im_end|>",
        "bad<|im_end|>",
    )

    words = ["--model", tiny, "--name", "r", "--epochs", "4", "--learning-rate", "5e-3"]
    status, summary, _ = ask(capsys, "train", "--data", labelled, *words)
    assert status == 0 and summary["run"] == "r" and summary["status"] == "finished"
    assert {"steps", "train_loss", "eval_loss", "tokens_per_s", "seconds", "model_source"} <= summary.keys()

    status, scores, _ = ask(capsys, "evaluate", "r", "--max-examples", "15")
    assert status == 0 and scores["n"] == 15 and Path(scores["outputs"]).is_file()
    assert scores["tuned"]["accuracy"] > scores["base"]["accuracy"]
    assert scores["difference"]["accuracy"].keys() == {"delta", "low", "high", "p", "p_holm"}
    assert {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "macro_f1", "likelihood_accuracy"} <= scores[
        "tuned"
    ].keys()

    status, found, _ = ask(capsys, "compare", "r", "--prompt", "the film was good", "--max-new-tokens", "4")
    assert status == 0 and found.keys() == {"base", "tuned", "tokens_per_s"} and found["tokens_per_s"]["base"] > 0

    status, listed, _ = ask(capsys, "runs")
    assert [row["name"] for row in listed] == ["r"] and listed[0]["metric"] == "accuracy"
    assert ask(capsys, "runs", "show", "r")[1]["status"]["state"] == "finished"
    assert ask(capsys, "votes", "r")[1]["n"] == 0
    assert ask(capsys, "runs", "delete", "r")[0] == 0 and runs.list_runs() == []


@pytest.mark.slow
def test_compare_shows_what_differs(capsys, labelled, tiny):
    for name, rank in (("a", "2"), ("b", "4")):
        ask(capsys, "train", "--data", labelled, "--model", tiny, "--name", name, "--epochs", "0.2", "--lora-r", rank)
    found = ask(capsys, "runs", "compare", "a", "b")[1]
    assert found["settings"] == {"lora_r": {"a": 2, "b": 4}, "name": {"a": "a", "b": "b"}}
    asked = ["--prompt", "the film was good", "--max-new-tokens", "4"]
    together = ask(capsys, "compare", "a", "b", *asked)[1]
    assert together.keys() == {"base", "a", "b", "tokens_per_s"}
    for name in ("a", "b"):
        alone = ask(capsys, "compare", name, *asked)[1]
        assert (alone["base"], alone["tuned"]) == (together["base"], together[name])
    status, _, said = ask(capsys, "compare", "a", "a", *asked)
    assert status == 1 and "give at most 3 runs, each once" in said


def test_check_lists_all_faults_and_fails(capsys, tmp_path, tiny):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "good day", "label": "x"}\n{"text": "", "label": "x"}\n\xff\xfe\n')
    status, found, _ = ask(capsys, "check", str(path), "--model", tiny)
    assert status == 1
    assert {fault["line"] for fault in found["faults"]} >= {2, 3}
    assert all(fault["problem"] and fault["remedy"] for fault in found["faults"])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["evaluate", "nope"], 1, "There is no run 'nope'"),
        (["check", "nope.jsonl"], 1, "There is no file, folder or sample 'nope.jsonl'"),
        (["train", "--data", "support_tickets", "--epochs", "0"], 2, "epochs is 0; the least is 0.001."),
        (["runs", "show"], 2, "runs show needs the name of a run."),
        (["score", "nope.jsonl"], 1, "nope.jsonl"),
        (["compare", "nope", "--prompt", "x", "--temperature", "9"], 2, "temperature is 9; the most is 2."),
    ],
)
def test_a_fault_is_one_line(capsys, home, words, status, said):
    got, found, error = ask(capsys, *words)
    assert (got, found) == (status, {})
    assert said in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not home.exists()


def test_a_reader_that_has_had_enough_is_no_fault(home):
    command = [sys.executable, "-m", "sftdemo", "runs", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert "Broken" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["frobnicate"], ["train", "--data", "x", "--method", "magic"], []])
def test_wrong_usage_exits_with_2(words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_score_needs_no_model(capsys, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prediction": "a", "label": "a"}\n{"prediction": "B ", "label": "b"}\n', encoding="utf-8")
    status, found, _ = ask(capsys, "score", str(path))
    assert status == 0 and found["n"] == 2 and found["accuracy"] == 1.0 and found["exact_match"] == 0.5
    assert "version" in found["signatures"]["bleu"]


def test_score_reads_tables_and_says_what_it_leaves_out(capsys, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("id;prediction;label\n1;Größe.;Größe\n2;;Länge\n".encode("cp1252"))
    status, found, said = ask(capsys, "score", str(path), "--encoding", "cp1252")
    assert status == 0 and (found["accuracy"], found["lenient_accuracy"]) == (0, 0.5)
    assert "Columns that are not used: 'id'." in said and "empty, and count as wrong: 1 of 2" in said
    assert len(found["notes"]) == 2


def start(home, *words: str, **options) -> subprocess.Popen[str]:
    """A real process of the command line."""
    env = {**os.environ, "SFTDEMO_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "sftdemo", *words], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        **options,
    )  # fmt: skip


def wait_for_steps(run: runs.Run, count: int) -> None:
    deadline = time.monotonic() + 90
    while len([row for row in run.metrics() if "loss" in row]) < count:
        assert time.monotonic() < deadline and run.status()["state"] != "failed", run.status()
        time.sleep(0.1)


def test_the_status_is_130_wherever_control_c_comes(tmp_path):
    """Amid an `exec`, as dataclasses are made by, Python would end by the signal itself."""
    (tmp_path / "stopped.py").write_text(
        """
import sys
from types import SimpleNamespace
from sftdemo import __main__ as command

def act(options):
    exec("raise KeyboardInterrupt")

options = SimpleNamespace(json=False, act=act)
command.parser = lambda name: SimpleNamespace(parse_args=lambda words: options)
sys.exit(command.main())
"""
    )
    asked, env = [sys.executable, "-m", "stopped"], {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(asked, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (130, "sftdemo: stopped.\n")


@pytest.mark.slow
def test_control_c_stops_and_keeps(home, labelled, tiny):
    child = start(home, "train", "--data", labelled, "--model", tiny, "--name", "r", "--epochs", "100", "--json")
    run = runs.Run(home / "runs" / "r")
    deadline = time.monotonic() + 90
    while not (run.path / "config.json").exists():
        assert time.monotonic() < deadline and child.poll() is None, child.communicate()
        time.sleep(0.1)
    wait_for_steps(run, 3)
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=60)
    assert child.returncode == 130, error
    assert json.loads(out)["status"] == "stopped" == run.status()["state"]
    assert (run.model_path / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_a_job_started_by_the_app_is_stopped_and_its_killed_sibling_failed(home, labelled, tiny):
    from sftdemo.config import TrainConfig
    from sftdemo.verbs import jobs

    settings = {"data": labelled, "model": tiny, "epochs": 100.0}
    run = jobs.start(TrainConfig(name="stopped", **settings))
    wait_for_steps(run, 3)
    jobs.stop(run)
    deadline = time.monotonic() + 60
    while run.status()["state"] in runs.ACTIVE:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert run.status()["state"] == "stopped" and run.model_path.is_dir()

    run = jobs.start(TrainConfig(name="killed", **settings))
    wait_for_steps(run, 3)
    os.kill(run.status()["pid"], signal.SIGKILL)
    while run.status()["state"] in runs.ACTIVE:
        time.sleep(0.05)
    status = run.status()
    assert status["state"] == "failed" and "kill" in status["error"].lower()
    assert len(run.metrics()) >= 3, "what was logged stays"


@pytest.mark.parametrize("after", [0.2, 0.4, 0.7])
def test_ctrl_c_while_it_starts_is_no_traceback(after: float) -> None:
    """Wherever it is then; before python itself has begun nobody can say anything."""
    with subprocess.Popen(
        [sys.executable, "-m", "sftdemo", "runs"], stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as command:
        time.sleep(after)
        command.send_signal(signal.SIGINT)
        assert command.stderr
        said = command.stderr.read()
    assert said in ("", "sftdemo: stopped.\n") or "sftdemo" not in said
