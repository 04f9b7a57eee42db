"""What visitors aren't told: paths on the server, others' names; and that texts from outside are drawn as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo import files, runs
from sftdemo.config import EvaluateConfig
from sftdemo.config.export import ExportConfig
from sftdemo.config.read import ReadConfig
from sftdemo.errors import Text, UserError
from sftdemo.runs import Run, notes, starter
from sftdemo.ui import api, work
from sftdemo.ui.access import private, rights, sources, uploads
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.parts import forms, html
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import chat_store, evaluate, run_comparison, shared_chat, vote_results
from sftdemo.ui.tabs.conversation import Answer, Conversation, Talk, Turn, talks_with
from sftdemo.ui.tabs.kept_chats import KeptChats
from sftdemo.votes.ranking import Ranked
from tests.test_tabs import request
from tests.test_ui import made_run

VISITOR = rights.Visitor("visitor", "v")


@pytest.fixture
def as_visitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rights, "current", lambda: VISITOR)
    yield


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("There is no file /home/ann/private/list.csv; give one.", "There is no file list.csv; give one."),
        ("'/home/ann b/my list.csv' is empty", "'my list.csv' is empty"),
        ("~/secret/x.csv, line 3", "x.csv, line 3"),
        ("file:/home/ann/x.csv, data:~/b/y.csv file:///srv/z.csv", "file:x.csv, data:y.csv file://z.csv"),
        ("5 tokens/s and/or 3/4 of owner/name", "5 tokens/s and/or 3/4 of owner/name"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("There is no file /home/ann/my data/list of.csv; give a/b.", "There is no file list of.csv; give a/b."),
        ("~/Smith, Ann (old)/v. 2/x.csv: disk full", "x.csv: disk full"),
        ("/a b/x.csv and /c d/y.csv, file:/e f/z.csv", "x.csv and y.csv, file:z.csv"),
        ("没有文件/home/ann/我的 数据/表.csv，请给出 a/b。", "没有文件表.csv，请给出 a/b。"),
        ("~/a b/.cache/x y/run", "run"),
        ("</div> <b>x</b>", "</div> <b>x</b>"),
        ("/", "/"),
    ],
)
def test_a_path_is_its_last_name_to_visitors(text: str, public: str) -> None:
    assert private.without_paths(text) == public


@pytest.mark.parametrize(
    ("name", "value", "public"),
    [
        ("data", "/home/alice/my project/x.csv", "x.csv"),
        ("edits", "private/e.jsonl", "e.jsonl"),
        ("model", "/srv/my models/m", "m"),
        ("system", "as in /srv/a/b.txt", "as in b.txt"),
    ],
)
def test_runs_beside_each_other_tell_visitors_no_folders(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, public: str
) -> None:
    assert run_comparison.shown_value(name, value, "en") == value, "the owner's"
    monkeypatch.setattr(rights, "current", lambda: VISITOR)
    assert run_comparison.shown_value(name, value, "en") == public


def test_the_home_is_named_to_its_owner_alone(as_visitor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{runs.home()}/votes.sqlite: disk full"
    for said in (private.shown(text), html.fault(text), forms.explained(UserError("{text}", text=text))):
        assert str(runs.home()) not in said and "votes.sqlite" in said
    monkeypatch.setattr(rights, "current", lambda: rights.LOCAL)
    assert private.shown(text) == text


def test_the_list_of_runs_tells_no_paths(as_visitor: None) -> None:
    """A run that waits for its training has no more than its settings, and an upload's path in them."""
    runs.create("fresh", "", {"settings": {"data": f"{runs.home()}/tmp/0a1b/my data.csv", "model": "/srv/models/m"}})
    files.write_json(
        runs.named("fresh").path / "status.json", {"state": "failed", "error": f"{runs.home()}/tmp/x: gone"}
    )
    made_run("other")
    lines = api.list_runs()
    assert str(runs.home()) not in str(lines) and "/srv" not in str(lines)
    line = next(line for line in lines if line["name"] == "fresh")
    assert (line["data"], line["model"], line["sha256"]) == ("my data.csv", "m", None)


def test_nobody_is_told_where_an_upload_lies() -> None:
    runs.create("fresh", "", {"settings": {"data": f"{runs.home()}/tmp/0a1b/my data.csv * 2 + support_tickets"}})
    assert api.list_runs()[0]["data"] == "my data.csv * 2 + support_tickets"
    scores = {"outputs": "/a/b/outputs.jsonl", "settings": {"data": "/a/b.csv", "seed": 1}}
    assert evaluate.public_scores(scores) == {"outputs": "outputs.jsonl", "settings": {"data": "b.csv", "seed": 1}}


def test_an_unknown_run_is_told_without_others_names() -> None:
    made_run("others")
    with pytest.raises(UserError) as fault:
        runs.named("nowhere")
    assert "others" not in str(fault.value) and str(runs.home()) not in str(fault.value)
    with pytest.raises(UserError) as fault:
        runs.named("../" * 5000)
    assert len(str(fault.value)) < 300


@pytest.fixture
def hosted() -> Iterator[None]:
    rights.use(AppConfig(password="x"), "0.0.0.0")
    yield
    rights.use(AppConfig(), "127.0.0.1")


def test_a_visitor_sees_the_owners_runs_and_their_own(hosted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a visitor trains holds their rows, and the owner may keep a run to themselves: both are as if not there."""
    for name, starter_key in (("owners", ""), ("anns", "ann")):
        run = made_run(name)
        if starter_key:
            starter.note(run, starter_key, 5)
    made_run("student")
    sender = {"key": "ann"}
    monkeypatch.setattr(rights, "current", lambda: rights.Visitor("visitor", sender["key"]))

    def seen(key: str) -> set[str]:
        sender["key"] = key
        listed = {run["name"] for run in api.list_runs()}
        for name in ("owners", "anns", "student"):
            if name in listed:
                assert runs.named(name).name == name
            else:
                with pytest.raises(UserError, match="There is no run"):
                    runs.named(name)
        return listed

    assert seen("ann") == {"owners", "anns", "student"} and seen("bob") == {"owners", "student"}
    assert private.setting("teacher", "anns") == "…" and private.setting("teacher", "owners") == "owners"
    assert rights.called(Run(runs.home() / "runs" / "anns")) == "another run"
    monkeypatch.setattr(work, "_evaluation", SimpleNamespace(active=True, run=Run(runs.home() / "runs" / "anns")))
    with pytest.raises(UserError, match="An evaluation of another run is running"):
        work.start_export(Run(Path("x")), ExportConfig(), Path("x"))
    monkeypatch.setattr(work, "_evaluation", None)
    for name, is_seen in (("owners", False), ("anns", True)):
        runs.annotate(Run(runs.home() / "runs" / name), seen=is_seen)
    assert seen("bob") == {"anns", "student"} == seen("ann")
    for name, usual in (("owners", True), ("anns", False)):
        assert "visitors" not in runs.annotate(Run(runs.home() / "runs" / name), seen=usual)
    (runs.home() / "runs" / "owners" / "notes.json").write_text("{")
    assert seen("bob") == {"student"}, "what the owner wrote about it can't be read"
    monkeypatch.setattr(rights, "current", lambda: rights.Visitor("owner", "x"))
    assert {run.name for run in runs.list_runs()} == {"owners", "anns", "student"}


def test_visitors_without_cookies_at_one_address_share_nothing(hosted: None) -> None:
    """Their pages' sessions tell them apart; what has no session is told to its sender alone."""
    scope = {"type": "http", "method": "POST", "client": ("198.41.0.4", 1), "headers": [(b"host", b"192.168.1.5")]}
    ann, bob = (
        rights.visitor(SimpleNamespace(request=SimpleNamespace(scope=dict(scope)), session_hash=session))
        for session in ("a", "b")
    )
    assert ann.key != bob.key and not ann.browser and uploads.folder_of(ann) == uploads.folder_of(bob)
    run = made_run("anns")
    starter.note(run, ann.key, 5)
    rights.started("train anns", ann)
    assert rights.is_shown(run, ann) and rights.may_stop("train anns", ann)
    assert not rights.is_shown(run, bob) and not rights.may_stop("train anns", bob)
    upload = uploads.folder_of(ann) / "4f0c" / "rows.csv"
    files.write_text(upload, "text,label\n")
    assert uploads.is_own(str(upload), ann)
    for path in (upload.parent, upload.parents[1], upload.parents[1] / "x" / "..", upload.parents[2]):
        assert not uploads.is_own(str(path), bob), "a folder, as data, would be others' files, too"
        with pytest.raises(UserError, match="can't be chosen here"):
            sources.check(ReadConfig(data=str(path)), bob)
    conversation = Conversation([Turn("hi", answers={"": Answer("ho")})])
    for sender in (ann, bob):
        with pytest.raises(UserError, match="no cookies"):
            chat_store.keep(sender, "mine", ["anns"], conversation)
        assert chat_store.listed(sender) == []


def test_a_ranking_names_a_visitor_no_run_that_they_do_not_see(hosted: None, as_visitor: None) -> None:
    """As one that was voted on as another system of a run which they see, or one that is gone."""
    runs.annotate(made_run("secret"), seen=False)
    figures = {"is_base": False, "rank": 1, "rate": 0.5, "low": 0.4, "high": 0.6, "votes": 9}
    places = [
        Ranked(name, **figures, is_reference=name == "open") for name in (made_run("open").name, "secret", "gone")
    ]
    drawn = vote_results.ranking(places, "open", "en", owner=False)
    assert "open" in drawn and "secret" not in drawn and "gone" not in drawn and drawn.count("another run") == 2


def test_a_kept_chat_names_no_run_that_its_keeper_does_not_see(
    hosted: None, as_visitor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of a shared chat is drawn for nobody in particular, who would be told what the owner calls the run."""
    ann = rights.Visitor("visitor", "a" * 16, browser=True)
    monkeypatch.setattr(rights, "visitor", lambda _: ann)
    made_run("open")
    secret = made_run("secret")
    notes.write(secret, {"display_name": "Falcon"})
    runs.annotate(secret, seen=False)
    with gr.Blocks() as blocks:
        panel = KeptChats(Page(blocks, gr.State(None)), gr.State({}), gr.State([]))
    talks = talks_with({}, "open", Talk(Conversation([Turn("hi", answers={"open": Answer("ho")})])))
    beside = ["secret", "run:secret", "system:linear", "gone"]
    chosen = panel.keep_it(request(), "open", beside, talks, "mine")[panel.chosen]
    kept = chat_store.find(ann, chosen)
    assert kept.run_names == ["open", "system:linear"]
    assert "Falcon" not in shared_chat.drawn(kept, "en") and "secret" not in shared_chat.drawn(kept, "en")


def test_visitors_are_told_no_more_of_others_evaluations_than_how_far_they_are(
    hosted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes and faults name other runs; the run itself may be hidden, too."""
    run = made_run("open")
    runs.rename(made_run("secret"), "Falcon")
    current = work.Evaluation(run, EvaluateConfig(), 9, read=9, done=3)
    current.note, current.error = Text("Asking run secret."), "Run secret is gone."

    def told(sender: rights.Visitor) -> tuple[str, str]:
        monkeypatch.setattr(rights, "current", lambda: sender)
        return evaluate.progress(current, "en"), evaluate.fault_of(current)

    rights.started("evaluate open", rights.Visitor("visitor", "ann"))
    for sender in (rights.Visitor("owner", "x"), rights.Visitor("visitor", "ann")):
        shown, ended = told(sender)
        assert "Asking run secret." in shown and "Run secret is gone." in ended
    current.asking("run:secret")
    current.answered(0, 9)
    current.answered(3, 9)
    shown, _ = told(rights.Visitor("owner", "x"))
    assert "answering: Falcon" in shown and "3 / 9" in shown
    shown, ended = told(VISITOR)
    assert (
        "Falcon" not in shown
        and "3 / 9" in shown
        and "secret" not in shown
        and "another run" not in shown
        and ended == ""
    )
    runs.annotate(run, seen=False)
    shown, ended = told(VISITOR)
    assert "another run" in shown and "3 / 9" in shown and "secret" not in shown and ended == ""


def test_a_toast_is_text() -> None:
    def handler() -> None:
        raise UserError("There is no run {name!r}.", name="<img src=//host/x.png>&lt;")

    for run in (
        lambda: next(iter(forms.as_error(handler)() or ())),
        lambda: list(forms.shown_errors(handler, "place")()),
    ):
        with pytest.raises(gr.Error) as error:
            run()
        assert "<" not in error.value.message and "&lt;img" in error.value.message
