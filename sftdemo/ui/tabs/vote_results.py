"""5 Vote, results: who is preferred and how surely, what the votes rest on, and the files to take away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.evaluation.system_answers import systems_of
from sftdemo.runs import voting
from sftdemo.runs.voting import Contest
from sftdemo.ui import downloads
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html, style
from sftdemo.ui.parts.forms import wire
from sftdemo.ui.parts.page import EACH_PICK, Page, find_ready, picked, picker, title_of
from sftdemo.ui.parts.preference import headline, interval, percent
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.parts.systems import system_name
from sftdemo.ui.tabs.ballot import GUEST, names_of
from sftdemo.ui.tabs.invitation import invitation
from sftdemo.ui.texts import label, language, number, say
from sftdemo.votes import TYPED, Report, Store
from sftdemo.votes.pairing import open_contest
from sftdemo.votes.ranking import Ranked

EXPORTS = {"csv": "csv", "jsonl": "jsonl", "dpo": "dpo.jsonl"}
SOURCES = ("rows", "typed", "all")


def trust(report: Report, lang: str, owner: bool = True) -> str:
    """What the votes rest on: agreement between raters and with oneself, any leaning to one place on the screen, and who knew
    the sides of earlier pairs; names are for the owner."""
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
    if report.totals.unblinded:
        who = unblinded_names(report, lang) if owner else say(lang, "trust_some_raters")
        notes.append(say(lang, "trust_unblinded", who=who, n=report.totals.unblinded, total=number(report.totals.n)))
    if report.changed:
        notes.append(say(lang, "trust_changed", n=report.changed))
    return html.sheet(figures + "".join(f"<p>{note}</p>" for note in notes), say(lang, "trust_title"))


def unblinded_names(report: Report, lang: str) -> str:
    """The raters who voted after they had been told sides, with how many of their votes came after that."""
    named = [
        say(lang, "trust_rater", name=html.esc(html.cut(rater_name(r.name, lang), 24)), n=r.unblinded, total=r.votes)
        for r in report.by_rater
        if r.unblinded and not r.excluded
    ]
    return say(lang, "trust_comma").join(named)


def rater_name(name: str, lang: str) -> str:
    return say(lang, "rater_guest", name=name[6:10]) if name.startswith(GUEST) else name


def raters(report: Report, lang: str) -> str:
    """A line a rater, with a button that leaves the rater out or takes the votes in again."""
    rows = []
    for rater in report.by_rater:
        action = say(lang, "rater_include" if rater.excluded else "rater_exclude")
        button = f'<button class="small-button" data-pick="{html.esc(rater.name)}">{action}</button>'
        name = html.esc(html.cut(rater_name(rater.name, lang), 24))
        name = f'<s class="muted">{name}</s>' if rater.excluded else name
        again = f"{rater.again.k}\xa0/\xa0{rater.again.n}" if rater.again.n else "–"
        rows.append(
            (
                None,
                [name, number(rater.votes), percent(rater.tuned.rate), percent(rater.left.rate), again, button],
                False,
            )
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
    by_agreement = sorted(report.metrics.items(), key=lambda item: (item[0] == "longer", -(item[1][0].rate or 0)))
    rows = []
    for name, (rate, silent) in by_agreement:
        title = say(lang, "metric_longer" if name == "longer" else f"metric_{name}")
        rows.append(
            (
                None,
                [title, f"<b>{percent(rate.rate)}</b>", interval(rate), f"{rate.k}\xa0/\xa0{rate.n}", number(silent)],
                False,
            )
        )
    headers = [say(lang, f"agree_{name}") for name in ("metric", "rate", "interval", "rows", "silent")]
    note = f'<p class="muted small">{say(lang, "agree_note")}</p>'
    return html.sheet(note + html.table(headers, rows), say(lang, "agree_title"))


def model_name(model: Ranked, lang: str, owner: bool) -> str:
    """What a ranked model is called; a run that a visitor doesn't see has no name to them."""
    if model.kind == "system":
        return system_name(model.name, lang, owner)
    if model.kind == "run" and not rights.sees(model.name):
        return say(lang, "work_others")
    return title_of(model.name) if model.kind == "run" else model.name


def ranking(places: Sequence[Ranked], chosen: str, lang: str, owner: bool = True) -> str:
    """All models that met, the strongest first."""
    if not places:
        return ""
    rows, reference = [], next(model for model in places if model.is_reference)
    for model in places:
        kind = "base" if model.is_base else "tuned" if model.name == chosen else "plain"
        against = "–" if model.is_reference else f"<b>{percent(model.rate)}</b>"
        name = model_name(model, lang, owner)
        span = say(lang, "rank_few") if model.few_votes else interval(model)
        cells = [
            "–" if model.few_votes else str(model.rank),
            html.chip(html.cut_name(name, 34), kind),
            against,
            "" if model.is_reference else span,
        ]
        rows.append((None, [*cells, number(model.votes), number(model.raters)], False))
    headers = [say(lang, f"rank_{name}") for name in ("place", "model", "rate", "interval", "votes", "raters")]
    if not reference.is_base:
        headers[2] = say(lang, "rank_against", name=html.cut_name(reference.name, 24))
    note = f'<p class="muted small">{say(lang, "rank_note")}</p>'
    return html.sheet(note + html.table(headers, rows), say(lang, "rank_title"))


def evaluation_of(run: runs.Run, source: str) -> str | None:
    """The evaluation whose votes count, or all of them."""
    return {"typed": TYPED, "rows": voting.open_contest(run) or TYPED}.get(source)


def download(store: Store, run: runs.Run, kind: str, evaluation: str | None) -> str:
    """Write the votes for download; the name changes with what is in the file."""
    text = store.export(run, kind, evaluation)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return downloads.write(f"{run.name}-votes-{digest}.{EXPORTS[kind]}", text)


class VoteResults:
    """The sub-page of the results; it is drawn when opened."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page, self.tab = page, tab
        self.fault = gr.HTML("", elem_id="results-fault")
        self.source = gr.Radio(
            [(label(f"source_{name}"), name) for name in SOURCES],
            value="all",
            label=label("results_source"),
            show_label=False,
            container=False,
            elem_id="results-source",
        )
        self.opened = gr.Dropdown(
            [], label=label("results_open"), info=label("results_open_help"), visible=False, elem_id="vote-open"
        )
        with gr.Row():
            self.parts = [
                gr.Dropdown([], label=label(f"results_{part}_is"), visible=False, elem_id=f"vote-{part}-is")
                for part in ("base", "tuned")
            ]
        self.head = gr.HTML("", elem_id="vote-results")
        with gr.Row(elem_classes="small-row"):
            self.files = {
                kind: gr.DownloadButton(label(f"export_{kind}"), size="sm", visible=False) for kind in EXPORTS
            }
        self.share = gr.HTML("", elem_id="vote-share", js_on_load=style.COPY_JS)
        self.telling = gr.Radio(
            [(label("telling_end"), "end"), (label("telling_each"), "each")],
            value="end",
            label=label("telling"),
            info=label("telling_help"),
            visible=False,
            elem_id="vote-telling",
        )
        self.ranking = gr.HTML("", elem_id="vote-ranking")
        self.trust = gr.HTML("", elem_id="vote-trust")
        self.reasons = gr.HTML("", elem_id="vote-reasons")
        self.metrics = gr.HTML("", elem_id="vote-metrics")
        self.raters = picker(elem_id="vote-raters")

    def show(self, run_name: str, source: str, request: gr.Request) -> dict[Any, Any]:
        run, store, lang = find_ready(run_name), Store(), language(request)
        evaluation, owner = evaluation_of(run, source), rights.visitor(request).owner
        report = store.report(run, evaluation)
        evaluations = run.evaluations()
        others = store.votes_on_others(run) if evaluation is None else 0
        aside = html.block(say(lang, "votes_others", n=number(others)), "muted small") if others else ""
        drawn: dict[Any, Any] = {
            self.opened: gr.update(
                choices=evaluations, value=voting.open_evaluation(run) or None, visible=owner and len(evaluations) > 1
            ),
            self.head: self.between(run, evaluation, lang, owner) + headline(report.totals, lang) + aside,
            **self.offered(run, lang, owner),
            self.share: invitation(run, getattr(self.page.blocks, "root_path", None), request, lang),
            self.telling: gr.update(value="each" if voting.tells_each_vote(run) else "end", visible=owner),
            self.ranking: ranking(store.ranking(run), run.name, lang, owner),
        }
        for kind, button in self.files.items():
            value = download(store, run, kind, evaluation) if (report.totals.n or others) and owner else None
            drawn[button] = gr.update(visible=bool(value), value=value)
        if not report.by_rater:
            return drawn | dict.fromkeys((self.trust, self.reasons, self.metrics, self.raters), "")
        return drawn | {
            self.trust: trust(report, lang, owner),
            self.reasons: reasons(report, lang),
            self.metrics: metric_agreement(report, lang),
            self.raters: raters(report, lang) if owner else "",
        }

    def show_again(self, run_name: str, source: str, drawn: str, request: gr.Request) -> dict[Any, Any]:
        return self.show(run_name, source, request) if drawn else {}

    def between(self, run: runs.Run, key: str | None, lang: str, owner: bool) -> str:
        """Who plays the parts that the figures name base and tuned, where that isn't them."""
        if key is None or Contest.parse(key).is_usual:
            return ""
        names = {part: html.esc(name) for part, name in names_of(run, key, lang, owner).items()}
        return html.block(f'<p id="vote-between">{say(lang, "votes_between", **names)}</p>')

    def offered(self, run: runs.Run, lang: str, owner: bool) -> dict[Any, Any]:
        """The menus of the two systems to vote on, once there are others than base and tuned."""
        key = voting.open_contest(run)
        if not key:
            return dict.fromkeys(self.parts, gr.update(visible=False))
        contest = Contest.parse(key)
        known = list(dict.fromkeys([*systems_of(run, contest.evaluation), contest.base_is, contest.tuned_is]))
        choices = [(system_name(name, lang, owner), name) for name in known]
        chosen = (contest.base_is, contest.tuned_is)
        return {
            menu: gr.update(
                choices=choices if owner else [], value=name if owner else None, visible=owner and len(known) > 2
            )
            for menu, name in zip(self.parts, chosen, strict=True)
        }

    def choose_systems(
        self, run_name: str, base_is: str, tuned_is: str, source: str, request: gr.Request
    ) -> dict[Any, Any]:
        """Let raters be asked which of these two systems answers better."""
        run = find_ready(run_name)
        open_contest(run, base_is, tuned_is)
        return self.show(run_name, source, request)

    def open_evaluation(self, run_name: str, evaluation: str, source: str, request: gr.Request) -> dict[Any, Any]:
        """Let raters be asked about this evaluation."""
        voting.open_for_votes(find_ready(run_name), evaluation)
        return self.show(run_name, source, request)

    def choose_telling(self, run_name: str, telling: str, source: str, request: gr.Request) -> dict[Any, Any]:
        """Let raters be told who was who after each vote, or at the end."""
        if telling not in ("each", "end"):
            raise UserError("{value!r} is no time to tell names; choose each or end.", value=str(telling)[:80])
        voting.tell_each_vote(find_ready(run_name), telling == "each")
        return self.show(run_name, source, request)

    def toggle_rater(self, run_name: str, source: str, request: gr.Request, event: gr.EventData) -> dict[Any, Any]:
        """Leave a rater's votes out, or take them in again."""
        run, name, store = find_ready(run_name), picked(event), Store()
        store.exclude(run, name, name not in store.excluded(run))
        return self.show(run_name, source, request)

    def wire(self) -> None:
        where = {"run_name": self.page.run, "source": self.source}
        views = [self.opened, *self.parts, self.head, *self.files.values(), self.share, self.telling, self.ranking]
        views += [self.trust, self.reasons, self.metrics, self.raters]
        wire(self.tab.select, self.show, where, views, self.fault)
        wire(self.source.change, self.show, where, views, self.fault)
        texts = [*self.parts, self.head, self.share, self.ranking, self.trust, self.reasons, self.metrics, self.raters]
        redraw(self.page, self.show_again, {**where, "drawn": self.head}, texts)
        opened = {**where, "evaluation": self.opened}
        wire(self.opened.input, self.open_evaluation, opened, views, self.fault, needs="manage")
        systems = {**where, "base_is": self.parts[0], "tuned_is": self.parts[1]}
        for menu in self.parts:
            wire(menu.input, self.choose_systems, systems, views, self.fault, needs="manage")
        told = {**where, "telling": self.telling}
        wire(self.telling.input, self.choose_telling, told, views, self.fault, needs="manage")
        wire(self.raters.select, self.toggle_rater, where, views, self.fault, needs="manage", **EACH_PICK)
