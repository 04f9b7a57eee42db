"""What people write about runs, and runs that are deleted and come back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.errors import UserError
from sftdemo.runs import Run, trash
from sftdemo.training import turns


@pytest.fixture
def run() -> Run:
    made = runs.create("tickets-lora-1128-140501", "", {"settings": {"data": "tickets"}})
    made.write_status("finished")
    return made


def test_a_run_is_renamed_and_its_folder_stays(run: Run) -> None:
    other = runs.create("other", "", {})
    assert runs.title(run) == run.name and runs.overview(run)["display_name"] is None
    runs.rename(run, "  Tickets \n 2 · 情感 👩‍💻 ")
    assert runs.title(run) == runs.overview(run)["display_name"] == "Tickets 2 · 情感 👩‍💻"
    assert run.path.is_dir() and runs.find("tickets 2 · 情感 👩‍💻") == run == runs.find(run.name)
    for taken in ("tickets 2 · 情感 👩‍💻", run.name.upper(), "Ｔickets 2 · 情感 👩‍💻"):
        with pytest.raises(UserError, match=f"Another run is called .*{run.name}"):
            runs.rename(other, taken)
    runs.rename(run, "tickets 2 · 情感 👩‍💻")  # its own in other letters
    for name in ("", run.name):
        runs.annotate(run, notes="kept")
        runs.rename(run, name)
        assert runs.title(run) == run.name and run.notes() == {"notes": "kept"}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 81, "has 81 characters; "),
        ("a\u202egnp.exe", "U\\+202E"),
        ("a\x00", "U\\+0000"),
        ("\ud800", "U\\+D800"),
    ],
)
def test_a_name_shows_as_what_it_is(run: Run, name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        runs.rename(run, name)
    with pytest.raises(UserError, match=problem):
        runs.annotate(run, tags=[name])
    assert not (run.path / "notes.json").exists()


def test_notes_and_tags_are_kept_within_limits(run: Run) -> None:
    runs.annotate(run, notes=" first\r\n<b>second</b> \u202bעברית\u202c ", tags=["A  b", " a b", "", "中文"])
    assert run.notes() == {"notes": "first\n<b>second</b> \u202bעברית\u202c", "tags": ["A b", "中文"]}
    runs.annotate(run, tags=[])
    assert list(run.notes()) == ["notes"]
    for refused in ({"notes": "x" * 4001}, {"notes": "\x1b[2J"}, {"tags": [str(n) for n in range(21)]}, {"tags": [7]}):
        with pytest.raises(UserError):
            runs.annotate(run, **refused)  # type: ignore[arg-type]
    assert list(run.notes()) == ["notes"]
    run.delete()
    with pytest.raises(UserError, match="deleted meanwhile"):
        runs.annotate(run, notes="late")


def test_a_display_name_that_two_runs_have_is_not_guessed(run: Run) -> None:
    other = runs.create("other", "", {})
    for each in (run, other):  # as after a restored one
        files.write_json(each.path / "notes.json", {"display_name": "Best"})
    with pytest.raises(UserError, match="2 runs are called 'best'"):
        runs.find("best")
    assert runs.find("other") == other


def test_a_damaged_note_is_told_and_the_run_keeps_its_name(run: Run) -> None:
    (run.path / "notes.json").write_text('{"display_name": 7}')
    assert runs.title(run) == run.name and "notes.json" in str(runs.overview(run)["error"])
    with pytest.raises(UserError, match=r"notes\.json is damaged"):
        runs.rename(run, "x")


def test_a_deleted_run_comes_back_whole(run: Run, home: Path) -> None:
    runs.rename(run, "Best")
    before = sorted(path.name for path in run.path.iterdir())
    entry = trash.discard(run)
    assert runs.list_runs() == [] and entry.to_json()["bytes"] == files.tree_bytes(entry.path) > 0
    assert [deleted.name for deleted in trash.trashed()] == [run.name] and entry.until > entry.when
    taken = runs.create(run.name, "", {})
    with pytest.raises(UserError, match="another run named"):
        trash.restore(entry)
    taken.delete()
    assert trash.restore(trash.find_deleted(run.name)) == run and runs.title(run) == "Best"
    assert sorted(path.name for path in run.path.iterdir()) == before and os.listdir(home / "trash") == []
    for absent in (lambda: trash.restore(entry), lambda: trash.find_deleted(run.name)):
        with pytest.raises(UserError, match="no deleted run"):
            absent()


def test_the_trash_is_emptied_in_time(run: Run, home: Path) -> None:
    entry = trash.discard(run)
    (home / "trash" / ".gone-1").mkdir()  # a killed process left it
    trash.sweep(entry.until - 1)
    assert [deleted.id for deleted in trash.trashed()] == [entry.id] == os.listdir(home / "trash")
    trash.sweep(entry.until + 1)
    assert os.listdir(home / "trash") == []


def test_a_run_that_trains_is_not_deleted_and_one_can_be_removed_for_good(run: Run, home: Path) -> None:
    run.write_status("running")
    with pytest.raises(UserError, match="still training"):
        trash.discard(run)
    run.write_status("finished")
    turns.join(run)
    with pytest.raises(UserError, match="waits for its turn"):
        trash.discard(run)
    turns.leave(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trash, "sweep", lambda: turns.join(run))  # taken up while old trash is cleared away
        with pytest.raises(UserError, match="waits for its turn"):
            trash.discard(run)
    turns.leave(run)
    trash.remove(trash.discard(run))
    assert os.listdir(home / "trash") == [] == runs.list_runs()


def test_the_commands(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def command(*words: str) -> dict[str, object]:
        assert main(["runs", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert command("rename", run.name, "Best one")["display_name"] == "Best one"
    assert command("note", "best one", "line\nline")["notes"] == "line\nline"
    assert command("tag", run.name, "a", "b")["tags"] == ["a", "b"]
    assert command("show", "Best one")["notes"] == {"display_name": "Best one", "notes": "line\nline", "tags": ["a", "b"]}  # fmt: skip
    deleted = command("delete", "Best one")
    assert deleted["deleted"] == [run.name] and command("restore")["restorable"] == deleted["restorable"]
    assert command("restore", run.name) == {"restored": [run.name]}
    assert command("delete", run.name, "--for-good")["restorable"] == [] == command("restore")["restorable"]
    elsewhere = tmp_path / "elsewhere" / "run"
    files.write_json(elsewhere / "config.json", {})
    assert command("delete", str(elsewhere))["restorable"] == [] and not elsewhere.exists()
    for wrong in (["rename", "x"], ["note"], ["list", "--for-good"]):
        assert main(["runs", *wrong]) in (1, 2)
