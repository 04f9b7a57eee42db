"""The answers behind the scores: how many got better, every row of them, one row in full, and why it was answered so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.encoding.thoughts import answer_of, split_thoughts
from sftdemo.errors import UserError
from sftdemo.evaluation import outputs_table as outputs
from sftdemo.evaluation.outputs_table import OutputsPage, Row
from sftdemo.evaluation.system_answers import systems_of
from sftdemo.ui import models
from sftdemo.ui.access import allowance, rights
from sftdemo.ui.parts import html, systems
from sftdemo.ui.parts.answers import counted, load, slots_listed, slots_named, verdict
from sftdemo.ui.parts.forms import MODEL_CLICK, wire
from sftdemo.ui.parts.page import EACH_PICK, Page, find_ready, latest_evaluation, picked, picker
from sftdemo.ui.parts.pager import Pager
from sftdemo.ui.parts.redraw import redraw
from sftdemo.ui.tabs.systems_view import system_at
from sftdemo.ui.texts import label, language, say

SIDES = ("base", "tuned")
MOST_SEARCHED = 200  # characters
BASE, TUNED = "0", "1"  # their places among the systems


def beside_at(run: runs.Run, evaluation: str, place: object) -> str:
    """The system at a place of the menu of those that stand beside tuned."""
    if (system := system_at(run, evaluation, place)) == "tuned":
        raise UserError("Choose a system other than the tuned model itself.")
    return system


def judged_rows(run_name: str, metric: str, beside: str = BASE) -> list[Row]:
    """The judged rows of the run's newest evaluation, with the system at the place `beside` as base; none without one."""
    run = find_ready(run_name)
    if not (name := latest_evaluation(run)):
        return []
    return load(run, name, metric, beside_at(run, name, beside))[0]


def titles(run_name: str, beside: str, lang: str) -> dict[str, str]:
    """What each answer of a judged row is headed with: by side, and the other systems by their places."""
    run = find_ready(run_name)
    known = systems_of(run, name) if (name := latest_evaluation(run)) else SIDES
    by_place = {place: title for title, place in systems.choices(known, lang, rights.current().owner)}
    return {**by_place, "base": by_place[str(beside)], "tuned": say(lang, "name_tuned")}


def column(titles: Mapping[str, str], beside: str) -> str:
    """The head of the first answers where they aren't the base's."""
    return "" if beside == BASE else titles["base"]


def filter_choices(names: Iterable[str], lang: str, titles: Mapping[str, str]) -> list[tuple[str, str]]:
    only = outputs.ONLY_RIGHT
    return [
        (say(lang, "filter_only", name=titles[only[name]]) if name in only else say(lang, f"filter_{name}"), name)
        for name in names
    ]


def page_of(
    run_name: str, metric: str, sort: str, label: str, filter: str, search: str, at: int, beside: str = BASE
) -> OutputsPage:
    """One page of the rows of a run's newest evaluation, sorted and filtered as the page asks."""
    return outputs.outputs_page(judged_rows(run_name, metric, beside), sort, filter, at, label or "", search or "")


def find_row(run_name: str, metric: str, number: object, beside: str = BASE) -> Row:
    row = next((row for row in judged_rows(run_name, metric, beside) if str(row["row"]) == str(number)), None)
    if row is None:
        raise UserError("That row isn't in this evaluation any more; reload the page.")
    return row


def outputs_table(page: OutputsPage, lang: str, selected: int | None, beside: str = "") -> str:
    """Prompt, reference and both answers, their thoughts aside; a row can be opened. `beside` is who stands in place of base."""
    if not page.rows:
        return html.block(say(lang, "outputs_none"), "muted small")
    headers = ["#", *(say(lang, f"column_{name}") for name in ("prompt", "reference", "base", "tuned", "mark"))]
    headers[3] = beside or headers[3]
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


def opened(row: Mapping[str, Any], lang: str, titles: Mapping[str, str] | None = None) -> str:
    """One row in full: the conversation, the reference, where JSON differs from it field by field, thoughts folded, both
    answers with the words that differ marked, what other systems answered, and each of both as the reference corrected."""
    titles = titles or {side: say(lang, f"name_{side}") for side in SIDES}
    thoughts, answers = zip(*(split_thoughts(row[side]) for side in SIDES), strict=True)
    base, tuned = html.marked(*answers)
    reference = "<br>".join(html.esc(text) for text in row["references"])
    target = row["references"][0] if row["references"] else ""

    def pair(texts: Sequence[str], judged: bool = False) -> str:
        cells = "".join(
            f'<div class="answer {side}-side"><span class="who">{html.chip(titles[side], side)} '
            f"{verdict(row, side, lang) if judged else ''}</span>{html.blank_lines(text) or '–'}</div>"
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
        f"{fields}{thought if any(thoughts) else ''}{note('row_between')}{pair((base, tuned), judged=True)}"
        f"{others(row, titles, lang)}{against}",
        say(lang, "row_title", n=row["row"] + 1),
    )


def others(row: Mapping[str, Any], titles: Mapping[str, str], lang: str) -> str:
    """What the systems answered that neither column of the table shows."""
    if not row.get("others"):
        return ""
    cells = "".join(
        f'<div class="answer"><span class="who">{html.chip(titles[name])} {verdict(row, name, lang)}</span>'
        f"{html.blank_lines(html.esc(answer_of(text))) or '–'}</div>"
        for name, text in row["others"].items()
    )
    return f'<p class="muted small">{say(lang, "row_others")}</p><div class="two">{cells}</div>'


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
        hidden = dict.fromkeys(
            (self.column, self.why_row, self.why["base"], self.mislabelled), gr.update(visible=False)
        )
        self.closed = {self.opened: "", self.reason: "", self.open_number: None, **hidden}
        self.asked = {
            "metric": self.metric,
            "sort": self.sort,
            "label": self.label,
            "filter": self.filter,
            "search": self.search,
            "beside": self.beside,
        }
        self.parts = [self.box, *self.asked.values(), *self.listed, *self.closed]

    def _build_opened(self) -> None:
        """The open row, beside the table: what was clicked stays where it is."""
        with gr.Column(scale=2, min_width=0, visible=False, elem_id="row-beside") as self.column:
            self.close = gr.Button(label("row_close"), size="sm", elem_id="row-close")
            self.opened = gr.HTML("", elem_id="opened-row")
            self.mislabelled = gr.Button(label("rows_mislabelled"), size="sm", visible=False, elem_id="row-mislabelled")
            with gr.Row(visible=False, elem_classes="small-row") as self.why_row:
                self.why = {side: gr.Button(label(f"why_{side}"), size="sm", elem_id=f"why-{side}") for side in SIDES}
            self.reason = gr.HTML("", elem_id="why-answer")

    def _build_filters(self) -> None:
        with gr.Row(elem_classes="small-fields"):
            narrow = {"min_width": 130, "scale": 1}
            self.beside = gr.Dropdown(
                [("", BASE)],
                value=BASE,
                label=label("outputs_beside"),
                elem_id="outputs-beside",
                visible=False,
                **narrow,
            )
            self.metric = gr.Dropdown([], label=label("outputs_metric"), elem_id="outputs-metric", **narrow)
            order = [(label(f"sort_{name}"), name) for name in outputs.SORTS]
            self.sort = gr.Dropdown(order, value="row", label=label("outputs_sort"), elem_id="outputs-sort", **narrow)
            self.label = gr.Dropdown([], label=label("outputs_label"), elem_id="outputs-label", visible=False, **narrow)
            self.search = gr.Textbox(label=label("outputs_search"), max_lines=1, max_length=MOST_SEARCHED, elem_id="outputs-search", **narrow)  # fmt: skip
        filters = [(label(f"filter_{name}"), name) for name in outputs.FILTERS]
        self.filter = gr.Radio(
            filters, value="all", label=label("filter_rows"), show_label=False, container=False, elem_id="filter"
        )

    def draw(self, page: OutputsPage, lang: str, beside: str = "") -> dict[Any, Any]:
        return {
            self.counts: counted(page, lang),
            self.table: outputs_table(page, lang, None, beside),
            **self.pager.shown(page, lang),
        }

    def show(self, run: runs.Run, name: str, lang: str) -> dict[Any, Any]:
        """The evaluation of that name from its first row on, by its leading metric."""
        leading = run.scores(name).get("leading", "")
        rows, metrics = load(run, name, leading, "base")
        named = titles(run.name, BASE, lang)
        besides = [(title, place) for place, title in named.items() if place not in (*SIDES, TUNED)]
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
            self.filter: gr.update(choices=filter_choices(outputs.offered_filters(rows), lang, named), value="all"),
            self.beside: gr.update(choices=besides, value=BASE, visible=len(besides) > 1),
            self.search: "",
            self.searched: "",
            self.box: gr.update(visible=True),
        }

    def hide(self) -> dict[Any, Any]:
        return {self.box: gr.update(visible=False), self.counts: "", self.table: "", **self.closed}

    def list_rows(
        self, request: gr.Request, at: int = 0, step: int = 0, beside: str = BASE, **filters: Any
    ) -> dict[Any, Any]:
        """The page `step` pages from `at` of the rows asked for; the first one where neither is given."""
        lang, run_name = language(request), filters["run_name"]
        offered = outputs.offered_filters(judged_rows(run_name, filters["metric"], beside))
        named = titles(run_name, beside, lang)
        if filters["filter"] not in offered:
            filters["filter"] = "all"
        listed = {
            self.filter: gr.update(choices=filter_choices(offered, lang, named), value=filters["filter"]),
            self.searched: filters["search"],
        }
        page = page_of(at=at + step, beside=beside, **filters)
        return self.draw(page, lang, column(named, beside)) | self.closed | listed

    def leave_search(self, request: gr.Request, searched: str, **filters: Any) -> dict[Any, Any]:
        """List the rows anew if the text was changed; leaving the field by a click on a row must not close that row again."""
        return {} if filters["search"] == searched else self.list_rows(request, **filters)

    def open_row(
        self, request: gr.Request, event: gr.EventData, at: int, beside: str = BASE, **filters: Any
    ) -> dict[Any, Any]:
        """One row with all that is known of it, marked in its page."""
        run_name, lang = filters["run_name"], language(request)
        row = find_row(run_name, filters["metric"], picked(event), beside)
        named, page = titles(run_name, beside, lang), page_of(at=at, beside=beside, **filters)
        return {
            self.column: gr.update(visible=True),
            self.opened: opened(row, lang, named),
            self.table: outputs_table(page, lang, row["row"], column(named, beside)),
            self.open_number: row["row"],
            self.reason: "",
            **self.offers(rights.visitor(request), beside),
        }

    def offers(self, visitor: rights.Visitor, beside: str = BASE) -> dict[Any, Any]:
        """What this visitor may do with the open row; only the run's own two models say why they answered so."""
        return {
            self.why_row: gr.update(visible=visitor.may("chat")),
            self.why["base"]: gr.update(visible=beside == BASE),
            self.mislabelled: gr.update(visible=visitor.may("own_data")),
        }

    def open_named(self, run_name: str, number: str, request: gr.Request) -> dict[Any, Any]:
        """The row of that number, under what the list shows when it is drawn anew."""
        leading = runs.named(run_name).scores(latest_evaluation(runs.named(run_name))).get("leading", "")
        row, lang = find_row(run_name, leading, number), language(request)
        return {
            self.column: gr.update(visible=True),
            self.opened: opened(row, lang, titles(run_name, BASE, lang)),
            self.open_number: row["row"],
            **self.offers(rights.visitor(request)),
        }

    def close_row(self, request: gr.Request, at: int, beside: str = BASE, **filters: Any) -> dict[Any, Any]:
        """The table alone again, at its page."""
        lang, page = language(request), page_of(at=at, beside=beside, **filters)
        head = column(titles(filters["run_name"], beside, lang), beside)
        return {self.table: outputs_table(page, lang, None, head), **self.closed}

    def list_again(
        self, request: gr.Request, drawn: str, number: int | None, at: int, beside: str = BASE, **filters: Any
    ) -> dict[Any, Any]:
        """The list as it stands, where it is `drawn`, and the row that is open."""
        if not drawn:
            return {}
        run, lang = runs.named(filters["run_name"]), language(request)
        menus = self.show(run, latest_evaluation(run), lang)
        shown = {**menus, **self.list_rows(request, at, beside=beside, **filters)}
        if number is None:
            return shown
        named, page = titles(run.name, beside, lang), page_of(at=at, beside=beside, **filters)
        row = find_row(run.name, filters["metric"], number, beside)
        return shown | {
            self.opened: opened(row, lang, named),
            self.table: outputs_table(page, lang, number, column(named, beside)),
        }

    async def explain(
        self, request: gr.Request, run_name: str, metric: str, number: int | None, side: str
    ) -> dict[Any, Any]:
        """The tokens of one side's answer to the open row, as both models see them."""
        row = await models.in_thread(lambda: find_row(run_name, metric, number))
        both = len(SIDES) * len(row[side].encode()) / allowance.BYTES_A_TOKEN
        allowance.spend(rights.visitor(request), "tokens", math.ceil(both))
        pair = (await models.served(find_ready(run_name).name)).pair
        tokens = await models.in_thread(lambda: pair.explain(row["messages"], row[side], row.get("tools")))
        return {self.reason: explained(tokens, side, language(request))}

    def wire(self) -> None:
        filters, views = {"run_name": self.page.run, **self.asked}, [*self.listed, self.filter, *self.closed]
        fields = (self.beside, self.metric, self.sort, self.label, self.filter)
        for trigger in (*(field.input for field in fields), self.search.submit):
            wire(trigger, self.list_rows, filters, views, self.fault)
        wire(self.search.blur, self.leave_search, {**filters, "searched": self.searched}, views, self.fault)
        for button, turn in self.pager.turns:
            wire(button.click, self.list_rows, {**filters, **turn}, views, self.fault)
        row = [*self.closed, self.table]
        wire(self.close.click, self.close_row, {**filters, "at": self.at}, row, self.fault)
        wire(self.table.select, self.open_row, {**filters, "at": self.at}, row, self.fault, **EACH_PICK)
        again = {**filters, "drawn": self.counts, "number": self.open_number, "at": self.at}
        menus = [self.metric, self.label, self.filter, self.beside]
        redraw(self.page, self.list_again, again, [self.counts, self.table, self.pager.place, self.opened, *menus])
        options = {**MODEL_CLICK, "show_progress": "minimal"}
        for side, button in self.why.items():
            row_and_side = [self.page.run, self.metric, self.open_number, gr.State(side)]
            wire(button.click, self.explain, row_and_side, [self.reason], self.fault, needs="chat", **options)
