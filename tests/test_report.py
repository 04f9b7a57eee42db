"""The report: what is in it, that it is one file of plain HTML, and that it tells nothing of the machine or of other runs."""

from __future__ import annotations

import json
import re
import shlex
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import sftdemo
from sftdemo import files, runs
from sftdemo.__main__ import main, parser
from sftdemo.errors import Text, UserError
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.runs import Run
from sftdemo.system import compute
from sftdemo.ui.parts import scores as drawn
from sftdemo.ui.report.document import MOST_RUNS, document
from sftdemo.ui.report.rows import MOST_EACH
from sftdemo.ui.tabs.report import ReportButton
from sftdemo.ui.texts import TEXTS, say
from sftdemo.votes import Store
from tests.in_process import owners_request

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>${1}{{2}}</style><svg onload=alert(3)>'
LABELS = ("ham", "spam")
BY_ITSELF = {"html", "head", "meta", "title", "style", "body", "main", "section", "footer", "details", "summary", "svg"}
PLAIN = BY_ITSELF | {
    "h1",
    "h2",
    "h3",
    "p",
    "div",
    "span",
    "b",
    "i",
    "br",
    "pre",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
PLAIN |= {"line", "path", "text", "circle", "rect"}


class Tags(HTMLParser):
    """Which elements and attributes a browser makes of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def row(number: int, base: str, tuned: str, label: str = "ham", ask: str = "") -> dict[str, Any]:
    messages = [{"role": "user", "content": ask or f"message {number}"}]
    return {"row": number, "messages": messages, "references": [label], "label": label, "base": base, "tuned": tuned}


def evaluated(run: Run, rows: list[dict[str, Any]], labels: tuple[str, ...] = LABELS) -> Run:
    folder = run.path / "evaluations" / "E"
    files.write_jsonl(folder / "outputs.jsonl", rows)
    scores = score_outputs(rows, list(labels), 0)
    settings = {"max_examples": len(rows), "data": "/home/somebody/secret/other.csv"}
    files.write_json(
        folder / "scores.json", {**scores, "outputs": str(folder), "seconds": 1.0, "settings": settings, "left_out": 0}
    )
    return run


def trained(name: str, **settings: Any) -> Run:
    """A run's folder as training leaves it; its data and its base lay in somebody's own folders."""
    own = {
        "data": "/home/somebody/secret/mails.csv",
        "model": "/srv/models/tiny",
        "name": name,
        "epochs": 3.0,
        **settings,
    }
    data = {"name": "mails", "source": own["data"], "task": "classification", "sha256": "ab" * 32, "labels": {"ham": 9}}
    data |= {"sizes": {"train": 9, "test": 40}, "files": {"train": "cd" * 32}}
    config = {"settings": own, "data": data, "base_model": "/srv/models/tiny", "model_source": "local folder"}
    run = runs.create(name, "", {**config, "versions": {"torch": "2.13.0"}, "precision": "float32: as /etc/cpu says"})
    run.write_status("finished", steps=4, seconds=61.0, eval_loss=0.42, first_eval_loss=2.31)
    for step in range(1, 5):
        run.append_metrics({"step": step, "epoch": step / 4, "loss": 3.0 / step})
    return run


@pytest.mark.parametrize(("source", "told"), [(None, False), ("local folder", False), ("Hub", True)])
def test_of_a_model_that_is_no_hub_id_the_name_alone_is_told(tmp_path: Path, source: str | None, told: bool) -> None:
    """A folder may be given as one writes Hub ids; before the training nobody knows which it is."""
    for name in ("first", "second"):
        run = trained(name, model="secret-team/tiny")
        config = {**run.config(), "model_source": source}
        files.write_json(run.path / "config.json", {key: value for key, value in config.items() if value})
    text = sftdemo.report(["first", "second"], tmp_path / "both.html").read_text("utf-8")
    assert ("secret-team" in text) is told and "tiny" in text


def rows_of_each_kind() -> list[dict[str, Any]]:
    """20 won, 10 lost, 6 wrong on both sides, 4 right."""
    answers = [("spam", "ham")] * 20 + [("ham", "spam")] * 10 + [("hm", "spam")] * 6 + [("ham", "ham")] * 4
    return [row(number, *sides) for number, sides in enumerate(answers)]


def test_a_report_says_what_came_out_of_what_and_how(tmp_path: Path) -> None:
    run = evaluated(trained("mails"), rows_of_each_kind())
    path = sftdemo.report("mails", tmp_path / "mails.html")
    text = path.read_text("utf-8")
    scores = run.scores("E")
    for expected in (
        scores["summary"]["en"],
        "ab" * 32,
        "torch 2.13.0",
        "mails.csv",
        "2.31 → 0.42",
        "1\xa0min\xa01\xa0s",
    ):
        assert expected in text
    assert '<html lang="en">' in text and "<h1>mails</h1>" in text
    # What got worse stands first, and of each kind there are no more than so many.
    kinds = re.findall(r'<h3 class="kind">(.*?) <span[^>]*>(.*?)</span>', text)
    assert kinds == [
        (say("en", "report_worse"), f"{MOST_EACH} of 10"),
        (say("en", "report_better"), f"{MOST_EACH} of 20"),
        (say("en", "report_both_wrong"), "6 of 6"),
    ]
    assert text.count('class="s sheet example"') == 2 * MOST_EACH + 6
    # Settings that aren't the defaults come first, and the commands are ones.
    assert text.index("<th>Epochs</th>") < text.index(say("en", "report_defaults")) < text.index("<th>Batch size</th>")
    (commands,) = re.findall(r'<pre class="cmd">(.*?)</pre>', text, re.S)
    lines = [shlex.split(line)[3:] for line in commands.splitlines()]
    assert [line[0] for line in lines] == ["train", "evaluate", "report"]
    for line in lines:
        parser().parse_args(line)
    assert lines[0][1:3] == ["--data", "mails.csv"]


def test_a_report_in_chinese_has_no_english_of_ours() -> None:
    run = evaluated(trained("mails"), rows_of_each_kind())
    precision = compute.training_precision("float32")[1]
    files.write_json(run.path / "config.json", {**run.config(), "precision": precision})
    text = document([run], "zh")
    assert "float32：按设置" in text and precision not in text
    assert '<html lang="zh-CN">' in text and say("zh", "report_worse") in text
    english = {
        text for key, text in TEXTS["en"].items() if key.startswith("report_") and "{" not in text and len(text) > 9
    }
    assert not {phrase for phrase in english - set(TEXTS["zh"].values()) if f">{phrase}<" in text}


def hostile_run(home: Path) -> Run:
    other = f"{HOSTILE}b"
    run = trained("mails", instruction=f"{HOSTILE} {{text}}", system=HOSTILE, columns=f"text={HOSTILE}")
    rows = [
        row(k, HOSTILE, (HOSTILE, other)[k % 2], (HOSTILE, other)[k % 2], f"{HOSTILE}\n\n{HOSTILE}") for k in range(40)
    ]
    evaluated(run, rows, tuple(sorted((HOSTILE, other))))
    config = json.loads((run.path / "config.json").read_text("utf-8"))
    config["data"] |= {
        "task": HOSTILE,
        "labels": {HOSTILE: 3},
        "sha256": HOSTILE,
        "files": {"train": HOSTILE},
        "name": HOSTILE,
    }
    config |= {"versions": {HOSTILE: HOSTILE}, "precision": HOSTILE, "base_model": HOSTILE}
    config["settings"]["data"] = f"{HOSTILE}.csv"
    files.write_json(run.path / "config.json", config)
    scores = json.loads((run.path / "evaluations" / "E" / "scores.json").read_text("utf-8"))
    scores["signatures"] = {HOSTILE: HOSTILE}
    scores["summary"] = {"en": HOSTILE, "zh": HOSTILE}
    files.write_json(run.path / "evaluations" / "E" / "scores.json", scores)
    return run


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_whatever_a_run_holds_a_report_is_plain_html_that_asks_for_nothing(home: Path, lang: str) -> None:
    run = hostile_run(home)
    evaluated(trained("second", system=f"{HOSTILE}2"), list(run.outputs("E")), (HOSTILE, f"{HOSTILE}b"))
    for text in (document([run], lang), document([run, runs.named("second")], lang)):
        tags = Tags(text)
        assert tags.names <= PLAIN, tags.names - PLAIN
        assert not tags.attributes & {"src", "href", "srcset", "action", "data", "background", "poster", "xlink:href"}
        assert not [name for name in tags.attributes if name.startswith("on")]
        assert "default-src 'none'" in text and "script-src" not in text
        assert not re.search(r"://|@import|url\(", text), "nothing is fetched from anywhere"


def test_a_report_tells_nothing_of_the_machine_or_of_other_runs(home: Path) -> None:
    run = evaluated(trained("mails", edits="/home/somebody/my project/e.jsonl"), rows_of_each_kind())
    evaluated(trained("private-run"), rows_of_each_kind())
    against = 'linear, base+8:nearest,"file:/home/somebody/a b/x,y.csv",run:private-run,api:m@http://inside.example/v1'
    files.write_json(
        run.path / "evaluations" / "E" / "scores.json", run.scores("E") | {"settings": {"against": against}}
    )
    assert "--against linear,base+8:nearest" in document([run], "en")
    other = evaluated(
        trained("second", clean="html", system="as in /home/somebody/notes/system.txt"), rows_of_each_kind()
    )
    run.write_status("failed", error=Text("{path} can't be read.", path="/home/somebody/secret/x.bin"))
    for text in (document([run], "en"), document([run, other], "en")):
        for private in (
            str(home),
            str(Path.home()) + "/",
            "/home/",
            "/srv/",
            "/etc/",
            "somebody",
            socket.gethostname(),
            "private-run",
            "project/",
            "inside.example",
        ):
            assert private not in text, private


def test_a_report_of_many_long_rows_and_labels_stays_small(home: Path) -> None:
    labels = [f"label number {k} {'long ' * 50}" for k in range(200)]
    run = trained("mails")
    long = "word " * 2_000
    rows = [row(k, long, labels[k % 200] if k % 3 else long, labels[k % 200], long) for k in range(400)]
    few = score_outputs(rows_of_each_kind(), list(LABELS), 0)
    matrix = [[1] * 201 for _ in labels]
    scores = {**few, "labels": labels, "confusion": {"base": matrix, "tuned": matrix}, "outputs": ""}
    fields = {f"field {k}": {"f1": 0.5, "support": k} for k in range(5_000)}
    files.write_jsonl(run.path / "evaluations" / "E" / "outputs.jsonl", rows)
    files.write_json(
        run.path / "evaluations" / "E" / "scores.json", {**scores, "fields": {"base": fields, "tuned": fields}}
    )
    text = document([run], "en")
    assert len(text.encode()) < 400_000
    assert len(drawn.confusions(scores, "en")) < 100_000, "on the page, too"
    assert say("en", "report_many_labels", n=200) in text and "field 4999" in text and "field 12<" not in text


def test_a_run_without_an_evaluation_or_a_model_has_a_report_too() -> None:
    assert say("en", "report_unmeasured") in document([trained("mails")], "en")
    bare = runs.create("bare", "", {"settings": {"data": "support_tickets"}})
    text = document([bare], "en")
    assert "support_tickets" in text and say("en", "state_failed") in text
    assert "bare" in document([bare, trained("second")], "zh")


def test_votes_are_told_with_their_interval_and_how_many_raters(home: Path) -> None:
    run, store = evaluated(trained("mails"), rows_of_each_kind()), Store()
    assert say("en", "report_votes") not in document([run], "en")
    for rater in ("Anna Secret", "Ben"):
        for _ in range(6):
            pair = store.next_pair(run, "E", rater)
            assert pair
            store.vote(pair.ballot, "a", rater)
    text, totals = document([run], "en"), store.totals(run)
    assert (
        say("en", "report_votes") in text and say("en", "votes_raters", n=totals.raters) in text and "Anna" not in text
    )
    assert f"{100 * (totals.win_rate or 0):.0f}\xa0% of the decided votes" in text


def test_runs_compared_are_told_apart_in_words_by_pictures_and_by_their_answers(home: Path) -> None:
    first = evaluated(trained("first"), rows_of_each_kind())
    better = evaluated(trained("better", lora_r=64), [{**each, "tuned": "ham"} for each in rows_of_each_kind()])
    text = document([first, better, first], "en")
    assert "<b>better is better than first</b>" in text and text.count('<path class="l2 p1"') == 2  # and the key
    assert '<td><span class="ask">64</span></td>' in text and "16 tell them apart" in text
    assert "<b>better is worse than first</b>" not in text
    assert "<b>first is worse than better</b>" in document([better, first], "en")
    tied = document([first, evaluated(trained("again"), rows_of_each_kind())], "en")
    assert (
        "<b>No difference between first and again</b>" in tied
        and "95\xa0% interval" not in tied.split("No difference")[1][:200]
    )
    few = evaluated(trained("few"), rows_of_each_kind()[:5])
    other = evaluated(trained("other"), [row(k, "ham", "ham", ask=f"else {k}") for k in range(5)])
    text = document([few, other, first], "en")
    assert say("en", "between_none", first="few", second="other") in text
    assert say("en", "between_few", first="few", second="first", n=5, most=30) in text


@pytest.mark.parametrize(
    ("names", "to", "language", "expected"),
    [
        (["mails"], "report.txt", "en", "ends in .html"),
        (["mails"], "folder.html", "en", "ends in .html"),
        (["gone"], "report.html", "en", "'gone'"),
        (["mails"], "report.html", "fr", "en, zh"),
        ([f"run{k}" for k in range(MOST_RUNS + 1)], "report.html", "en", f"at most {MOST_RUNS}"),
        ([], "report.html", "en", "No run is chosen"),
    ],
)
def test_what_can_not_be_reported_is_said_in_a_line(
    tmp_path: Path, names: list[str], to: str, language: str, expected: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    for name in names:
        if name != "gone":
            trained(name)
    with pytest.raises(UserError, match=re.escape(expected)):
        sftdemo.report(names, tmp_path / to, language)
    assert not (tmp_path / "report.html").exists()


def test_the_command_writes_the_file_and_tells_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained("mails")
    to = tmp_path / "new folder" / "report.html"
    assert main(["report", "mails", "--to", str(to), "--language", "zh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(to)} and 'lang="zh-CN"' in to.read_text("utf-8")


def test_the_page_gives_the_report_in_its_own_language() -> None:
    import gradio as gr

    run, other = evaluated(trained("mails"), rows_of_each_kind()), trained("second")
    with gr.Blocks():
        button = ReportButton("report")
    asked = owners_request(lang="zh")
    made = button.make("mails", asked)  # type: ignore[arg-type]
    assert made == {button.name: "mails.html", button.text: document([run], "zh")}
    assert button.make(["mails", "second"], asked)[button.text] == document([run, other], "zh")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'gone'"):
        button.make("gone", asked)  # type: ignore[arg-type]
