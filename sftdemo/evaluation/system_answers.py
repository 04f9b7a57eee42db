"""Whose answers there are to the rows of a saved evaluation, and what they are: base, tuned, and every system asked beside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo import runs
from sftdemo.errors import Text, UserError
from sftdemo.evaluation.scorecard import SIDES
from sftdemo.runs import DamagedRun, Run, voting
from sftdemo.runs.answers import answers_path
from sftdemo.schema.evaluation import AnswerRow

OF_A_SIDE = ("", "_cut", "_nll", "_likelihood", "_likelihood_per_byte")  # what an outputs row has of base and of tuned
Row = Mapping[str, Any]


def systems_of(run: Run, evaluation: str) -> list[str]:
    """The names of the systems that answered the rows, base and tuned first."""
    return [*SIDES, *run.scores(evaluation).get("systems", {})]


def saved_texts(run: Run, place: str) -> list[str]:
    """The answers in a system's file, a text a row."""
    answers_path(run, place)  # none outside of the run
    return [row["answer"] for row in run._jsonl(f"evaluations/{place}", AnswerRow)]


def answers_of(run: Run, evaluation: str, system: str) -> dict[int, dict[str, Any]]:
    """What a system answered, {the row's place: {"": its text, …}}, with what is known of a side (see OF_A_SIDE).

    "run:NAME" that wasn't asked here answers with the evaluation that its raters are asked about (a visitor can't change which
    that is), as far as that has the same questions. Raises
    UserError for a system without answers.
    """
    outputs = run.outputs(evaluation)
    if system in SIDES:
        return {place: _of_side(row, system) for place, row in enumerate(outputs)}
    facts = run.scores(evaluation).get("systems", {}).get(system)
    if facts:
        texts = saved_texts(run, facts["answers"])
        if len(texts) != len(outputs):
            raise DamagedRun(run.name, facts["answers"], Text("has other rows than the evaluation"))
        return {place: {"": text} for place, text in enumerate(texts)}
    if system.startswith("run:") and (evaluated := voting.open_evaluation(other := runs.known(system[4:]))):
        theirs = by_question(other.outputs(evaluated))
        places = {asked: place for place, asked in enumerate(by_question(outputs))}
        return {places[asked]: _of_side(row, "tuned") for asked, row in theirs.items() if asked in places}
    raise UserError(
        "{name!r} has no answers to the rows of {evaluation}; there are: {known}.",
        name=system,
        evaluation=evaluation,
        known=systems_of(run, evaluation),
    )


def paired_rows(run: Run, evaluation: str, first: str, second: str) -> list[dict[str, Any]]:
    """The rows that both systems answered, with the first one's answer as `base` and the second one's as `tuned`."""
    answers = {"base": answers_of(run, evaluation, first), "tuned": answers_of(run, evaluation, second)}
    outputs: Sequence[Row] = run.outputs(evaluation)
    return [
        {key: value for key, value in row.items() if key.removesuffix(_suffix(key)) not in SIDES}
        | {f"{side}{key}": value for side in SIDES for key, value in answers[side][place].items()}
        for place, row in enumerate(outputs)
        if all(place in answers[side] for side in SIDES)
    ]


def by_question(rows: Sequence[Row]) -> dict[tuple[str, int], Row]:
    """Rows by what was asked; of a question that stands twice, each by its turn."""
    turns: Counter[str] = Counter()
    asked_rows: dict[tuple[str, int], Row] = {}
    for row in rows:
        asked = json.dumps([row["messages"], row["references"], row.get("label"), row.get("tools")], sort_keys=True)
        asked_rows[asked, turns[asked]] = row
        turns[asked] += 1
    return asked_rows


def _of_side(row: Row, side: str) -> dict[str, Any]:
    return {suffix: row[f"{side}{suffix}"] for suffix in OF_A_SIDE if f"{side}{suffix}" in row}


def _suffix(key: str) -> str:
    return next((suffix for suffix in OF_A_SIDE[1:] if key.endswith(suffix)), "")
