"""A conversation as it is drawn: each question once, all answers to it side by side. All that was written is text."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo import runs
from sftdemo.config.kinds import LABELLING
from sftdemo.encoding.thoughts import split_thoughts
from sftdemo.errors import UserError
from sftdemo.ui.parts import html
from sftdemo.ui.parts.answers import verdict
from sftdemo.ui.parts.page import title_of
from sftdemo.ui.tabs.conversation import BASE, Answer, Conversation, Turn
from sftdemo.ui.texts import say

MOST_COMPARED = 20_000  # characters of two answers whose words are compared
MARKED_TURNS = 8  # the latest; in those before, words aren't compared


@dataclass(frozen=True)
class View:
    """Who answers, in which language it is drawn, what is said of an answer that hasn't begun, and what can be done."""

    names: Sequence[str]
    lang: str
    notes: Mapping[str, str] = field(default_factory=dict)
    streaming: bool = False
    read_only: bool = False


def past_and_now(conversation: Conversation, view: View) -> tuple[str, str]:
    """The turns before the last one, which stay as they are while that is answered, and the last one."""
    turns = [turn_drawn(turn, number, conversation, view) for number, turn in enumerate(conversation.turns)]
    return "".join(turns[:-1]), "".join(turns[-1:])


def last_turn(conversation: Conversation, view: View) -> str:
    """The last turn alone, as it is while it is answered."""
    return turn_drawn(conversation.turns[-1], len(conversation.turns) - 1, conversation, view)


def turn_drawn(turn: Turn, number: int, conversation: Conversation, view: View) -> str:
    lang, is_last = view.lang, number == len(conversation.turns) - 1
    shown = [name for name in view.names if name in turn.answers]
    tools = "" if view.read_only or view.streaming else action("edit", number, say(lang, "chat_edit"))
    expected = (
        f'<span class="expected">{say(lang, "chat_expected")}{say(lang, "space")}<span class="strong">{html.esc(turn.expected)}</span></span>'
        if turn.expected
        else ""
    )
    unmarked = (view.streaming and is_last) or number < len(conversation.turns) - MARKED_TURNS
    texts = compared(turn, shown, unmarked or says_labels(shown))
    cells = "".join(answer_drawn(turn, number, name, texts[name], is_last, view) for name in shown)
    unanswered = "" if shown else f'<div class="muted small">{say(lang, "chat_unanswered")}</div>'
    return (
        f'<div class="s turn" data-turn="{number}"><div class="asks"><div class="says user">{html.esc(turn.text)}</div>'
        f'<div class="turn-tools small">{expected}{asked_drawn(turn, view)}{tools}</div></div>'
        f'<div class="answers n{len(shown)}">{cells}</div>{unanswered}</div>'
    )


def asked_drawn(turn: Turn, view: View) -> str:
    """What was asked, folded, where it is more than what was typed; once where all were asked the same."""
    by_question: dict[str, list[str]] = {}
    for name in view.names:
        if turn.question(name) != turn.text:
            by_question.setdefault(turn.question(name), []).append(name)
    everybody = len(by_question) == 1 and len(next(iter(by_question.values()))) == len(view.names)
    parts = "".join(
        ("" if everybody else f'<div class="strong">{html.esc(", ".join(title(name, view) for name in names))}</div>')
        + f'<div class="asked">{html.esc(question)}</div>'
        for question, names in by_question.items()
    )
    return html.folded(say(view.lang, "chat_asked"), parts) if parts else ""


def title(name: str, view: View) -> str:
    """What a column is called: its run, where there are several."""
    if name == BASE:
        return say(view.lang, "name_base")
    if len(view.names) <= 2:
        return say(view.lang, "name_tuned")
    names = [name, *(each for each in view.names if each not in (BASE, name))]
    return html.cut_names(list(map(title_of, names)), 28)[0]


def says_labels(names: Sequence[str]) -> bool:
    """Whether one of these is a run that labels texts: its marks of entities would be lost among those of differences, and
    each probability differs."""
    with contextlib.suppress(UserError):
        return any(runs.named(name).kind in LABELLING for name in names if name != BASE and ":" not in name)
    return False


def compared(turn: Turn, shown: Sequence[str], unmarked: bool) -> dict[str, str]:
    """The answers as HTML, thoughts aside; else with the words marked that the other doesn't have."""
    answers = {name: split_thoughts(turn.answers.get(name, Answer()).text)[1] for name in shown}
    texts = {name: html.esc(text) for name, text in answers.items()}
    if unmarked or BASE not in answers or not answers[BASE].strip():
        return texts
    for name in [name for name in shown if name != BASE and answers[name].strip()]:
        if len(answers[BASE]) + len(answers[name]) <= MOST_COMPARED:
            base, texts[name] = html.marked(answers[BASE], answers[name])
            texts[BASE] = base if len(shown) == 2 else texts[BASE]
    return texts


def answer_drawn(turn: Turn, number: int, name: str, text: str, is_last: bool, view: View) -> str:
    """One answer: who gave it, its thoughts folded, its text, and below it how long it took."""
    lang, kind = view.lang, "base" if name == BASE else "tuned"
    answer = turn.answers.get(name, Answer())
    ended = answer.finish_reason is not None
    marks: dict[str, Any] = {"right": {kind: answer.right}} if answer.right is not None else {}
    if answer.score is not None:
        marks = {"score": {kind: answer.score}}
    judged = verdict({**marks, f"{kind}_cut": ended and answer.finish_reason == "length"}, kind, lang)
    thoughts, answered = split_thoughts(answer.text)
    asked = f'<div class="asked">{html.esc(thoughts)}</div>'
    folded = html.folded(say(lang, "chat_thoughts"), asked, not ended and not answered)
    if not text and ended and answer.finish_reason not in ("stopped", "fault"):
        text = f'<span class="muted">{say(lang, "vote_no_answer")}</span>'
    tools = "" if view.read_only or view.streaming else answer_tools(number, name, is_last, lang)
    return (
        f'<div class="answer {kind}-side"><span class="who">{html.chip(title(name, view), kind)} {judged}</span>'
        f'{folded if thoughts else ""}<div class="text" tabindex="0">{html.blank_lines(text)}</div><div class="under muted small">'
        f'<span class="num">{figures(answer, view.notes.get(name, "") if is_last else "", lang)}</span>{tools}</div></div>'
    )


def answer_tools(number: int, name: str, is_last: bool, lang: str) -> str:
    copy = f'<button class="quiet" data-copy="{say(lang, "chat_copied")}" data-from=".text">{say(lang, "chat_copy")}</button>'
    return copy + (action("again", name, say(lang, "chat_again_one")) if is_last else "")


def figures(answer: Answer, note: str, lang: str) -> str:
    """Tokens and seconds; why the answer ended only where that needs a word."""
    parts = [note] if note else []
    if answer.tokens:
        parts.append(say(lang, "chat_tokens", n=answer.tokens))
        parts.append(say(lang, "chat_seconds", s=f"{answer.seconds:.1f}"))
    if answer.finish_reason == "stopped":
        parts.append(say(lang, "chat_stopped"))
    if answer.fault:
        parts.append(html.esc(answer.fault))
    return " · ".join(parts)


def action(what: str, which: object, text: str) -> str:
    """A button in the transcript; what is picked is "what:which"."""
    return f'<button class="quiet" data-pick="{html.esc(f"{what}:{which}")}">{html.esc(text)}</button>'
