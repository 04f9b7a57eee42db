"""An evaluation's scores as HTML: the claim with its interval, what qualifies it, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo.evaluation.registry import METRICS
from sftdemo.ui.parts import charts, html
from sftdemo.ui.texts import TEXTS, duration, number, say

MOST_LABELS = 30  # rows and columns of a confusion matrix


def claim(scores: Mapping[str, Any], lang: str) -> str:
    """The sentence the scores allow, as the evaluation wrote it, and what it rests on."""
    text = scores.get("summary", {}).get(lang) or scores.get("summary", {}).get("en") or ""
    base = say(lang, "claim_basis", n=number(scores["n"]), t=duration(lang, scores.get("seconds") or 0))
    return html.block(
        f'<div class="big" id="claim">{html.esc(text)}</div><div class="muted small">{base}</div>', "sheet"
    )


def under_scores(scores: Mapping[str, Any], lang: str) -> str:
    """One plain sentence under the scores, what needs no model at all, and whether the answers are just shorter."""
    lines = []
    leading = scores.get("leading") if scores.get("leading") in METRICS else None
    for name, baseline in (scores.get("baselines") or {}).items():
        if leading and f"baseline_{name}" in TEXTS[lang] and not isinstance(baseline.get(leading, ""), str):
            value = charts.shown(leading, baseline[leading])
            metric = say(lang, f"metric_{leading}")
            lines.append(say(lang, f"baseline_{name}", metric=metric, value=value, answer=baseline.get("answer", "")))
    if left_out := scores.get("left_out"):
        lines.append(say(lang, "left_out_note", n=number(left_out)))
    base, tuned = scores["base"].get("length_ratio"), scores["tuned"].get("length_ratio")
    if base is not None and tuned is not None:
        repeated = (f"{100 * scores[side].get('repetition', 0.0):.0f}\xa0%" for side in ("base", "tuned"))
        first, second = repeated
        lines.append(say(lang, "shape_note", base=f"{base:.2f}", tuned=f"{tuned:.2f}", first=first, second=second))
    corrected = [difference["p_holm"] < 0.05 for difference in scores["difference"].values() if "p_holm" in difference]
    if leading and corrected:
        metric = say(lang, f"metric_{leading}")
        lines.insert(0, say(lang, "holm_note", metric=metric, k=sum(corrected), n=len(corrected)))
    of_tasks = "".join(
        f'<p class="said"><b>{html.esc(task)}</b>{say(lang, "colon")}{html.esc(task_scores["summary"].get(lang) or task_scores["summary"]["en"])}</p>'
        for task, task_scores in (scores.get("by_task") or {}).items()
    )
    return of_tasks + "".join(f'<p class="muted small">{html.esc(line)}</p>' for line in lines)


def confusions(scores: Mapping[str, Any], lang: str) -> str:
    """Both confusion matrices side by side, where there are labels; of many the mix-ups that happen most."""
    matrices = scores.get("confusion")
    if not matrices:
        return ""
    if len(scores["labels"]) > MOST_LABELS:
        return _mix_ups(scores["labels"], matrices["tuned"], lang)
    drawn = "".join(charts.confusion(scores["labels"], matrices[side], side, lang) for side in ("base", "tuned"))
    note = f'<p class="muted small">{say(lang, "confusion_note")}</p>'
    return html.sheet(f'{note}<div class="two">{drawn}</div>', say(lang, "confusion_title"))


def _mix_ups(labels: Sequence[str], matrix: Sequence[Sequence[int]], lang: str) -> str:
    """Which label was most often taken for which."""
    names = [*labels, say(lang, "name_unparsed")]
    mistakes = [
        (count, labels[true], names[answered])
        for true, counts in enumerate(matrix)
        for answered, count in enumerate(counts)
        if count and true != answered
    ]
    most = sorted(mistakes, key=lambda mistake: -mistake[0])[:MOST_LABELS]
    table_rows = [(None, [html.esc(true), html.esc(answered), number(count)], False) for count, true, answered in most]
    headers = [say(lang, f"report_column_{name}") for name in ("label", "answered", "rows")]
    note = f'<p class="muted small">{say(lang, "report_many_labels", n=number(len(labels)))}</p>'
    return html.sheet(note + html.table(headers, table_rows), say(lang, "confusion_title"))


def fields(scores: Mapping[str, Any], lang: str) -> str:
    """F1 of each field and each kind of entity, where the answers are JSON; a row each, the most frequent first."""
    tables = []
    for part in ("fields", "entities"):
        sides = scores.get(part)
        if not sides:
            continue
        figures_by_name = {**sides["base"], **sides["tuned"]}
        headers = [say(lang, f"column_{part}"), *(say(lang, f"name_{side}") for side in ("base", "tuned"))]
        headers.insert(1, say(lang, "column_support"))
        rows = []
        for name in sorted(figures_by_name, key=lambda name: -figures_by_name[name]["support"]):
            figures = [sides[side].get(name) for side in ("base", "tuned")]
            cells = "".join(
                f'<td class="num">{charts.shown("field_f1", figure["f1"]) if figure else "–"}</td>'
                for figure in figures
            )
            title = html.esc(name or say(lang, "field_items"))
            rows.append(
                f'<tr><th>{title}</th><td class="num">{number(figures_by_name[name]["support"])}</td>{cells}</tr>'
            )
        head = "".join(f"<th>{text}</th>" for text in headers)
        tables.append(
            f'<div class="scroll"><table class="t narrow"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    note = f'<p class="muted small">{say(lang, "fields_note")}</p>'
    return html.sheet(note + "".join(tables), say(lang, "fields_title")) if tables else ""


def forgotten(scores: Mapping[str, Any], lang: str) -> str:
    """What the tuned model lost on general tasks, where that was measured."""
    measured = scores.get("general")
    if not measured:
        return ""
    rows = "".join(
        f"<tr><th>{say(lang, 'metric_' + name)}</th>"
        + "".join(f'<td class="num">{charts.shown(name, measured[side][name])}</td>' for side in ("base", "tuned"))
        + "</tr>"
        for name in ("answered", "perplexity")
    )
    head = f"<tr><th></th><th>{say(lang, 'name_base')}</th><th>{say(lang, 'name_tuned')}</th></tr>"
    text = html.esc(measured["summary"].get(lang) or measured["summary"]["en"])
    kind = "state warn" if measured["forgotten"] else "muted"
    table = f'<table class="t narrow"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    return html.sheet(f'<p class="{kind}">{text}</p>{table}', say(lang, "general_title"))


def small_print(scores: Mapping[str, Any], lang: str) -> str:
    """How every number was made, folded."""
    lines = [say(lang, "whisker_note"), *(say(lang, key) for key in ("gain_note", "measured_note"))]
    lines += [f"{html.esc(name)}: {html.esc(text)}" for name, text in (scores.get("signatures") or {}).items()]
    return html.block(html.folded(say(lang, "measured_title"), html.block("<br>".join(lines), "muted small")))
