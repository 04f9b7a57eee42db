"""Texts as HTML, and the page's charts."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from sftdemo.ui.parts import charts, html, line_chart


def test_text_from_outside_is_neither_html_nor_a_template() -> None:
    shown = html.esc("<img src=x> ${alert(1)} {{x}} `y`")
    assert not set("<>${}`") & set(shown.replace("&", ""))


def test_differences_of_writing_without_spaces_are_by_the_character() -> None:
    assert html.differences("ฉันชอบแมว", "ฉันชอบหมา") == (
        "ฉันชอบ<del>แ</del>ม<del>ว</del>",
        "ฉันชอบ<ins>ห</ins>ม<ins>า</ins>",
    )


def test_differences_mark_only_the_words_that_differ() -> None:
    assert html.differences("a red cat", "a blue cat") == ("a <del>red </del>cat", "a <ins>blue </ins>cat")
    assert html.differences("我爱猫", "我爱狗") == ("我爱<del>猫</del>", "我爱<ins>狗</ins>")
    assert html.marked("a red <del>", "a blue <del>") == (
        "a <mark>red </mark>&lt;del&gt;",
        "a <mark>blue </mark>&lt;del&gt;",
    )
    assert html.marked("not a word <b>", "delivery") == ("not a word &lt;b&gt;", "delivery"), "nothing in common"
    assert html.differences("same", "same") == ("same", "same")


@pytest.mark.parametrize(("lang", "word"), [("en", "tied"), ("zh", "持平")])
def test_bars_that_tie_have_a_word_for_their_interval_and_no_signs(lang: str, word: str) -> None:
    tie, gain = {"delta": 0.0, "low": 0.0, "high": 0.0}, {"delta": 0.1, "low": 0.0, "high": 0.2}
    scores = {"base": {"accuracy": 0.5}, "tuned": {"accuracy": 0.5}, "difference": {"accuracy": tie}}
    drawn = charts.score_rows(scores, lang)
    assert f'<div class="gain">0.0<span class="ci">{word}</span>' in drawn and '<span class="ci" ' not in drawn
    drawn = charts.score_rows({**scores, "tuned": {"accuracy": 0.6}, "difference": {"accuracy": gain}}, lang)
    assert '<div class="gain">+10.0<span class="ci">0.0 … +20.0</span>' in drawn and '<span class="ci" ' in drawn
    assert [charts.gained("accuracy", value) for value in (-0.0001, 0.0001, -0.01)] == ["0.0", "0.0", "-1.0"]


def test_curves_leave_out_what_is_no_number() -> None:
    made = charts.curve("r", [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.5, "eval_loss": 2.0}])
    assert (made.train, made.validation) == ([(2.0, 1.5)], [(2.0, 2.0)])


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    points = [(float(i), 1.0) for i in range(12_345)]
    thin = line_chart.thinned(points)
    assert len(thin) <= 402 and thin[0] == points[0] and thin[-1] == points[-1]
    assert line_chart.thinned([]) == []


def test_smoothing_has_no_pull_to_zero() -> None:
    assert charts.smoothed([(1, 2.0), (2, 2.0)]) == [(1, pytest.approx(2.0)), (2, pytest.approx(2.0))]


@pytest.mark.parametrize("high", [0.0, 0.004, 1.0, 3.7, 12_000.0])
def test_ticks_reach_the_highest_value(high: float) -> None:
    marks = line_chart.ticks(high)
    assert marks[0] == 0 and marks[-1] >= high and 2 <= len(marks) <= 7


def test_charts_draw_nothing_from_nothing() -> None:
    assert charts.loss_chart([charts.Curve("r")], "en") == "" and charts.histogram(None, "t") == ""


@pytest.mark.parametrize(
    ("limit", "drawn"), [(10, True), (14, True), (22, True), (24, True), (1000, False), (3, False)]
)
def test_the_limit_is_drawn_into_the_histogram(limit: int, drawn: bool) -> None:
    binned = {"low": 5, "width": 2, "counts": [3, 0, 4, 0, 0, 0, 0, 1], "limit": limit}
    shown = charts.histogram(binned, "t", "the limit")
    assert shown.count("<rect") == 8 and ('class="limit"' in shown) == drawn and "the limit" in shown
    assert shown.count('class="base"') == sum(start > limit for start in range(5, 21, 2)), (
        "bins beyond the limit are grey"
    )
    assert 'class="limit"' not in charts.histogram({**binned, "limit": None}, "t")
