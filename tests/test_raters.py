"""Which evaluation raters are asked about, and that a browser is one rater whom no other browser can pass for."""

from __future__ import annotations

import itertools
import os
import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.errors import Text, UserError
from sftdemo.runs import notes, voting
from sftdemo.ui import api
from sftdemo.ui.access import rights
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.tabs.ballot import rater_of
from sftdemo.votes import Store
from tests.in_process import owners_request
from tests.test_votes import EVALUATION, make_run


@pytest.fixture(autouse=True)
def policy() -> Any:
    yield
    rights.use(AppConfig(), "127.0.0.1")


def visitor(session: str) -> Any:
    """A script's request, which has a session and no cookie."""
    scope = {
        "type": "http",
        "method": "POST",
        "client": ("192.168.1.9", 1),
        "headers": [(b"host", b"192.168.1.5:7860")],
    }
    return SimpleNamespace(request=SimpleNamespace(scope=scope), session_hash=session)


def add(run: runs.Run, name: str, rows: int, age: float, **more: Any) -> None:
    folder = run.path / "evaluations" / name
    outputs = run.outputs(EVALUATION)
    files.write_jsonl(folder / "outputs.jsonl", [{**outputs[0], "row": row} for row in range(rows)])
    scores = {"n": rows, "base": {}, "tuned": {}, "difference": {}, **more}
    files.write_json(folder / "scores.json", scores)
    stamp = (run.path / "evaluations" / EVALUATION / "scores.json").stat().st_mtime + 10 - age
    os.utime(folder / "scores.json", (stamp, stamp))


def test_a_small_new_evaluation_takes_no_pairs_away() -> None:
    run = make_run(13)
    assert voting.open_evaluation(run) == EVALUATION
    add(run, "one-row", 1, 0)
    assert run.evaluations()[0] == "one-row" and voting.open_evaluation(run) == EVALUATION
    add(run, "by-visitor", 50, -1, by_visitor=True)
    assert voting.open_evaluation(run) == EVALUATION
    assert api.vote_next("words", "ann", visitor("a"))["total"] >= 13
    add(run, "large", 25, -2)
    assert voting.open_evaluation(run) == "large"
    add(run, "larger", 40, -3)
    add(run, "enough", 20, -4)
    assert voting.open_evaluation(run) == "enough"


def test_the_owner_opens_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(4)
    add(run, "new", 4, 0)
    assert voting.open_evaluation(run) == "new"
    assert main(["votes", "words", "--open", EVALUATION]) == 0
    assert voting.open_evaluation(run) == EVALUATION
    with pytest.raises(UserError, match="no evaluation 'other'"):
        voting.open_for_votes(run, "other")
    (run.path / "voting.json").write_text("[]", encoding="utf-8")
    assert voting.open_evaluation(run) == "new", "a damaged choice is none"
    files.write_json(run.path / "voting.json", {"evaluation": "gone"})
    assert voting.open_evaluation(run) == "new"


def test_a_browser_is_one_rater_whatever_names_it_gives() -> None:
    rights.use(AppConfig(), "0.0.0.0")
    run, store = make_run(6), Store()
    ann, other = visitor("a"), visitor("b")
    assert rater_of("ann", ann) != rater_of("ann", other), "the same name from two browsers is two raters"
    first = api.vote_next("words", "ann", ann)
    with pytest.raises(UserError, match="was not given"):
        store.vote(first["ballot"], "a", rater_of("ann", other))
    store.vote(first["ballot"], "a", rater_of("ann", ann))
    with pytest.raises(UserError, match="votes as 'ann' already"):
        rater_of("scout", ann)
    with pytest.raises(UserError, match="no vote to take back"):
        store.undo(rater_of("ann", other), run, EVALUATION)
    for number in range(5):
        api.vote_next("words", f"name{number}", other)
    with pytest.raises(UserError, match="has given 5 names"):
        api.vote_next("words", "name6", other)


def test_two_tabs_at_once_are_one_guest() -> None:
    """Each page makes up a name before the browser has kept one; a vote on either must not lock the other out."""
    rights.use(AppConfig(), "0.0.0.0")
    make_run(6)
    ann, bob = visitor("a"), visitor("b")
    first, second = (api.vote_next("words", f"guest-{tab}", ann) for tab in "12")
    assert first["ballot"] == second["ballot"]
    api.vote(first["ballot"], "a", "guest-1", ann)
    assert api.vote_next("words", "guest-2", ann)["position"] == 2 == api.vote_next("words", "guest-1", ann)["position"]
    assert rater_of("guest-1", bob) != rater_of("guest-1", ann)
    named = api.vote_next("words", "bob", bob)
    api.vote(named["ballot"], "a", "bob", bob)
    assert rater_of("guest-2", bob) == rater_of("bob", bob), "the tab that knows nothing of the name"


@pytest.mark.parametrize(
    ("name", "problem"), [("a\u202eb", "U\\+202E"), ("a\x00", "U\\+0000"), ("x" * 61, "61 characters")]
)
def test_a_raters_name_shows_as_what_it_is(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        rater_of(name, visitor("a"))


def test_a_name_of_megabytes_is_refused_before_its_usual_form_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character may become eighteen of them, and nobody is answered meanwhile."""
    made: list[int] = []
    normalize = unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", lambda form, text: (made.append(len(text)), normalize(form, text))[1])
    for name in ("\ufdfa" * 1_300_000, "@" + " " * 4_000_000):
        with pytest.raises(UserError, match="characters; 60 at most"):
            rater_of(name, visitor("a"))
        with pytest.raises(UserError, match="4000 at most"):
            notes.several_lines(name, Text("note"), notes.MOST_NOTES)
    assert made == []
    assert rater_of("  ann" + " " * 500, visitor("a")).startswith("ann"), "blanks are no part of a name"


def test_the_owner_votes_under_any_name() -> None:
    make_run(6)
    local = owners_request("s")
    assert [rater_of(name, local) for name in ("ann", "bob")] == ["ann", "bob"]


@pytest.mark.parametrize(
    "name", ["@alice", " @alice", "\u200b@alice", "＠alice", "\ufeff＠alice", "﹫alice", "\u2060@a"]
)
def test_no_guest_passes_for_an_account(name: str) -> None:
    with pytest.raises(UserError, match="is the name of an account"):
        rater_of(name, visitor("a"))


def test_what_one_rater_saw_says_nothing_of_anothers_sides() -> None:
    """Sides are drawn anew for each rater: the next one has them alike about half the time."""
    make_run(12)
    run, store = runs.named("words"), Store()

    def sides(rater: str) -> list[bool]:
        seen = []
        for _ in range(12):
            pair = store.next_pair(run, EVALUATION, rater)
            assert pair
            seen.append(store.vote(pair.ballot, "tie", rater).base_side == "a")
        return seen

    votes = [sides(f"r{number}") for number in range(8)]
    pairs = [pair for first, second in itertools.pairwise(votes) for pair in zip(first, second, strict=True)]
    alike = sum(mine == theirs for mine, theirs in pairs)
    assert 20 <= alike <= 64, "of 84; 42 by chance"
