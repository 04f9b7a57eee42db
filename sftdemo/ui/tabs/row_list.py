"""The rows of the chosen file as a list: which are shown, in what order, and how one looks that is opened."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftdemo import runs
from sftdemo.data.types import Edit
from sftdemo.encoding.thoughts import answer_of
from sftdemo.errors import Text, UserError
from sftdemo.ui import models
from sftdemo.ui.data_reader import Reading
from sftdemo.ui.parts import html
from sftdemo.ui.parts.page import latest_evaluation
from sftdemo.ui.row_edits import Record, as_text, leaves, pair_of
from sftdemo.ui.tabs import left_out_rows
from sftdemo.ui.texts import number, say
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs.row_records import asked

PAGE_ROWS = 20
SHOWS = ("all", "problems", "edited", "left_out", "disagree")
SHOWN_EDITS = 8
LEFT_OUT = "out"  # before the number of the edit, where a row is picked that it left out
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Filters:
    """Which rows are listed: one of SHOWS, those of a label, those that hold a text."""

    show: str = "all"
    label: str = ""
    search: str = ""

    @classmethod
    def of(cls, show: Any, label: Any, search: Any) -> Filters:
        """What the page sent, as far as it is known."""
        return cls(show if show in SHOWS else "all", str(label or ""), str(search or "").strip().casefold())

    def take(self, record: Record) -> bool:
        if self.show == "problems" and not record["problems"]:
            return False
        if self.show == "edited" and not record["edited"]:
            return False
        if self.label and record["label"] != self.label:
            return False
        return not self.search or self.search in as_text(record["values"]).casefold()


@dataclass(frozen=True)
class Listing:
    """One page of rows: (number in the file, or of the edit that left it out, record) of each."""

    rows: list[tuple[int, Record]]
    page: int
    pages: int
    total: int


@dataclass(frozen=True)
class Opinion:
    """What a tuned model says of a held-out row that is labelled otherwise, how unlikely it holds the label, in nats, and
    whether its most probable label isn't what it answered."""

    answer: str
    surprise: float
    unsaid: bool = False

    def told(self, lang: str, most: int = 0) -> str:
        key = "rows_model_holds" if self.unsaid else "rows_model_says"
        return html.esc(say(lang, key, answer=html.cut(self.answer, most) if most else self.answer))


@functools.lru_cache(maxsize=4)
def _opinions(run: runs.Run, evaluation: str, version: tuple[int, int, int]) -> dict[str, Opinion]:
    opinions = {}
    for row in run.outputs(evaluation):
        answer = answer_of(row["tuned"])
        said = row.get("tuned_likelihood") or answer
        wanted = row["label"] or next(iter(row["references"]), "")
        if said and said.strip().casefold() != wanted.strip().casefold():
            surprise = row.get("tuned_nll", 0.0) / max(row.get("answer_tokens", 1), 1)
            unsaid = said.strip().casefold() != answer.strip().casefold()
            opinions[asked(row["messages"])] = Opinion(said, surprise, unsaid)
    return opinions


def opinions(run_name: str | None) -> dict[str, Opinion]:
    """By prompt, where the tuned model of a run disagrees with the label of a row of its newest evaluation."""
    if not run_name:
        return {}
    try:
        run = runs.named(run_name)
        name = latest_evaluation(run)
        return _opinions(run, name, run.outputs_stamp(name)) if name and models.is_ready(run) else {}
    except UserError:  # deleted meanwhile, or damaged: Evaluate says so
        return {}


def opinion_of(record: Record, said: Mapping[str, Opinion]) -> Opinion | None:
    """The opinion on a row; of a row that was edited since, its prompt or its label, there may be none any more."""
    opinion = next((said[prompt] for prompt in record["asked"] if prompt in said), None)
    agrees = opinion and str(record["label"] or "").strip().casefold() == opinion.answer.strip().casefold()
    return None if agrees else opinion


def listing(reading: Reading, filters: Filters, page: int, said: Mapping[str, Opinion], history: str = "") -> Listing:
    """One page of the rows that are asked for; a page past the end is the last. Those that a model disagrees on most
    come first where those are asked for, and those left out are the history's."""
    file = reading.listed
    if file is None:
        return Listing([], 0, 1, 0)
    if filters.show == "left_out":
        left_out = {number: record for number, record in left_out_rows.records(history) if filters.take(record)}
        return _page(list(left_out), page, left_out.__getitem__)
    if filters == Filters():
        numbers: Sequence[int] = range(len(file))
    else:
        taken = [(place, record) for place in range(len(file)) if filters.take(record := file.read(place))]
        if filters.show == "disagree":
            judged = [(opinion.surprise, place) for place, record in taken if (opinion := opinion_of(record, said))]
            numbers = [place for _, place in sorted(judged, key=lambda pair: (-pair[0], pair[1]))]
        else:
            numbers = [place for place, _ in taken]
    return _page(numbers, page, file.read)


def _page(numbers: Sequence[int], page: int, record: Callable[[int], Record]) -> Listing:
    pages = max(1, -(-len(numbers) // PAGE_ROWS))
    page = min(max(page, 0), pages - 1)
    shown = numbers[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]
    return Listing([(number, record(number)) for number in shown], page, pages, len(numbers))


def find(reading: Reading, key: Sequence[Any]) -> Record:
    """The record of the row that stands at (file, line, nth); raises UserError where it is gone."""
    file = reading.listed
    records: Iterator[Record] = map(file.read, range(len(file))) if file else iter(())
    for record in records:
        if [record["file"], record["line"], record["nth"]] == list(key):
            return record
    raise UserError("That row isn't there any more; list the rows anew.")


def find_asked(reading: Reading, prompt: str) -> Record | None:
    """The record of the row that asks this (`row_records.asked`)."""
    records = (reading.listed.read(place) for place in range(len(reading.listed))) if reading.listed else ()
    return next((record for record in records if prompt in record["asked"]), None)


def key_of(record: Record) -> list[Any]:
    return [record["file"], record["line"], record["nth"]]


# What is drawn


def table(rows: Listing, summary: Summary, said: Mapping[str, Opinion], show: str, lang: str) -> str:
    """The listed rows: line, prompt, answer, and what is to be said of each; a row can be opened."""
    if not rows.rows:
        return html.block(say(lang, "rows_none_disagree" if show == "disagree" else "rows_none"), "muted small")
    headers = [say(lang, key) for key in ("fault_line", "column_prompt", "column_answer", "rows_remarks")]
    drawn = []
    for place, record in rows.rows:
        texts = [f'<div class="cut">{html.esc(html.cut(text, 220))}</div>' for text in pair_of(record, summary)]
        line = f'<span class="muted num">{record["line"]}</span>'
        pick = f"{LEFT_OUT}{place}" if record["edited"] == "left_out" else str(place)
        drawn.append((pick, [line, *texts, remarks(record, said, lang)], False))
    return html.table(headers, drawn)


def remarks(record: Record, said: Mapping[str, Opinion], lang: str) -> str:
    """Marks of a row: its first problem, whether it was edited, what the model says."""
    marks = []
    for problem in record["problems"][:1]:
        sentence = in_words(Text.from_json(problem["problem"]), lang)
        marks.append(f'<span class="{"worse" if problem["kind"] == "faults" else "muted"}">{html.esc(sentence)}</span>')
    if opinion := opinion_of(record, said):
        marks.append(opinion.told(lang, 60))
    if record["edited"]:
        marks.append(html.chip(say(lang, f"rows_{record['edited']}")))
    return " ".join(marks)


def opened(record: Record, said: Mapping[str, Opinion], field: int, lang: str) -> str:
    """One row: its problems, what the model says, and its values, of which one can be picked to be changed."""
    notes = []
    for problem in record["problems"]:
        sentences = (in_words(Text.from_json(problem[key]), lang) for key in ("problem", "remedy"))
        notes.append(f'<p class="small worse">{html.esc(" ".join(sentences))}</p>')
    if opinion := opinion_of(record, said):
        notes.append(f'<p class="small">{opinion.told(lang)}</p>')
    rows = [
        (
            None if record["edited"] == "left_out" else str(at),
            [html.esc(field_title(record, path)), f'<div class="cut">{html.esc(html.cut(as_text(value), 300))}</div>'],
            at == field,
        )
        for at, (path, value) in enumerate(fields(record))
    ]
    listed = html.table([say(lang, "fault_field"), say(lang, "rows_value")], rows) if rows else ""
    return html.sheet("".join(notes) + listed, say(lang, "rows_line", n=record["line"]))


def new_title(lang: str) -> str:
    return html.sheet(f'<p class="muted small">{say(lang, "rows_new_help")}</p>', say(lang, "rows_new"))


def fields(record: Record) -> list[tuple[list[str | int], Any]]:
    """The values of a row that can be changed, with the way to each."""
    return leaves(record["values"]) if record["values"] else []


def field_title(record: Record, path: Sequence[str | int]) -> str:
    """A value's name: its column, and inside a conversation whose turn it is."""
    inside: Any = record["values"]
    parts = []
    for step in path:
        role = inside[step].get("role") or inside[step].get("from") if isinstance(inside[step], dict) else None
        parts.append(f"{int(step) + 1} {role}" if isinstance(step, int) and role else str(step))
        inside = inside[step]
    return " · ".join(parts)


def first_field(record: Record, summary: Summary) -> int:
    """The value that is most likely to be changed: the prompt's text, or the last turn's."""
    prompt, answer = pair_of(record, summary)
    wanted = answer if summary["format"] in ("messages", "sharegpt") else prompt
    texts = [as_text(value) for _, value in fields(record)]
    return texts.index(wanted) if wanted in texts else 0


def edits_made(entries: Sequence[tuple[int, Edit]], lang: str) -> str:
    """The last edits that count, the newest first."""
    if not entries:
        return ""
    lines = []
    for _, edit in list(reversed(entries))[:SHOWN_EDITS]:
        if edit["action"] == "change":
            old, new = (html.cut(as_text(edit[key]), 60) for key in ("old", "new"))  # type: ignore[literal-required]
            what = say(lang, "rows_edit_change", line=edit["line"], old=old or "–", new=new or "–")
        else:
            what = say(lang, f"rows_edit_{edit['action']}", line=edit["line"])
        lines.append(f"<li>{html.esc(what)}</li>")
    title = say(lang, "rows_edits", n=number(len(entries)))
    return html.block(html.folded(title, f"<ul>{''.join(lines)}</ul>"), "small")
