"""Runs beside each other: their curves, scores with paired intervals, the settings that differ, and answers to the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.data.types import turn_text
from sftdemo.encoding.thoughts import answers_only
from sftdemo.errors import UserError
from sftdemo.evaluation import outputs_table
from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.significance import Difference
from sftdemo.evaluation.summary import gained
from sftdemo.runs import Run
from sftdemo.ui.access import private, rights
from sftdemo.ui.parts import between, charts, html
from sftdemo.ui.parts.address import COMPARED_JS, RUN_AND_SEARCH_JS, Address
from sftdemo.ui.parts.forms import ONE_COMPARISON, wire
from sftdemo.ui.parts.line_chart import Line, downloads, key, letter, line_chart
from sftdemo.ui.parts.page import Page, find_ready, runs_named
from sftdemo.ui.parts.redraw import redraw_where
from sftdemo.ui.tabs.report import ReportButton
from sftdemo.ui.texts import TEXTS, choices, label, language, number, say
from sftdemo.verbs.compare_runs import pair_of, shared_rows
from sftdemo.votes.pairing import open_contest

CURVES = {
    "loss": "loss", "validation": "eval_loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm",
    "tokens_per_s": "tokens_per_s",
}  # fmt: skip
MOST_COMPARED = 26  # each has a letter
SMOOTHED = ("loss", "grad_norm")
ROWS_SHOWN = 10
SCORES_SHOWN = 4
UNTOLD = ("name",)  # settings that differ anyhow


def chosen_runs(names: Sequence[str] | None) -> list[Run]:
    """The runs of these names, each once."""
    return runs_named(names, MOST_COMPARED)


def is_there(name: str) -> bool:
    try:
        return runs.named(name).name == name
    except UserError:
        return False


def titles(chosen: Sequence[Run], length: int = 36) -> list[str]:
    return html.cut_names([runs.title(run) for run in chosen], length)


def lettered(placed: Sequence[tuple[int, Run]], length: int = 18) -> list[str]:
    """Runs as columns' heads: each's letter and name, which the key above the chart has at more length."""
    named = titles([run for _, run in placed], length)
    return [f"{letter(place)} · {name}" for (place, _), name in zip(placed, named, strict=True)]


def curves(chosen: Sequence[Run], curve: str, lang: str) -> str:
    """One curve of every run over the others, with its key and what saves it."""
    kind = curve if curve in CURVES else "loss"
    lines = []
    for place, (run, title) in enumerate(zip(chosen, titles(chosen), strict=True)):
        points = charts.values(run.metrics(), CURVES[kind])
        if kind in SMOOTHED:
            points = charts.smoothed(points)
        lines.append(Line(title, points, place, letter(place), dots=kind == "validation"))
    legend = "".join(key(line, line.name) for line in lines)
    name = say(lang, f"curve_{kind}")
    if not (svg := line_chart(name, lines, lang)):
        return f'<div class="legend">{legend}</div><p class="muted">{say(lang, "curve_none")}</p>'
    note = f"<span>{say(lang, 'chart_mean')}</span>" if kind in SMOOTHED else ""
    saving = downloads(svg, f"compared-{kind}", CURVES[kind], lines, lang)
    unlike = "".join(f'<p class="muted small">{text}</p>' for text in between.losses_unlike(chosen, kind, lang))
    return f'<div class="legend keys">{legend}</div>{svg}<div class="legend">{note}{saving}</div>{unlike}'


def settings(chosen: Sequence[Run], lang: str) -> str:
    """The settings in which the runs differ, with each run's value."""
    words = TEXTS[lang]  # without those of another version's settings
    rows = [
        (
            None,
            [
                html.esc(words.get(f"set_{name}", name)),
                *(html.esc(shown_value(name, value, lang)) for value in by_run.values()),
            ],
            False,
        )
        for name, by_run in runs.differences(list(chosen))["settings"].items()
        if name not in UNTOLD
    ]
    if not rows:
        return f'<p class="muted">{say(lang, "compare_same_settings")}</p>'
    return html.table([say(lang, "column_setting"), *lettered(list(enumerate(chosen)))], rows)


def shown_value(name: str, value: Any, lang: str) -> str:
    """A setting's value, for visitors without paths."""
    if value is None:
        return "–"
    return html.cut(choices.shown(name, value if rights.current().owner else private.setting(name, value), lang), 60)


def scores(chosen: Sequence[Run], lang: str) -> str:
    """Every metric of each run's newest evaluation; of all but the first also what it gained on it, paired, with interval."""
    evaluated = [(place, run) for place, run in enumerate(chosen) if run.evaluations()]
    if not evaluated:
        return f'<p class="muted">{say(lang, "compare_unmeasured")}</p>'
    measured = [run.scores(run.evaluations()[0]) for _, run in evaluated]
    first = evaluated[0][1]
    pairs = [pair_of(first, run) for _, run in evaluated[1:]]
    named = zip(evaluated, titles([run for _, run in evaluated]), strict=True)
    names = {run.name: f"{letter(place)} ({title})" for (place, run), title in named}
    said = "".join(
        f"<p>{between.sentence({**pair, 'first': names[pair['first']], 'second': names[pair['second']]}, lang)}</p>"
        for pair in pairs
    )
    leading = measured[0].get("leading")
    metrics = [name for name in METRICS if any(name in each["tuned"] for each in measured)]
    metrics.sort(key=lambda name: name != leading)
    rows = [(None, [say(lang, "column_rows"), *_counts(measured, pairs, lang)], False)]
    for name in metrics:
        cells = [_score(name, each["tuned"].get(name)) for each in measured]
        gains = ["", *(_gain(name, pair["difference"].get(name), between.is_few(pair), lang) for pair in pairs)]
        rows.append((None, [say(lang, f"metric_{name}"), *map("".join, zip(cells, gains, strict=True))], False))
    heads = [say(lang, "outputs_metric"), *lettered(evaluated)]
    more = ""
    if len(rows) > SCORES_SHOWN + 1:
        rest = html.table(heads, rows[SCORES_SHOWN + 1 :])
        more = html.folded(say(lang, "scores_more", n=len(rows) - SCORES_SHOWN - 1), rest)
    notes = " ".join(between.notes(measured, html.esc(names[first.name]), lang)) if pairs else ""
    return f'{said}{html.table(heads, rows[: SCORES_SHOWN + 1])}{more}<p class="muted small">{notes}</p>'


def _counts(measured: Sequence[Any], pairs: Sequence[Mapping[str, Any]], lang: str) -> list[str]:
    """How many rows each was measured on, and how many of them are the first run's too."""
    shared = ["", *(say(lang, "compare_shared", n=number(pair["n"])) for pair in pairs)]
    return [
        f'{number(each["n"])} <span class="muted small">{text}</span>'
        for each, text in zip(measured, shared, strict=True)
    ]


def _score(metric: str, value: float | None) -> str:
    return "–" if value is None else charts.shown(metric, value)


def _gain(metric: str, gain: Mapping[str, Any] | None, few: bool, lang: str) -> str:
    """A difference with its interval; blue or amber where chance alone is unlikely to give it, on more than a `few` rows."""
    if not gain:
        return ""
    difference = Difference(*(gain[part] for part in ("delta", "low", "high", "p")))
    css = "same" if few or not difference.clear else "better" if gained(metric, difference.delta) > 0 else "worse"
    edges = charts.spread(metric, gain, lang)
    return (
        f' <span class="{css}">{charts.gained(metric, gain["delta"])}</span> <span class="muted small">{edges}</span>'
    )


def answers(chosen: Sequence[Run], differing: bool, shown: int, lang: str, best: str = "") -> tuple[str, int]:
    """A page of the rows that all evaluated runs answered, with every answer and its mark; and how many such rows there are.

    With `best` those that the run of this name answered better than every other, by most first: where a metric calls answers
    right or wrong, those it alone has right."""
    evaluated = [(place, run) for place, run in enumerate(chosen) if run.evaluations()]
    shared = shared_rows([run for _, run in evaluated]) if len(evaluated) > 1 else []
    if not shared:
        return f'<p class="muted">{say(lang, "compare_no_rows")}</p>', 0
    first = evaluated[0][1]
    rows = [row[first.name] for row in shared]
    metrics = outputs_table.metrics_for(rows)
    leading = first.scores(first.evaluations()[0]).get("leading", "")
    metric = leading if leading in metrics else metrics[0]
    judged = [outputs_table.judged([{**row[run.name]} for row in shared], metric) for _, run in evaluated]
    places = [
        place
        for place in range(len(shared))
        if not differing or len({answers_only(each[place])["tuned"] for each in judged}) > 1
    ]
    if best:
        names = [run.name for _, run in evaluated]
        leads = {
            place: lead_of(best, {name: each[place] for name, each in zip(names, judged, strict=True)})
            for place in places
        }
        places = sorted((place for place in places if leads[place] > 1e-9), key=lambda place: (-leads[place], place))
    if not places:
        none = say(lang, "outputs_none") if best else say(lang, "compare_all_same", n=number(len(shared)))
        return f'<p class="muted">{none}</p>', 0
    table_rows = []
    for place in places[:shown]:
        prompt = html.last_paragraph(turn_text(rows[place]["messages"][-1]))
        cells = [prompt, " / ".join(rows[place]["references"])]
        drawn = [f'<div class="cut">{html.esc(html.cut(text, 300))}</div>' for text in cells]
        drawn += [_answer(each[place], lang) for each in judged]
        table_rows.append((None, drawn, False))
    heads = [
        say(lang, "column_prompt"),
        say(lang, "column_reference"),
        *lettered(evaluated),
    ]
    count = say(lang, "runs_of_rows", k=number(min(shown, len(places))), n=number(len(places)), all=number(len(shared)))
    return f'{html.table(heads, table_rows)}<p class="muted small">{count}</p>', len(places)


def lead_of(best: str, judged: Mapping[str, outputs_table.Row]) -> float:
    """How much better than all other runs the run `best` answered a row, by its judged rows by run."""
    by_run = {name: row["score"]["tuned"] for name, row in judged.items()}
    if best not in by_run:
        raise UserError("Run {name} isn't among those compared that have an evaluation; choose another.", name=best)
    return float(by_run.pop(best) - max(by_run.values()))


def _answer(row: Mapping[str, Any], lang: str) -> str:
    """What a run answered, and whether that is right where the metric says so."""
    mark = ""
    if row.get("right") is not None:
        mark = "right" if row["right"]["tuned"] else "wrong"
        mark = f'<span class="{mark}" title="{say(lang, mark)}">{say(lang, f"mark_{mark}")}</span> '
    text = answers_only(row)["tuned"]
    return f'<div class="cut">{mark}{html.esc(html.cut(text, 300))}</div>'


def _two_or_more(names: list[str] | None) -> list[str]:
    if len(chosen := list(dict.fromkeys(names or ()))) < 2:
        raise UserError("Choose two runs or more to compare.")
    return chosen


class ComparePanel:
    """Under the list of runs: which to compare, and what they come to."""

    def __init__(self) -> None:
        self.runs = gr.Dropdown(
            [], multiselect=True, label=label("compare_pick"), info=label("compare_help"), elem_id="compare"
        )
        self.fault = gr.HTML("", elem_id="compare-fault")
        with gr.Column(visible=False, elem_id="compare-body") as self.body:
            choices = [(label(f"curve_{name}"), name) for name in CURVES]
            self.curve = gr.Radio(choices, value="loss", label=label("compare_curve"), elem_id="compare-curve")
            self.view = gr.HTML("", elem_id="compare-view")
            self.measured = gr.HTML("", elem_id="compare-measured")
            self.best = gr.Dropdown([("", "")], value="", label=label("compare_best"), elem_id="compare-best")
            self.differing = gr.Checkbox(True, label=label("compare_differing"), elem_id="compare-differing")
            self.answers = gr.HTML("", elem_id="compare-answers")
            self.more = gr.Button(label("runs_more"), size="sm", visible=False, elem_id="compare-more")
        self.report = ReportButton("runs-report")
        with gr.Row(elem_classes="small-row"):
            self.to_chat = gr.Button(label("compare_chat"), size="sm", visible=False, elem_id="compare-chat")
            self.to_vote = gr.Button(label("compare_vote"), size="sm", visible=False, elem_id="compare-vote")
            self.report.button.render()
        self.shown = gr.State(ROWS_SHOWN)

    def offer(self, listed: Sequence[Run], compared: Sequence[str] | None) -> dict[Any, Any]:
        """The runs to choose from, beside those that are chosen; a deleted one is chosen no more. Of one run, nothing."""
        names = {run.name: runs.title(run) for run in listed}
        left = [name for name in compared or () if name in names or is_there(name)]
        names |= {name: names.get(name, name) for name in left}
        changed = {} if left == (compared or []) else {"value": left}
        choices = [(text, name) for name, text in names.items()]
        return {self.runs: gr.update(choices=choices, visible=len(names) > 1, **changed)}

    def open_link(self, request: gr.Request) -> dict[Any, Any]:
        """The runs that the page's address asks to compare."""
        asked = Address.of(request.query_params).compared_runs()[:MOST_COMPARED]
        if not asked:
            return {self.runs: gr.skip()}
        choices = [(runs.title(runs.named(name)), name) for name in asked]
        return {self.runs: gr.update(choices=choices, value=asked, visible=True)}

    def draw_curves(self, names: list[str] | None, curve: str, request: gr.Request) -> dict[Any, Any]:
        chosen = chosen_runs(names)
        return {self.view: html.sheet(curves(chosen, curve, language(request))) if chosen else ""}

    def compare(
        self,
        names: list[str] | None,
        curve: str,
        differing: bool,
        request: gr.Request,
        shown: int = ROWS_SHOWN,
        best: str = "",
    ) -> Iterator[dict[Any, Any]]:
        """The curves at once; then scores and answers, which take a moment."""
        lang, chosen = language(request), chosen_runs(names)
        if not chosen:
            parts = (self.body, self.report.button, self.to_chat, self.to_vote)
            hidden = dict.fromkeys(parts, gr.update(visible=False))
            yield {**hidden, self.view: "", self.measured: "", self.answers: ""}
            return
        differ = f"<h3>{say(lang, 'compare_settings')}</h3>{settings(chosen, lang)}" if len(chosen) > 1 else ""
        begun = {**dict.fromkeys((self.body, self.report.button), gr.update(visible=True)), self.shown: ROWS_SHOWN}
        visitor, both = rights.visitor(request), len(chosen) > 1
        placed = [(place, run) for place, run in enumerate(chosen) if run.evaluations()]
        measured_runs = [(head, run.name) for head, (_, run) in zip(lettered(placed), placed, strict=True)]
        begun[self.best] = gr.update(
            choices=[(say(lang, "outputs_all"), ""), *measured_runs], value="", visible=len(measured_runs) > 1
        )
        begun |= {
            self.to_chat: gr.update(visible=both and visitor.may("chat")),
            self.to_vote: gr.update(visible=both and visitor.owner),
        }
        yield {**begun, **self.draw_curves(names, curve, request), self.measured: html.sheet(differ) if differ else ""}
        measured = f"<h3>{say(lang, 'scores_title')}</h3>{scores(chosen, lang)}{differ}"
        yield {self.measured: html.sheet(measured), **self.draw_answers(names, differing, shown, request, best)}

    def draw_answers(
        self, names: list[str] | None, differing: bool, shown: int, request: gr.Request, best: str = ""
    ) -> dict[Any, Any]:
        lang = language(request)
        drawn, total = answers(chosen_runs(names), differing, shown, lang, best or "")
        return {
            self.answers: html.sheet(drawn, say(lang, "compare_answers")),
            self.more: gr.update(visible=total > shown),
        }

    def more_answers(
        self, names: list[str] | None, differing: bool, shown: int, request: gr.Request, best: str = ""
    ) -> dict[Any, Any]:
        more = shown + ROWS_SHOWN
        return {self.shown: more, **self.draw_answers(names, differing, more, request, best)}

    def travel(self, names: list[str] | None, search: str) -> dict[Any, Any]:
        """The comparison that the address names, once Back or Forward was pressed."""
        asked = Address.parse(search).compared_runs()[:MOST_COMPARED]
        return {} if asked == (names or []) else {self.runs: asked}

    def chat(self, names: list[str] | None) -> str:
        """The first of the runs as the page's; the address says who answers beside it."""
        return find_ready(_two_or_more(names)[0]).name

    def vote(self, names: list[str] | None) -> str:
        """Let raters be asked which of the first two runs answers better; the ballot is the first one's."""
        first, second, *_ = chosen_runs(_two_or_more(names))
        open_contest(first, f"run:{second.name}", "tuned")
        return first.name

    def wire(self, page: Page) -> None:
        wire(page.blocks.load, self.open_link, None, [self.runs])
        wire(self.runs.change, None, [self.runs], None, js=COMPARED_JS)
        rows = {"names": self.runs, "differing": self.differing, "shown": self.shown, "best": self.best}
        outputs = [
            self.body,
            self.report.button,
            self.to_chat,
            self.to_vote,
            self.view,
            self.measured,
            self.answers,
            self.more,
            self.shown,
            self.best,
        ]
        compared = [self.runs, self.curve, self.differing]
        wire(self.runs.change, self.compare, compared, outputs, self.fault, **ONE_COMPARISON)
        wire(self.curve.input, self.draw_curves, [self.runs, self.curve], [self.view], self.fault)
        for field in (self.differing, self.best):
            wire(field.input, self.draw_answers, rows, [self.answers, self.more], self.fault, **ONE_COMPARISON)
        wire(
            self.more.click,
            self.more_answers,
            rows,
            [self.answers, self.more, self.shown],
            self.fault,
            **ONE_COMPARISON,
        )
        texts = [self.view, self.measured, self.best, self.answers]
        redraw_where(page, self.runs, self.compare, {**rows, "curve": self.curve}, texts, **ONE_COMPARISON)
        self.report.wire(self.runs, self.fault)
        wire(page.travelled.then, self.travel, [self.runs, page.address], [self.runs], js=RUN_AND_SEARCH_JS)
        chosen = wire(self.to_chat.click, self.chat, [self.runs], [page.run], self.fault, needs="chat")
        page.redraw_chat(page.opens(chosen.success, "chat").then)
        opened = wire(self.to_vote.click, self.vote, [self.runs], [page.run], self.fault, needs="manage")
        page.opens(opened.success, "vote")
