"""The list of runs as a table: filtered by text and tags, sorted by any column, a page at a time; and the trash below it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sftdemo import runs
from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.summary import gained
from sftdemo.runs.trash import Deleted
from sftdemo.ui.parts import charts, html
from sftdemo.ui.parts.page import waits
from sftdemo.ui.texts import duration, megabytes, number, say

PAGE_ROWS = 25
NAME_LENGTH = 44
SORT = "sort/"  # what begins with it is a column's head; no run's name has a slash
MOST_SEARCHED = 200  # characters: every word of it is looked for in every run


def _goodness(row: Mapping[str, Any]) -> float | None:
    """The leading score, turned round where lower ones are better."""
    if row["metric"] not in METRICS:
        return None
    return float(row["tuned"] if METRICS[row["metric"]].higher_is_better else -row["tuned"])


# The columns, with what each is sorted by; a value that isn't there comes last. Of True the highest comes first.
COLUMNS: dict[str, tuple[Callable[[Mapping[str, Any]], Any], bool]] = {
    "run": (lambda row: (row["display_name"] or row["name"]).casefold(), False),
    "data": (lambda row: row["data"] and row["data"].casefold(), False),
    "method": (lambda row: row["method"], False),
    "when": (lambda row: row["created"], True),
    "state": (lambda row: row["state"], False),
    "loss": (lambda row: row["eval_loss"], False),
    "metric": (_goodness, True),
    "time": (lambda row: row["seconds"], True),
    "size": (lambda row: row["bytes"], True),
}
NEWEST = "when-down"
ORDERS = [f"{column}-{way}" for column in COLUMNS for way in ("down", "up")]


def filtered(text: str, tags: Sequence[str], owner: bool) -> list[runs.Run]:
    """The runs with all of the tags and the text in their name, data, model, tags or, for the owner, notes; newest first."""
    listed, words = runs.list_runs(), set(text[:MOST_SEARCHED].casefold().split())
    if not words and not tags:
        return listed
    return [run for run in listed if _matches(run, words, tags, owner)]


def _matches(run: runs.Run, words: Collection[str], tags: Sequence[str], owner: bool) -> bool:
    row = runs.outline(run)
    own_tags = row["tags"] or []
    noted = ""
    if owner and row["state"] != "damaged":
        noted = run.notes().get("notes", "")
    texts = [
        row["name"],
        row["display_name"],
        str(row["data"] or "").rsplit("/", 1)[-1],
        row["model"],
        noted,
        *own_tags,
    ]
    inside = "\n".join(str(part) for part in texts if part).casefold()
    return set(tags) <= set(own_tags) and all(word in inside for word in words)


def all_tags() -> list[str]:
    """Every tag that a run has, the most frequent first."""
    counts: Counter[str] = Counter()
    for run in runs.list_runs():
        if os.path.lexists(run.path / "notes.json"):  # of a folder that can't be read nothing is
            counts.update(runs.outline(run)["tags"] or [])
    return sorted(counts, key=lambda tag: (-counts[tag], tag.casefold()))


def ordered(listed: list[runs.Run], order: str) -> list[runs.Run]:
    """The runs, which come newest first, in the order asked for; equal ones stay as they are."""
    column, _, way = (order if order in ORDERS else NEWEST).partition("-")
    if (column, way) == ("when", "down"):
        return listed
    value, rows = COLUMNS[column][0], {run.name: runs.outline(run) for run in listed}
    if column == "size":
        rows = {run.name: rows[run.name] | {"bytes": runs.disk_bytes(run)} for run in listed}
    values = {name: value(row) for name, row in rows.items()}
    known = [run for run in listed if values[run.name] is not None]
    known.sort(key=lambda run: values[run.name], reverse=way == "down")
    if column == "metric":  # scores of one metric stand together, the most frequent metric first
        metrics = {run.name: rows[run.name]["metric"] for run in known}
        counts = Counter(metrics.values())
        known.sort(key=lambda run: (-counts[metrics[run.name]], metrics[run.name]))
    return known + [run for run in listed if values[run.name] is None]


def turned(order: str, column: str) -> str:
    """The order after a click on a column's head: by that column, or the other way round."""
    if column not in COLUMNS:
        return order
    usual, other = ("down", "up") if COLUMNS[column][1] else ("up", "down")
    return f"{column}-{other if order == f'{column}-{usual}' else usual}"


def order_choices(lang: str) -> list[tuple[str, str]]:
    arrows = {"down": "↓", "up": "↑"}
    return [
        (f"{say(lang, 'column_' + column)} {arrows[way]}", f"{column}-{way}") for column in COLUMNS for way in arrows
    ]


def gain(row: Mapping[str, Any], lang: str) -> str:
    """The leading score of a run's newest evaluation and what tuning gained."""
    if row["metric"] not in METRICS:
        return '<span class="muted">–</span>'
    delta = row["tuned"] - row["base"]
    better = gained(row["metric"], delta)
    css = "better" if better > 0 else "worse" if better < 0 else "same"
    name = say(lang, "metric_" + row["metric"])
    return f'{name} {charts.shown(row["metric"], row["tuned"])} <span class="{css}">{charts.gained(row["metric"], delta)}</span>'


def called(row: Mapping[str, Any], title: str) -> str:
    """The run's name as HTML, as it is cut; under a display name its folder's, and its tags."""
    folder = f'<span class="muted small">{html.esc(html.cut_name(row["name"], NAME_LENGTH))}</span>' if row["display_name"] else ""  # fmt: skip
    tags = "".join(html.chip(tag) for tag in row["tags"] or ())
    return f'<b title="{html.esc(row["name"])}">{html.esc(title)}</b> {folder} {tags}'


def cells(run: runs.Run, title: str, lang: str) -> dict[str, str]:
    """A line of the table as HTML, by column; `title` is the run's, cut."""
    row = runs.overview(run)
    method = say(lang, f"choice_method_{row['method']}") if row["method"] in ("lora", "full", "frozen") else ""
    if (row["quantization"] or "none") != "none":
        method += f" {html.esc(row['quantization'])}"
    data = html.esc(html.cut(str(row["data"] or "").rsplit("/", 1)[-1], 28))
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
    kept_nothing = row["state"] == "stopped" and not run.model_path.is_dir()
    state = say(lang, "state_stopped_empty" if kept_nothing else f"state_{row['state']}")
    beneath = " · ".join(filter(None, (data, method, when, state)))
    return {
        "run": f'{called(row, title)}<span class="beneath muted small">{beneath}</span>',
        "data": data,
        "method": method,
        "when": when,
        "state": state,
        "loss": "" if row["eval_loss"] is None else f"{row['eval_loss']:.3f}",
        "metric": gain(row, lang),
        "time": "" if row["seconds"] is None else duration(lang, row["seconds"]),
        "size": megabytes(runs.disk_bytes(run)),
    }


def runs_table(matches: Sequence[runs.Run], shown: int, chosen: str, lang: str, order: str = NEWEST) -> str:
    """One page of runs; only the rows shown are read whole."""
    if not matches and runs.list_runs():
        return html.empty(say(lang, "runs_no_match"), say(lang, "runs_no_match_text"))
    if not matches:
        return waits(lang, "runs_empty", "then_runs")
    by, _, way = order.partition("-")
    heads = []
    for column in COLUMNS:
        sorting = {"down": "descending", "up": "ascending"}[way] if column == by else "none"
        arrow = {"descending": " ↓", "ascending": " ↑"}.get(sorting, "")
        name = say(lang, f"column_{column}")
        heads.append(
            f'<th class="c-{column}" aria-sort="{sorting}"><button data-pick="{SORT}{column}">{name}{arrow}</button></th>'
        )
    lines = []
    titles = html.cut_names([runs.title(run) for run in matches[:shown]], NAME_LENGTH)
    for run, title in zip(matches, titles, strict=False):
        row = "".join(f'<td class="c-{column}">{cell}</td>' for column, cell in cells(run, title, lang).items())
        selected = str(run.name == chosen).lower()
        lines.append(f'<tr data-pick="{html.esc(run.name)}" tabindex="0" aria-selected="{selected}">{row}</tr>')
    table = f'<table class="t list"><thead><tr>{"".join(heads)}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    count = f'<p class="muted small">{say(lang, "runs_count", k=number(min(shown, len(matches))), n=number(len(matches)))}</p>'
    return html.block(f'<div class="scroll rows" tabindex="0">{table}</div>{count}', "sheet")


def trash_table(deleted: Sequence[Deleted], asking: str, lang: str) -> str:
    """What can be restored, each with its buttons; of the one that is asked about, whether it is to go for good."""
    rows = []
    for entry in deleted:
        size = say(lang, "trash_size", size=megabytes(entry.to_json()["bytes"]), until=moment(entry.until))
        name = f'<b>{html.esc(html.cut_name(entry.name, NAME_LENGTH))}</b> <span class="muted small">{size}</span>'
        restore, remove = (say(lang, key) for key in ("trash_restore", "trash_remove"))
        restoring = html.pick_button(f"restore/{entry.id}", restore)
        # Where a second click of a double one lands there is another button.
        buttons = f"{restoring}{html.pick_button(f'ask/{entry.id}', remove)}"
        if entry.id == asking:
            name = f'<b class="wrong">{say(lang, "trash_sure", name=html.esc(html.cut_name(entry.name, 30)))}</b> {html.pick_button(f"remove/{entry.id}", remove)}'  # fmt: skip
            buttons = f"{restoring}{html.pick_button('keep/', say(lang, 'runs_keep'))}"
        rows.append(f'<div class="trash-row"><div>{name}</div><div class="trash-buttons">{buttons}</div></div>')
    return html.block("".join(rows) or f'<p class="muted">{say(lang, "trash_empty")}</p>', "sheet")


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
