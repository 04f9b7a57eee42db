"""5 Vote, results: who is preferred and how surely, what the votes rest on, and the files to take away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.files import write_text
from sftdemo.ui import charts, html
from sftdemo.ui.ballot import link
from sftdemo.ui.evaluate_tab import exports, latest
from sftdemo.ui.forms import wire
from sftdemo.ui.page import EACH_PICK, Page, find_ready, picked, picker
from sftdemo.ui.texts import label, language, number, say
from sftdemo.votes import TYPED, Report, Store, Totals
from sftdemo.votes.results import Ranked, Rate

EXPORTS = {"csv": "csv", "jsonl": "jsonl", "dpo": "dpo.jsonl"}
SOURCES = ("rows", "typed", "all")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\xa0%"


def interval(rate: Rate | Ranked) -> str:
    return f"{100 * rate.low:.0f}–{100 * rate.high:.0f}\xa0%"


def verdict(totals: Totals, lang: str) -> str:
    """Whether there is evidence enough, or about how many more votes it takes, and whether there are rows for them."""
    if totals.needed == 0:
        side = "tuned" if (totals.win_rate or 0) > 0.5 else "base"
        return say(lang, f"votes_{side}", e=f"{min(totals.e_value, 1e6):,.0f}")
    if totals.needed is None:
        return say(lang, "votes_even")
    left = max(totals.rows - totals.prompts, 0)
    few = " " + say(lang, "votes_few_left", n=number(left)) if left < totals.needed else ""
    return say(lang, "votes_more", n=number(totals.needed)) + few


def headline(totals: Totals, lang: str) -> str:
    """The win rate with its interval, the verdict, and the bar."""
    if not totals.n:
        return html.empty(say(lang, "votes_empty"), say(lang, "votes_empty_text"))
    bar = charts.vote_bar(totals.tuned, totals.tie, totals.bad, totals.base, lang)
    if totals.win_rate is None or totals.low is None or totals.high is None:
        said = f'<div class="big">{say(lang, "votes_undecided")}</div>'
    else:
        rates = (f"{100 * value:.0f}" for value in (totals.win_rate, totals.low, totals.high))
        rate, low, high = rates
        said = f'<div class="big">{say(lang, "votes_rate", rate=rate, low=low, high=high)}</div>'
        said += f'<p id="verdict-votes">{verdict(totals, lang)}</p>'
    notes = say(lang, "votes_notes", n=number(totals.n), raters=totals.raters, skip=totals.skip, same=totals.same)
    print_ = f'<p class="muted small"><br>{notes}<br>{say(lang, "votes_print")}</p>'
    return html.block(said + bar + print_, "sheet")


def trust(report: Report, lang: str) -> str:
    """What the votes rest on: agreement between raters and with oneself, and any leaning to one place on the screen."""
    alpha = "–" if report.alpha is None else f"{report.alpha:.2f}"
    figures = html.figures(
        [
            (alpha, say(lang, "trust_alpha", n=number(report.shared))),
            (percent(report.again.rate), say(lang, "trust_again", k=report.again.k, n=report.again.n)),
            (percent(report.left.rate), say(lang, "trust_left", interval=interval(report.left))),
        ]
    )
    notes = []
    if report.left.n >= 10 and not report.left.low <= 0.5 <= report.left.high:
        notes.append(say(lang, "trust_leaning"))
    if report.alpha is not None and report.alpha < 0.667:
        notes.append(say(lang, "trust_low_alpha"))
    if report.changed:
        notes.append(say(lang, "trust_changed", n=report.changed))
    return html.sheet(figures + "".join(f"<p>{note}</p>" for note in notes), say(lang, "trust_title"))


def rater_name(name: str, lang: str) -> str:
    return say(lang, "rater_guest", name=name[6:10]) if name.startswith("guest-") else name


def raters(report: Report, lang: str) -> str:
    """A line a rater, with a button that leaves the rater out or takes the votes in again."""
    rows = []
    for one in report.by_rater:
        action = say(lang, "rater_include" if one.excluded else "rater_exclude")
        button = f'<button class="small-button" data-pick="{html.esc(one.name)}">{action}</button>'
        name = html.esc(html.cut(rater_name(one.name, lang), 24))
        name = f'<s class="muted">{name}</s>' if one.excluded else name
        again = f"{one.again.k}\xa0/\xa0{one.again.n}" if one.again.n else "–"
        rows.append(
            (None, [name, number(one.votes), percent(one.tuned.rate), percent(one.left.rate), again, button], False)
        )
    headers = [say(lang, f"rater_{name}") for name in ("name", "votes", "tuned", "left", "again")]
    return html.sheet(html.table([*headers, ""], rows), say(lang, "raters_title"))


def reasons(report: Report, lang: str) -> str:
    """Which reasons were given for whom, and the mean marks."""
    parts = []
    if report.tags:
        sides = ("base", "tuned")
        rows = [
            (None, [say(lang, f"tag_{tag}"), *(number(winners.get(side, 0)) for side in sides)], False)
            for tag, winners in report.tags.items()
        ]
        parts.append(html.table([say(lang, "reason_for"), *(say(lang, f"name_{side}") for side in sides)], rows))
    if report.scales:
        rows = [
            (
                None,
                [say(lang, f"scale_{scale}"), f"{mean['base']:.1f}", f"{mean['tuned']:.1f}", f"{mean['n']:.0f}"],
                False,
            )
            for scale, mean in report.scales.items()
        ]
        headers = [say(lang, key) for key in ("marks_title", "name_base", "name_tuned", "rater_votes")]
        parts.append(html.table(headers, rows))
    return html.sheet("".join(parts), say(lang, "reasons_title")) if parts else ""


def metric_agreement(report: Report, lang: str) -> str:
    """Which metric takes the same side as the people, how often, and how often it says nothing."""
    if not report.metrics:
        return ""
    found = sorted(report.metrics.items(), key=lambda item: (item[0] == "longer", -(item[1][0].rate or 0)))
    rows = []
    for name, (rate, silent) in found:
        shown = say(lang, "metric_longer" if name == "longer" else f"metric_{name}")
        rows.append(
            (
                None,
                [shown, f"<b>{percent(rate.rate)}</b>", interval(rate), f"{rate.k}\xa0/\xa0{rate.n}", number(silent)],
                False,
            )
        )
    headers = [say(lang, f"agree_{name}") for name in ("metric", "rate", "interval", "rows", "silent")]
    note = f'<p class="muted small">{say(lang, "agree_note")}</p>'
    return html.sheet(note + html.table(headers, rows), say(lang, "agree_title"))


def ranking(places: Sequence[Ranked], chosen: str, lang: str) -> str:
    """All models that met through one base, the strongest first."""
    if not places:
        return ""
    rows = []
    for one in places:
        kind = "base" if one.is_base else "tuned" if one.name == chosen else "plain"
        against = "–" if one.is_base else f"<b>{percent(one.rate)}</b>"
        cells = [str(one.rank), html.chip(html.cut(one.name, 34), kind), against, "" if one.is_base else interval(one)]
        rows.append((None, [*cells, number(one.votes)], False))
    headers = [say(lang, f"rank_{name}") for name in ("place", "model", "rate", "interval", "votes")]
    note = f'<p class="muted small">{say(lang, "rank_note")}</p>'
    return html.sheet(note + html.table(headers, rows), say(lang, "rank_title"))


def build(page: Page, tab: Any) -> None:
    """The sub-page's components and how they are connected."""
    fault = gr.HTML("", elem_id="results-fault")
    source = gr.Radio(
        [(label(f"source_{name}"), name) for name in SOURCES],
        value="all",
        label=label("results_source"),
        show_label=False,
        container=False,
        elem_id="results-source",
    )
    head = gr.HTML("", elem_id="vote-results")
    with gr.Row(elem_classes="small-row"):
        files = {kind: gr.DownloadButton(label(f"export_{kind}"), size="sm", visible=False) for kind in EXPORTS}
    share = gr.HTML("", elem_id="vote-share")
    rank = gr.HTML("", elem_id="vote-ranking")
    basis = gr.HTML("", elem_id="vote-trust")
    why = gr.HTML("", elem_id="vote-reasons")
    agree = gr.HTML("", elem_id="vote-metrics")
    people = picker(elem_id="vote-raters")
    views = [head, *files.values(), share, rank, basis, why, agree, people]

    def evaluation(run: runs.Run, chosen: str) -> str | None:
        return {"typed": TYPED, "rows": latest(run) or TYPED}.get(chosen)

    def download(store: Store, run: runs.Run, kind: str, chosen: str | None) -> str:
        text = store.export(run, kind, chosen)
        path = exports() / f"{run.name}-votes-{hashlib.sha256(text.encode()).hexdigest()[:8]}.{EXPORTS[kind]}"
        write_text(path, text)
        return str(path)

    def show(name: str, chosen: str, request: gr.Request) -> dict[Any, Any]:
        run, store, lang = find_ready(name), Store(), language(request)
        which = evaluation(run, chosen)
        report = store.report(run, which)
        found: dict[Any, Any] = {
            head: headline(report.totals, lang),
            share: link(run.name, lang),
            rank: ranking(store.ranking(run), run.name, lang),
        }
        for kind, button in files.items():
            value = download(store, run, kind, which) if report.totals.n else None
            found[button] = gr.update(visible=bool(value), value=value)
        if not report.by_rater:
            return found | dict.fromkeys((basis, why, agree, people), "")
        return found | {
            basis: trust(report, lang),
            why: reasons(report, lang),
            agree: metric_agreement(report, lang),
            people: raters(report, lang),
        }

    def exclude(name: str, chosen: str, request: gr.Request, event: gr.EventData) -> dict[Any, Any]:
        run, rater, store = find_ready(name), picked(event), Store()
        out = next((one.excluded for one in store.report(run).by_rater if one.name == rater), False)
        store.exclude(run, rater, not out)
        return show(name, chosen, request)

    wire(tab.select, show, [page.run, source], views, fault)
    wire(source.change, show, [page.run, source], views, fault)
    wire(people.select, exclude, [page.run, source], views, fault, **EACH_PICK)
