"""The queue on Train: what trains, what waits and when each is expected to begin, what was interrupted, and its buttons."""

from __future__ import annotations

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html
from sftdemo.ui.texts import duration, label, say
from sftdemo.ui.trainings import resume_training
from sftdemo.verbs import jobs

NAME_LENGTH = 40


def place(number: int, seconds: float | None, lang: str) -> tuple[str, str]:
    """The place of a run that waits, and when it begins."""
    start = say(lang, "queue_unknown") if seconds is None else say(lang, "queue_starts", t=duration(lang, seconds))
    return say(lang, "queue_place", n=number), start


def waiting_sentence(run: Run, lang: str) -> str:
    """Where in the queue the run is, or "" where it is about to begin."""
    if runs.ahead(run):
        if run.stop_asked:
            return say(lang, "queue_leaving")
        for number, (waiting, seconds) in enumerate(runs.expected(), 1):
            if waiting.name == run.name:
                where, start = place(number, seconds, lang)
                return say(lang, "queue_waits", place=where, start=start)
    return ""


def own_work(visitor: rights.Visitor) -> str:
    """The name of the visitor's run that trains, or of the first that waits, or ""."""
    busy = [*runs.training(), *runs.waiting()]
    return next((run.name for run in busy if rights.may_stop(f"train {run.name}", visitor)), "")


def queue_list(watched: str, visitor: rights.Visitor, lang: str) -> str:
    """All that trains, waits or was interrupted, unless that is nothing but the run watched; others' runs without names."""
    training, waiting = runs.training(), runs.expected()
    cut_off = runs.cut_off() if visitor.owner else []
    if {run.name for run in (*training, *(run for run, _ in waiting), *cut_off)} <= {watched}:
        return ""
    rows = [_row(run, say(lang, "queue_training"), ["show"], watched, visitor, lang) for run in training]
    for number, (run, seconds) in enumerate(waiting, 1):
        about_to_begin = number == 1 and not training
        state = say(lang, "train_queued") if about_to_begin else " · ".join(place(number, seconds, lang))
        rows.append(_row(run, state, ["show", "cancel"], watched, visitor, lang))
    rows += [_row(run, say(lang, "queue_interrupted"), ["resume"], watched, visitor, lang) for run in cut_off]
    return html.sheet("".join(rows), say(lang, "queue_title"))


def _row(run: Run, state: str, actions: list[str], watched: str, visitor: rights.Visitor, lang: str) -> str:
    own = rights.may_stop(f"train {run.name}", visitor)
    name = html.cut_name(runs.title(run), NAME_LENGTH) if own else say(lang, "work_others")
    shown = [action for action in actions if own and not (action == "show" and run.name == watched)]
    words = {"show": "queue_show", "cancel": "queue_cancel", "resume": "train_resume"}
    buttons = "".join(html.pick_button(f"{action}/{run.name}", say(lang, words[action])) for action in shown)
    text = f'<b>{html.esc(name)}</b> <span class="muted small">{html.esc(state)}</span>'
    return f'<div class="trash-row"><div>{text}</div><div class="trash-buttons">{buttons}</div></div>'


def act(pick: str, visitor: rights.Visitor) -> str:
    """Do what a button of the list says; returns the name of the run to show, or "". Raises UserError for others' runs."""
    action, _, name = pick.partition("/")
    if action == "resume" and not visitor.owner:
        raise UserError(rights.REFUSED["manage"])
    rights.require_own(f"train {name}", visitor)
    run = runs.named(name)
    if action == "cancel":
        jobs.stop(run)
    elif action == "resume":
        resume_training(run)
    return name if action == "show" else ""


def start_label(ready: bool) -> dict[str, object]:
    """The words and the weight of the button that starts a training, where a run with a model is shown or not."""
    busy = bool(runs.active())
    words = "train_add" if busy else "train_again" if ready else "train_go"
    return {"value": label(words), "variant": "secondary" if busy or ready else "primary"}
