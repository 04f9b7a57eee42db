"""Other systems on the rows of an evaluation: what each answers, what is kept, how it is compared, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftdemo import EvaluateConfig, evaluate, files, runs, train
from sftdemo.cli.commands import table
from sftdemo.config import TrainConfig
from sftdemo.data.rehearsal import hashes
from sftdemo.errors import UsageError, UserError
from sftdemo.evaluation.significance import holm
from sftdemo.evaluation.system_answers import paired_rows, saved_texts
from sftdemo.evaluation.systems_table import Named
from sftdemo.inference import load_run
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.log import TO_LOG, Reporter
from sftdemo.systems import chat_completions, spec
from sftdemo.systems.linear import Linear
from sftdemo.systems.other_run import OtherRun
from sftdemo.verbs.evaluate import rescore
from sftdemo.verbs.other_systems import compared_to
from tests.chat_service import ChatService, serving
from tests.conftest import home_at, label_rows
from tests.listener import Listener

pytestmark = pytest.mark.slow

MANY = "majority, copy, linear, base+4, base+2:nearest"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(chat_completions, "PAUSE_S", 0.0)
    monkeypatch.setenv(chat_completions.KEY, "secret-key")
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Iterator[Path]:
    """A home with two runs: `r` on labels, `t` on texts."""
    path = tmp_path_factory.mktemp("systems")
    rows = label_rows(100)
    texts = [{"prompt": row["text"], "completion": row["label"] + " it was", "split": row["split"]} for row in rows]
    with home_at(path / "home"):
        for name, records in (("r", rows), ("t", texts)):
            file = path / f"{name}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in records))
            train(TrainConfig(data=str(file), model=tiny, name=name, epochs=2.0, learning_rate=3e-3))
    yield path / "home"
    loaded.cache_clear()


@pytest.fixture
def home(trained: Path) -> Iterator[Path]:
    with home_at(trained):
        yield trained


@cache
def loaded(path: Path) -> SideBySide:
    """A run's models, as the app keeps them from one evaluation to the next."""
    return load_run.load(runs.Run(path))


def against(systems: str, run: str = "r", reporter: Reporter = TO_LOG, **settings: Any) -> dict[str, Any]:
    config = EvaluateConfig(against=systems, **settings)
    return dict(evaluate(run, config, loaded(runs.find(run).path), reporter))


@pytest.fixture(scope="module")
def scores(trained: Path) -> dict[str, Any]:
    with home_at(trained):
        return against(MANY)


@pytest.fixture(scope="module")
def again(trained: Path, scores: dict[str, Any]) -> dict[str, Any]:
    """The same rows once more, each system compared with the linear one."""
    with home_at(trained):
        return against("linear,majority,base+4", to="linear")


def test_every_system_answers_the_same_rows(home: Path, scores: dict[str, Any]) -> None:
    systems = scores["systems"]
    assert list(systems) == [name.strip() for name in MANY.split(",")]
    assert systems["majority"]["scores"]["accuracy"] == scores["baselines"]["majority"]["accuracy"]
    assert systems["copy"]["scores"]["accuracy"] == 0
    assert systems["linear"]["scores"]["accuracy"] == 1.0, "one word decides"
    for name, system in systems.items():
        difference = system["difference"]["accuracy"]
        assert difference["delta"] == pytest.approx(scores["tuned"]["accuracy"] - system["scores"]["accuracy"])
        assert difference["low"] <= difference["delta"] <= difference["high"]
        assert f"20 rows are too few to tell the tuned model from {Named.of(name).en}: " in system["summary"]["en"]
        assert scores["intervals"][name]["accuracy"][0] <= system["scores"]["accuracy"]
        assert system["ms_per_answer"] >= 0
    ps = {name: system["difference"]["accuracy"]["p"] for name, system in systems.items()}
    adjusted = holm(ps | {"base": scores["difference"]["accuracy"]["p"]})
    assert all(system["difference"]["accuracy"]["p_holm"] == adjusted[name] for name, system in systems.items())
    assert systems["linear"]["training_seconds"] > 0 and systems["linear"]["bytes"] > 0
    assert scores["bytes"]["base"] == scores["bytes"]["tuned"] > 0, "LoRA counts as merged"
    shown = table(scores)  # type: ignore[arg-type]
    assert all(name in shown for name in systems) and systems["linear"]["summary"]["en"] in shown
    assert json.loads((home / "runs/r/evaluations" / scores["evaluation"] / "scores.json").read_text()) == scores


def test_every_other_is_measured_against_a_chosen_one(home: Path, again: dict[str, Any]) -> None:
    scores, others = again, ["base", "tuned", "majority", "base+4"]
    assert scores["to"]["system"] == "linear" and list(scores["to"]["difference"]) == others
    mine, theirs = (
        scores["to"]["difference"]["tuned"]["accuracy"],
        scores["systems"]["linear"]["difference"]["accuracy"],
    )
    assert mine["delta"] == -theirs["delta"] and mine["p"] == theirs["p"]
    assert scores["to"]["summary"]["base"]["en"].startswith(
        "20 rows are too few to tell the linear model from the base: +"
    )
    assert "linear − it" in table(scores) and rescore("r", scores["evaluation"])["to"] == scores["to"]  # type: ignore[arg-type]
    run, name = runs.find("r"), scores["evaluation"]
    same = compared_to(run, name, "tuned", "accuracy")
    assert same["difference"]["linear"]["accuracy"] == theirs, "as scores.json has it"
    with pytest.raises(UserError, match="choose one of the systems compared"):
        compared_to(run, name, "copy")


def test_rows_of_any_two_systems(home: Path, again: dict[str, Any]) -> None:
    run, name = runs.find("r"), again["evaluation"]
    rows, outputs = paired_rows(run, name, "linear", "tuned"), run.outputs(name)
    assert [row["tuned"] for row in rows] == [row["tuned"] for row in outputs]
    assert {row["base"] for row in rows} == {"good", "bad"} and "base_nll" not in rows[0] and "tuned_nll" in rows[0]
    assert paired_rows(run, name, "base", "tuned") == outputs
    with pytest.raises(UserError, match="'copy' has no answers to the rows of"):
        paired_rows(run, name, "copy", "tuned")


def test_answers_are_kept_and_scored_anew(home: Path, scores: dict[str, Any], again: dict[str, Any]) -> None:
    assert again["evaluation"] != scores["evaluation"]
    for name, system in again["systems"].items():
        assert system["answers"] == scores["systems"][name]["answers"], "nobody was asked twice"
    assert rescore("r", again["evaluation"])["systems"] == again["systems"]
    file = home / "runs/r/evaluations" / scores["systems"]["base+4"]["answers"]
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["row"] for row in kept] == list(range(20))


def test_examples_change_what_the_base_says(home: Path, scores: dict[str, Any]) -> None:
    """It repeats the first adjective of a question; shown labels, the longest of conversations still end in an answer."""
    plain = [row["base"] for row in runs.find("r").outputs(scores["evaluation"])]
    for name in ("base+4", "base+2:nearest"):
        file = home / "runs/r/evaluations" / scores["systems"][name]["answers"]
        answers = [json.loads(line)["answer"] for line in file.read_text().splitlines()]
        assert len(answers) == 20 and answers != plain


def test_a_run_is_not_compared_on_rows_that_it_or_a_run_before_it_has_learned(
    home: Path, scores: dict[str, Any], tmp_path: Path
) -> None:
    rows = runs.find("r").outputs(scores["evaluation"])
    config: Any = runs.find("t").config()
    with home_at(tmp_path):
        other = runs.create("u", "", config)
        shutil.copytree(home / "runs/t/data", other.path / "data")
        task = SimpleNamespace(rows=rows, train=[], validation=[])
        learned = [{"messages": [*row["messages"], {"role": "assistant", "content": row["label"]}]} for row in rows]
        OtherRun(other).check(task)  # type: ignore[arg-type]
        files.write_jsonl(other.path / "data" / "rehearsal.jsonl", learned[:3])
        before = {"trained": hashes(learned[2:4]), "validation": hashes(learned[4:5]), "test": hashes(learned[5:])}  # type: ignore[arg-type]
        files.write_json(other.path / "data" / "ancestry.json", before)
        with pytest.raises(UserError, match="Run u has learned from 5 of these 20 test rows"):
            OtherRun(other).check(task)  # type: ignore[arg-type]
        task.train = learned[:4]  # what both have learned favours neither
        with pytest.raises(UserError, match="Run u has learned from 1 of these 20 test rows"):
            OtherRun(other).check(task)  # type: ignore[arg-type]


def test_another_run_and_a_file(home: Path, scores: dict[str, Any], tmp_path: Path) -> None:
    rows = runs.find("r").outputs(scores["evaluation"])
    file = tmp_path / "mine, too.jsonl"
    file.write_text("".join(json.dumps({"prediction": row["label"], "label": row["label"]}) + "\n" for row in rows))
    scores = against(f'run:t,"file:{file}"')
    assert list(scores["systems"]) == ["run:t", f"file:{file}"]
    assert scores["systems"][f"file:{file}"]["scores"]["accuracy"] == 1.0
    assert scores["systems"]["run:t"]["training_seconds"] > 0
    assert scores["systems"]["run:t"]["bytes"] == scores["bytes"]["tuned"], "of one base"
    file.write_text(file.read_text().replace("good", "x").replace("bad", "good").replace("x", "bad"))
    with pytest.raises(UserError, match=r"prediction 1 is for .*, and row 1 of the evaluation for"):
        against(f'"file:{file}"')
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="has 1 prediction, and the evaluation has 20 rows"):
        against(f'"file:{file}"')


def test_another_run_has_its_own_system_message(home: Path) -> None:
    shutil.copytree(home / "runs/t", home / "runs/u")
    other, system = runs.find("u"), "lovely lovely lovely"
    plain = OtherRun(other).identity()
    config: Any = other.config()
    files.write_json(other.path / "config.json", {**config, "settings": {**config["settings"], "system": system}})
    assert OtherRun(other).identity() != plain
    scores = against("run:u,run:t")
    texts = {name: saved_texts(runs.find("r"), scores["systems"][name]["answers"]) for name in ("run:u", "run:t")}
    assert texts["run:u"] != texts["run:t"], "one model"


def test_what_again_had_asked_before_a_fault_is_not_asked_once_more(home: Path, service: str) -> None:
    name = f"api:tired@{service}"
    ChatService.left = 20
    against(name)
    ChatService.asked, ChatService.left = [], 12
    with pytest.raises(UserError, match="it answered 404"):
        against(name, again=True)
    ChatService.asked, ChatService.left, listener = [], 20, Listener()
    against(name, reporter=listener, again=True)
    assert 8 <= len(ChatService.asked) <= 12, "four are under way at once"
    assert any("before it was interrupted it had answered" in note for note in listener.notes)


def test_an_endpoint(home: Path, service: str) -> None:
    scores = against(f"api:busy@{service}")
    [system] = scores["systems"].values()
    assert system["scores"]["accuracy"] > 0.5 and system["tokens"] == {"prompt_tokens": 140, "completion_tokens": 20}
    assert len(ChatService.asked) == 40, "each was refused once, and tried again"
    about = {"model": "busy-2026", "system_fingerprint": "fp_7", "created": "1700000000", "owned_by": "us"}
    assert system["about"] == about and "cost" not in system
    listener = Listener()
    priced = EvaluateConfig(against=f"api:busy@{service}", prices="10,100")
    [again] = evaluate("r", priced, reporter=listener)["systems"].values()
    assert len(ChatService.asked) == 40 and again["cost"] == pytest.approx(0.0034)
    assert any("answered these rows on 20" in note and "fp_7" in note for note in listener.notes)
    against(f"api:busy@{service}", again=True)
    assert len(ChatService.asked) == 60, "another model may stand there by now"
    assert {asked["authorization"] for asked in ChatService.asked} == {"Bearer secret-key"}
    assert all(asked["temperature"] == 0 and asked["max_tokens"] >= 40 for asked in ChatService.asked)
    for file in (home / "runs/r").rglob("*"):
        assert not file.is_file() or b"secret-key" not in file.read_bytes(), file
    for model, problem in (
        ("down", "it answered 503"),
        ("other", "answers in another form than OpenAI's"),
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
        ("api:m@http://x/v1?key=secret", "The address of m has something behind a"),
        ("api:m@http://x:99999/v1", "names no endpoint"),
        ("base+60", "base+60 makes a prompt of"),
    ],
)
def test_what_is_no_system_is_refused_before_anything_is_answered(home: Path, asked: str, problem: str) -> None:
    before = runs.find("r").evaluations()
    with pytest.raises(UserError, match=problem.replace("+", r"\+")):
        against(f"majority,{asked}")
    assert runs.find("r").evaluations() == before


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"to": "linear"}, "to is 'linear'; choose one of the systems compared: base, tuned, majority"),
        ({"prices": "1"}, "prices is '1'"),
        ({"prices": "-1,2"}, "prices is '-1,2'"),
        ({"prices": "nan,2"}, "prices is 'nan,2'"),
        ({"against": None, "again": True}, "about other systems"),
    ],
)
def test_what_is_asked_of_systems_is_checked_first(home: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        evaluate("r", EvaluateConfig(**{"against": "majority", **settings}))


def test_labels_are_needed_where_they_are(home: Path) -> None:
    for name in ("linear", "majority"):
        with pytest.raises(UserError, match=f"{name} needs rows with labels"):
            against(name, "t")
    assert against("copy", "t")["systems"]["copy"]["scores"]["chrf"] > 0
    assert isinstance(spec.parse(" linear , linear,", runs.find("r"))[0], Linear)
    assert len(spec.parse("linear,linear", runs.find("r"))) == 1 and spec.parse(None, runs.find("r")) == []
    with pytest.raises(UsageError):
        spec.parse("base", runs.find("r"))


def test_other_systems_answer_beside_a_run_in_chat(home: Path, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gr = pytest.importorskip("gradio")
    from sftdemo.ui.access import rights
    from sftdemo.ui.parts.page import Page, title_of
    from sftdemo.ui.tabs import chat_systems
    from sftdemo.ui.tabs.chat import ChatTab
    from sftdemo.ui.tabs.conversation import talk_with
    from tests.test_tabs import last, on_page, request

    api, question = f"api:busy@{service}", "This is a lovely day"
    against(api)
    with gr.Blocks() as blocks:
        chat = ChatTab(Page(blocks, run=gr.State(None), data=gr.State({}), tabs=gr.Tabs()), gr.Tab())
    offers = [value for _, value in chat.refresh("r", None, request())[chat.beside]["choices"]]
    assert {"t", "system:linear", "system:base+4", api} <= set(offers) and "system:linear" not in chat_systems.offered(
        runs.find("t"), [], True
    )

    def answers(*beside: str) -> dict[str, Any]:
        ended = last(chat.ask(request(), question, None, **on_page("r", beside=list(beside), max_new_tokens=8)))
        return talk_with(ended[chat.talks], "r").now.turns[-1].answers

    both = answers("system:linear", api)
    assert list(both) == ["", "r", "system:linear", api] and all(answer.finish_reason for answer in both.values())
    assert both["system:linear"].text in ("good", "bad") and both[api].text == "good"
    shots = answers("system:base+4", "t")
    assert shots["system:base+4"].text and shots["t"].text and shots["system:base+4"].tokens > 0
    assert chat_systems.beside_title(api, "en") == "127.0.0.1 · busy"
    wrong = "api:gone@http://127.0.0.1:1/v1"
    offered = chat_systems.offered
    with monkeypatch.context() as patched:
        patched.setattr(chat_systems, "offered", lambda *args: [*offered(*args), wrong])
        partly = answers(wrong, "system:linear")
    assert (partly[wrong].finish_reason, partly[wrong].text) == ("fault", "") and "doesn't answer" in partly[
        wrong
    ].fault
    assert partly["r"].text == both["r"].text and partly["system:linear"].text in ("good", "bad")
    config = runs.find("r").config()
    imported = {key: "" for key in ("source", "revision", "base", "at")} | {"kind": "run", "sha256": {}}
    files.write_json(runs.find("r").path / "config.json", {**config, "imported": imported})
    assert not [name for name in chat_systems.offered(runs.find("r"), [], True) if name.startswith("api:")]
    files.write_json(runs.find("r").path / "config.json", config)
    assert title_of(api) == "busy", "no address in what is drawn or shared"
    monkeypatch.setattr(rights, "current", lambda: rights.Visitor("visitor", "k"))
    assert api not in chat_systems.offered(runs.find("r"), [], False)
    for name in (api, "api:x@http://127.0.0.1:1/v1", "file:/etc/passwd", "run:r", "system:base+64"):
        with pytest.raises(UserError, match="can't answer beside r"):
            answers(name)
