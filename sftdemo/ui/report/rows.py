"""The answers of an evaluation, a few of each kind: what got worse first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sftdemo import runs
from sftdemo.data.types import turn_text
from sftdemo.encoding.thoughts import answer_of
from sftdemo.evaluation import outputs_table as outputs
from sftdemo.evaluation.outputs_table import Row
from sftdemo.ui.parts import answers, html
from sftdemo.ui.texts import number, say

KINDS = ("worse", "better", "both_wrong", "differ")
MOST_EACH = 8  # rows of a kind
MOST_SHOWN = 700  # characters of a text


class Answer(NamedTuple):
    """An answer in a judged row: whose it is, the side that it is on there, and how that one is coloured."""

    whose: str
    row: Row
    side: str
    kind: str


def by_kind(run: runs.Run, evaluation: str, leading: str, lang: str) -> str:
    """How many rows got better or worse, and some of each kind, with both answers."""
    judged, _ = answers.load(run, evaluation, leading)
    drawn = [answers.counted(outputs.outputs_page(judged), lang)]
    for kind in KINDS:
        rows = sorted((row for row in judged if row["mark"] == kind), key=lambda row: (-abs(row["gain"]), row["row"]))
        if not rows:
            continue
        named = f"report_{kind}" if "right" in rows[0] else f"filter_{kind}"
        count = say(lang, "report_of", k=number(min(len(rows), MOST_EACH)), n=number(len(rows)))
        drawn.append(f'<h3 class="kind">{say(lang, named)} <span class="muted small">{count}</span></h3>')
        for row in rows[:MOST_EACH]:
            sides = [Answer(say(lang, f"name_{side}"), row, side, side) for side in outputs.SIDES]
            drawn.append(example(row, sides, lang))
    return "".join(drawn)


def example(row: Row, by_model: Sequence[Answer], lang: str) -> str:
    """One question with its reference, and the answers of several models."""
    turns, before = row["messages"], say(lang, "report_earlier", n=len(row["messages"]) - 1)
    earlier = f' <span class="muted small">{before}</span>' if len(turns) > 1 else ""
    asked = html.esc(middle_cut(html.last_paragraph(turn_text(turns[-1]))))
    reference = middle_cut(row["references"][0]) if row["references"] else ""
    expected = say(lang, "report_expected", text=f"<b>{html.esc(reference)}</b>") if reference else ""
    cells = "".join(_drawn(answer, lang) for answer in by_model)
    columns = "two" if len(by_model) == 2 else "several"
    title = f'<span class="muted small">{say(lang, "row_title", n=row["row"] + 1)}</span>{earlier}'
    return html.block(
        f'{title}<div class="ask">{asked}</div><p>{expected}</p><div class="{columns}">{cells}</div>', "sheet example"
    )


def _drawn(answer: Answer, lang: str) -> str:
    text = answer_of(answer.row[answer.side])
    shown = html.esc(middle_cut(text)) if text.strip() else f'<span class="muted">{say(lang, "vote_no_answer")}</span>'
    who = f"{html.chip(answer.whose, answer.kind)} {answers.verdict(answer.row, answer.side, lang)}"
    slots = answers.slots_named(answer.row, answer.side, lang)
    return f'<div class="answer {answer.kind}-side"><span class="who">{who}</span>{shown}{slots}</div>'


def middle_cut(text: str, most: int = MOST_SHOWN) -> str:
    """The text without its middle where it is longer than `most`: questions often end with what is asked."""
    if len(text) <= most:
        return text.strip()
    end = most // 3
    return f"{text[: most - end].strip()} […] {text[-end:].strip()}"
