"""What a report says of several runs: which is better, where they differ, and of each what a report on it alone says first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo import runs
from sftdemo.evaluation import outputs_table
from sftdemo.evaluation.registry import METRICS
from sftdemo.runs import Run
from sftdemo.ui.parts import between, charts, html
from sftdemo.ui.report import of_run, rows
from sftdemo.ui.texts import number, say
from sftdemo.verbs.compare_runs import pair_of, shared_rows

MOST_ROWS = 12  # of those that the runs answer differently well
UNTOLD = {
    "name",
    "data",
    "model",
    "resume",
}  # settings whose values may tell of the machine; a line of their own has them


def sections(compared: Sequence[Run], lang: str) -> str:
    """All of a report on several runs."""
    evaluated = [run for run in compared if run.evaluations()]
    between_runs = itertools.starmap(pair_of, itertools.combinations(evaluated, 2))
    titles = {run.name: runs.title(run) for run in compared}
    pairs = [{**pair, **{key: titles[pair[key]] for key in ("first", "second")}} for pair in between_runs]
    tables = [(f"{pair['first']} → {pair['second']}", between.table(pair, lang)) for pair in pairs]
    folded = "".join(html.folded(title, table) for title, table in tables if table)
    curves = charts.loss_chart([charts.curve(runs.title(run), run.metrics()) for run in compared], lang)
    return "".join(
        (
            f'<p class="lede">{say(lang, "report_compared", n=number(len(compared)))}</p>',
            of_run.section(
                say(lang, "report_result"),
                html.block(between.sentences(pairs, lang) + folded, "sheet said-of-runs") if pairs else "",
                html.sheet(bars(compared, lang) + overview(compared, lang), say(lang, "report_column_runs")),
            ),
            of_run.section(say(lang, "report_answers"), answers(compared, lang)),
            of_run.section(say(lang, "report_training"), html.sheet(curves) if curves else ""),
            of_run.section(
                say(lang, "report_other_settings"),
                html.sheet(setting_differences(runs.differences(list(compared))["settings"], compared, lang)),
            ),
            of_run.section(say(lang, "report_each"), *(of_one(run, lang) for run in compared)),
        )
    )


def bars(compared: Sequence[Run], lang: str) -> str:
    """The metric that decides of each run, base and tuned, with the interval of the gain."""
    drawn = []
    for run, name in zip(compared, html.cut_names([runs.title(run) for run in compared], 40), strict=True):
        measured = newest(run)
        metric = measured.get("leading")
        if metric in METRICS and metric in measured["base"] and metric in measured["tuned"]:
            title = f'{html.esc(name)}<span class="why">{say(lang, f"metric_{metric}")}</span>'
            figures = charts.score_figures(metric, measured, lang)
            drawn.append(f'<div class="score"><div class="metric">{title}</div>{figures}</div>')
    return f'<div class="scores">{"".join(drawn)}</div>' if drawn else ""


def newest(run: Run) -> Mapping[str, Any]:
    """The scores of a run's newest evaluation, or {}."""
    evaluation = next(iter(run.evaluations()), "")
    return run.scores(evaluation) if evaluation else {}


def overview(compared: Sequence[Run], lang: str) -> str:
    """A line a run: its base, its data, and its newest evaluation by the metric that decides, with the interval."""
    table_rows = []
    for run, name in zip(compared, html.cut_names([runs.title(run) for run in compared], 40), strict=True):
        names = [
            html.esc(name),
            html.esc(of_run.base_of(run)),
            html.esc(of_run.data_name(run)),
        ]
        table_rows.append((None, [*names, *_leading(run, lang)], False))
    headers = ("run", "base_model", "data", "metric", "base", "tuned", "difference", "rows")
    return html.table([say(lang, f"report_column_{name}") for name in headers], table_rows)


def _leading(run: Run, lang: str) -> list[str]:
    """The cells of a run's leading metric: its name, base, tuned, the difference with its interval, and rows."""
    measured = newest(run)
    metric = measured.get("leading")
    gain = measured.get("difference", {}).get(metric)
    if metric not in METRICS or not gain:
        return [say(lang, "evaluate_empty"), "–", "–", "–", "–"]
    sides = [of_run.nowrap(charts.shown(metric, measured[side][metric])) for side in ("base", "tuned")]
    difference = of_run.nowrap(f"{charts.gained(metric, gain['delta'])} ({charts.spread(metric, gain, lang)})")
    return [say(lang, f"metric_{metric}"), *sides, difference, number(measured["n"])]


def answers(compared: Sequence[Run], lang: str) -> str:
    """The rows that all answered and on which their scores lie furthest apart, with every answer."""
    evaluated = [run for run in compared if run.evaluations()]
    shared = shared_rows(evaluated) if len(evaluated) > 1 else []
    if not shared:
        return ""
    leading = evaluated[0].scores(evaluated[0].evaluations()[0]).get("leading", "")
    metrics = outputs_table.metrics_for([row[evaluated[0].name] for row in shared])
    metric = leading if leading in metrics else metrics[0]
    judged = [outputs_table.judged([{**row[run.name]} for row in shared], metric) for run in evaluated]
    spread = [max(scores) - min(scores) for scores in zip(*(_scores(each) for each in judged), strict=True)]
    widest = sorted((place for place, width in enumerate(spread) if width > 1e-9), key=lambda place: -spread[place])
    names = html.cut_names([runs.title(run) for run in evaluated], 30)
    drawn = []
    for place in widest[:MOST_ROWS]:
        answers_of_row = [
            rows.Answer(name, each[place], "tuned", "plain") for name, each in zip(names, judged, strict=True)
        ]
        drawn.append(rows.example(judged[0][place], answers_of_row, lang))
    count = say(lang, "report_of", k=number(len(drawn)), n=number(len(widest)))
    note = say(lang, "report_apart", metric=say(lang, f"metric_{metric}"), n=number(len(shared)), k=number(len(widest)))
    return f'<p>{note} <span class="muted small">{count if len(drawn) < len(widest) else ""}</span></p>{"".join(drawn)}'


def _scores(judged: Sequence[outputs_table.Row]) -> list[float]:
    return [row["score"]["tuned"] for row in judged]


def setting_differences(settings: Mapping[str, Mapping[str, Any]], compared: Sequence[Run], lang: str) -> str:
    """The settings in which the runs differ, with each run's value."""
    table_rows = [
        (
            None,
            [
                of_run.setting_name(name, lang),
                *(of_run.setting_value(name, by_run[run.name], lang) for run in compared),
            ],
            False,
        )
        for name, by_run in settings.items()
        if name not in UNTOLD
    ]
    if not table_rows:
        return f"<p>{say(lang, 'report_same_settings')}</p>"
    return html.table([say(lang, "column_setting"), *map(runs.title, compared)], table_rows)


def of_one(run: Run, lang: str) -> str:
    """What is said of one of the runs, folded."""
    evaluation = next(iter(run.evaluations()), "")
    measured = run.scores(evaluation) if evaluation else None
    inside = (
        of_run.lede(run, lang),
        of_run.result(measured, lang),
        of_run.votes(run, lang),
        of_run.data(run, lang),
        of_run.settings(run, lang),
        of_run.made_with(run, lang),
        html.block(of_run.commands(run, measured, lang), "sheet"),
    )
    return html.folded(runs.title(run), f"<section>{''.join(inside)}</section>", kind="of-run")
