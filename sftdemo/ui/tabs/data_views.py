"""What the Data tab shows, drawn from the same values that `check --json` gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftdemo import data, runs
from sftdemo.data.layouts.recognition import PAIRS
from sftdemo.evaluation.summary import FEW_ROWS
from sftdemo.ui.parts import charts, html
from sftdemo.ui.texts import TEXTS, number, say
from sftdemo.ui.texts.faults import in_words

FIRST_SAMPLES = {"en": "support_tickets", "zh": "reviews_zh"}  # by the page's language
HELD_OUT = FEW_ROWS + 3  # test rows, where enough are asked for: a few may be too long for the model
SHOWN_EXAMPLES = 3
SHOWN_FAULTS = 50
SHOWN_TOKENS = 160  # of each neighbour in the pack
LISTS = ("faults", "dropped", "fixed", "warnings")
Summary = Mapping[str, Any]


def named(lang: str, key: str, otherwise: str) -> str:
    """The word for something the core names; what has no word here keeps its own."""
    return say(lang, key) if key in TEXTS[lang] else otherwise


def total(summary: Summary, name: str) -> int:
    """How many there are of what the summary lists the first of."""
    return int(summary.get("more", {}).get(name, len(summary[name])))


def chosen_name(source: str, lang: str) -> str:
    """What is chosen, where no card says it: an upload's own field is empty once the page was loaded again."""
    if source in [sample.name for sample in data.samples()]:
        return ""
    return html.block(html.esc(say(lang, "data_chosen", name=runs.source_name(source))), "muted small")


def sample_cards(lang: str, chosen: str) -> str:
    """The sample sets, each with its task, size, language and one example."""
    cards = []
    for sample in sorted(data.samples(), key=lambda sample: sample.name != FIRST_SAMPLES[lang]):
        title = sample.title_zh if lang == "zh" else sample.title
        tags = [say(lang, f"task_{sample.task}"), sample.language]
        if sample.rows:
            tags.insert(1, say(lang, "rows_n", n=number(sample.rows)))
        example = ""
        if sample.example:
            turns = [message["content"] for message in sample.example["messages"] if message["role"] != "system"]
            example = f'<div class="eg">{html.esc(html.cut(html.last_paragraph(turns[0]), 70))} → {html.esc(html.cut(turns[-1], 50))}</div>'
        content = f'<div class="title">{html.esc(title)}</div><div class="tags">{"".join(html.chip(tag) for tag in tags)}</div>{example}'
        cards.append(html.card(sample.name, content, sample.name == chosen))
    return html.block(f'<div class="cards">{"".join(cards)}</div>')


def verdict(summary: Summary, lang: str, repairable: bool = False) -> str:
    """One line: what was read and whether it can be trained on."""
    n = number(summary["examples"])
    size = (
        say(lang, "verdict_labels", n=n, k=total(summary, "labels"))
        if summary["labels"]
        else say(lang, "verdict_rows", n=n)
    )
    at_fault = summary.get("more", {}).get("rows_at_fault")
    at_fault = at_fault or len({(fault["file"], fault["line"]) for fault in summary["faults"]})
    notes = [html.esc(in_words(note, lang)) for note in summary["notes"]]
    if len(summary["labels"]) == 1:
        notes.insert(0, say(lang, "verdict_one_label"))
    if not summary["examples"]:
        kind, mark, text = "bad", "✕", say(lang, "verdict_none")
        if len(summary["columns"]) > 1 and not summary["mapping"]:
            text = say(lang, "verdict_columns")
            notes.insert(0, say(lang, "verdict_layout"))
    elif at_fault:
        kind, mark, text = "warn", "!", say(lang, "verdict_faults", size=size, n=number(at_fault))
        notes.insert(0, say(lang, "verdict_faults_repair" if repairable else "verdict_faults_how"))
    elif not summary["split_sizes"]:
        kind, mark, text = "bad", "✕", say(lang, "verdict_split", size=size)
        notes.insert(0, say(lang, "verdict_split_how"))
    else:
        kind, mark, text = "", "✓", say(lang, "verdict_ready", size=size)
    return html.block(
        f'<div class="verdict {kind}" id="verdict"><span class="mark">{mark}</span><span>{html.esc(text)}</span></div>'
        f'<div class="muted small">{"<br>".join(notes)}</div>'
    )


def mapping(summary: Summary, lang: str) -> str:
    """Which column plays which part: "Prompt: comment · Answer: verdict, 4 labels"."""
    names = dict(zip(PAIRS.get(summary["format"], ()), ("column_prompt", "column_answer"), strict=False))
    parts = []
    for role, column in summary["mapping"].items():
        name = say(lang, names.get(role, f"role_{role}"))
        part = f"{html.esc(name)}{say(lang, 'colon')}<b>{html.esc(column)}</b>"
        if role == "label" and summary["labels"]:
            part += html.esc(say(lang, "column_n_labels", n=number(total(summary, "labels"))))
        parts.append(part)
    return html.block(" · ".join(parts), "muted small") if parts else ""


def few_test_rows(summary: Summary, test_size: float | None, lang: str) -> tuple[str, bool]:
    """A warning where the held-out rows are too few to tell anything, and whether holding out more mends it."""
    sizes = summary["split_sizes"]
    if not sizes:
        return "", False
    n, groups = sizes.get("test", 0), summary.get("test_groups", FEW_ROWS)
    if n >= FEW_ROWS:
        told = say(lang, "few_groups", n=number(n), groups=number(groups), few=FEW_ROWS) if groups < FEW_ROWS else ""
        return (html.block(html.esc(told), "small worse") if told else ""), False
    own, enough = bool(summary["splits"].get("test")), summary["examples"] >= 2 * FEW_ROWS
    mends = enough and not own and (test_size or 0) < FEW_ROWS
    key = "few_mend" if mends else "few_own" if own else "few_rows"
    return html.block(html.esc(say(lang, key, n=number(n), few=FEW_ROWS)), "small worse"), mends


def examples(rows: Sequence[Mapping[str, Any]], lang: str) -> str:
    """The first rows as they will be seen by the model."""
    conversations = "".join(html.bubbles(row["messages"]) for row in rows[:SHOWN_EXAMPLES])
    return html.sheet(conversations, say(lang, "data_examples")) if conversations else ""


def fault_lists(summary: Summary, lang: str) -> str:
    """Faults, rows left out, repairs and warnings, each with line, field, problem and remedy; faults stand open."""
    parts = []
    for kind in LISTS:
        faults = summary.get(kind) or []
        if kind == "faults" and not summary["mapping"] and len(summary["columns"]) > 1:
            faults = [fault for fault in faults if fault["line"]]  # what the columns are is asked above
        if not faults:
            continue
        last = "fault_done" if kind == "fixed" else "fault_remedy"
        headers = [say(lang, key) for key in ("fault_line", "fault_field", "fault_problem", last)]
        rows = []
        for fault in faults[:SHOWN_FAULTS]:
            sentences = (in_words(fault[key], lang) for key in ("problem", "remedy"))
            rows.append((None, [_line(fault), *map(html.esc, (fault["field"], *sentences))], False))
        count = total(summary, kind)
        more = say(lang, "faults_more", n=number(count - SHOWN_FAULTS)) if count > SHOWN_FAULTS else ""
        content = html.table(headers, rows) + (f'<p class="muted small">{more}</p>' if more else "")
        parts.append(html.folded(say(lang, f"list_{kind}", n=number(count)), content, kind == "faults", kind))
    return html.block("".join(parts), "sheet") if parts else ""


def _line(fault: Mapping[str, Any]) -> str:
    return str(fault["line"]) if fault["line"] else "–"


def cleaning(summary: Summary, lang: str) -> str:
    """Each step of cleaning with its count and some rows before and after."""
    if not summary.get("cleaning"):
        return ""
    headers = [say(lang, f"cleaning_{name}") for name in ("step", "rows")]
    headers += [say(lang, "fault_line"), *(say(lang, f"cleaning_{name}") for name in ("before", "after"))]
    rows: list[tuple[str | None, Iterable[str], bool]] = []
    for step in summary["cleaning"]:
        name = html.esc(named(lang, f"clean_{step['step']}", step["step"]))
        kinds = " ".join(html.chip(f"{kind} {count}") for kind, count in step["kinds"].items())
        first = [f"{name} {kinds}", number(step["count"])]
        for example in step["examples"] or [None]:
            rows.append((None, [*first, *_before_after(example, lang)], False))
            first = ["", ""]
    return html.sheet(html.table(headers, rows), say(lang, "cleaning_title"))


def _before_after(example: Mapping[str, Any] | None, lang: str) -> list[str]:
    if example is None:
        return ["", "", ""]
    before, after = str(example["before"]), example["after"]
    if after is None:
        like = say(lang, "cleaning_like", line=example["like"]) if example["like"] else say(lang, "cleaning_out")
        return [str(example["line"]), html.esc(html.cut(before, 200)), f'<span class="muted">{like}</span>']
    old, new = html.differences(before[:400], after[:400])
    return [str(example["line"]), old, new]


def pictures(summary: Summary, lang: str) -> str:
    """Lengths with the limit drawn in, labels, the sizes of the splits, rows that stand twice, scripts."""
    parts = [_lengths(summary, lang), _labels(summary, lang)]
    if sizes := summary["split_sizes"]:
        named_sizes = {say(lang, f"split_{name}"): rows for name, rows in sizes.items()}
        twice = [(key, summary[key]) for key in ("duplicates", "leaked")]
        notes = "".join(
            f'<p class="small worse">{say(lang, f"data_{key}", n=number(rows))}</p>'
            if rows
            else f'<p class="small muted">{say(lang, f"data_{key}_none")}</p>'
            for key, rows in twice
        )
        parts.append(html.sheet(charts.split_bar(named_sizes) + notes, say(lang, "data_splits")))
    if summary.get("scripts"):
        names = {named(lang, f"script_{name}", name): rows for name, rows in summary["scripts"].items()}
        parts.append(html.sheet(charts.label_bars(names), say(lang, "data_scripts")))
    return f'<div class="two">{"".join(filter(None, parts))}</div>'


def _lengths(summary: Summary, lang: str) -> str:
    unit = "tokens" if summary["tokens"] else "characters"
    binned = summary["token_histogram" if summary["tokens"] else "character_histogram"]
    if not binned:
        return ""
    title, notes = say(lang, f"chart_{unit}"), []
    if unit == "tokens":
        spread, limits = summary["tokens"], summary["lengths"]
        notes.append(say(lang, "chart_median", median=number(spread["p50"]), high=number(spread["max"])))
        key = f"long_{limits['on_long']}" if limits["over"] else "long_fits"
        notes.append(say(lang, key, **{name: number(v) for name, v in limits.items() if isinstance(v, int)}))
        if summary["counted"] < summary["examples"]:
            notes.append(say(lang, "chart_counted", n=number(summary["counted"])))
    limit = say(lang, "chart_limit", n=number(binned["limit"])) if binned["limit"] else ""
    chart = charts.histogram(binned, title, limit)
    return html.sheet(f'{chart}<p class="muted small">{"<br>".join(notes)}</p>', title)


def _labels(summary: Summary, lang: str) -> str:
    if not summary["labels"]:
        return ""
    after = (summary.get("balance") or {}).get("after", {})
    title = say(lang, "data_labels_train" if after else "data_labels")
    return html.sheet(charts.label_bars(summary["labels"], after=after), title)


def checks(summary: Summary, lang: str) -> str:
    """The template's checks, each with a mark, and the reason of those that fail."""
    template = summary.get("template")
    if not template:
        return ""
    marks = [(name, value) for name, value in template.items() if isinstance(value, bool)]
    good = all(value for _, value in marks)
    chips = "".join(
        f'<span class="check {"" if value else "bad"}">{"✓" if value else "✕"} {say(lang, f"check_{name}")}</span>'
        for name, value in marks
    )
    notes = [html.esc(in_words(reason, lang)) for reason in template["reasons"].values()]
    if template["special_in_text"]:
        notes.append(say(lang, "template_special", n=number(template["special_in_text"])))
    paragraphs = "".join(f'<p class="small">{note}</p>' for note in notes)
    return html.sheet(
        f'<div class="checks">{chips}</div>{paragraphs}', say(lang, "template_ok" if good else "template_bad")
    )


def xray(view: Mapping[str, Any], row: int, lang: str) -> str:
    """One row token by token, what is learned in the accent, and its neighbours in the pack."""
    tokens, pack = view["xray"], view["pack"]
    learned = sum(token["supervised"] for token in tokens)
    notes = [say(lang, "xray_note", n=number(len(tokens)), k=number(learned))]
    if pack["left_out"]:
        notes.append(say(lang, "xray_left_out"))
    content = f'<p class="muted small">{say(lang, "space").join(notes)}</p><div class="xray">{_tokens(tokens)}</div>'
    if pack["neighbours"]:
        row_numbers = ", ".join(str(neighbour["row"]) for neighbour in pack["neighbours"])
        sizes = {"tokens": number(pack["tokens"]), "shared": number(pack["shared"])}
        content += f'<p class="muted small">{say(lang, "xray_pack", rows=row_numbers, **sizes)}</p>'
        rows = "".join(
            f'<p class="small muted">{say(lang, "xray_row_n", row=neighbour["row"])}</p>'
            f'<div class="xray neighbour">{_tokens(neighbour["tokens"][:SHOWN_TOKENS])}'
            f"{'…' if len(neighbour['tokens']) > SHOWN_TOKENS else ''}</div>"
            for neighbour in pack["neighbours"]
        )
        content += html.folded(say(lang, "xray_neighbours"), rows)
    return html.sheet(content, say(lang, "xray_title", row=row))


def _tokens(tokens: Iterable[Mapping[str, Any]]) -> str:
    spans = []
    for token in tokens:
        classes = " ".join(name for name, on in (("sup", token["supervised"]), ("shared", token["shared"])) if on)
        text = html.esc(token["text"]).replace("\n", "⏎\n") or "·"
        spans.append(f'<span class="{classes}" title="{token["id"]}">{text}</span>')
    return "".join(spans)
