"""Runs beside each other on the page: curves told apart without colour, paired scores, settings, answers; nothing of HTML."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

pytest.importorskip("gradio")

import itertools

import gradio as gr

from sftdemo import files, runs
from sftdemo.errors import UserError
from sftdemo.runs import Run, voting
from sftdemo.runs.voting import Contest
from sftdemo.ui.access.allowance import HEAVY_QUEUES
from sftdemo.ui.parts import between, charts, line_chart
from sftdemo.ui.parts.line_chart import Line
from sftdemo.ui.parts.page import Page
from sftdemo.ui.report import of_run
from sftdemo.ui.report.document import document
from sftdemo.ui.tabs import run_comparison
from sftdemo.ui.tabs.chat_setup import joining
from sftdemo.ui.tabs.report import ReportButton
from sftdemo.ui.tabs.run_comparison import MOST_COMPARED, ROWS_SHOWN, ComparePanel
from sftdemo.verbs import compare_runs
from sftdemo.verbs.compare_runs import pair_of
from tests.test_compare_runs import evaluated, row
from tests.test_tabs import request


def trained(name: str, right: int, seed: int = 1, rows: int = 40) -> Run:
    """A run with 40 logged steps, two validations, and an evaluation that has `right` rows right."""
    run = evaluated(name, [row(k, right=k < right) for k in range(rows)], seed)
    run.write_status("finished")
    for step in range(1, 41):
        run.append_metrics({"step": step, "epoch": step / 40, "loss": 2 / step, "learning_rate": 1e-4})
    for step in (0, 40):
        run.append_metrics({"step": step, "epoch": 0.0, "eval_loss": 2 - step / 40})
    return run


def test_lines_are_told_apart_by_more_than_colour_and_none_is_the_grey_of_the_base() -> None:
    places = range(2 * line_chart.HUES)
    lines = [Line(f"run {place}", [(1, 2.0), (2, 1.0)], place, line_chart.letter(place)) for place in places]
    drawn = line_chart.line_chart("t", lines, "en")
    style = (Path(charts.__file__).parent / "style.css").read_text()
    looks = re.findall('<path class="(.*?)"', drawn)
    assert len(set(looks)) == len(lines) and not any("l0" in look for look in looks) and looks[0] == "l1"
    assert re.findall('<text class="letter t\\d" [^>]*>(.)<', drawn) == [line.letter for line in lines]
    for hue in range(1, line_chart.HUES + 1):
        assert f"path.l{hue} {{ stroke: var(--run{hue})" in style and style.count(f"--run{hue}: ") == 2
    heights = [float(y) for y in re.findall('<text class="letter[^>]* y="([^"]*)"', drawn)]
    assert all(after - before >= line_chart.LETTER_GAP for before, after in itertools.pairwise(heights))


def test_two_validations_are_no_line_and_every_band_tells_its_figures() -> None:
    def chart(points: list[tuple[float, float]]) -> str:
        return line_chart.line_chart("t", [Line("v", points, dots=True)], "en")

    two, three = chart([(0, 2.0), (9, 1.0)]), chart([(0, 2.0), (5, 1.5), (9, 1.0)])
    assert two.count("<circle") == 2 and "<path" not in two and three.count("<circle") == 3 and "<path" in three
    assert "step 9\nv: 1</title>" in two and chart([]) == "" and two.count('class="band"') == 2


def test_a_chart_is_saved_as_it_stands_and_its_figures_with_it() -> None:
    lines = [Line("=cmd <b>", [(1, 0.5), (2, 0.25)], 1, "B")]
    svg = line_chart.line_chart("t", lines, "en")
    links = line_chart.downloads(svg, "x", "loss", lines, "en")
    saved = [unquote(text) for text in re.findall('href="data:[^,]*,([^"]*)"', links)]
    drawn = ElementTree.fromstring(saved[0])
    assert drawn.tag.endswith("svg") and "var(" not in saved[0] and "#b45309" in saved[0]
    assert list(csv.reader(io.StringIO(saved[1].removeprefix("\ufeff")))) == [
        ["run", "step", "loss"], ["'=cmd <b>", "1", "0.5"], ["'=cmd <b>", "2", "0.25"],
    ]  # fmt: skip


def test_scores_are_paired_with_the_first_run() -> None:
    good, poor, bare = (
        trained("good", 38),
        trained("poor", 10, seed=2),
        runs.create("bare", "", {"settings": {"seed": 1}}),
    )
    runs.rename(good, "The <best>")
    drawn = run_comparison.scores([good, poor, bare], "en")
    assert "B (poor) is worse than A (The &lt;best&gt;)" in drawn and "<best>" not in drawn
    assert "-70.0" in drawn and "95.0\xa0%" in drawn and "40 of them shared" in drawn
    assert "<b>" in run_comparison.scores([poor, good], "zh") and "C" not in re.findall("<th>(.) ·", drawn)
    assert "evaluated" in run_comparison.scores([bare], "en")
    assert re.findall("<td>(.*?)</td>", run_comparison.settings([good, poor], "en"))[1:] == ["1", "2"]


def test_what_too_few_rows_or_other_questions_and_losses_cannot_tell_is_said() -> None:
    few, more = trained("few", 12, rows=12), trained("more", 0)
    drawn = run_comparison.scores([few, more], "en")
    assert "only 12 test rows in common" in drawn and not re.findall('class="(better|worse)"', drawn)
    drawn = run_comparison.scores([trained("good", 40), more], "en")
    assert 'class="worse"' in drawn and "comparison alone" not in drawn and "by chance" not in drawn
    third = trained("third", 20)
    scores = third.scores("E")
    files.write_json(third.path / "evaluations" / "E" / "scores.json", {**scores, "settings": {"max_new_tokens": 1}})
    drawn = run_comparison.scores([runs.find("good"), more, third], "en")
    assert "of 2, about one in twenty may look clear by chance" in drawn and "answers of other lengths" in drawn
    for run, task, sha in ((more, "chat", "a"), (third, "tokens", "b")):
        config = {"settings": {"task": task, "model": "m"}, "data": {"files": {"train": sha, "validation": "same"}}}
        files.write_json(run.path / "config.json", config)
    both = [more, third]
    assert len(between.losses_unlike(both, "loss", "en")) == 2
    assert "different rows" in run_comparison.curves(both, "loss", "en")
    assert "different kinds" in run_comparison.curves(both, "validation", "en")
    assert "different rows" not in run_comparison.curves(both, "validation", "en")
    assert between.losses_unlike(both, "learning_rate", "en") == []


def test_rows_left_out_are_told_beside_the_verdict() -> None:
    pair = {"first": "a", "second": "<b>", "n": 0, "left_out": 7, "leading": None, "difference": {}}
    said = between.sentence(pair, "en")
    assert said == "Only one of a and &lt;b&gt; has learned from 7 of the rows that both answered; these are left out."
    assert "7" in between.sentence(pair, "zh")


def test_a_value_is_called_as_in_its_menu() -> None:
    for lang, name in (("en", "full weights"), ("zh", "全参数")):
        assert run_comparison.shown_value("method", "full", lang) == name
        assert name in of_run.setting_value("method", "full", lang)
    assert run_comparison.shown_value("model", "full", "zh") == "full"


def test_answers_stand_side_by_side_with_marks() -> None:
    good, poor = trained("good", 40), trained("poor", 20)
    drawn, total = run_comparison.answers([good, poor], True, ROWS_SHOWN, "en")
    assert total == 20 and drawn.count("<tr>") == ROWS_SHOWN + 1 and drawn.count('class="wrong"') == ROWS_SHOWN
    assert run_comparison.answers([good, poor], False, 99, "en")[1] == 40
    same = trained("same", 40)
    assert "gave the same answers" in run_comparison.answers([good, same], True, 9, "en")[0]
    last, both = evaluated("last", [row(k, right=k == 30) for k in range(40)]), [good, poor]
    assert run_comparison.answers(both, True, 9, "en", "good")[1] == 20
    drawn, total = run_comparison.answers([*both, last], False, 99, "en", "good")
    assert total == 19 and "message 30" not in drawn, "the last run has that one right, too"
    assert run_comparison.answers([*both, last], False, 99, "en", "last")[1] == 0
    with pytest.raises(UserError, match="isn't among those compared"):
        run_comparison.answers(both, False, 99, "en", "last")
    other = evaluated("other", [row(k, right=True, asked=f"else {k}") for k in range(9)])
    assert run_comparison.answers([good, other], False, 9, "en")[1] == 0
    assert run_comparison.answers([good], False, 9, "zh")[1] == 0


def test_the_panel_draws_any_number_of_runs_and_refuses_more_than_there_are_letters() -> None:
    with gr.Blocks():
        panel = ComparePanel()
    names = [trained(f"run{number}", 5 * number, rows=30).name for number in range(5)]
    *_, first, last = panel.compare(names, "loss", True, request())
    assert first[panel.body]["visible"] and "no run" not in last[panel.measured] and last[panel.answers]
    assert len(set(re.findall('path class="(l[^"]*)"', first[panel.view]))) == 5
    for curve in (*run_comparison.CURVES, "nonsense"):
        assert "run4" in panel.draw_curves(names, curve, request())[panel.view]
    assert [value for _, value in first[panel.best]["choices"]] == ["", *names] and first[panel.best]["visible"]
    alone = panel.draw_answers(names[-2:], True, 99, request(), names[-1])[panel.answers]
    assert "message 15" in alone and "message 14" not in alone
    assert next(iter(panel.compare([], "loss", True, request())))[panel.body]["visible"] is False
    opened = panel.open_link(request(compare=f"{names[1]},gone,../x,{names[0]}"))
    assert opened[panel.runs]["value"] == [names[1], names[0]] and "value" not in panel.open_link(request())[panel.runs]
    with pytest.raises(UserError, match=f"at most {MOST_COMPARED}"):
        run_comparison.chosen_runs([str(number) for number in range(MOST_COMPARED + 1)])
    assert [run.name for run in run_comparison.chosen_runs([names[0], names[0]])] == [names[0]]


def test_a_rewritten_evaluation_is_paired_anew() -> None:
    first, second = trained("first", 30), trained("second", 30)
    assert pair_of(first, second)["difference"]["accuracy"]["delta"] == 0
    files.write_jsonl(second.path / "evaluations" / "E" / "outputs.jsonl", [row(k, right=False) for k in range(40)])
    assert pair_of(first, second)["difference"]["accuracy"]["delta"] == -0.75


def test_a_report_takes_the_pairs_that_the_page_has_drawn() -> None:
    pair = trained("one", 30), trained("two", 20)
    run_comparison.scores(pair, "en")
    misses = compare_runs._pair.cache_info().misses
    assert "two" in document(pair, "en") and compare_runs._pair.cache_info().misses == misses


def test_what_compares_stands_in_one_line_that_has_a_share_for_each_visitor() -> None:
    with gr.Blocks() as blocks:
        page = Page(blocks, run=gr.State(None), tabs=gr.Tabs(), language_switched=gr.Button().click)
        page.address, page.travelled, page.redraw_chat = (
            gr.Textbox(),
            gr.Button().click(lambda: None),
            lambda trigger: None,
        )
        ComparePanel().wire(page)
    queues = {fn.name: fn.concurrency_id for fn in blocks.fns.values() if fn.concurrency_id in HEAVY_QUEUES}
    assert queues == dict.fromkeys(("compare", "draw_answers", "more_answers"), "comparison") | {"make": "report"}


def test_a_report_is_bounded_before_any_run_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks():
        button = ReportButton("b")
    resolved: list[str] = []
    monkeypatch.setattr(runs, "named", lambda name, resolve=runs.named: (resolved.append(name), resolve(name))[1])
    with pytest.raises(UserError, match="500 runs are chosen; compare at most 8"):
        button.make([f"run{number}" for number in range(500)], request())
    name = trained("one", 30).name
    assert "one" in button.make([name] * 500, request())[button.text] and resolved == [name]


def test_a_comparison_goes_on_as_a_chat_and_as_votes_and_comes_back() -> None:
    first, second = trained("first", 30), trained("second", 10)
    with gr.Blocks():
        panel = ComparePanel()
    names = [first.name, second.name]
    begun = next(iter(panel.compare(names, "loss", True, request())))
    assert begun[panel.to_chat]["visible"] and begun[panel.to_vote]["visible"]
    alone = next(iter(panel.compare(names[:1], "loss", True, request())))
    assert not alone[panel.to_chat]["visible"] and not alone[panel.to_vote]["visible"]
    assert panel.vote(names) == "first"
    contest = Contest.parse(voting.open_contest(first))
    assert (contest.base_is, contest.tuned_is) == ("run:second", "tuned")
    with pytest.raises(UserError, match="two runs or more"):
        panel.vote(names[:1])
    search = "?tab=runs&compare=first,second"
    assert panel.travel([], search) == {panel.runs: names} and panel.travel(names, search) == {}
    assert panel.travel(names, "?tab=runs") == {panel.runs: []}
    assert joining("first", search, ["second"]) == ["second"] and joining("second", search, ["first"]) == []
    assert joining("first", search, ["run:second"]) == ["run:second"], "one of another base"
