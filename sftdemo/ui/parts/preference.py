"""What blind votes come to, in a sentence and a bar."""

from __future__ import annotations

from sftdemo.ui.parts import charts, html
from sftdemo.ui.texts import number, say
from sftdemo.votes import Totals
from sftdemo.votes.ranking import Ranked
from sftdemo.votes.results import Rate


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\xa0%"


def interval(rate: Rate | Ranked) -> str:
    """The ends in per cent."""
    return f"{100 * rate.low:.0f}–{100 * rate.high:.0f}\xa0%"


def verdict(totals: Totals, lang: str) -> str:
    """Whether there is evidence enough, or about how many more votes it takes, and whether there are rows for them."""
    if totals.needed == 0:
        side = "tuned" if (totals.win_rate or 0) > 0.5 else "base"
        return say(lang, f"votes_{side}", who=raters_counted(totals.raters, lang), e=f"{min(totals.e_value, 1e6):,.0f}")
    if totals.needed is None:
        return say(lang, "votes_even")
    remaining = max(totals.rows - totals.prompts, 0)
    more_needed = " " + say(lang, "votes_few_left", n=number(remaining)) if remaining < totals.needed else ""
    return say(lang, "votes_more", n=number(totals.needed)) + more_needed


def raters_counted(n: int, lang: str) -> str:
    """How many raters, in words."""
    return say(lang, "votes_rater") if n == 1 else say(lang, "votes_raters", n=number(n))


def caution(totals: Totals, lang: str) -> str:
    """What the claim leaves open: one person's taste, or votes of raters who knew the sides of earlier pairs."""
    notes = [say(lang, "votes_one_rater")] if totals.raters == 1 else []
    if totals.unblinded:
        notes.append(say(lang, "votes_unblinded", n=number(totals.unblinded), total=number(totals.n)))
    return "".join(say(lang, "space") + note for note in notes)


def headline(totals: Totals, lang: str) -> str:
    """The win rate with its interval, the verdict, and the bar."""
    if not totals.n:
        return html.empty(say(lang, "votes_empty"), say(lang, "votes_empty_text"))
    bar = charts.vote_bar(totals.tuned, totals.tie, totals.bad, totals.base, lang)
    if totals.win_rate is None or totals.low is None or totals.high is None:
        heading = f'<div class="big">{say(lang, "votes_undecided")}</div>'
    else:
        rate, low, high = (f"{100 * value:.0f}" for value in (totals.win_rate, totals.low, totals.high))
        who = raters_counted(totals.raters, lang)
        heading = f'<div class="big">{say(lang, "votes_rate", who=who, rate=rate, low=low, high=high)}</div>'
        heading += f'<p id="verdict-votes">{verdict(totals, lang)}{caution(totals, lang)}</p>'
    notes = say(lang, "votes_notes", n=number(totals.n), skip=totals.skip, same=totals.same)
    print_ = f'<p class="muted small"><br>{notes}<br>{say(lang, "votes_print")}</p>'
    return html.block(heading + bar + print_, "sheet")
