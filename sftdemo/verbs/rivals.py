"""Other systems on the rows of a saved evaluation: answered once, kept, and compared with the tuned model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sftdemo import files, runs
from sftdemo.config import EvaluateConfig
from sftdemo.errors import Text
from sftdemo.evaluation.systems_table import compare_systems, correct, sentence
from sftdemo.schema import Scores, SystemScores
from sftdemo.systems.system import Answers, System, Task

FOLDER = "systems"  # of an evaluation's folder: a file of answers for each system


def add_systems(run: runs.Run, name: str, systems: Sequence[System], task: Task) -> Scores:
    """Have each system answer the evaluation's rows, and write what that came to into its scores.json.

    Answers that an earlier evaluation of the run has from the same system to the same rows are taken from there. What was
    answered is saved before the next one is asked. Raises UserError where one can't answer.
    """
    scores = run.scores(name)
    for system in systems:
        key = _key(system, task)
        facts = _earlier(run, system.name, key)
        if facts is None:
            task.reporter.info(Text("Asking {name} …", name=system.name))
            facts = _saved(run, name, system, key, system.answer(task))
        else:
            task.reporter.info(Text("{name} has answered these rows before, and isn't asked again.", name=system.name))
        scores = compared(run, name, scores, {system.name: facts})
        with run.unless_deleted():
            files.write_json(run.path / "evaluations" / name / "scores.json", scores, parents=False)
    return scores


def compared(run: runs.Run, name: str, scores: Scores, systems: dict[str, SystemScores]) -> Scores:
    """The scores with `systems`, each scored and compared anew from its saved answers; beside those that are there."""
    outputs, seed = run.outputs(name), scores.get("settings", {}).get("seed", EvaluateConfig.seed)
    answers = {
        system: [row["answer"] for row in files.read_jsonl(_answers(run, facts))] for system, facts in systems.items()
    }
    table = compare_systems(outputs, scores["labels"], answers, seed)
    tuned_ms = scores.get("ms_per_answer")
    measured = {name: {**facts, **table[name]} for name, facts in systems.items()}
    every: dict[str, dict[str, Any]] = {**cast("dict[str, Any]", scores.get("systems", {})), **measured}
    correct(every)
    for system, facts in every.items():
        facts["summary"] = sentence(system, facts, scores["leading"], scores["n"], scores.get("groups"), tuned_ms)
    return cast("Scores", {**scores, "systems": every})


def _key(system: System, task: Task) -> str:
    """What decides a system's answers; the run's own training rows never change."""
    asked = [[row["messages"], row.get("tools")] for row in task.rows]
    identity = json.dumps([system.name, system.identity(), asked, task.longest, task.seed], ensure_ascii=False)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _earlier(run: runs.Run, system: str, key: str) -> SystemScores | None:
    """What an evaluation of the run knows of a system with the same key, if its answers are still there."""
    for evaluation in run.evaluations():
        facts = run.scores(evaluation).get("systems", {}).get(system)
        if facts and facts["key"] == key and _answers(run, facts).is_file():
            return facts
    return None


def _answers(run: runs.Run, facts: SystemScores) -> Path:
    """The file of a system's answers; scores.json of a run that came from elsewhere can't name one outside of the run."""
    folder = (run.path / "evaluations").resolve()
    path = (folder / facts["answers"]).resolve()
    if not path.is_relative_to(folder):
        raise runs.DamagedRun(
            run.name, "scores.json", Text("names a file outside of the run: {path}", path=facts["answers"])
        )
    return path


def _saved(run: runs.Run, name: str, system: System, key: str, answers: Answers) -> SystemScores:
    slug = re.sub(r"[^\w.+-]+", "-", system.name)[:60]
    place = f"{name}/{FOLDER}/{slug}-{key[:8]}.jsonl"
    with run.unless_deleted():
        path = run.path / "evaluations" / place
        path.parent.mkdir(exist_ok=True)
        files.write_jsonl(path, [{"row": row, "answer": text} for row, text in enumerate(answers.texts)], parents=False)
    facts: dict[str, Any] = {"key": key, "answers": place}
    if answers.seconds is not None:
        facts["ms_per_answer"] = 1000 * answers.seconds / max(len(answers.texts), 1)
    if answers.training_seconds is not None:
        facts["training_seconds"] = answers.training_seconds
    if answers.size is not None:
        facts["bytes"] = answers.size
    if answers.tokens:
        facts["tokens"] = answers.tokens
    return cast("SystemScores", facts)
