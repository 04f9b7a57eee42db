"""How several runs differ: in their settings, their scores, and, on the rows that both answered, each from each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftdemo import runs
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.evaluation.system_answers import by_question
from sftdemo.files import stamp
from sftdemo.runs import Run, ancestry
from sftdemo.systems import learned

MEASURED = ("nll", "likelihood", "likelihood_per_byte")


def compare_runs(compared: Sequence[Run]) -> dict[str, Any]:
    """What `runs.differences` says, and `between`: the paired differences of every two runs' newest evaluations.

    Each of `between` is {"first", "second", "n", "groups" (where rows share some), "left_out", "leading", "difference": {metric: {delta, low, high, p, p_holm}}}: second
    minus first, on the n rows with the same prompt and the same right answers that not one of both alone has learned from;
    of those there are `left_out`. `p_holm` is corrected for the metrics of that pair. Without rows n is 0 and there is no
    difference. Raises DamagedRun.
    """
    evaluated = [run for run in compared if run.evaluations()]
    answers = {run.name: _answers(run) for run in evaluated}
    pairs = itertools.combinations(evaluated, 2)
    between = [_paired(first, second, answers[first.name], answers[second.name]) for first, second in pairs]
    return runs.differences(list(compared)) | {"between": between}


def pair_of(first: Run, second: Run) -> Mapping[str, Any]:
    """One of `between`: the second run's newest evaluation against the first's. Both have one; raises DamagedRun.

    It is kept until one of the evaluations is written anew, as resampling takes a core for seconds.
    """
    newest = [(run, run.evaluations()[0]) for run in (first, second)]
    return _pair(*((str(run.path), name, run.outputs_stamp(name)) for run, name in newest))


@lru_cache(maxsize=512)
def _pair(first: tuple[str, str, Any], second: tuple[str, str, Any]) -> Mapping[str, Any]:
    """The pair of two runs' folders; the names and stamps of their newest evaluations tell it from an earlier one."""
    runs_paired = Run(Path(first[0])), Run(Path(second[0]))
    return _paired(*runs_paired, *map(_answers, runs_paired))


def shared_rows(evaluated: Sequence[Run]) -> list[dict[str, Mapping[str, Any]]]:
    """The questions that the newest evaluation of each of these runs has answers to, in the first one's order: {run: row}."""
    answers = {run.name: _answers(run) for run in evaluated}
    first = answers[evaluated[0].name]
    return [
        {name: rows[asked] for name, rows in answers.items()}
        for asked in first
        if all(asked in rows for rows in answers.values())
    ]


def _answers(run: Run) -> dict[tuple[str, int], Mapping[str, Any]]:
    """The rows of the newest evaluation by what was asked."""
    return by_question(run.outputs(run.evaluations()[0]))


def _paired(
    first: Run,
    second: Run,
    first_rows: Mapping[tuple[str, int], Mapping[str, Any]],
    second_rows: Mapping[tuple[str, int], Mapping[str, Any]],
) -> dict[str, Any]:
    """The second run's answers against the first's, as an evaluation has the tuned model's against the base's."""
    shared = [(row, second_rows[asked]) for asked, row in first_rows.items() if asked in second_rows]
    asked_rows = [row for row, _ in shared]
    seen = learned.seen(asked_rows, *(_learned(str(run.path), _stamps(run)) for run in (first, second)))
    outputs = [_row(*both) for both, (by_first, by_second) in zip(shared, seen, strict=True) if by_first == by_second]
    pair: dict[str, Any] = {"first": first.name, "second": second.name, "n": len(outputs)}
    if left_out := len(shared) - len(outputs):
        pair["left_out"] = left_out
    if not outputs:
        return pair | {"leading": None, "difference": {}}
    labels = [run.scores(run.evaluations()[0]).get("labels", []) for run in (first, second)]
    known = sorted({label for names in labels for label in names}) if all(labels) else []
    scores = score_outputs(outputs, known, EvaluateConfig.seed)
    return pair | {key: scores[key] for key in ("groups", "leading", "difference") if key in scores}


@lru_cache(maxsize=4)
def _learned(folder: str, stamps: Any) -> frozenset[str]:
    return frozenset(learned.learned_by(Run(Path(folder))))


def _stamps(run: Run) -> tuple[Any, ...]:
    """What differs once a run's rows are others."""
    paths = [run.path / "data" / f"{split}.jsonl" for split in learned.SPLITS]
    return tuple(stamp(path.stat()) if path.is_file() else None for path in [*paths, run.path / ancestry.NAME])


def _row(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """One question with the first run's answer on the base's side, and the second's on the tuned model's."""
    row = {key: first.get(key) for key in ("messages", "references", "label", "answer", "tools") if key in first}
    row |= {"base": first["tuned"], "tuned": second["tuned"]}
    if group := first.get("group") or second.get("group"):  # an evaluation from before groups were kept has none
        row["group"] = json.dumps([first.get("task"), group])
    lengths = ("answer_tokens", "answer_bytes")
    # Another tokenizer cuts the answer otherwise; losses by token are then of different things.
    if all(first.get(key) == second.get(key) for key in lengths):
        row |= {key: first[key] for key in lengths if key in first}
        for kind in MEASURED:
            if f"tuned_{kind}" in first and f"tuned_{kind}" in second:
                row |= {f"base_{kind}": first[f"tuned_{kind}"], f"tuned_{kind}": second[f"tuned_{kind}"]}
    return row
