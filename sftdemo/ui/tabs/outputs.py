"""The answers behind the scores: how many got better, every row of them, one row in full, and why it was answered so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.encoding.thoughts import answer_of, split_thoughts
from sftdemo.errors import UserError
from sftdemo.evaluation import outputs_table as outputs
from sftdemo.evaluation.outputs_table import OutputsPage, Row
from sftdemo.ui import work
from sftdemo.ui.access import rights
from sftdemo.ui.parts import html
from sftdemo.ui.parts.answers import counted, load, slots_listed, slots_named, verdict
from sftdemo.ui.parts.forms import MODEL_CLICK, wire
from sftdemo.ui.parts.page import EACH_PICK, Page, find_ready, latest_evaluation, picked, picker
from sftdemo.ui.parts.pager import Pager
from sftdemo.ui.texts import label, language, say

SIDES = ("base", "tuned")


def judged_rows(run_name: str, metric: str) -> list[Row]:
    """The judged rows of the run's newest evaluation; none without one."""
    run = find_ready(run_name)
    name = latest_evaluation(run)
    return load(run, name, metric)[0] if name else []


def filter_choices(names: Iterable[str], lang: str) -> list[tuple[str, str]]:
    return [(say(lang, f"filter_{name}"), name) for name in names]


def page_of(run_name: str, metric: str, sort: str, label: str, filter: str, search: str, at: int) -> OutputsPage:
    """One page of the rows of a run's newest evaluation, sorted and filtered as the page asks."""
    return outputs.outputs_page(judged_rows(run_name, metric), sort, filter, at, label or "", search or "")


def find_row(run_name: str, metric: str, number: object) -> Row:
    row = next((row for row in judged_rows(run_name, metric) if str(row["row"]) == str(number)), None)
    if row is None:
        raise UserError("That row isn't in this evaluation any more; reload the page.")
    return row


def outputs_table(page: OutputsPage, lang: str, selected: int | None) -> str:
    """Prompt, reference and both answers, their thoughts aside; a row can be opened."""
    if not page.rows:
        return html.block(say(lang, "outputs_none"), "muted small")
    headers = ["#", *(say(lang, f"column_{name}") for name in ("prompt", "reference", "base", "tuned", "mark"))]
    table_rows = []
    for row in page.rows:
        texts = (
            html.last_paragraph(row["messages"][-1]["content"]),
            row["references"][0] if row["references"] else "",
            *(answer_of(row[side]) or (say(lang, "vote_no_answer") if row[side].strip() else "") for side in SIDES),
        )
        cells = [f'<div class="cut">{html.esc(html.cut(text, 260))}</div>' for text in texts]
        for column, side in ((2, "base"), (3, "tuned")):
            cells[column] = verdict(row, side, lang) + cells[column] + slots_named(row, side, lang)
        cells.insert(0, f'<span class="muted num">{row["row"] + 1}</span>')
        cells.append(f'<span class="{row["mark"]}">{say(lang, "mark_" + row["mark"])}</span>')
        table_rows.append((str(row["row"]), cells, row["row"] == selected))
    return html.table(headers, table_rows)


def opened(row: Mapping[str, Any], lang: str) -> str:
    """One row in full: the conversation, the reference, where JSON differs from it field by field, thoughts folded, both
    answers with the words that differ marked, and each as the reference corrected."""
    thoughts, answers = zip(*(split_thoughts(row[side]) for side in SIDES), strict=True)
    base, tuned = html.differences(*answers)
    reference = "<br>".join(html.esc(text) for text in row["references"])
    target = row["references"][0] if row["references"] else ""

    def pair(texts: Sequence[str], judged: bool = False) -> str:
        cells = "".join(
            f'<div class="answer {side}-side"><span class="who">{html.chip(say(lang, "name_" + side), side)} '
            f"{verdict(row, side, lang) if judged else ''}</span>{text or '–'}</div>"
            for side, text in zip(SIDES, texts, strict=True)
        )
        return f'<div class="two">{cells}</div>'

    def note(key: str) -> str:
        return f'<p class="muted small">{say(lang, key)}</p>'

    title = say(lang, "row_thoughts")
    thought = pair([html.folded(title, html.block(html.esc(text), "small")) if text else "" for text in thoughts])
    listed = [slots_listed(row, side, lang) for side in SIDES]
    fields = note("row_slots") + pair(listed) if row.get("slots") else ""
    against = "" if not target else note("row_against") + pair([html.against(target, answer) for answer in answers])
    return html.sheet(
        f"{html.bubbles(row['messages'])}{note('column_reference')}<p>{reference}</p>"
        f"{fields}{thought if any(thoughts) else ''}{note('row_between')}{pair((base, tuned), judged=True)}{against}",
        say(lang, "row_title", n=row["row"] + 1),
    )


def explained(by_side: Mapping[str, Sequence[Mapping[str, Any]]], whose: str, lang: str) -> str:
    """One answer's tokens as base and as tuned see them."""
    sides = "".join(
        f'<div class="answer {side}-side"><span class="who">{html.chip(say(lang, "name_" + side), side)} '
        f'<span class="muted small">{say(lang, "why_mean", p=f"{100 * mean_probability(by_side[side]):.1f}")}</span></span>'
        f"{html.tokens(by_side[side])}</div>"
        for side in SIDES
    )
    note = f'<p class="muted small">{say(lang, "why_note")}</p>'
    return html.sheet(f'{note}<div class="two">{sides}</div>', say(lang, f"why_title_{whose}"))


def mean_probability(tokens: Sequence[Mapping[str, Any]]) -> float:
    """The geometric mean of the tokens' probabilities."""
    import math

    logs = [math.log(max(token["probability"], 1e-300)) for token in tokens]
    return math.exp(sum(logs) / max(len(logs), 1))


class OutputsView:
    """The list of an evaluation's answers with its filters, the row that is open, and why it was answered so."""

    def __init__(self, page: Page, fault: Any) -> None:
        self.page, self.fault = page, fault
        self.at, self.open_number = gr.State(0), gr.State(None)  # the page listed; the number of the row that is open
        self.searched = gr.State("")  # the text that the listed rows were searched for
        with gr.Column(visible=False) as self.box:
            self.counts = gr.HTML("", elem_id="outputs-counts")
            self._build_filters()
            with gr.Row(elem_classes="columns"):
                with gr.Column(scale=3, min_width=0):
                    self.table = picker(elem_id="outputs")
                    self.pager = Pager(self.at, "outputs")
                self._build_opened()
        self.listed = [self.counts, self.table, *self.pager.parts, self.searched]
        hidden = dict.fromkeys((self.beside, self.why_row, self.mislabelled), gr.update(visible=False))
        self.closed = {self.opened: "", self.reason: "", self.open_number: None, **hidden}
        self.asked = {
            "metric": self.metric,
            "sort": self.sort,
            "label": self.label,
            "filter": self.filter,
            "search": self.search,
        }
        self.parts = [self.box, *self.asked.values(), *self.listed, *self.closed]

    def _build_opened(self) -> None:
        """The open row, beside the table: what was clicked stays where it is."""
        with gr.Column(scale=2, min_width=0, visible=False, elem_id="row-beside") as self.beside:
            self.close = gr.Button(label("row_close"), size="sm", elem_id="row-close")
            self.opened = gr.HTML("", elem_id="opened-row")
            self.mislabelled = gr.Button(label("rows_mislabelled"), size="sm", visible=False, elem_id="row-mislabelled")
            with gr.Row(visible=False, elem_classes="small-row") as self.why_row:
                self.why = {side: gr.Button(label(f"why_{side}"), size="sm", elem_id=f"why-{side}") for side in SIDES}
            self.reason = gr.HTML("", elem_id="why-answer")

    def _build_filters(self) -> None:
        with gr.Row(elem_classes="small-fields"):
            narrow = {"min_width": 130, "scale": 1}
            self.metric = gr.Dropdown([], label=label("outputs_metric"), elem_id="outputs-metric", **narrow)
            order = [(label(f"sort_{name}"), name) for name in outputs.SORTS]
            self.sort = gr.Dropdown(order, value="row", label=label("outputs_sort"), elem_id="outputs-sort", **narrow)
            self.label = gr.Dropdown([], label=label("outputs_label"), elem_id="outputs-label", visible=False, **narrow)
            self.search = gr.Textbox(label=label("outputs_search"), max_lines=1, elem_id="outputs-search", **narrow)
        filters = [(label(f"filter_{name}"), name) for name in outputs.FILTERS]
        self.filter = gr.Radio(
            filters, value="all", label=label("filter_rows"), show_label=False, container=False, elem_id="filter"
        )

    def draw(self, page: OutputsPage, lang: str) -> dict[Any, Any]:
        return {
            self.counts: counted(page, lang),
            self.table: outputs_table(page, lang, None),
            **self.pager.shown(page, lang),
        }

    def show(self, run: runs.Run, name: str, lang: str) -> dict[Any, Any]:
        """The evaluation of that name from its first row on, by its leading metric."""
        leading = run.scores(name).get("leading", "")
        rows, metrics = load(run, name, leading)
        labels = sorted({row["label"] for row in rows if row.get("label")})
        offered = [(say(lang, "outputs_all"), ""), *((text, text) for text in labels)]
        return {
            **self.draw(outputs.outputs_page(rows), lang),
            **self.closed,
            self.metric: gr.update(
                choices=[(say(lang, f"metric_{key}"), key) for key in metrics],
                value=leading if leading in metrics else metrics[0],
            ),
            self.label: gr.update(choices=offered, value="", visible=len(labels) > 1),
            self.sort: "row",
            self.filter: gr.update(choices=filter_choices(outputs.offered_filters(rows), lang), value="all"),
            self.search: "",
            self.searched: "",
            self.box: gr.update(visible=True),
        }

    def hide(self) -> dict[Any, Any]:
        return {self.box: gr.update(visible=False), self.table: "", **self.closed}

    def list_rows(self, request: gr.Request, at: int = 0, step: int = 0, **filters: Any) -> dict[Any, Any]:
        """The page `step` pages from `at` of the rows asked for; the first one where neither is given."""
        lang = language(request)
        offered = outputs.offered_filters(judged_rows(filters["run_name"], filters["metric"]))
        if filters["filter"] not in offered:
            filters["filter"] = "all"
        listed = {
            self.filter: gr.update(choices=filter_choices(offered, lang), value=filters["filter"]),
            self.searched: filters["search"],
        }
        return self.draw(page_of(at=at + step, **filters), lang) | self.closed | listed

    def leave_search(self, request: gr.Request, searched: str, **filters: Any) -> dict[Any, Any]:
        """List the rows anew if the text was changed; leaving the field by a click on a row must not close that row again."""
        return {} if filters["search"] == searched else self.list_rows(request, **filters)

    def open_row(self, request: gr.Request, event: gr.EventData, at: int, **filters: Any) -> dict[Any, Any]:
        """One row with all that is known of it, marked in its page."""
        lang, row = language(request), find_row(filters["run_name"], filters["metric"], picked(event))
        return {
            self.beside: gr.update(visible=True),
            self.opened: opened(row, lang),
            self.table: outputs_table(page_of(at=at, **filters), lang, row["row"]),
            self.open_number: row["row"],
            self.reason: "",
            **self.offers(rights.visitor(request)),
        }

    def offers(self, visitor: rights.Visitor) -> dict[Any, Any]:
        """What this visitor may do with the open row."""
        return {
            self.why_row: gr.update(visible=visitor.may("chat")),
            self.mislabelled: gr.update(visible=visitor.may("own_data")),
        }

    def open_named(self, run_name: str, number: str, request: gr.Request) -> dict[Any, Any]:
        """The row of that number, under what the list shows when it is drawn anew."""
        leading = runs.named(run_name).scores(latest_evaluation(runs.named(run_name))).get("leading", "")
        row = find_row(run_name, leading, number)
        return {
            self.beside: gr.update(visible=True),
            self.opened: opened(row, language(request)),
            self.open_number: row["row"],
            **self.offers(rights.visitor(request)),
        }

    def close_row(self, request: gr.Request, at: int, **filters: Any) -> dict[Any, Any]:
        """The table alone again, at its page."""
        return {self.table: outputs_table(page_of(at=at, **filters), language(request), None), **self.closed}

    async def explain(
        self, request: gr.Request, run_name: str, metric: str, number: int | None, side: str
    ) -> dict[Any, Any]:
        """The tokens of one side's answer to the open row, as both models see them."""
        row = await work.in_thread(lambda: find_row(run_name, metric, number))
        pair = (await work.served(find_ready(run_name).name)).pair
        tokens = await work.in_thread(lambda: pair.explain(row["messages"], row[side], row.get("tools")))
        return {self.reason: explained(tokens, side, language(request))}

    def wire(self) -> None:
        filters, views = {"run_name": self.page.run, **self.asked}, [*self.listed, self.filter, *self.closed]
        fields = (self.metric, self.sort, self.label, self.filter)
        for trigger in (*(field.input for field in fields), self.search.submit):
            wire(trigger, self.list_rows, filters, views, self.fault)
        wire(self.search.blur, self.leave_search, {**filters, "searched": self.searched}, views, self.fault)
        for button, turn in self.pager.turns:
            wire(button.click, self.list_rows, {**filters, **turn}, views, self.fault)
        row = [self.beside, self.opened, self.table, self.open_number, self.reason, self.why_row, self.mislabelled]
        wire(self.close.click, self.close_row, {**filters, "at": self.at}, row, self.fault)
        wire(self.table.select, self.open_row, {**filters, "at": self.at}, row, self.fault, **EACH_PICK)
        options = {**MODEL_CLICK, "show_progress": "minimal"}
        for side, button in self.why.items():
            row_and_side = [self.page.run, self.metric, self.open_number, gr.State(side)]
            wire(button.click, self.explain, row_and_side, [self.reason], self.fault, needs="chat", **options)
