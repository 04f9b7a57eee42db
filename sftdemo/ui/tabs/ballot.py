"""What a rater is shown before and after the vote, who the rater is, and answers made out of sight."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import regex

from sftdemo import runs
from sftdemo.config.generate import GenerateConfig
from sftdemo.encoding.detokenizer import without_empty_thoughts
from sftdemo.errors import Text, UserError
from sftdemo.runs import notes
from sftdemo.runs.voting import Contest
from sftdemo.ui import models
from sftdemo.ui.access import allowance, rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.answers import cut_chip
from sftdemo.ui.parts.systems import system_name
from sftdemo.ui.tabs.exchange import with_system
from sftdemo.ui.texts import say
from sftdemo.votes import WINNERS, OwnVote, Store

MOST_NAME = 60  # characters, as the page takes
GUEST = "guest-"  # the beginning of a name that nobody has typed
MOST_NAMES = 5  # that a browser may try before its first vote
# Spaces, controls and format characters, marks, and letters that are drawn as nothing.
UNSEEN = regex.compile(r"[\p{Z}\p{C}\p{M}\p{Default_Ignorable_Code_Point}\u2800]+")


def account(request: Any) -> str:
    """The visitor's account with an @ before it, by the app's own login or the Space's; "" for a guest."""
    name = getattr(request, "username", None) or rights.account(getattr(getattr(request, "request", None), "scope", {}))
    return f"@{name}" if name else ""


def rater_of(name: str, request: Any) -> str:
    """Who votes: the account where there is one, else the name given, which can't pass for an account.

    A name is judged as it is seen: without what isn't visible, and with the usual form of each character.
    """
    if user := account(request):
        return user
    visitor = rights.visitor(request)
    if not isinstance(name, str):
        raise UserError("The {what} must be text.", what=Text("rater's name"))
    notes.within_reach(name, Text("rater's name"), MOST_NAME)
    if UNSEEN.sub("", unicodedata.normalize("NFKC", name)).startswith("@"):
        raise UserError(
            "{name!r} is the name of an account; sign in to vote under it, or leave out the @.", name=name.strip()
        )
    name = notes.one_line(name, Text("rater's name"), MOST_NAME)
    return _of_session(name, visitor.key) if visitor.role == "visitor" else name


def _of_session(name: str, key: str) -> str:
    """The rater that a visitor's browser is: one, whatever the names it gives, and another than who gives the same name."""
    mark = f"#{key[:8]}"
    names, voted = Store().raters_marked(mark)
    if name.startswith(GUEST):  # two tabs that were opened at once have made up one each
        return voted or f"{GUEST}{key[:12]}{mark}"
    if voted and voted != name + mark:
        raise UserError("This browser votes as {name!r} already; a name is chosen once.", name=voted.removesuffix(mark))
    if not voted and name + mark not in names and len(names) >= MOST_NAMES:
        raise UserError("This browser has given {n} names; vote under one of them.", n=len(names))
    return name + mark if name else ""


def names_of(run: runs.Run, key: str, lang: str, owner: bool) -> dict[str, str]:
    """What the systems of a contest are called in the parts of "base" and "tuned"; where another one plays, a run by its own
    name to the owner alone."""
    contest = Contest.parse(key)
    names = {"base": contest.base_is, "tuned": contest.tuned_is}
    own = owner and any(name.startswith("run:") for name in names.values())
    return {
        part: runs.title(run) if own and name == "tuned" else system_name(name, lang, owner)
        for part, name in names.items()
    }


def cards(
    pair: Mapping[str, Any],
    hints: Mapping[str, Any],
    lang: str,
    revealed: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> str:
    """The prompt and the two answers, drawn alike, and how to vote where both are alike; with `revealed`, who was who."""
    names = names or {side: say(lang, f"name_{side}") for side in ("base", "tuned")}
    drawn = []
    for side in ("a", "b"):
        heading, css = f"<b>{side.upper()}</b>", "plain-side"
        if revealed:
            name = "base" if revealed["base_side"] == side else "tuned"
            heading, css = f"<b>{side.upper()}</b> {html.chip(html.cut_name(names[name], 34), name)}", f"{name}-side"
        text = (
            html.blank_lines(html.esc(pair[f"answer_{side}"]))
            or f'<span class="muted">{say(lang, "vote_no_answer")}</span>'
        )
        if hints.get(f"cut_{side}"):
            text += f"… {cut_chip(lang)}"
        drawn.append(f'<div class="answer {css}" tabindex="0"><span class="who">{heading}</span>{text}</div>')
    position = say(lang, "vote_place", n=pair["position"], total=pair["total"])
    share = html.track((pair["position"] - 1) / max(pair["total"], 1))
    both = hints.get("both") if not revealed else ""
    advice = f'<p class="small" id="vote-advice">{say(lang, f"vote_{both}")}</p>' if both else ""
    return html.block(
        f'<div class="workline muted small"><span class="num">{position}</span>{share}</div>'
        f'<div class="vote-asked" tabindex="0">{html.bubbles(pair["prompt"])}</div><div class="two">{"".join(drawn)}</div>{advice}'
    )


def at_the_end(votes: Sequence[OwnVote], left: int, lang: str, names: Mapping[str, str] | None = None) -> str:
    """Which model the rater chose how often, and vote by vote; `left` pairs aren't voted on yet. `names` are those of systems
    in the parts of base and tuned."""
    if not votes:
        return ""
    chosen = Counter(vote.revealed.winner for vote in votes)
    usual = names is None or names == {side: say(lang, f"name_{side}") for side in ("base", "tuned")}

    def count(winner: str) -> str:
        if usual or winner not in ("base", "tuned"):
            return say(lang, f"own_{winner}", n=chosen[winner])
        return say(lang, "own_system", name=html.esc(shown[winner]), n=chosen[winner])

    shown = names or {side: say(lang, f"name_{side}") for side in ("base", "tuned")}
    counts = " · ".join(count(winner) for winner in WINNERS if chosen[winner])
    rows = [
        (
            None,
            [
                html.esc(html.cut(html.last_paragraph(vote.prompt[-1]["content"]), 60)),
                vote.revealed.choice.upper() if vote.revealed.choice in ("a", "b") else "–",
                html.chip(html.cut_name(shown[vote.revealed.winner], 34), vote.revealed.winner)
                if vote.revealed.winner in ("base", "tuned")
                else say(lang, f"own_{vote.revealed.winner}_short"),
            ],
            False,
        )
        for vote in votes
    ]
    headers = [say(lang, f"own_{column}") for column in ("prompt", "choice", "model")]
    go_on = f"<p>{say(lang, 'own_left', n=left)}</p>" if left else ""
    heading = f'<div class="big" id="revealed">{say(lang, "own_title")}</div><p>{counts}</p>{go_on}'
    return html.block(heading + html.folded(say(lang, "own_each"), html.table(headers, rows)), "sheet")


def verdict(revealed: Mapping[str, Any], lang: str, names: Mapping[str, str] | None = None) -> str:
    """What the vote was for, said once it is stored; `names` are those of systems in the parts of base and tuned."""
    text = say(lang, "voted_" + revealed["winner"])
    usual = names is None or names == {side: say(lang, f"name_{side}") for side in ("base", "tuned")}
    if names and not usual and revealed["winner"] in names:
        text = say(lang, "voted_system", name=html.esc(names[revealed["winner"]]))
    return html.block(f'<div class="big" id="revealed">{text}</div>')


def public(pair: Any) -> dict[str, Any]:
    """What a rater may know of a pair; the reply when all are voted on is {"done": true}."""
    return {"done": False, **asdict(pair)} if pair else {"done": True}


async def answers(
    name: str, prompt: str, asker: tuple[str, str], stopped: Callable[[], bool]
) -> tuple[list[dict[str, str]], dict[str, str], dict[str, bool]]:
    """What was asked, both whole answers, greedy as in an evaluation, and by "base_cut" and "tuned_cut" which ended at the
    token limit; nothing of them is seen before both have ended."""
    served, system = await models.served(name), runs.named(name).system_message
    messages = with_system([{"role": "user", "content": prompt}], system)
    texts, cut = {"base": "", "tuned": ""}, {"base_cut": False, "tuned_cut": False}
    with allowance.answering(rights.current(), GenerateConfig(), len(texts)) as answered:
        async with aclosing(served.events(messages, GenerateConfig(), asker, stopped)) as events:
            async for event in events:
                if hasattr(event, "side"):
                    texts[event.side] += event.text
                    cut[f"{event.side}_cut"] |= event.finish_reason == "length"
        answered += texts.values()
    return messages, {side: without_empty_thoughts(text) for side, text in texts.items()}, cut
