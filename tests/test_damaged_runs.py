"""One damaged run folder breaks only itself: it is listed with the reason, everything else works, it can be deleted."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
import orjson

from sftdemo import files, runs
from sftdemo.__main__ import main
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.evaluation.system_answers import saved_texts
from sftdemo.model import validation
from sftdemo.runs import ancestry
from sftdemo.runs.folder import MOST_JSON
from sftdemo.ui import models, work
from sftdemo.ui.parts import charts, scores
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import chat_prompts, chat_setup, run_comparison, train, train_view
from sftdemo.ui.tabs import evaluate as evaluate_tab
from sftdemo.ui.tabs import outputs as outputs_tab
from sftdemo.ui.tabs.runs import RunsTab
from sftdemo.ui.tabs.runs_table import ORDERS
from sftdemo.votes import Store
from tests.in_process import owners_request
from tests.test_old_run import OLD

pytestmark = pytest.mark.slow

FILES = (
    "config.json", "status.json", "metrics.jsonl", "data/train.jsonl", "data/test.jsonl", "evaluations/E/scores.json",
    "evaluations/E/outputs.jsonl",
)  # fmt: skip
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", "x", "\u202e<b>", [], [[]], {}, {"x": []}, "9" * 300,
)  # fmt: skip


def request() -> SimpleNamespace:
    return owners_request("s")


@pytest.fixture
def bad(home: Path) -> runs.Run:
    """A run that will be damaged, beside a good one."""
    shutil.copytree(OLD / "runs" / "old", home / "runs" / "good")
    shutil.copytree(OLD / "runs" / "old", home / "runs" / "bad")
    (name,) = os.listdir(home / "runs" / "bad" / "evaluations")
    for run in ("good", "bad"):
        (home / "runs" / run / "evaluations" / name).rename(home / "runs" / run / "evaluations" / "E")
    return runs.named("bad")


@pytest.fixture(scope="module")
def tab() -> Iterator[RunsTab]:
    with gr.Blocks() as blocks:
        page = Page(blocks, run=gr.State(""), picked=gr.State(""), data=gr.State({}), timer=gr.Timer(60, active=False))
        with gr.Tabs() as page.tabs, gr.Tab("x") as place:
            yield RunsTab(page, place)


def looks(run: runs.Run) -> list[Callable[[], Any]]:
    """All that a page or a command reads of one run."""
    return [
        lambda: runs.details(run),
        lambda: runs.differences([run, runs.named("good")]),
        lambda: runs.same_base(run, runs.named("good")),
        lambda: train.live(run, "en"),
        lambda: evaluate_tab.held_out(run),
        lambda: chat_prompts.example_prompts(run),
        lambda: chat_setup.companions(run),
        *(
            lambda draw=draw: draw([run, runs.named("good")])
            for draw in (
                lambda both: run_comparison.curves(both, "loss", "zh"),
                lambda both: run_comparison.settings(both, "zh"),
                lambda both: run_comparison.scores(both, "zh"),
                lambda both: run_comparison.answers(both, False, 9, "zh"),
            )
        ),
        lambda: [charts.score_rows(run.scores(name), "en") for name in run.evaluations()],
        lambda: [scores.claim(run.scores(name), "en") for name in run.evaluations()],
        lambda: [scores.under_scores(run.scores(name), "en") for name in run.evaluations()],
        lambda: [scores.confusions(run.scores(name), "en") for name in run.evaluations()],
        lambda: [outputs_tab.load(run, name) for name in run.evaluations()],
        lambda: Store().report(run),
        lambda: [Store().next_pair(run, name, "ann") for name in run.evaluations()],
        lambda: [run.examples(split) for split in runs.SPLITS],
    ]


def check_all(tab: RunsTab, capsys: pytest.CaptureFixture[str], reason: bool | None = None) -> dict[str, Any]:
    """Everything that shows runs works, the good run as before; returns the bad one's line.

    `reason`: whether it must be listed as damaged; None: it may be.
    """
    lines = {line["name"]: line for line in map(runs.overview, runs.list_runs())}
    assert set(lines) == {"good", "bad"}
    orjson.dumps(lines)
    assert (lines["good"]["state"], lines["good"]["metric"] is not None) == ("finished", True)
    bad = lines["bad"]
    assert reason is None or (bad["state"] == "damaged") == reason, bad
    assert bad["state"] != "damaged" or (bad["error"] and str(runs.home()) not in bad["error"])
    assert work.running() == [] and models.newest_ready()
    train.measured_speed(TrainConfig(data="d"))
    assert set(chat_setup.companions(runs.named("good"))) <= {"bad"}
    Store().ranking(runs.named("good"))
    shown = tab.list_runs(request(), run_name="good")[tab.table]
    for order in ORDERS:
        assert "bad" in tab.list_runs(request(), order=order, search="a" if order == "size-up" else "")[tab.table]
    assert "good" in shown and "bad" in shown and shown.encode()
    picked = tab.pick(SimpleNamespace(value="bad"), request(), run_name="good")
    assert (bad["state"] == "damaged") == ("folder is damaged:" in picked[tab.info])
    for look in looks(runs.named("bad")):
        try:
            repr(look()).encode()
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 400
    assert main(["runs", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    return bad


def damage(path: Path, kind: str) -> None:
    text = path.read_bytes()
    path.unlink()
    if kind == "missing":
        return
    if kind == "a folder":
        path.mkdir()
        (path / "x").write_text("x")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a link to nowhere":
        path.symlink_to("nowhere")
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(3 * 2**30)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "half": text[: len(text.splitlines()[0]) // 2] if path.suffix == ".jsonl" else text[: len(text) // 2],
                "binary": b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 20 + b"\n",
                "utf-16": text.decode().encode("utf-16"),
                "a list": b"[1, 2]\n",
                "a number": b"7\n",
                "null": b"null\n",
                "a text": b'"\\ud83d"\n',
                "no keys": b"{}\n",
                "deep": b"[" * 100_000 + b"]" * 100_000 + b"\n",
                "a long number": b'{"step": ' + b"9" * 5000 + b"}\n",
            }[kind]
        )


HARMLESS = {("metrics.jsonl", kind) for kind in ("missing", "empty", "half")} | {
    ("evaluations/E/scores.json", "missing"),  # an evaluation that isn't whole, as one that was killed
    ("data/train.jsonl", "half"),
}
KINDS = (
    "missing", "a folder", "a pipe", "a device", "a link to nowhere", "a link to itself", "huge", "empty", "half", "binary",
    "utf-16", "a list", "a number", "null", "a text", "no keys", "deep", "a long number",
)  # fmt: skip


# One of each way to fail; the others are slow together.
FAST = ("missing", "a folder", "half", "binary", "a list", "no keys")


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file(bad: runs.Run, tab: RunsTab, capsys: pytest.CaptureFixture[str], file: str, kind: str) -> None:
    damage(bad.path / file, kind)
    line = check_all(
        tab, capsys, (file, kind) not in HARMLESS if (file, kind) != ("data/train.jsonl", "half") else None
    )
    if line["state"] == "damaged":
        assert file in line["error"]
    if kind in ("half", "a link to nowhere"):
        tab.delete_run(request(), focus="bad", run_name="good")
    else:
        assert main(["runs", "delete", "bad"]) == 0
    assert [run.name for run in runs.list_runs()] == ["good"] and os.listdir(bad.path.parent) == ["good"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a JSON value has values inside, the first item of each list."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    if new is ...:
        del inside[path[-1]]
    else:
        inside[path[-1]] = new
    return copy


@pytest.mark.parametrize("file", FILES)
def test_values_that_are_strange(bad: runs.Run, tab: RunsTab, capsys: pytest.CaptureFixture[str], file: str) -> None:
    """Any value in any place of any file: damaged or not, the page is there, and only UserErrors come."""
    path = bad.path / file
    draw = random.Random(file)
    text = path.read_text(encoding="utf-8")
    value = json.loads(text.splitlines()[0]) if path.suffix == ".jsonl" else json.loads(text)
    tried = [(place, new) for place in places(value) for new in (*STRANGE, ...)]
    for place, new in draw.sample(tried, min(len(tried), int(os.environ.get("MANY", 15)))):
        changed = replaced(value, place, new)
        path.write_text(json.dumps(changed) + "\n", encoding="utf-8")
        check_all(tab, capsys)


@pytest.mark.parametrize("kind", ["a pipe", "a link to itself", "a folder"])
def test_files_without_an_end_are_not_waited_for(bad: runs.Run, kind: str) -> None:
    """Beside those that the list of runs reads: a thread of the page would never come back."""
    model = bad.model_path
    reads: dict[Path, Callable[[], object]] = {
        bad.log_path: lambda: train_view.log_tail(bad),
        model / "adapter_config.json": lambda: validation.read_json(model / "adapter_config.json", 10**6, "bad"),
        model / "adapter_model.safetensors": lambda: validation.header(model / "adapter_model.safetensors"),
        bad.path / "data" / "ancestry.json": lambda: ancestry.read(bad),
    }
    for path, read in reads.items():
        path.touch()
        damage(path, kind)
        said: list[object] = []

        def look(read: Callable[[], object] = read, said: list[object] = said) -> None:
            try:
                said.append(read())
            except UserError as error:
                said.append(str(error))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(20)
        assert said and "\n" not in str(said[0]), path


@pytest.mark.parametrize(
    "value", [[], {"trained": "x", "validation": [], "test": []}, {"trained": []}, {"trained": [1]}]
)
def test_what_runs_before_were_trained_on_is_checked(bad: runs.Run, value: object) -> None:
    files.write_json(bad.path / ancestry.NAME, value)
    with pytest.raises(runs.DamagedRun, match=r"ancestry\.json is damaged"):
        ancestry.read(bad)


@pytest.mark.parametrize(
    "place",
    ["a\0b", "../../../etc/passwd", "/etc/passwd", "loop/x", "x" * 5000, "a list", "no answer", "a number", "E"],
)
def test_a_systems_answers_lie_in_the_run_and_are_texts(bad: runs.Run, place: str) -> None:
    folder = bad.path / "evaluations"
    (folder / "loop").symlink_to("loop")
    for name, row in {"a list": [1], "no answer": {"row": 0}, "a number": {"answer": 5}}.items():
        files.write_jsonl(folder / name, [row])
    with pytest.raises(UserError) as raised:
        saved_texts(bad, place)
    assert "\n" not in str(raised.value) and str(bad.path) not in str(raised.value)


def test_a_running_state_without_a_process_ends(bad: runs.Run) -> None:
    files.write_json(bad.path / "status.json", {"state": "running"})
    assert bad.status()["state"] == "failed" and runs.active() == []
    for pid in (-5, 0, 2**40):
        files.write_json(bad.path / "status.json", {"state": "running", "pid": pid})
        assert bad.status()["state"] == "failed" and runs.active() == []


@pytest.mark.parametrize("made", ["evaluations/.x.jsonl", "config.json/x", "checkpoints/1/x", "x"])
def test_what_is_left_of_a_run_is_listed_and_can_be_deleted(home: Path, made: str) -> None:
    path = home / "runs" / "left" / made
    path.parent.mkdir(parents=True)
    path.touch()
    (run,) = runs.list_runs()
    assert runs.overview(run)["state"] == "damaged" and "config.json" in runs.overview(run)["error"]
    with pytest.raises(UserError, match="named 'left' already"):
        runs.create("left", "", {})
    runs.named("left").delete()
    assert os.listdir(home / "runs") == []


def test_of_a_linked_run_the_link_is_deleted(home: Path, bad: runs.Run, tmp_path: Path) -> None:
    target = bad.path.rename(tmp_path / "target")
    bad.path.symlink_to(target)
    assert runs.overview(runs.named("bad"))["state"] == "finished"
    assert main(["runs", "delete", "bad"]) == 0
    assert (target / "config.json").is_file() and [run.name for run in runs.list_runs()] == ["good"]
    bad.path.symlink_to(tmp_path / "nowhere")
    assert runs.overview(runs.named("bad"))["state"] == "damaged"
    runs.named("bad").delete()
    assert not os.path.lexists(bad.path)


def test_a_run_that_is_a_link_to_itself_is_shown_and_deleted(
    home: Path, bad: runs.Run, tab: RunsTab, capsys: Any
) -> None:
    shutil.rmtree(bad.path)
    bad.path.symlink_to("bad")
    check_all(tab, capsys, True)
    assert main(["runs", "compare", "bad", "good"]) == 1
    assert main(["runs", "delete", "bad"]) == 0 and not os.path.lexists(bad.path)


def test_a_file_that_would_hold_the_page_up_is_not_read(bad: runs.Run, tab: RunsTab, capsys: Any) -> None:
    scores_ = bad.path / "evaluations" / "E" / "scores.json"
    measured = files.read_json(scores_)
    files.write_json(scores_, measured | {"labels": ["x" * 1000] * (MOST_JSON // 1000)})
    assert "has more than 33,554,432 bytes" in check_all(tab, capsys, True)["error"]


@pytest.mark.parametrize("place", ["", "model", "evaluations", "checkpoints", "data"])
def test_a_folder_that_may_not_be_looked_into(bad: runs.Run, tab: RunsTab, capsys: Any, place: str) -> None:
    """As one of another user, or out of an archive; the list was an error for everybody."""
    folder = bad.path / place
    folder.mkdir(exist_ok=True)
    folder.chmod(0)
    try:
        if os.access(folder, os.R_OK):
            pytest.skip("whoever runs this may read everything")
        line = check_all(tab, capsys, place != "checkpoints")
        assert place == "checkpoints" or (line["error"] and "Permission denied" in line["error"])
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("template", ["{a.b}", "{a!x}", "{", "{b}"])
def test_why_a_run_failed_is_its_text_where_the_template_does_not_fit(
    bad: runs.Run, tab: RunsTab, template: str
) -> None:
    status = files.read_json(bad.path / "status.json") | {"state": "failed", "error": "It broke."}
    files.write_json(bad.path / "status.json", status | {"error_key": template, "error_values": {"a": [1]}})
    assert "It broke." in tab.pick(SimpleNamespace(value="bad"), request(), run_name="good")[tab.info]


def test_a_setting_that_this_version_does_not_have_is_compared_by_its_key(bad: runs.Run) -> None:
    config = files.read_json(bad.path / "config.json")
    files.write_json(bad.path / "config.json", config | {"settings": config["settings"] | {"later_<b>": 5}})
    assert "later_&lt;b&gt;" in run_comparison.settings([bad, runs.named("good")], "zh")


def test_what_a_killed_delete_left_goes_with_the_next(home: Path, bad: runs.Run) -> None:
    (home / "runs" / ".deleted-1" / "model").mkdir(parents=True)
    bad.delete()
    assert os.listdir(home / "runs") == ["good"]


def test_names_made_by_hand(home: Path, bad: runs.Run) -> None:
    bad.path.rename(bad.path.with_name("bad (copy)"))
    os.mkdir(os.fsencode(home / "runs") + b"/\xff\xfe")
    assert {run.name for run in runs.list_runs()} == {"good", "bad (copy)"}
    runs.named("bad (copy)").delete()


def test_two_evaluations_in_one_second_have_two_names(bad: runs.Run) -> None:
    names = [bad.new_evaluation() for _ in range(5)]
    assert len(set(names)) == 5 and bad.evaluations() == ["E"]


def test_a_run_deleted_while_it_is_evaluated_leaves_nothing(home: Path, bad: runs.Run) -> None:
    from sftdemo.runs.partial import Partial
    from sftdemo.schema.evaluation import OutputRow

    partial = Partial(bad, bad.path / "evaluations" / ".x.jsonl", OutputRow)
    partial.add([{"row": 0}])
    bad.delete()
    for write in (lambda: partial.add([{"row": 1}]), bad.new_evaluation):
        with pytest.raises(UserError, match="deleted meanwhile"):
            write()
    assert os.listdir(home / "runs") == ["good"]


def test_a_row_that_a_kill_cut_inside_a_character_is_answered_again(bad: runs.Run) -> None:
    from sftdemo.runs.partial import Partial
    from sftdemo.schema.evaluation import AnswerRow

    partial = Partial(bad, bad.path / "evaluations" / ".x.jsonl", AnswerRow)
    partial.add([{"row": 0, "answer": "好"}])
    whole = partial.path.read_bytes()
    for cut in range(1, len("好好".encode()) + 4):
        partial.path.write_bytes(whole + '{"row": 1, "answer": "好好"}\n'.encode()[:-cut])
        assert set(partial.read()) <= {0, 1} and partial.read()[0]["answer"] == "好"


def test_a_name_is_limited_in_bytes(home: Path) -> None:
    with pytest.raises(UserError, match="has 300 bytes"):
        runs.create("情" * 100, "", {})
    assert runs.create(None, "情" * 100, {}).path.is_dir()
