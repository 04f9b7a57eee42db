"""Prompts from a run's test rows for its chat, and how the answers to them compare with the ones expected."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sftdemo import files, runs
from sftdemo.data.conversion.wording import Wording, wordings_of
from sftdemo.data.types import turn_text
from sftdemo.evaluation import outputs_table
from sftdemo.ui.parts import html
from sftdemo.ui.parts.page import latest_evaluation
from sftdemo.ui.tabs.conversation import BASE, Answer

PROMPTS = 4
MOST_KEPT, MOST_BYTES = 4, 4 * 2**20  # runs whose held-out rows stay in memory, and of how large files


def held_out(run: runs.Run) -> Mapping[str, Mapping[str, Any]]:
    """The rows of one question and one answer that weren't trained on, the first of each question, by the question."""
    versions = [files.version(run.path / "data" / f"{split}.jsonl") for split in ("test", "validation")]
    is_small = sum(size for _, size, _ in filter(None, versions)) <= MOST_BYTES
    return (_held_out if is_small else _held_out.__wrapped__)(run, *versions)


@functools.lru_cache(maxsize=MOST_KEPT)
def _held_out(run: runs.Run, *_versions: object) -> dict[str, dict[str, Any]]:
    """Read and checked once, and not at each question that somebody asks."""
    rows = run.examples("test") or run.examples("validation")
    asked = [row for row in rows if sum(message["role"] == "user" for message in row["messages"]) == 1]
    first = dict[str, dict[str, Any]]()
    for row in asked:
        first.setdefault(_question(row), row)
    return first


def example_prompts(run: runs.Run) -> list[dict[str, str]]:
    """A few questions from the held-out rows, different ones, as they would be typed, with the system prompt they came with."""
    wordings = wordings_of(run.config())
    prompts: dict[str, dict[str, str]] = {}
    for question, row in held_out(run).items():
        first, *_ = row["messages"]
        system = first["content"] if first["role"] == "system" else ""
        prompts[question] = {"text": _typed(question, wordings), "system": system, "label": row.get("label", "")}
    rows, by_label = list(prompts.values()), dict[str, dict[str, str]]()
    for row in rows:
        by_label.setdefault(row["label"], row)
    varied = list(by_label.values())
    return (varied + [row for row in rows if row not in varied])[:PROMPTS]


def _question(row: Mapping[str, Any]) -> str:
    return next(str(message["content"]) for message in row["messages"] if message["role"] == "user")


def _typed(question: str, wordings: Sequence[Wording]) -> str:
    """What would be typed to ask it; where the run has several wordings, all of it, since each row has its own."""
    return (wordings[0].taken_out(question) if len(wordings) == 1 else None) or question


def chips(prompts: Sequence[Mapping[str, str]]) -> str:
    if not prompts:
        return ""
    last_lines = [html.last_paragraph(prompt["text"]) for prompt in prompts]
    cards = "".join(html.card(str(i), html.esc(html.cut(text, 60)), False) for i, text in enumerate(last_lines))
    return html.block(f'<div class="prompts">{cards}</div>')


def expected_row(run: runs.Run, question: str) -> dict[str, Any] | None:
    """The held-out row that asks this, as a row of an evaluation's outputs; None where there is none."""
    row = held_out(run).get(question)
    if row is None:
        return None
    references = row.get("references") or [turn_text(row["messages"][-1])]
    return {"row": 0, "messages": row["messages"][:-1], "references": references, "label": row.get("label")}


def judged(run: runs.Run, row: Mapping[str, Any], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """The answers, each with whether it is right or what it scores, by what an evaluation's outputs are judged by."""
    base = answers[BASE].text if BASE in answers else ""
    evaluation = latest_evaluation(run)
    scores: Mapping[str, Any] = run.scores(evaluation) if evaluation else {}
    labels = (scores.get("labels") or sorted(run.config().get("data", {}).get("labels", {}))) if row["label"] else None
    marked = {}
    for name, answer in answers.items():
        rows = [{**row, "base": base, "tuned": answer.text}]
        metrics = outputs_table.metrics_for(rows)
        metric = scores.get("leading") if scores.get("leading") in metrics else metrics[0]
        result = outputs_table.judged(rows, str(metric), labels)[0]
        right = result["right"]["tuned"] if "right" in result else None
        marked[name] = replace(answer, right=right, score=None if right is not None else result["score"]["tuned"])
    return marked
