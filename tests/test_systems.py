"""Other systems on the rows of an evaluation: what each answers, what is kept, how it is compared, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sftdemo import EvaluateConfig, evaluate, runs, train
from sftdemo.cli.commands import table
from sftdemo.config import TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.evaluation.significance import holm
from sftdemo.log import TO_LOG
from sftdemo.systems import endpoint, spec
from sftdemo.systems.few_shot import _nearest, _spread
from sftdemo.systems.linear import Linear
from sftdemo.systems.system import Task
from sftdemo.verbs.evaluate import rescore
from tests.conftest import home_at, label_rows
from tests.listener import Listener

MANY = "majority, copy, linear, base+4, base+2:nearest"


class Service(BaseHTTPRequestHandler):
    """A small service of OpenAI's form: each model's name says how it behaves."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        tries = sum(text == each["messages"][-1]["content"] for each in self.asked)
        self.asked.append(body | {"authorization": self.headers.get("authorization")})
        if body["model"] == "down" or (body["model"] == "busy" and not tries):
            return self.reply(503 if body["model"] == "down" else 429, {"error": "later"})
        if body["model"] == "unknown":
            return self.reply(404, {"error": "no such model"})
        if body["model"] == "other":
            return self.reply(200, {"text": "hello"})
        if body["model"] == "nothing":
            return self.reply(200, {"choices": [{"message": None}]})
        if body["model"] == "parts":
            parts = [{"type": "text", "text": "go"}, {"type": "text", "text": "od"}]
            return self.reply(200, {"choices": [{"message": {"content": parts}, "finish_reason": "length"}]})
        answer = "good" if any(word in text for word in ("fine", "lovely", "bright")) else "bad"
        usage = {"prompt_tokens": 7, "completion_tokens": 1}
        self.reply(200, {"choices": [{"message": {"role": "assistant", "content": f" {answer} "}}], "usage": usage})

    def reply(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(endpoint, "PAUSE_S", 0.0)
    monkeypatch.setenv(endpoint.KEY, "secret-key")
    Service.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """A home with two runs: `r` on labels, `t` on texts."""
    path = tmp_path_factory.mktemp("systems")
    rows = label_rows(100)
    texts = [{"prompt": row["text"], "completion": row["label"] + " it was", "split": row["split"]} for row in rows]
    with home_at(path / "home"):
        for name, records in (("r", rows), ("t", texts)):
            file = path / f"{name}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in records))
            train(TrainConfig(data=str(file), model=tiny, name=name, epochs=2.0, learning_rate=3e-3))
    return path / "home"


@pytest.fixture
def home(trained: Path) -> Iterator[Path]:
    with home_at(trained):
        yield trained


def against(systems: str, run: str = "r") -> dict[str, Any]:
    return dict(evaluate(run, EvaluateConfig(against=systems)))


def test_every_system_answers_the_same_rows(home: Path) -> None:
    scores = against(MANY)
    systems = scores["systems"]
    assert list(systems) == [name.strip() for name in MANY.split(",")]
    assert systems["majority"]["scores"]["accuracy"] == scores["baselines"]["majority"]["accuracy"]
    assert systems["copy"]["scores"]["accuracy"] == 0
    assert systems["linear"]["scores"]["accuracy"] == 1.0, "one word decides"
    for name, system in systems.items():
        difference = system["difference"]["accuracy"]
        assert difference["delta"] == pytest.approx(scores["tuned"]["accuracy"] - system["scores"]["accuracy"])
        assert difference["low"] <= difference["delta"] <= difference["high"]
        assert f"too few rows to tell the tuned model from {name}" in system["summary"]["en"]
        assert system["ms_per_answer"] >= 0
    ps = {name: system["difference"]["accuracy"]["p"] for name, system in systems.items()}
    assert {name: system["difference"]["accuracy"]["p_holm"] for name, system in systems.items()} == holm(ps)
    assert systems["linear"]["training_seconds"] > 0 and systems["linear"]["bytes"] > 0
    shown = table(scores)  # type: ignore[arg-type]
    assert all(name in shown for name in systems) and systems["linear"]["summary"]["en"] in shown
    assert json.loads((home / "runs/r/evaluations" / scores["evaluation"] / "scores.json").read_text()) == scores


def test_answers_are_kept_and_scored_anew(home: Path) -> None:
    first = against("linear,base+3")
    again = against("linear,base+3")
    assert again["evaluation"] != first["evaluation"]
    for name, system in again["systems"].items():
        assert system["answers"] == first["systems"][name]["answers"], "nobody was asked twice"
    assert rescore("r", again["evaluation"])["systems"] == again["systems"]
    file = home / "runs/r/evaluations" / first["systems"]["base+3"]["answers"]
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["row"] for row in kept] == list(range(20))


def test_examples_change_what_the_base_says(home: Path) -> None:
    """It repeats the first adjective of a question; shown labels, the longest of conversations still end in an answer."""
    scores = against("base+4,base+4:nearest")
    plain = [row["base"] for row in runs.find("r").outputs(scores["evaluation"])]
    for system in scores["systems"].values():
        file = home / "runs/r/evaluations" / system["answers"]
        answers = [json.loads(line)["answer"] for line in file.read_text().splitlines()]
        assert len(answers) == 20 and answers != plain
    with pytest.raises(UserError, match=r"base\+60 makes a prompt of \d+ tokens"):
        against("base+60")


def test_another_run_and_a_file(home: Path, tmp_path: Path) -> None:
    rows = runs.find("r").outputs(against("majority")["evaluation"])
    file = tmp_path / "mine, too.jsonl"
    file.write_text("".join(json.dumps({"prediction": row["label"], "label": row["label"]}) + "\n" for row in rows))
    scores = against(f'run:t,"file:{file}"')
    assert list(scores["systems"]) == ["run:t", f"file:{file}"]
    assert scores["systems"][f"file:{file}"]["scores"]["accuracy"] == 1.0
    assert scores["systems"]["run:t"]["training_seconds"] > 0
    file.write_text(file.read_text().replace("good", "x").replace("bad", "good").replace("x", "bad"))
    with pytest.raises(UserError, match=r"prediction 1 is for .*, and row 1 of the evaluation for"):
        against(f'"file:{file}"')
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="has 1 predictions, and the evaluation has 20 rows"):
        against(f'"file:{file}"')


def test_an_endpoint(home: Path, service: str) -> None:
    scores = against(f"api:busy@{service}")
    [system] = scores["systems"].values()
    assert system["scores"]["accuracy"] > 0.5 and system["tokens"] == {"prompt_tokens": 140, "completion_tokens": 20}
    assert len(Service.asked) == 40, "each was refused once, and tried again"
    assert {asked["authorization"] for asked in Service.asked} == {"Bearer secret-key"}
    assert all(asked["temperature"] == 0 and asked["max_tokens"] >= 40 for asked in Service.asked)
    for file in (home / "runs/r").rglob("*"):
        assert not file.is_file() or b"secret-key" not in file.read_bytes(), file
    for model, problem in (
        ("down", "it answered 503"),
        ("unknown", "it answered 404"),
        ("other", "answers in another form than OpenAI's"),
        ("nothing", "answers in another form than OpenAI's"),
    ):
        before = len(runs.find("r").evaluations())
        with pytest.raises(UserError, match=problem):
            against(f"api:{model}@{service}")
        assert len(runs.find("r").evaluations()) == before + 1, "the evaluation itself is saved"
    listener = Listener()
    parts = evaluate("r", EvaluateConfig(against=f"api:parts@{service}"), reporter=listener)["systems"]
    assert next(iter(parts.values()))["scores"]["accuracy"] == 0.5
    assert any("end at the limit of" in note and ": 20;" in note for note in listener.notes)
    with pytest.raises(UserError, match="it can't be reached"):
        against("api:m@http://127.0.0.1:9/v1")


def test_a_run_that_has_seen_the_test_rows_is_no_rival(home: Path, tiny: str, tmp_path: Path) -> None:
    """Another seed splits the same file otherwise."""
    rows = [{key: row[key] for key in ("text", "label")} for row in label_rows(60, seed=3)]
    file = tmp_path / "c.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, seed in (("one", 1), ("two", 2)):
        train(TrainConfig(data=str(file), model=tiny, name=name, seed=seed, max_steps=1))
    with pytest.raises(UserError, match=r"Run two has learned from \d of these 6 test rows"):
        against("run:two", "one")


def test_examples_are_of_the_row_s_kind_and_never_the_row_itself() -> None:
    def example(text: str, answer: str, system: str) -> dict[str, Any]:
        turns = [("system", system), ("user", text), ("assistant", answer)]
        return {"messages": [{"role": role, "content": content} for role, content in turns], "meta": {"line": 1}}

    train = [example(f"{word} dog", word, "to French") for word in ("a", "b", "c")]
    train += [example("the cat", "die Katze", "to German"), example("the dog", "der Hund", "to German")]
    rows = [{"messages": example("The dog!", "", "to German")["messages"][:-1], "task": None}]
    task = Task(rows, train, [], {}, [], 40, 8, 1, None, TO_LOG)  # type: ignore[arg-type]
    for shown in (_nearest(task, 2), _spread(task, 2)):
        assert [[turn["messages"][1]["content"] for turn in examples] for examples in shown] == [["the cat"]]


def test_the_majority_is_that_of_the_data_before_balancing(home: Path, tiny: str, tmp_path: Path) -> None:
    rows = [row | {"label": "zebra" if at % 10 else "ant"} for at, row in enumerate(label_rows(100))]
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(TrainConfig(data=str(file), model=tiny, name="balanced", balance="over", max_steps=1))
    scores = against("majority", "balanced")
    assert (
        scores["systems"]["majority"]["scores"]["accuracy"] >= 0.8
        and scores["baselines"]["majority"]["answer"] == "zebra"
    )


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("api:m@http://[bad/v1", "names no endpoint"),
        ("linear\nmajority", "in one line"),
        ("lineal", "'lineal' is no system to compare with; there are: majority, copy, linear"),
        ("base+0", "shows 0 examples"),
        ("base+65", "ask for 1 to 64"),
        ("run:r", "can't be compared with itself"),
        ("run:nobody", "nobody"),
        ("file:/nowhere.jsonl", "There is no file /nowhere.jsonl"),
        ("api:gpt", "names no endpoint"),
        ("api:m@ftp://x/v1", "names no endpoint"),
        ("api:m@http://me:secret@x/v1", "has a password in it"),
    ],
)
def test_what_is_no_system_is_refused_before_anything_is_answered(home: Path, asked: str, problem: str) -> None:
    before = runs.find("r").evaluations()
    with pytest.raises(UserError, match=problem.replace("+", r"\+")):
        against(f"majority,{asked}")
    assert runs.find("r").evaluations() == before


def test_labels_are_needed_where_they_are(home: Path) -> None:
    for name in ("linear", "majority"):
        with pytest.raises(UserError, match=f"{name} needs rows with labels"):
            against(name, "t")
    assert against("copy", "t")["systems"]["copy"]["scores"]["chrf"] > 0
    assert isinstance(spec.parse(" linear , linear,", runs.find("r"))[0], Linear)
    assert len(spec.parse("linear,linear", runs.find("r"))) == 1 and spec.parse(None, runs.find("r")) == []
    with pytest.raises(UsageError):
        spec.parse("base", runs.find("r"))
