"""What a sweep tried: its plan in a sentence, each trial as a line of a picture and a row of a table, and their curves."""

from __future__ import annotations

from sftdemo.runs import DamagedRun, Run, sweep_record
from sftdemo.runs.sweep_record import Sweep, Trial, last_loss
from sftdemo.ui.parts import charts, html
from sftdemo.ui.parts.parallel_plot import Axis, Thread, parallel_plot
from sftdemo.ui.texts import duration, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs.sweep import ordered

MOST_CURVES = 7
COLUMNS = ("trial", "loss", "rate", "rank", "epochs", "steps", "time", "why")  # on a phone the first ones are in sight


def tried(run: Run, lang: str) -> str:
    """All of a run's sweep, "" where it has none, or what is wrong with its file."""
    try:
        sweep = sweep_record.read(run)
    except DamagedRun as damaged:
        return html.fault(in_words(damaged, lang))
    if sweep is None:
        return ""
    trials = ordered(sweep["trials"])
    picture, curves = _picture(sweep, run.name, lang), _curves(trials, lang)
    if curves:
        curves = html.folded(say(lang, "sweep_curves"), curves)
    content = f"<p>{html.esc(_sentence(sweep, lang))}</p>{picture}{_table(trials, lang)}{curves}"
    return html.block(f"<h3>{say(lang, 'sweep_tried')}</h3>{content}", "sheet")


def _sentence(sweep: Sweep, lang: str) -> str:
    if not sweep["rungs"]:
        return say(lang, "sweep_measuring", minutes=f"{sweep['minutes']:g}")
    plan = say(
        lang,
        "sweep_plan" if sweep["last_s"] else "sweep_plan_whole",
        n=sweep["rungs"][0]["trials"],
        all=len(sweep["trials"]),
        share=f"{100 * sweep['rungs'][0]['share']:.3g}\xa0%",
        search=duration(lang, sweep["search_s"]),
        last=duration(lang, sweep["last_s"]),
        minutes=f"{sweep['minutes']:g}",
    )
    best = next((trial for trial in sweep["trials"] if trial["number"] == sweep["chosen"]), None)
    if best is None:
        return plan
    return f"{say(lang, 'sweep_best', number=best['number'], settings=_settings(best, lang))}{say(lang, 'space')}{plan}"


def _settings(trial: Trial, lang: str) -> str:
    names = {"rate": "learning_rate", "rank": "lora_r", "epochs": "epochs"}
    parts = [
        f"{say(lang, f'sweep_{column}')} {trial['settings'][name]:g}"
        for column, name in names.items()
        if name in trial["settings"]
    ]
    return say(lang, "comma").join(parts)


def _table(trials: list[Trial], lang: str) -> str:
    rows = []
    for trial in trials:
        settings, loss = trial["settings"], last_loss(trial)
        done = trial["measured"][-1]["step"] if trial["measured"] else 0
        cells = (
            trial["number"],
            "–" if loss is None else f"{loss:.4f}",
            f"{settings['learning_rate']:.3g}",
            settings.get("lora_r", "–"),
            f"{settings['epochs']:g}",
            f"{done} / {trial['steps'] or '–'}",
            duration(lang, trial["seconds"]) if trial["seconds"] else "–",
            say(lang, f"sweep_{trial['ended']}"),
        )
        rows.append((None, map(html.esc, cells), False))
    return f'<div id="sweep-trials">{html.table([say(lang, f"sweep_{name}") for name in COLUMNS], rows)}</div>'


def _picture(sweep: Sweep, name: str, lang: str) -> str:
    keys = {"rate": "learning_rate", "rank": "lora_r", "epochs": "epochs"}
    keys = {column: key for column, key in keys.items() if key in sweep["trials"][0]["settings"]}
    axes = [Axis(say(lang, f"sweep_{column}"), evenly=True) for column in keys] + [Axis(say(lang, "sweep_loss"))]
    furthest = max((trial["measured"][-1]["share"] for trial in sweep["trials"] if trial["measured"]), default=0.0)
    threads = []
    for trial in sweep["trials"]:
        if not trial["measured"]:
            continue
        is_best, early = trial["ended"] == "chosen", trial["measured"][-1]["share"] < furthest
        kind = "best" if is_best else "faint dashed" if early else "faint"
        values = [trial["settings"][key] for key in keys.values()]
        threads.append(Thread(f"{say(lang, 'sweep_trial')} {trial['number']}", [*values, last_loss(trial)], kind))
    return parallel_plot(say(lang, "sweep_picture"), axes, threads, f"sweep-{name}", lang)


def _curves(trials: list[Trial], lang: str) -> str:
    """The training and validation losses of the best trials."""
    curves = []
    for trial in trials[:MOST_CURVES]:
        measured = [(float(row["step"]), loss) for row in trial["measured"] if (loss := row["eval_loss"]) is not None]
        points = [(point[0], point[1]) for point in trial["curve"]]
        if points:
            title = f"{say(lang, 'sweep_trial')} {trial['number']}{say(lang, 'colon')}{_settings(trial, lang)}"
            curves.append(charts.Curve(title, points, measured))
    return charts.loss_chart(curves, lang)
