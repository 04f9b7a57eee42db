"""A home as one file and back: what was in it is in it again, and nothing is half restored."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from pathlib import Path

import pytest

from sftdemo import runs
from sftdemo.__main__ import main
from sftdemo.errors import UserError
from sftdemo.verbs.backup import backup, restore
from sftdemo.votes import Store
from tests.test_votes import EVALUATION, make_run


@pytest.fixture
def other_home(tmp_path: Path) -> Path:
    return tmp_path / "other"


def cast_votes(store: Store, run: runs.Run, rater: str, most: int = 100) -> int:
    """Vote on the pairs that are left for this rater; returns how many votes were acknowledged."""
    for count in range(most):
        pair = store.next_pair(run, EVALUATION, rater)
        if pair is None:
            return count
        store.vote(pair.ballot, "a", rater)
    return most


def test_a_home_comes_back_as_it_was(home, other_home, tmp_path, monkeypatch, capsys):
    run = make_run(8, name="kept")
    store = Store()
    given = cast_votes(store, run, "ann")
    before = store.totals(run)
    (home / "models" / "base").mkdir(parents=True)
    (home / "models" / "base" / "model.safetensors").write_bytes(b"w" * 100)
    (home / "chats" / "owner").mkdir(parents=True)
    (home / "chats" / "owner" / "x.json").write_text("{}", encoding="utf-8")
    (home / "browsers.key").write_bytes(b"k" * 32)
    for left_out in ("kernels", "trash", "tmp"):
        (home / left_out / "x").mkdir(parents=True)
        (home / left_out / "x" / "y").write_text("z")
    assert main(["backup", str(tmp_path / "home.tar.gz"), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert (manifest["runs"], manifest["votes"]) == (1, given) and manifest["bytes"] > 0
    files = {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}

    monkeypatch.setenv("SFTDEMO_HOME", str(other_home))
    assert main(["restore", str(tmp_path / "home.tar.gz")]) == 0
    back = runs.find("kept")
    assert back.path.parent == other_home / "runs" and not (other_home / "models").exists()
    assert {
        str(path.relative_to(back.path)): path.read_bytes() for path in back.path.rglob("*") if path.is_file()
    } == files
    assert Store().totals(back) == before
    assert (other_home / "chats" / "owner" / "x.json").read_text(encoding="utf-8") == "{}"
    assert {path.name for path in other_home.iterdir()} == {"runs", "chats", "votes.sqlite", "browsers.key"}
    assert (other_home / "browsers.key").read_bytes() == b"k" * 32, "visitors are known again"


def test_models_come_along_when_asked(home, other_home, tmp_path, monkeypatch):
    make_run(2, name="kept")
    (home / "models" / "base").mkdir(parents=True)
    (home / "models" / "base" / "model.safetensors").write_bytes(b"w" * 100)
    backup(tmp_path / "home.tar.gz", models=True)
    monkeypatch.setenv("SFTDEMO_HOME", str(other_home))
    restore(tmp_path / "home.tar.gz")
    assert (other_home / "models" / "base" / "model.safetensors").read_bytes() == b"w" * 100


def test_every_vote_acknowledged_before_is_in_it(home, other_home, tmp_path, monkeypatch):
    """Raters go on meanwhile; what SQLite copies is one moment of the file."""
    run, done = make_run(60, name="busy"), threading.Event()
    acknowledged = cast_votes(Store(), run, "ann", 20)

    def go_on() -> None:
        store = Store()
        while cast_votes(store, run, "bob", 1) and not done.is_set():
            pass

    rater = threading.Thread(target=go_on)
    rater.start()
    manifest = backup(tmp_path / "home.tar.gz")
    done.set()
    rater.join()
    assert manifest["votes"] >= acknowledged
    monkeypatch.setenv("SFTDEMO_HOME", str(other_home))
    restore(tmp_path / "home.tar.gz")
    assert len(Store().export(runs.find("busy"), "jsonl").splitlines()) == manifest["votes"]


def test_a_home_that_has_something_is_left_alone(home, tmp_path):
    make_run(2, name="kept")
    backup(tmp_path / "home.tar.gz")
    with pytest.raises(UserError, match="already has runs"):
        restore(tmp_path / "home.tar.gz")
    with pytest.raises(UserError, match="exists; give a new file"):
        backup(tmp_path / "home.tar.gz")


def _archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


GOOD = json.dumps({"format": 1}).encode()


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"runs/x/config.json": b"{}"}, "is not a backup"),
        ({"backup.json": b"{"}, "can't be read"),
        ({"backup.json": b'{"format": 7}'}, "format 7"),
        ({"backup.json": GOOD, "../outside": b"x"}, "can't be read"),
        ({"backup.json": GOOD, "/tmp/outside": b"x", "runs/../../../outside": b"x"}, "can't be read"),
    ],
)
def test_what_is_no_backup_changes_nothing(home, tmp_path, members, problem):
    with pytest.raises(UserError, match=problem):
        restore(_archive(tmp_path / "home.tar.gz", members))
    assert not home.exists() or not list(home.iterdir())
    assert not (tmp_path / "outside").exists()


def test_a_cut_file_changes_nothing(home, other_home, tmp_path, monkeypatch):
    make_run(8, name="kept")
    backup(tmp_path / "home.tar.gz")
    whole = (tmp_path / "home.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setenv("SFTDEMO_HOME", str(other_home))
    with pytest.raises(UserError, match="can't be read"):
        restore(tmp_path / "cut.tar.gz")
    assert not list(other_home.iterdir())


def test_an_empty_home_has_nothing_to_back_up(home, tmp_path):
    with pytest.raises(UserError, match="no runs and no votes"):
        backup(tmp_path / "home.tar.gz")
