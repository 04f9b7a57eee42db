"""Other systems on the rows of a saved evaluation: answered once, kept, and compared with the tuned model."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sftdemo import files, runs
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.errors import Text, UserError
from sftdemo.evaluation.scorecard import SIDES
from sftdemo.evaluation.system_answers import answers_of, saved_texts, systems_of
from sftdemo.evaluation.systems_table import Named, SystemsTable, correct, sentence, sides_as_systems
from sftdemo.runs.answers import answers_path
from sftdemo.runs.partial import Partial
from sftdemo.schema.evaluation import ComparedTo, Scores, SystemScores
from sftdemo.systems import spec
from sftdemo.systems.system import Answers, KeptAnswer, System, Task

FOLDER = "systems"  # of an evaluation's folder: a file of answers for each system


def add_systems(run: runs.Run, name: str, systems: Sequence[System], task: Task, config: EvaluateConfig) -> Scores:
    """Have each system answer the evaluation's rows, and write what that came to into its scores.json.

    Answers that an earlier evaluation of the run has from the same system to the same rows are taken from there, unless all
    are asked `again`. What was answered is saved before the next one is asked, and what one had answered when it was
    interrupted is taken, `again` or not: it is newer than any complete set. Raises UserError where one can't answer.
    """
    scores, prices = run.scores(name), spec.prices(config)
    for system in systems:
        key = _key(system, task)
        facts = None if config.again else _earlier(run, system.name, key)
        if facts is None:
            kept = Partial.of(run, key, KeptAnswer)
            task.reporter.asking(system.name)
            task.reporter.info(_asking(system.name, len(kept.read()), len(task.rows)))
            facts = _saved(run, name, system, key, system.answer(replace(task, kept=kept)))
            kept.remove()
        else:
            task.reporter.info(_reused(system.name, facts))
        if prices and (tokens := facts.get("tokens")):
            prompt, completion = prices
            facts["cost"] = prompt * tokens.get("prompt_tokens", 0) + completion * tokens.get("completion_tokens", 0)
        scores = compared(run, name, scores, {system.name: facts})
        _write(run, name, scores)
    if more := chosen(run, name, scores):
        scores = cast("Scores", {**scores, **more})
        _write(run, name, scores)
    return scores


def _write(run: runs.Run, name: str, scores: Scores) -> None:
    with run.unless_deleted():
        files.write_json(run.path / "evaluations" / name / "scores.json", scores, parents=False)


def _asking(name: str, answered: int, rows: int) -> Text:
    """That a system is asked, and how many of its answers are there from when it was interrupted."""
    if not answered:
        return Text("Asking {name} …", name=name)
    text = "Asking {name} for what is missing: before it was interrupted it had answered {n} of {rows} rows …"
    return Text(text, name=name, n=answered, rows=rows)


def _reused(name: str, facts: SystemScores) -> Text:
    """That answers are taken from before, from when, and what the system called itself then."""
    if "answered" not in facts:
        return Text("{name} has answered these rows before, and isn't asked again.", name=name)
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["answered"]))
    about = ", ".join(f"{key} {value}" for key, value in facts.get("about", {}).items())
    if about:
        return Text(
            "{name} answered these rows on {date} ({about}), and isn't asked again; --again asks it.",
            name=name,
            date=date,
            about=about,
        )
    return Text("{name} answered these rows on {date}, and isn't asked again; --again asks it.", name=name, date=date)


def chosen(run: runs.Run, name: str, scores: Scores) -> dict[str, ComparedTo]:
    """{"to": …} where the evaluation's settings name a system that the others are measured against."""
    to = scores.get("settings", {}).get("to")
    return {"to": compared_to(run, name, to)} if to else {}


def compared(run: runs.Run, name: str, scores: Scores, systems: dict[str, SystemScores]) -> Scores:
    """The scores with `systems`, each scored and compared anew from its saved answers; beside those that are there."""
    outputs = cast("list[dict[str, Any]]", run.outputs(name))
    answers = {side: [str(row[side]) for row in outputs] for side in SIDES}
    answers |= {system: saved_texts(run, facts["answers"]) for system, facts in systems.items()}
    table = _table(run, name, scores, answers)
    measured = table.differences("tuned", list(systems))
    every: dict[str, dict[str, Any]] = {**cast("dict[str, Any]", scores.get("systems", {}))}
    every |= {
        system: {**facts, "scores": table.scores(system), "difference": measured[system]}
        for system, facts in systems.items()
    }
    intervals = {**scores.get("intervals", {}), **{system: table.intervals(system) for system in (*SIDES, *systems)}}
    base = {metric: difference["p"] for metric, difference in scores["difference"].items()}
    correct({system: facts["difference"] for system, facts in every.items()}, base)
    leading = scores["leading"]
    for system, facts in every.items():
        names = _named("tuned", scores), _named(system, cast("Scores", {**scores, "systems": every}))
        values = facts["difference"][leading]
        facts["summary"] = sentence(*names, values, leading, scores["n"], scores.get("groups"))
    seconds = run.status().get("seconds")
    trained = {} if seconds is None else {"training_seconds": seconds}
    return cast("Scores", {**scores, **trained, "systems": every, "intervals": intervals})


def compared_to(run: runs.Run, name: str, to: str, metric: str | None = None) -> ComparedTo:
    """How a system of the evaluation differs from every other by one metric, or by all, base and tuned among them.

    Raises UserError for one that hasn't answered its rows. What it came to is kept until the evaluation changes.
    """
    if to not in (known := systems_of(run, name)):
        raise UserError("to is {name!r}; choose one of the systems compared: {known}.", name=to, known=known)
    return cast("ComparedTo", _compared_to(str(run.path), name, to, metric, run.outputs_stamp(name), tuple(known)))


@lru_cache(maxsize=64)
def _compared_to(path: str, name: str, to: str, metric: str | None, *_: Any) -> dict[str, Any]:
    """The same, by all that tells one state of an evaluation from another."""
    run = runs.Run(Path(path))
    scores, known = run.scores(name), systems_of(run, name)
    others = [system for system in known if system != to]
    answers = {system: [answer[""] for answer in answers_of(run, name, system).values()] for system in known}
    differences = _table(run, name, scores, answers).differences(to, others, metric)
    correct(differences)
    leading, n, groups = scores["leading"], scores["n"], scores.get("groups")
    summaries = {
        system: sentence(_named(to, scores), _named(system, scores), differences[system][leading], leading, n, groups)
        for system in others
    }
    return {"system": to, "difference": differences, "summary": summaries}


def _table(run: runs.Run, name: str, scores: Scores, answers: dict[str, list[str]]) -> SystemsTable:
    """These answers to the evaluation's rows, scored."""
    seed = scores.get("settings", {}).get("seed", EvaluateConfig.seed)
    return SystemsTable(run.outputs(name), scores["labels"], answers, seed)


def _named(system: str, scores: Scores) -> Named:
    """A system's name and its time for an answer."""
    facts = sides_as_systems(scores)[system] if system in SIDES else scores["systems"][system]
    return Named.of(system, facts.get("ms_per_answer"))


def _key(system: System, task: Task) -> str:
    """What decides a system's answers; the run's own training rows never change."""
    asked = [[row["messages"], row.get("tools")] for row in task.rows]
    beams = [task.beams] if task.beams > 1 else []
    identity = json.dumps([system.name, system.identity(), asked, task.longest, task.seed, *beams], ensure_ascii=False)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _earlier(run: runs.Run, system: str, key: str) -> SystemScores | None:
    """What an evaluation of the run knows of a system with the same key, if its answers are still there."""
    for evaluation in run.evaluations():
        facts = run.scores(evaluation).get("systems", {}).get(system)
        if facts and facts["key"] == key and answers_path(run, facts["answers"]).is_file():
            return facts
    return None


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
    facts["answered"] = time.time()
    if answers.tokens:
        facts["tokens"] = answers.tokens
    if answers.about:
        facts["about"] = answers.about
    return cast("SystemScores", facts)
